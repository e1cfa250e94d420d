"""Answers leave by the interface that they were asked through: one routing table for each interface in a namespace
that has several.

The main table knows one way to a subnet and one default: what is sent from the address of a second interface would
leave by the first, where anti-spoofing drops it. So such an interface has a table of its own, numbered as the
interface is, and for each of its addresses a rule that sends what is from there to that table. Routes go with their
link; rules stay, and are taken away with the port, or found later by their protocol and a table that no link has.

All of this runs in the thread that is inside the namespace. Source: ip-rule(8), linux/fib_rules.h, linux/rtnetlink.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address
from typing import Final

from .netlink import IFF_UP, Link, Message, NetlinkSocket, attribute, parse_attributes

PROTOCOL: Final = 110  # of our rules and routes; rtnetlink(7) leaves 5 to 255 to whoever takes one
PRIORITY: Final = 30_000  # before the main table's 32766

_RTM_NEWROUTE, _RTM_NEWRULE, _RTM_DELRULE, _RTM_GETRULE = 24, 32, 33, 34
_NLM_F_REPLACE, _NLM_F_EXCL, _NLM_F_CREATE = 0x100, 0x200, 0x400
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15
_FRA_SRC, _FRA_PRIORITY, _FRA_TABLE, _FRA_PROTOCOL = 2, 6, 15, 21
_SCOPE_UNIVERSE, _SCOPE_LINK, _UNICAST, _TO_TABLE = 0, 253, 1, 1
_HEADER_BYTES: Final = 12  # struct fib_rule_hdr
_LOOPBACK: Final = "lo"
_SAME: Final = frozenset({errno.EEXIST, errno.ENOENT})
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}

Address = IPv4Interface | IPv6Interface
Gateway = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class SourceRule:
    """What comes from this address is routed by this table."""

    source: Gateway
    table: int


def is_among_others(links: Sequence[Link], index: int) -> bool:
    """Whether the namespace has another link that is up."""
    return any(link.flags & IFF_UP and link.index != index and link.name != _LOOPBACK for link in links)


def route_by_source(
    inner: NetlinkSocket, index: int, addresses: Sequence[Address], gateways: Sequence[Gateway], links: Sequence[Link]
) -> None:
    """What is sent from these addresses leaves by this link, through its own gateways; no rule of ours is left for
    another of its addresses, nor for a link that is not there any more. Raises: `KernelRefused`.
    """
    wanted = {SourceRule(address.ip, index) for address in addresses}
    present = set(list_rules(inner))
    tables = {link.index for link in links}
    stale = [rule for rule in present if rule not in wanted and (rule.table == index or rule.table not in tables)]
    versions = {address.version for address in addresses}
    routes = [_subnet_route(index, address) for address in addresses if address.network.num_addresses > 1]
    routes += [_default_route(index, gateway) for gateway in gateways if gateway.version in versions]
    changes = [*routes, *map(_add_rule, wanted - present), *map(_delete_rule, stale)]
    inner.request(*changes, accepting=_SAME)


def clear_rules(inner: NetlinkSocket, index: int) -> None:
    """No rule of ours is left for this link. Raises: `KernelRefused`."""
    own = [rule for rule in list_rules(inner) if rule.table == index]
    if own:
        inner.request(*map(_delete_rule, own), accepting=_SAME)


def list_rules(inner: NetlinkSocket) -> Iterator[SourceRule]:
    """Our rules of the namespace, of both families."""
    for body in inner.dump(_RTM_GETRULE, bytes(_HEADER_BYTES)):
        found = parse_attributes(body, _HEADER_BYTES)
        source = found.get(_FRA_SRC)
        if body[0] in _FAMILIES.values() and found.get(_FRA_PROTOCOL) == bytes((PROTOCOL,)) and source:
            yield SourceRule(ip_address(source), int(struct.unpack("=I", found[_FRA_TABLE])[0]))


def _header(family: int, source_bits: int) -> bytes:
    return struct.pack("=BBBBBBBBI", family, 0, source_bits, 0, 0, 0, 0, _TO_TABLE, 0)


def _rule(rule: SourceRule) -> bytes:
    return (
        _header(_FAMILIES[rule.source.version], rule.source.max_prefixlen)
        + attribute(_FRA_SRC, rule.source.packed)
        + attribute(_FRA_PRIORITY, struct.pack("=I", PRIORITY))
        + attribute(_FRA_TABLE, struct.pack("=I", rule.table))
        + attribute(_FRA_PROTOCOL, bytes((PROTOCOL,)))
    )


def _add_rule(rule: SourceRule) -> Message:
    return Message(_RTM_NEWRULE, _NLM_F_CREATE | _NLM_F_EXCL, _rule(rule))


def _delete_rule(rule: SourceRule) -> Message:
    return Message(_RTM_DELRULE, 0, _rule(rule))


def _route(version: int, prefix: int, scope: int, index: int) -> bytes:
    head = struct.pack("=BBBBBBBBI", _FAMILIES[version], prefix, 0, 0, 0, PROTOCOL, scope, _UNICAST, 0)
    return head + attribute(_RTA_TABLE, struct.pack("=I", index)) + attribute(_RTA_OIF, struct.pack("=I", index))


def _subnet_route(index: int, address: Address) -> Message:
    """The link's own subnet, in the link's own table."""
    network = address.network
    scope = _SCOPE_LINK if network.version == 4 else _SCOPE_UNIVERSE
    body = _route(network.version, network.prefixlen, scope, index) + attribute(
        _RTA_DST, network.network_address.packed
    )
    return Message(_RTM_NEWROUTE, _NLM_F_CREATE | _NLM_F_REPLACE, body)


def _default_route(index: int, gateway: Gateway) -> Message:
    """The default through the gateway, in the link's own table."""
    body = _route(gateway.version, 0, _SCOPE_UNIVERSE, index) + attribute(_RTA_GATEWAY, gateway.packed)
    return Message(_RTM_NEWROUTE, _NLM_F_CREATE | _NLM_F_REPLACE, body)
