"""How soon ipam serves again: after reading a whole journal, and after reading a snapshot and what came later.

The journal is written here, quickly and without fsync, as ipam and the hosts would have written it: endpoints that
stay, up to `LIVE_MAX`, and endpoints that come and go (bound, reported, deleted, reported). Only the newest events
carry a command id: those of the last hour are remembered, and a million events are the work of days.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any, Final

from grants import HOST, Running, ask, client

from messages import codec, subjects
from messages.catalog import event_name
from messages.endpoint import EndpointBound, EndpointDeleted
from messages.network import CreateNetwork
from messages.port import PortBound, PortUnbound
from messages.struct import Event
from messages.tenant import CreateTenant
from services.runtime import bus as nats
from services.runtime import identity
from services.runtime.journal import COMMAND_ID_HEADER
from services.runtime.journal_jetstream import JetStreamJournal

TENANT: Final = "bench"
NETWORKS: Final = 20
LIVE_MAX: Final = 50_000
SLOTS: Final = 1000  # addresses of a network that come and go
REMEMBERED: Final = 20_000
ACKNOWLEDGED_EVERY: Final = 1000
FIRST_NETWORK: Final = int(IPv4Network("10.64.0.0/16").network_address)
WITHIN_S: Final = 600.0
AFTER_SNAPSHOT: Final = 1000


def events(first_seq: int) -> Iterator[tuple[str, Event]]:
    """Events with their subjects, without end; the first will be recorded at `first_seq`, the others after it."""
    seq, live = first_seq, 0
    for number in itertools.count():
        stays = live < LIVE_MAX and number % 2 == 0
        live += stays
        for told in _life(number, seq, stays=stays):
            yield told
            seq += 1


def _life(number: int, epoch: int, *, stays: bool) -> list[tuple[str, Event]]:
    """What is recorded of one endpoint, bound at journal sequence `epoch`."""
    network = f"net{number % NETWORKS}"
    turn = number // NETWORKS
    last = SLOTS + 1 + turn if stays else 2 + turn % (SLOTS - 2)
    address = IPv4Interface((FIRST_NETWORK + (number % NETWORKS << 16) + last, 16))
    endpoint, name = f"{epoch:012d}{number % 10_000:04d}", f"e{number}"
    place: dict[str, Any] = {"tenant": TENANT, "network": network, "endpoint": endpoint, "name": name, "host": HOST}
    bound = EndpointBound(
        **place,
        container=f"netns:c{number}",
        addresses=(address,),
        gateways=(),
        mac=bytes((2, number % NETWORKS, *last.to_bytes(4, "big"))).hex(":"),
        encap="vlan",
        tag=number % NETWORKS + 100,
        mtu_bytes=1500,
        is_new=True,
    )
    told = [_on_network(network, bound), _by_host(PortBound(**place, epoch=epoch, device="np", interface="eth0"))]
    if not stays:
        gone = EndpointDeleted(endpoint=endpoint, name=name, addresses=(address,), host=HOST, epoch=epoch)
        told += [_on_network(network, gone), _by_host(PortUnbound(**place, epoch=epoch))]
    return told


def _on_network(network: str, event: Event) -> tuple[str, Event]:
    return subjects.network_event(TENANT, network, event_name(event), HOST), event


def _by_host(event: Event) -> tuple[str, Event]:
    return subjects.port_event(TENANT, HOST, event_name(event)), event


async def write(bus: nats.Bus, told: Iterator[tuple[str, Event]], count: int) -> None:
    """The next `count` events are in the journal."""
    last_seq = await _last_seq(bus)
    for number, (subject, event) in enumerate(itertools.islice(told, count), 1):
        headers = {"Content-Type": codec.MSGPACK}
        if count - number < REMEMBERED:
            headers[COMMAND_ID_HEADER] = f"replay-{last_seq + number}"
        if number % ACKNOWLEDGED_EVERY and number < count:
            await bus.publish(subject, codec.encode(event), headers=headers)
        else:
            await bus.request(subject, codec.encode(event), headers=headers, timeout_s=WITHIN_S)
    found = await _last_seq(bus)
    if found != last_seq + count:
        raise RuntimeError(f"the journal ends at {found}, expected {last_seq + count}")


async def _last_seq(bus: nats.Bus) -> int:
    return await JetStreamJournal(bus).last_seq()


async def measure(folder: Path, counts: list[int]) -> dict[str, Any]:
    """Seconds until ipam is ready: after next to nothing, each of `counts` events, and a snapshot of the last."""
    folder.mkdir(parents=True)
    running = Running(folder, None)
    found: dict[str, Any] = {"replays": []}
    try:
        await running.open_server(is_durable=False)
        await running.open_ipam()
        async with client(running.server.url, running.server.keys_dir) as bus:
            await ask(bus, CreateTenant(tenant=TENANT), "tenant")
            for number in range(NETWORKS):
                subnet = IPv4Network((FIRST_NETWORK + (number << 16), 16))
                command = CreateNetwork(tenant=TENANT, network=f"net{number}", subnets=(subnet,), tag=number + 100)
                await ask(bus, command, f"net{number}")
            told = events(await _last_seq(bus) + 1)
        found["empty_s"] = (await _restart(running))["ready_s"]
        written = 0
        for count in counts:
            running.processes.pop("ipam").stop()
            async with client(running.server.url, running.server.keys_dir, identity.IPAM) as bus:
                await write(bus, told, count - written)
                await _forget_snapshot(bus)
            written = count
            found["replays"].append({"events": count, **await _restart(running, is_stopped=True)})
            await running.processes["ipam"].says("snapshot-saved", WITHIN_S)
        running.processes.pop("ipam").stop()
        async with client(running.server.url, running.server.keys_dir, identity.IPAM) as bus:
            await write(bus, told, AFTER_SNAPSHOT)
        found["snapshot"] = {"events": written, **await _restart(running, is_stopped=True)}
        await running.processes["ipam"].says("snapshot-loaded")
    finally:
        await asyncio.to_thread(running.close)
    return found


async def _restart(running: Running, *, is_stopped: bool = False) -> dict[str, float]:
    """Seconds, and processor seconds, until a new ipam answers."""
    if not is_stopped:
        running.processes.pop("ipam").stop()
    began = time.perf_counter()
    await running.open_ipam(WITHIN_S)
    return {"ready_s": time.perf_counter() - began, "cpu_s": running.processes["ipam"].cpu_s}


async def _forget_snapshot(bus: nats.Bus) -> None:
    """The newest snapshot is none, so that all is read: an index that cannot be read counts as none."""
    await bus.request(f"{subjects.snapshot('ipam')}.index", b"none", timeout_s=WITHIN_S)
