"""The flow table of the Open vSwitch driver, as pure values: what lets a port's packets pass, and no others.

::

    CLASSIFY   in_port + its MAC, untagged       -> reg0 = the network's key
    SOURCE     only its own addresses (ARP, IPv4, IPv6, ND)
    ANSWER     ARP requests and neighbour solicitations for known addresses are answered on the spot
    ADVERTISE  a solicitation turned into an advertisement by ANSWER gets its contents and goes back
    ROUTE, LOOKUP, NEXT_HOP   to a gateway that routes: on to another network (`ovs_routes.py`)
    FORWARD    known MAC of the same network -> its port; broadcast and multicast -> the network's group

A table without an entry that fits drops. Nothing is learnt and nothing is flooded to ports of other networks: the key
of the network is part of every lookup, so equal addresses and MACs in two networks never meet. Gateways that nobody
routes for are not answered.

Every flow carries in its cookie whose it is (a hash of endpoint and epoch), and the port's row in the database carries
the seal of its flows: how many, and the sum of their checksums. So the switch's own dump tells what is complete, what
was changed by hand and what is a stranger. A switch may show a flow in other words than it was told it (another version
of it, say): then the seal is of what it shows (`ovs_switch.py: Switch.echo`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Literal

from ..openflow import (
    PORT_IN_PORT,
    Flow,
    Value,
    apply,
    copy_field,
    flow,
    goto,
    group,
    match,
    output,
    set_field,
)
from .contract import PortSpec

ETH_IPV4: Final = 0x0800
ETH_ARP: Final = 0x0806
ETH_IPV6: Final = 0x86DD
ICMPV6: Final = 58
ROUTER_ADVERTISEMENT: Final = 134
NEIGHBOUR_SOLICITATION: Final = 135
NEIGHBOUR_ADVERTISEMENT: Final = 136
REDIRECT: Final = 137
ARP_REQUEST: Final = 1
ARP_REPLY: Final = 2
SOLICITED_OVERRIDE: Final = 0x60000000
MULTICAST_BIT: Final = ("01:00:00:00:00:00", "01:00:00:00:00:00")
UNSPECIFIED: Final = IPv6Address("::")


class Table(enum.IntEnum):
    CLASSIFY = 0
    WIRE = 5
    SOURCE = 10
    ANSWER = 20
    ADVERTISE = 21
    ROUTE = 30
    LOOKUP = 31
    NEXT_HOP = 32
    FORWARD = 50


OUR_TABLES: Final = frozenset(Table)

OWN = 100  # priority: what a port may say
CLAIM = 110  # priority: what it may claim about its own addresses, asked of all instead of answered
FORBIDDEN = 105  # priority: what nobody may say unless it is his own claim
UNKNOWN = 50  # priority: what was not answered


def network_key(encap: Literal["vlan", "vxlan"], tag: int) -> int:
    """A 25-bit number that no other network on this switch has; also the id of its broadcast group."""
    return tag if encap == "vlan" else tag | 1 << 24


def owner_of(endpoint: str, epoch: int) -> int:
    """The cookie of an endpoint's flows at one epoch."""
    return int.from_bytes(blake2b(f"{endpoint}/{epoch}".encode(), digest_size=8).digest(), "big")


TUNNEL_PORT: Final = 0xFE00
COMMON_OWNER: Final = owner_of("common", 1)

_REMOTE_MARK: Final = 0x7E1E  # the first 16 bits of the cookie of an endpoint on another host


def remote_owner(endpoint: str, epoch: int, checksum: int) -> int:
    """The cookie of the flows about an endpoint on another host: 16 bits that say so, 16 of its identity, 32 of a seal.

    No row tells what was applied of it, so its flows tell for themselves whether they are complete.
    """
    return _REMOTE_MARK << 48 | owner_of(endpoint, epoch) & 0xFFFF << 32 | checksum


def is_remote_owner(cookie: int) -> bool:
    """Whether it may be a cookie of `remote_owner`: a port has one like it once in 65,536 times."""
    return cookie >> 48 == _REMOTE_MARK


