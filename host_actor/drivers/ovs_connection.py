"""A connection to a unix socket that is made again whenever it ends.

One task owns the connecting. Between attempts it waits for the kernel to tell that something appeared in the socket's
folder (inotify), and in any case not longer than the back-off.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

import structlog

from services.runtime.errors import Unavailable

_FIRST_BACK_OFF_S: Final = 0.02
_LONGEST_BACK_OFF_S: Final = 1.0
_IN_CREATE, _IN_MOVED_TO, _IN_ATTRIB = 0x100, 0x80, 0x4
_IN_NONBLOCK_CLOEXEC: Final = os.O_NONBLOCK | os.O_CLOEXEC

log = structlog.get_logger()
_libc: Final = ctypes.CDLL(None, use_errno=True)


class Closable(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=Closable)
Connect = Callable[[Callable[[], None]], Awaitable[C]]


class KeptConnection(Generic[C]):
    """What `connect` made, as long as it stands.

    `connect(on_lost)` makes one connection, complete with all that must be asked on it first, or leaves none behind and
    raises `Unavailable`.
    `on_down(reason)` is called when it ended, `on_up()` when it is there again.
    """

    def __init__(
        self, path: Path, connect: Connect[C], on_up: Callable[[], None], on_down: Callable[[str], None]
    ) -> None:
        self.path = path
        self._connect = connect
        self._on_up = on_up
        self._on_down = on_down
        self._connection: C | None = None
        self._lost = asyncio.Event()
        self._up = asyncio.Event()
        self.has_been_up = False
        self._keeper: asyncio.Task[None] | None = None

    @property
    def connection(self) -> C:
        """The present connection. Raises: `Unavailable` while there is none."""
        if self._connection is None:
            if self._keeper is not None and self._keeper.done() and not self._keeper.cancelled():
                self._keeper.result()  # a bug that ended it is not passed over
            raise Unavailable(f"{self.path} does not answer", retry_after_s=_LONGEST_BACK_OFF_S)
        return self._connection

    @property
    def is_up(self) -> bool:
        """Whether there is a connection now."""
        return self._connection is not None

    async def open(self) -> None:
        """The first connection stands. Raises: `Unavailable` when nobody listens; nothing is tried again then."""
        await self._attempt()
        self.has_been_up = True
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.path.name}")

    def open_when_there(self) -> None:
        """From now on the connection is made as soon as somebody listens."""
        self._lost.set()
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.path.name}")

    async def until_up(self, within_s: float) -> C:
        """The connection, once there is one. Raises: `Unavailable` when that takes too long."""
        try:
            async with asyncio.timeout(within_s):
                await self._up.wait()
        except TimeoutError as error:
            raise Unavailable(f"{self.path} did not answer within {within_s:g} s") from error
        return self.connection

    async def close(self) -> None:
        """The connection is closed and not made again."""
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _attempt(self) -> None:
        self._lost.clear()
        self._connection = await self._connect(self._ended)
        self._up.set()

    def _ended(self) -> None:
        was_up = self._connection is not None
        self._connection = None
        self._up.clear()
        self._lost.set()
        if was_up:
            self._on_down(f"{self.path} ended the connection")

    async def _keep(self) -> None:
        while True:
            await self._lost.wait()
            with _FolderWatch(self.path.parent) as folder:
                await self._retry(folder)
            if self.has_been_up:
                self._on_up()
            self.has_been_up = True

    async def _retry(self, folder: _FolderWatch) -> None:
        back_off_s = _FIRST_BACK_OFF_S
        while True:
            folder.changed.clear()
            try:
                await self._attempt()
            except Unavailable as reason:
                log.debug("not-connected", path=str(self.path), reason=reason.detail)
            else:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(back_off_s):
                    await folder.changed.wait()
            back_off_s = min(back_off_s * 2, _LONGEST_BACK_OFF_S)


class _FolderWatch:
    """Sets `changed` when a file appears in a folder; never, when the folder itself is not there."""

    def __init__(self, folder: Path) -> None:
        self.changed = asyncio.Event()
        self._fd = _libc.inotify_init1(_IN_NONBLOCK_CLOEXEC)
        if self._fd >= 0:
            _libc.inotify_add_watch(self._fd, os.fsencode(folder), _IN_CREATE | _IN_MOVED_TO | _IN_ATTRIB)

    def __enter__(self) -> _FolderWatch:
        if self._fd >= 0:
            asyncio.get_running_loop().add_reader(self._fd, self._read)
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._fd, 1 << 16)
        self.changed.set()
