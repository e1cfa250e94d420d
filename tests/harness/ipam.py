"""The ipam actor on a real nats-server, in this process or as the process that the daemon starts; and its client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
from nats.aio.client import Client
from nats.js.api import RawStreamMsg

from ipam_actor.definition import IPAM
from ipam_actor.state import State
from messages import subjects
from messages.catalog import construct_and_verb
from messages.codec import MSGPACK, decode_reply, encode
from messages.replies import AnyReply, Unavailable
from messages.struct import Command, kebab
from services.runtime import identity
from services.runtime.actor import Actor
from services.runtime.bus import Bus, Message, Options, connect
from services.runtime.clock import SystemClock
from services.runtime.decision import Definition
from services.runtime.errors import Unavailable as Away
from services.runtime.journal import COMMAND_ID_HEADER, Journal, Recorded, Snapshots
from services.runtime.journal_jetstream import JetStreamJournal
from services.runtime.snapshots_jetstream import JetStreamSnapshots
from services.runtime.streams import streams_ready
from tests.harness.nats import RunningNats

WITHIN_S = 40.0


def options(server: RunningNats, user: str) -> Options:
    return server.options(user)


class Asker:
    """A client that sends commands, as `user`, and repeats what nobody answered."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus

    async def send(
        self,
        subject: str,
        payload: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = WITHIN_S,
    ) -> Message:
        return await self.bus.request(subject, payload, headers=headers, timeout_s=timeout_s)

    async def ask(
        self,
        command: Command,
        command_id: str = "",
        headers: Mapping[str, str] | None = None,
        *,
        form: str = MSGPACK,
        timeout_s: float = WITHIN_S,
    ) -> AnyReply:
        stated = {"Content-Type": form, **({COMMAND_ID_HEADER: command_id} if command_id else {}), **(headers or {})}
        answer = await self.send(subject_of(command), encode(command, form), stated, timeout_s)
        assert answer.headers["Content-Type"] == form
        return decode_reply(answer.payload, form)

    async def until_answered(self, command: Command, command_id: str, timeout_s: float = 1.0) -> AnyReply:
        """What somebody answers at last, however often nobody is there or nobody can."""
        with anyio.fail_after(WITHIN_S):
            while True:
                try:
                    reply = await self.ask(command, command_id, timeout_s=timeout_s)
                except Away:
                    await self.bus.connected()
                    continue
                if not isinstance(reply, Unavailable):
                    return reply


def held(actor: Actor[State]) -> Any:
    """An actor's state as plain values: its dicts are in the order in which events of different aggregates came."""
    return msgspec.msgpack.decode(IPAM.dump_state(actor.projection.state))


def subject_of(command: Command) -> str:
    construct, verb = construct_and_verb(kebab(type(command).__name__))
    return subjects.command(command.tenant, construct, verb)


@asynccontextmanager
async def asker(server: RunningNats, user: str = identity.OPERATOR) -> AsyncIterator[Asker]:
    async with await connect(options(server, user)) as bus:
        yield Asker(bus)


@asynccontextmanager
async def running_ipam(
    server: RunningNats,
    *,
    snapshots: Snapshots | None = None,
    principals: Mapping[str, str] | None = None,
    wrap: Callable[[Journal], Journal] | None = None,
    definition: Definition[State] = IPAM,
    **settings: Any,
) -> AsyncIterator[Actor[State]]:
    """A copy in this process, with a connection of its own, that answers."""
    async with AsyncExitStack() as stack:
        own = await stack.enter_async_context(await connect(options(server, identity.IPAM)))
        await streams_ready(own, server.server.replicas)
        journal: Journal = JetStreamJournal(own)
        actor = Actor(
            definition,
            own,
            wrap(journal) if wrap else journal,
            snapshots or JetStreamSnapshots(own),
            SystemClock(),
            principals if principals is not None else server.principals,
            **settings,
        )
        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(own.broken)
        ready = anyio.Event()
        tasks.start_soon(actor.run, ready)
        with anyio.fail_after(WITHIN_S):
            await ready.wait()
        yield actor
        tasks.cancel_scope.cancel()


class IpamProcess:
    """`python -m ipam_actor`, as the daemon starts it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.lines: list[dict[str, Any]] = []
        self.others: list[str] = []
        self._environment = {**os.environ, **environment}
        self._changed = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ipam_actor"], env=self._environment, stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            with self._changed:
                if line.startswith("{"):
                    self.lines.append(json.loads(line))
                else:
                    self.others.append(line)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def said(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    def wait_for(self, event: str, times: int = 1) -> None:
        """Returns when it has logged this event so often."""
        with self._changed:
            found = self._changed.wait_for(lambda: len(self.said(event)) >= times, WITHIN_S)
        assert found, f"no {event} in {self.lines} {self.others}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def wait(self) -> int:
        """Its exit status."""
        assert self._process is not None
        assert self._reader is not None
        assert self._process.stderr is not None
        status = self._process.wait(WITHIN_S)
        self._reader.join()
        self._process.stderr.close()
        self._process = None
        return status

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self.wait()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None


@contextmanager
def ipam_process(server: RunningNats, **settings: str) -> Iterator[IpamProcess]:
    """One that answers, and is gone after the test."""
    with ipam_process_at(server.url, server.keys_dir, **settings) as process:
        process.wait_for("actor-ready")
        yield process


@contextmanager
def ipam_process_at(url: str, keys_dir: Path, **settings: str) -> Iterator[IpamProcess]:
    """One that has been started; credentials are given only where there are any."""
    seed = identity.seed_file(keys_dir, identity.IPAM)
    environment = {
        "NETPLUGIN_NATS_URL": url,
        "NETPLUGIN_HOST": "h1",
        "NETPLUGIN_STATE_DIR": str(keys_dir.parent),
        **({"NETPLUGIN_CREDS": str(seed)} if seed.exists() else {}),
        **{f"NETPLUGIN_{name.upper()}": value for name, value in settings.items()},
    }
    process = IpamProcess(environment)
    process.start()
    try:
        yield process
    finally:
        if process.is_running:
            process.end(signal.SIGKILL)


async def journal_of(server: RunningNats) -> Sequence[Recorded]:
    """Everything that is recorded."""
    async with await connect(options(server, identity.IPAM)) as bus:
        journal = JetStreamJournal(bus)
        return await journal.read([subjects.ALL_EVENTS], 0, await journal.last_seq())


async def audited(server: RunningNats) -> list[RawStreamMsg]:
    """Every message of the audit so far."""
    client = await server.connect()
    context = client.jetstream()
    count = (await context.stream_info(subjects.AUDIT_STREAM)).state.messages
    found = [await context.get_msg(subjects.AUDIT_STREAM, number) for number in range(1, count + 1)]
    await client.close()
    return found


async def settled(client: Client) -> None:
    """The server has answered all that the client sent, and its refusals have been heard."""
    for _ in range(3):
        await client.flush()
