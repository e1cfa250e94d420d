"""Containers' links, made of real veth pairs in real namespaces."""

from __future__ import annotations

import errno
import resource
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface

import anyio
import pytest

from host_actor.drivers.ovs_flows import link_local_of
from host_actor.netlink import KernelRefused, Link
from host_actor.netlink_links import LinkTable, list_links
from host_actor.netlink_veth import (
    Born,
    DeviceTaken,
    LinkSpec,
    NoFreeInterface,
    SandboxGone,
    VethMaker,
    endpoint_of,
)
from tests.harness.netns import NetworkNamespace, links, run
from tests.requires import needs_isolation, needs_tool

pytestmark = [pytest.mark.anyio, needs_isolation]

WITHIN_S = 30.0
Netns = Callable[[str], NetworkNamespace]


@pytest.fixture
async def veths() -> AsyncIterator[VethMaker]:
    maker = VethMaker()
    await maker.open()
    yield maker
    await maker.close()


@pytest.fixture
def somebodys() -> Iterator[Callable[[str], None]]:
    """Makes links that are not ours, gone after the test."""
    made: list[str] = []

    def make(device: str) -> None:
        ip("link", "add", device, "type", "veth", "peer", "name", f"far{len(made)}")
        made.append(device)

    yield make
    for device in made:
        ip("link", "delete", device)


def link(namespace: NetworkNamespace, number: int = 1) -> LinkSpec:
    endpoint = f"e{number:011d}x{number:03d}"
    return LinkSpec(
        endpoint=endpoint,
        device=f"np{endpoint[:12]}",
        stamp=f"{endpoint}/7/{namespace.name}",
        netns_path=str(namespace.path),
        mac=f"02:00:00:00:00:{number:02x}",
        mtu_bytes=1450,
        addresses=(ip_interface(f"10.0.0.{number}/24"), ip_interface(f"fd00::{number:x}/64")),
        gateways=(ip_address("10.0.0.254"), ip_address("fd00::fe")),
        is_tx_checksum_off=True,
    )


def ip(*arguments: str) -> str:
    return run("ip", *arguments).stdout


async def ensure(veths: VethMaker, spec: LinkSpec) -> tuple[str, Born]:
    """The interface's name, and what was told at its birth."""
    born: list[Born] = []
    interface = await veths.ensure(spec, born.append)
    assert born
    return interface, born[-1]


