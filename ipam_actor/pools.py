"""Choosing what nobody asked for: addresses, subnets and tags, each the first free one from the bottom."""

from __future__ import annotations

from bisect import bisect_left
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_network

from messages.addresses import Address, Interface, Network, shared
from messages.network import Encap
from messages.ranges import VLANS, VNIS, parse_ranges
from services.runtime.decision import Rejection

from .lookup import FoundNetwork
from .records import NetworkRecord, Owner, TenantRecord
from .resting import former_held_on, held_on, is_over
from .spans import Spans
from .state import Pool, SegmentAggregate, State, TenantAggregate, span_of

VNI_FIRST_CHOSEN = 10_000
ADOPTED_LENGTH = {4: 24, 6: 64}
_BITS = {4: 32, 6: 128}
_Ranges = tuple[tuple[int, int], ...]


def reserved_in(subnet: Network, gateways: tuple[Address, ...] = ()) -> dict[int, str]:
    """The addresses of a subnet that no endpoint may have, and what they are.

    Source: RFC 919 (broadcast), RFC 3021 (/31), RFC 4291 section 2.6.1 (subnet-router anycast), RFC 6164 (/127).
    """
    reserved: dict[int, str] = {}
    first, last = span_of(subnet)
    if last - first > 1:
        if subnet.version == 4:
            reserved[first] = f"the network address of {subnet}"
            reserved[last] = f"the broadcast address of {subnet}"
        else:
            reserved[first] = f"the subnet-router anycast address of {subnet}"
    for gateway in gateways:
        if gateway.version == subnet.version and gateway in subnet:
            reserved[int(gateway)] = f"the gateway of {subnet}"
    return reserved


def subnet_of(record: NetworkRecord, address: Address) -> Network | None:
    """The network's subnet that an address is in."""
    for subnet in record.subnets:
        if subnet.version == address.version and address in subnet:
            return subnet
    return None


def interface_in(subnet: Network, address: int) -> Interface:
    """The address, given as a number, with its subnet's prefix length."""
    if subnet.version == 4:
        return shared(IPv4Interface((address, subnet.prefixlen)))
    return shared(IPv6Interface((address, subnet.prefixlen)))


def check_address(
    state: State, found: FoundNetwork, name: str, address: Address, now_ns: int, pool_name: str = ""
) -> Interface:
    """The address with its prefix length, if the endpoint `name` may have it.

    Refuses: `address-outside-subnet`, `address-outside-pool`, `address-reserved`, `address-excluded`, `address-in-use`,
    `address-resting`.
    """
    subnet = subnet_of(found.record, address)
    if subnet is None:
        having = ", ".join(map(str, found.record.subnets))
        raise Rejection(
            "address-outside-subnet", f"address {address} is outside network {found.name}: expected one of {having}"
        )
    number = int(address)
    reserved = reserved_in(subnet, found.record.gateways).get(number)
    if reserved is not None:
        raise Rejection("address-reserved", f"address {address} is {reserved}: choose another")
    _check_kept(found, address, pool_name)
    pool = found.aggregate.pools[address.version]
    owner = pool.owners.get(number)
    if owner is not None:
        raise Rejection("address-in-use", f"address {address} is in use by endpoint {owner}: choose another, or none")
    rest = pool.resting.get(number)
    if rest is not None and rest.name != name and not is_over(state, found.tenant, rest, now_ns):
        hosts = held_on(state, found.tenant, rest, now_ns)
        until = (
            f"until host {', '.join(hosts)} has taken its port away" if hosts else "for 2 s after its port went away"
        )
        raise Rejection("address-resting", f"address {address} was freed by endpoint {rest.name} and rests {until}")
    return interface_in(subnet, number)


def _check_kept(found: FoundNetwork, address: Address, pool_name: str) -> None:
    """The address is not kept back. Refuses: `address-excluded`, `address-outside-pool`."""
    excluded = next((each for each in found.record.excluded if address in each), None)
    if excluded is not None:
        raise Rejection(
            "address-excluded", f"address {address} is excluded from network {found.name} ({excluded}): choose another"
        )
    ranges = found.aggregate.kept.get(pool_name, ())
    families = {each.version for each in ranges}
    if address.version in families and not any(address in each for each in ranges):
        having = ", ".join(map(str, ranges))
        raise Rejection(
            "address-outside-pool",
            f"address {address} is not one of pool {pool_name} ({having}): ask for one that is, or leave the pool out",
        )


def choose_address(
    state: State, found: FoundNetwork, name: str, family: int, now_ns: int, pool_name: str = ""
) -> Interface:
    """The first address of the family that the endpoint `name` may have, from the bottom of the first subnet.

    One of a pool's endpoints has one of the pool's, in a family that the pool has any of.
    Refuses: `subnet-full`, `pool-full`.
    """
    pool = found.aggregate.pools[family]
    openings = found.aggregate.openings
    is_pooled = bool(pool_name) and (pool_name, family) in openings
    for first, last in openings.get((pool_name if is_pooled else "", family), ()):
        never_used = pool.taken.first_gap(first)
        rested = _first_rested(state, found.tenant, pool, name, (first, min(last, never_used)), now_ns)
        chosen = never_used if rested is None else rested
        if chosen <= last:
            subnet = next(each for each in found.record.subnets if each.version == family and _has(each, chosen))
            return interface_in(subnet, chosen)
    resting = f"; {len(pool.resting)} of them rest, freed a moment ago" if pool.resting else ""
    if is_pooled:
        having = ", ".join(str(each) for each in found.aggregate.kept[pool_name] if each.version == family)
        raise Rejection("pool-full", f"every address of pool {pool_name} ({having}) is taken{resting}")
    having = ", ".join(str(subnet) for subnet in found.record.subnets if subnet.version == family)
    raise Rejection("subnet-full", f"every address of {having} is taken{_kept_back(found)}{resting}")


