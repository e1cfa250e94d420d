"""A switch that shows flows in other words than it was told them: said once, sealed as shown, not repaired for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
import structlog

from host_actor.drivers.contract import EnsurePort, EnsureSwitch, Op
from host_actor.drivers.ovs import OvsDriver
from host_actor.planner import plan
from tests.harness.netns import NetworkNamespace
from tests.harness.openvswitch import RunningSwitch
from tests.harness.ovs_world import OvsWorld, attached, done, is_whole
from tests.harness.paraphrase import paraphrasing
from tests.requires import needs_ovs, needs_tool

pytestmark = [pytest.mark.anyio, needs_ovs, needs_tool("busybox")]

SAID = "flows-shown-differently"


@pytest.fixture
def world(open_vswitch: RunningSwitch, netns: Callable[[str], NetworkNamespace]) -> OvsWorld:
    return OvsWorld(open_vswitch, netns)


@pytest.fixture
async def paraphrased(world: OvsWorld, short_path: Path) -> AsyncIterator[Path]:
    async with paraphrasing(world.switch.run_dir, short_path / "other") as run_dir:
        yield run_dir


async def opened(run_dir: Path) -> OvsDriver:
    driver = OvsDriver(run_dir=run_dir)
    await driver.open(lambda _: None)
    return driver


async def left(driver: OvsDriver, world: OvsWorld, *numbers: int) -> tuple[Op, ...]:
    """What a full pass would still do."""
    specs = {spec.endpoint: spec for spec in map(world.spec, numbers)}
    return plan(specs, await driver.observe())


async def test_it_is_learnt_before_the_first_port_and_said_once(world: OvsWorld, paraphrased: Path) -> None:
    driver = await opened(paraphrased)
    with structlog.testing.capture_logs() as logs:
        await attached(driver, world.spec(1), world.spec(2))
        assert await left(driver, world, 1, 2) == ()
        await done(driver, EnsurePort(world.spec(3)))
        assert await left(driver, world, 1, 2, 3) == ()
    assert [line["event"] for line in logs].count(SAID) == 1
    assert world.pings(1, "10.0.0.3")
    await driver.close()


async def test_an_upgrade_costs_one_repair(world: OvsWorld, paraphrased: Path) -> None:
    specs = [world.spec(number) for number in (1, 2)]
    async with world.driver() as before:
        await attached(before, *specs)
    driver = await opened(paraphrased)
    repair = await left(driver, world, 1, 2)
    assert {type(op) for op in repair} == {EnsureSwitch, EnsurePort}
    await done(driver, *repair)
    assert await left(driver, world, 1, 2) == ()
    await driver.close()
    again = await opened(paraphrased)  # the rows remember; what all share is put there again, once
    assert {type(op) for op in await left(again, world, 1, 2)} <= {EnsureSwitch}
    await done(again, EnsureSwitch())
    assert is_whole(await again.observe(), *specs)
    await again.close()


async def test_a_change_by_hand_is_seen_all_the_same(world: OvsWorld, paraphrased: Path) -> None:
    driver = await opened(paraphrased)
    await attached(driver, world.spec(1), world.spec(2))
    flow = "table=50,dl_dst=02:00:00:00:00:01,actions=drop"
    world.switch.run("ovs-ofctl", "-OOpenFlow15", "mod-flows", "vlanBr", flow)
    repair = await left(driver, world, 1, 2)
    assert repair
    await done(driver, *repair)
    assert await left(driver, world, 1, 2) == ()
    assert world.pings(2, "10.0.0.1")
    await driver.close()


async def test_an_address_given_twice_has_its_flows_once(world: OvsWorld) -> None:
    spec = world.spec(1)
    twice = msgspec.structs.replace(spec, addresses=(*spec.addresses, *spec.addresses))
    async with world.driver() as driver:
        await attached(driver, twice)
        assert is_whole(await driver.observe(), twice)
