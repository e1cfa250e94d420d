"""The journal's twin in memory: the same contract, no input or output, and failures on demand.

Simulations and tests run actors on it. `clock_ns` is the server's clock. `disturb` is asked before every append and
says what becomes of it: it may also wait, which is a slow journal.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from enum import Enum

import anyio

from .errors import Conflict, JournalFull, OutcomeUnknown, Unavailable
from .journal import BATCH_MAX, MESSAGE_ID_HEADER, Appended, Draft, Expectation, Identity, Recorded
from .subject_filters import includes, matches_any

DUPLICATE_WINDOW_S = 3600


class Fault(Enum):
    """What may become of an append."""

    NONE = "none"
    AWAY = "away"  # Unavailable, nothing written
    FULL = "full"  # JournalFull, nothing written
    LOST = "lost"  # OutcomeUnknown, nothing written
    ACK_LOST = "ack-lost"  # OutcomeUnknown, and written


Disturb = Callable[[Sequence[Draft]], Awaitable[Fault]]
Delay = Callable[[Recorded], Awaitable[None]]


class MemoryJournal:
    """`Journal` in this process's memory. Several actors may share one.

    `delay` is awaited before each event that a follower gets: so followers lag, each in its own time.
    """

    def __init__(
        self,
        clock_ns: Callable[[], int] = time.time_ns,
        disturb: Disturb | None = None,
        delay: Delay | None = None,
        created: str = "1970-01-01T00:00:00Z",
    ) -> None:
        self.disturb = disturb
        self.delay = delay
        self.is_away = False  # a partition: everything is Unavailable, followers wait
        self._clock_ns = clock_ns
        self._created = created
        self._events: list[Recorded] = []
        self._by_message_id: dict[str, int] = {}
        self._changed = anyio.Event()

    @property
    def events(self) -> Sequence[Recorded]:
        """All that was recorded, in order."""
        return tuple(self._events)

    def set_away(self, is_away: bool) -> None:  # noqa: FBT001  (the one thing it says)
        """The journal is away, or back: its followers go on."""
        self.is_away = is_away
        self._wake()

    async def append(self, drafts: Sequence[Draft], expectations: Sequence[Expectation]) -> Appended:
        """See `Journal.append`."""
        _check(drafts, expectations)
        fault = await self.disturb(drafts) if self.disturb else Fault.NONE
        self._check_there()
        if fault is Fault.AWAY:
            raise Unavailable("the journal is away")
        if fault is Fault.FULL:
            raise JournalFull("the journal is full")
        if fault is Fault.LOST:
            raise OutcomeUnknown("the append was lost")
        appended = self._record(drafts, expectations)
        if fault is Fault.ACK_LOST:
            raise OutcomeUnknown("the acknowledgement was lost")
        return appended

    def _record(self, drafts: Sequence[Draft], expectations: Sequence[Expectation]) -> Appended:
        known = [self._known(draft) for draft in drafts]
        if known[0]:
            return Appended(known[0], is_repeated=True)
        if any(known):
            raise Conflict("a later event of the batch was recorded before")
        for expectation in expectations:
            last_seq = self._last_seq(expectation.aggregate)
            if last_seq != expectation.last_seq:
                raise Conflict(f"{expectation.aggregate} is at {last_seq}, not {expectation.last_seq}")
        first_seq = len(self._events) + 1
        at_ns = self._clock_ns()
        for seq, draft in enumerate(drafts, first_seq):
            self._events.append(Recorded(seq, draft.subject, draft.payload, dict(draft.headers), at_ns))
            message_id = draft.headers.get(MESSAGE_ID_HEADER)
            if message_id is not None:
                self._by_message_id[message_id] = seq
        self._wake()
        return Appended(first_seq)

    def _known(self, draft: Draft) -> int:
        """The sequence that the draft's message id was recorded with, within the window; 0 for none."""
        seq = self._by_message_id.get(draft.headers.get(MESSAGE_ID_HEADER, ""), 0)
        is_recent = seq and self._events[seq - 1].at_ns > self._clock_ns() - DUPLICATE_WINDOW_S * 10**9
        return seq if is_recent else 0

    async def follow(self, filters: Sequence[str], after_seq: int = 0) -> AsyncGenerator[Recorded, None]:
        """See `Journal.follow`."""
        self._check_there()
        matching = _Matching(filters)
        seq = after_seq
        while True:
            while seq < len(self._events) and not self.is_away:
                recorded = self._events[seq]
                seq += 1
                if matching(recorded.subject):
                    if self.delay is not None:
                        await self.delay(recorded)
                    yield recorded
            changed = self._changed
            if seq >= len(self._events) or self.is_away:
                await changed.wait()

    async def last_seq(self, aggregate: str | None = None) -> int:
        """See `Journal.last_seq`."""
        self._check_there()
        return len(self._events) if aggregate is None else self._last_seq(aggregate)

    def _last_seq(self, aggregate: str) -> int:
        matching = _Matching((aggregate,))
        return next((each.seq for each in reversed(self._events) if matching(each.subject)), 0)

    async def read(self, filters: Sequence[str], after_seq: int, until_seq: int) -> Sequence[Recorded]:
        """See `Journal.read`."""
        self._check_there()
        matching = _Matching(filters)
        return [each for each in self._events[after_seq:until_seq] if matching(each.subject)]

    async def identity(self) -> Identity:
        """See `Journal.identity`."""
        self._check_there()
        return Identity(self._created, min(1, len(self._events)), len(self._events))

    def _check_there(self) -> None:
        if self.is_away:
            raise Unavailable("the journal is away")

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class MemorySnapshots:
    """`Snapshots` in this process's memory."""

    def __init__(self) -> None:
        self._newest: dict[str, tuple[int, bytes]] = {}

    async def save(self, actor: str, seq: int, state: bytes) -> None:
        """See `Snapshots.save`."""
        found = self._newest.get(actor)
        if found is None or found[0] < seq:
            self._newest[actor] = (seq, state)

    async def load(self, actor: str) -> tuple[int, bytes] | None:
        """See `Snapshots.load`."""
        return self._newest.get(actor)


class _Matching:
    """Whether a subject is one of the filters'; remembered, for there are few subjects and many events."""

    def __init__(self, filters: Sequence[str]) -> None:
        self._filters = tuple(filters)
        self._known: dict[str, bool] = {}

    def __call__(self, subject: str) -> bool:
        if subject not in self._known:
            self._known[subject] = matches_any(self._filters, subject)
        return self._known[subject]


def _check(drafts: Sequence[Draft], expectations: Sequence[Expectation]) -> None:
    """Raises: ValueError for what a caller may not ask for."""
    if not 1 <= len(drafts) <= BATCH_MAX:
        raise ValueError(f"{len(drafts)} drafts: expected 1 to {BATCH_MAX}")
    for expectation in expectations:
        if not any(includes(expectation.aggregate, draft.subject) for draft in drafts):
            raise ValueError(f"expectation on {expectation.aggregate}, which no draft is written to")
