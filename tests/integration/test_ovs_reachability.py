"""What the Open vSwitch driver lets pass, asked of real packets between network namespaces."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from host_actor.drivers.contract import DropPort, PortSpec
from host_actor.drivers.ovs import OvsDriver
from host_actor.drivers.ovs_flows import link_local_of
from host_actor.netlink_veth import host_mac_of
from tests.harness.frames import BROADCAST, Wire, advertisement, arp, ethernet, udp4
from tests.harness.netns import NetworkNamespace
from tests.harness.openvswitch import RunningSwitch
from tests.harness.ovs_world import OvsWorld, attached, done, mac_of
from tests.requires import needs_ovs, needs_tool

pytestmark = [pytest.mark.anyio, needs_ovs, needs_tool("busybox")]

IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD
NOBODY = "00:00:00:00:00:00"


@pytest.fixture
def world(open_vswitch: RunningSwitch, netns: Callable[[str], NetworkNamespace]) -> OvsWorld:
    return OvsWorld(open_vswitch, netns)


@pytest.fixture
async def driver(world: OvsWorld) -> AsyncIterator[OvsDriver]:
    async with world.driver() as opened:
        yield opened


async def two(world: OvsWorld, driver: OvsDriver) -> tuple[PortSpec, PortSpec]:
    specs = world.spec(1), world.spec(2)
    await attached(driver, *specs)
    return specs


def refuses(world: OvsWorld, frame: bytes) -> bool:
    """Whether container 2 does not hear what container 1 sends, though it hears what is sent after it."""
    honest = ethernet(mac_of(2), mac_of(1), IPV4, udp4("10.0.0.1", "10.0.0.2", b"honest"))
    with Wire(world.container(1)) as sender, Wire(world.container(2)) as receiver:
        sender.send(honest)
        receiver.heard_until(b"honest")
        sender.send(frame)
        sender.send(honest)
        return frame not in receiver.heard_until(b"honest")


async def test_endpoints_of_a_network_reach_each_other(world: OvsWorld, driver: OvsDriver) -> None:
    one, _ = await two(world, driver)
    assert world.pings(1, "10.0.0.2")
    assert world.pings(2, "10.0.0.1")
    assert world.pings(1, "fd00::2")
    assert world.pings(2, f"{link_local_of(one.mac)}%eth0")


async def test_the_first_packet_reaches_who_has_an_address_after_another(world: OvsWorld, driver: OvsDriver) -> None:
    """The switch remembers for ten seconds that packets to the one before are dropped: "attached" waits for that."""
    await attached(driver, world.spec(1))
    with Wire(world.container(1)) as sender:
        for number in range(2, 22):
            spec = world.spec(number, host_part=2)
            with world.container(number).call(every_packet) as receiver:
                await attached(driver, spec)
                word = f"to {number}.".encode()
                frame = ethernet(spec.mac, mac_of(1), IPV4, udp4("10.0.0.1", "10.0.0.2", word))
                sender.send(frame)
                assert await asyncio.to_thread(hears, receiver, word), number
                await done(driver, DropPort(spec.endpoint, spec.device))
                sender.send(frame)


def every_packet() -> socket.socket:
    """A socket that hears whatever comes to any interface of the namespace, also one that is not there yet."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
    made.settimeout(10)
    return made


def hears(receiver: socket.socket, word: bytes) -> bool:
    try:
        while word not in receiver.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    return True


async def test_tcp_carries_data_at_once(world: OvsWorld, driver: OvsDriver) -> None:
    await two(world, driver)
    payload = bytes(range(256)) * 4096  # a megabyte: segments of every size
    server = world.container(2).call(lambda: socket.create_server(("10.0.0.2", 5001)))
    with server:

        def serve() -> bytes:
            server.settimeout(10)
            connection, _ = server.accept()
            with connection:
                return b"".join(iter(lambda: connection.recv(1 << 16), b""))

        def send() -> None:
            with socket.create_connection(("10.0.0.2", 5001), timeout=30) as connection:
                connection.sendall(payload)

        received, _ = await asyncio.gather(
            asyncio.to_thread(serve), asyncio.to_thread(lambda: world.container(1).call(send))
        )
    assert received == payload


