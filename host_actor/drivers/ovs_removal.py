"""Ports leave the switch one after the other, with pauses in which it forwards.

Each port that is taken away keeps the user-space data path from forwarding for some 14 ms (closing its packet socket
waits for the kernel), and each link that vanishes for some more (it looks at all its ports again); a hundred ports in
one transaction stopped a host for 1.4 s, ten links deleted as one group for 40 ms. The flows are gone by then, so
nobody waits for anything but the tidying up.

That is why a port may be reported gone while its row and link still wait here. What an address must rest for is that
nobody can use it any more, and a port without flows can neither send nor receive: its entry in CLASSIFY was taken away
by a committed bundle, and its number is given to nobody as long as the row has it. User-space forwarding drops what it
had cached of the old flows within its next revalidation (0.5 s at most: `max-revalidator`), inside the 2 s that the
address rests after the report. Should the process end here, the next start finds the row, and no binding for it.

One task owns the queue; it ends when the queue is empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

import structlog

from services.runtime.errors import Unavailable

from ..netlink import KernelRefused
from ..ovsdb import TransactionRefused

log = structlog.get_logger()

PAUSE_S: Final = 0.025


class PacedRemoval:
    """Takes devices out of the switch (`remove_port`, paced) and then out of the kernel (`remove_links`)."""

    def __init__(
        self,
        remove_port: Callable[[str], Awaitable[bool]],
        remove_links: Callable[[Sequence[str]], Awaitable[None]],
    ) -> None:
        self._remove_port = remove_port
        self._remove_links = remove_links
        self._waiting: list[str] = []
        self._sandboxes: dict[str, str] = {}  # device not yet gone -> key of the sandbox that it leaves
        self._task: asyncio.Task[None] | None = None
        self.pending: dict[str, asyncio.Future[None]] = {}  # every device not yet gone

    def add(self, device: str, sandbox_key: str = "") -> asyncio.Future[None]:
        """Done when nothing of the device is left, nor of its other end in the sandbox.

        Fails with `Unavailable` when the switch went away first, with `KernelRefused` or `TransactionRefused` when this
        one could not be removed: it is there then, for the next observation to find.
        """
        gone = self.pending.get(device)
        if gone is None:
            gone = self.pending[device] = asyncio.get_running_loop().create_future()
            self._waiting.append(device)
            self._sandboxes[device] = sandbox_key
            if self._task is None or self._task.done():
                if self._task is not None:
                    self._task.result()  # a bug that ended it is not passed over
                self._task = asyncio.create_task(self._run(), name="paced removal")
        return gone

    async def make_room(self, device: str, sandbox_key: str) -> None:
        """Return when this device has left, and whatever else leaves that sandbox: they are taken next.

        An interface that is still there would keep its name and its route. What could not be removed is left to the
        caller to find.
        """
        leaving = {each for each in self.pending if each == device or self._sandboxes.get(each) == sandbox_key}
        if leaving:
            self._waiting.sort(key=lambda each: each not in leaving)
            await asyncio.wait([self.pending[each] for each in leaving])

    async def close(self) -> None:
        """Nothing is removed any more; what was waiting stays, with its row, to be found by the next observation."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._give_up(Unavailable("the driver was closed"))

    async def _run(self) -> None:
        try:
            while self._waiting:
                device = self._waiting.pop(0)
                try:
                    if await self._remove_port(device):
                        await asyncio.sleep(PAUSE_S)
                    await self._remove_links([device])
                except (KernelRefused, TransactionRefused) as refusal:
                    log.warning("port-not-removed", device=device, reason=str(refusal))
                    _fail(self._forget(device), refusal)
                else:
                    gone = self._forget(device)
                    if not gone.done():  # whoever waited may have been cancelled
                        gone.set_result(None)
                if self._waiting:
                    await asyncio.sleep(PAUSE_S)
        except Unavailable as away:
            self._give_up(away)
        except Exception as bug:
            self._give_up(bug)
            raise

    def _forget(self, device: str) -> asyncio.Future[None]:
        del self._sandboxes[device]
        return self.pending.pop(device)

    def _give_up(self, reason: Exception) -> None:
        self._waiting.clear()
        self._sandboxes.clear()
        left, self.pending = self.pending, {}
        for gone in left.values():
            _fail(gone, reason)


def _fail(gone: asyncio.Future[None], reason: Exception) -> None:
    if not gone.done():
        gone.set_exception(reason)
        gone.exception()  # whoever waits still gets it; nobody waiting is no error
