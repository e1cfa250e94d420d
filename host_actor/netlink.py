"""rtnetlink on the wire: what a container's link is made of, several messages in one write, every one acknowledged.

pyroute2 takes 11-17 ms for one container because it forks to open a namespace, and 3 ms with a socket handed over;
these messages take one, of which the kernel's own making of the veth pair is half. Listing a thousand links takes it
0.2 s and more, these functions 0.03 s.

Nothing here awaits or changes a namespace: a socket belongs to the namespace of the thread that made it, see
`netlink_veth.py`. Source: rtnetlink(7), linux/if_link.h, linux/netlink.h.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_interface
from typing import Final

IFF_UP: Final = 0x1
IFF_PROMISC: Final = 0x100
IFF_LOWER_UP: Final = 0x10000

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_NEWADDR = 16, 17, 18, 20
RTM_GETADDR, RTM_NEWNEIGH = 22, 28
RTM_NEWROUTE, RTM_GETROUTE, RTM_NEWNSID, RTM_GETNSID = 24, 26, 88, 90

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_LINKINFO = 1, 3, 4, 5, 18
IFLA_IFALIAS, IFLA_AF_SPEC, IFLA_GROUP, IFLA_NET_NS_FD, IFLA_LINK_NETNSID = 20, 26, 27, 28, 37

_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 0x1, 0x4, 0x300
_NLM_F_REPLACE, _NLM_F_EXCL, _NLM_F_CREATE = 0x100, 0x200, 0x400
_NLM_F_ACK_TLVS: Final = 0x200
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_SOL_NETLINK, _EXT_ACK, _CAP_ACK, _STRICT_CHECK = 270, 11, 10, 12
_RT_TABLE_MAIN, _RTPROT_STATIC, _RT_SCOPE_UNIVERSE, _RTN_UNICAST = 254, 4, 0, 1
_IFA_F_NODAD: Final = 0x02
_NUD_PERMANENT: Final = 0x80

_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_HEADER: Final = struct.Struct("=IHHII")
_LINK: Final = struct.Struct("=BxHiII")
_RECEIVE_BYTES: Final = 1 << 16


class KernelRefused(Exception):
    """The kernel's answer to a netlink message: its error number, its own words, and which message of the batch."""

    def __init__(self, number: int, text: str, index: int) -> None:
        super().__init__(f"{os.strerror(number)}{': ' + text if text else ''}")
        self.errno = number
        self.text = text
        self.index = index


@dataclass(frozen=True, slots=True)
class Message:
    """One request: type, extra flags and body. `REQUEST` and `ACK` are added when it is sent."""

    kind: int
    flags: int
    body: bytes


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(-length % 4)


