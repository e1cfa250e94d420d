"""Hosts without a kernel: real host actors, each with its own connection, on switches that are only remembered.

As a program it runs many of them in one process, says when all have read the journal, and answers each line of input
with what every host was told and has done, and with the process's memory:

    python cluster_hosts.py URL KEYS_DIR FOLDER COUNT [underlay]

When the last of all other hosts has the way to an endpoint of a VXLAN network, it says so by itself, with the time.

What is counted: events of the journal that reached a host, and rounds of plan and execution. Heartbeats of the server
(one a second for each consumer) are not: nothing is done for them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

import structlog

from host_actor.actor import HostActor, Settings, Uplink
from host_actor.drivers.contract import Remote, RemoteEndpoint, Sandbox
from host_actor.drivers.memory import MemoryDriver, MemorySwitch
from host_actor.membership import HostFacts
from host_actor.runtimes.contract import Found, Resolution, RuntimeEvent
from host_actor.session import session
from host_actor.state_file import StateFile
from services.runtime import bus as nats
from services.runtime import identity
from services.runtime.clock import SystemClock
from services.runtime.journal import Journal, Recorded

CALM: Final = Settings(full_pass_every_s=3600.0, look_at_journal_every_s=3600.0, save_at_most_every_s=1.0)
STARTED_AT_ONCE: Final = 20
FIRST_VTEP: Final = int(IPv4Address("10.250.0.1"))


def host_name(number: int) -> str:
    return f"sim{number}"


class Everywhere:
    """Containers: whichever is asked for is there, on every host."""

    async def open(self, on_event: Callable[[RuntimeEvent], None]) -> None:
        """Nothing ever happens to them."""

    async def resolve(self, reference: str) -> Resolution:
        return Found(Sandbox(reference, f"/run/netns/{reference}"), reference)

    async def close(self) -> None:
        """Nothing is held."""


class Counting:
    """A journal that counts what a host is told by it."""

    def __init__(self, journal: Journal, host: SimulatedHost) -> None:
        self._journal = journal
        self._host = host
        self.append = journal.append
        self.last_seq = journal.last_seq
        self.identity = journal.identity

    async def read(self, filters: Sequence[str], after_seq: int, until_seq: int) -> Sequence[Recorded]:
        found = await self._journal.read(filters, after_seq, until_seq)
        self._host.told += len(found)
        return found

    async def follow(self, filters: Sequence[str], after_seq: int = 0) -> AsyncGenerator[Recorded, None]:
        async with aclosing(self._journal.follow(filters, after_seq)) as followed:
            async for recorded in followed:
                self._host.told += 1
                yield recorded


class Reached:
    """How many hosts have the way to each endpoint of another host; says when all have."""

    def __init__(self, others: int) -> None:
        self._others = others
        self._counts: Counter[str] = Counter()

    def by_one_more(self, endpoint: str) -> None:
        """One more host has it."""
        self._counts[endpoint] += 1
        if self._counts[endpoint] == self._others:
            _say({"reached": endpoint, "at_s": time.monotonic()})


class Ways(dict[str, Remote]):
    """The ways that a remembered switch has to what is on other hosts."""

    def __init__(self, reached: Reached) -> None:
        super().__init__()
        self._reached = reached

    def __setitem__(self, mark: str, way: Remote) -> None:
        super().__setitem__(mark, way)
        if isinstance(way, RemoteEndpoint):
            self._reached.by_one_more(way.endpoint)


class SimulatedHost:
    """One host actor with its folder."""

    def __init__(self, number: int, folder: Path, reached: Reached, *, has_underlay: bool) -> None:
        name = self.name = host_name(number)
        vtep = IPv4Address(FIRST_VTEP + number) if has_underlay else None
        self.told = 0
        switch = MemorySwitch()
        switch.remotes = Ways(reached)
        self.actor = HostActor(
            HostFacts(host=name, driver="memory", bridge="vlanBr", version="0", vtep=vtep),
            MemoryDriver(switch),
            Everywhere(),
            StateFile(folder, name),
            SystemClock(),
            CALM,
        )

    @property
    def rounds(self) -> int:
        return sum(self.actor.measures.round_s.counts)

    async def run(self, options: nats.Options) -> None:
        """It is what the journal says, for ever."""

        @asynccontextmanager
        async def connect() -> AsyncIterator[Uplink]:
            async with session(options) as uplink:
                yield Uplink(Counting(uplink.journal, self), uplink.bus)

        await self.actor.run(connect)

    async def until_current(self) -> None:
        """It has read the journal."""
        while not self.actor.measures.sessions or self.actor.follower.standing != "current":  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def run_hosts(url: str, keys_dir: Path, folder: Path, count: int, *, has_underlay: bool) -> None:
    """`count` hosts run until stdin ends."""
    _raise_file_limit()
    reached = Reached(count - 1)
    hosts = [SimulatedHost(number, folder, reached, has_underlay=has_underlay) for number in range(count)]
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks: list[asyncio.Task[None]] = []
    for first in range(0, count, STARTED_AT_ONCE):
        some = hosts[first : first + STARTED_AT_ONCE]
        for host in some:
            user = identity.host_user(host.name)
            options = nats.Options(urls=(url,), user=user, credentials=identity.seed_file(keys_dir, user))
            tasks.append(asyncio.create_task(host.run(options)))
        await asyncio.gather(*(host.until_current() for host in some))
    _say({"ready": count})
    try:
        while await reader.readline():
            counts = {host.name: [host.told, host.rounds] for host in hosts}
            ports = sum(1 for host in hosts for _ in host.actor.reconciler.ports)
            _say({"counts": counts, "resident_bytes": _resident_bytes(), "ports": ports})
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _say(fact: object) -> None:
    sys.stdout.write(json.dumps(fact) + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    url, keys_dir, folder, count, *underlay = arguments
    asyncio.run(run_hosts(url, Path(keys_dir), Path(folder), int(count), has_underlay=bool(underlay)))


if __name__ == "__main__":
    main(sys.argv[1:])
