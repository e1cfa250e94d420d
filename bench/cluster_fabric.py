"""The control plane of simulated hosts: a nats-server with fsync, the ipam actor, all hosts in one process."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import subprocess
import sys
import time
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Final

from cluster_hosts import FIRST_VTEP, host_name
from figures import MS
from grants import Running, ask

from messages import codec, subjects
from messages.endpoint import CreateEndpoint, DeleteEndpoint, EndpointView
from messages.host import ListHosts
from messages.network import CreateNetwork
from messages.port import PortBound
from messages.replies import Items
from messages.tenant import CreateTenant
from services.nats_keys import make_keys
from services.runtime import bus as nats
from services.runtime import identity

TENANT: Final = "bench"
NETWORK: Final = "web"
MESH: Final = "mesh"  # VXLAN: what changes in it concerns every host with a member
WITHIN_S: Final = 120.0
QUIET_S: Final = 1.0
STARTED_WITHIN_S: Final = 900.0  # every host is told of every other's joining
MAKING_AT_ONCE: Final = 64
RANDOM: Final = random.Random(4711)


class Fabric:
    """Server, ipam and `hosts` simulated hosts, until `close`."""

    def __init__(self, folder: Path, hosts: int, *, has_underlay: bool = False) -> None:
        self._folder = folder
        self._has_underlay = has_underlay
        self._hosts = hosts
        self._numbers = itertools.count(1)
        self._running: Running | None = None
        self._simulation: asyncio.subprocess.Process | None = None
        self._bus: nats.Bus | None = None
        self._bound: dict[str, asyncio.Future[None]] = {}
        self._reached: dict[str, asyncio.Future[float]] = {}  # by endpoint's id: when all hosts had it
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._reading: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """All hosts have read the journal, and there is a network."""
        self._folder.mkdir(parents=True)
        if self._has_underlay:
            await asyncio.to_thread(self._make_underlay)
        make_keys(self._folder / "keys", [identity.host_user(host_name(number)) for number in range(self._hosts)])
        self._running = Running(self._folder, None)
        await self._running.open()
        await self._start_hosts()
        server = self._running.server
        options = nats.Options(
            urls=(server.url,),
            user=identity.OPERATOR,
            credentials=identity.seed_file(server.keys_dir, identity.OPERATOR),
        )
        self._bus = await nats.connect(options)
        await self._bus.subscribe(subjects.port_event("*", "*", "port-bound"), self._on_bound)
        await self._bus.flush()
        async with asyncio.timeout(STARTED_WITHIN_S):
            while await self._members() < self._hosts:  # noqa: ASYNC110  (it is not measured)
                await asyncio.sleep(0.05)
        await ask(self._bus, CreateTenant(tenant=TENANT), "tenant")
        vlan = CreateNetwork(tenant=TENANT, network=NETWORK, subnets=(IPv4Network("10.64.0.0/10"),))
        mesh = CreateNetwork(tenant=TENANT, network=MESH, encap="vxlan", subnets=(IPv4Network("10.128.0.0/10"),))
        for command in (vlan, mesh):
            await ask(self._bus, command, command.network)

    def _make_underlay(self) -> None:
        """The address of every host's VTEP is on one link here, as each looks for its own."""
        lines = ["link add under0 type veth peer name under1", "link set under0 up"]
        lines += [f"address add {IPv4Address(FIRST_VTEP + number)}/16 dev under0" for number in range(self._hosts)]
        subprocess.run(("ip", "-batch", "-"), input="\n".join(lines), text=True, check=True)

    async def _members(self) -> int:
        assert self._bus is not None
        subject = subjects.command(subjects.FABRIC, "host", "list")
        answer = await self._bus.request(subject, codec.encode(ListHosts(tenant=subjects.FABRIC)), timeout_s=WITHIN_S)
        reply = codec.decode_reply(answer.payload)
        return len(reply.objects) if isinstance(reply, Items) else 0

    async def _start_hosts(self) -> None:
        assert self._running is not None
        server = self._running.server
        program = str(Path(__file__).parent / "cluster_hosts.py")
        command: tuple[str, ...] = (
            program,
            server.url,
            str(server.keys_dir),
            str(self._folder / "hosts"),
            str(self._hosts),
        )
        if self._has_underlay:
            command = (*command, "underlay")
        self._simulation = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=1 << 24
        )
        self._reading = asyncio.create_task(self._read(self._simulation))
        assert (await self._answer(STARTED_WITHIN_S))["ready"] == self._hosts

    async def _read(self, simulation: asyncio.subprocess.Process) -> None:
        assert simulation.stdout is not None
        while line := await simulation.stdout.readline():
            fact: dict[str, Any] = json.loads(line)
            if "reached" in fact:
                self._when_reached(fact["reached"]).set_result(fact["at_s"])
            else:
                self._answers.put_nowait(fact)

    def _when_reached(self, endpoint: str) -> asyncio.Future[float]:
        return self._reached.setdefault(endpoint, asyncio.get_running_loop().create_future())

    async def _answer(self, within_s: float = WITHIN_S) -> dict[str, Any]:
        async with asyncio.timeout(within_s):
            return await self._answers.get()

    async def close(self) -> None:
        """None of it runs."""
        if self._bus is not None:
            await self._bus.close()
        if self._simulation is not None:
            assert self._simulation.stdin is not None
            self._simulation.stdin.close()
            await self._simulation.wait()
        if self._reading is not None:
            await self._reading
        if self._has_underlay:
            await asyncio.to_thread(subprocess.run, ("ip", "link", "del", "under0"), check=False)
        if self._running is not None:
            await asyncio.to_thread(self._running.close)

    async def look(self) -> dict[str, Any]:
        """What every host was told and has done so far (`counts`), the process's memory, and its ports."""
        assert self._simulation is not None
        assert self._simulation.stdin is not None
        self._simulation.stdin.write(b"look\n")
        return await self._answer()

    async def settled(self) -> dict[str, list[int]]:
        """The counts, once nobody is told anything any more."""
        counts: dict[str, list[int]] = (await self.look())["counts"]
        async with asyncio.timeout(STARTED_WITHIN_S):
            while True:
                await asyncio.sleep(QUIET_S)
                before, counts = counts, (await self.look())["counts"]
                if counts == before:
                    return counts

    def ipam_bytes(self) -> int:
        """Resident memory of the ipam actor."""
        assert self._running is not None
        pid = self._running.processes["ipam"].pid
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    async def attach(self, host: int) -> tuple[str, float]:
        """An endpoint more on a host: its name, and the milliseconds from the command to the host's report."""
        assert self._bus is not None
        name = f"e{next(self._numbers)}"
        bound: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._bound[name] = bound
        began = time.perf_counter()
        await ask(
            self._bus,
            CreateEndpoint(tenant=TENANT, network=NETWORK, name=name, container=f"netns:{name}", host=host_name(host)),
            name,
        )
        async with asyncio.timeout(WITHIN_S):
            await bound
        return name, (time.perf_counter() - began) * MS

    async def attach_to_mesh(self, host: int) -> float:
        """The milliseconds from the command until every other host has the way to a new endpoint of the mesh."""
        assert self._bus is not None
        name = f"m{next(self._numbers)}"
        command = CreateEndpoint(
            tenant=TENANT, network=MESH, name=name, container=f"netns:{name}", host=host_name(host)
        )
        began = time.monotonic()
        view = (await ask(self._bus, command, name)).object
        assert isinstance(view, EndpointView)
        async with asyncio.timeout(WITHIN_S):
            return (await self._when_reached(view.id) - began) * MS

    async def open_mesh(self) -> None:
        """Every host has a member of the VXLAN network, and the way to all others."""
        assert self._bus is not None
        names = [f"base{number}" for number in range(self._hosts)]
        places = [(name, f"netns:{name}", host_name(number)) for number, name in enumerate(names)]
        for name, container, host in places:
            command = CreateEndpoint(tenant=TENANT, network=MESH, name=name, container=container, host=host)
            await ask(self._bus, command, name)
        await self.settled()

    async def attach_many(self, host: int, count: int) -> None:
        """`count` endpoints more on a host, many at a time."""
        at_once = asyncio.Semaphore(MAKING_AT_ONCE)

        async def one() -> None:
            async with at_once:
                await self.attach(host)

        await asyncio.gather(*(one() for _ in range(count)))

    async def delete(self, name: str) -> None:
        """The endpoint is gone."""
        assert self._bus is not None
        await ask(self._bus, DeleteEndpoint(tenant=TENANT, network=NETWORK, name=name), f"{name}-gone")

    def _on_bound(self, message: nats.Message) -> None:
        event = codec.decode_event(message.payload)
        if isinstance(event, PortBound) and (bound := self._bound.pop(event.name, None)) and not bound.done():
            bound.set_result(None)


