"""`network.create`, `set`, `delete`, `get`, `list`.

A network is written to three aggregates in one decision, so that each keeps what must hold across networks: its
tenant's (no two subnets overlap), the fabric's segments (no tag twice), its own.
"""

from __future__ import annotations

from itertools import count

from messages.addresses import Address, AddressRange, Network
from messages.names import RESERVED_TENANT
from messages.network import (
    AddressingChanged,
    CreateNetwork,
    DeleteNetwork,
    Encap,
    GetNetwork,
    ListNetworks,
    NetworkCreated,
    NetworkDeleted,
    SetNetwork,
)
from messages.replies import Item, Items
from messages.segment import SegmentReleased, SegmentTaken
from messages.tenant import NetworkAdded, NetworkRemoved
from services.runtime.decision import Decision, Fact, Rejection, Stamp

from .. import facts
from ..lookup import FoundNetwork, check_tag_whole, check_whole, find_network, require_network, require_tenant, some_of
from ..pools import check_subnet_free, check_tag_free, choose_subnet, choose_tag, reserved_in
from ..records import NetworkRecord, Owner, TenantRecord
from ..state import HostAggregate, State, TenantAggregate
from ..views import network_view
from .tenant import on_or_off, tenant_created

VLAN_MTU_BYTES = 1500
VXLAN_MTU_BYTES = 1450  # where no host has said what its underlay carries
VXLAN_OVERHEAD_BYTES = {4: 50, 6: 70}  # RFC 7348 section 5: Ethernet, VXLAN, UDP and IP headers, by the VTEPs' family
ENDPOINT_MTU_MAX = 9000


def create_network(state: State, command: CreateNetwork, stamp: Stamp) -> Decision:
    """Take a tag and subnets, and bring the network into being. Idempotent: what is left out agrees with what is there.

    Refuses: `unknown-tenant`, `network-exists`, `subnet-overlaps`, `pool-exhausted`, `gateway-outside-subnet`,
    `gateway-reserved`, `subnet-needed`, `tag-in-use`, `tag-out-of-range`, `tag-resting`, `tags-exhausted`.
    """
    tenant, record = require_tenant(state, command.tenant)
    show = GetNetwork(tenant=command.tenant, network=command.network)
    found = find_network(state, command.tenant, command.network)
    if found is not None:
        _check_same(command, found.record)
        return Decision((), show)
    check_whole(tenant, command.network, None)
    subnets = _subnets_for(tenant, record, command)
    for gateway in command.gateways:
        _check_gateway(gateway, subnets)
    is_routed = _is_routed(command, record, subnets)
    gateways = _with_gateways(command.gateways, subnets) if is_routed else command.gateways
    tag = _tag_for(state, record, command, stamp.at_ns)
    created: tuple[Fact, ...] = ()
    if tenant.record is None:
        created = (facts.of_tenant(command.tenant, tenant_created(command.tenant, record)),)
    event = NetworkCreated(
        tenant=command.tenant,
        network=command.network,
        encap=command.encap,
        tag=tag,
        is_tag_chosen=command.tag is None,
        subnets=subnets,
        gateways=gateways,
        mtu_bytes=_mtu_bytes(state.hosts, command.encap),
        ranges=ordered(command.ranges),
        excluded=ordered(command.exclude),
        is_routed=is_routed,
    )
    return Decision((*created, *_facts_of(event)), show)


def _is_routed(command: CreateNetwork, tenant: TenantRecord, subnets: tuple[Network, ...]) -> bool:
    """Whether the network routes: as asked, else as its tenant does, where it has a subnet. Refuses:
    `subnet-needed`.
    """
    if command.routing and not subnets:
        raise Rejection("subnet-needed", f"network {command.network} cannot route without a subnet: give it one")
    return bool(subnets) and (tenant.is_routing if command.routing is None else command.routing)


def _with_gateways(gateways: tuple[Address, ...], subnets: tuple[Network, ...]) -> tuple[Address, ...]:
    """The gateways; of a family that has none, the first address of its first subnet that an endpoint could have."""
    found = list(gateways)
    for subnet in subnets:
        if all(gateway.version != subnet.version for gateway in found):
            reserved = reserved_in(subnet)
            first = next(place for place in count(int(subnet.network_address)) if place not in reserved)
            found.append(subnet.network_address + (first - int(subnet.network_address)))
    return tuple(found)


