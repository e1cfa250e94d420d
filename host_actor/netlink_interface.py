"""What a host is known by on one interface (addresses, routes, permanent neighbours), and its move to another.

What was listed is kept as the kernel wrote it, and given back with nothing changed but the interface: so scopes,
labels, lifetimes, metrics, on-link gateways, tables and routes with several nexthops are what they were. What the
kernel makes of an address by itself (local, broadcast and multicast routes) is left to it.

A move is one write to the kernel: everything is on the new interface before anything goes from the old one, so no route
of another interface loses its source, and a process that dies has moved all or nothing. Source: rtnetlink(7).
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import Final

import msgspec

from .netlink import (
    IFF_UP,
    IFLA_ADDRESS,
    IFLA_AF_SPEC,
    IFLA_IFNAME,
    IFLA_LINK,
    IFLA_LINKINFO,
    IFLA_MTU,
    RTM_GETLINK,
    RTM_GETROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    Message,
    NetlinkSocket,
    attribute,
    parse_attributes,
)

RTM_DELADDR, RTM_GETADDR, RTM_DELROUTE = 21, 22, 25
RTM_NEWNEIGH, RTM_GETNEIGH = 28, 30
IFLA_MASTER: Final = 10
IFLA_NETNSID: Final = 37  # of the other end, where that is in another namespace

_CREATE, _REPLACE, _APPEND = 0x400, 0x100, 0x800
_ADDRESS: Final = struct.Struct("=BBBBI")
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")
_LINK: Final = struct.Struct("=BxHiII")
_IFA_LABEL, _IFA_CACHEINFO, _IFA_FLAGS = 3, 6, 8
_IFA_KEPT: Final = frozenset(
    (1, 2, 3, 4, 5, 9, 11)
)  # address, local, label, broadcast, anycast, route metric, protocol
_IFA_SETTABLE: Final = 0x02 | 0x10 | 0x100 | 0x200 | 0x400  # nodad, home, mngtmpaddr, noprefixroute, autojoin
_IFA_NODAD: Final = 0x02
_RTA_OIF, _RTA_MULTIPATH, _RTA_CACHEINFO, _RTA_EXPIRES, _RTA_NH_ID = 4, 9, 12, 23, 30
_RTA_KEPT: Final = frozenset((1, 2, 5, 6, 7, 8, 11, 15, 16, 18, 19, 20, 21, 22, 26))
_RTN_UNICAST, _RTN_LOCAL, _RTN_BROADCAST, _RTN_ANYCAST, _RTN_MULTICAST = 1, 2, 3, 4, 5
_RTPROT_KERNEL: Final = 2
_ONLINK: Final = 0x4
_CLONED: Final = 0x200
_NUD_PERMANENT: Final = 0x80
_FOREVER: Final = 0xFFFFFFFF
_TICKS_PER_S: Final = 100  # USER_HZ
_ADDRGEN_NONE: Final = 1
_TYPE: Final = 0x3FFF

MAY_BE_SO_ALREADY: Final = frozenset((errno.EEXIST, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENOENT))


class CannotMove(Exception):
    """Something on the interface is of a kind that cannot be moved."""


class InterfaceState(msgspec.Struct, frozen=True):
    """What is moved, as the kernel listed it (the bodies of its messages), where, and when."""

    name: str
    index: int
    addresses: tuple[bytes, ...]
    routes: tuple[bytes, ...]
    neighbours: tuple[bytes, ...]
    addrgen_mode: int  # how the kernel makes link-local addresses here: 0 of the MAC, 1 not at all
    listed_at_s: float  # since boot: lifetimes count from here

    @property
    def texts(self) -> tuple[str, ...]:
        """The addresses as people write them, such as 10.0.0.1/24."""
        return tuple(_address_text(body) for body in self.addresses)

    @property
    def facts(self) -> frozenset[object]:
        """What is there, without what passes (lifetimes) and without the interface's own number."""
        routes = {_route_place(body) for body in self.routes}
        return frozenset((*self.texts, *routes, *(body[8:] for body in self.neighbours)))

    @property
    def has_own_addresses(self) -> bool:
        """Whether there is an address that was not made by the kernel of a MAC."""
        return any(not text.startswith("fe80:") for text in self.texts)


