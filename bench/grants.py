"""How fast ipam gives out addresses: one command at a time, and many clients at once in one network.

A nats-server that fsyncs every write and the ipam actor as a process, on loopback. The first figure is what a command
takes beyond one durable publish to the same journal; the second is grants a second, and what each cost the actor and
the server in processor time, which stays the same where the machine has other things to do.

    PYTHONPATH=. build/venv/bin/python bench/grants.py [--json] [--clients N] [--profile FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final

from figures import MS, percentile

from messages import catalog, codec, subjects
from messages.endpoint import CreateEndpoint, EndpointView
from messages.network import CreateNetwork
from messages.replies import Accepted
from messages.struct import Command, kebab
from services.nats_server import NatsServer
from services.runtime import bus as nats
from services.runtime import identity
from services.runtime.journal import COMMAND_ID_HEADER
from services.runtime.subject_filters import includes

HOST: Final = "bench"
TENANT: Final = "default"
NETWORK: Final = "grants"
SUBNET: Final = "10.0.0.0/12"
IDLE_RUNS: Final = 300
WITHIN_S: Final = 20.0
CLIENT_PROCESSES: Final = 2
BUDGET_PER_S: Final = 3000


class Process:
    """A process of the bench, and the processor time that it took."""

    def __init__(self, arguments: list[str], environment: dict[str, str], log: Path) -> None:
        with log.open("w") as stderr:
            self._process = subprocess.Popen(arguments, env={**os.environ, **environment}, stderr=stderr)
        self._log = log

    async def says(self, text: str, within_s: float = WITHIN_S) -> None:
        """Its log has this text. Raises: RuntimeError when it ends before."""
        deadline = time.monotonic() + within_s
        while text not in self._log.read_text():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self._process.args!r} did not say {text!r}:\n{self._log.read_text()[-3000:]}")
            await asyncio.sleep(0.02)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def cpu_s(self) -> float:
        """User and system time until now."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(WITHIN_S)


class Running:
    """The server and the actor."""

    def __init__(self, directory: Path, profile: Path | None) -> None:
        self.server = NatsServer(directory, directory / "run", HOST)
        self._directory = directory
        self._profile = profile
        self.processes: dict[str, Process] = {}

    async def open(self) -> None:
        """The actor answers."""
        await self.open_server()
        await self.open_ipam()

    async def open_server(self, *, is_durable: bool = True) -> None:
        """The server serves; only to be filled quickly, it may do so without a write on disk for each message."""
        invocation = self.server.invocation()
        if not is_durable:
            file = Path(invocation.arguments[-1])
            file.write_text(file.read_text().replace("sync_interval: always", "sync_interval: 2m"))
        server = Process(list(invocation.arguments), dict(invocation.environment), self._directory / "nats.log")
        self.processes["nats-server"] = server
        await server.says("Server is ready")
        self.server.is_ready_line("Server is ready")

    async def open_ipam(self, within_s: float = WITHIN_S) -> None:
        """The actor answers."""
        settings = {
            "NETPLUGIN_NATS_URL": self.server.url,
            "NETPLUGIN_CREDS": str(identity.seed_file(self.server.keys_dir, identity.IPAM)),
            "NETPLUGIN_HOST": HOST,
            "NETPLUGIN_STATE_DIR": str(self._directory),
        }
        profiled = ["-m", "cProfile", "-o", str(self._profile)] if self._profile else []
        actor = Process([sys.executable, *profiled, "-m", "ipam_actor"], settings, self._directory / "ipam.log")
        self.processes["ipam"] = actor
        await actor.says("actor-ready", within_s)

    def close(self) -> None:
        for process in reversed(self.processes.values()):
            process.stop()

    def cpu_s(self) -> dict[str, float]:
        return {name: process.cpu_s for name, process in self.processes.items()}


@contextlib.asynccontextmanager
async def client(url: str, keys_dir: Path, user: str = identity.OPERATOR) -> AsyncIterator[nats.Bus]:
    options = nats.Options(urls=(url,), user=user, credentials=identity.seed_file(keys_dir, user))
    async with await nats.connect(options) as bus:
        yield bus


async def ask(bus: nats.Bus, command: Command, command_id: str) -> Accepted:
    construct, verb = catalog.construct_and_verb(kebab(type(command).__name__))
    subject = subjects.command(command.tenant, construct, verb)
    answer = await bus.request(
        subject, codec.encode(command), headers={COMMAND_ID_HEADER: command_id}, timeout_s=WITHIN_S
    )
    reply = codec.decode_reply(answer.payload)
    if not isinstance(reply, Accepted):
        raise TypeError(f"{command} was answered with {reply}")
    return reply