async def test_networks_are_apart(world: OvsWorld, driver: OvsDriver) -> None:
    await attached(driver, *(world.spec(number, tag=100 if number % 2 else 200) for number in (1, 2, 3, 4)))
    assert world.pings(1, "10.0.0.3")
    assert not world.pings(1, "10.0.0.2")
    over_the_fence = ethernet(mac_of(2), mac_of(1), IPV4, udp4("10.0.0.1", "10.0.0.2", b"over the fence"))
    beside_it = ethernet(mac_of(2), mac_of(4), IPV4, udp4("10.0.0.4", "10.0.0.2", b"from its own network"))
    with Wire(world.container(1)) as stranger, Wire(world.container(4)) as own, Wire(world.container(2)) as receiver:
        stranger.send(over_the_fence)
        own.send(beside_it)
        assert over_the_fence not in receiver.heard_until(b"from its own network")


@pytest.mark.parametrize("encap", ["vlan", "vxlan"])
async def test_the_same_addresses_in_two_networks_never_meet(world: OvsWorld, driver: OvsDriver, encap: str) -> None:
    # A VNI whose lower bits are the other network's tag would meet it, were the kinds not told apart.
    other = {"encap": encap, "tag": 200 if encap == "vlan" else 100}
    red = world.spec(1, tag=100), world.spec(2, tag=100)
    blue = world.spec(11, host_part=1, **other), world.spec(12, host_part=2, **other)  # type: ignore[arg-type]
    await attached(driver, *red, *blue)
    hello = ethernet(mac_of(2), mac_of(1), IPV4, udp4("10.0.0.1", "10.0.0.2", b"to red"))
    with Wire(world.container(1)) as sender, Wire(world.container(2)) as own, Wire(world.container(12)) as other_wire:
        sender.send(hello)
        own.heard_until(b"to red")
        with Wire(world.container(11)) as neighbour:
            neighbour.send(hello.replace(b"red", b"blu"))
        assert not any(b"to red" in frame for frame in other_wire.heard_until(b"to blu"))
    assert world.pings(1, "10.0.0.2")
    assert world.pings(11, "10.0.0.2")


@pytest.mark.parametrize(
    "frame",
    [
        ethernet(mac_of(2), mac_of(1), IPV4, udp4("10.0.0.9", "10.0.0.2", b"forged address")),
        ethernet(mac_of(2), mac_of(9), IPV4, udp4("10.0.0.1", "10.0.0.2", b"forged mac")),
        ethernet(mac_of(2), mac_of(1), IPV4, udp4("10.0.0.1", "10.0.0.2", b"tagged"), tag=200),
        ethernet(mac_of(2), mac_of(1), ARP, arp(2, (mac_of(1), "10.0.0.9"), (mac_of(2), "10.0.0.2"))),
        ethernet(mac_of(2), mac_of(1), ARP, arp(2, (mac_of(9), "10.0.0.1"), (mac_of(2), "10.0.0.2"))),
        ethernet(BROADCAST, mac_of(1), ARP, arp(1, (mac_of(1), "10.0.0.1"), (NOBODY, "10.0.0.77"))),
        ethernet(mac_of(2), mac_of(1), IPV6, advertisement("fd00::1", "fd00::9", mac_of(1))),
        ethernet(mac_of(2), mac_of(1), IPV6, advertisement("fd00::9", "fd00::9", mac_of(1))),
        ethernet(mac_of(2), mac_of(1), 0x88CC, b"a protocol that nobody asked for" * 2),
    ],
    ids=["address", "mac", "tag", "arp-address", "arp-mac", "arp-unknown", "nd-target", "nd-source", "ethertype"],
)
async def test_what_is_not_its_own_is_refused(world: OvsWorld, driver: OvsDriver, frame: bytes) -> None:
    await two(world, driver)
    assert refuses(world, frame)