def parse_attributes(raw: bytes, offset: int = 0) -> dict[int, bytes]:
    """Attributes by type (flag bits of the type cut off); of several of one type the last."""
    found = {}
    while offset + 4 <= len(raw):
        length, kind = struct.unpack_from("=HH", raw, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = raw[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def _u32(value: int) -> bytes:
    return struct.pack("=I", value)


def _name(value: str) -> bytes:
    return value.encode() + b"\0"


def _mac(value: str) -> bytes:
    return bytes.fromhex(value.replace(":", ""))


def _link(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return _LINK.pack(0, 0, index, flags, change)


# Requests ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VethPair:
    """A veth pair to be born with its peer in another namespace; nothing of it has to be changed afterwards."""

    device: str
    index: int
    host_mac: str
    group: int
    peer: str
    peer_index: int
    peer_mac: str
    peer_netns_fd: int
    mtu_bytes: int


def new_veth(pair: VethPair) -> Message:
    """The pair; its host end up and promiscuous from birth, so that a switch taking it up changes nothing."""
    mtu = attribute(IFLA_MTU, _u32(pair.mtu_bytes))
    peer = (
        _link(pair.peer_index)
        + attribute(IFLA_IFNAME, _name(pair.peer))
        + attribute(IFLA_NET_NS_FD, struct.pack("=i", pair.peer_netns_fd))
        + attribute(IFLA_ADDRESS, _mac(pair.peer_mac))
        + mtu
    )
    kind = attribute(1, b"veth\0") + attribute(2, attribute(1, peer))  # IFLA_INFO_KIND, IFLA_INFO_DATA(VETH_INFO_PEER)
    born = IFF_UP | IFF_PROMISC
    body = (
        _link(pair.index, born, born)
        + attribute(IFLA_IFNAME, _name(pair.device))
        + attribute(IFLA_ADDRESS, _mac(pair.host_mac))
        + attribute(IFLA_GROUP, _u32(pair.group))
        + mtu
        + attribute(IFLA_LINKINFO, kind)
    )
    return Message(RTM_NEWLINK, _NLM_F_CREATE | _NLM_F_EXCL, body)


def set_up(index: int) -> Message:
    """The link is up."""
    return Message(RTM_NEWLINK, 0, _link(index, IFF_UP, IFF_UP))


def set_up_promiscuous(index: int, mtu_bytes: int) -> Message:
    """A host end as it is born: up, promiscuous, with this MTU."""
    both = IFF_UP | IFF_PROMISC
    return Message(RTM_NEWLINK, 0, _link(index, both, both) + attribute(IFLA_MTU, _u32(mtu_bytes)))


def set_mac_and_mtu(index: int, mac: str, mtu_bytes: int) -> Message:
    """The link has this MAC and this MTU."""
    body = _link(index) + attribute(IFLA_ADDRESS, _mac(mac)) + attribute(IFLA_MTU, _u32(mtu_bytes))
    return Message(RTM_NEWLINK, 0, body)


def set_group(device: str, group: int) -> Message:
    """The link is in this group."""
    return Message(RTM_NEWLINK, 0, _link() + attribute(IFLA_IFNAME, _name(device)) + attribute(IFLA_GROUP, _u32(group)))


def set_alias(device: str, alias: str) -> Message:
    """The link carries this text, at most 255 bytes."""
    body = _link() + attribute(IFLA_IFNAME, _name(device)) + attribute(IFLA_IFALIAS, alias.encode())
    return Message(RTM_NEWLINK, 0, body)


def delete_group(group: int) -> Message:
    """All links of the group go at once: one wait of the kernel for all instead of one (20 ms) for each."""
    return Message(RTM_DELLINK, 0, _link() + attribute(IFLA_GROUP, _u32(group)))


def delete_link(device: str) -> Message:
    """The link is gone, its peer with it."""
    return Message(RTM_DELLINK, 0, _link() + attribute(IFLA_IFNAME, _name(device)))


def get_link(device: str) -> Message:
    """The link of this name is told."""
    return Message(RTM_GETLINK, 0, _link() + attribute(IFLA_IFNAME, _name(device)))


def get_link_by_index(index: int) -> Message:
    """The link of this index is told."""
    return Message(RTM_GETLINK, 0, _link(index))


def add_address(index: int, interface: IPv4Interface | IPv6Interface) -> Message:
    """The address on the link, usable at once (no duplicate address detection); adding it again is no error."""
    packed = interface.ip.packed
    family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    flags = 0 if interface.version == 4 else _IFA_F_NODAD
    prefix = interface.network.prefixlen
    body = struct.pack("=BBBBI", family, prefix, flags, 0, index) + attribute(2, packed) + attribute(1, packed)
    if interface.version == 4 and prefix < 31:
        body += attribute(4, interface.network.broadcast_address.packed)
    return Message(RTM_NEWADDR, _NLM_F_CREATE | _NLM_F_REPLACE, body)


def add_neighbour(index: int, address: IPv4Address | IPv6Address, mac: str) -> Message:
    """The neighbour has this MAC and is never asked for it; said again, or otherwise before, is no error."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    head = struct.pack("=BxxxiHBB", family, index, _NUD_PERMANENT, 0, _RTN_UNICAST)
    body = head + attribute(1, address.packed) + attribute(2, _mac(mac))  # NDA_DST, NDA_LLADDR
    return Message(RTM_NEWNEIGH, _NLM_F_CREATE | _NLM_F_REPLACE, body)


def add_default_route(index: int, gateway: IPv4Address | IPv6Address) -> Message:
    """A default route through the gateway, in the main table."""
    family = socket.AF_INET if gateway.version == 4 else socket.AF_INET6
    head = struct.pack(
        "=BBBBBBBBI", family, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_STATIC, _RT_SCOPE_UNIVERSE, _RTN_UNICAST, 0
    )
    return Message(
        RTM_NEWROUTE, _NLM_F_CREATE | _NLM_F_EXCL, head + attribute(5, gateway.packed) + attribute(4, _u32(index))
    )


def get_nsid(netns_fd: int) -> Message:
    """The kernel's own number for a namespace is told."""
    return Message(RTM_GETNSID, 0, struct.pack("=B3x", 0) + attribute(3, struct.pack("=i", netns_fd)))


# Sockets -----------------------------------------------------------------------------------------------------------


class NetlinkSocket:
    """A blocking rtnetlink socket of the calling thread's network namespace. Not to be used on the event loop."""

    def __init__(self, buffer_bytes: int = 0) -> None:
        """`buffer_bytes`: for batches of thousands, each of whose answers waits until all is sent."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE) if buffer_bytes else ():
            self._socket.setsockopt(socket.SOL_SOCKET, option, buffer_bytes)
        for option in (_EXT_ACK, _CAP_ACK, _STRICT_CHECK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._sequence = 0

    def close(self) -> None:
        """The socket is closed."""
        self._socket.close()

    def request(self, *messages: Message, accepting: frozenset[int] = frozenset()) -> list[bytes]:
        """The bodies that the kernel answered with, all the messages having been done in order, sent by one write.

        Raises: `KernelRefused` for the first message refused with an error number that is not among `accepting`; the
        kernel goes on with those after it.
        """
        if not messages:
            return []
        first = self._sequence + 1
        self._sequence += len(messages)
        out = b"".join(
            _HEADER.pack(_HEADER.size + len(m.body), m.kind, m.flags | _NLM_F_REQUEST | _NLM_F_ACK, first + i, 0)
            + m.body
            for i, m in enumerate(messages)
        )
        self._socket.sendto(out, (0, 0))
        answers: list[bytes] = []
        refusal: KernelRefused | None = None
        waiting = len(messages)
        while waiting:
            for kind, flags, sequence, body in self._receive():
                if sequence < first:
                    continue  # an answer to an earlier batch that was given up
                if kind != _NLMSG_ERROR:
                    answers.append(body)
                    continue
                waiting -= 1
                number = -struct.unpack_from("=i", body)[0]
                if number and refusal is None and number not in accepting:
                    refusal = KernelRefused(number, _extended_text(flags, body), sequence - first)
        if refusal is not None:
            raise refusal
        return answers

    def has_default_route(self, family: int) -> bool:
        """Whether the main table has a default route of this address family."""
        asked = struct.pack("=BBBBBBBBI", family, 0, 0, 0, _RT_TABLE_MAIN, 0, 0, 0, 0)
        routes = list(self.dump(RTM_GETROUTE, asked))
        return any(route[1] == 0 and route[7] == _RTN_UNICAST for route in routes)

    def list_links(self) -> list[Link]:
        """All links of the namespace."""
        return [parse_link(body) for body in self.dump(RTM_GETLINK, _link())]

    def list_addresses(self) -> list[tuple[int, IPv4Interface | IPv6Interface]]:
        """All addresses of the namespace, each with its link's index."""
        return [parse_address(body) for body in self.dump(RTM_GETADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0))]

    def dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        """The bodies of a list that the kernel was asked for; to be read to its end."""
        self._sequence += 1
        flags = _NLM_F_REQUEST | _NLM_F_DUMP
        self._socket.sendto(_HEADER.pack(_HEADER.size + len(body), kind, flags, self._sequence, 0) + body, (0, 0))
        while True:
            for answer, _flags, sequence, item in self._receive():
                if sequence != self._sequence:
                    continue
                if answer == _NLMSG_DONE and not any(item[:4]):
                    return
                if answer in (_NLMSG_DONE, _NLMSG_ERROR):  # a list that is refused ends with the reason
                    raise KernelRefused(-struct.unpack_from("=i", item)[0], "listing", 0)
                yield item

    def _receive(self) -> Sequence[tuple[int, int, int, bytes]]:
        return list(split(self._socket.recv(_RECEIVE_BYTES)))


def split(raw: bytes) -> Sequence[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, body) of each message of a datagram."""
    messages = []
    offset = 0
    while offset + _HEADER.size <= len(raw):
        length, kind, flags, sequence, _pid = _HEADER.unpack_from(raw, offset)
        messages.append((kind, flags, sequence, raw[offset + _HEADER.size : offset + length]))
        offset += (length + 3) & ~3
    return messages


def _extended_text(flags: int, body: bytes) -> str:
    if not flags & _NLM_F_ACK_TLVS:
        return ""
    return parse_attributes(body, 20).get(1, b"").rstrip(b"\0").decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Link:
    """A link as the kernel tells it. `peer_nsid` is the kernel's own number for the peer's namespace, -1 for none;
    `alias` is free text that goes with it.
    """

    name: str
    index: int
    flags: int
    mac: str
    group: int
    peer_index: int
    peer_nsid: int
    alias: str = ""

    @property
    def is_carrying(self) -> bool:
        """Up, with its peer up."""
        return bool(self.flags & IFF_UP) and bool(self.flags & IFF_LOWER_UP)


def parse_link(body: bytes) -> Link:
    """The link that a message is about."""
    _family, _type, index, flags, _change = _LINK.unpack_from(body)
    found = parse_attributes(body, _LINK.size)

    def number(kind: int, default: int) -> int:
        value = found.get(kind)
        return default if value is None else int(struct.unpack("=i", value[:4])[0])

    return Link(
        name=found.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
        index=index,
        flags=flags,
        mac=found.get(IFLA_ADDRESS, b"").hex(":"),
        group=number(IFLA_GROUP, 0),
        peer_index=number(IFLA_LINK, 0),
        peer_nsid=number(IFLA_LINK_NETNSID, -1),
        alias=found.get(IFLA_IFALIAS, b"").rstrip(b"\0").decode(errors="replace"),
    )


def parse_address(body: bytes) -> tuple[int, IPv4Interface | IPv6Interface]:
    """The index of the link and the address on it that a message is about."""
    _family, prefix, _flags, _scope, index = struct.unpack_from("=BBBBI", body)
    found = parse_attributes(body, 8)
    packed = found.get(2, found.get(1, b""))  # IFA_LOCAL where a link has two ends, else IFA_ADDRESS
    address = IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)
    return index, ip_interface((address, prefix))


def parse_nsid(body: bytes) -> int:
    """The number of a namespace, -1 when the kernel has given it none."""
    value = parse_attributes(body, 4).get(1)
    return -1 if value is None else int(struct.unpack("=i", value)[0])


_SIOCETHTOOL: Final = 0x8946
_ETHTOOL_STXCSUM: Final = 0x17


def switch_off_tx_checksum(interface: str) -> None:
    """The link fills in checksums itself (and so segments no more), in the calling thread's namespace.

    The user-space data path drops what arrives with a checksum still to be filled in: ping works, TCP carries nothing.
    """
    value = array.array("B", struct.pack("=II", _ETHTOOL_STXCSUM, 0))
    request = struct.pack("16sP16x", interface.encode(), value.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
        except OSError as error:
            raise KernelRefused(error.errno or errno.EIO, f"switching tx checksum off on {interface}", 0) from error
