"""Ours: from a command on the bus, as any client sends it, to the first ping reply.

The daemon is the real one, with its nats-server, its actors and the journal on a disk. The client is nats-py with the
operator's credentials from `client.json`; it publishes `endpoint.create` with a container and listens to the host's
reports.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

import nats
from figures import MS, Timeline
from nats.aio.client import Client
from nats.aio.msg import Msg
from sandboxes import Sandbox

from messages import catalog, codec, subjects
from messages.endpoint import CreateEndpoint, DeleteEndpoint, EndpointBound, EndpointView
from messages.network import CreateNetwork
from messages.port import PortBound, PortEvent, PortUnbound
from messages.replies import Accepted
from messages.struct import Command, kebab
from messages.tenant import CreateTenant
from services.processes import read_pid_file

HOST: Final = "bench"
TENANT: Final = "bench"
NETWORK: Final = "bench"
SUBNET: Final = "10.201.0.0/16"
WITHIN_S: Final = 20.0
STEADY: Final = 2  # endpoints that are always there: the one that is pinged, and the one that pings it meanwhile


class Attached:
    """One endpoint that is bound."""

    def __init__(self, name: str, address: str, sandbox: Sandbox) -> None:
        self.name = name
        self.address = address
        self.sandbox = sandbox


class Ours:
    """The daemon and a client of it."""

    name = "ours"

    def __init__(self, state_dir: Path, run_dir: Path, log: Path) -> None:
        self.run_dir = run_dir
        self._state_dir = state_dir
        self._log = log
        self._daemon: subprocess.Popen[str] | None = None
        self._client: Client | None = None
        self._numbers = itertools.count(1)
        self._reports: dict[tuple[str, type[PortEvent]], asyncio.Future[PortEvent]] = {}
        self._sandboxes: dict[str, Sandbox] = {}
        self.filled: list[Attached] = []

    @property
    def environment(self) -> dict[str, str]:
        """What a client on this host has."""
        places = {"NETPLUGIN_STATE_DIR": str(self._state_dir), "NETPLUGIN_RUN_DIR": str(self.run_dir)}
        return {**os.environ, **places, "NETPLUGIN_HOST": HOST}

    async def open(self, steady: list[Sandbox]) -> None:
        """The daemon is ready, and the steady endpoints are there."""
        await asyncio.to_thread(self._start)
        told = json.loads((self.run_dir / "client.json").read_text())
        self._client = await nats.connect(told["url"], nkeys_seed=told["nkey_seed_file"], name="bench")
        await self._client.subscribe(subjects.port_event(TENANT, HOST, "*"), cb=self._on_report)
        await self._client.flush()
        await self._ask(CreateTenant(tenant=TENANT))
        await self._ask(CreateNetwork(tenant=TENANT, network=NETWORK, subnets=(IPv4Network(SUBNET),)))
        await self.fill(steady)

    def _start(self) -> None:
        with self._log.open("w") as log:
            command = (sys.executable, "-P", "-m", "services.netplugin", "--host", HOST)
            self._daemon = subprocess.Popen(
                command, env=self.environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._daemon.stdout is not None
        if not self._daemon.stdout.readline().startswith("READY "):
            raise RuntimeError(f"netplugin did not get ready:\n{self._log.read_text()[-4000:]}")

    async def close(self) -> None:
        """Nothing of the daemon is left, nor of its switch."""
        if self._client is not None:
            await self._client.close()
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        if self._daemon is None:
            return
        self._daemon.send_signal(signal.SIGTERM)
        self._daemon.communicate(timeout=30)
        clean = (sys.executable, "-P", "-m", "services.netplugin", "--clean", "--purge")
        subprocess.run(clean, env=self.environment, check=True, capture_output=True, timeout=60)

    def pid(self, child: str) -> int:
        """The pid of `nats-server`, `ipam` or `host`."""
        process = read_pid_file(self.run_dir / "pids" / f"{child}.pid")
        assert process is not None
        return process.pid

    async def fill(self, sandboxes: list[Sandbox]) -> None:
        """An endpoint is in each of these; eight at a time."""
        at_once = asyncio.Semaphore(8)

        async def one(sandbox: Sandbox) -> Attached:
            async with at_once:
                attached, _ = await self._attach(sandbox)
                return attached

        self.filled += await asyncio.gather(*(one(sandbox) for sandbox in sandboxes))

    async def attach(self, sandbox: Sandbox) -> tuple[Attached, Timeline]:
        """An endpoint more, and when the steady one had answered it."""
        attached, line = await self._attach(sandbox)
        line.pinged_s = await asyncio.to_thread(sandbox.ping, self.filled[0].address)
        return attached, line

    async def _attach(self, sandbox: Sandbox) -> tuple[Attached, Timeline]:
        number = next(self._numbers)
        name = f"e{number}"
        bound = self._expect(name, PortBound)
        line = Timeline(time.perf_counter(), time.time_ns())
        command = CreateEndpoint(
            tenant=TENANT,
            network=NETWORK,
            name=name,
            container=f"netns:{sandbox.name}",
            host=HOST,
            addresses=(IPv4Network(SUBNET)[number],),  # one that was never used, as the peers choose it
        )
        view = (await self._ask(command)).object
        line.accepted_s = time.perf_counter()
        assert isinstance(view, EndpointView)
        async with asyncio.timeout(WITHIN_S):
            await bound
        line.bound_s = time.perf_counter()
        line.key = view.id
        return Attached(name, str(view.status.addresses[0].ip), sandbox), line

    async def detach(self, attached: Attached) -> None:
        """The endpoint is gone, its host has reported that nothing is left of its port, and it is so."""
        gone = self._expect(attached.name, PortUnbound)
        await self._ask(DeleteEndpoint(tenant=TENANT, network=NETWORK, name=attached.name))
        async with asyncio.timeout(WITHIN_S):
            await gone
        await attached.sandbox.emptied()

    async def _ask(self, command: Command) -> Accepted:
        assert self._client is not None
        construct, verb = catalog.construct_and_verb(kebab(type(command).__name__))
        subject = subjects.command(command.tenant, construct, verb)
        headers = {"Content-Type": codec.MSGPACK, "Np-Command-Id": os.urandom(16).hex()}
        answer = await self._client.request(subject, codec.encode(command), timeout=WITHIN_S, headers=headers)
        reply = codec.decode_reply(answer.data, (answer.headers or {}).get("Content-Type", codec.MSGPACK))
        if not isinstance(reply, Accepted):
            raise TypeError(f"{command} was answered with {reply}")
        return reply

    def _expect(self, name: str, kind: type[PortEvent]) -> asyncio.Future[PortEvent]:
        future: asyncio.Future[PortEvent] = asyncio.get_running_loop().create_future()
        self._reports[name, kind] = future
        return future

    async def _on_report(self, message: Msg) -> None:
        event = codec.decode_event(message.data)
        assert isinstance(event, PortEvent)
        future = self._reports.pop((event.name, type(event)), None)
        if future is not None and not future.done():
            future.set_result(event)

    async def look_up_journal(self, lines: list[Timeline]) -> None:
        """Each time line knows when the journal had its binding."""
        assert self._client is not None
        wanted = {line.key: line for line in lines}
        context = self._client.jetstream()
        subject = subjects.network_event(TENANT, NETWORK, "endpoint-bound", HOST)
        followed = await context.subscribe(subject, stream=subjects.JOURNAL_STREAM, ordered_consumer=True)
        while True:
            message = await followed.next_msg(timeout=WITHIN_S)
            event = codec.decode_event(message.data)
            if isinstance(event, EndpointBound) and event.endpoint in wanted:
                line = wanted[event.endpoint]
                line.recorded_ms = message.metadata.timestamp.timestamp() * MS - line.started_ns / 1e6
            if message.metadata.num_pending == 0:
                break
        await followed.unsubscribe()
