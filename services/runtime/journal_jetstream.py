"""The journal on JetStream: one stream, appended to with expected sequences, read through ordered consumers.

An append of one event is one publish; of several, one atomic batch (ADR-50), whose commit is acknowledged. When nobody
says whether an append was written, it is sent again with the same message ids and expectations for as long as
`APPEND_WITHIN_S` allows: the server then has it already, has it now, or has what somebody else wrote first.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from messages.subjects import JOURNAL_STREAM, aggregate_of

from . import jetstream_api
from .bus import Bus
from .clock import rfc3339
from .errors import Conflict, JournalFull, OutcomeUnknown, Unavailable
from .jetstream_api import ApiError
from .journal import BATCH_MAX, MESSAGE_ID_HEADER, Appended, Draft, Expectation, Identity, Recorded
from .journal_follow import Feed, describe
from .streams import DUPLICATE_WINDOW_S
from .subject_filters import includes

APPEND_WITHIN_S = 2.0
ACK_WITHIN_S = 0.5  # then it is found out what became of it
ACK_PER_MESSAGE_S = 0.002  # more, of a batch
ACK_WITHIN_SUSPECT_S = 0.02  # of a journal that has just swallowed an append
RETRY_WAIT_S = 0.05  # a server that has just come back has no stream yet
FULL_RETRY_AFTER_S = 5.0
CLOCKS_DIFFER_S = 60.0  # how far this machine's clock and the server's may be apart
BATCHES_MAX = 16  # at once; the server takes 50 of everybody's

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_EXPECTED_SUBJECT = f"{_EXPECTED}-Subject"
_BATCH_NUMBER = "Nats-Batch-Sequence"
_NEVER = {"Nats-Expected-Last-Sequence": str(2**62)}  # nothing is written with this
_CONFLICTS = jetstream_api.LOST_RACE | {jetstream_api.DUPLICATE_IN_BATCH}

_Publication = tuple[str, bytes, dict[str, str]]  # subject, payload, headers


class JetStreamJournal:
    """`Journal` on the stream NP_JOURNAL, which `streams.ensure_streams` has made. The bus is its owner's to close."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._batch_prefix = secrets.token_hex(6)
        self._batch_numbers = itertools.count(1)
        self._batches = asyncio.Semaphore(BATCHES_MAX)
        self._is_suspect = False  # the last append was swallowed

    async def append(self, drafts: Sequence[Draft], expectations: Sequence[Expectation]) -> Appended:
        """See `Journal.append`."""
        messages = _messages(drafts, expectations)
        deadline = time.monotonic() + APPEND_WITHIN_S
        doubt: OutcomeUnknown | None = None
        while True:
            try:
                return await self._append_once(messages, drafts[0], expectations)
            except OutcomeUnknown as fault:
                doubt = fault
            except (Conflict, JournalFull):
                raise
            except Unavailable:
                if doubt is None:
                    raise
            await self._wait_to_retry(doubt, deadline)

    async def _wait_to_retry(self, doubt: OutcomeUnknown, deadline: float) -> None:
        """Return when the append may be sent again. Raises: OutcomeUnknown when its time is up."""
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await self._bus.connected()
                await asyncio.sleep(RETRY_WAIT_S)
        except (TimeoutError, Unavailable):
            raise doubt from None

    async def _append_once(
        self, messages: list[_Publication], first: Draft, expectations: Sequence[Expectation]
    ) -> Appended:
        """The append was recorded now or before. Raises: as `append`, but OutcomeUnknown at once."""
        after_seq = min(
            (each.last_seq for each in expectations if includes(each.aggregate, first.subject)), default=None
        )
        try:
            ack = await self._publish_all(messages)
        except ApiError as fault:
            return await self._after_refusal(fault, first, after_seq)
        except OutcomeUnknown as doubt:
            if not self._bus.is_connected:
                raise
            return await self._after_silence(doubt, first, after_seq)
        self._is_suspect = False
        return Appended(ack.seq if ack.duplicate else ack.seq - ack.count + 1, ack.duplicate)

    async def _after_refusal(self, fault: ApiError, first: Draft, after_seq: int | None) -> Appended:
        """Where the append was recorded before, if it was. Raises: Conflict, JournalFull, Unavailable, OutcomeUnknown.

        One server refuses the repetition of an append for its expectation, three say that it is a duplicate, a batch
        is refused without a sequence: so what was recorded since the expected sequence is looked through.
        """
        if fault.code not in _CONFLICTS | jetstream_api.FULL:
            raise Unavailable(f"the journal refused an append: {fault}") from fault
        seq = await self._find(first, after_seq)
        if seq is None and fault.code == jetstream_api.DUPLICATE_IN_BATCH:
            seq = await self._find(first, None)
        if seq is not None:
            return Appended(seq, is_repeated=True)
        if fault.code in jetstream_api.FULL:
            raise JournalFull(f"the journal takes no more: {fault}", FULL_RETRY_AFTER_S) from fault
        raise Conflict(fault.detail) from fault

    async def _after_silence(self, doubt: OutcomeUnknown, first: Draft, after_seq: int | None) -> Appended:
        """Where the append was recorded, though no acknowledgement came. Raises: JournalFull, OutcomeUnknown.

        A server whose disk is full (2.15) says nothing to what it could not store, but goes on refusing what cannot be.
        One server does both in the order in which they were sent: what is not there when it has refused the fence was
        swallowed. Three servers refuse at once and store later: then nothing is known.
        """
        with contextlib.suppress(ApiError):
            await self._publish(first.subject, b"", _NEVER, APPEND_WITHIN_S - ACK_WITHIN_S)
        seq = await self._find(first, after_seq)
        if seq is not None:  # it was slow
            self._is_suspect = False
            return Appended(seq, is_repeated=True)
        if first.headers.get(MESSAGE_ID_HEADER) is None or (await describe(self._bus)).config.num_replicas > 1:
            raise doubt
        self._is_suspect = True
        raise JournalFull("the journal does not store what it is sent: its disk may be full", FULL_RETRY_AFTER_S)

    async def _publish_all(self, messages: list[_Publication]) -> jetstream_api.PublishAck:
        """The server's acknowledgement of all messages. Raises: ApiError, Unavailable, OutcomeUnknown."""
        timeout_s = (ACK_WITHIN_SUSPECT_S if self._is_suspect else ACK_WITHIN_S) + ACK_PER_MESSAGE_S * len(messages)
        if len(messages) == 1:
            return await self._publish(*messages[0], timeout_s)
        async with self._batches:
            try:
                return await self._publish_batch(messages, timeout_s)
            except ApiError as fault:
                if fault.code != jetstream_api.BATCH_INCOMPLETE:
                    raise
            return await self._publish_batch(messages, timeout_s)  # others had taken the server's room for batches

    async def _publish_batch(self, messages: list[_Publication], timeout_s: float) -> jetstream_api.PublishAck:
        batch = {"Nats-Batch-Id": f"{self._batch_prefix}-{next(self._batch_numbers)}"}
        for number, (subject, payload, headers) in enumerate(messages[:-1], 1):
            await self._bus.publish(subject, payload, headers={**batch, _BATCH_NUMBER: str(number), **headers})
        subject, payload, headers = messages[-1]
        commit = {**batch, _BATCH_NUMBER: str(len(messages)), "Nats-Batch-Commit": "1"}
        return await self._publish(subject, payload, {**commit, **headers}, timeout_s)

    async def _publish(
        self, subject: str, payload: bytes, headers: dict[str, str], timeout_s: float
    ) -> jetstream_api.PublishAck:
        answer = await self._bus.request(subject, payload, headers=headers, timeout_s=timeout_s)
        return jetstream_api.publish_ack(answer.payload)

    async def _find(self, draft: Draft, after_seq: int | None) -> int | None:
        """The sequence of a draft by its message id, sought after a sequence or else in all of the duplicate window.

        Raises: OutcomeUnknown when the journal cannot be read.
        """
        message_id = draft.headers.get(MESSAGE_ID_HEADER)
        if message_id is None:
            return None
        window_s = DUPLICATE_WINDOW_S + CLOCKS_DIFFER_S
        since = "" if after_seq is not None else rfc3339(time.time_ns() - int(window_s * 1e9))
        feed = Feed(self._bus, (draft.subject,), after_seq or 0, since=since, is_headers_only=True)
        try:
            recorded = await _read(feed)
        except Unavailable as fault:
            raise OutcomeUnknown(fault.detail) from fault
        return next((each.seq for each in recorded if each.headers.get(MESSAGE_ID_HEADER) == message_id), None)

    async def follow(self, filters: Sequence[str], after_seq: int = 0) -> AsyncGenerator[Recorded, None]:
        """See `Journal.follow`."""
        feed = Feed(self._bus, filters, after_seq)
        queue = feed.queue
        try:
            await feed.open()
            while True:
                while queue:
                    yield queue.popleft()
                if feed.is_broken:
                    await feed.reopen()
                await feed.wait()
        finally:
            await feed.close()

    async def last_seq(self, aggregate: str | None = None) -> int:
        """See `Journal.last_seq`. Asks the stream's leader, so that on three servers it is never an old one."""
        if aggregate is None:
            return (await describe(self._bus)).state.last_seq
        try:
            answer = await jetstream_api.ask(self._bus, f"STREAM.MSG.GET.{JOURNAL_STREAM}", {"last_by_subj": aggregate})
        except ApiError as fault:
            if fault.code == jetstream_api.MESSAGE_NOT_FOUND:
                return 0
            raise Unavailable(f"there is no journal at {self._bus.where}: {fault}") from fault
        return int(answer["message"]["seq"])

    async def read(self, filters: Sequence[str], after_seq: int, until_seq: int) -> Sequence[Recorded]:
        """See `Journal.read`."""
        if until_seq <= after_seq:
            return []
        feed = Feed(self._bus, filters, after_seq)
        found = await _read(feed, until_seq)
        if feed.replicas == 1:
            return found
        # The server that read it may have been behind the others: then it is read on, to what the leader has.
        end = min(until_seq, max([await self.last_seq(each) for each in filters]))
        at = found[-1].seq if found else after_seq
        if at < end:
            async with aclosing(self.follow(filters, at)) as events:
                async for recorded in events:
                    if recorded.seq <= until_seq:
                        found.append(recorded)
                    if recorded.seq >= end:
                        break
        return found

    async def identity(self) -> Identity:
        """See `Journal.identity`."""
        stream = await describe(self._bus)
        return Identity(stream.created, stream.state.first_seq, stream.state.last_seq)