@needs_tool("ethtool")
async def test_a_link_is_whole(veths: VethMaker, netns: Netns) -> None:
    inside = netns("c1")
    # As Docker has it: IPv6 is off unless somebody asks for it.
    inside.run("sysctl", "-w", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
    spec = link(inside)
    interface, born = await ensure(veths, spec)
    assert (interface, born.interface, born.is_new) == ("eth0", "eth0", True)
    shown = inside.run("ip", "-d", "address", "show", "eth0").stdout
    for fact in (spec.mac, "mtu 1450", "LOWER_UP", "10.0.0.1/24 brd 10.0.0.255", "fd00::1/64 scope global nodad"):
        assert fact in shown
    assert "default via 10.0.0.254 dev eth0" in inside.run("ip", "route").stdout
    assert "default via fd00::fe dev eth0" in inside.run("ip", "-6", "route").stdout
    assert "<LOOPBACK,UP,LOWER_UP>" in inside.run("ip", "link", "show", "lo").stdout
    assert "tx-checksumming: off" in inside.run("ethtool", "-k", "eth0").stdout
    for setting, value in (("accept_ra", "0"), ("disable_ipv6", "0")):
        assert inside.run("cat", f"/proc/sys/net/ipv6/conf/eth0/{setting}").stdout.strip() == value
    host_end = ip("-d", "link", "show", spec.device)
    assert "PROMISC" in host_end
    assert "mtu 1450" in host_end
    assert f"{born.index}: {spec.device}" in host_end
    assert "inet6" not in ip("address", "show", spec.device)


async def test_a_link_is_known_by_its_name_and_mac(
    veths: VethMaker, netns: Netns, somebodys: Callable[[str], None]
) -> None:
    spec = link(netns("c1"))
    await ensure(veths, spec)
    found = (await list_links("np"))[spec.device]
    assert endpoint_of(found) == spec.endpoint
    assert found.group == spec.mark
    assert found == await veths.find(spec.device)
    somebodys("np-somebody")
    assert endpoint_of((await list_links("np"))["np-somebody"]) == ""


async def test_a_link_that_is_there_is_completed_not_made_again(veths: VethMaker, netns: Netns) -> None:
    inside = netns("c1")
    spec = link(inside)
    was, first = await ensure(veths, spec)
    assert was == "eth0"
    for address in ("10.0.0.1/24", "fd00::1/64"):
        inside.run("ip", "address", "delete", address, "dev", "eth0")
    inside.run("ip", "link", "set", "eth0", "down", "address", "02:00:00:00:00:99", "mtu", "1400")
    newer = replace(spec, stamp="another")
    interface, second = await ensure(veths, newer)
    assert (interface, second.is_new, second.index) == ("eth0", False, first.index)
    shown = inside.run("ip", "address", "show", "eth0").stdout
    for fact in (spec.mac, "mtu 1450", "LOWER_UP", "10.0.0.1/24", "fd00::1/64"):
        assert fact in shown
    assert "default via 10.0.0.254" in inside.run("ip", "route").stdout
    assert (await list_links("np"))[spec.device].group == newer.mark


async def test_a_link_into_another_container_replaces_it(veths: VethMaker, netns: Netns) -> None:
    old, new = netns("c1"), netns("c2")
    await ensure(veths, link(old))
    interface, born = await ensure(veths, link(new))
    assert (interface, born.is_new) == ("eth0", True)
    assert "eth0" not in links(old)
    assert "eth0" in links(new)


async def test_a_default_route_that_is_there_is_kept(veths: VethMaker, netns: Netns) -> None:
    inside = netns("c1")
    inside.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far")
    for command in ("link set eth0 up", "link set far up", "address add 10.9.0.1/24 dev eth0"):
        inside.run("ip", *command.split())
    inside.run("ip", "route", "add", "default", "via", "10.9.0.254", "metric", "100")
    interface, _ = await ensure(veths, link(inside))
    assert interface == "eth1"
    assert inside.run("ip", "route", "show", "default").stdout.splitlines() == [
        "default via 10.9.0.254 dev eth0 metric 100 "
    ]


async def test_thirty_two_interfaces_are_enough(veths: VethMaker, netns: Netns) -> None:
    inside = netns("c1")
    for number in range(32):
        inside.run("ip", "link", "add", f"eth{number}", "type", "veth", "peer", "name", f"far{number}")
    with pytest.raises(NoFreeInterface, match="eth31"):
        await ensure(veths, link(inside))


async def test_what_cannot_be_entered_is_gone(veths: VethMaker, netns: Netns) -> None:
    spec = link(netns("c1"))
    for path in ("/run/netns/nobody", "/proc/4194305/ns/net", "/etc/hostname"):
        with pytest.raises(SandboxGone):
            await ensure(veths, replace(spec, netns_path=path))
    assert not await list_links("np")


@pytest.mark.parametrize(
    ("mtu_bytes", "said"),
    [(70_000, "MTU of 70000"), (10, "MTU of 10"), (1000, "IPv6 needs an MTU of 1280 at least, found 1000")],
)
async def test_an_mtu_that_cannot_be_is_said_and_leaves_nothing(
    veths: VethMaker, netns: Netns, mtu_bytes: int, said: str
) -> None:
    spec = replace(link(netns("c1")), mtu_bytes=mtu_bytes, addresses=(ip_interface("fd00::1/64"),))
    with pytest.raises(KernelRefused, match=said):
        await ensure(veths, spec)
    assert not await list_links("np")


async def test_out_of_files_is_no_container_that_ended(veths: VethMaker, netns: Netns) -> None:
    spec = link(netns("c1"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        with pytest.raises(KernelRefused, match="Too many open files"):
            await ensure(veths, spec)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (await ensure(veths, spec))[0] == "eth0"


async def test_ipv6_is_had_where_the_container_has_it_off(veths: VethMaker, netns: Netns) -> None:
    inside = netns("c1")
    off = [f"net.ipv6.conf.{which}.disable_ipv6=1" for which in ("all", "default")]
    inside.run("busybox", "sysctl", "-w", *off, "net.ipv6.conf.default.addr_gen_mode=1")
    spec = replace(link(inside), addresses=(ip_interface("fd00::1/64"),), gateways=(ip_address("fd00::ffff"),))
    await ensure(veths, spec)
    shown = inside.run("ip", "-6", "address", "show", "eth0").stdout
    assert "fd00::1/64" in shown
    assert f"{link_local_of(spec.mac)}/64" in shown
    assert "default via fd00::ffff" in inside.run("ip", "-6", "route").stdout


async def test_half_a_link_is_not_left_behind(veths: VethMaker, netns: Netns) -> None:
    spec = replace(link(netns("c1")), gateways=(ip_address("192.0.2.1"),))
    with pytest.raises(KernelRefused, match="gateway") as refused:
        await ensure(veths, spec)
    assert refused.value.errno == errno.ENETUNREACH
    assert not await list_links("np")


async def test_a_device_of_somebody_else_is_not_touched(
    veths: VethMaker, netns: Netns, somebodys: Callable[[str], None]
) -> None:
    spec = link(netns("c1"))
    somebodys(spec.device)
    with pytest.raises(DeviceTaken):
        await ensure(veths, spec)
    assert spec.device in links()


async def test_deleting_is_of_one_or_of_many_and_may_be_repeated(veths: VethMaker, netns: Netns) -> None:
    specs = [link(netns(f"c{number}"), number) for number in range(1, 6)]
    for spec in specs:
        await ensure(veths, spec)
    for devices in ([specs[0].device], [spec.device for spec in specs[1:]], [], [spec.device for spec in specs]):
        await veths.delete(devices)
        assert not set(devices) & links()
    assert not await list_links("np")


async def test_the_table_follows_the_kernel(veths: VethMaker, netns: Netns, somebodys: Callable[[str], None]) -> None:
    heard: list[tuple[str, bool, bool]] = []
    changed = anyio.Event()

    def on_change(name: str, before: Link | None, after: Link | None) -> None:
        heard.append((name, before is not None and before.is_carrying, after is not None and after.is_carrying))
        changed.set()

    async def until(state: tuple[str, bool, bool]) -> None:
        nonlocal changed
        with anyio.fail_after(WITHIN_S):
            while state not in heard:
                await changed.wait()
                changed = anyio.Event()

    first, second = link(netns("c1"), 1), link(netns("c2"), 2)
    await ensure(veths, first)
    table = LinkTable("np", on_change)
    await table.open()
    assert set(table.links) == {first.device}
    await ensure(veths, second)
    await until((second.device, False, True))
    netns_down = NetworkNamespace("c1")
    netns_down.run("ip", "link", "set", "eth0", "down")
    await until((first.device, True, False))
    await veths.delete([second.device])
    await until((second.device, True, False))
    assert set(table.links) == {first.device}
    somebodys("other")
    assert not [name for name, _, _ in heard if not name.startswith("np")]
    await table.close()
