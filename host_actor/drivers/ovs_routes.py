"""Routing between networks of a tenant, done by the switch of the host that a packet comes from. Pure values.

::

    ANSWER, ADVERTISE   gateways are answered for, with one MAC everywhere
    ROUTE      to the gateways' MAC, from a network that routes -> xreg1 = whose networks may be reached
    LOOKUP     an echo request to one of their gateways is answered; else one off the TTL, from the gateways' MAC, and
               reg0 = the network that has the longest prefix for the address
    NEXT_HOP   the network and the address -> the MAC of the endpoint that has it, on to FORWARD
    CLASSIFY   what other hosts have routed comes out of the tunnel with the gateways' MAC

What no tenant's network routes to, what no endpoint has, and what has no TTL left, goes nowhere. Networks that do not
route have no entry here, so nothing leaves or reaches them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from messages.network import ROUTER_MAC

from ..openflow import PORT_IN_PORT, Flow, Value, apply, copy_field, dec_ttl, flow, goto, match, output, set_field
from .contract import Route, RoutedEndpoint, RoutedNetwork, RouterPeer
from .ovs_flows import (
    ETH_IPV4,
    ETH_IPV6,
    ICMPV6,
    OWN,
    TUNNEL_PORT,
    Table,
    arp_answer,
    neighbour_answer,
    network_key,
    network_match,
)

ICMP: Final = 1
ECHO_REQUEST: Final = {4: 8, 6: 128}  # RFC 792, RFC 4443 section 4.1
ECHO_REPLY: Final = {4: 0, 6: 129}
GATEWAY_TTL: Final = 64

ECHOES = 200  # priority: above every prefix
PREFIXES = 10  # priority of a prefix of no bits


def route_flows(route: Route) -> Iterable[Flow]:
    """All flows of one part of the routing."""
    match route:
        case RoutedNetwork():
            return _of_network(route)
        case RoutedEndpoint():
            return _of_endpoint(route)
        case RouterPeer():
            return _of_peer(route)


def domain_of(tenant: str) -> int:
    """64 bits that stand for the networks that a tenant's packets may be routed to; no other tenant has the same."""
    return int.from_bytes(blake2b(tenant.encode(), digest_size=8, person=b"np routing").digest(), "big")


def _of_network(route: RoutedNetwork) -> Iterator[Flow]:
    key = network_key(route.encap, route.tag)
    domain = domain_of(route.tenant)
    for gateway in route.gateways:
        if isinstance(gateway, IPv4Address):
            yield arp_answer(key, ROUTER_MAC, gateway)
        else:
            yield from neighbour_answer(key, ROUTER_MAC, gateway)
        yield _echo_answer(domain, gateway)
    for version in sorted({gateway.version for gateway in route.gateways}):
        asked = match(xreg0=network_match(key), eth_dst=ROUTER_MAC, eth_type=_ethertype(version))
        yield flow(Table.ROUTE, OWN, asked, apply(set_field("xreg1", domain)) + goto(Table.LOOKUP))
    onward = apply(dec_ttl(), set_field("eth_src", ROUTER_MAC), set_field("xreg0", key << 32)) + goto(Table.NEXT_HOP)
    for subnet in route.subnets:
        if any(gateway in subnet for gateway in route.gateways):
            yield flow(Table.LOOKUP, PREFIXES + subnet.prefixlen, match(xreg1=domain, **_to_subnet(subnet)), onward)


def _of_endpoint(route: RoutedEndpoint) -> Iterator[Flow]:
    network = network_match(network_key(route.encap, route.tag))
    there = apply(set_field("eth_dst", route.mac)) + goto(Table.FORWARD)
    for address in dict.fromkeys(route.addresses):
        yield flow(Table.NEXT_HOP, OWN, match(xreg0=network, **_to_address(address)), there)


def _of_peer(route: RouterPeer) -> Iterator[Flow]:
    source = "tun_src" if route.vtep.version == 4 else "tun_ipv6_src"
    known: dict[str, Value] = {source: route.vtep.packed}
    comes = match(in_port=TUNNEL_PORT, tunnel_id=route.vni, eth_src=ROUTER_MAC, vlan_vid=0, **known)
    key = network_key("vxlan", route.vni)
    yield flow(Table.CLASSIFY, OWN, comes, apply(set_field("reg0", key)) + goto(Table.FORWARD))


def _echo_answer(domain: int, gateway: IPv4Address | IPv6Address) -> Flow:
    """An echo request to the gateway goes back as its reply, to the port that it came in by."""
    version = gateway.version
    family, kind = ("ipv4", "icmpv4_type") if version == 4 else ("ipv6", "icmpv6_type")
    asked: dict[str, Value] = {"ip_proto": ICMP if version == 4 else ICMPV6, kind: ECHO_REQUEST[version]}
    reply = apply(
        copy_field("eth_src", "eth_dst"),
        set_field("eth_src", ROUTER_MAC),
        copy_field(f"{family}_src", f"{family}_dst"),
        set_field(f"{family}_src", gateway),
        set_field(kind, ECHO_REPLY[version]),
        set_field("ip_ttl", GATEWAY_TTL),
        output(PORT_IN_PORT),
    )
    return flow(Table.LOOKUP, ECHOES, match(xreg1=domain, **_to_address(gateway), **asked), reply)


def _ethertype(version: int) -> int:
    return ETH_IPV4 if version == 4 else ETH_IPV6


def _to_address(address: IPv4Address | IPv6Address) -> dict[str, Value]:
    return {"eth_type": _ethertype(address.version), f"ipv{address.version}_dst": address}


def _to_subnet(subnet: IPv4Network | IPv6Network) -> dict[str, Value | tuple[Value, Value]]:
    to = (subnet.network_address, subnet.netmask)
    return {"eth_type": _ethertype(subnet.version), f"ipv{subnet.version}_dst": to}
