"""What each event changes. It has happened: nothing is refused here, and each event touches only its own aggregate."""

from __future__ import annotations

from typing import assert_never

from msgspec.structs import replace

from messages.addresses import Address, Network
from messages.catalog import AnyEvent
from messages.endpoint import EndpointBound, EndpointCreated, EndpointDeleted, EndpointUnbound
from messages.host import HostAdmitted, HostInvited, HostJoined, HostRemoved
from messages.network import AddressingChanged, NetworkCreated, NetworkDeleted, NetworkRetagged, SubnetAdopted
from messages.pool import PoolCreated, PoolDeleted
from messages.port import PortBound, PortEvent, PortFailed, PortUnbound, PortWaiting
from messages.segment import SegmentReleased, SegmentTaken
from messages.tenant import NetworkAdded, NetworkRemoved, SubnetTaken, TenantChanged, TenantCreated, TenantDeleted

from .pools import reserved_in
from .records import (
    Admission,
    Binding,
    EndpointRecord,
    Hold,
    HostRecord,
    Invitation,
    NetworkRecord,
    Owner,
    Report,
    ReportState,
    Rest,
    TenantRecord,
    add_hold,
)
from .state import (
    HostAggregate,
    NetworkAggregate,
    Pool,
    PortAggregate,
    SegmentAggregate,
    State,
    TenantAggregate,
)

_TenantEvent = TenantCreated | TenantChanged | NetworkAdded | SubnetTaken | NetworkRemoved | TenantDeleted
_HostEvent = HostJoined | HostRemoved | HostInvited | HostAdmitted
_NetworkEvent = (
    NetworkCreated | SubnetAdopted | NetworkRetagged | AddressingChanged | PoolCreated | PoolDeleted | NetworkDeleted
)
_EndpointEvent = EndpointCreated | EndpointBound | EndpointUnbound | EndpointDeleted


def apply(state: State, subject: str, event: AnyEvent, seq: int, at_ns: int) -> None:
    """The state with `event`, which was recorded on `subject` as number `seq` at the server's time `at_ns`."""
    tokens = subject.split(".")
    tenant = tokens[3]
    match event:
        case EndpointCreated() | EndpointBound() | EndpointUnbound() | EndpointDeleted():
            _apply_endpoint(state.networks[tenant][tokens[5]], event, seq)
        case (
            NetworkCreated()
            | SubnetAdopted()
            | NetworkRetagged()
            | AddressingChanged()
            | PoolCreated()
            | PoolDeleted()
            | NetworkDeleted()
        ):
            network = state.networks.setdefault(tenant, {}).setdefault(tokens[5], NetworkAggregate())
            _apply_network(network, event, seq)
        case TenantCreated() | TenantChanged() | NetworkAdded() | SubnetTaken() | NetworkRemoved() | TenantDeleted():
            _apply_tenant(state.tenants.setdefault(tenant, TenantAggregate()), event, seq)
        case SegmentTaken() | SegmentReleased():
            _apply_segment(state.segments, event, seq)
        case HostJoined() | HostRemoved() | HostInvited() | HostAdmitted():
            _apply_host(state.hosts, event, seq)
        case PortBound() | PortWaiting() | PortFailed() | PortUnbound():
            ports = state.ports.setdefault(tenant, {}).setdefault(tokens[5], PortAggregate())
            _apply_port(ports, event, seq, at_ns)
        case _:
            assert_never(event)


def _apply_tenant(tenant: TenantAggregate, event: _TenantEvent, seq: int) -> None:
    tenant.seq = seq
    match event:
        case TenantCreated():
            assert tenant.record is None, f"tenant {event.tenant} is created twice"
            tenant.record = TenantRecord(
                event.subnet_pool, event.subnet_length, event.vlans, event.vnis, event.is_routing
            )
        case TenantChanged():
            assert tenant.record is not None, "the tenant does not exist"
            tenant.record = replace(
                tenant.record,
                subnet_pool=event.subnet_pool,
                subnet_length=event.subnet_length,
                vlans=event.vlans,
                vnis=event.vnis,
            )
        case NetworkAdded():
            assert event.network not in tenant.networks, f"network {event.network} is added twice"
            tenant.add_network(event.network, event.subnets)
        case SubnetTaken():
            tenant.add_network(event.network, (event.subnet,))
        case NetworkRemoved():
            tenant.remove_network(event.network)
        case TenantDeleted():
            assert not tenant.networks, f"tenant {event.tenant} is deleted with networks"
            tenant.record = None
        case _:
            assert_never(event)


def _apply_segment(segments: SegmentAggregate, event: SegmentTaken | SegmentReleased, seq: int) -> None:
    segments.seq = seq
    if isinstance(event, SegmentTaken):
        segments.take(event.encap, event.tag, Owner(event.tenant, event.network))
    else:
        segments.release(event.encap, event.tag, seq)


def _apply_host(hosts: HostAggregate, event: _HostEvent, seq: int) -> None:
    hosts.seq = seq
    match event:
        case HostJoined():
            hosts.hosts[event.host] = HostRecord(
                event.driver,
                event.datapath,
                event.version,
                event.bridge,
                seq,
                event.vtep,
                event.vtep_mac,
                event.underlay_mtu_bytes,
                event.uplinks,
            )
        case HostInvited():
            hosts.invitations[event.invitation] = Invitation(event.public_key, event.expires_at_ns)
        case HostAdmitted():
            hosts.admitted[event.host] = Admission(event.public_key, event.machine_id, seq)
            invitation = hosts.invitations[event.invitation]
            hosts.invitations[event.invitation] = replace(invitation, used_by=event.host)
        case HostRemoved():
            hosts.hosts.pop(event.host, None)
            hosts.admitted.pop(event.host, None)
            hosts.removed[event.host] = seq
        case _:
            assert_never(event)


