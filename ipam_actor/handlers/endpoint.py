"""`endpoint.create`, `attach`, `detach`, `delete`, `get`, `list`.

(none) --create--> pending --attach--> bound --detach--> pending --delete--> (none, its addresses rest)
create with a container, delete of a bound one: both steps in one event
"""

from __future__ import annotations

from base64 import b32encode

from msgspec.structs import replace

from messages.addresses import Address, Interface, Network
from messages.endpoint import (
    AttachEndpoint,
    CreateEndpoint,
    DeleteEndpoint,
    DetachEndpoint,
    EndpointBound,
    EndpointCreated,
    EndpointDeleted,
    EndpointUnbound,
    GetEndpoint,
    ListEndpoints,
)
from messages.names import NO_HOST, RESERVED_TENANT
from messages.network import NetworkRetagged, SubnetAdopted, check_subnet, check_tag
from messages.replies import Item, Items
from messages.segment import SegmentReleased, SegmentTaken
from messages.tenant import SubnetTaken
from services.runtime.decision import Decision, Fact, Rejection, Stamp

from .. import facts
from ..lookup import (
    FoundNetwork,
    check_tag_whole,
    check_whole,
    find_network,
    require_endpoint,
    require_network,
    require_pool,
    require_tenant,
)
from ..macs import mac_for
from ..pools import ADOPTED_LENGTH, adopted_around, check_address, check_subnet_free, check_tag_free, choose_address
from ..records import EndpointRecord, NetworkRecord, Owner
from ..resting import waited_for
from ..state import State
from ..views import endpoint_view
from .host import require_host

ID_BYTES = 10  # 16 characters of base32


def create_endpoint(state: State, command: CreateEndpoint, stamp: Stamp) -> Decision:
    """Give the endpoint an address of each of the network's families and a MAC; with a container, bind it there too.

    Idempotent: what is left out agrees with what is there.
    Refuses: `unknown-tenant`, `unknown-network`, `unknown-host`, `endpoint-exists`, `no-subnet`, `subnet-full`,
    `pool-full`, `unknown-pool`, `subnet-overlaps`, `address-outside-subnet`, `address-outside-pool`,
    `address-reserved`, `address-excluded`, `address-in-use`, `address-resting`, `address-unusable`,
    `mac-in-use`, `tag-mismatch`, `tag-in-use`, `tag-out-of-range`, `tag-resting`.
    """
    found = require_network(state, command.tenant, command.network)
    show = GetEndpoint(tenant=command.tenant, network=command.network, name=command.name)
    existing = found.aggregate.endpoints.get(command.name)
    if existing is not None:
        _check_same(found, existing, command)
        return Decision((), show)
    if command.container is not None and command.host is not None:
        require_host(state, command.host)
    before = found.record
    found, retagged = _retagged(state, found, command, stamp.at_ns)
    found, adopted = _adopted(state, found, command)
    addresses = _addresses_for(state, found, command, stamp.at_ns)
    created = EndpointCreated(
        endpoint=b32encode(stamp.entropy[:ID_BYTES]).decode().lower(),
        name=command.name,
        addresses=addresses,
        mac=_mac_for(found, addresses, command.mac),
        asked=command.addresses,
        pool=command.pool or "",
    )
    fact = facts.of_network(found.tenant, found.name, created)
    if command.container is not None and command.host is not None:
        said = (created.endpoint, created.name, addresses, created.asked, created.mac)
        endpoint = EndpointRecord(*said, 0, pool=created.pool)
        fact = _bound(found, endpoint, command.host, command.container, is_new=True)
    return Decision((*adopted, *retagged, fact), show, notes=_notes(found, before))


def _notes(found: FoundNetwork, before: NetworkRecord) -> tuple[str, ...]:
    """What became of the network with its endpoint."""
    adopted = [subnet for subnet in found.record.subnets if subnet not in before.subnets]
    retagged = found.record.tag != before.tag
    changed = f"network {found.name} has {found.record.encap} tag {found.record.tag} now, instead of {before.tag}"
    return (*(f"network {found.name} adopted subnet {each}" for each in adopted), *((changed,) if retagged else ()))


