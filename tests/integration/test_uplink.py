"""Taking a network card and giving it back, with a machine beyond it that pings the host all the while."""

from __future__ import annotations

import asyncio
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from host_actor.uplink import STEPS, Place, UplinkRefused, ensure, give_back
from host_actor.uplink_keeper import UplinkKeeper
from services.runtime.uplinks import Uplink
from tests.harness.netns import NetworkNamespace
from tests.harness.openvswitch import RunningSwitch
from tests.harness.outside import Outside, pings, reaches
from tests.harness.traffic import Pinging
from tests.requires import needs_ovs, needs_tool

pytestmark = [pytest.mark.anyio, pytest.mark.long, needs_ovs, needs_tool("busybox", "ethtool", "nft")]

HERE, HERE_6, FAR = "192.0.2.1", "2001:db8::1", "192.0.2.9"
UPLINK = Uplink("eth9")
WITHIN_S = 60.0
ADDRESS_AND_ROUTE_GROUPS = 0x10 | 0x40 | 0x100 | 0x400  # RTMGRP_IPV4_IFADDR, _ROUTE, RTMGRP_IPV6_IFADDR, _ROUTE


@pytest.fixture
def outside(open_vswitch: RunningSwitch, netns: Callable[[str], NetworkNamespace]) -> Iterator[Outside]:
    """The host has addresses and routes of many kinds on its card."""
    with Outside(open_vswitch, netns, UPLINK.interface) as wire:
        for words in (
            f"address add {HERE}/24 dev eth9",
            "address add 192.0.2.77/24 dev eth9 label eth9:web",
            "address add 198.51.100.1/32 dev eth9 scope host noprefixroute",
            f"address add {HERE_6}/64 dev eth9 nodad",
            "address add 2001:db8:1::1/64 dev eth9 nodad valid_lft 3600 preferred_lft 1800",
            f"route add default via {FAR} dev eth9 metric 50",
            "route add 203.0.113.0/24 via 192.0.2.10 dev eth9 src 192.0.2.77 mtu 1400",
            "route add 203.0.113.0/25 dev eth9 scope link table 100",
            "route add 10.9.0.0/16 via 172.16.0.1 dev eth9 onlink",
            "route add 10.10.0.0/16 nexthop via 192.0.2.11 dev eth9 weight 2 nexthop via 192.0.2.12 dev eth9",
            f"route replace 10.11.0.0/16 dev lo src {HERE}",
            "-6 route add default via fe80::9 dev eth9 metric 70",
            "-6 route add 2001:db8:9::/48 via 2001:db8::9 dev eth9 table 100",
            "neighbour add 192.0.2.50 lladdr 02:00:00:00:50:50 dev eth9 nud permanent",
        ):
            subprocess.run(["ip", *words.split()], check=True, capture_output=True)
        until_link_local()
        yield wire


def until_link_local() -> None:
    """The card's own link-local address is there and no longer looked for elsewhere."""

    def is_there() -> bool:
        shown = ip("address", "show", "dev", "eth9")
        return "scope link" in shown and "tentative" not in shown

    until(is_there)


