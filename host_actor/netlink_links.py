"""The links of this host whose name has our prefix, kept current by the kernel's own announcements.

An attach causes half a dozen announcements, so each is read with a few bytes' work. When the kernel had to drop some,
all links are listed again.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Final

from .netlink import RTM_DELLINK, RTM_NEWLINK, Link, NetlinkSocket, parse_link, split

_RTMGRP_LINK: Final = 1
_RECEIVE_QUEUE_BYTES: Final = 4 << 20
_SO_RCVBUFFORCE: Final = 33


async def list_links(prefix: str) -> dict[str, Link]:
    """All links of this namespace whose name begins with `prefix`, by name."""
    return await asyncio.to_thread(_list_links, prefix)


def _list_links(prefix: str) -> dict[str, Link]:
    asking = NetlinkSocket()
    try:
        return {link.name: link for link in asking.list_links() if link.name.startswith(prefix)}
    finally:
        asking.close()


class LinkTable:
    """A copy of the kernel's links by name, and a call for every change of it: `on_change(name, before, after)`."""

    def __init__(self, prefix: str, on_change: Callable[[str, Link | None, Link | None], None]) -> None:
        self._prefix = prefix
        self._on_change = on_change
        self._socket: socket.socket | None = None
        self._listing: asyncio.Task[None] | None = None
        self.links: dict[str, Link] = {}

    async def open(self) -> None:
        """The table is current and stays so."""
        monitor = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
        monitor.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_QUEUE_BYTES)
        monitor.bind((0, _RTMGRP_LINK))
        self._socket = monitor
        self.links = await list_links(self._prefix)
        asyncio.get_running_loop().add_reader(monitor, self._read)

    async def close(self) -> None:
        """The table is no longer kept current."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        if self._listing is not None:
            self._listing.cancel()

    def _read(self) -> None:
        assert self._socket is not None
        while True:
            try:
                raw = self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._listing = asyncio.get_running_loop().create_task(self._list_again())
                return
            for kind, _flags, _sequence, body in split(raw):
                if kind in (RTM_NEWLINK, RTM_DELLINK) and body[0] == socket.AF_UNSPEC:
                    self._changed(kind, body)

    def _changed(self, kind: int, body: bytes) -> None:
        if self._prefix.encode() not in body:
            return
        link = parse_link(body)
        if not link.name.startswith(self._prefix):
            return
        if kind == RTM_DELLINK:
            if (gone := self.links.pop(link.name, None)) is not None:
                self._on_change(link.name, gone, None)
        elif (before := self.links.get(link.name)) != link:
            self.links[link.name] = link
            self._on_change(link.name, before, link)

    async def _list_again(self) -> None:
        """What changed while announcements were lost is found by comparing lists."""
        before, self.links = self.links, await list_links(self._prefix)
        for name in before.keys() | self.links.keys():
            if before.get(name) != self.links.get(name):
                self._on_change(name, before.get(name), self.links.get(name))
