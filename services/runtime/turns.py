"""Whose turn it is to write an aggregate: first come, first served, one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec


class _Turn(msgspec.Struct):
    lock: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)
    users: int = 0


class Turns:
    """A lock for each aggregate that somebody writes or waits to write; of others nothing is kept."""

    def __init__(self) -> None:
        self._turns: dict[str, _Turn] = {}

    def __len__(self) -> int:
        return len(self._turns)

    @asynccontextmanager
    async def of(self, aggregates: Sequence[str]) -> AsyncIterator[None]:
        """Nobody else has the turn of any of these. They are in ascending order, so no two wait for each other."""
        turns = [self._turns.setdefault(aggregate, _Turn()) for aggregate in aggregates]
        held: list[_Turn] = []
        for turn in turns:
            turn.users += 1
        try:
            for turn in turns:
                await turn.lock.acquire()
                held.append(turn)
            yield
        finally:
            for turn in reversed(held):
                turn.lock.release()
            for aggregate, turn in zip(aggregates, turns, strict=True):
                turn.users -= 1
                if not turn.users:
                    del self._turns[aggregate]