def _check_same(found: FoundNetwork, endpoint: EndpointRecord, command: CreateEndpoint) -> None:
    """The endpoint that is there is the one that is asked for. Refuses: `endpoint-exists`, `tag-mismatch`."""
    having = {interface.ip for interface in endpoint.addresses}
    binding = endpoint.binding
    differing = []
    if not having.issuperset(command.addresses):
        differing.append(f"addresses are {_listed(having)}, asked for {_listed(command.addresses)}")
    if command.pool not in (None, endpoint.pool):
        differing.append(f"pool is {endpoint.pool or 'none'}, asked for {command.pool}")
    if command.mac not in (None, endpoint.mac):
        differing.append(f"MAC is {endpoint.mac}, asked for {command.mac}")
    if command.container is not None:
        place = (binding.container, binding.host) if binding is not None else None
        if place != (command.container, command.host):
            where = f"in {place[0]} on {place[1]}" if place else "not attached"
            differing.append(f"it is {where}, asked for {command.container} on {command.host} (detach, then attach)")
    if differing:
        raise Rejection(
            "endpoint-exists", f"endpoint {command.name} exists with other parameters: {'; '.join(differing)}"
        )
    if command.tag not in (None, found.record.tag):
        raise _tag_mismatch(found, command)


def _listed(addresses: set[Address] | tuple[Address, ...]) -> str:
    return ", ".join(sorted(map(str, addresses)))


def _tag_mismatch(found: FoundNetwork, command: CreateEndpoint) -> Rejection:
    why = "it was asked for" if not found.record.is_tag_chosen else "the network has endpoints already"
    return Rejection(
        "tag-mismatch",
        f"endpoint {command.name} asks for tag {command.tag}, but network {found.name} has {found.record.encap} tag "
        f"{found.record.tag} and keeps it ({why}): leave the tag out",
    )


def _retagged(
    state: State, found: FoundNetwork, command: CreateEndpoint, now_ns: int
) -> tuple[FoundNetwork, tuple[Fact, ...]]:
    """The network with the tag that its first endpoint asks for, and what makes it so.

    Refuses: `tag-mismatch`, `tag-in-use`, `tag-out-of-range`, `tag-resting`.
    """
    record = found.record
    tag = command.tag
    if tag is None or tag == record.tag:
        return found, ()
    if not record.is_tag_chosen or found.aggregate.endpoints:
        raise _tag_mismatch(found, command)
    try:
        check_tag(record.encap, tag)
    except ValueError as fault:
        raise Rejection("tag-out-of-range", str(fault)) from None
    check_tag_whole(state, found)
    _, tenant = require_tenant(state, found.tenant)
    check_tag_free(state, tenant, record.encap, tag, Owner(found.tenant, found.name), now_ns)
    taken = SegmentTaken(encap=record.encap, tag=tag, tenant=found.tenant, network=found.name)
    return found._replace(record=replace(record, tag=tag, is_tag_chosen=False)), (
        facts.of_segments(SegmentReleased(encap=record.encap, tag=record.tag)),
        facts.of_segments(taken),
        facts.of_network(found.tenant, found.name, NetworkRetagged(tag=tag)),
    )


def _adopted(state: State, found: FoundNetwork, command: CreateEndpoint) -> tuple[FoundNetwork, tuple[Fact, ...]]:
    """The network with a subnet for each explicit address of a family that it had none of, and what makes it so.

    Refuses: `subnet-overlaps`, `address-unusable`.
    """
    adopting: dict[int, Network] = {}
    families = {subnet.version for subnet in found.record.subnets}
    for address in command.addresses:
        if address.version not in families and address.version not in adopting:
            adopting[address.version] = _adoptable(address)
    if not adopting:
        return found, ()
    tenant, _ = require_tenant(state, found.tenant)
    check_whole(tenant, found.name, found.record)
    written: list[Fact] = []
    for subnet in adopting.values():
        check_subnet_free(tenant, subnet)
        written.append(facts.of_tenant(found.tenant, SubnetTaken(network=found.name, subnet=subnet)))
        written.append(facts.of_network(found.tenant, found.name, SubnetAdopted(subnet=subnet)))
    subnets = (*found.record.subnets, *adopting.values())
    return found._replace(record=replace(found.record, subnets=subnets)), tuple(written)


