"""A /22 filled to the last address by 64 racing clients while its two ipam actors are killed, and emptied again."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from ipaddress import IPv4Address, ip_network
from itertools import cycle
from typing import Any

import anyio
import pytest

from messages import subjects
from messages.catalog import event_name
from messages.codec import decode_event, encode
from messages.endpoint import CreateEndpoint, DeleteEndpoint, EndpointBound, EndpointDeleted, EndpointView
from messages.host import JoinHost
from messages.ipam import AddressesView, ShowIpam, SubnetAddresses
from messages.network import CreateNetwork
from messages.port import PortUnbound
from messages.replies import Accepted, AnyReply, Items, Refused, Unavailable
from messages.struct import Command
from services.runtime import identity
from services.runtime.bus import connect
from services.runtime.errors import Unavailable as Away
from services.runtime.journal import BATCH_MAX, MESSAGE_ID_HEADER, Draft, Recorded
from services.runtime.journal_jetstream import JetStreamJournal
from tests.harness.ipam import Asker, IpamProcess, asker, held, ipam_process, journal_of, options, running_ipam
from tests.harness.nats import RunningNats

pytestmark = pytest.mark.anyio

CLIENTS = 64
CONNECTIONS = 4
TOO_MANY = 64  # more endpoints than there are addresses
SUBNET = ip_network("10.1.4.0/22")
ADDRESSES = {*SUBNET.hosts()}
WITHIN_S = 120.0
WEB = CreateNetwork(tenant="default", network="web", subnets=(SUBNET,))
JOIN = JoinHost(tenant="fabric", host="h1", driver="ovs", datapath="netdev", version="0")
SHOW = ShowIpam(tenant="default", network="web")


def create(name: str, container: str = "netns:c1") -> CreateEndpoint:
    return CreateEndpoint(tenant="default", network="web", name=name, container=container, host="h1")


def delete(name: str) -> DeleteEndpoint:
    return DeleteEndpoint(tenant="default", network="web", name=name)


class Race:
    """64 clients that take one command after another from the same pile, and repeat what nobody answered."""

    def __init__(self, askers: Sequence[Asker], commands: dict[str, Command]) -> None:
        self.replies: dict[str, AnyReply] = {}
        self._askers = askers
        self._commands = iter(commands.items())
        self._total = len(commands)
        self._progress = anyio.Event()

    async def run(self, victims: dict[IpamProcess, int], kill_every: int) -> None:
        """All is answered; meanwhile one process after the other is killed, each `kill_every` answers.

        `victims`: how often each has been started.
        """
        async with anyio.create_task_group() as tasks:
            for number in range(CLIENTS):
                tasks.start_soon(self._client, self._askers[number % len(self._askers)])
            tasks.start_soon(self._kill, victims, kill_every)

    async def _client(self, client: Asker) -> None:
        for command_id, command in self._commands:
            self.replies[command_id] = await until(client, command, command_id)
            self._progress.set()
            self._progress = anyio.Event()

    async def _kill(self, victims: dict[IpamProcess, int], kill_every: int) -> None:
        for count, victim in zip(range(kill_every, self._total, kill_every), cycle(victims), strict=False):
            while len(self.replies) < count:
                await self._progress.wait()
            for each, times in victims.items():  # somebody is left to answer
                await anyio.to_thread.run_sync(each.wait_for, "actor-ready", times)
            await anyio.to_thread.run_sync(victim.end, signal.SIGKILL)
            victims[victim] += 1
            victim.start()


async def until(client: Asker, command: Command, command_id: str) -> AnyReply:
    """What somebody answers at last: whoever was to answer may have been killed many times over."""
    with anyio.fail_after(WITHIN_S):
        while True:
            try:
                reply = await client.ask(command, command_id, timeout_s=1.0)
            except Away:
                await client.bus.connected()
                continue
            if not isinstance(reply, Unavailable):
                return reply


async def shown(client: Asker) -> SubnetAddresses:
    reply = await until(client, SHOW, "")
    assert isinstance(reply, Items), reply
    (view,) = reply.objects
    assert isinstance(view, AddressesView)
    return view.subnets[0]


def check_full(replies: dict[str, AnyReply], events: Sequence[Recorded]) -> None:
    """Every address is somebody's, once, and whoever came too late was told so."""
    accepted = {name: reply for name, reply in replies.items() if isinstance(reply, Accepted)}
    refused = [reply for reply in replies.values() if isinstance(reply, Refused)]
    assert len(accepted) + len(refused) == len(replies)
    assert {reply.code for reply in refused} == {"subnet-full"}
    given: dict[IPv4Address, str] = {}
    for event in (decode_event(each.payload) for each in events if ".endpoint-bound." in each.subject):
        assert isinstance(event, EndpointBound)
        (interface,) = event.addresses
        assert isinstance(interface.ip, IPv4Address)
        assert interface.ip not in given, f"{interface.ip} is {given.get(interface.ip)}'s and {event.name}'s"
        given[interface.ip] = event.name
    assert given.keys() == ADDRESSES
    for name, reply in accepted.items():
        assert isinstance(reply.object, EndpointView)
        (interface,) = reply.object.status.addresses
        assert isinstance(interface.ip, IPv4Address)
        assert given[interface.ip] == name


