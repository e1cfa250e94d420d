"""Events of the journal in order and without a gap, whatever happens to the server: an ordered consumer of our own.

A `Feed` is one ephemeral push consumer in the server's memory, and what it has delivered. It is `broken` as soon as the
connection is lost, a sequence number is missing, or the server has said nothing for `SILENCE_S`; then it is opened
again from after the last event that was taken over. nats-py's own ordered consumer waits for missed heartbeats (deaf
for 15 to 20 s after a crash); this one is current again one round trip after the server is.

    opening --created--> delivering --lost, gap, silence--> broken --reopened from the last sequence--> opening

The feed has no task of its own: the bus calls `_on_message`; whoever iterates opens it again, and answers the server's
flow control once all that was delivered is taken, so a slow reader slows the server and never fills the memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import anyio
import msgspec
import structlog

from messages.subjects import JOURNAL_STREAM

from . import jetstream_api
from .bus import Bus, Message, Subscription
from .errors import Unavailable
from .jetstream_api import ApiError
from .journal import Recorded
from .subject_filters import cover, includes, matches_any

log = structlog.get_logger()

HEARTBEAT_S = 1.0
SILENCE_S = 2.5  # two heartbeats missed
IDLE_CONSUMER_S = 5.0  # the server forgets a consumer that nobody listens to
OLDER_FOR_S = 30.0  # a server of several that has less than was followed for longer has an older copy
REOPEN_WAIT_S = 0.05
_NS = 10**9


class JournalReplaced(RuntimeError):
    """The journal is another one, or an older copy, than the one that was followed: what was folded is not true.

    The process ends; started again, it builds its state from the journal that is there.
    """


class Position(msgspec.Struct, frozen=True):
    """What a delivery's reply subject says about it."""

    stream_seq: int
    consumer_seq: int
    at_ns: int
    pending: int  # matching events that are still to come


def position(reply: str) -> Position:
    """Where an event stands, from `$JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<delivered>.<stream seq>...`.

    After it come the consumer's sequence, the time, what is pending, and maybe a random token. Source: ADR-15.
    """
    tokens = reply.split(".")
    first = 5 if len(tokens) == 9 else 7  # the long form has domain and account in front
    return Position(*map(int, tokens[first : first + 4]))


class _StreamState(msgspec.Struct):
    first_seq: int
    last_seq: int


class _StreamConfig(msgspec.Struct):
    num_replicas: int


class Stream(msgspec.Struct):
    """The journal's stream, as the server describes it."""

    created: str
    config: _StreamConfig
    state: _StreamState


async def describe(bus: Bus) -> Stream:
    """The journal's stream now. Raises: Unavailable."""
    try:
        return msgspec.convert(await jetstream_api.ask(bus, f"STREAM.INFO.{JOURNAL_STREAM}"), Stream)
    except ApiError as fault:
        raise Unavailable(f"there is no journal at {bus.where}: {fault}") from fault


