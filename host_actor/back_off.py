"""Trying again after a while that doubles, for each of many things by name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

FIRST_S = 0.1
MAX_S = 15.0


def delay_s(attempts: int, first_s: float = FIRST_S, max_s: float = MAX_S) -> float:
    """How long to wait after so many failures (1, 2, ...): `first_s`, then twice as long each time, at most `max_s`."""
    return min(max_s, first_s * 2.0 ** min(attempts - 1, 30))


class Retries:
    """Timers of the event loop, one a name; `again(name)` is called when one is due."""

    def __init__(self, again: Callable[[str], None]) -> None:
        self._again = again
        self._attempts: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def later(self, name: str) -> None:
        """Try again later than the last time. One that waits already starts anew."""
        self._cancel(name)
        attempts = self._attempts[name] = self._attempts.get(name, 0) + 1
        self._timers[name] = asyncio.get_running_loop().call_later(delay_s(attempts), self._due, name)

    def succeeded(self, name: str) -> None:
        """No need to try again; the next failure is the first."""
        self._attempts.pop(name, None)
        self._cancel(name)

    def close(self) -> None:
        """Nothing is tried again."""
        for name in list(self._timers):
            self._cancel(name)

    def _due(self, name: str) -> None:
        del self._timers[name]
        self._again(name)

    def _cancel(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()
