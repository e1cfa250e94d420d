"""One ipam state and the journal it comes from, in memory: commands in, decisions out, the way the shell does it."""

from __future__ import annotations

from copy import deepcopy
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple

from ipam_actor.definition import IPAM
from ipam_actor.resting import REST_NS
from ipam_actor.state import State
from messages.catalog import AnyEvent, event_name
from messages.endpoint import (
    AttachEndpoint,
    CreateEndpoint,
    DeleteEndpoint,
    DetachEndpoint,
    EndpointBound,
    EndpointDeleted,
    EndpointUnbound,
    EndpointView,
    GetEndpoint,
)
from messages.host import JoinHost
from messages.network import CreateNetwork, Encap, GetNetwork, NetworkView
from messages.port import PortBound, PortFailed, PortUnbound, PortWaiting
from messages.replies import Item
from messages.struct import Command, Event
from messages.subjects import aggregate_of, port_event
from services.runtime.decision import Decision, Origin, Rejection, Stamp

START_NS = 1_700_000_000_000_000_000
SECOND_NS = 1_000_000_000


class Line(NamedTuple):
    """One recorded event."""

    seq: int
    subject: str
    event: AnyEvent
    at_ns: int


class World:
    """Decides and applies at once; `now_ns` moves only when it is told to."""

    def __init__(self, *hosts: str) -> None:
        self.state: State = IPAM.new_state()
        self.journal: list[Line] = []
        self.now_ns = START_NS
        self.sender = Origin("tester")
        self._stamps = 0
        for host in hosts:
            self.do(JoinHost(tenant="fabric", host=host, driver="ovs", datapath="netdev", version="0"))

    def stamp(self) -> Stamp:
        self._stamps += 1
        entropy = blake2b(self._stamps.to_bytes(8), digest_size=16).digest()
        return Stamp(self.now_ns, f"command-{self._stamps}", self.sender, entropy)

    def decide(self, command: Command) -> Decision:
        """What the command comes to; every fact is in an aggregate that `writes` had named."""
        writes = IPAM.writes(self.state, command)
        decision = IPAM.handlers[type(command)](self.state, command, self.stamp())
        assert {aggregate_of(fact.subject) for fact in decision.facts} <= set(writes)
        assert all(
            fact.subject.split(".")[-2 if ".net." in fact.subject else -1] == event_name(fact.event)
            for fact in decision.facts
        )
        assert (decision.reply is None) == bool(writes), "what writes nothing answers, what writes does not"
        return decision

    def do(self, command: Command) -> tuple[Event, ...]:
        """The events of the command, applied."""
        decision = self.decide(command)
        for fact in decision.facts:
            self.record(fact.subject, fact.event)
        if decision.show is not None:
            assert isinstance(IPAM.handlers[type(decision.show)](self.state, decision.show, self.stamp()).reply, Item)
        return tuple(fact.event for fact in decision.facts)

    def record(self, subject: str, event: Event) -> None:
        line = Line(len(self.journal) + 1, subject, event, self.now_ns)  # type: ignore[arg-type]
        self.journal.append(line)
        IPAM.apply(self.state, *line[1:3], line.seq, line.at_ns)

    def refused(self, command: Command) -> Rejection:
        """The command's refusal; it left the state as it was."""
        before = deepcopy(self.state)
        try:
            decision = self.decide(command)
        except Rejection as rejection:
            assert self.state == before
            return rejection
        raise AssertionError(f"{command} was not refused: {decision}")

    def wait_s(self, seconds: float) -> None:
        self.now_ns += int(seconds * SECOND_NS)

    # what tests write most

    def network(
        self,
        name: str = "web",
        *subnets: str,
        tenant: str = "default",
        encap: Encap = "vlan",
        tag: int | None = None,
        gateways: tuple[str, ...] = (),
    ) -> None:
        self.do(network(name, *subnets, tenant=tenant, encap=encap, tag=tag, gateways=gateways))

    def endpoint(
        self,
        name: str,
        *addresses: str,
        network: str = "web",
        tenant: str = "default",
        container: str | None = None,
        host: str | None = None,
    ) -> EndpointView:
        self.do(endpoint(name, *addresses, network=network, tenant=tenant, container=container, host=host))
        return self.show(name, network, tenant)

    def attach(self, name: str, host: str = "h1", container: str = "netns:a", network: str = "web") -> int:
        """The endpoint is bound; returns the epoch."""
        self.do(AttachEndpoint(tenant="default", network=network, name=name, container=container, host=host))
        return self.journal[-1].seq

    def detach(self, name: str, network: str = "web") -> None:
        self.do(DetachEndpoint(tenant="default", network=network, name=name))

    def delete(self, name: str, network: str = "web") -> None:
        self.do(DeleteEndpoint(tenant="default", network=network, name=name))

    def show(self, name: str, network: str = "web", tenant: str = "default") -> EndpointView:
        reply = self.decide(GetEndpoint(tenant=tenant, network=network, name=name)).reply
        assert isinstance(reply, Item)
        assert isinstance(reply.object, EndpointView)
        return reply.object

    def show_network(self, name: str = "web", tenant: str = "default") -> NetworkView:
        reply = self.decide(GetNetwork(tenant=tenant, network=name)).reply
        assert isinstance(reply, Item)
        assert isinstance(reply.object, NetworkView)
        return reply.object

    def address_of(self, name: str, network: str = "web") -> str:
        return str(self.show(name, network).status.addresses[0])

    # what hosts say

    def report(self, event: PortBound | PortWaiting | PortFailed | PortUnbound) -> None:
        self.record(port_event(event.tenant, event.host, event_name(event)), event)

    def confirm_gone(self) -> None:
        """Every host says of every binding that ended, and was not confirmed yet, that its port is gone."""
        said = {(line.event.endpoint, line.event.epoch) for line in self.journal if isinstance(line.event, PortUnbound)}
        for line in list(self.journal):
            ended = line.event
            if not isinstance(ended, EndpointUnbound | EndpointDeleted) or not ended.epoch:
                continue
            if (ended.endpoint, ended.epoch) not in said:
                said.add((ended.endpoint, ended.epoch))
                tenant, network = line.subject.split(".")[3], line.subject.split(".")[5]
                self.report(
                    PortUnbound(
                        tenant=tenant,
                        network=network,
                        endpoint=ended.endpoint,
                        name=ended.name,
                        host=ended.host,
                        epoch=ended.epoch,
                    )
                )

    def rest_over(self) -> None:
        self.confirm_gone()
        self.now_ns += REST_NS

    def bound_event(self, name: str) -> EndpointBound:
        events = [
            line.event for line in self.journal if isinstance(line.event, EndpointBound) and line.event.name == name
        ]
        return events[-1]