class Card(msgspec.Struct, frozen=True):
    """An interface, as far as it matters whether it can be taken."""

    name: str
    index: int
    flags: int
    hardware: int  # ARPHRD_*: 1 is Ethernet
    mac: str
    mtu_bytes: int
    master: int  # the index of the bridge or bond that it belongs to; 0 for none
    kind: str  # "veth", "bridge", ...; empty for hardware
    below: int  # the index of the interface that it is made upon, in this namespace; 0 for none
    addrgen_mode: int


def now_s() -> float:
    """Seconds since boot, asleep or not."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


# Listing -----------------------------------------------------------------------------------------------------------


def list_cards(asking: NetlinkSocket) -> dict[str, Card]:
    """All interfaces of this namespace by name."""
    return {card.name: card for card in map(_card, asking.dump(RTM_GETLINK, _LINK.pack(0, 0, 0, 0, 0)))}


def _card(body: bytes) -> Card:
    _family, hardware, index, flags, _change = _LINK.unpack_from(body)
    found = parse_attributes(body, _LINK.size)
    kind = parse_attributes(found.get(IFLA_LINKINFO, b"")).get(1, b"").rstrip(b"\0").decode(errors="replace")
    inet6 = parse_attributes(parse_attributes(found.get(IFLA_AF_SPEC, b"")).get(socket.AF_INET6, b""))

    def number(of: int) -> int:
        return int(struct.unpack_from("=I", found[of])[0]) if of in found else 0

    return Card(
        name=found[IFLA_IFNAME].rstrip(b"\0").decode(errors="replace"),
        index=index,
        flags=flags,
        hardware=hardware,
        mac=found.get(IFLA_ADDRESS, b"").hex(":"),
        mtu_bytes=number(IFLA_MTU),
        master=number(IFLA_MASTER),
        kind=kind,
        below=0 if IFLA_NETNSID in found else number(IFLA_LINK),
        addrgen_mode=inet6.get(8, b"\0")[0],  # IFLA_INET6_ADDR_GEN_MODE
    )


def list_state(asking: NetlinkSocket, card: Card, *, is_strict: bool = True) -> InterfaceState:
    """What is on the interface now. Raises: `CannotMove`, if strict; else what cannot be moved is left out."""
    families = (socket.AF_INET, socket.AF_INET6)
    addresses = [
        body
        for family in families
        for body in asking.dump(RTM_GETADDR, _ADDRESS.pack(family, 0, 0, 0, 0))
        if _ADDRESS.unpack_from(body)[4] == card.index
    ]
    routes = [
        body
        for family in families
        for body in asking.dump(RTM_GETROUTE, _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
        if _is_route_of(body, card.index, is_strict=is_strict)
    ]
    neighbours = [
        body
        for body in asking.dump(RTM_GETNEIGH, _NEIGHBOUR.pack(0, 0, 0, 0, 0))
        if _NEIGHBOUR.unpack_from(body)[1] == card.index and _NEIGHBOUR.unpack_from(body)[2] & _NUD_PERMANENT
    ]
    lists = (tuple(addresses), tuple(routes), tuple(neighbours))
    return InterfaceState(card.name, card.index, *lists, card.addrgen_mode, now_s())


def _is_route_of(body: bytes, index: int, *, is_strict: bool) -> bool:
    family, _dst, _src, _tos, _table, protocol, _scope, kind, flags = _ROUTE.unpack_from(body)
    if flags & _CLONED or kind in (_RTN_LOCAL, _RTN_BROADCAST, _RTN_ANYCAST):
        return False
    if family == socket.AF_INET6 and kind == _RTN_MULTICAST and protocol == _RTPROT_KERNEL:
        return False
    found = parse_attributes(body, _ROUTE.size)
    oif = struct.unpack("=I", found[_RTA_OIF])[0] if _RTA_OIF in found else 0
    is_ours = oif == index or any(hop[3] == index for hop in _hops(found.get(_RTA_MULTIPATH, b"")))
    if is_ours and _RTA_NH_ID in found:
        if not is_strict:
            return False
        raise CannotMove("a route uses a nexthop object (ip nexthop): write it with its gateway instead")
    return is_ours


def _hops(raw: bytes) -> Iterator[tuple[int, int, int, int, bytes]]:
    """(length, flags, weight, interface, attributes) of each way of a route that has several."""
    offset = 0
    while offset + 8 <= len(raw):
        length, flags, weight, index = struct.unpack_from("=HBBi", raw, offset)
        yield length, flags, weight, index, raw[offset + 8 : offset + length]
        offset += (length + 3) & ~3


def _address_text(body: bytes) -> str:
    found = parse_attributes(body, _ADDRESS.size)
    return f"{ip_address(found.get(2, found.get(1, b'')))}/{body[1]}"


# Moving ------------------------------------------------------------------------------------------------------------


def place(state: InterfaceState, old: Card | None, new: Card, mac: str = "") -> list[Message]:
    """The messages after which all of `state` is on `new`, up, with this MAC, and nothing of it on `old`.

    No other link-local address comes to `new`, and `old` gets none of its own any more.
    """
    elapsed_s = max(0.0, now_s() - state.listed_at_s)
    messages = [_set_addrgen(new.index, _ADDRGEN_NONE), _set_up(new.index, mac)]
    messages += _added_addresses(state, new, elapsed_s)
    routes = sorted(state.routes, key=_has_gateway)
    messages += [_route(RTM_NEWROUTE, body, state.index, new.index, elapsed_s) for body in routes]
    messages += [_neighbour(body, new.index) for body in state.neighbours]
    messages.append(_set_addrgen(new.index, state.addrgen_mode))
    if old is not None and old.index != new.index:
        messages.append(_set_addrgen(old.index, _ADDRGEN_NONE))
        messages += [_route(RTM_DELROUTE, body, state.index, old.index, elapsed_s) for body in reversed(routes)]
        messages += [_deleted_address(body, old.index) for body in reversed(state.addresses)]
    return messages


def remove(state: InterfaceState, card: Card) -> list[Message]:
    """The messages after which nothing of `state` is on the interface."""
    routes = [_route(RTM_DELROUTE, body, state.index, card.index, 0) for body in state.routes]
    return [*routes, *(_deleted_address(body, card.index) for body in reversed(state.addresses))]


def surplus(wanted: Iterable[InterfaceState], found: InterfaceState) -> list[bytes]:
    """The routes found that the kernel made by itself of an address, and that were not there before."""
    had = {_route_place(body) for state in wanted for body in state.routes}
    return [body for body in found.routes if body[5] == _RTPROT_KERNEL and _route_place(body) not in had]


def delete_route(body: bytes, card: Card) -> Message:
    """The route, as it was listed on this interface, is gone."""
    return _route(RTM_DELROUTE, body, card.index, card.index, 0)


def _route_place(body: bytes) -> tuple[bytes, ...]:
    found = parse_attributes(body, _ROUTE.size)
    return (body[:4], *(found.get(kind, b"") for kind in (1, 2, 5, 6, 15)))


def _set_up(index: int, mac: str) -> Message:
    body = _LINK.pack(0, 0, index, IFF_UP, IFF_UP)
    return Message(
        RTM_NEWLINK, 0, body + (attribute(IFLA_ADDRESS, bytes.fromhex(mac.replace(":", ""))) if mac else b"")
    )


def _set_addrgen(index: int, mode: int) -> Message:
    inet6 = attribute(socket.AF_INET6, attribute(8, bytes((mode,))))
    return Message(RTM_NEWLINK, 0, _LINK.pack(0, 0, index, 0, 0) + attribute(IFLA_AF_SPEC, inet6))


def _added_addresses(state: InterfaceState, new: Card, elapsed_s: float) -> Iterable[Message]:
    """Each address is usable at once; the mark that it was not looked for elsewhere is taken off again, if it had none.

    What has run out meanwhile is not added.
    """
    for body in state.addresses:
        found = parse_attributes(body, _ADDRESS.size)
        preferred, valid = struct.unpack_from("=II", found.get(_IFA_CACHEINFO, struct.pack("=II", _FOREVER, _FOREVER)))
        preferred, valid = (_left(seconds, elapsed_s) for seconds in (preferred, valid))
        if valid == 0:
            continue
        flags = struct.unpack("=I", found[_IFA_FLAGS])[0] if _IFA_FLAGS in found else body[2]
        flags &= _IFA_SETTABLE
        lifetimes = attribute(_IFA_CACHEINFO, struct.pack("=IIII", preferred, valid, 0, 0))
        kept = b"".join(
            attribute(kind, _relabelled(value, state.name, new.name) if kind == _IFA_LABEL else value)
            for kind, value in found.items()
            if kind in _IFA_KEPT
        )
        wanted = [flags | _IFA_NODAD, flags] if body[0] == socket.AF_INET6 and not flags & _IFA_NODAD else [flags]
        for each in wanted:
            head = _ADDRESS.pack(body[0], body[1], each & 0xFF, body[3], new.index)
            whole = head + kept + lifetimes + attribute(_IFA_FLAGS, struct.pack("=I", each))
            yield Message(RTM_NEWADDR, _CREATE | _REPLACE, whole)


def _left(seconds: int, elapsed_s: float) -> int:
    return seconds if seconds == _FOREVER else max(0, int(seconds - elapsed_s))


def _relabelled(label: bytes, old: str, new: str) -> bytes:
    """A label is the interface's name, or begins with it and a colon."""
    text = label.rstrip(b"\0").decode(errors="replace")
    name, colon, rest = text.partition(":")
    return ((new + colon + rest)[:15] if name == old else text).encode() + b"\0"