class Feed:
    """What one consumer after another has delivered, from after `after_seq` on."""

    def __init__(
        self, bus: Bus, filters: Sequence[str], after_seq: int = 0, *, since: str = "", is_headers_only: bool = False
    ) -> None:
        self.queue: deque[Recorded] = deque()
        self.is_broken = False
        self.replicas = 1  # of the stream, once it is open
        self.pending = 0  # matching events that the server had not yet sent with the last delivery
        self._bus = bus
        self._filters = tuple(filters)
        self._covering = cover(filters)
        self._is_exact = all(any(includes(f, c) for f in filters) for c in self._covering)
        self._is_headers_only = is_headers_only
        self._after_seq = after_seq
        self._since = since  # RFC 3339; the first consumer starts there instead
        self._delivered = 0  # the consumer's own count
        self._heard_at = 0.0
        self._created = ""  # when the journal was
        self._older_since = 0.0  # since when a server that answers has less than was followed; 0: it has not
        self._flow_reply = ""
        self._changed = asyncio.Event()
        self._subscription: Subscription | None = None
        self._consumer = ""
        self._unwatch: Callable[[], None] = bus.watch(self._on_connection)

    async def open(self) -> None:
        """Deliveries begin. Raises: Unavailable, JournalReplaced (only when they had begun before)."""
        await self._drop()
        await self._check_same()
        inbox = self._bus.new_inbox()
        self._consumer = inbox.rpartition(".")[2]
        self._delivered = 0
        self._flow_reply = ""
        self.is_broken = False
        self._subscription = await self._bus.subscribe(inbox, self._on_message)
        try:
            answer = await jetstream_api.ask(
                self._bus, f"CONSUMER.CREATE.{JOURNAL_STREAM}.{self._consumer}", self._request(inbox)
            )
        except ApiError as fault:
            raise Unavailable(f"there is no journal at {self._bus.where}: {fault}") from fault
        if not self._delivered:
            self.pending = int(answer.get("num_pending", 0))
        self._heard_at = asyncio.get_running_loop().time()

    async def _check_same(self) -> None:
        stream = await describe(self._bus)
        is_older = self._created == stream.created and stream.state.last_seq < self._after_seq
        if is_older and stream.config.num_replicas > 1 and self._is_to_be_forgiven():
            raise Unavailable(f"{self._bus.where} asked a server that is behind: it has {stream.state.last_seq}")
        if self._created and (is_older or self._created != stream.created):
            raise JournalReplaced(
                f"followed the journal of {self._created} to {self._after_seq}: "
                f"this one is of {stream.created} and ends at {stream.state.last_seq}"
            )
        self._created = stream.created
        self.replicas = stream.config.num_replicas
        self._older_since = 0.0

    def _is_to_be_forgiven(self) -> bool:
        """A leader that hung, or was cut off, answers for a moment as it left off, until it hears of the new one."""
        now = asyncio.get_running_loop().time()
        self._older_since = self._older_since or now
        return now < self._older_since + OLDER_FOR_S

    def _request(self, inbox: str) -> dict[str, object]:
        config: dict[str, object] = {
            "name": self._consumer,
            **self._start(),
            "deliver_subject": inbox,
            "ack_policy": "none",
            "max_deliver": 1,
            "flow_control": True,
            "idle_heartbeat": int(HEARTBEAT_S * _NS),
            "inactive_threshold": int(IDLE_CONSUMER_S * _NS),
            "num_replicas": 1,
            "mem_storage": True,
            "headers_only": self._is_headers_only,
            "filter_subjects": list(self._covering),
        }
        return {"stream_name": JOURNAL_STREAM, "config": config, "action": "create"}

    def _start(self) -> dict[str, object]:
        if self._since and not self._after_seq:
            return {"deliver_policy": "by_start_time", "opt_start_time": self._since}
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": self._after_seq + 1}

    async def close(self) -> None:
        """Nothing more is delivered, and the server forgets the consumer."""
        self._unwatch()
        self._unwatch = _nothing
        with anyio.CancelScope(shield=True):
            await self._drop()

    async def _drop(self) -> None:
        if self._subscription is None:
            return
        await self._subscription.close()
        self._subscription = None
        if self._bus.is_connected:
            try:
                await jetstream_api.call(self._bus, f"CONSUMER.DELETE.{JOURNAL_STREAM}.{self._consumer}")
            except (ApiError, Unavailable) as fault:  # gone with the server, or forgotten soon
                log.debug("consumer-not-deleted", consumer=self._consumer, detail=str(fault))

    async def wait(self, *, is_bounded: bool = False) -> None:
        """Return when the queue holds something or the feed is broken; when bounded, also when nothing is to come."""
        if self._flow_reply:
            await self._answer_flow_control()
        clock = asyncio.get_running_loop().time
        self._heard_at = max(self._heard_at, clock())  # a reader that took long is not the server's silence
        while not (self.queue or self.is_broken or (is_bounded and not self.pending)):
            self._changed.clear()
            with anyio.move_on_after(self._heard_at + SILENCE_S - clock()):
                await self._changed.wait()
            if clock() >= self._heard_at + SILENCE_S:
                self._break("silence")
            elif self._flow_reply:
                await self._answer_flow_control()

    async def reopen(self) -> None:
        """Deliveries go on from after the last event that was delivered, as soon as the server is there again.

        Raises: JournalReplaced; Unavailable when the connection has ended for good.
        """
        self._bus.reopenings += 1
        self._bus.deaf_feeds += 1
        try:
            while True:
                await self._bus.connected()
                try:
                    return await self.open()
                except Unavailable as fault:
                    log.debug("feed-not-open", detail=fault.detail)
                await anyio.sleep(REOPEN_WAIT_S)
        finally:
            self._bus.deaf_feeds -= 1

    async def _answer_flow_control(self) -> None:
        reply, self._flow_reply = self._flow_reply, ""
        try:
            await self._bus.publish(reply)
        except Unavailable:
            self._break("flow control")

    # -- what the bus calls

    def _on_message(self, message: Message) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        if self.is_broken:
            return
        if message.status:
            self._on_status(message)
            return
        at = position(message.reply)
        self._delivered += 1
        if at.consumer_seq != self._delivered:
            self._break("gap")
            return
        self._after_seq = at.stream_seq
        self.pending = at.pending
        if self._is_exact or matches_any(self._filters, message.subject):
            self.queue.append(Recorded(at.stream_seq, message.subject, message.payload, message.headers, at.at_ns))
        self._changed.set()

    def _on_status(self, message: Message) -> None:
        if message.status != "100":  # 409: the consumer is gone
            self._break(f"status {message.status}")
            return
        flow_reply = message.reply or message.headers.get("Nats-Consumer-Stalled", "")
        if flow_reply:
            self._flow_reply = flow_reply
            self._changed.set()
        elif int(message.headers.get("Nats-Last-Consumer", 0)) != self._delivered:
            self._break("gap before a heartbeat")

    def _on_connection(self, is_connected: bool) -> None:  # noqa: FBT001  (a watcher of the bus)
        if not is_connected:
            self._break("disconnected")

    def _break(self, reason: str) -> None:
        if not self.is_broken:
            log.debug("feed-broken", reason=reason, after_seq=self._after_seq)
        self.is_broken = True
        self._changed.set()


def _nothing() -> None:
    return
