"""A host that follows the networks with members there: nothing of them is missed, and of others nothing comes.

One seed is one world: endpoints of some networks come, go and move between this host and others while deliveries lag,
the journal goes away, and the actor is killed anywhere. At the end its switch has of other hosts exactly what a fold of
the whole journal says.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from ipaddress import IPv4Address, ip_address, ip_interface
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host_actor.drivers.contract import Remote, RemoteEndpoint, RemoteFlood, RemoteTunnel, RemoteVtep
from host_actor.interests import Interests
from host_actor.remotes import Remotes
from messages import subjects
from messages.catalog import event_name
from messages.codec import encode
from messages.endpoint import EndpointBound, EndpointDeleted, EndpointUnbound
from messages.host import HostJoined
from messages.network import Encap
from services.runtime.journal import Draft, Recorded
from services.runtime.journal_memory import MemoryJournal
from tests.harness.host_world import HOST, HostWorld, endpoint_id

NETWORKS = ("red", "blue", "green")
VNIS = {name: 5000 + number for number, name in enumerate(NETWORKS)}
HOSTS = (HOST, "h2", "h3")
VTEPS = {host: IPv4Address(f"172.30.0.{number}") for number, host in enumerate(HOSTS, 1)}
ENDPOINTS = range(1, 9)
Place = tuple[str, int]  # host, epoch


def network_of(number: int) -> str:
    return NETWORKS[number % len(NETWORKS)]


def vtep_mac(host: str) -> str:
    return f"02:00:00:00:00:{int(VTEPS[host]) & 255:02x}"


class World:
    """One host on a journal that lags, with others that are only said to be there."""

    def __init__(self, folder: Path, seed: int = 0, encap: Encap = "vxlan") -> None:
        self.chance = random.Random(seed)
        self.encap = encap
        self.journal = MemoryJournal(delay=self._delay)
        self.host = HostWorld(folder, HOST, self.journal, VTEPS[HOST])
        self.host.containers.start(*(f"netns:c{number}" for number in ENDPOINTS))
        self.places: dict[int, Place] = {}
        self.delivered: Counter[str] = Counter()  # by subject
        self.lag = 0

    async def _delay(self, recorded: Recorded) -> None:
        self.delivered[recorded.subject] += 1
        for _ in range(self.chance.randrange(self.lag + 1)):
            await anyio.lowlevel.checkpoint()

    async def hosts_join(self) -> None:
        for host, vtep in VTEPS.items():
            joined = HostJoined(
                host=host,
                driver="ovs",
                datapath="netdev",
                version="0",
                vtep=vtep,
                vtep_mac=vtep_mac(host),
            )
            await self._record(subjects.host_event(event_name(joined)), joined)

    async def _record(self, subject: str, event: object) -> int:
        appended = await self.journal.append([Draft(subject, encode(event), {})], [])  # type: ignore[arg-type]
        return appended.first_seq

    async def bind(self, number: int, host: str) -> None:
        network = network_of(number)
        event = EndpointBound(
            tenant="acme",
            network=network,
            endpoint=endpoint_id(number),
            name=f"e{number}",
            host=host,
            container=f"netns:c{number}",
            addresses=(ip_interface(f"10.9.0.{number}/16"),),
            gateways=(),
            mac=f"02:00:00:00:01:{number:02x}",
            encap=self.encap,
            tag=VNIS[network],
            mtu_bytes=1450,
        )
        subject = subjects.network_event("acme", network, event_name(event), host)
        self.places[number] = (host, await self._record(subject, event))

    async def end(self, number: int) -> None:
        host, epoch = self.places.pop(number)
        event: EndpointUnbound | EndpointDeleted
        if self.chance.random() < 0.5:
            event = EndpointUnbound(endpoint=endpoint_id(number), name=f"e{number}", host=host, epoch=epoch)
        else:
            event = EndpointDeleted(
                endpoint=endpoint_id(number), name=f"e{number}", addresses=(), host=host, epoch=epoch
            )
        await self._record(subjects.network_event("acme", network_of(number), event_name(event), host), event)

    async def move(self, number: int, host: str) -> None:
        """In one append, as ipam does it."""
        await self.end(number)
        await self.bind(number, host)

    def wanted(self) -> set[Remote]:
        """What the switch must have of other hosts, from what was decided alone."""
        here = {network_of(number) for number, (host, _) in self.places.items() if host == HOST}
        there = [(number, *place) for number, place in self.places.items() if place[0] != HOST]
        wanted: set[Remote] = {RemoteTunnel(VTEPS[HOST])}
        for number, host, epoch in there:
            network = network_of(number)
            if network in here:
                mac, address = f"02:00:00:00:01:{number:02x}", ip_address(f"10.9.0.{number}")
                vni = VNIS[network]
                wanted.add(RemoteEndpoint(endpoint_id(number), epoch, vni, mac, (address,), VTEPS[host]))
                wanted.add(RemoteFlood(vni, VTEPS[host]))
                wanted.add(RemoteVtep(VTEPS[host], vtep_mac(host)))
        return wanted

    def has(self) -> set[Remote]:
        return set(self.host.switch.remotes.values())

    async def until_right(self) -> None:
        """All that concerns this host has been folded, and the switch has it."""
        await self.host.until(
            lambda: self._is_all_heard() and self.has() == self.wanted(), "of other hosts what the journal says"
        )

    def _is_all_heard(self) -> bool:
        desired = self.host.actor.desired
        if self.host.is_journal_away:
            return True
        if desired.seq < self._last_seq(f".{HOST}"):
            return False
        networks = desired.remotes.networks.values()
        return all(each.seq >= self._last_seq("", f".net.{each.network}.") for each in networks)

    def _last_seq(self, end: str, middle: str = ".net.") -> int:
        subjects_by_seq = ((each.seq, each.subject) for each in reversed(self.journal.events))
        return next((seq for seq, subject in subjects_by_seq if subject.endswith(end) and middle in subject), 0)

    async def step(self) -> None:
        number = self.chance.choice(ENDPOINTS)
        if number not in self.places:
            await self.bind(number, self.chance.choice(HOSTS))
        elif self.chance.random() < 0.5:
            await self.end(number)
        else:
            await self.move(number, self.chance.choice(HOSTS))

    async def _journal_goes_away(self) -> None:
        """For a while, in the middle of whatever is being read."""
        self.journal.set_away(True)
        for _ in range(self.chance.randrange(60)):
            await anyio.lowlevel.checkpoint()
        self.journal.set_away(False)

    async def run(self, actors: int, steps: int) -> None:
        """Several actors, each killed somewhere, then one in peace."""
        await self.hosts_join()
        self.lag = 12
        for _ in range(actors):
            self.host.is_journal_away = self.chance.random() < 0.2
            async with self.host.running():
                for _ in range(steps):
                    await self.step()
                    for _ in range(self.chance.randrange(30)):
                        await anyio.lowlevel.checkpoint()
                    if self.chance.random() < 0.1:
                        self.host.switch.restart()
                    if self.chance.random() < 0.15:
                        await self._journal_goes_away()
            if self.chance.random() < 0.2:
                self.host.actor_state.unlink(missing_ok=True)
        self.host.is_journal_away = False
        async with self.host.running() as actor:
            await self.until_right()
            for _ in range(steps):
                await self.step()
            await self.until_right()
            await actor.reconciler.passed()
            assert self.has() == self.wanted(), "a full pass has nothing to add"


def walk(seed: int, actors: int = 3, steps: int = 8) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(World(Path(folder), seed).run(actors, steps))


@given(st.integers(0, 2**32))
@settings(max_examples=80, deadline=None)
def test_nothing_is_missed_in_any_world(seed: int) -> None:
    walk(seed)


@pytest.mark.long
@given(st.integers(0, 2**32))
@settings(max_examples=1500, deadline=None)
def test_nothing_is_missed_in_many_worlds(seed: int) -> None:
    walk(seed, actors=5, steps=12)


def test_the_twin_that_reads_no_history_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulation must be able to fail: this one follows a new network from now on, without what was before."""

    def fold_read(interests: Interests, read: object, held: object, until_seq: int) -> None:
        for network in held:  # type: ignore[attr-defined]
            interests._remotes.has_read(network, until_seq)

    monkeypatch.setattr(Interests, "_fold_read", fold_read)
    monkeypatch.setattr("tests.harness.host_world.WITHIN_S", 0.5)
    with pytest.RaisesGroup(AssertionError, flatten_subgroups=True):
        for seed in range(20):
            walk(seed)