def network(
    name: str,
    *subnets: str,
    tenant: str = "default",
    encap: Encap = "vlan",
    tag: int | None = None,
    gateways: tuple[str, ...] = (),
) -> CreateNetwork:
    """A command to create a network; `auto` and `none` as they are."""
    if subnets == ("none",):
        return CreateNetwork(
            tenant=tenant, network=name, encap=encap, tag=tag, subnets="none", gateways=_parsed(gateways)
        )
    if not subnets or subnets == ("auto",):
        return CreateNetwork(tenant=tenant, network=name, encap=encap, tag=tag, gateways=_parsed(gateways))
    parsed = tuple(map(ip_network, subnets))
    return CreateNetwork(tenant=tenant, network=name, encap=encap, tag=tag, subnets=parsed, gateways=_parsed(gateways))


def endpoint(
    name: str,
    *addresses: str,
    network: str = "web",
    tenant: str = "default",
    tag: int | None = None,
    mac: str | None = None,
    container: str | None = None,
    host: str | None = None,
) -> CreateEndpoint:
    """A command to create an endpoint; in a container it is on `h1` unless told otherwise."""
    host = "h1" if container is not None and host is None else host
    return CreateEndpoint(
        tenant=tenant,
        network=network,
        name=name,
        addresses=_parsed(addresses),
        tag=tag,
        mac=mac,
        container=container,
        host=host,
    )


def _parsed(addresses: tuple[str, ...]) -> tuple[IPv4Address | IPv6Address, ...]:
    return tuple(map(ip_address, addresses))
