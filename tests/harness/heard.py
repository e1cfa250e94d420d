"""What a runtime told, in order, and waiting for the next of a kind."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from host_actor.runtimes.contract import Died, Resync, RuntimeEvent, Started

Event = TypeVar("Event", Started, Died, Resync)
WITHIN_S = 30.0


class Heard:
    """Give it to `open` as `on_event`."""

    def __init__(self) -> None:
        self.events: list[RuntimeEvent] = []
        self._more = asyncio.Event()

    def __call__(self, event: RuntimeEvent) -> None:
        self.events.append(event)
        self._more.set()

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    async def wait_until(self, event: RuntimeEvent, within_s: float = WITHIN_S) -> None:
        """`event` was told. An engine repeats what it told shortly before it was asked: others may come first."""
        async with asyncio.timeout(within_s):
            while event not in self.events:
                self._more.clear()
                await self._more.wait()

    async def wait_for(self, kind: type[Event], count: int = 1, within_s: float = WITHIN_S) -> Event:
        """The `count`-th event of this kind."""
        async with asyncio.timeout(within_s):
            while len(found := self.of(kind)) < count:
                self._more.clear()
                await self._more.wait()
        return found[count - 1]
