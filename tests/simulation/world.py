"""One seed is one world: two copies of ipam, clients, a host, a clock and a journal that loses, delays and conflicts.

Everything runs on one event loop without real time or real I/O, so a seed always gives the same run. What must hold
at the
end is in `check`; the copies are crashed at any await and started again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
from anyio.abc import TaskGroup

from ipam_actor.apply import apply
from ipam_actor.definition import IPAM
from ipam_actor.state import State
from messages import subjects
from messages.addresses import AddressRange, Interface, parse_range
from messages.catalog import AnyEvent, event_name
from messages.codec import decode_event, encode
from messages.endpoint import (
    AttachEndpoint,
    CreateEndpoint,
    DeleteEndpoint,
    DetachEndpoint,
    EndpointBound,
    EndpointCreated,
    EndpointDeleted,
    EndpointUnbound,
)
from messages.host import JoinHost
from messages.intent import ApplyIntent, Change
from messages.network import AddressingChanged, CreateNetwork, DeleteNetwork, NetworkDeleted, SetNetwork
from messages.pool import CreatePool, DeletePool, PoolCreated, PoolDeleted
from messages.port import PortUnbound
from messages.replies import Accepted, AnyReply, Unavailable
from messages.struct import Command
from services.runtime.committer import Committer
from services.runtime.decision import Origin, Stamp
from services.runtime.journal import COMMAND_ID_HEADER, MESSAGE_ID_HEADER, Draft, Recorded
from services.runtime.journal_memory import Fault, MemoryJournal
from services.runtime.projection import Projection

TENANT = "default"
NETWORKS = ("red", "blue")
ENDPOINTS = tuple(f"ep{number}" for number in range(6))
REST_NS = 2 * 10**9
STEP_NS = 10**8  # what the clock moves on at each pause
TRIES_MAX = 60
RANGES = ("11.0.0.1-11.0.0.2", "11.0.0.2-11.0.0.3", "11.0.1.1", "11.0.1.2-11.0.1.4")  # of the subnets that are chosen


class Copy:
    """One running copy of ipam. `dead` is set when it was crashed."""

    def __init__(self, journal: MemoryJournal) -> None:
        self.projection: Projection[State] = Projection(IPAM, journal)
        self.dead = anyio.Event()
        self.current = anyio.Event()
        self.scope = anyio.CancelScope()
        self.committer: Committer[State] | None = None
        self._journal = journal

    async def run(self) -> None:
        with self.scope:
            async with anyio.create_task_group() as tasks:
                self.committer = Committer(IPAM, self.projection, self._journal, tasks)
                tasks.start_soon(lambda: self.projection.run(current=self.current))
        self.dead.set()


class World:
    """Seeded. `make_journal` is how a twin that must fail is made."""

    def __init__(self, seed: int, make_journal: Callable[..., MemoryJournal] = MemoryJournal) -> None:
        self.random = random.Random(seed)
        self.now_ns = 10**18
        self.journal = make_journal(lambda: self.now_ns, self._disturb, self._delay)
        self.copies: list[Copy] = []
        self.replies: list[tuple[str, Command, AnyReply]] = []
        self._command_count = 0

    async def run(self, clients: int = 4, commands: int = 30, crashes: int = 6) -> None:
        """The world from its beginning to the moment when every client has its answers and all is applied."""
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                self._start_copy(tasks)
            tasks.start_soon(self._host)
            await self._send_until_answered(self._join(), "host-h1")
            async with anyio.create_task_group() as busy:
                busy.start_soon(self._crash, crashes, tasks)
                for number in range(clients):
                    busy.start_soon(self._client, number, commands)
            while behind := [each for each in self.copies if each.projection.followed_seq < self._last_seq]:
                await behind[0].projection.reached(self._last_seq)  # the host may record more meanwhile
            tasks.cancel_scope.cancel()

    @property
    def _last_seq(self) -> int:
        return len(self.journal.events)

    def _start_copy(self, tasks: TaskGroup) -> None:
        copy = Copy(self.journal)
        self.copies.append(copy)
        tasks.start_soon(copy.run)

    async def _pause(self, most: int) -> None:
        for _ in range(self.random.randrange(most + 1)):
            self.now_ns += STEP_NS
            await anyio.lowlevel.checkpoint()

    async def _disturb(self, drafts: Sequence[Draft]) -> Fault:
        await self._pause(3)
        chance = self.random.random()
        if chance < 0.06:
            return Fault.ACK_LOST
        if chance < 0.10:
            return Fault.LOST
        return Fault.AWAY if chance < 0.12 else Fault.NONE

    async def _delay(self, _: Recorded) -> None:
        await self._pause(2)

    async def _crash(self, crashes: int, tasks: TaskGroup) -> None:
        for _ in range(crashes):
            await self._pause(60)
            victim = self.random.choice(self.copies)
            victim.scope.cancel()
            await victim.dead.wait()
            self.copies.remove(victim)
            self._start_copy(tasks)

    async def _client(self, number: int, commands: int) -> None:
        for _ in range(commands):
            await self._pause(4)
            self._command_count += 1
            command_id = f"client{number}-{self._command_count}"
            command = self._command()
            await self._send_until_answered(command, command_id)

    async def _send_until_answered(self, command: Command, command_id: str) -> None:
        for _ in range(TRIES_MAX):
            reply = await self._send(command, command_id)
            if reply is not None and not isinstance(reply, Unavailable):
                self.replies.append((command_id, command, reply))
                return
            await self._pause(5)

    def _join(self) -> Command:
        return JoinHost(tenant=subjects.FABRIC, host="h1", driver="memory", datapath="memory", version="1")

    def _command(self) -> Command:
        """A change alone, or several as one."""
        if self.random.randrange(6):
            return self._change()
        return ApplyIntent(tenant=TENANT, changes=tuple(self._change() for _ in range(self.random.randrange(1, 5))))

    def _change(self) -> Change:
        network, name = self.random.choice(NETWORKS), self.random.choice(ENDPOINTS)
        match self.random.randrange(12):
            case 0:
                return DeleteNetwork(tenant=TENANT, network=network)
            case 1 | 2:
                return CreateNetwork(tenant=TENANT, network=network)
            case 3 | 4 | 5:
                container = self.random.choice((None, "c1"))
                host = "h1" if container else None
                return CreateEndpoint(tenant=TENANT, network=network, name=name, container=container, host=host)
            case 6:
                return AttachEndpoint(tenant=TENANT, network=network, name=name, container="c2", host="h1")
            case 10 | 11:
                return self._addressing(network, name)
            case 7:
                return DetachEndpoint(tenant=TENANT, network=network, name=name)
            case _:
                return DeleteEndpoint(tenant=TENANT, network=network, name=name)

    def _addressing(self, network: str, name: str) -> Change:
        """Addresses are kept back, or asked for from what is."""
        ranges = (parse_range(self.random.choice(RANGES)),)
        match self.random.randrange(4):
            case 0:
                return SetNetwork(tenant=TENANT, network=network, exclude=ranges)
            case 1:
                return CreatePool(tenant=TENANT, network=network, name="front", ranges=ranges)
            case 2:
                return DeletePool(tenant=TENANT, network=network, name="front")
            case _:
                return CreateEndpoint(tenant=TENANT, network=network, name=name, pool="front")

    async def _send(self, command: Command, command_id: str) -> AnyReply | None:
        """The answer of some copy, none when it was crashed first."""
        copy = self.random.choice(self.copies)
        answers: list[AnyReply] = []
        async with anyio.create_task_group() as race:

            async def ask() -> None:
                await copy.current.wait()
                if copy.scope.cancel_called or copy.committer is None:
                    return
                stamp = Stamp(self.now_ns, command_id, Origin("client"), self.random.randbytes(16))
                answers.append(await copy.committer.submit(command, stamp))
                race.cancel_scope.cancel()

            async def watch() -> None:
                await copy.dead.wait()
                race.cancel_scope.cancel()

            race.start_soon(ask)
            race.start_soon(watch)
        return answers[0] if answers else None

    async def _host(self) -> None:
        """Host h1 takes ports away some time after their endpoint was unbound or deleted, and says so."""
        async for recorded in self.journal.follow([subjects.bound_to("h1")]):
            event = decode_event(recorded.payload)
            if isinstance(event, EndpointUnbound | EndpointDeleted):
                await self._pause(6)
                await self._report(recorded.subject.split(".")[5], event)

    async def _report(self, network: str, event: EndpointUnbound | EndpointDeleted) -> None:
        gone = PortUnbound(
            tenant=TENANT,
            network=network,
            endpoint=event.endpoint,
            name=event.name,
            host="h1",
            epoch=event.epoch,
        )
        subject = subjects.port_event(TENANT, "h1", event_name(gone))
        headers = {MESSAGE_ID_HEADER: f"{event.endpoint}.{event.epoch}"}
        disturb, self.journal.disturb = self.journal.disturb, None
        await self.journal.append([Draft(subject, encode(gone), headers)], [])
        self.journal.disturb = disturb


def check(world: World) -> None:
    """What must hold whatever happened. Raises: AssertionError, saying what does not."""
    events = world.journal.events
    _check_commands(world, events)
    _check_addresses(events)
    replayed = IPAM.new_state()
    for recorded in events:
        apply(replayed, recorded.subject, decode_event(recorded.payload), recorded.seq, recorded.at_ns)
    for copy in world.copies:
        assert _held(copy.projection.state) == _held(replayed), "a copy differs from the replay"


def _held(state: State) -> Any:
    """A state as plain values: its dicts are in the order in which events of different aggregates came."""
    return msgspec.msgpack.decode(IPAM.dump_state(state))


def _check_commands(world: World, events: Sequence[Recorded]) -> None:
    """A command became events once, next to each other, and its answer says which."""
    by_command: dict[str, list[int]] = {}
    for recorded in events:
        if command_id := recorded.headers.get(COMMAND_ID_HEADER):
            by_command.setdefault(command_id, []).append(recorded.seq)
    for command_id, seqs in by_command.items():
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs))), f"{command_id} was recorded in pieces: {seqs}"
        indexes = [events[seq - 1].headers[MESSAGE_ID_HEADER] for seq in seqs]
        assert indexes == [f"{command_id}.{index}" for index in range(len(seqs))], f"{command_id} twice: {indexes}"
    for command_id, _, reply in world.replies:
        if isinstance(reply, Accepted) and (reply.is_changed or reply.is_repeated):
            assert by_command.get(command_id, [0])[-1] == reply.seq, f"{command_id} was answered with {reply.seq}"
        else:
            assert command_id not in by_command, f"{command_id} was refused and is recorded"


def _check_addresses(events: Sequence[Recorded]) -> None:
    """No address is anybody's twice, nor another's before its host took the port away, and 2 s more."""
    owners: dict[tuple[str, Interface], str] = {}
    bound: dict[str, int] = {}
    gone_at: dict[tuple[str, int], int] = {}
    resting: dict[tuple[str, Interface], tuple[str, list[tuple[str, int]]]] = {}
    kept = _KeptBack()
    ended: dict[str, list[tuple[str, int]]] = {}
    for recorded in events:
        network = recorded.subject.split(".")[5]
        said = decode_event(recorded.payload)
        kept.check(network, said)
        if isinstance(said, EndpointBound):
            bound[said.endpoint] = recorded.seq
        match said:
            case EndpointCreated() | EndpointBound(is_new=True) as event:
                for address in event.addresses:
                    key = (network, address)
                    assert key not in owners, f"{address} of {network} belongs to {owners.get(key)} and {event.name}"
                    owners[key] = event.name
                    name, epochs = resting.pop(key, (event.name, []))
                    if name != event.name:
                        _check_rested(f"{address} of {name}", epochs, gone_at, recorded.at_ns)
            case EndpointUnbound() as event:
                assert bound.pop(event.endpoint) == event.epoch, "an older binding was ended"
                ended.setdefault(event.endpoint, []).append((event.endpoint, event.epoch))
            case EndpointDeleted() as event:
                if event.endpoint in bound:
                    assert bound.pop(event.endpoint) == event.epoch, "an older binding was ended"
                    ended.setdefault(event.endpoint, []).append((event.endpoint, event.epoch))
                for address in event.addresses:
                    del owners[network, address]
                    if event.endpoint in ended:
                        resting[network, address] = (event.name, ended[event.endpoint])
            case PortUnbound() as event:
                gone_at.setdefault((event.endpoint, event.epoch), recorded.at_ns)
            case _:
                pass


class _KeptBack:
    """What each network excludes and keeps for its pool, as its events say; nobody is given any of it."""

    def __init__(self) -> None:
        self._excluded: dict[str, tuple[AddressRange, ...]] = {}
        self._pooled: dict[str, tuple[AddressRange, ...]] = {}

    def check(self, network: str, said: AnyEvent) -> None:
        """Raises: AssertionError when an endpoint begins with an address that it may not have."""
        match said:
            case AddressingChanged():
                self._excluded[network] = said.excluded
            case PoolCreated():
                self._pooled[network] = said.ranges
            case PoolDeleted():
                del self._pooled[network]
            case NetworkDeleted():
                self._excluded.pop(network, None)
                self._pooled.pop(network, None)
            case EndpointCreated() | EndpointBound(is_new=True):
                for address in said.addresses:
                    assert not any(address.ip in each for each in self._excluded.get(network, ())), "it is excluded"
                    is_pooled = any(address.ip in each for each in self._pooled.get(network, ()))
                    assert is_pooled == bool(said.pool), f"{address} of {said.name}: pool {said.pool!r}"


def _check_rested(
    what: str, epochs: Sequence[tuple[str, int]], gone_at: Mapping[tuple[str, int], int], at_ns: int
) -> None:
    for epoch in epochs:
        assert gone_at.get(epoch, 1 << 63) + REST_NS <= at_ns + 60 * STEP_NS, f"{what} did not rest"
        assert epoch in gone_at, f"{what} was given away before its port was gone"