def _adoptable(address: Address) -> Network:
    subnet = adopted_around(address)
    try:
        check_subnet(subnet)
    except ValueError as fault:
        raise Rejection("address-unusable", f"address {address} cannot be an endpoint's: {fault}") from None
    return subnet


def _addresses_for(state: State, found: FoundNetwork, command: CreateEndpoint, now_ns: int) -> tuple[Interface, ...]:
    """The addresses that were asked for, then one of each other family of the network."""
    if not found.record.subnets:
        raise Rejection(
            "no-subnet",
            f"network {found.name} has no subnet to choose an address from: give the endpoint an address (the network "
            f"then adopts the /{ADOPTED_LENGTH[4]} around it), or create the network with a subnet",
        )
    pool = command.pool or ""
    if pool:
        require_pool(found, pool)
    asked = [check_address(state, found, command.name, address, now_ns, pool) for address in command.addresses]
    families = dict.fromkeys(subnet.version for subnet in found.record.subnets)
    for address in command.addresses:
        families.pop(address.version, None)
    return (*asked, *(choose_address(state, found, command.name, family, now_ns, pool) for family in families))


def _mac_for(found: FoundNetwork, addresses: tuple[Interface, ...], asked: str | None) -> str:
    macs = found.aggregate.macs
    if asked is None:
        return mac_for(found.tenant, found.name, addresses, macs)
    if asked in macs:
        raise Rejection("mac-in-use", f"MAC {asked} is in use by endpoint {macs[asked]}: choose another, or none")
    return asked


def _bound(found: FoundNetwork, endpoint: EndpointRecord, host: str, container: str, *, is_new: bool = False) -> Fact:
    """The fact that binds an endpoint, with all that its host needs to know."""
    families = {interface.version for interface in endpoint.addresses}
    event = EndpointBound(
        tenant=found.tenant,
        network=found.name,
        endpoint=endpoint.id,
        name=endpoint.name,
        host=host,
        container=container,
        addresses=endpoint.addresses,
        gateways=tuple(gateway for gateway in found.record.gateways if gateway.version in families),
        mac=endpoint.mac,
        encap=found.record.encap,
        tag=found.record.tag,
        mtu_bytes=found.record.mtu_bytes,
        is_new=is_new,
        asked=endpoint.asked if is_new else (),
        pool=endpoint.pool if is_new else "",
        is_routed=found.record.is_routed,
    )
    return facts.of_network(found.tenant, found.name, event, host)


def attach_endpoint(state: State, command: AttachEndpoint, _stamp: Stamp) -> Decision:
    """Bind an endpoint to a container on a host. Idempotent for the same place.

    A move ends the old binding and begins the new one in one append: who hears of the one hears of the other.
    Refuses: `unknown-tenant`, `unknown-network`, `unknown-endpoint`, `ambiguous-endpoint`, `unknown-host`,
    `endpoint-bound`.
    """
    found, endpoint = require_endpoint(state, command.tenant, command.network, command.name)
    show = GetEndpoint(tenant=found.tenant, network=found.name, name=endpoint.name)
    binding = endpoint.binding
    if binding is None:
        require_host(state, command.host)
        return Decision((_bound(found, endpoint, command.host, command.container),), show)
    if (binding.container, binding.host) == (command.container, command.host):
        return Decision((), show)
    if command.move:
        require_host(state, command.host)
        moved = (*_unbound(found, endpoint), _bound(found, endpoint, command.host, command.container))
        taken = f"endpoint {endpoint.name} was taken from container {binding.container} on host {binding.host}"
        return Decision(moved, show, notes=(taken,))
    raise Rejection(
        "endpoint-bound",
        f"endpoint {endpoint.name} is bound to container {binding.container} on host {binding.host}: detach it first, "
        "or move it (--move)",
    )