def test_the_twin_that_keeps_what_it_knew_of_a_network_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """This one keeps the sequence of a network whose last member went."""
    kept: dict[object, int] = {}
    entered, left = Remotes.enter, Remotes.leave

    def leave(remotes: Remotes, network: tuple[str, str]) -> None:
        kept[network] = remotes.networks[network].seq
        left(remotes, network)

    def enter(remotes: Remotes, bound: EndpointBound) -> None:
        entered(remotes, bound)
        network = (bound.tenant, bound.network)
        remotes.networks[network].seq = max(kept.get(network, 0), remotes.networks[network].seq)

    monkeypatch.setattr(Remotes, "leave", leave)
    monkeypatch.setattr(Remotes, "enter", enter)
    monkeypatch.setattr("tests.harness.host_world.WITHIN_S", 0.5)
    with pytest.RaisesGroup(AssertionError, flatten_subgroups=True):
        for seed in range(40):
            kept.clear()
            walk(seed)


@pytest.mark.anyio
async def test_networks_without_members_here_are_never_delivered(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.hosts_join()
    async with world.host.running() as actor:
        await world.bind(1, HOST)  # blue
        await world.bind(4, "h2")  # blue
        await world.until_right()
        for number in (2, 3, 5, 6):  # green and red
            await world.bind(number, "h2")
            await world.move(number, "h3")
        await world.bind(7, "h3")  # blue again: all before it has come
        await world.until_right()
        delivered = {subject.split(".")[5] for subject in world.delivered if ".net." in subject}
        assert delivered == {"blue"}
        await world.end(1)
        await world.until_right()
        await world.host.until(lambda: not actor.interests._followers, "nothing is followed")
        before = world.delivered.total()
        await world.bind(8, "h2")  # green
        await world.end(4)
        await world.bind(4, "h3")
        await actor.reconciler.passed()
        assert world.has() == {RemoteTunnel(VTEPS[HOST])}
        assert world.delivered.total() == before, "the interest went with the last member"


@pytest.mark.anyio
async def test_a_vlan_network_is_of_no_interest(tmp_path: Path) -> None:
    world = World(tmp_path, encap="vlan")
    await world.hosts_join()
    async with world.host.running() as actor:
        await world.bind(1, HOST)
        await world.bind(4, "h2")
        await world.host.until(lambda: len(world.host.reports()) == 1, "bound")
        await actor.reconciler.passed()
        assert world.has() == {RemoteTunnel(VTEPS[HOST])}
        assert not [subject for subject in world.delivered if subject.endswith(".h2")]


@pytest.mark.anyio
async def test_a_host_starts_with_what_it_knew_while_the_journal_is_away(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.hosts_join()
    async with world.host.running():
        await world.bind(1, HOST)
        await world.bind(4, "h2")
        await world.until_right()
    world.host.switch.remotes.clear()
    world.host.is_journal_away = True
    async with world.host.running():
        await world.until_right()


@pytest.mark.anyio
async def test_who_lost_its_state_tears_nothing_down_before_it_has_read_all(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.hosts_join()
    async with world.host.running():
        await world.bind(1, HOST)
        await world.bind(4, "h2")
        await world.until_right()
    world.host.actor_state.unlink()
    steps = world.host.switch.steps
    world.lag = 50
    async with world.host.running() as actor:
        await world.host.until(lambda: actor.interests.is_current, "all is read")
        await actor.reconciler.passed()
    assert world.host.switch.steps == steps, "nothing went, and nothing came"
