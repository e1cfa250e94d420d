"""Making, completing and removing the veth pairs of containers.

Two threads, each owning one netlink socket of the host's namespace: one makes links, the other removes them (the kernel
waits 20 ms and more for that, and no attach should wait with it). The maker enters a container's namespace for a
moment and comes back; the event loop's thread never changes its namespace and never waits for the kernel.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from typing import Final
from zlib import crc32

from .netlink import (
    KernelRefused,
    Link,
    Message,
    NetlinkSocket,
    VethPair,
    add_address,
    add_default_route,
    delete_group,
    delete_link,
    get_link,
    get_link_by_index,
    get_nsid,
    new_veth,
    parse_link,
    parse_nsid,
    set_alias,
    set_group,
    set_mac_and_mtu,
    set_up,
    set_up_promiscuous,
    switch_off_tx_checksum,
)
from .netlink_rules import clear_rules, is_among_others, route_by_source

_CLONE_NEWNET: Final = 0x40000000
_NS_GET_NSTYPE: Final = 0xB703  # ioctl_ns(2)
_IPV6_MTU_MIN: Final = 1280  # RFC 8200 section 5
_FIRST_INDEX: Final = 1 << 20  # far above what the kernel counts up to by itself
_INTERFACE_LIMIT: Final = 32
_BUSY_LIMIT: Final = 10_000  # indexes in a row that somebody else has
_LOOPBACK_INDEX: Final = 1
_DOOMED_GROUP: Final = 0x6E70D1E  # the group that links are put into to be removed together
_LINKS_AT_ONCE: Final = 32  # asked for in one write: their answers have room in the socket
_GONE: Final = frozenset({errno.ENODEV})
_IPV6_SETTINGS: Final = Path("/proc/sys/net/ipv6/conf")
_IPV4_SETTINGS: Final = Path("/proc/sys/net/ipv4/conf")
_ANSWER_NOTHING: Final = "8"  # of arp_ignore
_EXISTS: Final = frozenset({errno.EEXIST})
_OUT_OF_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})

Address = IPv4Interface | IPv6Interface
Gateway = IPv4Address | IPv6Address


class SandboxGone(Exception):
    """The namespace that a link was to be put into is not there any more (its container ended)."""


class NoFreeInterface(Exception):
    """The container has `eth0` to `eth31` already."""


class DeviceTaken(Exception):
    """A device of this name is there and belongs to something else."""


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """A container's link as it must be."""

    endpoint: str  # opaque id, its first 12 characters are in the device's name, the last 4 in the host end's MAC
    device: str
    stamp: str  # whatever must be the same for the link to be the same: endpoint, epoch, sandbox
    netns_path: str
    mac: str
    mtu_bytes: int
    addresses: tuple[Address, ...]
    gateways: tuple[Gateway, ...]
    is_tx_checksum_off: bool

    @property
    def mark(self) -> int:
        """The link group that says which spec the link was completed for."""
        return mark_of(self.stamp)


@dataclass(frozen=True, slots=True)
class Born:
    """A link that exists: its name inside, the host end's index, and whether it was made just now."""

    interface: str
    index: int
    is_new: bool


def mark_of(stamp: str) -> int:
    """31 bits (never 0, the default group) that stand for a stamp in a link's group."""
    return crc32(stamp.encode()) & 0x7FFFFFFF | 1


def host_mac_of(endpoint: str) -> str:
    """The MAC of a host end: locally administered, with the last four characters of the endpoint's id in it."""
    return (b"\x06n" + endpoint.encode()[-4:].rjust(4, b"0")).hex(":")


def endpoint_of(link: Link) -> str:
    """The endpoint whose host end this is, read back from its name and its MAC; empty when it is none of ours."""
    raw = bytes.fromhex(link.mac.replace(":", ""))
    if not link.name.startswith("np") or len(raw) != 6 or raw[:2] != b"\x06n":
        return ""
    return link.name[2:] + raw[2:].decode(errors="replace")