@dataclass(frozen=True, slots=True)
class Seal:
    """What a whole set of flows looks like in a dump: how many there are, and the sum of their checksums."""

    count: int = 0
    checksum: int = 0

    def __str__(self) -> str:
        return f"{self.count}:{self.checksum:08x}"

    def with_flow(self, entry: Flow) -> Seal:
        """The seal of one flow more, in whatever order they come."""
        return Seal(self.count + 1, self.checksum + entry.checksum & 0xFFFFFFFF)


def places_of(flows: Iterable[Flow]) -> list[tuple[int, int]]:
    """Table and priority of each, sorted: what every switch shows as it was told."""
    return sorted((entry.table, entry.priority) for entry in flows)


def seal_of(flows: Iterable[Flow]) -> Seal:
    """What these flows look like in a dump."""
    return reduce(Seal.with_flow, flows, Seal())


def owned(flows: Iterable[Flow], owner: int) -> tuple[Flow, ...]:
    """The flows with their owner's cookie."""
    return tuple(entry.with_cookie(owner) for entry in flows)


def link_local_of(mac: str) -> IPv6Address:
    """The link-local address that a kernel makes of a MAC. Source: RFC 4291 appendix A (modified EUI-64)."""
    raw = bytes.fromhex(mac.replace(":", ""))
    return IPv6Address(b"\xfe\x80" + bytes(6) + bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:])


@cache
def common_flows() -> tuple[Flow, ...]:
    """What stands however many ports there are: what nobody may say, what is not answered, and the way on."""
    unasked = [
        flow(Table.SOURCE, FORBIDDEN, match(eth_type=ETH_IPV6, ip_proto=ICMPV6, icmpv6_type=kind))
        for kind in (ROUTER_ADVERTISEMENT, NEIGHBOUR_ADVERTISEMENT, REDIRECT)
    ]
    solicitation = match(eth_type=ETH_IPV6, ip_proto=ICMPV6, icmpv6_type=NEIGHBOUR_SOLICITATION)
    return owned(
        [
            *unasked,
            flow(Table.ANSWER, UNKNOWN, match(eth_type=ETH_ARP, arp_op=ARP_REQUEST)),
            flow(Table.ANSWER, UNKNOWN, solicitation),
            flow(Table.ANSWER, 0, b"", goto(Table.ROUTE)),
            flow(Table.ROUTE, 0, b"", goto(Table.FORWARD)),
        ],
        COMMON_OWNER,
    )


def port_flows(port: PortSpec, ofport: int) -> tuple[Flow, ...]:
    """All that one port needs, with its owner's cookie; the same whenever it is asked for the same port."""
    key = network_key(port.encap, port.tag)
    addresses = list(dict.fromkeys(interface.ip for interface in port.addresses))
    flows = [_classify(port.mac, key, ofport), *_forward(port.mac, key, ofport)]
    for address in addresses:
        if isinstance(address, IPv4Address):
            flows += _ipv4_source(ofport, port.mac, address)
            flows.append(arp_answer(key, port.mac, address))
    six = [address for address in addresses if isinstance(address, IPv6Address)]
    if six:
        known = list(dict.fromkeys((*six, link_local_of(port.mac))))
        flows += _ipv6_source(ofport, known)
        flows += [answer for address in known for answer in neighbour_answer(key, port.mac, address)]
    return owned(flows, owner_of(port.endpoint, port.epoch))


def network_match(key: int) -> tuple[int, int]:
    """A match on the register with the network's key, as the switch shows it: xreg0, reg0 being its upper half."""
    return key << 32, 0xFFFFFFFF00000000


def _classify(mac: str, key: int, ofport: int) -> Flow:
    actions = apply(set_field("reg0", key))
    return flow(Table.CLASSIFY, OWN, match(in_port=ofport, eth_src=mac, vlan_vid=0), actions + goto(Table.SOURCE))


