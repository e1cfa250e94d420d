"""The journal: the one log of what became true, and where actors keep snapshots of what they folded from it.

`journal_jetstream.py` and `snapshots_jetstream.py` keep them in JetStream, `journal_memory.py` in memory; all pass the
same contract tests (`tests/contract`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol

import msgspec

COMMAND_ID_HEADER = "Np-Command-Id"
BY_HEADER = "Np-By"
MESSAGE_ID_HEADER = "Nats-Msg-Id"
BATCH_MAX = 1000  # messages, ADR-50


class Draft(msgspec.Struct, frozen=True):
    """One event as it will be recorded."""

    subject: str
    payload: bytes
    headers: Mapping[str, str]


class Expectation(msgspec.Struct, frozen=True):
    """The last sequence in an aggregate that the decision was made on; 0 for an aggregate with no event yet."""

    aggregate: str  # subject filter
    last_seq: int


class Recorded(msgspec.Struct, frozen=True):
    """One event as the journal has it. `at_ns` is the server's time, nanoseconds since 1970.

    `headers` are the draft's and maybe some that the store added.
    """

    seq: int
    subject: str
    payload: bytes
    headers: Mapping[str, str]
    at_ns: int


class Identity(msgspec.Struct, frozen=True):
    """Which journal this is: another creation time is another journal, a smaller last sequence is an older one."""

    created: str
    first_seq: int
    last_seq: int


class Appended(msgspec.Struct, frozen=True):
    """Where an append was recorded. `is_repeated`: by an earlier one with the same message id, and not by this one."""

    first_seq: int
    is_repeated: bool = False


class Journal(Protocol):
    """An append-only log with optimistic concurrency by aggregate."""

    async def append(self, drafts: Sequence[Draft], expectations: Sequence[Expectation]) -> Appended:
        """All drafts are recorded, next to each other and in order, or none is. Returns where.

        Every aggregate that is written may have one expectation. Appending again what was recorded already (same
        `Nats-Msg-Id` on the first draft) returns the sequence that it has, with `is_repeated`; the drafts given now may
        differ from what was recorded then, so its caller reads that instead of applying these.
        Raises: Conflict (an expectation does not hold; nothing written), JournalFull (nothing written), Unavailable
        (nobody took it; nothing written), OutcomeUnknown (it may have been written: read before deciding again).
        """
        ...

    def follow(self, filters: Sequence[str], after_seq: int = 0) -> AsyncGenerator[Recorded, None]:
        """Every recorded event that a filter matches, in order and without a gap, from after `after_seq`, for ever.

        Survives a server that goes away and comes back. Ends only when it is closed: who stops before that closes it
        (`contextlib.aclosing`), or the server goes on sending until it is collected.
        Raises: Unavailable when the journal is not there at the start, or the connection has ended for good.
        """
        ...

    async def last_seq(self, aggregate: str | None = None) -> int:
        """The last sequence, of everything or of an aggregate; 0 for none. Raises: Unavailable."""
        ...

    async def read(self, filters: Sequence[str], after_seq: int, until_seq: int) -> Sequence[Recorded]:
        """The recorded events that a filter matches within (after_seq, until_seq], in order. Raises: Unavailable."""
        ...

    async def identity(self) -> Identity:
        """Which journal this is and how far it goes. Raises: Unavailable."""
        ...


class Snapshots(Protocol):
    """Where actors keep their newest folded state; losing one costs time, never truth."""

    async def save(self, actor: str, seq: int, state: bytes) -> None:
        """`state`, as of journal sequence `seq`, is the newest snapshot, unless one as new is there.

        Raises: Unavailable.
        """
        ...

    async def load(self, actor: str) -> tuple[int, bytes] | None:
        """The newest snapshot with its sequence; None for none, or none that is whole. Raises: Unavailable."""
        ...