class VethMaker:
    """Makes and removes links; every method may be awaited by several tasks at once. Closed by `close`."""

    def __init__(self) -> None:
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="veth-make")
        self._remover = ThreadPoolExecutor(1, thread_name_prefix="veth-remove")
        self._making: NetlinkSocket | None = None
        self._removing: NetlinkSocket | None = None
        self._home_fd = -1
        self._next_index = _FIRST_INDEX

    async def open(self, used_indexes: Sequence[int] = ()) -> None:
        """The sockets stand; new links are numbered above those of `used_indexes` that are in our range."""
        self._next_index = max([_FIRST_INDEX, *(index + 2 & ~1 for index in used_indexes)])
        loop = asyncio.get_running_loop()
        self._home_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._making = await loop.run_in_executor(self._maker, NetlinkSocket)
        self._removing = await loop.run_in_executor(self._remover, NetlinkSocket)

    async def close(self) -> None:
        """The threads have ended and the sockets are closed; no link is touched."""
        await asyncio.to_thread(self._maker.shutdown)
        await asyncio.to_thread(self._remover.shutdown)
        for open_socket in (self._making, self._removing):
            if open_socket is not None:
                open_socket.close()
        if self._home_fd >= 0:
            os.close(self._home_fd)
            self._home_fd = -1

    async def ensure(self, spec: LinkSpec, on_born: Callable[[Born], None]) -> str:
        """The interface's name inside the container, the link being whole. An existing one is completed.

        `on_born` is called on the event loop as soon as the device exists, before its inner end is configured.

        Raises: `SandboxGone`, `NoFreeInterface`, `DeviceTaken`, `KernelRefused`.
        """
        loop = asyncio.get_running_loop()

        def tell(born: Born) -> None:
            loop.call_soon_threadsafe(on_born, born)

        return await loop.run_in_executor(self._maker, self._ensure, spec, tell)

    async def delete(self, devices: Sequence[str]) -> None:
        """None of these devices exists. Several cost hardly more than one."""
        if devices:
            await asyncio.get_running_loop().run_in_executor(self._remover, self._delete, tuple(devices))

    async def find(self, device: str) -> Link | None:
        """The device as the kernel has it at this moment."""
        return await asyncio.get_running_loop().run_in_executor(self._maker, self._find, device)

    # In the removing thread ----------------------------------------------------------------------------------------

    def _delete(self, devices: Sequence[str]) -> None:
        assert self._removing is not None
        for start in range(0, len(devices), _LINKS_AT_ONCE):
            asked = map(get_link, devices[start : start + _LINKS_AT_ONCE])
            for answer in self._removing.request(*asked, accepting=_GONE):
                self._clear_rules(self._removing, parse_link(answer))
        if len(devices) == 1:
            self._removing.request(delete_link(devices[0]), accepting=_GONE)
            return
        doomed = [set_group(device, _DOOMED_GROUP) for device in devices]
        self._removing.request(*doomed, accepting=_GONE)
        self._removing.request(delete_group(_DOOMED_GROUP), accepting=_GONE)

    def _clear_rules(self, home: NetlinkSocket, link: Link) -> None:
        """Of a link that is among others, no rule is left in its namespace; what cannot be found any more is left."""
        if not link.alias or not endpoint_of(link):
            return
        with suppress(SandboxGone, KernelRefused), open_netns(link.alias) as netns_fd:
            if parse_nsid(home.request(get_nsid(netns_fd))[0]) != link.peer_nsid:
                return  # the path leads to another namespace by now
            with self._inside(netns_fd):
                inner = NetlinkSocket()
                try:
                    clear_rules(inner, link.peer_index)
                finally:
                    inner.close()

    # In the making thread ------------------------------------------------------------------------------------------

    def _ensure(self, spec: LinkSpec, tell: Callable[[Born], None]) -> str:
        with open_netns(spec.netns_path) as netns_fd:
            made = self._create(spec, netns_fd)
            if made is not None:
                tell(Born(made.peer, made.index, is_new=True))
                try:
                    with self._inside(netns_fd):
                        is_among_others = _configure(spec, made.peer, made.peer_index)
                except (KernelRefused, SandboxGone):
                    self._request(delete_link(spec.device), accepting=_GONE)  # half a link would look like a whole one
                    raise
                if is_among_others:
                    self._request(set_alias(spec.device, spec.netns_path))
                return made.peer
            return self._complete(spec, netns_fd, tell)

    def _request(self, *messages: Message, accepting: frozenset[int] = frozenset()) -> list[bytes]:
        assert self._making is not None
        return self._making.request(*messages, accepting=accepting)

    def _create(self, spec: LinkSpec, netns_fd: int) -> VethPair | None:
        """The pair just made; None when there is one of this endpoint in this namespace already."""
        number = 0
        busy = 0
        is_vanished = False  # a device of this name was in the way a moment ago, and is gone
        while number < _INTERFACE_LIMIT:
            index = self._next_index
            self._next_index += 2
            pair = VethPair(
                device=spec.device,
                index=index,
                host_mac=host_mac_of(spec.endpoint),
                group=spec.mark,
                peer=f"eth{number}",
                peer_index=index + 1,
                peer_mac=spec.mac,
                peer_netns_fd=netns_fd,
                mtu_bytes=spec.mtu_bytes,
            )
            try:
                self._request(new_veth(pair))
            except KernelRefused as refusal:
                if refusal.errno == errno.EBUSY and (busy := busy + 1) < _BUSY_LIMIT:
                    continue  # an index in use
                if refusal.errno == errno.EINVAL and not refusal.text:
                    raise KernelRefused(errno.EINVAL, f"a link with an MTU of {spec.mtu_bytes}", 0) from refusal
                if refusal.errno != errno.EEXIST:
                    raise
                present = self._find(spec.device)
                if present is None and not is_vanished:
                    is_vanished = True  # perhaps: it may have been dying with its old container
                elif present is None:
                    number += 1  # so it is the name inside
                    is_vanished = False
                elif self._is_right(present, spec, netns_fd):
                    return None
                else:
                    assert self._making is not None
                    self._clear_rules(self._making, present)
                    self._request(delete_link(spec.device), accepting=_GONE)
                continue
            _silence(spec.device)
            return pair
        raise NoFreeInterface(f"the container has eth0 to eth{_INTERFACE_LIMIT - 1} already")

    def _find(self, device: str) -> Link | None:
        answers = self._request(get_link(device), accepting=_GONE)
        return parse_link(answers[0]) if answers else None

    def _is_right(self, present: Link, spec: LinkSpec, netns_fd: int) -> bool:
        """Whether the device's peer is in this namespace. Raises: `DeviceTaken` when it is another endpoint's."""
        if endpoint_of(present) != spec.endpoint:
            raise DeviceTaken(f"a device {spec.device} is there and was not made for endpoint {spec.endpoint}")
        nsid = parse_nsid(self._request(get_nsid(netns_fd))[0])
        return nsid != -1 and nsid == present.peer_nsid

    def _complete(self, spec: LinkSpec, netns_fd: int, tell: Callable[[Born], None]) -> str:
        """What may be missing of a link that exists is put right; its mark comes last."""
        present = self._find(spec.device)
        if present is None:
            raise KernelRefused(errno.ENODEV, f"{spec.device} vanished", 0)
        with self._inside(netns_fd):
            inner_socket = NetlinkSocket()
            try:
                inner = parse_link(inner_socket.request(get_link_by_index(present.peer_index))[0])
                tell(Born(inner.name, present.index, is_new=False))
                inner_socket.request(set_mac_and_mtu(inner.index, spec.mac, spec.mtu_bytes))
            finally:
                inner_socket.close()
            is_among_others = _configure(spec, inner.name, inner.index)
        self._request(set_up_promiscuous(present.index, spec.mtu_bytes))
        if is_among_others and present.alias != spec.netns_path:
            self._request(set_alias(spec.device, spec.netns_path))
        if present.group != spec.mark:
            self._request(set_group(spec.device, spec.mark))
        return inner.name

    @contextmanager
    def _inside(self, netns_fd: int) -> Iterator[None]:
        """This thread is in the namespace, and afterwards at home again.

        Raises: `SandboxGone`. Not coming home is a bug that must end the process: every later link would go astray.
        """
        try:
            enter_netns(netns_fd)
        except OSError as error:
            raise SandboxGone(f"its network namespace cannot be entered: {error.strerror}") from error
        try:
            yield
        finally:
            enter_netns(self._home_fd)