def _has(subnet: Network, address: int) -> bool:
    first, last = span_of(subnet)
    return first <= address <= last


def _kept_back(found: FoundNetwork) -> str:
    """What else keeps free addresses of a network from being chosen, in words."""
    said = []
    if found.record.ranges:
        said.append(f"outside the ranges {', '.join(map(str, found.record.ranges))}")
    if found.record.excluded:
        said.append("excluded")
    if found.aggregate.kept:
        said.append(f"kept for pool {', '.join(sorted(found.aggregate.kept))}")
    return f", or {', '.join(said)}" if said else ""


def _first_rested(state: State, tenant: str, pool: Pool, name: str, within: tuple[int, int], now_ns: int) -> int | None:
    order = pool.resting_order
    for position in range(bisect_left(order, within[0]), len(order)):
        address = order[position]
        if address > within[1]:
            return None
        rest = pool.resting[address]
        if rest.name == name or is_over(state, tenant, rest, now_ns):
            return address
    return None


def adopted_around(address: Address) -> Network:
    """The /24, or /64, around an address."""
    return ip_network((address, ADOPTED_LENGTH[address.version]), strict=False)


def choose_subnet(tenant: TenantAggregate, record: TenantRecord) -> Network:
    """The first subnet of the tenant's pool that overlaps none that it has. Refuses: `pool-exhausted`."""
    pool = record.subnet_pool
    taken: Spans = tenant.taken[pool.version]
    size = 1 << (_BITS[pool.version] - record.subnet_length)
    at, last = span_of(pool)
    while True:
        start = -(-taken.first_gap(at) // size) * size
        if start + size - 1 > last:
            raise Rejection(
                "pool-exhausted",
                f"no /{record.subnet_length} is left in the tenant's pool {pool}: give a subnet, or delete a network",
            )
        obstacle = taken.first_taken(start)
        if obstacle is None or obstacle >= start + size:
            first = IPv4Address(start) if pool.version == 4 else IPv6Address(start)
            return ip_network((first, record.subnet_length))
        at = obstacle


def check_subnet_free(tenant: TenantAggregate, subnet: Network) -> None:
    """No network of the tenant has any of these addresses. Refuses: `subnet-overlaps`."""
    if not tenant.taken[subnet.version].overlaps(*span_of(subnet)):
        return
    for network, subnets in tenant.networks.items():
        for other in subnets:
            if other.version == subnet.version and other.overlaps(subnet):
                raise Rejection(
                    "subnet-overlaps", f"subnet {subnet} overlaps {other} of network {network}: choose another"
                )


def tag_ranges(record: TenantRecord, encap: Encap, *, is_chosen: bool) -> _Ranges:
    """The tags that a tenant may have, as (first, last) pairs; VNIs below 10000 only if they are asked for."""
    text = record.vlans if encap == "vlan" else record.vnis
    if text:
        within, noun = (VLANS, "vlans") if encap == "vlan" else (VNIS, "vnis")
        return parse_ranges(text, noun, within)
    if encap == "vlan":
        return ((VLANS[0], VLANS[-1]),)
    return ((VNI_FIRST_CHOSEN if is_chosen else VNIS[0], VNIS[-1]),)


def choose_tag(state: State, record: TenantRecord, encap: Encap, owner: Owner, now_ns: int) -> int:
    """The lowest tag of the tenant's ranges that is free in the fabric, and that no port of another network may still
    carry. Refuses: `tags-exhausted`.
    """
    taken = state.segments.taken[encap]
    ranges = tag_ranges(record, encap, is_chosen=True)
    for first, last in ranges:
        tag = taken.first_gap(first)
        while tag <= last:
            if not tag_held_on(state, encap, tag, owner, now_ns):
                return tag
            tag = taken.first_gap(tag + 1)
    allowed = ",".join(f"{first}-{last}" for first, last in ranges)
    raise Rejection(
        "tags-exhausted", f"no {encap} tag is free within {allowed}: delete a network, or widen the tenant's ranges"
    )


def check_tag_free(state: State, record: TenantRecord, encap: Encap, tag: int, owner: Owner, now_ns: int) -> None:
    """The tag may become `owner`'s. Refuses: `tag-out-of-range`, `tag-in-use`, `tag-resting`."""
    ranges = tag_ranges(record, encap, is_chosen=False)
    if not any(first <= tag <= last for first, last in ranges):
        allowed = ",".join(f"{first}-{last}" for first, last in ranges)
        raise Rejection(
            "tag-out-of-range", f"{encap} tag {tag} is not one of tenant {owner.tenant}: expected {allowed}"
        )
    segments: SegmentAggregate = state.segments
    other = segments.owners[encap].get(tag)
    if other is not None:
        raise Rejection(
            "tag-in-use", f"{encap} tag {tag} is in use by network {other.network} of tenant {other.tenant}"
        )
    hosts = tag_held_on(state, encap, tag, owner, now_ns)
    if hosts:
        raise Rejection(
            "tag-resting",
            f"{encap} tag {tag} may still be in use on host {', '.join(hosts)}, which has not yet taken away the ports "
            f"of the network that had it: wait for the host, or remove it",
        )


def tag_held_on(state: State, encap: Encap, tag: int, owner: Owner, now_ns: int) -> tuple[str, ...]:
    """The hosts that may still have ports with a free tag, put there for another network than `owner`."""
    former = state.segments.former[encap].get(tag)
    if former is None or former.owner == owner:
        return ()
    return former_held_on(state, former, now_ns)
