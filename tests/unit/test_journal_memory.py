"""The failures that the journal's twin makes on demand. What it shares with the real one is in tests/contract."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

import anyio
import pytest

from messages import subjects
from services.runtime.errors import JournalFull, OutcomeUnknown, Unavailable
from services.runtime.journal import MESSAGE_ID_HEADER, Appended, Draft, Expectation, Recorded
from services.runtime.journal_memory import DUPLICATE_WINDOW_S, Fault, MemoryJournal

pytestmark = pytest.mark.anyio

WEB = subjects.network_aggregate("acme", "web")
BOUND = subjects.network_event("acme", "web", "endpoint-bound", "h1")


def draft(message_id: str) -> Draft:
    return Draft(BOUND, b"\x80", {MESSAGE_ID_HEADER: message_id})


@pytest.mark.parametrize(
    ("fault", "error", "is_written"),
    [
        (Fault.AWAY, Unavailable, False),
        (Fault.FULL, JournalFull, False),
        (Fault.LOST, OutcomeUnknown, False),
        (Fault.ACK_LOST, OutcomeUnknown, True),
    ],
)
async def test_fault_says_what_became_of_the_append(fault: Fault, error: type[Unavailable], is_written: bool) -> None:
    faults = [fault]

    async def disturb(_: Sequence[Draft]) -> Fault:
        return faults.pop() if faults else Fault.NONE

    journal = MemoryJournal(disturb=disturb)
    with pytest.raises(Unavailable) as caught:
        await journal.append([draft("a")], [Expectation(WEB, 0)])
    assert type(caught.value) is error
    assert len(journal.events) == is_written
    assert await journal.append([draft("a")], [Expectation(WEB, 0)]) == Appended(1, is_repeated=is_written)


async def test_message_id_is_forgotten_after_the_window() -> None:
    now_ns = [10**18]
    journal = MemoryJournal(clock_ns=lambda: now_ns[0])
    await journal.append([draft("a")], [])
    now_ns[0] += DUPLICATE_WINDOW_S * 10**9 - 1
    assert await journal.append([draft("a")], []) == Appended(1, is_repeated=True)
    now_ns[0] += 1
    assert await journal.append([draft("a")], []) == Appended(2)
    assert [each.at_ns for each in journal.events] == [10**18, now_ns[0]]


async def test_followers_of_a_journal_that_is_away_go_on_when_it_is_back() -> None:
    journal = MemoryJournal()
    await journal.append([draft("a")], [])
    async with aclosing(journal.follow([WEB])) as events:
        assert (await anext(events)).seq == 1
        await journal.append([draft("b")], [])
        journal.set_away(True)
        with pytest.raises(Unavailable):
            await journal.last_seq()
        with anyio.move_on_after(0) as scope:
            await anext(events)
        assert scope.cancelled_caught
    journal.set_away(False)
    async with aclosing(journal.follow([WEB], after_seq=1)) as events:
        assert (await anext(events)).seq == 2


async def test_delay_holds_back_one_follower_and_not_the_append() -> None:
    released = anyio.Event()

    async def delay(_: Recorded) -> None:
        await released.wait()

    journal = MemoryJournal(delay=delay)
    found: list[int] = []

    async def follow() -> None:
        async with aclosing(journal.follow([WEB])) as events:
            found.append((await anext(events)).seq)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        assert await journal.append([draft("a")], []) == Appended(1)
        assert not found
        released.set()
    assert found == [1]
