"""Whatever is desired, whatever is there: the plan, executed, leaves nothing to plan, even cut short and done again."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from host_actor.drivers.contract import ALL_PARTS, DropPort, EnsurePort, EnsureSwitch, Failed, Part, PortSpec
from host_actor.drivers.memory import MemoryDriver, MemoryPort, MemorySwitch
from host_actor.planner import leave_unknown, plan
from services.runtime.errors import Unavailable
from tests.harness.host_world import endpoint_id
from tests.unit.test_planner import spec

NUMBERS = st.integers(0, 5)
EPOCHS = st.integers(1, 4)
PARTS = st.sets(st.sampled_from(sorted(Part)), min_size=1)


@st.composite
def desired_ports(draw: st.DrawFn) -> dict[str, PortSpec]:
    found = draw(st.dictionaries(NUMBERS, st.tuples(EPOCHS, st.integers(1, 3))))
    return {endpoint_id(number): spec(number, epoch, f"run{run}") for number, (epoch, run) in found.items()}


@st.composite
def switches(draw: st.DrawFn) -> MemorySwitch:
    switch = MemorySwitch()
    switch.is_ready = draw(st.booleans())
    for number, (epoch, run, parts) in draw(
        st.dictionaries(NUMBERS, st.tuples(EPOCHS, st.integers(1, 3), PARTS))
    ).items():
        key = f"run{run}"
        port = MemoryPort(endpoint_id(number), epoch, spec(number).device, key, switch.interface_for(key), set(parts))
        switch.ports[port.endpoint] = port
    return switch


async def converge(desired: dict[str, PortSpec], driver: MemoryDriver) -> None:
    ops = plan(desired, await driver.observe())
    outcomes = await driver.execute(ops)
    assert not [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    assert plan(desired, await driver.observe()) == ()


@given(desired_ports(), switches())
def test_a_plan_converges(desired: dict[str, PortSpec], switch: MemorySwitch) -> None:
    asyncio.run(converge(desired, MemoryDriver(switch)))
    assert {port.endpoint: port.epoch for port in switch.ports.values()} == {
        endpoint: wanted.epoch for endpoint, wanted in desired.items()
    }


@given(desired_ports(), switches(), st.lists(st.integers(0, 8), max_size=4))
def test_a_plan_cut_short_anywhere_and_begun_again_converges(
    desired: dict[str, PortSpec], switch: MemorySwitch, cuts: list[int]
) -> None:
    async def run() -> None:
        driver = MemoryDriver(switch)
        for steps in cuts:
            switch.fails_at_step = switch.steps + steps
            with suppress(Unavailable):
                await driver.execute(plan(desired, await driver.observe()))
        switch.fails_at_step = None
        await converge(desired, driver)

    asyncio.run(run())


@given(desired_ports(), switches())
def test_order_is_switch_then_drops_then_ensures(desired: dict[str, PortSpec], switch: MemorySwitch) -> None:
    ops = plan(desired, asyncio.run(MemoryDriver(switch).observe()))
    rank = {EnsureSwitch: 0, DropPort: 1, EnsurePort: 2}
    assert [rank[type(op)] for op in ops] == sorted(rank[type(op)] for op in ops)


@given(desired_ports(), switches())
def test_nothing_that_is_right_is_touched(desired: dict[str, PortSpec], switch: MemorySwitch) -> None:
    observed = asyncio.run(MemoryDriver(switch).observe())
    for op in plan(desired, observed):
        if isinstance(op, EnsurePort) and op.parts != ALL_PARTS:
            assert not op.parts & observed.ports[op.port.endpoint].parts
        if isinstance(op, DropPort):
            wanted, found = desired.get(op.endpoint), observed.ports[op.endpoint]
            assert wanted is None or (wanted.epoch, wanted.sandbox.key) != (found.epoch, found.sandbox_key)


@given(desired_ports(), switches(), st.dictionaries(NUMBERS.map(endpoint_id), EPOCHS))
def test_who_is_not_sure_never_removes_what_he_does_not_know(
    desired: dict[str, PortSpec], switch: MemorySwitch, known_gone: dict[str, int]
) -> None:
    observed = asyncio.run(MemoryDriver(switch).observe())
    specs, known = leave_unknown(desired, observed, known_gone)
    for op in plan(specs, known):
        if isinstance(op, DropPort):
            newest = max(known_gone.get(op.endpoint, 0), desired[op.endpoint].epoch if op.endpoint in desired else 0)
            assert observed.ports[op.endpoint].epoch <= newest
