"""The journal on a real nats-server that is killed, runs out of disk, or holds a hundred thousand events."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import anyio
import pytest

from messages import subjects
from services.runtime import jetstream_api
from services.runtime.bus import Bus, Options, connect
from services.runtime.errors import Conflict, JournalFull, Misconfigured, OutcomeUnknown, Unavailable
from services.runtime.identity import IPAM, OPERATOR, host_user
from services.runtime.journal import MESSAGE_ID_HEADER, Appended, Draft, Expectation, Recorded
from services.runtime.journal_follow import JournalReplaced, position
from services.runtime.journal_jetstream import JetStreamJournal
from services.runtime.snapshots_jetstream import PART_BYTES, JetStreamSnapshots
from services.runtime.streams import ensure_streams
from tests.harness.disk import fill, small_disk
from tests.harness.nats import RunningNats, running_nats
from tests.requires import needs_isolation

pytestmark = pytest.mark.anyio

WEB = subjects.network_aggregate("acme", "web")
BOUND = subjects.network_event("acme", "web", "endpoint-bound", "h1")
CURRENT_AGAIN_WITHIN_S = 12.0  # milliseconds where the machine has time; nats-py alone is deaf for 15 to 20 s
AT_ONCE_S = 10.0


@pytest.fixture
async def bus(nats_server: RunningNats) -> AsyncIterator[Bus]:
    async with await connect(options(nats_server, IPAM)) as bus:
        await ensure_streams(bus)
        yield bus


def options(server: RunningNats, user: str) -> Options:
    return Options(urls=(server.url,), user=user, credentials=server.seed_file(user))


def draft(message_id: str, payload: bytes = b"\x80", subject: str = BOUND) -> Draft:
    return Draft(subject, payload, {MESSAGE_ID_HEADER: message_id})


async def restart(server: RunningNats) -> None:
    await anyio.to_thread.run_sync(server.kill)
    await anyio.to_thread.run_sync(server.start)


class Writer:
    """Appends singles and batches, each on the last, and remembers what was acknowledged: message id -> sequence."""

    def __init__(self, bus: Bus) -> None:
        self.journal = JetStreamJournal(bus)
        self._bus = bus
        self.acknowledged: dict[str, int] = {}
        self.unknown = 0
        self.last_seq = 0
        self.count = 0
        self._progress = anyio.Event()

    async def reached(self, count: int) -> None:
        while self.count < count:
            await self._progress.wait()

    async def write(self, count: int) -> None:
        while self.count < count:
            self.count += 1
            self._progress.set()
            self._progress = anyio.Event()
            size = 1 if self.count % 3 else 5
            drafts = [draft(f"{self.count}.{index}") for index in range(size)]
            first_seq = await self._append(drafts)
            self.acknowledged.update({f"{self.count}.{index}": first_seq + index for index in range(size)})
            self.last_seq = first_seq + size - 1

    async def _append(self, drafts: list[Draft]) -> int:
        with anyio.fail_after(40):
            while True:
                try:
                    return (await self.journal.append(drafts, [Expectation(WEB, self.last_seq)])).first_seq
                except Conflict:
                    raise
                except OutcomeUnknown:
                    self.unknown += 1
                except Unavailable:
                    await self._bus.connected()


async def test_kill_loses_nothing_acknowledged_and_followers_miss_and_repeat_nothing(
    nats_server: RunningNats, bus: Bus
) -> None:
    writer = Writer(bus)
    followed: list[Recorded] = []

    async def follow(until_seq: int) -> None:
        async with aclosing(writer.journal.follow([subjects.ALL_EVENTS])) as events:
            while not followed or followed[-1].seq < until_seq:
                followed.append(await anext(events))

    async def kill_while_it_writes() -> None:
        for kills in range(1, 5):
            await writer.reached(kills * 60)
            await restart(nats_server)

    with anyio.fail_after(120):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow, 200 * 1 + 100 * 5)
            tasks.start_soon(writer.write, 300)
            tasks.start_soon(kill_while_it_writes)

    assert writer.unknown == 0, "each outcome was found out"
    assert [each.seq for each in followed] == list(range(1, writer.last_seq + 1))
    assert {each.headers[MESSAGE_ID_HEADER]: each.seq for each in followed} == writer.acknowledged


async def test_follower_is_current_again_soon_after_the_server_is_back(nats_server: RunningNats, bus: Bus) -> None:
    journal = JetStreamJournal(bus)
    await journal.append([draft("a")], [])
    async with aclosing(journal.follow([WEB])) as events:
        assert (await anext(events)).seq == 1
        for seq in (2, 3, 4):
            await restart(nats_server)
            started = time.monotonic()
            with anyio.fail_after(CURRENT_AGAIN_WITHIN_S):
                await bus.connected()
                await journal.append([draft(f"{seq}")], [Expectation(WEB, seq - 1)])
                assert (await anext(events)).seq == seq
            print(f"current again {(time.monotonic() - started) * 1000:.0f} ms after the server was ready")


async def test_append_while_the_server_is_away_fails_at_once(nats_server: RunningNats, bus: Bus) -> None:
    journal = JetStreamJournal(bus)
    lost = anyio.Event()
    bus.watch(lambda _: lost.set())
    await anyio.to_thread.run_sync(nats_server.kill)
    await lost.wait()
    started = time.monotonic()
    with pytest.raises(Unavailable, match="is away") as caught:
        await journal.append([draft("a")], [])
    assert not isinstance(caught.value, OutcomeUnknown)
    with pytest.raises(Unavailable):
        await journal.last_seq()
    assert time.monotonic() - started < AT_ONCE_S
    await anyio.to_thread.run_sync(nats_server.start)
    with anyio.fail_after(CURRENT_AGAIN_WITHIN_S):
        await bus.connected()
        assert await journal.append([draft("b")], [Expectation(WEB, 0)]) == Appended(1)


async def test_another_journal_in_its_place_ends_the_follower(nats_server: RunningNats, bus: Bus) -> None:
    journal = JetStreamJournal(bus)
    await journal.append([draft("a"), draft("b")], [])
    async with aclosing(journal.follow([WEB])) as events:
        assert [(await anext(events)).seq, (await anext(events)).seq] == [1, 2]
        await anyio.to_thread.run_sync(nats_server.kill)
        storage = nats_server.server.state_dir / "jetstream"
        storage.rename(storage.with_name("before"))
        await anyio.to_thread.run_sync(nats_server.start)
        await bus.connected()
        await ensure_streams(bus)
        with anyio.fail_after(30), pytest.raises(JournalReplaced):
            await anext(events)


async def test_closed_follower_leaves_no_consumer(bus: Bus) -> None:
    journal = JetStreamJournal(bus)
    await journal.append([draft("a")], [])
    async with aclosing(journal.follow([WEB])) as events:
        await anext(events)
        before = await jetstream_api.call(bus, "CONSUMER.NAMES.NP_JOURNAL")
    after = await jetstream_api.call(bus, "CONSUMER.NAMES.NP_JOURNAL")
    assert (before["total"], after["total"]) == (1, 0)


@pytest.mark.parametrize("user", [OPERATOR, host_user("h1")])
async def test_other_users_read_and_follow(nats_server: RunningNats, bus: Bus, user: str) -> None:
    await JetStreamJournal(bus).append([draft(f"a.{index}") for index in range(500)], [])
    async with await connect(options(nats_server, user)) as edge:
        journal = JetStreamJournal(edge)
        assert (await journal.identity()).last_seq == 500
        assert await journal.last_seq(WEB) == 500
        assert len(await journal.read([subjects.bound_to("h1")], 100, 400)) == 300
        async with aclosing(journal.follow([subjects.bound_to("h1")])) as events:
            assert [(await anext(events)).seq for _ in range(500)] == list(range(1, 501))


async def test_host_appends_its_reports_and_nothing_else(nats_server: RunningNats, bus: Bus) -> None:
    report = subjects.port_event("acme", "h1", "bound")
    aggregate = subjects.port_aggregate("acme", "h1")
    async with await connect(options(nats_server, host_user("h1"))) as edge:
        journal = JetStreamJournal(edge)
        assert await journal.append([draft("a", subject=report)], [Expectation(aggregate, 0)]) == Appended(1)
        reports = [draft(f"b.{index}", subject=report) for index in range(20)]
        assert await journal.append(reports, [Expectation(aggregate, 1)]) == Appended(2)
        assert await journal.append(reports, [Expectation(aggregate, 1)]) == Appended(2, is_repeated=True)
        with pytest.raises(Unavailable):
            await journal.append([draft("c")], [])
    assert await JetStreamJournal(bus).last_seq() == 21


async def test_stream_that_differs_is_named(bus: Bus) -> None:
    await ensure_streams(bus)
    await jetstream_api.call(bus, "STREAM.DELETE.NP_STATE")
    await jetstream_api.call(
        bus, "STREAM.CREATE.NP_STATE", {"name": "NP_STATE", "subjects": ["np.v1.port.>"], "allow_direct": True}
    )
    with pytest.raises(Misconfigured, match=r"stream NP_STATE: subjects is \['np.v1.port.>'\], expected"):
        await ensure_streams(bus)


async def test_snapshot_that_was_torn_is_not_there_and_its_parts_are_removed_by_the_next(bus: Bus) -> None:
    snapshots = JetStreamSnapshots(bus)
    state = os.urandom(3 * PART_BYTES)
    await snapshots.save("ipam", 1, state)
    await bus.request("np.v1.snapshot.ipam.2-feed.0", b"the first part of a save that broke off")
    assert await snapshots.load("ipam") == (1, state)

    held = await jetstream_api.call(bus, "STREAM.INFO.NP_STATE", {"subjects_filter": "np.v1.snapshot.ipam.>"})
    part = next(each for each in held["state"]["subjects"] if each.endswith(".1"))
    await jetstream_api.call(bus, "STREAM.PURGE.NP_STATE", {"filter": part})
    assert await snapshots.load("ipam") is None

    await snapshots.save("ipam", 3, b"small")
    assert await snapshots.load("ipam") == (3, b"small")
    held = await jetstream_api.call(bus, "STREAM.INFO.NP_STATE", {"subjects_filter": "np.v1.snapshot.ipam.>"})
    assert len(held["state"]["subjects"]) == 2


def test_position_reads_both_forms_of_a_delivery() -> None:
    short = position("$JS.ACK.NP_JOURNAL.c1.1.42.7.1700000000000000001.3")
    long = position("$JS.ACK.hub.ACC.NP_JOURNAL.c1.1.42.7.1700000000000000001.3.token")
    assert short == long
    assert (short.stream_seq, short.consumer_seq, short.at_ns, short.pending) == (42, 7, 1700000000000000001, 3)


# -- a full disk


@needs_isolation
@pytest.mark.parametrize("size", [1, 64])
async def test_full_disk_is_said_and_after_a_restart_with_space_all_is_as_acknowledged(size: int) -> None:
    with small_disk() as disk, running_nats(disk / "nats") as server:
        async with await connect(options(server, IPAM)) as bus:
            await ensure_streams(bus)
            journal = JetStreamJournal(bus)
            acknowledged: dict[str, int] = {}
            last_seq = 0

            async def append(name: str) -> None:
                nonlocal last_seq
                drafts = [draft(f"{name}.{index}", b"x" * 3000) for index in range(size)]
                appended = await journal.append(drafts, [Expectation(WEB, last_seq)])
                last_seq = appended.first_seq + size - 1
                acknowledged[f"{name}.0"] = appended.first_seq

            async def append_until_it_fails() -> None:
                for number in range(1000):
                    await append(f"{number}")

            await append("before")
            filler = fill(disk, left_bytes=40_000)
            with pytest.raises(JournalFull):
                await append_until_it_fails()
            started = time.monotonic()
            for number in range(5):
                with pytest.raises(JournalFull):
                    await append(f"refused{number}")
            assert time.monotonic() - started < AT_ONCE_S, "once known, it is said without delay"
            assert await journal.last_seq(WEB) == last_seq

            filler.unlink()
            await restart(server)
            await bus.connected()
            events = await journal.read([WEB], 0, 10**9)
            assert len(events) == last_seq
            stored = {each.headers[MESSAGE_ID_HEADER]: each.seq for each in events}
            assert {each: stored.get(each) for each in acknowledged} == acknowledged
            await append("after")


# -- a hundred thousand


@pytest.mark.long
async def test_hundred_thousand_events_are_replayed(bus: Bus) -> None:
    journal = JetStreamJournal(bus)
    last_seq = 0
    while last_seq < 100_000:
        drafts = [draft(f"{last_seq}.{index}", b"x" * 200) for index in range(1000)]
        last_seq = (await journal.append(drafts, [Expectation(WEB, last_seq)])).first_seq + 999
    started = time.monotonic()
    count = 0
    with anyio.fail_after(120):
        async with aclosing(journal.follow([WEB])) as events:
            async for recorded in events:
                count += 1
                if recorded.seq == last_seq:
                    break
    print(f"100,000 events in {time.monotonic() - started:.2f} s")
    assert count == 100_000
