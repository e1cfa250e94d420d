"""What the switch may still do with packets by rules that are gone.

Open vSwitch remembers what it did with a packet and does the same with the next ones, until a revalidator has compared
that with the rules of now; what it remembers of a port that went becomes "drop", and stays for as long as such packets
come, and `max-idle` longer (10 s). So the first packets to a MAC that comes back within that time (a container that is
started again, an address that goes to another, a port that is put back) are lost, unless somebody waits: about 2 ms.

`ovs-appctl revalidator/wait` returns at the end of the round that is under way, or of the next, which begins when a
rule changes (else within 0.5 s: `max-revalidator`). A round that began after the change is the second to end from now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog

from services.runtime.errors import Unavailable

from ..unixctl import CommandRefused, ask

REMEMBERED_S: Final = 11.0  # `max-idle` of Open vSwitch, and one for the revalidators to come round
WITHIN_S: Final = 1.0
_ROUNDS: Final = 2

log = structlog.get_logger()

Place = tuple[int, str]  # the network's key, and a MAC in it


class StaleFlows:
    """Knows which MACs the switch may remember. `touch_rules` changes a rule into itself: a round begins."""

    def __init__(self, run_dir: Path, touch_rules: Callable[[], Awaitable[None]]) -> None:
        self._run_dir = run_dir
        self._touch_rules = touch_rules
        self._unsure_until_s = 0.0
        self._place_of: dict[str, Place] = {}  # device -> where it is
        self._left_at_s: dict[Place, float] = {}  # in the order of time
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None
        self._is_said = False

    def begin(self) -> None:
        """Nobody knows what went before now."""
        self._unsure_until_s = _now_s() + REMEMBERED_S

    def came(self, device: str, place: Place) -> None:
        """The rules of this device stand."""
        self._place_of[device] = place

    def knows(self, device: str) -> bool:
        """Whether the rules of this device stood, as far as this process has heard."""
        return device in self._place_of

    def went(self, device: str) -> None:
        """The rules of this device are gone, or about to be other ones."""
        now_s = _now_s()
        place = self._place_of.pop(device, None)
        if place is None:
            self._unsure_until_s = now_s + REMEMBERED_S
            return
        self._left_at_s.pop(place, None)
        self._left_at_s[place] = now_s
        while self._left_at_s[oldest := next(iter(self._left_at_s))] < now_s - REMEMBERED_S:
            del self._left_at_s[oldest]

    def may_be_remembered(self, place: Place) -> bool:
        """Whether the switch may still do with packets to this MAC what it did before."""
        now_s = _now_s()
        return now_s < self._unsure_until_s or now_s < self._left_at_s.get(place, -REMEMBERED_S) + REMEMBERED_S

    async def forgotten(self) -> None:
        """Packets are judged by the rules that stood when this was called. Given up after a second, and said."""
        if self._next is None:
            self._next = asyncio.create_task(self._wait(), name="stale flows")
        await asyncio.shield(self._next)

    async def _wait(self) -> None:
        async with self._lock:
            self._next = None
            try:
                async with asyncio.timeout(WITHIN_S):
                    for _ in range(_ROUNDS):
                        await asyncio.gather(ask(self._run_dir, "revalidator/wait"), self._touch_rules())
            except (CommandRefused, Unavailable, TimeoutError) as reason:
                if not self._is_said:
                    log.warning("stale-flows-not-awaited", reason=str(reason) or f"no answer within {WITHIN_S:g} s")
                self._is_said = True


def _now_s() -> float:
    return asyncio.get_running_loop().time()