def until(is_so: Callable[[], bool]) -> None:
    """Returns when it is so, which is asked again whenever the kernel tells of a change."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as telling:
        telling.bind((0, ADDRESS_AND_ROUTE_GROUPS))
        telling.settimeout(WITHIN_S)
        while not is_so():
            telling.recv(1 << 16)


def until_standing(before: list[str], device: str = "eth9") -> None:
    """The device has all that the card had: of an IPv6 address the kernel makes the rest when it comes round to it."""
    if standing(device) != before:
        until(lambda: standing(device) == before)


@pytest.fixture
def place(open_vswitch: RunningSwitch, short_path: Path) -> Place:
    return Place(short_path / "state", open_vswitch.database_socket)


@pytest.fixture
def machine(outside: Outside) -> NetworkNamespace:
    return outside.machine("far", f"{FAR}/24", "2001:db8::9/64")


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


PASSING = ("valid_life_time", "preferred_life_time", "expires", "cacheinfo", "used", "flags")


def standing(device: str = "eth9") -> list[str]:
    """Addresses, routes of all tables and permanent neighbours of a device, by itself or among nexthops."""
    (link,) = json.loads(ip("-j", "address", "show", "dev", device))
    found: list[dict[str, Any]] = list(link["addr_info"])
    for family in ("-4", "-6"):
        routes = json.loads(ip("-j", "-d", family, "route", "show", "table", "all"))
        found += [route for route in routes if f'"{device}"' in json.dumps(route)]
    found += json.loads(ip("-j", "neighbour", "show", "dev", device, "nud", "permanent"))
    told = [{key: value for key, value in each.items() if key not in PASSING} for each in found]
    return sorted(json.dumps(each, sort_keys=True).replace(device, "CARD") for each in told)


def is_there(link: str) -> bool:
    return f" {link}:" in ip("link", "show")


async def test_a_card_is_taken_and_given_back(place: Place, machine: NetworkNamespace) -> None:
    before = standing()
    with Pinging(machine, HERE) as pinging:
        assert await ensure(UPLINK, place)
    assert len(pinging.lost) <= 2
    until_standing(before, "phy-eth9")
    assert json.loads(ip("-j", "address", "show", "dev", "eth9"))[0]["addr_info"] == []
    assert pings(machine, HERE_6)
    assert not await ensure(UPLINK, place)
    with Pinging(machine, HERE) as pinging:
        assert await give_back("eth9", place.records)
    assert len(pinging.lost) <= 2
    until_standing(before)
    assert not is_there("phy-eth9")
    assert pings(machine, HERE_6)
    assert not await give_back("eth9", place.records)


@pytest.mark.parametrize("step", STEPS)
async def test_whenever_the_taker_dies_the_host_is_reached(place: Place, machine: NetworkNamespace, step: str) -> None:
    before = standing()
    await asyncio.to_thread(kill_at, place, step)
    is_taken = step == "committed"
    assert reaches(machine, HERE)
    assert pings(machine, HERE)
    assert is_there("phy-eth9") is is_taken
    until_standing(before, "phy-eth9" if is_taken else "eth9")
    assert await ensure(UPLINK, place) is not is_taken
    assert reaches(machine, HERE)
    until_standing(before, "phy-eth9")
    await give_back("eth9", place.records)
    until_standing(before)


@pytest.mark.parametrize("step", ["bridged", "joined", "moved", "shielded"])
async def test_the_next_start_undoes_what_nobody_watched(place: Place, machine: NetworkNamespace, step: str) -> None:
    before = standing()
    await asyncio.to_thread(kill_at, place, step, is_watchdog_killed=True)
    assert await ensure(UPLINK, place)
    assert reaches(machine, HERE)
    until_standing(before, "phy-eth9")
    await give_back("eth9", place.records)
    until_standing(before)


def kill_at(place: Place, step: str, *, is_watchdog_killed: bool = False) -> None:
    """A process that takes the card has died at this step, and its watchdog has ended."""
    words = (str(place.state_dir), str(place.database), "eth9", step)
    taker = subprocess.Popen(
        (sys.executable, "-m", "tests.harness.taking", *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert taker.stdout is not None
    children = [int(word) for word in taker.stdout.readline().split()]
    watching = [os.pidfd_open(pid) for pid in children]
    if is_watchdog_killed:
        for pid in children:
            os.kill(pid, 9)
    _, said = taker.communicate(timeout=WITHIN_S)
    assert taker.returncode == -9, said
    for handle in watching:
        assert select.select([handle], [], [], WITHIN_S)[0], "the watchdog did not end"
        os.close(handle)


async def test_what_was_taken_away_by_hand_comes_back(
    place: Place, machine: NetworkNamespace, open_vswitch: RunningSwitch
) -> None:
    before = standing()
    await ensure(UPLINK, place)
    open_vswitch.run("ovs-vsctl", "del-br", "phy-eth9")
    assert await ensure(UPLINK, place)
    assert reaches(machine, HERE)
    until_standing(before, "phy-eth9")


async def test_a_switch_that_was_ended_in_order_gets_the_addresses_again(
    place: Place, machine: NetworkNamespace, open_vswitch: RunningSwitch
) -> None:
    await ensure(UPLINK, place)
    ip("address", "add", "192.0.2.201/24", "dev", "phy-eth9")
    assert not await ensure(UPLINK, place)
    now = standing("phy-eth9")
    await asyncio.to_thread(restart_in_order, open_vswitch)
    ip("address", "replace", f"{HERE}/24", "dev", "phy-eth9")  # somebody else was quicker with one of them
    ip("link", "set", "phy-eth9", "up")
    await ensure(UPLINK, place)
    assert reaches(machine, HERE)
    assert pings(machine, "192.0.2.201")
    until_standing(now, "phy-eth9")


def restart_in_order(switch: RunningSwitch) -> None:
    """The switch was told to end, and has started again: its bridges' interfaces are other ones."""
    with os.fdopen(os.pidfd_open(switch.pid())) as ending:
        switch.run("ovs-appctl", "exit")
        assert select.select([ending], [], [], WITHIN_S)[0]
    switch.start()
    switch.run("ovs-vsctl", "--timeout=30", "wait-until", "interface", "phy-eth9", "ofport>0")


async def test_what_comes_to_the_card_later_moves_as_well(place: Place, machine: NetworkNamespace) -> None:
    await ensure(UPLINK, place)
    ip("address", "add", "192.0.2.200/24", "dev", "eth9")
    assert await ensure(UPLINK, place)
    assert pings(machine, "192.0.2.200")
    assert pings(machine, HERE)
    await give_back("eth9", place.records)
    assert "192.0.2.200" in ip("address", "show", "dev", "eth9")
    assert HERE in ip("address", "show", "dev", "eth9")