def _configure(spec: LinkSpec, interface: str, index: int) -> bool:
    """The inner end, in the calling thread's namespace: addresses, both links up, a default route if there is none.

    Whether there are other interfaces: then it has rules there, to be taken away with it.
    """
    if spec.is_tx_checksum_off:
        switch_off_tx_checksum(interface)
    versions = {address.version for address in spec.addresses}
    if 6 in versions:
        if spec.mtu_bytes < _IPV6_MTU_MIN:
            wanted = f"IPv6 needs an MTU of {_IPV6_MTU_MIN} at least, found {spec.mtu_bytes}"
            raise KernelRefused(errno.EINVAL, wanted, 0)
        _allow_ipv6(interface)
    inner = NetlinkSocket()
    try:
        routes: list[Message] = []
        for gateway in spec.gateways:
            family = socket.AF_INET if gateway.version == 4 else socket.AF_INET6
            if gateway.version in versions and not inner.has_default_route(family):
                routes.append(add_default_route(index, gateway))
        addresses = [add_address(index, address) for address in spec.addresses]
        inner.request(*addresses, set_up(_LOOPBACK_INDEX), set_up(index))
        if routes:
            inner.request(*routes, accepting=_EXISTS)
        links = inner.list_links()
        if not is_among_others(links, index):
            return False
        route_by_source(inner, index, spec.addresses, spec.gateways, links)
        return True
    finally:
        inner.close()


