"""Whole intents: commands of one tenant that become true together, or not at all."""

from __future__ import annotations

from .endpoint import AttachEndpoint, CreateEndpoint, DeleteEndpoint, DetachEndpoint
from .names import Token, check_tenant
from .network import CreateNetwork, DeleteNetwork, SetNetwork
from .pool import CreatePool, DeletePool
from .struct import Command, View
from .tenant import CreateTenant, DeleteTenant, SetTenant

Change = (
    CreateTenant
    | SetTenant
    | DeleteTenant
    | CreateNetwork
    | SetNetwork
    | DeleteNetwork
    | CreatePool
    | DeletePool
    | CreateEndpoint
    | AttachEndpoint
    | DetachEndpoint
    | DeleteEndpoint
)
CHANGES_MAX = 1000


class ApplyIntent(Command, frozen=True, kw_only=True):
    """Do these changes of one tenant, in their order, as one: each is decided on what the ones before it leave.

    At most 1000, which may come to at most 1000 events. A change that is true already counts as done.
    """

    tenant: Token
    changes: tuple[Change, ...]

    def __post_init__(self) -> None:
        check_tenant(self.tenant)
        if not 1 <= len(self.changes) <= CHANGES_MAX:
            raise ValueError(f"{len(self.changes)} changes: expected 1 to {CHANGES_MAX}")
        for position, change in enumerate(self.changes, 1):
            if change.tenant != self.tenant:
                raise ValueError(
                    f"change {position} is of tenant {change.tenant!r}: expected {self.tenant!r}, as the whole is"
                )


class IntentView(View, frozen=True, kw_only=True):
    """What an intent became: of each change in its order, the journal sequence of its last event; 0 where it was true
    already.
    """

    tenant: str
    seqs: tuple[int, ...]
