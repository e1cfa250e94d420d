"""The wires of the bridge: patch ports to the host's uplinks, and the rules by which VLAN networks leave and come in.

::

    CLASSIFY   patch port + a known network's tag -> tag off, reg0 = the network's key, reg1 = it came by a wire
    WIRE       not from an address or MAC that is here, nothing but ARP, IPv4 and IPv6, no router that we did not name
    ANSWER     of networks with a wire, what nobody here answers goes on
    FORWARD    broadcast and multicast: the network's group; from here also out of every wire, with the tag
               unknown unicast: from here out of every wire, with the tag; from a wire nowhere

So a frame never goes back where it came from, nor from one wire to another, and nothing is learnt. A network that
several wires carry leaves by each of them.

A network's flows stand as long as it has a member here (that is, as long as its group does); their cookie is the
network's own. What keeps the wire from speaking for a port stands among that port's flows. Without uplinks there is
nothing of all this.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from services.runtime.uplinks import Uplink

from ..openflow import Flow, apply, flow, goto, group, match, output, pop_vlan, push_vlan, set_field
from .contract import PortSpec
from .ovs_flows import (
    ARP_REQUEST,
    ETH_ARP,
    ETH_IPV4,
    ETH_IPV6,
    ICMPV6,
    MULTICAST_BIT,
    NEIGHBOUR_ADVERTISEMENT,
    NEIGHBOUR_SOLICITATION,
    OWN,
    REDIRECT,
    ROUTER_ADVERTISEMENT,
    Table,
    common_flows,
    link_local_of,
    network_key,
    network_match,
    owned,
    owner_of,
    port_flows,
)

FIRST_OFPORT: Final = 0xF000
OFPORTS: Final = 0x0E00  # so many, from the first one on, are for wires
FROM_HERE: Final = 0  # reg1, the lower half of xreg0
FROM_WIRE: Final = 1
TAG_PRESENT: Final = 0x1000  # the bit beside the id in a match on it
SEALED_WITH_WIRE: Final = "+wire"

ASKED_OUTSIDE = 60  # priority: above what is not answered here, below what is
TO_ALL = 120  # priority: above each port's own
UNKNOWN_UNICAST = 10
PASSES = 10


@dataclass(frozen=True, slots=True)
class Wire:
    """A patch port of our bridge and the uplink behind it."""

    uplink: Uplink
    ofport: int

    @property
    def device(self) -> str:
        """The patch port's name."""
        return self.uplink.inner_patch


class Wires:
    """All wires of the bridge, and what they make of its rules. With no uplink, everything is as it is without this."""

    def __init__(self, uplinks: Iterable[Uplink] = ()) -> None:
        self.all = _numbered(uplinks)

    def common(self) -> tuple[Flow, ...]:
        """What stands however many networks and ports there are."""
        return (*common_flows(), *_common_wire_flows()) if self.all else common_flows()

    def of_port(self, port: PortSpec, ofport: int) -> tuple[Flow, ...]:
        """All that one port needs, with its owner's cookie."""
        flows = port_flows(port, ofport)
        key = network_key(port.encap, port.tag)
        if not self._carrying(key):
            return flows
        return (*flows, *owned(_guard(port, key), owner_of(port.endpoint, port.epoch)))

    def of_network(self, key: int) -> tuple[Flow, ...]:
        """What a network with members here needs to leave this host, with its own cookie; nothing where no wire
        carries it.
        """
        wires = self._carrying(key)
        return owned(_network_flows(key, wires), owner_of_network(key)) if wires else ()

    def suffix(self, key: int | None) -> str:
        """What the seal of a port in this network ends with: another one once its network has a wire, or none more."""
        return SEALED_WITH_WIRE if key is not None and self._carrying(key) else ""

    def _carrying(self, key: int) -> list[Wire]:
        return [wire for wire in self.all if wire.uplink.carries(key)]  # a VNI's key is above every tag