@needs_tool("nft")
async def test_the_host_itself_is_not_reached(world: OvsWorld, driver: OvsDriver) -> None:
    (spec, _), address = await two(world, driver), "192.0.2.1"
    await asyncio.to_thread(subprocess.run, ["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    for setting in ("all", spec.device):
        Path(f"/proc/sys/net/ipv4/conf/{setting}/rp_filter").write_text("0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host, Wire(world.container(1)) as sender:
        host.bind((address, 9))  # where `udp4` sends to
        for to in (host_mac_of(spec.endpoint), BROADCAST):
            sender.send(ethernet(to, mac_of(1), IPV4, udp4("10.0.0.1", address, b"to the host")))
        sender.send(ethernet(BROADCAST, mac_of(1), ARP, arp(1, (mac_of(1), "10.0.0.1"), (NOBODY, address))))
        sender.send(ethernet(BROADCAST, mac_of(1), ARP, arp(1, (mac_of(1), "10.0.0.1"), (NOBODY, "10.0.0.2"))))
        heard = sender.heard_until(arp(2, (mac_of(2), "10.0.0.2"), (mac_of(1), "10.0.0.1")))
        assert not [frame for frame in heard if host_mac_of(spec.endpoint) == frame[6:12].hex(":")]
        host.setblocking(False)
        with pytest.raises(BlockingIOError):
            host.recv(100)


async def test_a_question_for_an_address_is_answered_on_the_spot(world: OvsWorld, driver: OvsDriver) -> None:
    await two(world, driver)
    ask = ethernet(BROADCAST, mac_of(1), ARP, arp(1, (mac_of(1), "10.0.0.1"), (NOBODY, "10.0.0.2")))
    answer = arp(2, (mac_of(2), "10.0.0.2"), (mac_of(1), "10.0.0.1"))
    with Wire(world.container(1)) as sender:
        sender.send(ask)
        assert ethernet(mac_of(1), mac_of(2), ARP, answer) == sender.heard_until(answer)[-1][:42]
    assert refuses(world, ask)  # the one asked for never hears of it


async def test_nobody_answers_for_a_gateway_that_is_not_there(world: OvsWorld, driver: OvsDriver) -> None:
    await two(world, driver)
    assert not world.pings(1, "10.0.255.254")


async def test_what_is_for_all_reaches_the_others_of_the_network(world: OvsWorld, driver: OvsDriver) -> None:
    await attached(driver, *(world.spec(number) for number in (1, 2, 3)), world.spec(4, tag=200))
    to_all = ethernet(BROADCAST, mac_of(1), IPV4, udp4("10.0.0.1", "10.0.255.255", b"to all"))
    claim = ethernet(BROADCAST, mac_of(1), ARP, arp(2, (mac_of(1), "10.0.0.1"), (mac_of(1), "10.0.0.1")))
    with Wire(world.container(1)) as sender, Wire(world.container(2)) as second, Wire(world.container(3)) as third:
        sender.send(claim)
        sender.send(to_all)
        for receiver in (second, third):
            assert claim in [frame[:42] for frame in receiver.heard_until(b"to all")]
        await done(driver, DropPort(world.spec(2).endpoint, world.spec(2).device))
        sender.send(to_all)
        third.heard_until(b"to all")


async def test_what_is_dropped_is_counted_in_its_table(world: OvsWorld, driver: OvsDriver) -> None:
    await two(world, driver)
    forged = ethernet(mac_of(2), mac_of(1), IPV4, udp4("10.0.0.77", "10.0.0.2", b"forged"))
    before = (await driver.figures()).dropped_packets["SOURCE"]
    assert refuses(world, forged)
    async with asyncio.timeout(30):
        while (await driver.figures()).dropped_packets["SOURCE"] <= before:
            await asyncio.to_thread(refuses, world, forged)
