"""`host.join`, `remove`, `get`, `list`."""

from __future__ import annotations

from messages.host import GetHost, HostJoined, HostRemoved, JoinHost, ListHosts, RemoveHost
from messages.replies import Item, Items
from services.runtime.decision import Decision, Rejection, Stamp

from .. import facts
from ..lookup import some_of
from ..records import HostRecord
from ..state import State
from ..views import endpoints_by_host, host_view

_SAID = (  # of a host by itself
    "driver",
    "datapath",
    "version",
    "bridge",
    "vtep",
    "vtep_mac",
    "underlay_mtu_bytes",
    "uplinks",
)


def join_host(state: State, command: JoinHost, _stamp: Stamp) -> Decision:
    """The host is a member and says this of itself. Identical: nothing changes; other: the newest stands."""
    show = GetHost(tenant=command.tenant, host=command.host)
    found = state.hosts.hosts.get(command.host)
    said = {name: getattr(command, name) for name in _SAID}
    if found is not None and all(getattr(found, name) == value for name, value in said.items()):
        return Decision((), show)
    return Decision((facts.of_hosts(HostJoined(host=command.host, **said)),), show)


def remove_host(state: State, command: RemoveHost, _stamp: Stamp) -> Decision:
    """Forget a host that holds no endpoint; what rested because of it, rests no longer.

    Refuses: `unknown-host`, `host-in-use`.
    """
    require_host(state, command.host)
    bound = sorted(
        f"{tenant}/{network}/{endpoint.name}"
        for tenant, networks in state.networks.items()
        for network, aggregate in networks.items()
        for endpoint in aggregate.endpoints.values()
        if endpoint.binding is not None and endpoint.binding.host == command.host
    )
    if bound:
        raise Rejection(
            "host-in-use", f"host {command.host} still holds endpoints ({some_of(bound)}): detach or delete them first"
        )
    return Decision((facts.of_hosts(HostRemoved(host=command.host)),))


def get_host(state: State, command: GetHost, _stamp: Stamp) -> Decision:
    """One host. Refuses: `unknown-host`."""
    host = require_host(state, command.host)
    view = host_view(command.host, host, endpoints_by_host(state)[command.host])
    return Decision(reply=Item(seq=state.hosts.seq, object=view))


def list_hosts(state: State, _command: ListHosts, _stamp: Stamp) -> Decision:
    """All hosts in the order of their names."""
    endpoints = endpoints_by_host(state)
    views = tuple(host_view(name, host, endpoints[name]) for name, host in sorted(state.hosts.hosts.items()))
    return Decision(reply=Items(seq=state.hosts.seq, objects=views))


def require_host(state: State, host: str) -> HostRecord:
    """A host that is a member. Refuses: `unknown-host`."""
    found = state.hosts.hosts.get(host)
    if found is None:
        members = some_of(sorted(state.hosts.hosts)) or "none yet"
        raise Rejection("unknown-host", f"host {host} is not a member of the cluster (members: {members})")
    return found