def _mtu_bytes(hosts: HostAggregate, encap: Encap) -> int:
    """The longest IP packet of an endpoint: for VXLAN, what the narrowest underlay of the members leaves."""
    if encap == "vlan":
        return VLAN_MTU_BYTES
    left = [
        host.underlay_mtu_bytes - VXLAN_OVERHEAD_BYTES[host.vtep.version]
        for host in hosts.hosts.values()
        if host.vtep is not None and host.underlay_mtu_bytes
    ]
    return min([*left, ENDPOINT_MTU_MAX]) if left else VXLAN_MTU_BYTES


def _facts_of(event: NetworkCreated) -> tuple[Fact, ...]:
    tenant, network = event.tenant, event.network
    return (
        facts.of_tenant(tenant, NetworkAdded(network=network, subnets=event.subnets)),
        facts.of_segments(SegmentTaken(encap=event.encap, tag=event.tag, tenant=tenant, network=network)),
        facts.of_network(tenant, network, event),
    )


def _subnets_for(tenant: TenantAggregate, record: TenantRecord, command: CreateNetwork) -> tuple[Network, ...]:
    if command.subnets == "auto":
        return (choose_subnet(tenant, record),)
    if command.subnets == "none":
        return ()
    for subnet in command.subnets:
        check_subnet_free(tenant, subnet)
    return command.subnets


def _tag_for(state: State, record: TenantRecord, command: CreateNetwork, now_ns: int) -> int:
    owner = Owner(command.tenant, command.network)
    if command.tag is None:
        return choose_tag(state, record, command.encap, owner, now_ns)
    check_tag_free(state, record, command.encap, command.tag, owner, now_ns)
    return command.tag


def _check_gateway(gateway: Address, subnets: tuple[Network, ...]) -> None:
    subnet = next((each for each in subnets if each.version == gateway.version and gateway in each), None)
    if subnet is None:
        having = ", ".join(map(str, subnets)) or "none"
        raise Rejection(
            "gateway-outside-subnet", f"gateway {gateway} is in no subnet of the network ({having}): give its subnet"
        )
    reserved = reserved_in(subnet).get(int(gateway))
    if reserved is not None:
        raise Rejection("gateway-reserved", f"gateway {gateway} is {reserved}: choose another")


def _check_same(command: CreateNetwork, found: NetworkRecord) -> None:
    """The network that is there is the one that is asked for. Refuses: `network-exists`."""
    created_with = set(found.subnets) - set(found.adopted)
    differing = []
    if command.encap != found.encap:
        differing.append(f"encap is {found.encap}, asked for {command.encap}")
    if command.tag not in (None, found.tag):
        differing.append(f"tag is {found.tag}, asked for {command.tag}")
    if isinstance(command.subnets, str):
        is_same = bool(found.subnets) if command.subnets == "auto" else not created_with
    else:
        is_same = set(command.subnets) in (created_with, set(found.subnets))
    if not is_same:
        asked = command.subnets if isinstance(command.subnets, str) else ", ".join(map(str, command.subnets)) or "none"
        differing.append(f"subnets are {', '.join(map(str, found.subnets)) or 'none'}, asked for {asked}")
    if command.gateways and set(command.gateways) != set(found.gateways):
        asked = ", ".join(map(str, command.gateways))
        differing.append(f"gateways are {', '.join(map(str, found.gateways)) or 'none'}, asked for {asked}")
    for noun, asked_ranges, having in (
        ("ranges", command.ranges, found.ranges),
        ("exclusions", command.exclude, found.excluded),
    ):
        if asked_ranges and set(asked_ranges) != set(having):
            differing.append(f"{noun} are {_listed(having)}, asked for {_listed(asked_ranges)}")
    if command.routing not in (None, found.is_routed):
        differing.append(f"routing is {on_or_off(found.is_routed)}, asked for {on_or_off(bool(command.routing))}")
    if differing:
        raise Rejection(
            "network-exists", f"network {command.network} exists with other parameters: {'; '.join(differing)}"
        )


def _listed(ranges: tuple[AddressRange, ...]) -> str:
    return ", ".join(map(str, ranges)) or "none"


def ordered(ranges: tuple[AddressRange, ...]) -> tuple[AddressRange, ...]:
    """The ranges ascending, IPv4 first."""
    return tuple(sorted(ranges, key=lambda each: (each.version, each.first)))