async def one_change(fabric: Fabric, hosts: int, runs: int) -> list[float]:
    """Milliseconds of `runs` attaches, one after the other, each on another of the hosts."""
    await fabric.attach(0)
    return [(await fabric.attach(RANDOM.randrange(hosts)))[1] for _ in range(runs)]


async def change_of_all(fabric: Fabric, hosts: int, runs: int) -> list[float]:
    """Milliseconds of `runs` attaches to a network with a member on every host, until all others have the way there."""
    await fabric.open_mesh()
    await fabric.attach_to_mesh(0)
    return [await fabric.attach_to_mesh(RANDOM.randrange(hosts)) for _ in range(runs)]


async def change_everywhere(fabric: Fabric, hosts: int, runs: int) -> list[float]:
    """Milliseconds of `runs` times an attach on every host at once, until the last of them has reported."""
    took = []
    for _ in range(runs):
        began = time.perf_counter()
        await asyncio.gather(*(fabric.attach(number) for number in range(hosts)))
        took.append((time.perf_counter() - began) * MS)
    return took


async def work_per_change(fabric: Fabric, changes: int) -> dict[str, float]:
    """What one host that is concerned, and all the others together, were told and did for each change."""
    before = await fabric.settled()
    for _ in range(changes):
        name, _ = await fabric.attach(0)
        await fabric.delete(name)
    after = await fabric.settled()
    told = {host: (after[host][0] - before[host][0], after[host][1] - before[host][1]) for host in after}
    concerned = told.pop(host_name(0))
    return {
        "told_concerned": concerned[0] / (2 * changes),
        "rounds_concerned": concerned[1] / (2 * changes),
        "told_others": sum(each[0] for each in told.values()) / (2 * changes),
        "rounds_others": sum(each[1] for each in told.values()) / (2 * changes),
    }


async def memory_per_endpoint(fabric: Fabric, endpoints: int) -> dict[str, float]:
    """Bytes that each of `endpoints` bound on one host takes, in ipam and in the host's actor."""
    await fabric.attach_many(0, endpoints // 5)
    ipam, host = fabric.ipam_bytes(), (await fabric.look())["resident_bytes"]
    await fabric.attach_many(0, endpoints)
    after = await fabric.look()
    return {
        "endpoints": float(endpoints),
        "ipam_bytes": (fabric.ipam_bytes() - ipam) / endpoints,
        "host_bytes": (after["resident_bytes"] - host) / endpoints,
    }
