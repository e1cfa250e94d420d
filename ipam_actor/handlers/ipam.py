"""`ipam.show`."""

from __future__ import annotations

from messages.ipam import ShowIpam
from messages.replies import Items
from services.runtime.decision import Decision, Stamp

from ..holdings import addresses_view
from ..lookup import networks_of
from ..state import State


def show_ipam(state: State, command: ShowIpam, stamp: Stamp) -> Decision:
    """Every address of a network, of a tenant's, or with `fabric` of all: used, free and so on, as ranges.

    Refuses: `unknown-tenant`, `unknown-network`.
    """
    networks = networks_of(state, command.tenant, command.network)
    seq = max((found.aggregate.seq for found in networks), default=0)
    views = tuple(addresses_view(state, found, stamp.at_ns) for found in networks)
    return Decision(reply=Items(seq=seq, objects=views))
