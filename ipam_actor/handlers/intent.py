"""`intent.apply`: many changes of one tenant, decided one after the other, recorded as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

from msgspec.structs import replace

from messages.endpoint import (
    AttachEndpoint,
    CreateEndpoint,
    DeleteEndpoint,
    DetachEndpoint,
    EndpointDeleted,
    EndpointUnbound,
)
from messages.intent import ApplyIntent, Change
from messages.network import CreateNetwork, DeleteNetwork, SetNetwork
from messages.pool import CreatePool, DeletePool
from messages.struct import kebab
from messages.subjects import aggregate_of
from messages.tenant import CreateTenant, DeleteTenant, SetTenant
from services.runtime.decision import Decision, Fact, Rejection, Stamp
from services.runtime.journal import BATCH_MAX

from ..apply import apply
from ..state import State
from .endpoint import attach_endpoint, create_endpoint, delete_endpoint, detach_endpoint
from .network import create_network, delete_network, set_network
from .pool import create_pool, delete_pool
from .tenant import create_tenant, delete_tenant, set_tenant

_DECIDE: Mapping[type[Any], Callable[[State, Any, Stamp], Decision]] = {
    CreateTenant: create_tenant,
    SetTenant: set_tenant,
    DeleteTenant: delete_tenant,
    CreateNetwork: create_network,
    SetNetwork: set_network,
    DeleteNetwork: delete_network,
    CreatePool: create_pool,
    DeletePool: delete_pool,
    CreateEndpoint: create_endpoint,
    AttachEndpoint: attach_endpoint,
    DetachEndpoint: detach_endpoint,
    DeleteEndpoint: delete_endpoint,
}


def apply_intent(state: State, command: ApplyIntent, stamp: Stamp) -> Decision:
    """Decide every change on the state that the ones before it would leave; all of them, or none.

    The state is as it was when this returns.
    Refuses: what a change alone is refused for, with its position; `changed-twice`, `too-many-events`.
    """
    supposed = _Supposed(state, command.tenant, stamp.at_ns)
    parts: list[int] = []
    notes: list[str] = []
    try:
        for position, change in enumerate(command.changes):
            own = replace(stamp, entropy=blake2b(stamp.entropy, digest_size=16, salt=b"%d" % position).digest())
            try:
                decision = _DECIDE[type(change)](state, change, own)
                supposed.add(decision.facts)
            except Rejection as rejection:
                where = f"change {position + 1} of {len(command.changes)} ({_name(change)})"
                raise Rejection(rejection.code, f"{where}: {rejection.detail}; nothing was done") from None
            parts.append(len(decision.facts))
            notes += decision.notes
    finally:
        supposed.undo()
    return Decision(tuple(supposed.facts), parts=tuple(parts), notes=tuple(notes))


class _Supposed:
    """Facts that the state holds as if they had been recorded, until they are undone."""

    def __init__(self, state: State, tenant: str, at_ns: int) -> None:
        self.facts: list[Fact] = []
        self._state = state
        self._at_ns = at_ns
        self._forks: dict[str, Any] = {}
        self._after_seq = state.newest_seq(tenant)

    def add(self, facts: tuple[Fact, ...]) -> None:
        """These facts are in the state as well. Refuses: `changed-twice`, `too-many-events`."""
        if len(self.facts) + len(facts) > BATCH_MAX:
            raise Rejection("too-many-events", f"an intent may become {BATCH_MAX} events: send it in parts")
        for fact in facts:
            event = fact.event
            if isinstance(event, (EndpointUnbound, EndpointDeleted)) and event.epoch > self._after_seq:
                raise Rejection("changed-twice", f"endpoint {event.name} was bound by a change before: leave one out")
            aggregate = aggregate_of(fact.subject)
            if aggregate not in self._forks:
                self._forks[aggregate] = self._state.fork(aggregate)
            self.facts.append(fact)
            apply(self._state, fact.subject, event, self._after_seq + len(self.facts), self._at_ns)  # type: ignore[arg-type]

    def undo(self) -> None:
        """The state is again what it was."""
        for aggregate, copy in self._forks.items():
            self._state.put_back(aggregate, copy)


def _name(change: Change) -> str:
    named = (getattr(change, "network", None), getattr(change, "name", None))
    return " ".join([kebab(type(change).__name__), "/".join([change.tenant, *filter(None, named)])])