async def test_what_was_written_down_elsewhere_is_not_believed(place: Place, machine: NetworkNamespace) -> None:
    before = standing()
    await ensure(UPLINK, place)
    record = place.records.read("eth9")
    assert record is not None
    place.records.write("eth9", msgspec.structs.replace(record, network="another boot/1"))
    assert await ensure(UPLINK, place)
    assert reaches(machine, HERE)
    until_standing(before, "phy-eth9")


async def test_other_tags_change_the_patch_and_nothing_else(place: Place, open_vswitch: RunningSwitch) -> None:
    with Outside(open_vswitch, lambda _: pytest.fail("nobody is there"), UPLINK.interface):
        await ensure(UPLINK, place)
        assert await ensure(Uplink("eth9", ((7, 8),)), place)
        assert not await ensure(Uplink("eth9", ((7, 8),)), place)
        assert open_vswitch.run("ovs-vsctl", "get", "port", "dn-eth9", "trunks") == "[7, 8]\n"
        await give_back("eth9", place.records)


async def test_a_switch_that_does_not_move_is_no_harm(
    place: Place, machine: NetworkNamespace, open_vswitch: RunningSwitch, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = standing()
    monkeypatch.setattr("host_actor.uplink_rows.WITHIN_MS", 500)
    os.kill(open_vswitch.pid(), signal.SIGSTOP)
    try:
        with pytest.raises(UplinkRefused) as caught:
            await ensure(UPLINK, place)
    finally:
        os.kill(open_vswitch.pid(), signal.SIGCONT)
    assert caught.value.code == "uplink-not-taken"
    until_standing(before)
    assert reaches(machine, HERE)
    assert await ensure(UPLINK, place)
    assert reaches(machine, HERE)


@asynccontextmanager
async def keeping(place: Place, *uplinks: Uplink) -> AsyncIterator[UplinkKeeper]:
    keeper = UplinkKeeper(uplinks, place)
    running = asyncio.create_task(keeper.run())
    try:
        await asyncio.wait_for(keeper.settled.wait(), WITHIN_S)
        yield keeper
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_an_uplink_is_kept(place: Place, machine: NetworkNamespace, open_vswitch: RunningSwitch) -> None:
    before = standing()
    async with keeping(place, UPLINK) as keeper:
        assert keeper.facts == ("eth9 (taken)",)
        for gone in (("del-port", "phy-eth9", "eth9"), ("del-port", "phy-eth9", "dn-eth9"), ("del-br", "phy-eth9")):
            await asyncio.to_thread(open_vswitch.run, "ovs-vsctl", *gone)
            until = ("--timeout=30", "wait-until", "interface", gone[-1].replace("phy-eth9", "dn-eth9"), "ofport>0")
            await asyncio.to_thread(open_vswitch.run, "ovs-vsctl", *until)
        assert await asyncio.to_thread(reaches, machine, HERE)
    async with keeping(place, UPLINK, Uplink("eth77")) as keeper:
        assert keeper.facts[0] == "eth9 (taken)"
        assert "uplink-unknown" in keeper.facts[1]
        until_standing(before, "phy-eth9")
    async with keeping(place):
        until_standing(before)
        assert pings(machine, HERE)


@pytest.mark.parametrize(
    ("make", "interface", "code"),
    [
        ([], "eth77", "uplink-unknown"),
        ([], "lo", "uplink-loopback"),
        (["link add br7 type bridge", "link set eth9 master br7"], "eth9", "uplink-enslaved"),
        (["link add link eth9 name mv7 type macvlan"], "eth9", "uplink-has-interfaces"),
        (["route add 10.1.0.0/16 nhid 7"], "eth9", "uplink-cannot-move"),
    ],
    ids=["unknown", "loopback", "bridge-member", "macvlan", "nexthop-object"],
)
async def test_what_cannot_be_an_uplink_is_refused(
    place: Place, outside: Outside, make: list[str], interface: str, code: str
) -> None:
    if code == "uplink-cannot-move":
        ip("nexthop", "add", "id", "7", "via", FAR, "dev", "eth9")
    for words in make:
        ip(*words.split())
    before = ip("route") + ip("address", "show", "dev", interface) if interface != "eth77" else ""
    with pytest.raises(UplinkRefused) as caught:
        await ensure(Uplink(interface), place)
    assert caught.value.code == code
    assert not is_there(f"phy-{interface}")
    assert before == (ip("route") + ip("address", "show", "dev", interface) if interface != "eth77" else "")
    for link in set(re.findall(r"\b(?:br7|mv7)\b", ip("link", "show"))):
        ip("link", "delete", link)


async def test_a_port_of_another_bridge_is_refused(place: Place, outside: Outside, open_vswitch: RunningSwitch) -> None:
    open_vswitch.run("ovs-vsctl", "add-br", "theirs", "--", "set", "bridge", "theirs", "datapath_type=netdev")
    open_vswitch.run("ovs-vsctl", "add-port", "theirs", "eth9")
    with pytest.raises(UplinkRefused) as caught:
        await ensure(UPLINK, place)
    assert caught.value.code == "uplink-in-another-bridge"
    assert "theirs" in caught.value.detail
