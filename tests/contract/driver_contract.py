"""What every soft switch driver must do, asked of each that is registered by `test_driver_contract.py`.

A `Bench` is one switch with containers, on which drivers come and go as processes do.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Protocol

import anyio
import pytest

from host_actor.attachments import port_of
from host_actor.drivers.contract import (
    ALL_PARTS,
    Done,
    Driver,
    DropPort,
    DropRemote,
    EnsurePort,
    EnsureRemote,
    Failed,
    Observed,
    Op,
    Outcome,
    Part,
    PortSpec,
    Remote,
    RemoteEndpoint,
    RemoteFlood,
    RemoteTunnel,
    RemoteVtep,
    Sandbox,
)
from host_actor.planner import plan
from services.runtime.errors import Unavailable
from tests.harness.host_world import bound, endpoint_id

WITHIN_S = 40.0
VTEP = ip_address("172.31.0.1")  # this host's own
FAR, FARTHER = ip_address("172.31.0.2"), ip_address("172.31.0.3")
CUTS_S = (0.0, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016)


class Bench(Protocol):
    """One switch and its containers."""

    def driver(self) -> Driver:
        """Another driver of the same switch, not yet open."""
        ...

    def sandbox(self, number: int) -> Sandbox:
        """Where container `number` lives."""
        ...

    def restart(self, number: int) -> None:
        """Container `number` ends, and begins again in another sandbox."""
        ...

    def end(self, number: int) -> None:
        """Container `number` ends; `sandbox` still says where it was."""
        ...

    def remove(self, port: PortSpec, part: Part) -> None:
        """Somebody else takes a part of a port away."""
        ...

    def remove_remote(self, driver: Driver, remote: Remote) -> None:
        """Somebody else takes away what the switch has of another host."""
        ...

    async def cut_short(self, driver: Driver, ops: Sequence[Op], cut: int) -> None:
        """The execution of `ops` ends somewhere in the middle; where, depends on `cut`."""
        ...


def spec(bench: Bench, number: int, epoch: int = 5, container: int = 0) -> PortSpec:
    """Endpoint `number` in a container of the same number, or another one."""
    return port_of(bound(number), epoch, bench.sandbox(container or number))


def wanted(*specs: PortSpec) -> dict[str, PortSpec]:
    """Those, by endpoint."""
    return {each.endpoint: each for each in specs}


def elsewhere(number: int, epoch: int = 5, vtep: IPv4Address | IPv6Address = FAR) -> RemoteEndpoint:
    """Endpoint `number` on another host."""
    event = bound(number)
    addresses = (*(interface.ip for interface in event.addresses), ip_address(f"fd00::{number:x}"))
    return RemoteEndpoint(event.endpoint, epoch, 5001 + number % 2, event.mac, addresses, vtep)


def reached(*endpoints: RemoteEndpoint) -> tuple[Remote, ...]:
    """All that it takes to reach these."""
    ways = dict.fromkeys(RemoteFlood(each.vni, each.vtep) for each in endpoints)
    hosts = dict.fromkeys(RemoteVtep(each.vtep, f"02:00:00:00:aa:{int(each.vtep) & 255:02x}") for each in endpoints)
    return (RemoteTunnel(VTEP), *hosts, *ways, *endpoints)


def marked(driver: Driver, remotes: Sequence[Remote]) -> dict[str, Remote]:
    """Those, by the driver's marks."""
    return {driver.mark_of(remote): remote for remote in remotes}


async def opened(bench: Bench, changes: list[str] | None = None) -> Driver:
    """A driver that is open; what it says of changes by others goes to `changes`."""
    driver = bench.driver()
    await driver.open(changes.append if changes is not None else lambda _: None)
    return driver


async def converge(driver: Driver, desired: Mapping[str, PortSpec], remotes: Sequence[Remote] = ()) -> Observed:
    """Plan, execute, and nothing is left to plan; returns what is there then."""
    far = marked(driver, remotes)
    assert len(far) == len(remotes), "no two have one mark"
    outcomes = await driver.execute(plan(desired, await driver.observe(), far))
    failed = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    assert not failed, failed
    observed = await driver.observe()
    left = plan(desired, observed, far)
    assert left == (), f"left to plan: {left}; observed: {observed}"
    assert {endpoint: port.epoch for endpoint, port in observed.ports.items()} == {
        endpoint: port.epoch for endpoint, port in desired.items()
    }
    return observed


