"""Deciding, appending and answering on the journal in memory: what goes wrong, and what is kept of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, ip_network

import anyio
import anyio.lowlevel
import msgspec
import pytest
from anyio.abc import TaskGroup

from ipam_actor.definition import IPAM
from ipam_actor.state import State
from messages.endpoint import CreateEndpoint, DeleteEndpoint
from messages.network import CreateNetwork, ListNetworks
from messages.replies import Accepted, AnyReply, Items, Refused, Unavailable
from messages.struct import Command
from services.runtime.committer import Committer
from services.runtime.decision import Decision, Definition, Origin, Stamp
from services.runtime.errors import Conflict
from services.runtime.journal import Draft
from services.runtime.journal_memory import Fault, MemoryJournal
from services.runtime.projection import Projection

pytestmark = pytest.mark.anyio

WEB = CreateNetwork(tenant="default", network="web", subnets=(ip_network("10.1.0.0/16"),))


def endpoint(name: str, network: str = "web", last_byte: int | None = None) -> CreateEndpoint:
    addresses = (IPv4Address(f"10.1.0.{last_byte}"),) if last_byte else ()
    return CreateEndpoint(tenant="default", network=network, name=name, addresses=addresses)


class World:
    """One copy of ipam on a journal in memory that fails as it is told: the next append first."""

    def __init__(self, tasks: TaskGroup, definition: Definition[State] = IPAM) -> None:
        self.faults: list[Fault] = []
        self.sizes: list[int] = []
        self.journal = MemoryJournal(lambda: 10**18, self._disturb)
        self.projection: Projection[State] = Projection(definition, self.journal)
        self.committer = Committer(definition, self.projection, self.journal, tasks)
        self._count = 0

    async def _disturb(self, drafts: Sequence[Draft]) -> Fault:
        self.sizes.append(len(drafts))
        await anyio.lowlevel.checkpoint()
        return self.faults.pop(0) if self.faults else Fault.NONE

    async def submit(self, command: Command, command_id: str = "") -> AnyReply:
        self._count += 1
        stamp = Stamp(10**18, command_id or f"c{self._count}", Origin("tester"), self._count.to_bytes(16, "big"))
        return await self.committer.submit(command, stamp)

    async def submit_all(self, commands: Sequence[Command]) -> list[AnyReply]:
        """The replies to commands that are sent at once, in the commands' order."""
        replies: dict[int, AnyReply] = {}

        async def one(number: int) -> None:
            replies[number] = await self.submit(commands[number])

        async with anyio.create_task_group() as tasks:
            for number in range(len(commands)):
                tasks.start_soon(one, number)
        return [replies[number] for number in range(len(commands))]


@asynccontextmanager
async def running(definition: Definition[State] = IPAM) -> AsyncIterator[World]:
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            world = World(tasks, definition)
            current = anyio.Event()
            tasks.start_soon(lambda: world.projection.run(current=current))
            await current.wait()
            assert isinstance(await world.submit(WEB), Accepted)
            yield world
            assert world.committer.is_idle, "nothing is kept of what is done"
            assert world.projection.waiting == 0
            tasks.cancel_scope.cancel()


def crowd(count: int) -> list[Command]:
    return [endpoint(f"e{number}") for number in range(count)]


async def test_what_queues_in_a_lane_goes_as_one_batch() -> None:
    async with running() as world:
        world.sizes.clear()
        replies = await world.submit_all(crowd(40))
        assert all(isinstance(reply, Accepted) for reply in replies)
        assert len(world.sizes) < 6, world.sizes
        assert sum(world.sizes) == 40
        assert [reply.seq for reply in replies if isinstance(reply, Accepted)] == list(range(5, 45))


async def test_nobody_is_refused_for_what_was_never_recorded() -> None:
    """Of two that want one address in a batch, the second would be refused: but the batch fails, so neither has it."""
    async with running() as world:
        world.faults = [Fault.FULL]
        commands = [*crowd(10), endpoint("a", last_byte=200), endpoint("b", last_byte=200)]
        replies = await world.submit_all(commands)
        for reply in replies[-2:]:
            assert isinstance(reply, Unavailable), reply
            assert reply.code == "journal-full"
        late = await world.submit_all(commands[-2:])
        assert [type(reply) for reply in late] == [Accepted, Refused]


async def test_an_append_in_doubt_is_said_to_be() -> None:
    async with running() as world:
        world.faults = [Fault.LOST, Fault.AWAY]
        reply = await world.submit(endpoint("a"), "doubt")
        assert isinstance(reply, Unavailable)
        assert reply.is_outcome_unknown
        world.faults = [Fault.AWAY]
        reply = await world.submit(endpoint("b"))
        assert isinstance(reply, Unavailable)
        assert not reply.is_outcome_unknown, "nobody took it"


@pytest.mark.parametrize("fault", [Fault.ACK_LOST, Fault.LOST])
async def test_a_lost_acknowledgement_is_found_out(fault: Fault) -> None:
    async with running() as world:
        world.faults = [fault]
        reply = await world.submit(endpoint("a"), "once")
        assert isinstance(reply, Accepted)
        assert reply.is_repeated == (fault is Fault.ACK_LOST)
        assert len(world.journal.events) == 5


