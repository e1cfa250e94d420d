"""Questions about how things were: the journal folded up to a sequence or a moment, for one answer.

From the newest snapshot when that is no later, else from the beginning. Folding takes turns with everything else in the
actor; few at a time do it, and each has an end.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Generic, NamedTuple

import anyio
import structlog
from anyio.lowlevel import checkpoint

from messages.codec import Malformed
from messages.replies import AnyReply, Refused, Unavailable
from messages.struct import Command

from . import errors
from .decision import Definition, Rejection, Stamp, StateT
from .journal import Identity, Journal, Snapshots
from .projection import Projection

log = structlog.get_logger()

AT_HEADER = "Np-At"
AT_ONCE_MAX = 2  # foldings at the same time
WAITING_MAX = 8  # more are put off
WITHIN_S = 20.0
READ_AT_ONCE = 20_000  # sequences
TURN_EVERY = 200  # events: some milliseconds
BUSY_RETRY_AFTER_S = 1.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_is_seq = re.compile(r"[0-9]{1,18}").fullmatch


class At(NamedTuple):
    """A point of the past: a sequence, or (`seq` 0) a moment in nanoseconds since 1970."""

    seq: int
    at_ns: int = 0


def read_at(stated: str) -> At:
    """What the header says: a journal sequence, or a time with its zone. Raises: Malformed (`invalid-at`)."""
    if _is_seq(stated) and int(stated) > 0:
        return At(int(stated))
    try:
        moment = datetime.fromisoformat(stated)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or moment < _EPOCH:
        expected = "expected a journal sequence from 1 on, or a time such as 2026-01-31T12:00:00Z"
        raise Malformed("invalid-at", f"{AT_HEADER} is {stated[:40]!r}: {expected}")
    return At(0, (moment - _EPOCH) // timedelta(microseconds=1) * 1000)


class Past(Generic[StateT]):
    """Answers queries as they would have been answered then."""

    def __init__(self, definition: Definition[StateT], journal: Journal, snapshots: Snapshots | None) -> None:
        self._definition = definition
        self._journal = journal
        self._snapshots = snapshots
        self._turn = anyio.Semaphore(AT_ONCE_MAX)
        self._waiting = 0

    async def answer(self, query: Command, at: At, stamp: Stamp) -> AnyReply:
        """The answer of that moment.

        Refuses: `at-in-the-future`, `at-before-the-journal`, `past-too-far`, and what the query is refused for.
        """
        if self._waiting >= WAITING_MAX:
            detail = f"{self._waiting} questions about the past are being answered: ask again"
            return Unavailable(code="overloaded", detail=detail, retry_after_s=BUSY_RETRY_AFTER_S)
        self._waiting += 1
        try:
            async with self._turn:
                with anyio.fail_after(WITHIN_S):
                    return await self._answer(query, at, stamp)
        except TimeoutError:
            detail = f"folding the journal up to there takes longer than {WITHIN_S:g} s: ask for a later point"
            return Refused(code="past-too-far", detail=detail)
        except Rejection as rejection:
            return Refused(code=rejection.code, detail=rejection.detail)
        except errors.Unavailable as fault:
            return Unavailable(code="unavailable", detail=fault.detail, retry_after_s=fault.retry_after_s)
        finally:
            self._waiting -= 1

    async def _answer(self, query: Command, at: At, stamp: Stamp) -> AnyReply:
        identity = await self._journal.identity()
        _check(at, identity, stamp.at_ns)
        then = await self._folded(at, identity)
        then.check_readable((), query.tenant, getattr(query, "network", None))
        as_of = Stamp(at.at_ns or stamp.at_ns, stamp.command_id, stamp.by, stamp.entropy)
        reply = self._definition.handlers[type(query)](then.state, query, as_of).reply
        assert reply is not None, f"{type(query).__name__} is no query"
        return reply

    async def _folded(self, at: At, identity: Identity) -> Projection[StateT]:
        """The state of that moment. Raises: Unavailable."""
        then = Projection(self._definition, self._journal)
        await self._from_snapshot(then, at, identity)
        done_seq, end_seq = max(then.followed_seq, identity.first_seq - 1), at.seq or identity.last_seq
        while done_seq < end_seq:
            until_seq = min(done_seq + READ_AT_ONCE, end_seq)
            for count, recorded in enumerate(await self._journal.read(self._definition.follows, done_seq, until_seq)):
                if at.at_ns and recorded.at_ns > at.at_ns:
                    return then
                then.absorb(recorded)
                if count % TURN_EVERY == 0:
                    await checkpoint()
            done_seq = until_seq
        return then

    async def _from_snapshot(self, then: Projection[StateT], at: At, identity: Identity) -> None:
        """`then` begins at the newest snapshot, where that is no later than `at`."""
        found = await self._snapshots.load(self._definition.name) if self._snapshots else None
        if found is None or (at.seq and found[0] > at.seq):
            return
        if at.at_ns:
            newest = await self._journal.read(self._definition.follows, found[0] - 1, found[0])
            if not newest or newest[0].at_ns > at.at_ns:
                return
        then.restore(*found, identity)


def _check(at: At, identity: Identity, now_ns: int) -> None:
    """The journal holds that point. Refuses: `at-in-the-future`, `at-before-the-journal`."""
    if at.seq > identity.last_seq:
        raise Rejection("at-in-the-future", f"the journal ends at sequence {identity.last_seq}, found {at.seq}")
    if at.at_ns > now_ns:
        raise Rejection("at-in-the-future", "that time has not come yet: expected one of the past")
    if at.seq and at.seq < identity.first_seq:
        raise Rejection("at-before-the-journal", f"the journal begins at {identity.first_seq}, found {at.seq}")
