"""A plan on its way: one command for all of a tenant where that fits into one batch of the journal, else several.

    tenant a:  set 1 -> set 2 -> ...      each is sent when the one before it is accepted
    tenant b:  set 1 -> ...               several tenants at a time

A set keeps its command id for its whole life: on a new connection it is sent again and done once. What was accepted
stays; the verb run again plans what is left.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence

import msgspec

from messages import codec, subjects
from messages.endpoint import AttachEndpoint, CreateEndpoint
from messages.intent import CHANGES_MAX, ApplyIntent, Change, IntentView
from messages.network import CreateNetwork, DeleteNetwork
from messages.replies import Accepted, Refused, Unavailable

from .client import ANSWER_TIMEOUT_S, LASTING_CODES, UNKNOWN, Client, decode, uuid_text
from .exits import FAILED, UNREACHABLE, Ended
from .intent_plan import Step
from .wire import Message, Unreachable

IN_FLIGHT_MAX = 8
EVENTS_MAX = 1000  # of one batch
BYTES_MAX = 200 * 1024  # of the 256 KB that a payload may have
ITEMS_MAX = codec.ITEMS_MAX - 1000


class Done(msgspec.Struct, frozen=True):
    """A step that has become true at this journal sequence; 0 when it had been so."""

    step: Step
    seq: int


class _Part(msgspec.Struct):
    """One command on its way, and which step each of its changes is of. `inbox` is empty while it is not sent."""

    command: ApplyIntent
    steps: list[Step]
    command_id: str = msgspec.field(default_factory=uuid_text)
    inbox: str = ""
    not_before: float = 0.0
    sent_at: float = 0.0


def perform(client: Client, steps: Sequence[Step], *, at_once: int = IN_FLIGHT_MAX) -> Iterator[Done]:
    """Every step, each when all its changes are recorded. Raises: Ended (1 refused, 3 unreachable); what was given
    out before is done.
    """
    left = {id(step): len(step.early) + len(step.late) for step in steps}
    flight = _Flight(client, parts_of(steps), at_once)
    while (answered := flight.next()) is not None:
        part, accepted = answered
        seqs = accepted.object.seqs if isinstance(accepted.object, IntentView) else (accepted.seq,) * len(part.steps)
        for step, seq in zip(part.steps, seqs, strict=True):
            left[id(step)] -= 1
            if not left[id(step)]:
                yield Done(step, seq)


def parts_of(steps: Sequence[Step]) -> list[deque[_Part]]:
    """For each tenant its commands, in the order in which they are to be sent; tenants that free something first."""
    tenants: dict[str, list[tuple[Change, Step]]] = {}
    for step in steps:
        tenants.setdefault(step.tenant, []).extend((change, step) for change in step.early)
    for step in steps:
        tenants.setdefault(step.tenant, []).extend((change, step) for change in step.late)
    freeing = {step.tenant for step in steps if step.early}
    ordered = sorted(tenants, key=lambda tenant: tenant not in freeing)
    return [deque(_parts(tenant, tenants[tenant])) for tenant in ordered]


def _parts(tenant: str, changes: Sequence[tuple[Change, Step]]) -> Iterator[_Part]:
    """The changes in as few commands as the limits allow."""
    taken: list[tuple[Change, Step]] = []
    events = octets = items = 0
    for change, step in changes:
        cost = (_events(change), len(codec.encode(change)), len(change.__struct_fields__) + 2 + _inner(change))
        is_full = events + cost[0] > EVENTS_MAX or octets + cost[1] > BYTES_MAX or items + cost[2] > ITEMS_MAX
        if taken and (is_full or len(taken) == CHANGES_MAX):
            yield _part(tenant, taken)
            taken, events, octets, items = [], 0, 0, 0
        taken.append((change, step))
        events, octets, items = events + cost[0], octets + cost[1], items + cost[2]
    yield _part(tenant, taken)


def _part(tenant: str, taken: Sequence[tuple[Change, Step]]) -> _Part:
    command = ApplyIntent(tenant=tenant, changes=tuple(change for change, _ in taken))
    return _Part(command, [step for _, step in taken])


def _events(change: Change) -> int:
    """At most how many events a change comes to."""
    if isinstance(change, CreateNetwork):
        return 4
    if isinstance(change, DeleteNetwork):
        return 3
    if isinstance(change, AttachEndpoint) and change.move:
        return 2
    if isinstance(change, CreateEndpoint) and (change.addresses or change.tag is not None):
        return 1 + 2 * len({address.version for address in change.addresses}) + 3 * (change.tag is not None)
    return 1


def _inner(change: Change) -> int:
    return sum(len(value) for value in (getattr(change, f) for f in change.__struct_fields__) if type(value) is tuple)


class _Flight:
    """Commands in flight, at most `at_once` and one of a tenant."""

    def __init__(self, client: Client, queues: Sequence[deque[_Part]], at_once: int) -> None:
        self._client = client
        self._waiting = deque(queues)
        self._flying: list[deque[_Part]] = []
        self._at_once = at_once

    def next(self) -> tuple[_Part, Accepted] | None:
        """The next that is accepted; None when all are. Raises: Ended."""
        while self._waiting or self._flying:
            while self._waiting and len(self._flying) < self._at_once:
                self._flying.append(self._waiting.popleft())
            message = self._client.attempt(self._send_and_hear, "an intent")
            found = self._accepted(message) if message is not None else None
            if found is not None:
                return found
        return None

    def _send_and_hear(self) -> Message | None:
        """What arrives next, after all that is due has been sent; None when nothing does for a while."""
        wire = self._client.wire
        try:
            for part in self._due():
                subject = subjects.command(part.command.tenant, "intent", "apply")
                part.inbox = wire.ask(subject, codec.encode(part.command), self._client.headers(part.command_id))
                part.sent_at = time.monotonic()
            return wire.next_message(min(self._client.deadline, time.monotonic() + self._tick_s()))
        except Unreachable:
            for queue in self._flying:
                queue[0].inbox = ""
            raise

    def _due(self) -> Iterator[_Part]:
        """What is not sent, or was not answered for long. Raises: Ended when the time of the whole is up."""
        now = time.monotonic()
        if now >= self._client.deadline:
            raise Ended(UNREACHABLE, f"an intent was not answered within {self._client.timeout_s:g} s{UNKNOWN}")
        for queue in self._flying:
            part = queue[0]
            if (not part.inbox and now >= part.not_before) or (part.inbox and now - part.sent_at > ANSWER_TIMEOUT_S):
                yield part

    def _tick_s(self) -> float:
        pauses = [queue[0].not_before - time.monotonic() for queue in self._flying if not queue[0].inbox]
        return max(0.01, min([*pauses, ANSWER_TIMEOUT_S]))

    def _accepted(self, message: Message) -> tuple[_Part, Accepted] | None:
        queue = next((queue for queue in self._flying if queue[0].inbox == message.subject), None)
        if queue is None:
            return None  # a second answer to what was sent twice
        part = queue[0]
        if message.status == 503:
            raise Ended(
                UNREACHABLE, "no ipam actor is running: the server answers, nobody takes intents; start `netplugin`"
            )
        reply = decode(message)
        if isinstance(reply, Unavailable):
            self._put_off(part, reply)
            return None
        if isinstance(reply, Refused):
            raise Ended(FAILED, f"refused: {reply.code}: tenant {part.command.tenant}: {reply.detail}")
        if not isinstance(reply, Accepted):
            raise Ended(FAILED, "an intent was not answered with accepted")
        queue.popleft()
        if not queue:
            self._flying.remove(queue)
        self._client.deadline = time.monotonic() + self._client.timeout_s
        return part, reply

    def _put_off(self, part: _Part, reply: Unavailable) -> None:
        if reply.code in LASTING_CODES or time.monotonic() + reply.retry_after_s >= self._client.deadline:
            unknown = UNKNOWN if reply.is_outcome_unknown else ""
            raise Ended(UNREACHABLE, f"unavailable: {reply.code}: {reply.detail}{unknown}")
        part.inbox = ""
        part.not_before = time.monotonic() + reply.retry_after_s