def set_network(state: State, command: SetNetwork, _stamp: Stamp) -> Decision:
    """Change the ranges that addresses are chosen from, and which are nobody's; endpoints keep what they have.

    Refuses: `unknown-tenant`, `unknown-network`, `range-outside-subnet`, `exclusion-in-use`.
    """
    found = require_network(state, command.tenant, command.network)
    show = GetNetwork(tenant=command.tenant, network=command.network)
    record = found.record
    ranges = record.ranges if command.ranges is None else ordered(command.ranges)
    excluded = record.excluded if command.exclude is None else ordered(command.exclude)
    if (ranges, excluded) == (record.ranges, record.excluded):
        return Decision((), show)
    check_in_subnets(found, (*ranges, *excluded))
    _check_unused(found, excluded)
    changed = AddressingChanged(ranges=ranges, excluded=excluded)
    return Decision((facts.of_network(command.tenant, command.network, changed),), show)


def check_in_subnets(found: FoundNetwork, ranges: tuple[AddressRange, ...]) -> None:
    """Each range lies in one subnet of the network. Refuses: `range-outside-subnet`."""
    for each in ranges:
        if not any(each.is_within(subnet) for subnet in found.record.subnets):
            having = ", ".join(map(str, found.record.subnets)) or "none yet"
            raise Rejection(
                "range-outside-subnet", f"range {each} is in no subnet of network {found.name} ({having}): change it"
            )


def _check_unused(found: FoundNetwork, excluded: tuple[AddressRange, ...]) -> None:
    """Nobody has an address of these, and no pool. Refuses: `exclusion-in-use`."""
    for each in excluded:
        pool = next((name for name, kept in found.aggregate.kept.items() if any(map(each.overlaps, kept))), None)
        if pool is not None:
            raise Rejection("exclusion-in-use", f"{each} cannot be excluded: pool {pool} has addresses of it")
        owners = found.aggregate.pools[each.version].owners
        users = sorted({name for address, name in owners.items() if each.first <= address <= each.last})
        if users:
            raise Rejection(
                "exclusion-in-use",
                f"{each} cannot be excluded: {some_of(users)} of network {found.name} has addresses of it; delete that "
                f"first, or exclude less",
            )


def delete_network(state: State, command: DeleteNetwork, _stamp: Stamp) -> Decision:
    """Remove a network that has no endpoints; its tag and subnets are free.

    Refuses: `unknown-tenant`, `unknown-network`, `network-in-use`.
    """
    tenant, network = command.tenant, command.network
    found = require_network(state, tenant, network)
    endpoints = found.aggregate.endpoints
    if endpoints:
        count = "1 endpoint" if len(endpoints) == 1 else f"{len(endpoints)} endpoints"
        names = some_of(sorted(endpoints))
        raise Rejection("network-in-use", f"network {network} still has {count} ({names}): delete them first")
    check_whole(require_tenant(state, tenant)[0], network, found.record)
    check_tag_whole(state, found)
    return Decision(
        (
            facts.of_tenant(tenant, NetworkRemoved(network=network)),
            facts.of_segments(SegmentReleased(encap=found.record.encap, tag=found.record.tag)),
            facts.of_network(tenant, network, NetworkDeleted(tenant=tenant, network=network)),
        )
    )


def get_network(state: State, command: GetNetwork, _stamp: Stamp) -> Decision:
    """One network. Refuses: `unknown-tenant`, `unknown-network`."""
    found = require_network(state, command.tenant, command.network)
    return Decision(reply=Item(seq=found.aggregate.seq, object=network_view(found)))


def list_networks(state: State, command: ListNetworks, _stamp: Stamp) -> Decision:
    """The tenant's networks, or with `fabric` those of all, in the order of their names. Refuses: `unknown-tenant`."""
    if command.tenant == RESERVED_TENANT:
        tenants = sorted(state.networks)
    else:
        require_tenant(state, command.tenant)
        tenants = [command.tenant]
    views = []
    seq = 0
    for tenant in tenants:
        for name, aggregate in sorted(state.networks.get(tenant, {}).items()):
            seq = max(seq, aggregate.seq)
            found = find_network(state, tenant, name)
            if found is not None:
                views.append(network_view(found))
    return Decision(reply=Items(seq=seq, objects=tuple(views)))
