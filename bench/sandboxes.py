"""Network namespaces that stand for containers, and the first answered ping out of one.

A sandbox's raw ICMP socket is made when the sandbox is, inside it, by a thread that ends there: so no attach waits for
a socket, and the caller's own namespace never changes.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import itertools
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

CLONE_NEWNET: Final = 0x40000000
MS_BIND: Final = 0x1000
MNT_DETACH: Final = 2
NAMED: Final = Path("/run/netns")
RETRY_S: Final = 0.0005
PING_WITHIN_S: Final = 5.0
EMPTY_WITHIN_S: Final = 30.0
LOOK_EVERY_S: Final = 0.003
ECHO_REPLY: Final = 0
ECHO_REQUEST: Final = 8
SOL_RAW: Final = 255
SIOCGIFINDEX: Final = 0x8933

T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)
_identifiers = itertools.cycle(range(1, 0xFFFF))


class NoAnswer(Exception):
    """Nobody answered a ping in time."""


class Sandbox:
    """A network namespace, by the path that names it, with an ICMP socket inside."""

    def __init__(self, path: Path, icmp: socket.socket) -> None:
        self.path = path
        self.name = path.name
        self._icmp = icmp

    def ping(self, target: str) -> float:
        """When (`time.perf_counter`) the first ping was answered. Raises: NoAnswer.

        The next one is sent after 0.5 ms, and after an eighth of the time already waited when that is longer: sixteen
        of these at once must not be what the switch is busy with.
        """
        identifier = next(_identifiers)
        began_s = now_s = time.perf_counter()
        number = 0
        while now_s < began_s + PING_WITHIN_S:
            number += 1
            self._send(target, echo_request(identifier, number))
            if self._is_answered(identifier, now_s + max(RETRY_S, (now_s - began_s) / 8)):
                return time.perf_counter()
            now_s = time.perf_counter()
        raise NoAnswer(f"{self.name}: {target} answered none of {number} pings within {PING_WITHIN_S:g} s")

    async def emptied(self) -> None:
        """Returns when there is no `eth0` in it any more. Raises: TimeoutError."""
        async with asyncio.timeout(EMPTY_WITHIN_S):
            while self._has_interface():  # noqa: ASYNC110  (a few milliseconds that nobody measures)
                await asyncio.sleep(LOOK_EVERY_S)

    def _has_interface(self) -> bool:
        try:
            fcntl.ioctl(self._icmp, SIOCGIFINDEX, struct.pack("16s16x", b"eth0"))
        except OSError:
            return False
        return True

    def _send(self, target: str, packet: bytes) -> None:
        try:
            self._icmp.sendto(packet, (target, 0))
        except OSError:
            return  # no route yet, or the kernel's queue is full: the next one is due in half a millisecond

    def _is_answered(self, identifier: int, until_s: float) -> bool:
        while (left_s := until_s - time.perf_counter()) > 0:
            if not select.select([self._icmp], [], [], left_s)[0]:
                return False
            try:
                packet = self._icmp.recv(2048)
            except OSError:
                continue  # an ICMP error about an earlier one
            if identifier == answered_identifier(packet):
                return True
        return False

    def close(self) -> None:
        """The socket is closed; a namespace named by us is gone."""
        self._icmp.close()
        if self.path.parent == NAMED:
            _libc.umount2(bytes(self.path), MNT_DETACH)
            self.path.unlink(missing_ok=True)


def make(names: Iterable[str]) -> list[Sandbox]:
    """New namespaces under these names in /run/netns."""
    return [in_thread(partial(_make_here, name)) for name in names]


def look_into(path: Path) -> Sandbox:
    """The sandbox of a namespace that is there."""
    return call_inside(path, lambda: Sandbox(path, icmp_socket()))


def _make_here(name: str) -> Sandbox:
    """The calling thread's new namespace: the thread must end with it."""
    _checked(_libc.unshare(CLONE_NEWNET), f"unshare for {name}")
    path = NAMED / name
    path.touch()
    _checked(_libc.mount(b"/proc/thread-self/ns/net", bytes(path), None, MS_BIND, None), f"mount on {path}")
    return Sandbox(path, icmp_socket())


def enter(path: Path) -> None:
    """The calling thread, and what it starts, is in this namespace."""
    with path.open("rb") as handle:
        _checked(_libc.setns(handle.fileno(), CLONE_NEWNET), f"setns to {path}")


def call_inside(path: Path, function: Callable[[], T]) -> T:
    """What `function` returns when called in this namespace, by a thread of its own."""

    def inside() -> T:
        enter(path)
        return function()

    return in_thread(inside)


def in_thread(function: Callable[[], T]) -> T:
    """What `function` returns, called in a new thread that then ends."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(function).result()


def icmp_socket() -> socket.socket:
    """A raw ICMP socket of the calling thread's namespace that is given echo replies alone."""
    made = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP)
    made.setsockopt(SOL_RAW, 1, struct.pack("=I", 0xFFFFFFFF & ~(1 << ECHO_REPLY)))  # ICMP_FILTER
    return made


def echo_request(identifier: int, number: int) -> bytes:
    """An ICMP echo request (RFC 792)."""
    head = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, identifier, number & 0xFFFF)
    total = sum(struct.unpack("!4H", head))
    total = (total >> 16) + (total & 0xFFFF)
    return head[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[4:]


def answered_identifier(packet: bytes) -> int:
    """The identifier in an echo reply, as a raw socket gives it, with its IP header; -1 for anything else."""
    icmp = packet[(packet[0] & 15) * 4 :]
    if len(icmp) < 8 or icmp[0] != ECHO_REPLY:
        return -1
    return int.from_bytes(icmp[4:6], "big")


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