def _apply_network(network: NetworkAggregate, event: _NetworkEvent, seq: int) -> None:
    network.seq = seq
    if isinstance(event, NetworkCreated):
        assert network.record is None, f"network {event.network} is created twice"
        network.record = NetworkRecord(
            event.encap,
            event.tag,
            event.is_tag_chosen,
            event.subnets,
            (),
            event.gateways,
            event.mtu_bytes,
            event.ranges,
            event.excluded,
            event.is_routed,
        )
        for subnet in event.subnets:
            _reserve(network, subnet, event.gateways)
        network.set_openings()
        return
    record = network.record
    assert record is not None, "the network does not exist"
    match event:
        case SubnetAdopted():
            adopted = (*record.adopted, event.subnet)
            network.record = replace(record, subnets=(*record.subnets, event.subnet), adopted=adopted)
            _reserve(network, event.subnet, ())
        case AddressingChanged():
            network.record = replace(record, ranges=event.ranges, excluded=event.excluded)
        case PoolCreated():
            assert event.name not in network.kept, f"pool {event.name} is created twice"
            network.kept[event.name] = event.ranges
        case PoolDeleted():
            del network.kept[event.name]
        case NetworkRetagged():
            network.record = replace(record, tag=event.tag, is_tag_chosen=False)
        case NetworkDeleted():
            assert not network.endpoints, f"network {event.network} is deleted with endpoints"
            network.record = None
            network.kept.clear()
            network.pools = {family: _resting_only(pool) for family, pool in network.pools.items()}
        case _:
            assert_never(event)
    network.set_openings()


def _reserve(network: NetworkAggregate, subnet: Network, gateways: tuple[Address, ...]) -> None:
    for address in reserved_in(subnet, gateways):
        network.pools[subnet.version].reserve(address)


def _resting_only(pool: Pool) -> Pool:
    rests = Pool()
    for address in pool.resting_order:
        rests.lay(address, pool.resting[address])
    return rests


def _apply_endpoint(network: NetworkAggregate, event: _EndpointEvent, seq: int) -> None:
    network.seq = seq
    if isinstance(event, EndpointCreated) or (isinstance(event, EndpointBound) and event.is_new):
        assert event.name not in network.endpoints, f"endpoint {event.name} is created twice"
        network.endpoints[event.name] = _created(network, event, seq)
    if isinstance(event, EndpointCreated):
        return
    endpoint = network.endpoints[event.name]
    assert endpoint.id == event.endpoint, f"endpoint {event.name} is {endpoint.id}, the event is about {event.endpoint}"
    match event:
        case EndpointBound():
            assert endpoint.binding is None, f"endpoint {event.name} is bound twice"
            binding = Binding(event.host, event.container, seq)
            network.endpoints[event.name] = replace(endpoint, binding=binding, seq=seq)
        case EndpointUnbound():
            assert endpoint.binding is not None, f"endpoint {event.name} is not bound"
            network.endpoints[event.name] = replace(_unbound(endpoint, event), seq=seq)
        case EndpointDeleted():
            _delete(network, _unbound(endpoint, event))
        case _:
            assert_never(event)


def _created(network: NetworkAggregate, event: EndpointCreated | EndpointBound, seq: int) -> EndpointRecord:
    """The endpoint with its addresses taken; what its name had left behind with them is still to be waited for."""
    left: tuple[Hold, ...] = ()
    for interface in event.addresses:
        rest = network.pool_of(interface).take(int(interface.ip), event.name)
        if rest is not None and rest.name == event.name:
            for hold in rest.holds:
                left = add_hold(left, hold)
    assert event.mac not in network.macs, f"MAC {event.mac} is given twice"
    network.macs[event.mac] = event.name
    said = (event.endpoint, event.name, event.addresses, event.asked, event.mac)
    return EndpointRecord(*said, seq, None, left, event.pool)


def _unbound(endpoint: EndpointRecord, event: EndpointUnbound | EndpointDeleted) -> EndpointRecord:
    """The endpoint without its binding, whose port is still to be waited for."""
    if endpoint.binding is None:
        return endpoint
    return replace(endpoint, binding=None, left=add_hold(endpoint.left, Hold(endpoint.id, event.host, event.epoch)))


def _delete(network: NetworkAggregate, endpoint: EndpointRecord) -> None:
    rest = Rest(endpoint.name, endpoint.left) if endpoint.left else None
    for interface in endpoint.addresses:
        network.pool_of(interface).release(int(interface.ip), rest)
    del network.macs[endpoint.mac]
    del network.endpoints[endpoint.name]


_REPORT_STATES: dict[type[PortEvent], ReportState] = {
    PortBound: "bound",
    PortWaiting: "waiting",
    PortFailed: "failed",
    PortUnbound: "unbound",
}


def _apply_port(ports: PortAggregate, event: PortEvent, seq: int, at_ns: int) -> None:
    """The host's word stands, unless it is about an older binding than what it said before."""
    ports.seq = seq
    ports.at_ns = max(ports.at_ns, at_ns)
    before = ports.reports.get(event.endpoint)
    if before is not None and before.epoch > event.epoch:
        return
    state = _REPORT_STATES[type(event)]
    device, interface, reason = "", "", ""
    if isinstance(event, PortBound):
        device, interface = event.device, event.interface
    elif isinstance(event, (PortWaiting, PortFailed)):
        reason = event.reason
    ports.reports[event.endpoint] = Report(
        state, event.network, event.name, event.epoch, seq, at_ns, device, interface, reason
    )
