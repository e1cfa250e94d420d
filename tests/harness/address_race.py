"""64 clients that take addresses of a /22 from one pile, and repeat what nobody answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import IPv4Address, ip_network
from itertools import count

import anyio

from messages.codec import decode_event
from messages.endpoint import CreateEndpoint, DeleteEndpoint, EndpointBound, EndpointCreated, EndpointView
from messages.ipam import AddressesView, ShowIpam, SubnetAddresses
from messages.network import CreateNetwork
from messages.replies import Accepted, AnyReply, Items, Refused, Unavailable
from messages.struct import Command
from services.runtime.errors import Unavailable as Away
from services.runtime.journal import Recorded

from .ipam import Asker

CLIENTS = 64
CONNECTIONS = 4
TOO_MANY = 64  # more endpoints than there are addresses
SUBNET = ip_network("10.1.4.0/22")
ADDRESSES = {*SUBNET.hosts()}
WITHIN_S = 120.0
WEB = CreateNetwork(tenant="default", network="web", subnets=(SUBNET,))


def create(name: str, container: str | None = None) -> CreateEndpoint:
    """An endpoint of network web; in a container, on h1."""
    host = "h1" if container is not None else None
    return CreateEndpoint(tenant="default", network="web", name=name, container=container, host=host)


def delete(name: str) -> DeleteEndpoint:
    return DeleteEndpoint(tenant="default", network="web", name=name)


def too_many(prefix: str, container: str | None = None) -> dict[str, Command]:
    """More endpoints of network web than it has addresses, by command id."""
    names = [f"{prefix}-{number}" for number in range(len(ADDRESSES) + TOO_MANY)]
    return {name: create(name, container) for name in names}


class Race:
    """64 clients that take one command after another from the same pile."""

    def __init__(self, askers: Sequence[Asker], commands: Mapping[str, Command]) -> None:
        self.replies: dict[str, AnyReply] = {}
        self._askers = askers
        self._commands = iter(commands.items())
        self._total = len(commands)
        self._progress = anyio.Event()

    async def run(self, kill: Callable[[int], Awaitable[None]], kill_every: int) -> None:
        """All is answered; meanwhile each `kill_every` answers `kill` is called with how often it was before."""
        async with anyio.create_task_group() as tasks:
            for number in range(CLIENTS):
                tasks.start_soon(self._client, self._askers[number % len(self._askers)])
            for kills, answers in zip(count(), range(kill_every, self._total, kill_every), strict=False):
                while len(self.replies) < answers:
                    await self._progress.wait()
                await kill(kills)

    async def _client(self, client: Asker) -> None:
        for command_id, command in self._commands:
            self.replies[command_id] = await until(client, command, command_id)
            self._progress.set()
            self._progress = anyio.Event()

    def accepted(self) -> list[str]:
        """The ids of the commands that were accepted."""
        return [command_id for command_id, reply in self.replies.items() if isinstance(reply, Accepted)]


async def until(client: Asker, command: Command, command_id: str = "") -> AnyReply:
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
    """Where each address of network web stands."""
    reply = await until(client, ShowIpam(tenant="default", network="web"))
    assert isinstance(reply, Items), reply
    (view,) = reply.objects
    assert isinstance(view, AddressesView)
    return view.subnets[0]


def check_full(replies: Mapping[str, AnyReply], events: Sequence[Recorded]) -> None:
    """Every address is somebody's, once, and whoever came too late was told so."""
    accepted = {name: reply for name, reply in replies.items() if isinstance(reply, Accepted)}
    refused = [reply for reply in replies.values() if isinstance(reply, Refused)]
    assert len(accepted) + len(refused) == len(replies)
    assert {reply.code for reply in refused} == {"subnet-full"}
    given: dict[IPv4Address, str] = {}  # as the journal has it
    for event in (decode_event(each.payload) for each in events if ".net.web.endpoint-" in each.subject):
        if isinstance(event, EndpointCreated) or (isinstance(event, EndpointBound) and event.is_new):
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