async def report_gone(server: RunningNats, since: int) -> None:
    """The host reports the port of every endpoint that was deleted after `since` gone."""
    events = [decode_event(each.payload) for each in await journal_of(server) if each.seq > since]
    await report(server, [_gone(each.endpoint, each.epoch) for each in events if isinstance(each, EndpointDeleted)])


def _gone(endpoint: str, epoch: int) -> PortUnbound:
    return PortUnbound(tenant="default", network="web", host="h1", endpoint=endpoint, name="gone", epoch=epoch)


async def report(server: RunningNats, events: Sequence[PortUnbound]) -> None:
    async with await connect(options(server, identity.IPAM)) as bus:
        journal = JetStreamJournal(bus)
        subject = subjects.port_event("default", "h1", event_name(PortUnbound))
        drafts = [Draft(subject, encode(each), {MESSAGE_ID_HEADER: f"{each.endpoint}.{each.epoch}"}) for each in events]
        for at in range(0, len(drafts), BATCH_MAX):
            await journal.append(drafts[at : at + BATCH_MAX], [])


async def state_of(server: RunningNats) -> Any:
    """What is folded from the whole journal by now, without the sequences of what was last written where."""
    async with running_ipam(server) as actor:
        tenants, segments, networks, hosts, ports, *_ = held(actor)
        tenants = {name: each[1:] for name, each in tenants.items()}
        networks = {tenant: {name: each[1:] for name, each in below.items()} for tenant, below in networks.items()}
        reports = [each for below in ports.values() for aggregate in below.values() for each in aggregate["reports"]]
        return tenants, segments[1:], networks, hosts["hosts"], reports


async def fill_and_empty(server: RunningNats, kill_every: int, rounds: int) -> None:
    with ipam_process(server) as one, ipam_process(server) as two:
        victims = {one: 1, two: 1}
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(asker(server)) for _ in range(CONNECTIONS)]
            await until(clients[0], JOIN, "join")
            await until(clients[0], WEB, "web")
            before, state_before = await shown(clients[0]), await state_of(server)
            for number in range(rounds):
                began = (await journal_of(server))[-1].seq
                names = [f"e{number}-{each}" for each in range(len(ADDRESSES) + TOO_MANY)]
                race = Race(clients, {name: create(name) for name in names})
                await race.run(victims, kill_every)
                check_full(race.replies, [each for each in await journal_of(server) if each.seq > began])
                full = await shown(clients[0])
                assert (full.used.count, full.free.count) == (len(ADDRESSES), 0)
                assert list(map(str, full.used.ranges)) == ["10.1.4.1-10.1.7.254"]

                there = [name for name, reply in race.replies.items() if isinstance(reply, Accepted)]
                emptying = Race(clients, {f"delete-{name}": delete(name) for name in there})
                await emptying.run(victims, kill_every)
                assert all(isinstance(reply, Accepted) for reply in emptying.replies.values())
                rests = await shown(clients[0])
                assert (rests.resting.count, rests.used.count, rests.free.count) == (len(ADDRESSES), 0, 0)
                early = await until(clients[0], create("early"), f"early{number}")
                assert isinstance(early, Refused)
                assert "1022 of them rest" in early.detail

                await report_gone(server, began)
                with anyio.fail_after(WITHIN_S):
                    while (now := await shown(clients[0])).resting.count:
                        pass  # the time goes by in the asking
                assert now == before
            await report(server, [_gone("nobody", 1)])  # in the journal's own time, too, all rests are over now
            assert await state_of(server) == state_before


async def test_full_to_the_last_address_and_empty_again_with_either_actor_killed(nats_server: RunningNats) -> None:
    await fill_and_empty(nats_server, kill_every=180, rounds=1)


@pytest.mark.long
async def test_long_full_and_empty_again_and_again(nats_server: RunningNats) -> None:
    await fill_and_empty(nats_server, kill_every=60, rounds=5)
