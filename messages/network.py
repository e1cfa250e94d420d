"""Networks: disjoint layer-2 domains of a tenant, each with a tag on the wire and the subnets its addresses come
from.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from .addresses import Address, AddressRange, Network
from .names import Token, check_tenant, check_token
from .ranges import VLANS, VNIS
from .struct import Command, Event, Part, View

Encap = Literal["vlan", "vxlan"]
SubnetChoice = Literal["auto", "none"]
SUBNETS_MAX = 8
RANGES_MAX = 64
ROUTER_MAC = "0a:6e:00:00:00:01"  # of every gateway that routes, on every host; no IPv4 address makes a MAC like it
SUBNET_LENGTH_MAX = {4: 31, 6: 127}


class CreateNetwork(Command, frozen=True, kw_only=True):
    """Bring a network into being; what is left out is chosen from the tenant's pools.

    `subnets`: at most 8 networks, or one of `auto` (the next of the tenant's pool) and `none` (the first explicit
    address
    makes it adopt the /24, or /64, around it). `ranges`: in a subnet that has some, addresses are chosen from these
    alone; an endpoint may still ask for another. `exclude`: no endpoint ever has these. Both lie in `subnets`.
    `routing`: whether the tenant's other networks that route are reached through its gateways (left out: what the
    tenant says); a subnet without a gateway then gets its first address as one.
    """

    tenant: Token
    network: Token
    encap: Encap = "vlan"
    tag: int | None = None
    subnets: tuple[Network, ...] | SubnetChoice = "auto"
    gateways: tuple[Address, ...] = ()
    ranges: tuple[AddressRange, ...] = ()
    exclude: tuple[AddressRange, ...] = ()
    routing: bool | None = None

    def __post_init__(self) -> None:
        check_tenant(self.tenant)
        check_token("network name", self.network)
        if self.tag is not None:
            check_tag(self.encap, self.tag)
        subnets = () if isinstance(self.subnets, str) else self.subnets
        if len(subnets) > SUBNETS_MAX:
            raise ValueError(f"{len(subnets)} subnets are too many: expected at most {SUBNETS_MAX}")
        for subnet in subnets:
            check_subnet(subnet)
        for position, subnet in enumerate(subnets):
            for other in subnets[:position]:
                if subnet.version == other.version and subnet.overlaps(other):
                    raise ValueError(f"subnets {other} and {subnet} overlap")
        for gateway in self.gateways:
            if subnets and not any(gateway in subnet for subnet in subnets):
                raise ValueError(f"gateway {gateway} is in none of the subnets {', '.join(map(str, subnets))}")
            if not subnets and self.subnets == "none":
                raise ValueError(f"gateway {gateway} needs a subnet: give the subnet that it is in")
        if len({gateway.version for gateway in self.gateways}) != len(self.gateways):
            raise ValueError("more than one gateway of a family: expected at most one for IPv4 and one for IPv6")
        self._check_ranges(subnets)

    def _check_ranges(self, subnets: tuple[Network, ...]) -> None:
        check_ranges("range", self.ranges)
        check_ranges("exclusion", self.exclude)
        for each in (*self.ranges, *self.exclude):
            if not any(each.is_within(subnet) for subnet in subnets):
                having = ", ".join(map(str, subnets)) or f"none are given ({self.subnets})"
                raise ValueError(f"range {each} is in none of the subnets: {having}")


class SetNetwork(Command, frozen=True, kw_only=True):
    """Change which addresses of a network may be given out. What is left out (`null`) stays; an empty list empties."""

    tenant: Token
    network: Token
    ranges: tuple[AddressRange, ...] | None = None
    exclude: tuple[AddressRange, ...] | None = None

    def __post_init__(self) -> None:
        check_tenant(self.tenant)
        check_token("network name", self.network)
        check_ranges("range", self.ranges or ())
        check_ranges("exclusion", self.exclude or ())
        if self.ranges is None and self.exclude is None:
            raise ValueError("nothing to change: give ranges or exclude")


class DeleteNetwork(Command, frozen=True, kw_only=True):
    """Remove a network that has no endpoints left."""

    tenant: Token
    network: Token


class GetNetwork(Command, frozen=True, kw_only=True):
    """Ask for one network."""

    tenant: Token
    network: Token


class ListNetworks(Command, frozen=True, kw_only=True):
    """Ask for a tenant's networks, or with the tenant token `fabric` for all."""

    tenant: Token


