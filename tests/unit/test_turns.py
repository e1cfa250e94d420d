"""Who writes an aggregate waits for its turn."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from services.runtime.turns import Turns

pytestmark = pytest.mark.anyio


async def test_first_come_first_served_and_nothing_is_kept() -> None:
    turns = Turns()
    order: list[str] = []

    async def take(name: str, *aggregates: str) -> None:
        async with turns.of(aggregates):
            order.append(name)
            await anyio.lowlevel.checkpoint()
            order.append(name)

    async with anyio.create_task_group() as tasks:
        for name, aggregates in (("x", "a"), ("y", "ab"), ("z", "b"), ("w", "a"), ("v", "abc")):
            tasks.start_soon(take, name, *aggregates)
    assert sorted(order) == sorted("xxyyzzwwvv")
    assert order.index("x") < order.index("y") < order.index("v")
    assert len(turns) == 0


async def test_who_gives_up_waiting_is_forgotten_and_blocks_nobody() -> None:
    turns = Turns()
    async with anyio.create_task_group() as tasks:
        is_held = anyio.Event()

        async def hold() -> None:
            async with turns.of(("b",)):
                is_held.set()
                await anyio.sleep_forever()

        tasks.start_soon(hold)
        await is_held.wait()
        with anyio.move_on_after(0.01):
            async with turns.of(("a", "b", "c")):
                pytest.fail("b is held")
        async with turns.of(("a", "c")):
            assert len(turns) == 3
        tasks.cancel_scope.cancel()
    assert len(turns) == 0
