"""Where this host's VTEP address is: which link has it, and what that link is and carries. Asked of the kernel."""

from __future__ import annotations

import asyncio
import socket
import struct
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_interface

import msgspec

from .netlink import (
    IFF_UP,
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_MTU,
    NetlinkSocket,
    add_address,
    add_neighbour,
    get_link,
    get_link_by_index,
    parse_attributes,
    set_up,
)

VXLAN_OVERHEAD_BYTES = {4: 50, 6: 70}  # RFC 7348 section 5: Ethernet, VXLAN, UDP and IP headers, by the VTEP's family


class Underlay(msgspec.Struct, frozen=True):
    """The link that has the VTEP address. `mtu_bytes`: the longest IP packet it carries."""

    device: str
    index: int
    mac: str
    mtu_bytes: int
    is_up: bool
    interface: IPv4Interface | IPv6Interface


async def find_underlay(vtep: IPv4Address | IPv6Address) -> Underlay | None:
    """The link of this network namespace that has this address, if there is one."""
    return await asyncio.to_thread(_find, vtep)


async def restore_address(device: str, interface: IPv4Interface | IPv6Interface) -> bool:
    """The link is up and has the address, whether or not it had it before; false when there is no such link."""
    return await asyncio.to_thread(_restore, device, interface)


async def set_neighbour(index: int, address: IPv4Address | IPv6Address, mac: str) -> None:
    """The kernel knows the neighbour on that link for ever, without asking."""
    await asyncio.to_thread(_set_neighbour, index, address, mac)


def _find(vtep: IPv4Address | IPv6Address) -> Underlay | None:
    asking = NetlinkSocket()
    try:
        for index, interface in asking.list_addresses():
            if interface.ip == vtep:
                (link, *_) = asking.request(get_link_by_index(index))
                return _underlay(link, interface)
    finally:
        asking.close()
    return None


def _underlay(link: bytes, interface: IPv4Interface | IPv6Interface) -> Underlay:
    _family, _type, index, flags, _change = struct.unpack_from("=BxHiII", link)
    found = parse_attributes(link, 16)
    return Underlay(
        device=found[IFLA_IFNAME].rstrip(b"\0").decode(errors="replace"),
        index=index,
        mac=found.get(IFLA_ADDRESS, b"").hex(":"),
        mtu_bytes=int(struct.unpack("=I", found[IFLA_MTU])[0]),
        is_up=bool(flags & IFF_UP),
        interface=ip_interface(str(interface)),
    )


def _restore(device: str, interface: IPv4Interface | IPv6Interface) -> bool:
    if device not in {name for _, name in socket.if_nameindex()}:
        return False
    asking = NetlinkSocket()
    try:
        (link, *_) = asking.request(get_link(device))
        index = int(struct.unpack_from("=i", link, 4)[0])
        asking.request(set_up(index), add_address(index, interface))
    finally:
        asking.close()
    return True


def _set_neighbour(index: int, address: IPv4Address | IPv6Address, mac: str) -> None:
    asking = NetlinkSocket()
    try:
        asking.request(add_neighbour(index, address, mac))
    finally:
        asking.close()
