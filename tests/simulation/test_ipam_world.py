"""Two copies of ipam in seeded worlds of lost acknowledgements, races and crashes; and twins of the code that must
fail.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from services.runtime.journal import Appended, Draft, Expectation
from services.runtime.journal_memory import MemoryJournal

from .world import World, check


class BlindJournal(MemoryJournal):
    """A twin without optimistic concurrency: it does not look at what the decision was made on."""

    async def append(self, drafts: Sequence[Draft], expectations: Sequence[Expectation]) -> Appended:
        return await super().append(drafts, [])


class ForgetfulJournal(MemoryJournal):
    """A twin that records a repeated message again."""

    def _known(self, draft: Draft) -> int:
        return 0

    async def append(self, drafts: Sequence[Draft], expectations: Sequence[Expectation]) -> Appended:
        return await super().append(drafts, [])


def outcome(seed: int, make_journal: type[MemoryJournal] = MemoryJournal) -> str:
    """What does not hold in the world of this seed; empty when all does."""
    world = World(seed, make_journal)
    faults: list[str] = []
    try:
        anyio.run(world.run)
        check(world)
    except* (AssertionError, KeyError, RuntimeError) as group:  # a copy that stumbles takes no more commands
        faults.append(repr(group.exceptions[0]))
    return "".join(faults)


@pytest.mark.parametrize("seed", range(40))
def test_everything_holds_in_any_world(seed: int) -> None:
    assert outcome(seed) == "", f"seed {seed}"


@pytest.mark.long
@pytest.mark.parametrize("first_seed", range(1000, 2000, 100))
def test_everything_holds_in_many_worlds(first_seed: int) -> None:
    failed = {seed: fault for seed in range(first_seed, first_seed + 100) if (fault := outcome(seed))}
    assert failed == {}


@pytest.mark.parametrize("make_journal", [BlindJournal, ForgetfulJournal])
def test_the_twin_fails(make_journal: type[MemoryJournal]) -> None:
    failed = [seed for seed in range(20) if outcome(seed, make_journal)]
    assert len(failed) >= 10, f"a broken journal was noticed in {len(failed)} of 20 worlds only"


def test_a_seed_is_one_world() -> None:
    def transcript(seed: int) -> list[tuple[int, str, bytes]]:
        world = World(seed)
        anyio.run(world.run)
        return [(each.seq, each.subject, each.payload) for each in world.journal.events]

    assert transcript(7) == transcript(7)
    assert transcript(7) != transcript(8)