async def test_a_handler_that_sees_half_of_a_batch_decides_again() -> None:
    seen: list[int] = []

    def half(state: State, command: CreateEndpoint, stamp: Stamp) -> Decision:
        seen.append(1)
        if len(seen) < 4:
            raise Conflict("followed in part only")
        return IPAM.handlers[CreateEndpoint](state, command, stamp)

    broken = msgspec.structs.replace(IPAM, handlers={**IPAM.handlers, CreateEndpoint: half})
    async with running(broken) as world:
        assert isinstance(await world.submit(endpoint("a")), Accepted)
        assert len(seen) == 4


async def test_one_that_never_stops_conflicting_is_put_off() -> None:
    def never(_state: State, _command: CreateEndpoint, _stamp: Stamp) -> Decision:
        raise Conflict("followed in part only")

    broken = msgspec.structs.replace(IPAM, handlers={**IPAM.handlers, CreateEndpoint: never})
    async with running(broken) as world:
        reply = await world.submit(endpoint("a"))
        assert isinstance(reply, Unavailable)
        assert reply.code == "conflict"
        assert reply.retry_after_s > 0


async def test_a_sender_that_goes_away_takes_nobody_with_it() -> None:
    async with running() as world:
        replies: list[AnyReply] = []

        async def one(name: str) -> None:
            replies.append(await world.submit(endpoint(name)))

        async with anyio.create_task_group() as tasks, anyio.create_task_group() as leaving:
            for number in range(10):
                leaving.start_soon(one, f"gone{number}")
                tasks.start_soon(one, f"stays{number}")
            await anyio.lowlevel.checkpoint()
            leaving.cancel_scope.cancel()
        assert len(replies) == 10
        assert all(isinstance(reply, Accepted) for reply in replies)


async def test_lanes_that_share_an_aggregate_take_turns() -> None:
    """Networks all write the tenant's and the segments' aggregates: endpoints of one network go on between them."""
    async with running() as world:
        done: list[str] = []

        async def networks() -> None:
            for number in range(20):
                await world.submit(CreateNetwork(tenant="default", network=f"n{number}"))
                done.append("network")

        async def endpoints() -> None:
            for number in range(20):
                await world.submit(endpoint(f"e{number}"))
                done.append("endpoint")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(networks)
            tasks.start_soon(endpoints)
        half = done[:20]
        assert min(half.count("network"), half.count("endpoint")) >= 5, done


async def test_who_waits_in_vain_for_a_sequence_is_forgotten() -> None:
    async with running() as world:
        for _ in range(100):
            with anyio.move_on_after(0):
                await world.projection.reached(10**18)
        assert world.projection.waiting == 0


async def test_true_already_and_refused_rest_on_all_that_was_recorded() -> None:
    """Another copy has deleted the endpoint and made a network; this one has not followed that yet."""
    async with running() as world, anyio.create_task_group() as tasks:
        assert isinstance(await world.submit(endpoint("a")), Accepted)
        other: Projection[State] = Projection(IPAM, world.journal)
        current = anyio.Event()
        tasks.start_soon(lambda: other.run(current=current))
        await current.wait()
        committer = Committer(IPAM, other, world.journal, tasks)
        is_let_go = anyio.Event()

        async def hold(_: object) -> None:
            await is_let_go.wait()

        async def elsewhere(command: Command, command_id: str) -> None:
            stamp = Stamp(10**18, command_id, Origin("tester"), command_id.rjust(16).encode())
            assert isinstance(await committer.submit(command, stamp), Accepted)

        world.journal.delay = hold
        await elsewhere(DeleteEndpoint(tenant="default", network="web", name="a"), "delete")
        await elsewhere(CreateNetwork(tenant="default", network="late"), "late")
        replies: list[AnyReply] = []

        async def here(command: Command) -> None:
            replies.append(await world.submit(command))

        tasks.start_soon(here, endpoint("a"))
        tasks.start_soon(here, endpoint("b", "late"))
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert not replies, "both wait until it has been followed"
        is_let_go.set()
        while len(replies) < 2:
            await anyio.lowlevel.checkpoint()
        for reply in replies:
            assert isinstance(reply, Accepted), reply
            assert reply.is_changed
        tasks.cancel_scope.cancel()


async def test_while_the_journal_is_not_followed_a_question_waits_for_what_was_recorded_before_it() -> None:
    async with running() as world, anyio.create_task_group() as tasks:
        await world.submit(WEB)
        other: Projection[State] = Projection(IPAM, world.journal)
        committer = Committer(IPAM, other, world.journal, tasks, is_deaf=lambda: True)
        stamp = Stamp(10**18, "q1", Origin("tester"), bytes(16))
        for tenant in ("default", "fabric"):
            late = await committer.submit(ListNetworks(tenant=tenant), stamp)
            assert isinstance(late, Unavailable)
        tasks.start_soon(lambda: other.run(current=anyio.Event()))
        reply = await committer.submit(ListNetworks(tenant="fabric"), stamp)
        assert isinstance(reply, Items)
        assert len(reply.objects) == 1
        tasks.cancel_scope.cancel()