class NetworkCreated(Event, frozen=True, kw_only=True, omit_defaults=True):
    """The network exists, with this tag and these subnets. `is_tag_chosen`: nobody asked for this tag."""

    tenant: str
    network: str
    encap: Encap
    tag: int
    is_tag_chosen: bool
    subnets: tuple[Network, ...]
    gateways: tuple[Address, ...] = ()
    mtu_bytes: int = 1500
    ranges: tuple[AddressRange, ...] = ()
    excluded: tuple[AddressRange, ...] = ()
    is_routed: bool = False


class AddressingChanged(Event, frozen=True, kw_only=True):
    """From now on addresses are chosen within these ranges (none: anywhere), and nobody is given the excluded ones."""

    ranges: tuple[AddressRange, ...]
    excluded: tuple[AddressRange, ...]


class SubnetAdopted(Event, frozen=True, kw_only=True):
    """A network without a subnet of this family adopted this one, around its first explicit address."""

    subnet: Network


class NetworkRetagged(Event, frozen=True, kw_only=True):
    """A network whose tag nobody had asked for, and which had no endpoints, took the tag its first endpoint asked
    for.
    """

    tag: int


class NetworkDeleted(Event, frozen=True, kw_only=True):
    """The network is gone, its tag and subnets are free."""

    tenant: str
    network: str


class NetworkSpec(Part, frozen=True, kw_only=True):
    """What a network was asked to be."""

    encap: Encap
    tag: int | None
    subnets: tuple[Network, ...]
    gateways: tuple[Address, ...]
    ranges: tuple[AddressRange, ...] = ()
    exclude: tuple[AddressRange, ...] = ()
    routing: bool = False


class NetworkStatus(Part, frozen=True, kw_only=True):
    """What a network is; `seq` is the journal sequence it last changed at."""

    state: str
    encap: Encap
    tag: int
    subnets: tuple[Network, ...]
    gateways: tuple[Address, ...]
    mtu_bytes: int
    endpoints: int
    seq: int


class NetworkView(View, frozen=True, kw_only=True):
    """A network as shown. `network` and `name` are the same."""

    tenant: str
    network: str
    name: str
    spec: NetworkSpec
    status: NetworkStatus


def check_tag(encap: Encap, tag: int) -> None:
    """`tag` is a VLAN id 1..4094 (IEEE 802.1Q) or a VNI 1..16777215 (RFC 7348 section 5). Raises: ValueError."""
    within, noun = (VLANS, "VLAN tag") if encap == "vlan" else (VNIS, "VNI")
    if tag not in within:
        raise ValueError(f"{noun} {tag} is out of range: expected {within[0]} to {within[-1]}")


def check_ranges(noun: str, ranges: tuple[AddressRange, ...]) -> None:
    """These can stand together: not too many, none overlapping another. Raises: ValueError."""
    if len(ranges) > RANGES_MAX:
        raise ValueError(f"{len(ranges)} {noun}s are too many: expected at most {RANGES_MAX}")
    ordered = sorted(ranges, key=lambda each: (each.version, each.first))
    for lower, upper in pairwise(ordered):
        if lower.overlaps(upper):
            raise ValueError(f"{noun}s {lower} and {upper} overlap")


def check_subnet(subnet: Network) -> None:
    """`subnet` can hold endpoints: /8 to /31, /48 to /127, unicast. Raises: ValueError."""
    shortest, longest = (8, SUBNET_LENGTH_MAX[4]) if subnet.version == 4 else (48, SUBNET_LENGTH_MAX[6])
    if not shortest <= subnet.prefixlen <= longest:
        raise ValueError(f"subnet {subnet} has no usable length: expected /{shortest} to /{longest}")
    if subnet.is_multicast or subnet.is_loopback or subnet.is_link_local or subnet.network_address.is_unspecified:
        raise ValueError(f"subnet {subnet} is not one for endpoints: expected unicast addresses")