def detach_endpoint(state: State, command: DetachEndpoint, _stamp: Stamp) -> Decision:
    """Unbind an endpoint; it keeps its addresses. Idempotent: one that is not bound stays so.

    Refuses: `unknown-tenant`, `unknown-network`, `unknown-endpoint`, `ambiguous-endpoint`, `endpoint-bound-elsewhere`.
    """
    found, endpoint = require_endpoint(state, command.tenant, command.network, command.name)
    show = GetEndpoint(tenant=found.tenant, network=found.name, name=endpoint.name)
    binding = endpoint.binding
    if binding is not None and command.container not in (None, binding.container):
        raise Rejection(
            "endpoint-bound-elsewhere",
            f"endpoint {endpoint.name} is bound to container {binding.container} on host {binding.host}, not to "
            f"{command.container}: name that one, or none",
        )
    return Decision(_unbound(found, endpoint), show)


def _unbound(found: FoundNetwork, endpoint: EndpointRecord) -> tuple[Fact, ...]:
    binding = endpoint.binding
    if binding is None:
        return ()
    event = EndpointUnbound(endpoint=endpoint.id, name=endpoint.name, host=binding.host, epoch=binding.epoch)
    return (facts.of_network(found.tenant, found.name, event, binding.host),)


def delete_endpoint(state: State, command: DeleteEndpoint, stamp: Stamp) -> Decision:
    """Unbind and remove an endpoint. Its addresses rest until its host has taken the port away, and 2 s more.

    Refuses: `unknown-tenant`, `unknown-network`, `unknown-endpoint`, `ambiguous-endpoint`.
    """
    found, endpoint = require_endpoint(state, command.tenant, command.network, command.name)
    left = waited_for(state, found.tenant, endpoint.left, stamp.at_ns)
    last = endpoint.binding or (left[-1] if left else None)
    event = EndpointDeleted(
        endpoint=endpoint.id,
        name=endpoint.name,
        addresses=endpoint.addresses,
        host=last.host if last else "",
        epoch=last.epoch if last else 0,
    )
    host = endpoint.binding.host if endpoint.binding else NO_HOST
    return Decision((facts.of_network(found.tenant, found.name, event, host),))


def get_endpoint(state: State, command: GetEndpoint, _stamp: Stamp) -> Decision:
    """One endpoint. Refuses: `unknown-tenant`, `unknown-network`, `unknown-endpoint`, `ambiguous-endpoint`."""
    found, endpoint = require_endpoint(state, command.tenant, command.network, command.name)
    view = endpoint_view(state, found, endpoint)
    return Decision(reply=Item(seq=max(found.aggregate.seq, view.status.seq), object=view))


def list_endpoints(state: State, command: ListEndpoints, _stamp: Stamp) -> Decision:
    """The endpoints of a network, of a tenant, or with `fabric` of all, by tenant, network and name.

    Refuses: `unknown-tenant`, `unknown-network`.
    """
    if command.tenant == RESERVED_TENANT:
        tenants = sorted(state.networks)
    elif command.network is not None:
        require_network(state, command.tenant, command.network)
        tenants = [command.tenant]
    else:
        require_tenant(state, command.tenant)
        tenants = [command.tenant]
    views = []
    seq = 0
    for tenant in tenants:
        for name in sorted(state.networks.get(tenant, {})):
            found = find_network(state, tenant, name)
            if found is None or command.network not in (None, name):
                continue
            seq = max(seq, found.aggregate.seq)
            views += [
                endpoint_view(state, found, endpoint) for _, endpoint in sorted(found.aggregate.endpoints.items())
            ]
    return Decision(reply=Items(seq=max([seq, *(view.status.seq for view in views)]), objects=tuple(views)))