async def idle_ms(running: Running) -> dict[str, float]:
    """Medians of a durable publish alone, of a command that comes to one, and of a query."""
    publishes, commands = [], []
    async with (
        client(running.server.url, running.server.keys_dir) as bus,
        client(running.server.url, running.server.keys_dir, identity.IPAM) as journal,
    ):
        await ask(bus, CreateNetwork(tenant=TENANT, network=NETWORK, subnets=(IPv4Network(SUBNET),)), "network")
        beside = subjects.port_event(TENANT, HOST, "probe")
        assert includes(subjects.ALL_EVENTS, beside)
        for number in range(IDLE_RUNS):
            began = time.perf_counter()
            await journal.request(f"{subjects.SNAPSHOTS}.bench.{number}", b"x" * 300)
            publishes.append(time.perf_counter() - began)
            began = time.perf_counter()
            await ask(bus, CreateEndpoint(tenant=TENANT, network=NETWORK, name=f"idle{number}"), f"idle{number}")
            commands.append(time.perf_counter() - began)
    publish_ms, command_ms = percentile(publishes, 50) * MS, percentile(commands, 50) * MS
    return {"publish_p50_ms": publish_ms, "command_p50_ms": command_ms, "beyond_p50_ms": command_ms - publish_ms}


async def many(url: str, keys_dir: Path, clients: int, grants: int, prefix: str) -> dict[str, Any]:
    """What `clients` at once are given: their addresses, and how long each grant took."""
    numbers = itertools.count()
    times: list[float] = []
    addresses: list[str] = []

    async def one(bus: nats.Bus) -> None:
        while (number := next(numbers)) < grants:
            name = f"{prefix}-{number}"
            began = time.perf_counter()
            reply = await ask(bus, CreateEndpoint(tenant=TENANT, network=NETWORK, name=name), name)
            times.append(time.perf_counter() - began)
            assert isinstance(reply.object, EndpointView)
            addresses.extend(map(str, reply.object.status.addresses))

    async with client(url, keys_dir) as bus:
        began = time.perf_counter()
        await asyncio.gather(*(one(bus) for _ in range(clients)))
        took_s = time.perf_counter() - began
    return {"took_s": took_s, "times": times, "addresses": addresses}


async def loaded(running: Running, clients: int, grants: int) -> dict[str, float]:
    """Grants a second, and what each cost."""
    before = running.cpu_s()
    began = time.perf_counter()
    each = [str(clients // CLIENT_PROCESSES), str(grants // CLIENT_PROCESSES)]
    command = [sys.executable, __file__, "--as-client", running.server.url, str(running.server.keys_dir), *each]
    children = [
        await asyncio.create_subprocess_exec(*command, f"c{number}", stdout=subprocess.PIPE)
        for number in range(CLIENT_PROCESSES)
    ]
    found = [json.loads((await child.communicate())[0]) for child in children]
    took_s = max(each["took_s"] for each in found)
    addresses = [address for each in found for address in each["addresses"]]
    if len(set(addresses)) != len(addresses):
        raise RuntimeError("an address was given twice")
    times = [time_s for each in found for time_s in each["times"]]
    spent = {name: after - before[name] for name, after in running.cpu_s().items()}
    figures = {f"{name}_cpu_us": seconds / len(times) * 1e6 for name, seconds in spent.items()}
    latency = {f"grant_p{rank}_ms": percentile(times, rank) * MS for rank in (50, 99)}
    wall_s = time.perf_counter() - began
    return {"grants": len(times), "grants_per_s": len(times) / took_s, **latency, **figures, "wall_s": wall_s}


async def measure(clients: int, grants: int, profile: Path | None) -> dict[str, dict[str, float]]:
    with temporary_directory() as directory:
        running = Running(directory, profile)
        try:
            await running.open()
            return {"idle": await idle_ms(running), "loaded": await loaded(running, clients, grants)}
        finally:
            running.close()


@contextlib.contextmanager
def temporary_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="grants") as name:
        yield Path(name)


def text(found: dict[str, dict[str, float]]) -> str:
    rows = [(group, name, value) for group, figures in found.items() for name, value in figures.items()]
    lines = [f"{group:<8} {name:<20} {value:>10.2f}" for group, name, value in rows]
    verdict = "within" if found["loaded"]["grants_per_s"] >= BUDGET_PER_S else "below"
    return "\n".join([*lines, f"{verdict} the budget of {BUDGET_PER_S} grants a second"])


def main() -> None:
    """Measures, and says what it found as a table or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64, help="at once (64)")
    parser.add_argument("--grants", type=int, default=10_000, help="in all (10000)")
    parser.add_argument("--profile", type=Path, help="write a cProfile of the actor here")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--as-client", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.as_client:
        url, keys_dir, clients, grants, prefix = given.as_client
        found = asyncio.run(many(url, Path(keys_dir), int(clients), int(grants), prefix))
        sys.stdout.write(json.dumps(found))
        return
    figures = asyncio.run(measure(given.clients, given.grants, given.profile))
    sys.stdout.write((json.dumps(figures, indent=2) if given.json else text(figures)) + "\n")


if __name__ == "__main__":
    main()
