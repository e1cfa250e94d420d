"""The shell that every deciding actor runs in: the bus on one side, pure handlers in the middle, the journal on the
other.

Tasks, all in one group that ends when any of them fails (the supervisor then starts the process again):
the projection's follower (owns the state), one task a message in flight, one worker a lane (`committer`), and the
bus's own.
Told to stop, it finishes and answers what it has accepted, and puts off what comes meanwhile; then, or when that takes
too long, all are cancelled. A command that was not answered is sent again by its sender under the same id.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Generic

import anyio
import structlog
from anyio.abc import TaskGroup

from messages import subjects
from messages.catalog import construct_and_verb
from messages.codec import JSON, MSGPACK, Malformed, decode_command, encode
from messages.replies import Accepted, AnyReply, Refused, Unavailable
from messages.struct import Command, kebab
from messages.subjects import CommandSubject

from . import errors
from .actor_metrics import ActorMeasures
from .bus import Bus, Handler, Message, Subscription
from .clock import Clock
from .committer import Committer
from .decision import Definition, Origin, Stamp, StateT
from .discovery import EndpointStats, Service
from .envelope import Envelope, read_envelope, read_origin
from .journal import BY_HEADER, COMMAND_ID_HEADER, Journal, Snapshots
from .logs import about_command
from .metrics import Family, counter, gauge
from .past import AT_HEADER, Past
from .projection import SNAPSHOT_EVERY, Projection
from .version import VERSION

log = structlog.get_logger()

READ_WITHIN_S = 5.0
JOURNAL_WITHIN_S = 1.0
STOPPING = "this copy of the actor was told to stop: another one, or its next life, takes the command"
STOPPING_RETRY_AFTER_S = 0.5
IN_FLIGHT_MAX = 8_192
IN_FLIGHT_BYTES_MAX = 64 * 2**20  # of payloads
HEADERS_BYTES_MAX = 4096  # of a reply


class _InFlight:
    """What has arrived and is not answered yet."""

    def __init__(self) -> None:
        self.count = 0
        self.payload_bytes = 0
        self.by_command: dict[str, asyncio.Event] = {}  # set when it is answered

    @property
    def is_too_much(self) -> bool:
        return self.count > IN_FLIGHT_MAX or self.payload_bytes > IN_FLIGHT_BYTES_MAX


class Actor(Generic[StateT]):
    """One running copy of an actor. Any number may run side by side.

    `principals`: the user's name by public key; None on a server that cannot say who sends a command: there it listens
    to the commands' own subjects, and everything is done by `unverified`.
    """

    def __init__(
        self,
        definition: Definition[StateT],
        bus: Bus,
        journal: Journal,
        snapshots: Snapshots | None,
        clock: Clock,
        principals: Mapping[str, str] | None,
        *,
        host: str = "",
        snapshot_every: int = SNAPSHOT_EVERY,
    ) -> None:
        self.projection = Projection(definition, journal, snapshots, snapshot_every=snapshot_every)
        self.measures = ActorMeasures()
        self._definition = definition
        self._bus = bus
        self._journal = journal
        self._clock = clock
        self._principals = principals
        self._host = host
        self._in_flight = _InFlight()
        self._past = Past(definition, journal, snapshots)
        self._is_ending = False  # what still arrives is left to the copy that is started next
        self._stopping = asyncio.Event()  # what is accepted is finished, what still arrives is put off
        self._serving: set[asyncio.Task[None]] = set()
        self._stats = {_name_of(kind): self._endpoint(kind) for kind in definition.handlers}

    def _endpoint(self, kind: type[Command]) -> EndpointStats:
        construct, verb = construct_and_verb(kebab(kind.__name__))
        served = subjects.service if self._principals is not None else subjects.any_tenant
        return EndpointStats(f"{construct}-{verb}", served(construct, verb), self._definition.name)

    async def run(self, ready: anyio.Event) -> None:
        """Replay the journal, answer commands, until told to stop; `ready` is set when a command would be answered.

        Raises: Unavailable when the journal or the bus is away at the start.
        """
        async with anyio.create_task_group() as tasks:
            await self._run(tasks, ready)
            tasks.cancel_scope.cancel()

    def stop(self) -> None:
        """`run` returns once what was accepted has its answer."""
        self._stopping.set()

    async def _run(self, tasks: TaskGroup, ready: anyio.Event) -> None:
        async with asyncio.TaskGroup() as commands:
            current = anyio.Event()
            committer = Committer(
                self._definition,
                self.projection,
                self._journal,
                tasks,
                self.measures,
                lambda: self._bus.deaf_feeds > 0,
            )
            tasks.start_soon(lambda: self.projection.run(current=current))
            await current.wait()
            receive = self._receiver(committer, commands)
            subscriptions = [
                await self._bus.subscribe(stats.subject, receive, queue=self._definition.name)
                for stats in self._stats.values()
            ]
            service = Service(
                self._bus,
                self._definition.name,
                self._clock.entropy().hex(),
                VERSION,
                list(self._stats.values()),
                self._metadata,
            )
            await service.start(tasks)
            await self._bus.flush()
            log.info("actor-ready", seq=self.projection.followed_seq)
            ready.set()
            try:
                await self._stopping.wait()
                await self._drain(subscriptions)
            finally:
                self._is_ending = True

    async def _drain(self, subscriptions: Sequence[Subscription]) -> None:
        """What was accepted is answered; then nothing more arrives, and what had arrived is answered as well."""
        log.info("draining", in_flight=self._in_flight.count)
        await self._all_served()
        try:
            for subscription in subscriptions:
                await subscription.close()
            await self._bus.flush()  # its answer comes after all that was sent here before
            await self._all_served()
            await self._bus.flush()
        except errors.Unavailable as fault:
            log.warning("not-drained", detail=fault.detail)

    async def _all_served(self) -> None:
        if serving := set(self._serving):
            await asyncio.wait(serving)

    async def figures(self) -> list[Family]:
        """What there is to see of this copy from outside (`metrics`)."""
        followed = self.projection.followed_seq
        known = [
            *self.measures.families(),
            gauge("np_commands_in_flight", "Commands that are not answered yet.", self._in_flight.count),
            gauge("np_journal_followed_seq", "How far this copy has followed the journal.", followed),
            gauge("np_snapshot_seq", "The sequence of the newest snapshot known here.", self.projection.snapshot_seq),
            gauge("np_aggregates_blocked", "Aggregates with an event of a newer version.", self.projection.blocked),
            counter("np_bus_reconnections_total", "Connections to NATS made again.", self._bus.reconnections),
            counter("np_follow_reopenings_total", "Times the journal was followed anew.", self._bus.reopenings),
        ]
        last_seq: list[int] = []
        with anyio.move_on_after(JOURNAL_WITHIN_S):
            try:
                last_seq.append((await self._journal.identity()).last_seq)
            except errors.Unavailable as fault:
                log.debug("journal-not-seen", detail=fault.detail)
        known.append(gauge("np_journal_up", "Whether the journal answers.", len(last_seq)))
        return known + [gauge("np_journal_last_seq", "The journal's last sequence.", seq) for seq in last_seq]

    def _metadata(self) -> dict[str, str]:
        return {
            "host": self._host,
            "seq": str(self.projection.followed_seq),
            "in_flight": str(self._in_flight.count),
        }

    def _receiver(self, committer: Committer[StateT], commands: asyncio.TaskGroup) -> Handler:
        def receive(message: Message) -> None:
            if not self._is_ending:
                task = commands.create_task(self._handle(committer, message))
                self._serving.add(task)
                task.add_done_callback(self._serving.discard)

        return receive

    async def _handle(self, committer: Committer[StateT], message: Message) -> None:
        try:
            await self._serve(committer, message)
        except BaseException:
            self._is_ending = True
            raise

    async def _serve(self, committer: Committer[StateT], message: Message) -> None:
        """The message has its reply, the statistics count it, and a refusal is in the audit."""
        started_ns = time.perf_counter_ns()
        subject = subjects.parse_command(message.subject)
        self._in_flight.count += 1
        self._in_flight.payload_bytes += len(message.payload)
        envelope: Envelope | None = None
        try:
            envelope = self._envelope(message)
            about_command(f"{subject.construct}.{subject.verb}", subject.tenant, envelope.command_id)
            reply = await self._answer(committer, message, subject, envelope)
        except Malformed as fault:
            reply = Refused(code=fault.code, detail=fault.detail)
        finally:
            self._in_flight.count -= 1
            self._in_flight.payload_bytes -= len(message.payload)
        reply = await self._reply(message, reply)
        code = reply.code if isinstance(reply, (Refused, Unavailable)) else ""
        self._stats[f"{subject.construct}.{subject.verb}"].count(started_ns, code)
        self.measures.answered(f"{subject.construct}.{subject.verb}", reply, started_ns)
        _log_reply(reply, started_ns)
        if isinstance(reply, Refused) and not (envelope is not None and envelope.is_dry_run):
            await self._audit(message, subject, reply, envelope)

    def _envelope(self, message: Message) -> Envelope:
        """What the headers say; a command without an id is given one. Raises: Malformed."""
        envelope = read_envelope(message.headers, self._principals)
        return envelope if envelope.command_id else envelope._replace(command_id=self._clock.entropy().hex())

    async def _answer(
        self, committer: Committer[StateT], message: Message, subject: CommandSubject, envelope: Envelope
    ) -> AnyReply:
        """The answer to a message. Raises: Malformed."""
        if self._in_flight.is_too_much:
            detail = f"{self._in_flight.count} commands of {self._in_flight.payload_bytes} bytes are in flight"
            return Unavailable(code="overloaded", detail=detail, retry_after_s=0.5)
        if self._stopping.is_set():
            return Unavailable(code="stopping", detail=STOPPING, retry_after_s=STOPPING_RETRY_AFTER_S)
        command = decode_command(subject, message.payload, message.headers.get("Content-Type", MSGPACK))
        if envelope.min_seq > self.projection.followed_seq:
            with anyio.move_on_after(READ_WITHIN_S) as waiting:
                await self.projection.reached(envelope.min_seq)
            if waiting.cancelled_caught:
                detail = f"this copy has applied {self.projection.followed_seq}, not yet {envelope.min_seq}"
                return Unavailable(code="behind", detail=detail, retry_after_s=1.0)
        stamp = Stamp(self._clock.now_ns(), envelope.command_id, envelope.origin, self._clock.entropy())
        if envelope.at is not None and not committer.is_query(command):
            raise Malformed(
                "invalid-at", f"{AT_HEADER} stands with what changes something: the past can only be asked for"
            )
        if envelope.at is not None:
            return await self._past.answer(command, envelope.at, stamp)
        if envelope.is_dry_run and not committer.is_query(command):
            return await committer.plan(command, stamp)
        return await self._once(committer, command, stamp, envelope.trace)

    async def _once(self, committer: Committer[StateT], command: Command, stamp: Stamp, trace: str) -> AnyReply:
        """The answer to a command; a copy of it that arrives meanwhile waits, and is then answered as a repeat."""
        by_command = self._in_flight.by_command
        while (other := by_command.get(stamp.command_id)) is not None:
            await other.wait()
        done = by_command[stamp.command_id] = asyncio.Event()
        try:
            return await committer.submit(command, stamp, trace)
        finally:
            del by_command[stamp.command_id]
            done.set()

    async def _reply(self, message: Message, reply: AnyReply) -> AnyReply:
        """The sender, if it wants to know, is sent the reply, or why it cannot be: what it is sent is returned."""
        if not message.reply:
            return reply
        form = JSON if message.headers.get("Content-Type") == JSON else MSGPACK
        payload = encode(reply, form)
        limit = self._bus.payload_bytes_max - HEADERS_BYTES_MAX
        if len(payload) > limit:
            detail = f"the answer has {len(payload)} bytes, the server takes {limit}: ask for less at once"
            reply = Refused(code="answer-too-large", detail=detail)
            payload = encode(reply, form)
        await self._publish(message.reply, payload, {"Content-Type": form})
        return reply

    async def _audit(
        self, message: Message, subject: CommandSubject, reply: Refused, envelope: Envelope | None
    ) -> None:
        headers = {
            BY_HEADER: str(envelope.origin if envelope else self._sender(message)),
            COMMAND_ID_HEADER: envelope.command_id if envelope else "",
            "Np-Command": f"{subject.construct}.{subject.verb}",
            "Content-Type": MSGPACK,
        }
        what = f"{subject.construct}-{subject.verb}"
        await self._publish(subjects.audit(subject.tenant, what), encode(reply), headers)

    def _sender(self, message: Message) -> Origin:
        """Who sent what cannot be read."""
        try:
            return read_origin(message.headers, self._principals)
        except Malformed:
            return Origin("unidentified")

    async def _publish(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Send what may be lost: a sender without its answer sends again under the same id."""
        try:
            await self._bus.publish(subject, payload, headers=headers)
        except errors.Unavailable as fault:
            log.warning("not-sent", subject=subject, detail=fault.detail)


def _log_reply(reply: AnyReply, started_ns: int) -> None:
    """One line a command: what was refused or put off at `info`, the rest, which the journal has anyway, at `debug`."""
    took_ms = round((time.perf_counter_ns() - started_ns) / 1e6, 2)
    if isinstance(reply, Refused):
        log.info("refused", code=reply.code, detail=reply.detail, ms=took_ms)
    elif isinstance(reply, Unavailable):
        log.info("put-off", code=reply.code, detail=reply.detail, ms=took_ms)
    elif isinstance(reply, Accepted):
        log.debug("accepted", seq=reply.seq, is_changed=reply.is_changed, is_repeated=reply.is_repeated, ms=took_ms)
    else:
        log.debug("answered", seq=reply.seq, ms=took_ms)


def _name_of(kind: type[Command]) -> str:
    construct, verb = construct_and_verb(kebab(kind.__name__))
    return f"{construct}.{verb}"
