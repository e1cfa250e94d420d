"""A host actor that is killed anywhere: started again it converges, and the journal has every report that is needed.

One seed is one world: endpoints are bound, unbound, deleted and bound again in any order, while containers come and go,
parts vanish, the switch and the journal go away and come back, appends lose their acknowledgements, and actors are
killed between any two steps of anything. A failure shows its seed.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host_actor.drivers.contract import ALL_PARTS, Part
from host_actor.reports import Reports
from messages.codec import decode_event
from messages.endpoint import EndpointDeleted, EndpointUnbound
from messages.port import PortBound, PortUnbound
from services.runtime.journal import Draft
from services.runtime.journal_memory import Fault
from tests.harness.host_world import HostWorld, deleted, endpoint_id, record

ENDPOINTS = range(1, 5)


class Walk:
    """One world and what ipam has decided in it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.world = HostWorld(folder)
        self.bound: dict[int, tuple[int, str]] = {}  # endpoint -> epoch, container
        self.ended: set[tuple[int, int]] = set()
        self.alive: set[str] = set()
        self.world.journal.disturb = self._disturb
        self.is_disturbed = False

    async def _disturb(self, drafts: Sequence[Draft]) -> Fault:
        is_report = ".port." in drafts[0].subject
        if not (is_report and self.is_disturbed):
            return Fault.NONE
        return self.chance.choice((Fault.NONE, Fault.NONE, Fault.AWAY, Fault.LOST, Fault.ACK_LOST, Fault.FULL))

    async def step(self) -> None:
        """Something happens."""
        number = self.chance.choice(ENDPOINTS)
        happening = self.chance.choice(("bind", "bind", "unbind", "unbind", "container", "lose", "switch"))
        match happening:
            case "bind" if number not in self.bound:
                container = f"c{self.chance.choice(ENDPOINTS)}"
                self.bound[number] = (await self.world.bind(number, container), container)
            case "unbind" if number in self.bound:
                epoch, _ = self.bound.pop(number)
                self.ended.add((number, epoch))
                if self.chance.random() < 0.5:
                    await self.world.unbind(number, epoch)
                else:
                    await record(self.world.journal, deleted(number, epoch))
            case "container":
                self._toggle(f"c{number}")
            case "lose" if endpoint_id(number) in self.world.switch.ports:
                self.world.switch.lose(endpoint_id(number), [self.chance.choice(sorted(Part))])
            case "switch":
                self.world.switch.fails_at_step = self.world.switch.steps + self.chance.randrange(4)

    def _toggle(self, container: str) -> None:
        if container in self.alive:
            self.alive.discard(container)
            self.world.containers.die(container)
        else:
            self.alive.add(container)
            self.world.containers.start(container)

    async def run(self, actors: int, steps: int) -> None:
        """Several actors, one after the other, each killed somewhere; then one in peace, and all must be well."""
        self.is_disturbed = True
        for _ in range(actors):
            self.world.is_journal_away = self.chance.random() < 0.2
            async with self.world.running():
                for _ in range(steps):
                    await self.step()
                    for _ in range(self.chance.randrange(40)):
                        await anyio.lowlevel.checkpoint()
            if self.chance.random() < 0.1:
                self.world.actor_state.unlink(missing_ok=True)
        self.is_disturbed = False
        self.world.switch.fails_at_step = None
        self.world.is_journal_away = False
        async with self.world.running():
            await self.world.until(self.is_well, "all is as it should be")
            self.check_reports()

    def is_well(self) -> bool:
        """The switch has what is bound to containers that live, and every end was confirmed."""
        ports = self.world.switch.ports
        wanted = {
            endpoint_id(number): (epoch, self.world.containers.key(container))
            for number, (epoch, container) in self.bound.items()
            if container in self.alive
        }
        if {name: (port.epoch, port.sandbox_key) for name, port in ports.items()} != wanted:
            return False
        if any(port.parts != ALL_PARTS for port in ports.values()):
            return False
        said = set(self.world.reports())
        if not all(("port-unbound", f"e{number}", epoch) in said for number, epoch in self.ended):
            return False
        last = {(name, epoch): kind for kind, name, epoch in self.world.reports()}
        return all(
            last.get((f"e{number}", epoch)) == ("port-bound" if container in self.alive else "port-waiting")
            for number, (epoch, container) in self.bound.items()
        )

    def check_reports(self) -> None:
        """Nobody was told that a port is gone before its binding had ended, nor that it is there after it was gone."""
        ends: dict[tuple[str, int], int] = {}
        gone: dict[tuple[str, int], int] = {}
        for each in self.world.journal.events:
            event = decode_event(each.payload)
            if isinstance(event, PortUnbound):
                assert (event.endpoint, event.epoch) in ends, f"{event} was not asked for"
                gone[event.endpoint, event.epoch] = each.seq
            elif isinstance(event, PortBound):
                assert (event.endpoint, event.epoch) not in gone, f"{event} after it was gone"
            elif isinstance(event, EndpointUnbound | EndpointDeleted):
                ends[event.endpoint, event.epoch] = each.seq
        assert len({draft_id(each.headers) for each in self.world.journal.events if ".port." in each.subject}) == sum(
            ".port." in each.subject for each in self.world.journal.events
        )


