"""The host actor's worker on a remembered switch and a journal in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
import structlog

from host_actor.actor import Uplink
from host_actor.drivers.contract import ALL_PARTS, DropPort, Failed, Part
from host_actor.runtimes.contract import Resolution, Resync, Waiting
from messages.codec import encode
from messages.host import AdoptJournal
from messages.replies import Accepted, Refused
from services.runtime.errors import Unavailable
from services.runtime.journal_memory import MemoryJournal
from tests.harness.host_world import Containers, HostWorld, bound, deleted, endpoint_id, record

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(tmp_path: Path) -> HostWorld:
    world = HostWorld(tmp_path)
    world.containers.start("netns:c1", "netns:c2", "netns:c3")
    return world


async def test_bound_makes_a_port_and_says_so(world: HostWorld) -> None:
    async with world.running():
        epoch = await world.bind(1)
        await world.until_reported(("port-bound", "e1", epoch))
    port = world.switch.ports[endpoint_id(1)]
    assert (port.epoch, port.interface) == (epoch, "eth0")
    assert port.parts == ALL_PARTS


async def test_unbound_leaves_nothing_and_says_so(world: HostWorld) -> None:
    async with world.running():
        epoch = await world.bind(1)
        await world.until_reported(("port-bound", "e1", epoch))
        await world.unbind(1, epoch)
        await world.until_reported(("port-bound", "e1", epoch), ("port-unbound", "e1", epoch))
    assert not world.switch.ports


async def test_what_was_done_before_the_actor_came_is_done_once(world: HostWorld) -> None:
    first = await world.bind(1)
    await world.unbind(1, first)
    second = await world.bind(1)
    async with world.running():
        await world.until_reported(("port-unbound", "e1", first), ("port-bound", "e1", second))


async def test_a_restart_says_nothing_again(world: HostWorld) -> None:
    async with world.running():
        first = await world.bind(1)
        second = await world.bind(2)
        await world.unbind(2, second)
        await world.until(lambda: ("port-unbound", "e2", second) in world.reports(), "unbound")
        await world.until(lambda: ("port-bound", "e1", first) in world.reports(), "bound")
    said = len(world.reports())
    steps = world.switch.steps
    async with world.running() as actor:
        await actor.reconciler.passed()
        third = await world.bind(3)
        await world.until(lambda: len(world.reports()) > said, "another report")
    assert world.reports()[said:] == [("port-bound", "e3", third)]
    assert world.switch.steps == steps + len(ALL_PARTS)


async def test_a_host_without_its_state_reads_its_own_reports_and_says_nothing_again(world: HostWorld) -> None:
    async with world.running():
        first = await world.bind(1)
        second = await world.bind(2)
        await world.unbind(2, second)
        await world.until(lambda: ("port-unbound", "e2", second) in world.reports(), "unbound")
        await world.until(lambda: ("port-bound", "e1", first) in world.reports(), "bound")
    said = len(world.reports())
    for file in world.folder.iterdir():
        file.unlink()
    steps = world.switch.steps
    async with world.running() as actor:
        await world.until(lambda: actor.follower.standing == "current", "current")
        await actor.reconciler.passed()
        await actor.reconciler.passed()
    assert len(world.reports()) == said
    assert world.switch.steps == steps


async def test_rebound_to_another_container_moves_the_port(world: HostWorld) -> None:
    async with world.running():
        first = await world.bind(1)
        await world.until_reported(("port-bound", "e1", first))
        await world.unbind(1, first)
        second = await world.bind(1, "netns:c2")
        await world.until_reported(
            ("port-bound", "e1", first), ("port-unbound", "e1", first), ("port-bound", "e1", second)
        )
    port = world.switch.ports[endpoint_id(1)]
    assert (port.epoch, port.sandbox_key) == (second, world.containers.key("netns:c2"))


async def test_a_container_that_is_not_there_is_waited_for(world: HostWorld) -> None:
    async with world.running():
        epoch = await world.bind(1, "late")
        await world.until_reported(("port-waiting", "e1", epoch))
        world.containers.start("late")
        await world.until_reported(("port-waiting", "e1", epoch), ("port-bound", "e1", epoch))


async def test_unbound_while_waiting_is_confirmed(world: HostWorld) -> None:
    async with world.running():
        epoch = await world.bind(1, "late")
        await world.until_reported(("port-waiting", "e1", epoch))
        await record(world.journal, deleted(1, epoch))
        await world.until_reported(("port-waiting", "e1", epoch), ("port-unbound", "e1", epoch))


async def test_a_process_that_is_not_there_is_a_failure(world: HostWorld) -> None:
    async with world.running():
        epoch = await world.bind(1, "pid:4711")
        await world.until_reported(("port-failed", "e1", epoch))


async def test_a_container_that_dies_loses_its_port_and_gets_it_back(world: HostWorld) -> None:
    async with world.running():
        epoch = await world.bind(1)
        await world.until_reported(("port-bound", "e1", epoch))
        world.containers.die("netns:c1")
        await world.until(lambda: world.reports()[-1:] == [("port-waiting", "e1", epoch)], "waiting")
        assert not world.switch.ports
        world.containers.start("netns:c1")
        await world.until(lambda: world.reports()[-1:] == [("port-bound", "e1", epoch)], "bound again")
    assert world.switch.ports[endpoint_id(1)].sandbox_key == world.containers.key("netns:c1")


async def test_a_container_that_was_restarted_unseen_gets_its_port_into_the_new_sandbox(world: HostWorld) -> None:
    async with world.running():
        epoch = await world.bind(1)
        await world.until_reported(("port-bound", "e1", epoch))
    world.containers.start("netns:c1")
    async with world.running():
        key = world.containers.key("netns:c1")
        await world.until(lambda: world.switch.ports[endpoint_id(1)].sandbox_key == key, "moved")


async def test_a_sandbox_that_goes_while_its_port_is_made_is_waited_for(world: HostWorld) -> None:
    world.switch.dead_sandboxes.add(world.containers.key("netns:c1"))
    async with world.running():
        epoch = await world.bind(1)
        await world.until_reported(("port-waiting", "e1", epoch))
        assert not world.switch.ports
        world.containers.start("netns:c1")
        await world.until(lambda: world.reports()[-1:] == [("port-bound", "e1", epoch)], "bound")


async def test_an_engine_that_is_away_leaves_ports_alone(world: HostWorld) -> None:
    async with world.running():
        epoch = await world.bind(1, "c9")
        world.containers.start("c9")
        await world.until(lambda: ("port-bound", "e1", epoch) in world.reports(), "bound")
    said = len(world.reports())
    steps = world.switch.steps
    world.containers.answers["c9"] = Waiting("engine-away", "no engine")
    async with world.running() as actor:
        await actor.reconciler.passed()
        del world.containers.answers["c9"]
        world.containers.tell(Resync("docker", "it is back"))
        await world.until(lambda: actor.attachments.get(endpoint_id(1)) is not None, "attachment")
        await actor.reconciler.passed()
    assert (world.switch.steps, len(world.reports())) == (steps, said)


async def test_what_the_switch_refuses_is_reported_once_and_tried_again(world: HostWorld) -> None:
    world.switch.refusals[endpoint_id(1)] = Failed(DropPort("", ""), "switch-refused", "no room")
    async with world.running() as actor:
        epoch = await world.bind(1)
        other = await world.bind(2)
        await world.until_reported(("port-failed", "e1", epoch), ("port-bound", "e2", other))
        await actor.reconciler.passed()
        del world.switch.refusals[endpoint_id(1)]
        await world.until_reported(
            ("port-failed", "e1", epoch), ("port-bound", "e2", other), ("port-bound", "e1", epoch)
        )


@pytest.mark.parametrize("lost", sorted(Part))
async def test_what_somebody_removes_is_put_back_and_nothing_else_is_touched(world: HostWorld, lost: Part) -> None:
    async with world.running() as actor:
        epochs = [await world.bind(number) for number in (1, 2)]
        await world.until(lambda: len(world.reports()) == len(epochs), "bound")
        steps = world.switch.steps
        world.switch.lose(endpoint_id(1), [lost])
        await actor.reconciler.passed()
    assert world.switch.ports[endpoint_id(1)].parts == ALL_PARTS
    assert world.switch.steps == steps + 1


async def test_a_switch_that_was_restarted_gets_its_rules_back(world: HostWorld) -> None:
    async with world.running() as actor:
        await world.bind(1)
        await world.until(lambda: len(world.reports()) == 1, "bound")
        world.switch.restart()
        await actor.reconciler.passed()
        assert world.switch.is_ready
        assert world.switch.ports[endpoint_id(1)].parts == ALL_PARTS
        assert len(world.reports()) == 1


async def test_a_stranger_goes_once_the_journal_has_been_read(world: HostWorld) -> None:
    async with world.running():
        epoch = await world.bind(1)
        await world.until_reported(("port-bound", "e1", epoch))
        for file in world.folder.iterdir():
            file.unlink()
    world.is_journal_away = True
    world.journal = await copied_without(world.journal, endpoint_id(1))
    for file in world.folder.iterdir():
        file.unlink()
    async with world.running() as actor:
        await actor.reconciler.passed()
        assert world.switch.ports, "nothing is removed by who does not know the journal"
        world.is_journal_away = False
        await world.until(lambda: not world.switch.ports, "removed")


async def copied_without(journal: MemoryJournal, endpoint: str) -> MemoryJournal:
    """A journal of the same length in which that endpoint was never bound."""
    copy = MemoryJournal()
    for each in journal.events:
        event = bound(99, host="h2") if endpoint.encode() in each.payload else None
        if event is not None:
            await record(copy, event)
    return copy


async def test_a_bus_that_stays_away_is_said_once_and_asked_ever_more_seldom(world: HostWorld) -> None:
    attempts: list[float] = []
    lost = anyio.Event()

    @asynccontextmanager
    async def connect() -> AsyncIterator[Uplink]:
        attempts.append(anyio.current_time())
        if len(attempts) > 1:
            raise Unavailable("nobody answers", 0.01)
        with anyio.CancelScope() as session:
            async with anyio.create_task_group() as watching:
                watching.start_soon(_cancel_when, lost, session)
                yield Uplink(world.journal)
        raise Unavailable("the connection ended", 0.01)

    with structlog.testing.capture_logs() as logs:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.actor.run, connect)
            await world.until(lambda: world.actor.follower.standing == "current", "current")
            lost.set()
            await world.until(lambda: len(attempts) >= 5, "five attempts")
            tasks.cancel_scope.cancel()
    ended = [line["reasons"] for line in logs if line["event"] == "journal-session-ended"]
    assert ended == [["the connection ended"], ["nobody answers"]]
    first, *_, last = [after - before for before, after in pairwise(attempts[1:])]
    assert last > 2 * first


async def _cancel_when(happened: anyio.Event, scope: anyio.CancelScope) -> None:
    await happened.wait()
    scope.cancel()


async def test_with_the_bus_away_what_is_known_is_attached_and_reported_later(world: HostWorld) -> None:
    async with world.running():
        epoch = await world.bind(1, "c9")
        await world.until_reported(("port-waiting", "e1", epoch))
    world.is_journal_away = True
    world.containers.start("c9")
    async with world.running():
        await world.until(lambda: endpoint_id(1) in world.switch.ports, "attached without a journal")
        assert len(world.reports()) == 1
        world.is_journal_away = False
        await world.until_reported(("port-waiting", "e1", epoch), ("port-bound", "e1", epoch))


async def test_reports_survive_the_journal_being_away_and_only_the_newest_is_sent(world: HostWorld) -> None:
    async with world.running():
        first = await world.bind(1)
        await world.until_reported(("port-bound", "e1", first))
        second = await world.bind(2)
        await world.unbind(2, second)
        world.journal.set_away(True)
        world.containers.die("netns:c1")
        await world.until(lambda: endpoint_id(1) not in world.switch.ports, "dropped")
        world.containers.start("netns:c1")
        await world.until(lambda: endpoint_id(1) in world.switch.ports, "attached again")
        world.journal.set_away(False)
        await world.until(lambda: ("port-unbound", "e2", second) in world.reports(), "unbound")
    kinds = [report for report in world.reports() if report[1] == "e1"]
    assert kinds in ([("port-bound", "e1", first)], [("port-bound", "e1", first)] * 2)


async def test_another_journal_tears_nothing_down_until_it_is_adopted(world: HostWorld) -> None:
    async with world.running():
        epoch = await world.bind(1)
        await world.until_reported(("port-bound", "e1", epoch))
    world.journal = MemoryJournal(created="2026-01-01T00:00:00Z")
    other = await record(world.journal, bound(2))
    async with world.running() as actor:
        await world.until(lambda: actor.status()["state"] == "journal-mismatch", "mismatch")
        await actor.reconciler.passed()
        assert set(world.switch.ports) == {endpoint_id(1)}
        world.switch.lose(endpoint_id(1), [Part.RULES])
        await actor.reconciler.passed()
        assert world.switch.ports[endpoint_id(1)].parts == ALL_PARTS, "what is known is still repaired"
        answer = await actor.questions.answer("adopt", encode(AdoptJournal(tenant="fabric")))
        assert isinstance(answer, Accepted)
        assert "2026-01-01T00:00:00Z" in answer.notes[0], "what was in question"
        await world.until(lambda: set(world.switch.ports) == {endpoint_id(2)}, "as the new journal says")
        again = await actor.questions.answer("adopt", encode(AdoptJournal(tenant="fabric")))
        assert isinstance(again, Refused)
        assert again.code == "journal-not-in-question"
        assert world.switch.ports[endpoint_id(2)].epoch == other


async def test_an_older_journal_is_noticed_by_the_switch_itself(world: HostWorld) -> None:
    """Its state is lost, too: only the epochs on the switch tell that the journal once went further."""
    async with world.running():
        await record(world.journal, bound(5, host="h2"))
        epoch = await world.bind(1)
        await world.until_reported(("port-bound", "e1", epoch))
    for file in world.folder.iterdir():
        file.unlink()
    world.journal = MemoryJournal()
    async with world.running() as actor:
        await world.until(lambda: actor.status()["state"] == "journal-mismatch", "mismatch")
        assert set(world.switch.ports) == {endpoint_id(1)}
        (world.folder / "host-h1.adopt-journal").touch()
        actor.follower.adopt()
        await world.until(lambda: not world.switch.ports, "adopted")


async def test_a_switch_that_is_away_is_waited_for(world: HostWorld) -> None:
    world.switch.is_away = True
    async with world.running() as actor:
        epoch = await world.bind(1)
        await world.until(lambda: actor.reconciler.trouble == "the remembered switch is away", "away")
        assert actor.status()["state"] == "switch-away"
        world.switch.is_away = False
        await world.until_reported(("port-bound", "e1", epoch))
        assert actor.status()["state"] == "ready"


class BrokenContainers(Containers):
    """Their runtime has a bug."""

    async def resolve(self, reference: str) -> Resolution:
        raise RuntimeError(f"a bug, asked for {reference}")


async def test_a_bug_ends_the_actor(world: HostWorld) -> None:
    world.containers = BrokenContainers()
    await world.bind(1)
    actor = world.new_actor()
    with anyio.fail_after(30), pytest.RaisesGroup(RuntimeError, flatten_subgroups=True):
        await actor.run(world.connect)


async def test_one_at_a_time_or_many_at_once_is_the_same(world: HostWorld) -> None:
    count = 40
    world.containers.start(*(f"netns:c{number}" for number in range(1, count + 1)))
    async with world.running():
        epochs = [await world.bind(number) for number in range(1, count + 1)]
        await world.until_reported(*(("port-bound", f"e{n}", epoch) for n, epoch in enumerate(epochs, 1)))
        for number, epoch in enumerate(epochs, 1):
            await world.unbind(number, epoch)
        await world.until(lambda: len(world.reports()) == 2 * count, "all unbound")
    assert not world.switch.ports


async def test_fifty_hosts_in_one_process_do_not_meet(tmp_path: Path) -> None:
    journal = MemoryJournal()
    worlds = [HostWorld(tmp_path, f"h{number}", journal) for number in range(50)]
    async with AsyncExitStack() as stack:
        for number, world in enumerate(worlds):
            world.containers.start(f"netns:c{number}", f"netns:c{number + 50}")
            await stack.enter_async_context(world.running())
            await world.bind(number)
        for number, world in enumerate(worlds, 50):
            await world.bind(number)
        await worlds[0].until(lambda: len(worlds[0].reports()) == 100, "all bound")
    for number, world in enumerate(worlds):
        assert set(world.switch.ports) == {endpoint_id(number), endpoint_id(number + 50)}
