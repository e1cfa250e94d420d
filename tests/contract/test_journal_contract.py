"""What every journal and every store of snapshots does: one suite, each implementation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass

import anyio
import pytest
from anyio.lowlevel import checkpoint

from messages import subjects
from services.runtime import jetstream_api
from services.runtime.bus import connect
from services.runtime.errors import Conflict
from services.runtime.identity import IPAM
from services.runtime.journal import (
    BATCH_MAX,
    COMMAND_ID_HEADER,
    MESSAGE_ID_HEADER,
    Appended,
    Draft,
    Expectation,
    Journal,
    Recorded,
    Snapshots,
)
from services.runtime.journal_jetstream import JetStreamJournal
from services.runtime.journal_memory import MemoryJournal, MemorySnapshots
from services.runtime.snapshots_jetstream import JetStreamSnapshots
from services.runtime.streams import STREAMS, streams_ready
from tests.harness.nats import RunningNats
from tests.harness.nats_cluster import RunningCluster, running_cluster

pytestmark = pytest.mark.anyio

WEB = subjects.network_aggregate("acme", "web")
DB = subjects.network_aggregate("acme", "db")
ACME = subjects.tenant_aggregate("acme")
CREATED = subjects.network_event("acme", "web", "endpoint-created")
BOUND = subjects.network_event("acme", "web", "endpoint-bound", "h1")
DB_BOUND = subjects.network_event("acme", "db", "endpoint-bound", "h1")
TAKEN = subjects.tenant_event("acme", "subnet-taken")


@dataclass(frozen=True)
class Stores:
    journal: Journal
    snapshots: Snapshots


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(params=["memory", "jetstream", "cluster"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    if request.param == "memory":
        yield Stores(MemoryJournal(), MemorySnapshots())
        return
    server: RunningNats = (
        request.getfixturevalue("nats_server")
        if request.param == "jetstream"
        else request.getfixturevalue("cluster").servers["n1"]
    )
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(await connect(server.options(IPAM)))
        await streams_ready(bus, server.server.replicas)
        yield Stores(JetStreamJournal(bus), JetStreamSnapshots(bus))
        if request.param == "cluster":  # three servers take seconds to begin: the next test has them too, empty
            for stream in STREAMS:
                await jetstream_api.call(bus, f"STREAM.DELETE.{stream}", timeout_s=20.0)


@pytest.fixture
def journal(stores: Stores) -> Journal:
    return stores.journal


@pytest.fixture
def snapshots(stores: Stores) -> Snapshots:
    return stores.snapshots


def draft(subject: str, message_id: str, payload: bytes = b"\x80") -> Draft:
    return Draft(subject, payload, {MESSAGE_ID_HEADER: message_id, COMMAND_ID_HEADER: message_id.partition(".")[0]})


async def taken(journal: Journal, count: int, filters: Sequence[str], after_seq: int = 0) -> list[Recorded]:
    """The first `count` events that a follower gets."""
    found: list[Recorded] = []
    with anyio.fail_after(30):
        async with aclosing(journal.follow(filters, after_seq)) as events:
            async for recorded in events:
                found.append(recorded)
                if len(found) == count:
                    break
    return found


def facts(events: Sequence[Recorded]) -> list[tuple[int, str, bytes, str]]:
    return [(each.seq, each.subject, each.payload, each.headers[MESSAGE_ID_HEADER]) for each in events]


# -- appending


async def test_first_append_is_sequence_one(journal: Journal) -> None:
    assert await journal.append([draft(CREATED, "a.0")], [Expectation(WEB, 0)]) == Appended(1)


async def test_batch_is_recorded_in_order_and_next_to_each_other(journal: Journal) -> None:
    await journal.append([draft(TAKEN, "a.0")], [])
    appended = await journal.append(
        [draft(CREATED, "b.0", b"1"), draft(BOUND, "b.1", b"2"), draft(CREATED, "b.2", b"3")], [Expectation(WEB, 0)]
    )
    assert appended == Appended(2)
    assert facts(await journal.read([subjects.ALL_EVENTS], 1, 99)) == [
        (2, CREATED, b"1", "b.0"),
        (3, BOUND, b"2", "b.1"),
        (4, CREATED, b"3", "b.2"),
    ]


async def test_headers_and_time_are_kept(journal: Journal) -> None:
    await journal.append([draft(CREATED, "a.0"), draft(BOUND, "a.1")], [])
    first, second = await journal.read([WEB], 0, 2)
    assert first.headers[COMMAND_ID_HEADER] == "a"
    assert 0 < first.at_ns <= second.at_ns


async def test_append_with_a_stale_expectation_conflicts_and_writes_nothing(journal: Journal) -> None:
    await journal.append([draft(CREATED, "a.0")], [Expectation(WEB, 0)])
    with pytest.raises(Conflict):
        await journal.append([draft(CREATED, "b.0")], [Expectation(WEB, 0)])
    assert await journal.last_seq() == 1


async def test_what_others_write_elsewhere_is_no_conflict(journal: Journal) -> None:
    await journal.append([draft(CREATED, "a.0")], [Expectation(WEB, 0)])
    await journal.append([draft(DB_BOUND, "b.0")], [Expectation(DB, 0)])
    assert await journal.append([draft(BOUND, "c.0")], [Expectation(WEB, 1)]) == Appended(3)


async def test_batch_over_several_aggregates_holds_each_expectation(journal: Journal) -> None:
    await journal.append([draft(TAKEN, "a.0")], [Expectation(ACME, 0)])
    drafts = [draft(TAKEN, "b.0"), draft(CREATED, "b.1"), draft(DB_BOUND, "b.2"), draft(TAKEN, "b.3")]
    for stale in (
        [Expectation(ACME, 0), Expectation(WEB, 0), Expectation(DB, 0)],
        [Expectation(ACME, 1), Expectation(WEB, 1), Expectation(DB, 0)],
        [Expectation(ACME, 1), Expectation(WEB, 0), Expectation(DB, 1)],
    ):
        with pytest.raises(Conflict):
            await journal.append(drafts, stale)
    assert await journal.last_seq() == 1
    right = [Expectation(ACME, 1), Expectation(WEB, 0), Expectation(DB, 0)]
    assert await journal.append(drafts, right) == Appended(2)
    assert [await journal.last_seq(each) for each in (ACME, WEB, DB)] == [5, 3, 4]


async def test_expectation_on_what_the_batch_wrote_earlier_is_about_before_the_batch(journal: Journal) -> None:
    drafts = [draft(CREATED, "a.0"), draft(BOUND, "a.1"), draft(CREATED, "a.2")]
    assert await journal.append(drafts, [Expectation(WEB, 0)]) == Appended(1)
    assert await journal.append([draft(BOUND, "b.0"), draft(BOUND, "b.1")], [Expectation(WEB, 3)]) == Appended(4)


async def test_the_largest_batch_is_one_append(journal: Journal) -> None:
    drafts = [draft(CREATED, f"a.{index}") for index in range(BATCH_MAX)]
    assert await journal.append(drafts, [Expectation(WEB, 0)]) == Appended(1)
    assert await journal.last_seq(WEB) == BATCH_MAX


@pytest.mark.parametrize("count", [0, BATCH_MAX + 1])
async def test_no_draft_and_too_many_are_not_asked_for(journal: Journal, count: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to"):
        await journal.append([draft(CREATED, f"a.{index}") for index in range(count)], [])


async def test_expectation_on_what_is_not_written_is_not_asked_for(journal: Journal) -> None:
    with pytest.raises(ValueError, match="no draft"):
        await journal.append([draft(CREATED, "a.0")], [Expectation(DB, 0)])


# -- appending again


async def test_single_again_is_where_it_was(journal: Journal) -> None:
    await journal.append([draft(TAKEN, "z.0")], [])
    await journal.append([draft(CREATED, "a.0")], [Expectation(WEB, 0)])
    for expectations in ([Expectation(WEB, 0)], [Expectation(WEB, 2)], []):
        assert await journal.append([draft(CREATED, "a.0")], expectations) == Appended(2, is_repeated=True)
    assert await journal.last_seq() == 2


async def test_batch_again_is_where_it_was(journal: Journal) -> None:
    drafts = [draft(TAKEN, "a.0"), draft(CREATED, "a.1"), draft(CREATED, "a.2")]
    await journal.append([draft(TAKEN, "z.0")], [])
    await journal.append(drafts, [Expectation(ACME, 1), Expectation(WEB, 0)])
    for expectations in ([Expectation(ACME, 1), Expectation(WEB, 0)], [Expectation(ACME, 2), Expectation(WEB, 4)], []):
        assert await journal.append(drafts, expectations) == Appended(2, is_repeated=True)
    assert await journal.last_seq() == 4


async def test_repetition_is_found_among_what_others_wrote_since(journal: Journal) -> None:
    await journal.append([draft(CREATED, "a.0")], [Expectation(WEB, 0)])
    for index in range(1, 20):
        await journal.append([draft(CREATED, f"b{index}.0")], [Expectation(WEB, index)])
    assert await journal.append([draft(CREATED, "a.0")], [Expectation(WEB, 0)]) == Appended(1, is_repeated=True)


async def test_batch_of_which_only_a_later_part_was_recorded_conflicts(journal: Journal) -> None:
    await journal.append([draft(CREATED, "a.0")], [Expectation(WEB, 0)])
    with pytest.raises(Conflict):
        await journal.append([draft(BOUND, "b.0"), draft(CREATED, "a.0")], [Expectation(WEB, 1)])
    assert await journal.last_seq() == 1


async def test_of_many_that_race_one_wins_each_sequence(journal: Journal) -> None:
    wins: list[int] = []

    async def race(name: str) -> None:
        for attempt in range(10):
            expected = await journal.last_seq(WEB)
            try:
                wins.append(
                    (
                        await journal.append([draft(CREATED, f"{name}{attempt}.0")], [Expectation(WEB, expected)])
                    ).first_seq
                )
            except Conflict:
                continue

    async with anyio.create_task_group() as tasks:
        for name in "abcdefgh":
            tasks.start_soon(race, name)
    assert sorted(wins) == list(range(1, await journal.last_seq() + 1))


# -- reading


async def test_empty_journal_has_no_sequence(journal: Journal) -> None:
    assert await journal.last_seq() == 0
    assert await journal.last_seq(WEB) == 0
    assert (await journal.identity()).last_seq == 0
    assert await journal.read([WEB], 0, 10) == []


async def test_last_seq_of_an_aggregate_is_of_its_filter(journal: Journal) -> None:
    for index, subject in enumerate((CREATED, TAKEN, BOUND, DB_BOUND)):
        await journal.append([draft(subject, f"{index}.0")], [])
    assert [await journal.last_seq(each) for each in (WEB, ACME, DB, None)] == [3, 2, 4, 4]
    assert await journal.last_seq(subjects.network_aggregate("acme", "w")) == 0
    assert await journal.last_seq(subjects.bound_to("h1")) == 4
    assert await journal.last_seq(subjects.bound_to("h2")) == 0


async def test_read_is_bounded_on_both_sides(journal: Journal) -> None:
    for index in range(10):
        await journal.append([draft(CREATED if index % 2 else DB_BOUND, f"{index}.0")], [])
    assert [each.seq for each in await journal.read([WEB], 2, 8)] == [4, 6, 8]
    assert [each.seq for each in await journal.read([WEB, DB], 2, 5)] == [3, 4, 5]
    assert [each.seq for each in await journal.read([WEB], 8, 100)] == [10]
    assert await journal.read([WEB], 10, 100) == []
    assert await journal.read([WEB], 8, 8) == []


async def test_identity_is_the_same_until_it_grows(journal: Journal) -> None:
    before = await journal.identity()
    await journal.append([draft(CREATED, "a.0"), draft(CREATED, "a.1")], [])
    after = await journal.identity()
    assert (after.created, after.first_seq, after.last_seq) == (before.created, 1, 2)


# -- following


async def test_follower_gets_what_was_and_what_comes(journal: Journal) -> None:
    await journal.append([draft(CREATED, "a.0")], [])
    found: list[int] = []

    async def follow() -> None:
        found.extend(each.seq for each in await taken(journal, 3, [WEB]))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await journal.append([draft(DB_BOUND, "b.0")], [])
        await journal.append([draft(CREATED, "c.0"), draft(BOUND, "c.1")], [])
    assert found == [1, 3, 4]


async def test_follower_starts_after_a_sequence(journal: Journal) -> None:
    await journal.append([draft(CREATED, f"a.{index}", str(index).encode()) for index in range(10)], [])
    assert facts(await taken(journal, 3, [WEB], after_seq=7)) == [
        (8, CREATED, b"7", "a.7"),
        (9, CREATED, b"8", "a.8"),
        (10, CREATED, b"9", "a.9"),
    ]


async def test_follower_of_what_is_still_to_come_waits_for_it(journal: Journal) -> None:
    async with anyio.create_task_group() as tasks:
        found: list[Recorded] = []

        async def follow() -> None:
            found.extend(await taken(journal, 1, [WEB], after_seq=2))

        tasks.start_soon(follow)
        for index in range(4):
            await journal.append([draft(CREATED, f"{index}.0")], [])
    assert found[0].seq == 3


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([WEB, DB], [1, 2, 4]),
        ([WEB, WEB], [1, 2]),
        ([WEB, subjects.bound_to("h1")], [1, 2, 4]),
        ([DB, subjects.bound_to("h1"), ACME], [2, 3, 4]),
        ([subjects.ALL_EVENTS, WEB], [1, 2, 3, 4]),
    ],
    ids=["apart", "twice", "overlapping", "overlapping-and-apart", "included"],
)
async def test_filters_may_overlap(journal: Journal, filters: list[str], expected: list[int]) -> None:
    for index, subject in enumerate((CREATED, BOUND, TAKEN, DB_BOUND)):
        await journal.append([draft(subject, f"{index}.0")], [])
    assert [each.seq for each in await taken(journal, len(expected), filters)] == expected
    assert [each.seq for each in await journal.read(filters, 0, 4)] == expected


async def test_followers_do_not_disturb_each_other(journal: Journal) -> None:
    found: dict[int, list[int]] = {}

    async def follow(name: int) -> None:
        found[name] = [each.seq for each in await taken(journal, 50, [WEB], after_seq=name)]

    async with anyio.create_task_group() as tasks:
        for name in range(5):
            tasks.start_soon(follow, name)
        for index in range(60):
            await journal.append([draft(CREATED, f"{index}.0")], [])
    assert found == {name: list(range(name + 1, name + 51)) for name in range(5)}


async def test_slow_follower_misses_nothing(journal: Journal) -> None:
    payload = b"x" * 4000
    for start in range(0, 3000, 500):
        await journal.append([draft(CREATED, f"{start}.{index}", payload) for index in range(500)], [])
    seqs: list[int] = []
    async with aclosing(journal.follow([WEB])) as events:
        async for recorded in events:
            seqs.append(recorded.seq)
            if recorded.seq % 100 == 0:
                await checkpoint()  # others run in between
            if recorded.seq == 3000:
                break
    assert seqs == list(range(1, 3001))


# -- snapshots


async def test_no_snapshot_is_none(snapshots: Snapshots) -> None:
    assert await snapshots.load("ipam") is None


@pytest.mark.parametrize("size", [0, 1, 1000, 3_000_000])
async def test_snapshot_is_loaded_as_it_was_saved(snapshots: Snapshots, size: int) -> None:
    state = b"".join(bytes([value]) * 7 for value in (each * each % 251 for each in range(size // 7 + 1)))[:size]
    await snapshots.save("ipam", 12, state)
    assert await snapshots.load("ipam") == (12, state)
    assert await snapshots.load("policy") is None


async def test_newest_snapshot_wins(snapshots: Snapshots) -> None:
    await snapshots.save("ipam", 10, b"ten")
    await snapshots.save("ipam", 30, b"thirty")
    await snapshots.save("ipam", 20, b"twenty")
    assert await snapshots.load("ipam") == (30, b"thirty")


async def test_of_snapshots_saved_at_once_the_newest_wins(snapshots: Snapshots) -> None:
    async with anyio.create_task_group() as tasks:
        for seq in (5, 1, 9, 3, 7):
            tasks.start_soon(snapshots.save, "ipam", seq, b"%d" % seq)
    assert await snapshots.load("ipam") == (9, b"9")