def _ipv4_source(ofport: int, mac: str, address: IPv4Address) -> Sequence[Flow]:
    """IPv4 and ARP from this address alone. A probe (from 0.0.0.0, RFC 5227) has no answer, as is right for its own."""
    own_arp = match(in_port=ofport, eth_type=ETH_ARP, arp_spa=address, arp_sha=mac)
    return (
        flow(Table.SOURCE, OWN, match(in_port=ofport, eth_type=ETH_IPV4, ipv4_src=address), goto(Table.ROUTE)),
        flow(Table.SOURCE, OWN, own_arp, goto(Table.ANSWER)),
    )


def _ipv6_source(ofport: int, known: Sequence[IPv6Address]) -> Iterable[Flow]:
    """IPv6 from its own addresses and the link-local one of its MAC; advertisements only about those.

    ICMPv6 from `::` passes, for the kernel looks for duplicates with it (RFC 4862 section 5.4).
    """
    icmp: dict[str, Value] = {"in_port": ofport, "eth_type": ETH_IPV6, "ip_proto": ICMPV6}
    yield flow(Table.SOURCE, OWN, match(**icmp, ipv6_src=UNSPECIFIED), goto(Table.FORWARD))
    for address in known:
        yield flow(Table.SOURCE, OWN, match(in_port=ofport, eth_type=ETH_IPV6, ipv6_src=address), goto(Table.ANSWER))
        claim = match(**icmp, icmpv6_type=NEIGHBOUR_ADVERTISEMENT, nd_target=address)
        yield flow(Table.SOURCE, CLAIM, claim, goto(Table.FORWARD))


def arp_answer(key: int, mac: str, address: IPv4Address, priority: int = OWN) -> Flow:
    """A request for the address goes back as the reply that its owner would give (RFC 826)."""
    asked = match(xreg0=network_match(key), eth_type=ETH_ARP, arp_op=ARP_REQUEST, arp_tpa=address)
    reply = apply(
        copy_field("eth_src", "eth_dst"),
        set_field("eth_src", mac),
        set_field("arp_op", ARP_REPLY),
        copy_field("arp_sha", "arp_tha"),
        copy_field("arp_spa", "arp_tpa"),
        set_field("arp_sha", mac),
        set_field("arp_spa", address),
        output(PORT_IN_PORT),
    )
    return flow(Table.ANSWER, priority, asked, reply)


def neighbour_answer(key: int, mac: str, address: IPv6Address, priority: int = OWN) -> Iterable[Flow]:
    """A solicitation becomes the advertisement that its target would send (RFC 4861 section 7.2.4).

    Two tables, because the option's fields exist for the switch only once the type says advertisement.
    """
    network = network_match(key)
    icmp: dict[str, Value] = {"eth_type": ETH_IPV6, "ip_proto": ICMPV6, "icmpv6_code": 0, "nd_target": address}
    turn = apply(set_field("icmpv6_type", NEIGHBOUR_ADVERTISEMENT)) + goto(Table.ADVERTISE)
    yield flow(Table.ANSWER, priority, match(xreg0=network, **icmp, icmpv6_type=NEIGHBOUR_SOLICITATION), turn)
    reply = apply(
        set_field("nd_reserved", SOLICITED_OVERRIDE),
        set_field("nd_options_type", 2),
        copy_field("eth_src", "eth_dst"),
        set_field("eth_src", mac),
        copy_field("ipv6_src", "ipv6_dst"),
        set_field("ipv6_src", address),
        set_field("nd_tll", mac),
        output(PORT_IN_PORT),
    )
    yield flow(Table.ADVERTISE, priority, match(xreg0=network, **icmp, icmpv6_type=NEIGHBOUR_ADVERTISEMENT), reply)


def _forward(mac: str, key: int, ofport: int) -> Sequence[Flow]:
    """To its MAC: out of its port. From it to all: the group of its network."""
    to_all = match(xreg0=network_match(key), in_port=ofport, eth_dst=MULTICAST_BIT)
    return (
        flow(Table.FORWARD, OWN, match(xreg0=network_match(key), eth_dst=mac), apply(output(ofport))),
        flow(Table.FORWARD, OWN, to_all, apply(group(key))),
    )
