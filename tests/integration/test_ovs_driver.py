"""The Open vSwitch driver against a real switch: attached, observed, repaired, fenced, and the switch restarted."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from host_actor.drivers.contract import DropPort, EnsurePort, EnsureSwitch, Failed, Part, Sandbox
from host_actor.drivers.ovs import OvsDriver
from host_actor.planner import plan
from services.runtime.errors import Unavailable
from tests.harness.netns import NetworkNamespace, links, run
from tests.harness.openvswitch import RunningSwitch
from tests.harness.ovs_world import OvsWorld, attached, done, is_whole
from tests.requires import needs_ovs, needs_tool

pytestmark = [pytest.mark.anyio, needs_ovs, needs_tool("busybox")]

SOON_S = 30.0  # told by itself: nothing here looks by a timer


@pytest.fixture
def world(open_vswitch: RunningSwitch, netns: Callable[[str], NetworkNamespace]) -> OvsWorld:
    return OvsWorld(open_vswitch, netns)


@pytest.fixture
async def driver(world: OvsWorld) -> AsyncIterator[OvsDriver]:
    async with world.driver() as opened:
        yield opened


def delete_link(device: str) -> None:
    run("ip", "link", "delete", device)


async def repair(driver: OvsDriver, world: OvsWorld, *numbers: int) -> tuple[frozenset[Part], ...]:
    """What the plan made from a new observation ensured, port by port; afterwards all is as it was."""
    specs = {spec.endpoint: spec for spec in map(world.spec, numbers)}
    ops = plan(specs, await driver.observe())
    await done(driver, *ops)
    observed = await driver.observe()
    assert is_whole(observed, *specs.values())
    assert plan(specs, observed) == ()
    return tuple(op.parts for op in ops if isinstance(op, EnsurePort))


async def test_a_port_is_as_people_see_it(world: OvsWorld, driver: OvsDriver) -> None:
    spec = world.spec(1)
    assert await attached(driver, spec) == ["eth0"]
    assert is_whole(await driver.observe(), spec)
    assert driver.capabilities.datapath == "netdev"
    shown = world.switch.run("ovs-vsctl", "show")
    assert "fail_mode: secure" in shown
    assert f"Port {spec.device}\n            tag: 100" in shown
    ids = world.switch.run("ovs-vsctl", "get", "port", spec.device, "external_ids")
    for fact in (f"np-endpoint={spec.endpoint}", 'np-epoch="7"', "np-tenant=acme", "np-network=net100", "np-name=web1"):
        assert fact in ids
    inside = world.container(1).run("ip", "-d", "address", "show", "eth0").stdout
    assert "mtu 1450" in inside
    assert spec.mac in inside
    assert "default via 10.0.255.254" in world.container(1).run("ip", "route").stdout


async def test_a_repeat_changes_nothing(world: OvsWorld, driver: OvsDriver) -> None:
    spec = world.spec(1)
    await attached(driver, spec)
    look = ("ovs-vsctl", "--columns=_uuid,ofport_request,external_ids", "list", "interface", spec.device)
    before = world.switch.run(*look)
    assert await attached(driver, spec) == ["eth0"]
    assert world.switch.run(*look) == before
    assert is_whole(await driver.observe(), spec)


async def test_the_next_free_interface_is_taken(world: OvsWorld, driver: OvsDriver) -> None:
    assert await attached(driver, world.spec(1), world.spec(2, container=1, tag=200)) == ["eth0", "eth1"]
    assert world.container(1).run("ip", "route", "show", "default").stdout.count("default") == 1


async def test_fifty_at_once(world: OvsWorld, driver: OvsDriver) -> None:
    specs = [world.spec(number) for number in range(1, 51)]
    assert set(await attached(driver, *specs)) == {"eth0"}
    assert is_whole(await driver.observe(), *specs)
    assert world.pings(1, "10.0.0.50")


async def test_what_is_dropped_is_gone(world: OvsWorld, driver: OvsDriver) -> None:
    one, two = world.spec(1), world.spec(2)
    await attached(driver, one, two)
    drop = DropPort(two.endpoint, two.device)
    await done(driver, drop)
    assert is_whole(await driver.observe(), one)
    assert two.device not in world.switch.run("ovs-vsctl", "list-ports", "vlanBr")
    assert two.device not in links()
    assert "10.0.0.2" not in world.switch.run("ovs-ofctl", "-OOpenFlow15", "dump-flows", "vlanBr")
    await done(driver, drop, drop)


async def test_many_that_are_dropped_go_one_by_one(world: OvsWorld, driver: OvsDriver) -> None:
    specs = [world.spec(number) for number in range(1, 11)]
    await attached(driver, *specs)
    await done(driver, *(DropPort(spec.endpoint, spec.device) for spec in specs[:-1]))
    assert is_whole(await driver.observe(), specs[-1])
    again = await done(driver, EnsurePort(specs[0]))  # waits for its own removal, not for that of the others
    assert again == ["eth0"]
    assert world.pings(1, "10.0.0.10")


async def test_what_comes_into_a_container_waits_for_what_leaves_it(world: OvsWorld, driver: OvsDriver) -> None:
    specs = [world.spec(number) for number in range(1, 11)]
    await attached(driver, *specs)
    drops = [DropPort(spec.endpoint, spec.device) for spec in specs[:-1]]
    same_time = await done(driver, *drops, EnsurePort(world.spec(11, container=9)))
    assert same_time[-1] == "eth0"
    assert world.pings(9, "10.0.0.10")
    assert await done(driver, EnsurePort(world.spec(12, container=8))) == ["eth0"]
    assert world.pings(8, "10.0.0.10")


async def test_an_older_epoch_never_replaces_a_newer_one(world: OvsWorld, driver: OvsDriver) -> None:
    await attached(driver, world.spec(1, epoch=9))
    (outcome,) = await driver.execute([EnsurePort(world.spec(1, epoch=8))])
    assert isinstance(outcome, Failed)
    assert outcome.code == "epoch-superseded"
    assert is_whole(await driver.observe(), world.spec(1))


async def test_a_newer_epoch_in_another_container_replaces_it(world: OvsWorld, driver: OvsDriver) -> None:
    await attached(driver, world.spec(1), world.spec(2))
    moved = world.spec(1, epoch=9, container=3)
    await done(driver, EnsurePort(moved))
    assert is_whole(await driver.observe(), moved, world.spec(2))
    assert world.pings(3, "10.0.0.2")
    assert "eth0" not in links(world.container(1))


async def test_one_that_cannot_be_made_does_not_hold_up_the_others(world: OvsWorld, driver: OvsDriver) -> None:
    gone = msgspec.structs.replace(world.spec(1), sandbox=Sandbox("x", "/run/netns/x"))
    await done(driver, EnsureSwitch())
    refused, made = await driver.execute([EnsurePort(gone), EnsurePort(world.spec(2))])
    assert isinstance(refused, Failed)
    assert refused.code == "container-gone"
    assert not isinstance(made, Failed)
    assert is_whole(await driver.observe(), world.spec(2))


async def test_a_row_removed_by_hand_is_noticed_and_put_back(world: OvsWorld, driver: OvsDriver) -> None:
    await attached(driver, world.spec(1), world.spec(2))
    world.switch.run("ovs-vsctl", "del-port", world.spec(1).device)
    async with asyncio.timeout(SOON_S):
        await world.change(world.spec(1).device)
    await repair(driver, world, 1, 2)
    assert world.pings(1, "10.0.0.2")


async def test_a_device_removed_by_hand_is_noticed_and_put_back(world: OvsWorld, driver: OvsDriver) -> None:
    await attached(driver, world.spec(1), world.spec(2))
    delete_link(world.spec(1).device)
    async with asyncio.timeout(SOON_S):
        await world.change("was removed")
    assert await repair(driver, world, 1, 2) == (frozenset({Part.LINK}),)
    assert world.pings(1, "10.0.0.2")  # the switch would go on listening on the device that is gone


async def test_an_interface_taken_down_inside_is_put_up_again(world: OvsWorld, driver: OvsDriver) -> None:
    await attached(driver, world.spec(1), world.spec(2))
    world.container(1).run("ip", "link", "set", "eth0", "down")
    async with asyncio.timeout(SOON_S):
        await world.change("lost its link")
    assert await repair(driver, world, 1, 2) == (frozenset({Part.LINK}),)
    assert world.pings(1, "10.0.0.2")


@pytest.mark.parametrize(
    ("words", "is_port_broken"),
    [
        (("del-flows", "vlanBr", "ip,in_port=1"), True),
        (("mod-flows", "vlanBr", "table=50,dl_dst=02:00:00:00:00:01,actions=drop"), True),
        (("add-flow", "vlanBr", "table=0,priority=500,in_port=1,actions=normal"), False),
        (("del-flows", "vlanBr", "table=20,arp,arp_op=1"), True),
        (("del-groups", "vlanBr"), True),
        (("del-flows", "vlanBr"), True),
    ],
    ids=["removed", "changed", "added", "answers", "groups", "all"],
)
async def test_rules_changed_by_hand_are_found_and_put_right(
    world: OvsWorld, driver: OvsDriver, words: tuple[str, ...], is_port_broken: bool
) -> None:
    await attached(driver, world.spec(1), world.spec(2))
    world.switch.run("ovs-ofctl", "-OOpenFlow15", *words)
    async with asyncio.timeout(SOON_S):
        await world.change("flows of vlanBr were changed")
    repaired = await repair(driver, world, 1, 2)
    assert set(repaired) == ({frozenset({Part.RULES})} if is_port_broken else set())
    assert world.pings(1, "10.0.0.2")
    assert "NORMAL" not in world.switch.run("ovs-ofctl", "-OOpenFlow15", "dump-flows", "vlanBr")


async def test_a_bridge_that_is_no_longer_secure_is_made_so(world: OvsWorld, driver: OvsDriver) -> None:
    await attached(driver, world.spec(1))
    world.switch.run("ovs-vsctl", "del-fail-mode", "vlanBr")
    await world.change("vlanBr was changed")
    assert not (await driver.observe()).is_switch_ready
    await repair(driver, world, 1)
    assert world.switch.run("ovs-vsctl", "get-fail-mode", "vlanBr").strip() == "secure"


async def test_a_bridge_removed_by_hand_comes_back_with_its_ports(world: OvsWorld, driver: OvsDriver) -> None:
    await attached(driver, world.spec(1), world.spec(2))
    world.switch.run("ovs-vsctl", "del-br", "vlanBr")
    await world.change("vlanBr was changed")
    await repair(driver, world, 1, 2)
    assert world.pings(1, "10.0.0.2")


async def test_a_new_driver_finds_everything_as_it_is(world: OvsWorld) -> None:
    async with world.driver() as first:
        await attached(first, world.spec(1), world.spec(2))
    async with world.driver() as second:
        assert plan({spec.endpoint: spec for spec in (world.spec(1), world.spec(2))}, await second.observe()) == ()
        assert await done(second, EnsurePort(world.spec(3))) == ["eth0"]
        assert world.pings(3, "10.0.0.1")


async def test_a_killed_switch_has_its_rules_again(world: OvsWorld, driver: OvsDriver) -> None:
    await attached(driver, *(world.spec(number) for number in range(1, 6)))
    os.kill(world.switch.pid(), signal.SIGKILL)
    await world.change("vlanBr.mgmt ended the connection")
    with pytest.raises(Unavailable):
        await driver.observe()
    await asyncio.to_thread(world.switch.start)
    await world.change("the bridge is there")
    assert set(await repair(driver, world, 1, 2, 3, 4, 5)) == {frozenset({Part.RULES})}
    assert world.pings(1, "10.0.0.5")


async def test_the_database_killed_is_noticed_and_found_again(world: OvsWorld, driver: OvsDriver) -> None:
    await attached(driver, world.spec(1), world.spec(2))
    os.kill(world.switch.pid("ovsdb-server"), signal.SIGKILL)
    await world.change("db.sock ended the connection")
    with pytest.raises(Unavailable):
        await driver.execute([EnsurePort(world.spec(3))])
    await asyncio.to_thread(world.switch.start)
    await world.change("ovsdb-server is there again")
    async with asyncio.timeout(30):
        while True:
            try:
                await repair(driver, world, 1, 2)
            except Unavailable:
                await world.change("the bridge is there")
            else:
                break
    assert world.pings(1, "10.0.0.2")


async def test_the_switch_dying_under_an_attach_is_said(world: OvsWorld, driver: OvsDriver) -> None:
    await attached(driver, world.spec(1))
    os.kill(world.switch.pid(), signal.SIGSTOP)
    attaching = asyncio.create_task(driver.execute([EnsurePort(world.spec(2))]))
    os.kill(world.switch.pid(), signal.SIGKILL)
    with pytest.raises(Unavailable):
        await attaching
    await asyncio.to_thread(world.switch.start)
    await world.change("the bridge is there")
    await repair(driver, world, 1, 2)
    assert world.pings(1, "10.0.0.2")


async def test_no_switch_is_unavailable(short_path: Path) -> None:
    driver = OvsDriver(run_dir=short_path)
    for _ in range(2):  # it may be tried again
        with pytest.raises(Unavailable, match=r"db\.sock"):
            await driver.open(lambda _: None)