def _allow_ipv6(interface: str) -> None:
    """IPv6 on the interface though Docker's default is off, with no address or route taken from advertisements.

    Its link-local address is the one that is made of its MAC: the rules know no other.
    """
    for setting, value in (("addr_gen_mode", "0"), ("disable_ipv6", "0"), ("accept_ra", "0"), ("accept_dad", "0")):
        path = _IPV6_SETTINGS / interface / setting
        try:
            path.write_text(value)
        except OSError as error:
            raise KernelRefused(error.errno or errno.EIO, f"writing {value} to {path}", 0) from error


def _silence(device: str) -> None:
    """The host has no IPv6 on the host end, answers no ARP there, and takes nothing in for which it has no way back.

    With the data path in user space its own stack hears what containers send: see `drivers/ovs_shield.py`.
    """
    settings = (
        (_IPV6_SETTINGS / device / "disable_ipv6", "1"),
        (_IPV4_SETTINGS / device / "arp_ignore", _ANSWER_NOTHING),
        (_IPV4_SETTINGS / device / "rp_filter", "1"),
    )
    for path, value in settings:
        with suppress(OSError):  # a kernel without the one protocol
            path.write_text(value)


@contextmanager
def open_netns(path: str) -> Iterator[int]:
    """A descriptor of the network namespace at a path, closed at the end. Raises: SandboxGone, KernelRefused."""
    try:
        netns_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _OUT_OF_FILES:
            raise KernelRefused(error.errno, f"opening {path}", 0) from error
        raise SandboxGone(f"its network namespace {path} is not there: {error.strerror}") from error
    try:
        if not _is_netns(netns_fd):
            raise SandboxGone(f"{path} is not a network namespace")
        yield netns_fd
    finally:
        os.close(netns_fd)


def _is_netns(fd: int) -> bool:
    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        return False  # ENOTTY: no namespace at all


_libc: Final = ctypes.CDLL(None, use_errno=True)


def enter_netns(netns_fd: int) -> None:
    """The calling thread is in this network namespace from now on. Raises: OSError."""
    if _libc.setns(netns_fd, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