def _numbered(uplinks: Iterable[Uplink]) -> tuple[Wire, ...]:
    """Each with a number that follows from its name, whatever others there are but for the rare one that has it too."""
    taken: set[int] = set()
    wires = []
    for uplink in sorted(uplinks, key=lambda each: each.interface):
        place = int.from_bytes(blake2b(uplink.interface.encode(), digest_size=4).digest(), "big") % OFPORTS
        while FIRST_OFPORT + place in taken:
            place = (place + 1) % OFPORTS
        taken.add(FIRST_OFPORT + place)
        wires.append(Wire(uplink, FIRST_OFPORT + place))
    return tuple(wires)


def owner_of_network(key: int) -> int:
    """The cookie of a network's own flows."""
    return owner_of(f"network-{key}", 1)


def _common_wire_flows() -> tuple[Flow, ...]:
    icmp = {"eth_type": ETH_IPV6, "ip_proto": ICMPV6}
    unasked = [flow(Table.WIRE, OWN, match(**icmp, icmpv6_type=kind)) for kind in (ROUTER_ADVERTISEMENT, REDIRECT)]
    kinds = [
        flow(Table.WIRE, PASSES, match(eth_type=kind), goto(Table.FORWARD)) for kind in (ETH_ARP, ETH_IPV4, ETH_IPV6)
    ]
    return owned([*unasked, *kinds], owner_of("common", 1))


def _network_flows(key: int, wires: Sequence[Wire]) -> Iterable[Flow]:
    """The flows of one VLAN network; its key is its tag."""
    coming = apply(pop_vlan(), set_field("xreg0", key << 32 | FROM_WIRE)) + goto(Table.WIRE)
    for wire in wires:
        yield flow(Table.CLASSIFY, OWN, match(in_port=wire.ofport, vlan_vid=TAG_PRESENT | key), coming)
    network = network_match(key)
    asked = (
        match(xreg0=network, eth_type=ETH_ARP, arp_op=ARP_REQUEST),
        match(xreg0=network, eth_type=ETH_IPV6, ip_proto=ICMPV6, icmpv6_type=NEIGHBOUR_SOLICITATION),
    )
    for question in asked:
        yield flow(Table.ANSWER, ASKED_OUTSIDE, question, goto(Table.FORWARD))
    leaving = [push_vlan(), set_field("vlan_vid", TAG_PRESENT | key), *(output(wire.ofport) for wire in wires)]
    here, outside = key << 32 | FROM_HERE, key << 32 | FROM_WIRE
    to_all = apply(group(key))
    yield flow(Table.FORWARD, TO_ALL, match(xreg0=here, eth_dst=MULTICAST_BIT), apply(group(key), *leaving))
    yield flow(Table.FORWARD, TO_ALL, match(xreg0=outside, eth_dst=MULTICAST_BIT), to_all)
    yield flow(Table.FORWARD, UNKNOWN_UNICAST, match(xreg0=here), apply(*leaving))


def _guard(port: PortSpec, key: int) -> Iterable[Flow]:
    """Nobody outside speaks with the MAC or an address of this port, nor says where it is."""
    network = network_match(key)
    yield flow(Table.WIRE, OWN, match(xreg0=network, eth_src=port.mac))
    addresses = list(dict.fromkeys(interface.ip for interface in port.addresses))
    for address in addresses:
        if isinstance(address, IPv4Address):
            yield flow(Table.WIRE, OWN, match(xreg0=network, eth_type=ETH_IPV4, ipv4_src=address))
            yield flow(Table.WIRE, OWN, match(xreg0=network, eth_type=ETH_ARP, arp_spa=address))
    six = [address for address in addresses if isinstance(address, IPv6Address)]
    if not six:
        return
    icmp = {"eth_type": ETH_IPV6, "ip_proto": ICMPV6, "icmpv6_type": NEIGHBOUR_ADVERTISEMENT}
    for known in dict.fromkeys((*six, link_local_of(port.mac))):
        yield flow(Table.WIRE, OWN, match(xreg0=network, eth_type=ETH_IPV6, ipv6_src=known))
        yield flow(Table.WIRE, OWN, match(xreg0=network, **icmp, nd_target=known))