def _deleted_address(body: bytes, index: int) -> Message:
    found = parse_attributes(body, _ADDRESS.size)
    kept = b"".join(attribute(kind, found[kind]) for kind in (2, 1) if kind in found)
    return Message(RTM_DELADDR, 0, _ADDRESS.pack(body[0], body[1], 0, body[3], index) + kept)


def _has_gateway(body: bytes) -> bool:
    return not parse_attributes(body, _ROUTE.size).keys().isdisjoint((5, _RTA_MULTIPATH, 18))


def _attributes(raw: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """(type with its flag bits, value) of each attribute."""
    while offset + 4 <= len(raw):
        length, kind = struct.unpack_from("=HH", raw, offset)
        if length < 4:
            return
        yield kind, raw[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _route(kind: int, body: bytes, old: int, new: int, elapsed_s: float) -> Message:
    """The route by the new interface, to be made or removed."""
    *head, flags = _ROUTE.unpack_from(body)
    out = _ROUTE.pack(*head, flags & _ONLINK)
    for raw_kind, value in _attributes(body, _ROUTE.size):
        which = raw_kind & _TYPE
        if which == _RTA_OIF:
            index = struct.unpack("=I", value)[0]
            out += attribute(_RTA_OIF, struct.pack("=I", new if index == old else index))
        elif which == _RTA_MULTIPATH:
            out += attribute(raw_kind, _moved_hops(value, old, new))
        elif which == _RTA_CACHEINFO and kind == RTM_NEWROUTE:
            ticks = struct.unpack_from("=IIi", value)[2]
            if ticks > 0:
                out += attribute(_RTA_EXPIRES, struct.pack("=I", max(1, int(ticks / _TICKS_PER_S - elapsed_s))))
        elif which in _RTA_KEPT:
            out += attribute(raw_kind, value)
    # Several IPv4 routes may differ in nothing but the interface: the one that goes is no reason to refuse.
    flags = 0 if kind == RTM_DELROUTE else _CREATE | (_APPEND if head[0] == socket.AF_INET else 0)
    return Message(kind, flags, out)


def _moved_hops(raw: bytes, old: int, new: int) -> bytes:
    out = b""
    for length, flags, weight, index, rest in _hops(raw):
        hop = struct.pack("=HBBi", length, flags & _ONLINK, weight, new if index == old else index) + rest
        out += hop + bytes(-len(hop) % 4)
    return out


def _neighbour(body: bytes, index: int) -> Message:
    family, _old, state, flags, kind = _NEIGHBOUR.unpack_from(body)
    kept = b"".join(
        attribute(raw & _TYPE, value) for raw, value in _attributes(body, _NEIGHBOUR.size) if raw & _TYPE in (1, 2)
    )
    return Message(RTM_NEWNEIGH, _CREATE | _REPLACE, _NEIGHBOUR.pack(family, index, state, flags, kind) + kept)