def draft_id(headers: object) -> str:
    """The message id of a recorded event."""
    assert isinstance(headers, dict)
    return str(headers["Nats-Msg-Id"])


def walk(seed: int, actors: int = 4, steps: int = 6) -> None:
    """One world from its seed."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(Walk(Path(folder), seed).run(actors, steps))


@given(st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_any_world_ends_well(seed: int) -> None:
    walk(seed)


@pytest.mark.long
@given(st.integers(0, 2**32))
@settings(max_examples=1500, deadline=None)
def test_any_of_many_worlds_ends_well(seed: int) -> None:
    walk(seed, actors=6, steps=10)


async def killed_at_step(folder: Path, step: int) -> bool:
    """The switch fails at its n-th change, and the actor is killed there; returns whether there was such a change."""
    world = HostWorld(folder)
    world.containers.start("netns:c1", "netns:c2")
    first = await world.bind(1)
    await world.unbind(1, first)
    second = await world.bind(1, "netns:c2")
    third = await world.bind(2)
    world.switch.fails_at_step = step
    async with world.running():
        await world.until(
            lambda: world.switch.fails_at_step is None or len(world.reports()) == 3, "the fault, or all of it"
        )
    is_hit = world.switch.fails_at_step is None
    world.switch.fails_at_step = None
    async with world.running():
        await world.until_reported(
            ("port-unbound", "e1", first), ("port-bound", "e1", second), ("port-bound", "e2", third)
        )
        await world.until(lambda: len(world.switch.ports) == 2, "both ports")
    return is_hit


def test_killed_at_every_step_it_ends_the_same(tmp_path: Path) -> None:
    step = 0
    while asyncio.run(killed_at_step(tmp_path / str(step), step)):
        step += 1
    assert step == 1 + 2 * len(ALL_PARTS)  # the switch, and two ports


async def killed_between_drop_and_report(folder: Path) -> None:
    world = HostWorld(folder)
    world.containers.start("netns:c1")
    async with world.running():
        epoch = await world.bind(1)
        await world.until_reported(("port-bound", "e1", epoch))
        world.journal.disturb = nothing_is_taken
        await world.unbind(1, epoch)
        await world.until(lambda: not world.switch.ports, "dropped")
    world.journal.disturb = None
    async with world.running():
        await world.until_reported(("port-bound", "e1", epoch), ("port-unbound", "e1", epoch))


async def nothing_is_taken(drafts: Sequence[Draft]) -> Fault:
    return Fault.LOST if ".port." in drafts[0].subject else Fault.NONE


def test_killed_between_drop_and_report_it_is_reported_at_the_next_start(tmp_path: Path) -> None:
    asyncio.run(killed_between_drop_and_report(tmp_path))


def test_the_twin_that_forgets_its_departures_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulation must be able to fail: this one takes a departure as confirmed once it has been sent."""
    broken = Reports.gone

    def gone(reports: Reports, departure: object) -> None:
        broken(reports, departure)  # type: ignore[arg-type]
        reports._desired.departures.clear()

    monkeypatch.setattr(Reports, "gone", gone)
    monkeypatch.setattr("tests.harness.host_world.WITHIN_S", 0.5)
    with pytest.RaisesGroup(AssertionError, flatten_subgroups=True):
        asyncio.run(killed_between_drop_and_report(tmp_path))
