"""VLAN networks beyond their host: what passes between endpoints and machines on the wire, asked of real packets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from host_actor.drivers.contract import DropPort, PortSpec
from host_actor.drivers.ovs import OvsDriver
from host_actor.planner import plan
from services.runtime.uplinks import Uplink
from tests.harness.frames import BROADCAST, Wire, advertisement, arp, ethernet, udp4
from tests.harness.netns import NetworkNamespace
from tests.harness.openvswitch import RunningSwitch
from tests.harness.outside import Outside, pings, reaches
from tests.harness.ovs_world import OvsWorld, attached, done, is_whole, mac_of
from tests.requires import needs_ovs, needs_tool

pytestmark = [pytest.mark.anyio, needs_ovs, needs_tool("busybox", "ethtool")]

IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD
NOBODY = "00:00:00:00:00:00"
UPLINK = Uplink("eth9")
OUTSIDER = "02:00:00:00:99:01"


@pytest.fixture
def world(open_vswitch: RunningSwitch, netns: Callable[[str], NetworkNamespace]) -> OvsWorld:
    return OvsWorld(open_vswitch, netns)


@pytest.fixture
def outside(world: OvsWorld, netns: Callable[[str], NetworkNamespace]) -> Iterator[Outside]:
    with Outside(world.switch, netns, UPLINK.interface) as wire:
        wire.bridge(UPLINK.bridge, UPLINK.outer_patch, UPLINK.inner_patch)
        yield wire


@pytest.fixture
async def driver(world: OvsWorld) -> AsyncIterator[OvsDriver]:
    async with world.driver(UPLINK) as opened:
        yield opened


async def test_a_machine_and_an_endpoint_reach_each_other(world: OvsWorld, outside: Outside, driver: OvsDriver) -> None:
    await attached(driver, world.spec(1), world.spec(2))
    machine = outside.machine("m1", "10.0.0.9/16", "fd00::9/64", tag=100)
    assert pings(machine, "10.0.0.1")
    assert pings(world.container(2), "10.0.0.9")
    assert pings(machine, "fd00::1")
    assert pings(world.container(2), "fd00::9")
    assert pings(world.container(1), "10.0.0.2")


async def test_tcp_carries_data_both_ways(world: OvsWorld, outside: Outside, driver: OvsDriver) -> None:
    await attached(driver, world.spec(1))
    machine = outside.machine("m1", "10.0.0.9/16", tag=100)
    payload = bytes(range(256)) * 4096
    sides = (machine, "10.0.0.9", world.container(1)), (world.container(1), "10.0.0.1", machine)
    for server, address, client in sides:
        assert await carried(server, address, client, payload) == payload


async def carried(server: NetworkNamespace, address: str, client: NetworkNamespace, payload: bytes) -> bytes:
    listener = server.call(lambda: socket.create_server((address, 5001)))

    def serve() -> bytes:
        listener.settimeout(30)
        connection, _ = listener.accept()
        with connection:
            return b"".join(iter(lambda: connection.recv(1 << 16), b""))

    def send() -> None:
        with socket.create_connection((address, 5001), timeout=30) as connection:
            connection.sendall(payload)

    with listener:
        received, _ = await asyncio.gather(asyncio.to_thread(serve), asyncio.to_thread(lambda: client.call(send)))
    return received


async def test_the_same_addresses_in_two_networks_never_meet(
    world: OvsWorld, outside: Outside, driver: OvsDriver
) -> None:
    await attached(driver, world.spec(1, tag=100), world.spec(11, host_part=1, tag=200))
    red = outside.machine("red", "10.0.0.9/16", tag=100, mac=OUTSIDER)
    blue = outside.machine("blue", "10.0.0.9/16", tag=200)
    nowhere = outside.machine("nowhere", "10.0.0.9/16", tag=300)
    hello = ethernet(mac_of(1), OUTSIDER, IPV4, udp4("10.0.0.9", "10.0.0.1", b"to red"))
    with Wire(red) as sender, Wire(world.container(1)) as own, Wire(world.container(11)) as other, Wire(blue) as beside:
        sender.send(hello)
        own.heard_until(b"to red")
        beside.send(ethernet(mac_of(1), "02:00:00:00:99:02", IPV4, udp4("10.0.0.9", "10.0.0.1", b"to blu")))
        assert not any(b"to red" in frame for frame in other.heard_until(b"to blu"))
    assert pings(red, "10.0.0.1")
    assert pings(blue, "10.0.0.1")
    assert not pings(nowhere, "10.0.0.1")


async def test_what_is_for_all_goes_out_once_and_comes_in_once(
    world: OvsWorld, outside: Outside, driver: OvsDriver
) -> None:
    await attached(driver, world.spec(1), world.spec(2), world.spec(3, tag=200))
    machine = outside.machine("m1", "10.0.0.9/16", tag=100, mac=OUTSIDER)
    from_here = ethernet(BROADCAST, mac_of(1), IPV4, udp4("10.0.0.1", "10.0.255.255", b"from here"))
    from_outside = ethernet(BROADCAST, OUTSIDER, IPV4, udp4("10.0.0.9", "10.0.255.255", b"from outside"))
    last = ethernet(OUTSIDER, mac_of(1), IPV4, udp4("10.0.0.1", "10.0.0.9", b"the last"))
    with Wire(world.container(1)) as first, Wire(world.container(2)) as second, Wire(machine) as beyond:
        first.send(from_here)
        beyond.heard_until(b"from here")
        second.heard_until(b"from here")
        beyond.send(from_outside)
        for wire in (first, second):
            wire.heard_until(b"from outside")
        first.send(last)
        assert [frame for frame in beyond.heard_until(b"the last") if b"from" in frame] == []


@pytest.mark.parametrize(
    "frame",
    [
        ethernet(mac_of(2), mac_of(1), IPV4, udp4("10.0.0.9", "10.0.0.2", b"with a MAC from here")),
        ethernet(mac_of(2), OUTSIDER, IPV4, udp4("10.0.0.1", "10.0.0.2", b"with an address from here")),
        ethernet(mac_of(2), OUTSIDER, ARP, arp(2, (OUTSIDER, "10.0.0.1"), (mac_of(2), "10.0.0.2"))),
        ethernet(mac_of(2), OUTSIDER, IPV6, advertisement("fd00::9", "fd00::1", OUTSIDER)),
        ethernet(mac_of(2), OUTSIDER, IPV6, advertisement("fd00::1", "fd00::1", OUTSIDER)),
        ethernet(mac_of(2), OUTSIDER, 0x88CC, b"a protocol that nobody asked for" * 2),
    ],
    ids=["mac", "address", "arp", "nd-target", "nd-source", "ethertype"],
)
async def test_nobody_outside_speaks_for_who_is_here(
    world: OvsWorld, outside: Outside, driver: OvsDriver, frame: bytes
) -> None:
    await attached(driver, world.spec(1), world.spec(2))
    machine = outside.machine("m1", "10.0.0.9/16", tag=100, mac=OUTSIDER)
    honest = ethernet(mac_of(2), OUTSIDER, IPV4, udp4("10.0.0.9", "10.0.0.2", b"honest"))
    with Wire(machine) as sender, Wire(world.container(2)) as receiver:
        sender.send(honest)
        receiver.heard_until(b"honest")
        sender.send(frame)
        sender.send(honest)
        assert frame not in receiver.heard_until(b"honest")


async def test_what_is_known_here_is_still_answered_here(world: OvsWorld, outside: Outside, driver: OvsDriver) -> None:
    await attached(driver, world.spec(1), world.spec(2))
    machine = outside.machine("m1", "10.0.0.9/16", tag=100, mac=OUTSIDER)
    known, unknown = (
        ethernet(BROADCAST, mac_of(1), ARP, arp(1, (mac_of(1), "10.0.0.1"), (NOBODY, address)))
        for address in ("10.0.0.2", "10.0.0.77")
    )
    with Wire(world.container(1)) as sender, Wire(machine) as beyond:
        sender.send(known)
        sender.send(unknown)
        assert known not in [frame[:42] for frame in beyond.heard_until(unknown)]


async def test_only_the_tags_of_an_uplink_leave(world: OvsWorld, outside: Outside) -> None:
    async with world.driver(Uplink("eth9", ((200, 299),))) as driver:
        await attached(driver, world.spec(1, tag=100), world.spec(2, tag=200))
        machine = outside.machine("m1", "10.0.0.9/16", tag=100)
        other = outside.machine("m2", "10.0.0.9/16", tag=200)
        assert pings(world.container(2), "10.0.0.9")
        assert not pings(machine, "10.0.0.1")
        assert pings(other, "10.0.0.2")


async def test_an_uplink_may_come_and_go_between_two_starts(
    world: OvsWorld, outside: Outside, driver: OvsDriver
) -> None:
    specs: dict[str, PortSpec] = {spec.endpoint: spec for spec in (world.spec(1), world.spec(2))}
    await attached(driver, *specs.values())
    assert plan(specs, await driver.observe()) == ()
    await driver.close()
    machine = outside.machine("m1", "10.0.0.9/16", tag=100)
    for uplinks in ((), (UPLINK,)):
        async with world.driver(*uplinks) as again:
            assert plan(specs, await again.observe())
            await done(again, *plan(specs, await again.observe()))
            assert is_whole(await again.observe(), *specs.values())
            assert reaches(machine, "10.0.0.1") if uplinks else not pings(machine, "10.0.0.1")
            assert ("eth9" in world.switch.run("ovs-vsctl", "list-ports", "vlanBr")) is bool(uplinks)


async def test_a_network_without_members_here_leaves_nothing_behind(
    world: OvsWorld, outside: Outside, driver: OvsDriver
) -> None:
    def flows() -> list[str]:
        shown = world.switch.run("ovs-ofctl", "-OOpenFlow15", "--no-stats", "--no-names", "dump-flows", "vlanBr")
        return sorted(shown.splitlines()[1:])

    await attached(driver)
    before = flows()
    await attached(driver, world.spec(1))
    assert len(flows()) > len(before)
    await done(driver, DropPort(world.spec(1).endpoint, world.spec(1).device))
    assert flows() == before