def interfaces(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """The interface that each port got inside its container, by endpoint."""
    return {
        outcome.op.port.endpoint: outcome.interface
        for outcome in outcomes
        if isinstance(outcome, Done) and isinstance(outcome.op, EnsurePort)
    }


@pytest.mark.anyio
class DriverContract:
    """The suite. Whoever inherits has a fixture `bench`."""

    async def test_a_plan_leaves_nothing_to_plan(self, bench: Bench) -> None:
        driver = await opened(bench)
        observed = await converge(driver, wanted(spec(bench, 1), spec(bench, 2)))
        port = observed.ports[endpoint_id(1)]
        assert (port.device, port.parts, port.interface) == (spec(bench, 1).device, ALL_PARTS, "eth0")
        assert port.sandbox_key == bench.sandbox(1).key
        await converge(driver, {})
        await driver.close()

    async def test_every_operation_twice_is_the_same_as_once(self, bench: Bench) -> None:
        driver = await opened(bench)
        desired = wanted(spec(bench, 1), spec(bench, 2))
        for ops in (plan(desired, await driver.observe()), [DropPort(endpoint_id(1), spec(bench, 1).device)]):
            for op in ops:
                twice = [*await driver.execute([op]), *await driver.execute([op])]
                assert all(isinstance(outcome, Done) for outcome in twice), twice
        assert set((await driver.observe()).ports) == {endpoint_id(2)}
        await converge(driver, desired)
        await driver.close()

    async def test_any_prefix_of_a_plan_is_a_beginning(self, bench: Bench) -> None:
        driver = await opened(bench)
        before = wanted(spec(bench, 1), spec(bench, 2))
        after = wanted(spec(bench, 2, epoch=6), spec(bench, 3))
        for length in range(5):
            await converge(driver, before)
            ops = plan(after, await driver.observe())
            await driver.execute(ops[:length])
            await driver.close()
            driver = await opened(bench)
            await converge(driver, after)
            await converge(driver, {})
        await driver.close()

    @pytest.mark.parametrize("cut", range(len(CUTS_S)))
    async def test_a_driver_that_ends_in_the_middle_leaves_what_the_next_one_completes(
        self, bench: Bench, cut: int
    ) -> None:
        driver = await opened(bench)
        await converge(driver, wanted(spec(bench, 1), spec(bench, 2)))
        desired = wanted(spec(bench, 2, epoch=6), spec(bench, 3))
        await bench.cut_short(driver, plan(desired, await driver.observe()), cut)
        await driver.close()
        driver = await opened(bench)
        await converge(driver, desired)
        await driver.close()

    async def test_other_hosts_are_reached_and_forgotten(self, bench: Bench) -> None:
        driver = await opened(bench)
        desired = wanted(spec(bench, 1))
        await converge(driver, desired, reached(elsewhere(2), elsewhere(3)))
        await converge(driver, desired, reached(elsewhere(2, vtep=FARTHER), elsewhere(3, epoch=6)))
        await converge(driver, {}, reached(elsewhere(1)))
        await converge(driver, desired)
        await driver.close()

    async def test_what_is_known_of_other_hosts_twice_is_the_same_as_once(self, bench: Bench) -> None:
        driver = await opened(bench)
        desired, remotes = wanted(spec(bench, 1)), reached(elsewhere(2), elsewhere(3))
        await converge(driver, desired)
        going = [DropRemote(driver.mark_of(elsewhere(2))), DropRemote(driver.mark_of(RemoteFlood(5001, FAR)))]
        ops: list[Op] = [*map(EnsureRemote, remotes), *going]
        for op in ops:
            assert [*await driver.execute([op]), *await driver.execute([op])] == [Done(op)] * 2
        await converge(driver, desired, remotes)
        await driver.close()

    async def test_any_prefix_of_a_change_of_other_hosts_is_a_beginning(self, bench: Bench) -> None:
        driver = await opened(bench)
        before, after = reached(elsewhere(2), elsewhere(3)), reached(elsewhere(2, vtep=FARTHER), elsewhere(4, epoch=6))
        desired = wanted(spec(bench, 1))
        for length in range(9):
            await converge(driver, desired, before)
            ops = plan(desired, await driver.observe(), marked(driver, after))
            await driver.execute(ops[:length])
            await driver.close()
            driver = await opened(bench)
            await converge(driver, desired, after)
        await driver.close()

    async def test_another_driver_finds_other_hosts_as_they_were_left(self, bench: Bench) -> None:
        driver = await opened(bench)
        desired, remotes = wanted(spec(bench, 1)), reached(elsewhere(2), elsewhere(3, vtep=FARTHER))
        await converge(driver, desired, remotes)
        await driver.close()
        driver = await opened(bench)
        left = plan(desired, await driver.observe(), marked(driver, remotes))
        assert all(isinstance(op, EnsureRemote) and isinstance(op.remote, RemoteVtep) for op in left), left
        await converge(driver, desired, remotes)
        await driver.close()

    @pytest.mark.parametrize("kind", [RemoteEndpoint, RemoteFlood, RemoteTunnel])
    async def test_what_somebody_removes_of_other_hosts_is_put_back(self, bench: Bench, kind: type) -> None:
        driver = await opened(bench)
        desired, remotes = wanted(spec(bench, 1)), reached(elsewhere(2), elsewhere(3))
        await converge(driver, desired, remotes)
        (lost, *_) = (remote for remote in remotes if isinstance(remote, kind))
        bench.remove_remote(driver, lost)
        with anyio.fail_after(WITHIN_S):
            while not plan(desired, await driver.observe(), marked(driver, remotes)):
                await anyio.lowlevel.checkpoint()
        await converge(driver, desired, remotes)
        await driver.close()

    async def test_an_older_epoch_is_refused(self, bench: Bench) -> None:
        driver = await opened(bench)
        await converge(driver, wanted(spec(bench, 1, epoch=9)))
        (outcome,) = await driver.execute([EnsurePort(spec(bench, 1, epoch=5))])
        assert isinstance(outcome, Failed)
        assert outcome.code == "epoch-superseded"
        await converge(driver, wanted(spec(bench, 1, epoch=9)))
        await driver.close()

    async def test_what_a_port_takes_is_counted(self, bench: Bench) -> None:
        driver = await opened(bench)
        await converge(driver, wanted(spec(bench, 1)))
        before = await driver.figures()
        await converge(driver, wanted(spec(bench, 1), spec(bench, 2)))
        after = await driver.figures()
        assert sum(after.flows.values()) > sum(before.flows.values())
        assert after.bundles > before.bundles
        assert after.flow_messages > before.flow_messages
        await driver.close()

    async def test_dropping_what_is_not_there_succeeds(self, bench: Bench) -> None:
        driver = await opened(bench)
        op = DropPort(endpoint_id(1), spec(bench, 1).device)
        assert await driver.execute([op]) == [Done(op)]
        await driver.close()

    async def test_outcomes_come_in_the_order_of_the_operations(self, bench: Bench) -> None:
        driver = await opened(bench)
        await converge(driver, wanted(spec(bench, 1), spec(bench, 2)))
        ops = plan(wanted(spec(bench, 2, epoch=6), spec(bench, 3)), await driver.observe())
        assert [outcome.op for outcome in await driver.execute(ops)] == list(ops)
        await driver.close()

    async def test_strangers_of_a_driver_before_are_seen_and_removed(self, bench: Bench) -> None:
        driver = await opened(bench)
        await converge(driver, wanted(spec(bench, 1), spec(bench, 2), spec(bench, 3)))
        await driver.close()
        driver = await opened(bench)
        assert len((await driver.observe()).ports) == 3
        await converge(driver, wanted(spec(bench, 2)))
        await driver.close()

    async def test_two_ports_in_one_container_have_different_interfaces(self, bench: Bench) -> None:
        driver = await opened(bench)
        desired = wanted(spec(bench, 1), spec(bench, 2, container=1))
        outcomes = await driver.execute(plan(desired, await driver.observe()))
        assert sorted(interfaces(outcomes).values()) == ["eth0", "eth1"]
        observed = await converge(driver, desired)
        assert {port.endpoint: port.interface for port in observed.ports.values()} == interfaces(outcomes)
        await driver.close()

    async def test_a_container_that_was_restarted_gets_its_port_anew(self, bench: Bench) -> None:
        driver = await opened(bench)
        await converge(driver, wanted(spec(bench, 1), spec(bench, 2)))
        bench.restart(1)
        observed = await converge(driver, wanted(spec(bench, 1), spec(bench, 2)))
        assert observed.ports[endpoint_id(1)].sandbox_key == bench.sandbox(1).key
        await driver.close()

    async def test_a_container_that_is_gone_fails_alone(self, bench: Bench) -> None:
        driver = await opened(bench)
        gone = spec(bench, 1)
        bench.end(1)
        other = spec(bench, 2)
        outcomes = await driver.execute(plan(wanted(gone, other), await driver.observe()))
        failed = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
        assert [(outcome.code, outcome.op) for outcome in failed] == [("container-gone", EnsurePort(gone))]
        await driver.execute([DropPort(gone.endpoint, gone.device)])
        await converge(driver, wanted(other))
        await driver.close()

    @pytest.mark.parametrize("part", sorted(Part))
    async def test_a_part_that_somebody_removes_is_told_and_put_back(self, bench: Bench, part: Part) -> None:
        changes: list[str] = []
        driver = await opened(bench, changes)
        desired = wanted(spec(bench, 1), spec(bench, 2))
        await converge(driver, desired)
        bench.remove(desired[endpoint_id(1)], part)
        if part is not Part.RULES:  # a flow that vanishes tells nobody: the timer finds it
            with anyio.fail_after(WITHIN_S):
                while not changes:
                    await anyio.lowlevel.checkpoint()
        observed = await driver.observe()
        assert part not in observed.ports[endpoint_id(1)].parts if endpoint_id(1) in observed.ports else True
        assert observed.ports[endpoint_id(2)].parts == ALL_PARTS
        await converge(driver, desired)
        await driver.close()

    async def test_what_a_driver_does_itself_is_no_change(self, bench: Bench) -> None:
        changes: list[str] = []
        driver = await opened(bench, changes)
        await converge(driver, wanted(spec(bench, 1), spec(bench, 2)))
        await converge(driver, wanted(spec(bench, 2, epoch=6)))
        await driver.observe()
        assert changes == []
        await driver.close()

    async def test_closing_touches_nothing(self, bench: Bench) -> None:
        driver = await opened(bench)
        desired = wanted(spec(bench, 1))
        await converge(driver, desired)
        await driver.close()
        driver = await opened(bench)
        assert plan(desired, await driver.observe()) == ()
        await driver.close()


async def walk(bench: Bench, seed: int, steps: int) -> None:
    """Desires change, containers restart, parts vanish, executions are cut short: it converges all the same."""
    chance = random.Random(seed)
    driver = await opened(bench)
    epochs = dict.fromkeys(range(1, 5), 1)
    for _ in range(steps):
        present = [number for number in epochs if chance.random() < 0.6]
        for number in chance.sample(sorted(epochs), 1):
            epochs[number] += 1
            if chance.random() < 0.3:
                bench.restart(number)
        desired = wanted(*(spec(bench, number, epochs[number]) for number in present))
        absent = [number for number in epochs if number not in present and chance.random() < 0.7]
        remotes = reached(*(elsewhere(each, epochs[each], chance.choice((FAR, FARTHER))) for each in absent))
        for _ in range(chance.randrange(3)):
            with suppress(Unavailable):
                ops = plan(desired, await driver.observe(), marked(driver, remotes))
                await bench.cut_short(driver, ops, chance.randrange(100))
            if chance.random() < 0.5:
                await driver.close()
                driver = await opened(bench)
        await converge(driver, desired, remotes)
        if present and chance.random() < 0.5:
            bench.remove(desired[endpoint_id(chance.choice(present))], chance.choice(sorted(Part)))
            await converge(driver, desired, remotes)
    await driver.close()