async def _read(feed: Feed, until_seq: int = sys.maxsize) -> list[Recorded]:
    """What a feed delivers until nothing more is there. Raises: Unavailable also when it breaks on the way."""
    found: list[Recorded] = []
    try:
        await feed.open()
        while True:
            while feed.queue:
                if feed.queue[0].seq > until_seq:
                    return found
                found.append(feed.queue.popleft())
            if not feed.pending:
                return found
            await feed.wait(is_bounded=True)
            if feed.is_broken:
                raise Unavailable("the journal went away while it was read")
    finally:
        await feed.close()


def _messages(drafts: Sequence[Draft], expectations: Sequence[Expectation]) -> list[_Publication]:
    """What is published: each expectation on the first draft of its aggregate. Raises: ValueError."""
    if not 1 <= len(drafts) <= BATCH_MAX:
        raise ValueError(f"{len(drafts)} drafts: expected 1 to {BATCH_MAX}")
    messages = [(draft.subject, draft.payload, dict(draft.headers)) for draft in drafts]
    firsts: dict[str, dict[str, str]] = {}
    for subject, _, headers in messages:
        firsts.setdefault(aggregate_of(subject), headers)
    for expectation in expectations:
        found = firsts.get(expectation.aggregate) or _first_of(messages, expectation.aggregate)
        found[_EXPECTED] = str(expectation.last_seq)
        found[_EXPECTED_SUBJECT] = expectation.aggregate
    return messages


def _first_of(messages: Sequence[_Publication], aggregate: str) -> dict[str, str]:
    """The headers of the first message that a filter other than an aggregate's own matches. Raises: ValueError."""
    for subject, _, headers in messages:
        if includes(aggregate, subject):
            return headers
    raise ValueError(f"expectation on {aggregate}, which no draft is written to")
