"""The OVSDB client against a real ovsdb-server: transactions, the monitor, the end of a connection."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from host_actor.ovsdb import (
    OvsdbClient,
    TableUpdates,
    TransactionRefused,
    from_ids,
    from_map,
    from_set,
    named,
    to_map,
    to_set,
)
from services.runtime.errors import Unavailable
from tests.harness.openvswitch import RunningSwitch
from tests.requires import needs_ovs

pytestmark = [pytest.mark.anyio, needs_ovs]

WITHIN_S = 30.0


class Updates:
    """What a monitor told, in its order."""

    def __init__(self) -> None:
        self.all: list[TableUpdates] = []
        self._new = asyncio.Event()

    def __call__(self, update: TableUpdates) -> None:
        self.all.append(update)
        self._new.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(WITHIN_S):
            while len(self.all) < count:
                self._new.clear()
                await self._new.wait()


@pytest.fixture
def lost() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def client(open_vswitch: RunningSwitch, lost: asyncio.Event) -> AsyncIterator[OvsdbClient]:
    connected = await OvsdbClient.connect(str(open_vswitch.database_socket), lost.set)
    yield connected
    connected.close()


def bridge(name: str) -> list[dict[str, object]]:
    """A bridge of no type that would be made a data path of, and its entry in the root."""
    return [
        {
            "op": "insert",
            "table": "Bridge",
            "uuid-name": "b",
            "row": {"name": name, "external_ids": to_map({"a": "ä"})},
        },
        {
            "op": "mutate",
            "table": "Open_vSwitch",
            "where": [],
            "mutations": [["bridges", "insert", to_set([named("b")])]],
        },
    ]


async def test_a_transaction_is_seen_by_the_monitor_before_its_result(client: OvsdbClient) -> None:
    updates = Updates()
    await client.monitor({"Bridge": ["name", "external_ids"], "Open_vSwitch": ["bridges"]}, updates, updates)
    assert len(updates.all) == 1
    inserted, mutated = await client.transact(bridge("br9"))
    row_id = inserted["uuid"][1]
    assert mutated == {"count": 1}
    assert len(updates.all) == 2
    row = updates.all[1]["Bridge"][row_id]["new"]
    assert (row["name"], from_map(row["external_ids"])) == ("br9", {"a": "ä"})
    assert from_ids(next(iter(updates.all[1]["Open_vSwitch"].values()))["new"]["bridges"]) == [row_id]


async def test_what_others_do_is_told(client: OvsdbClient, open_vswitch: RunningSwitch) -> None:
    updates = Updates()
    await client.monitor({"Bridge": ["name"]}, updates, updates)
    await asyncio.to_thread(open_vswitch.run, "ovs-vsctl", "--no-wait", "add-br", "br8")
    await updates.until(2)
    assert [row["new"]["name"] for row in updates.all[1]["Bridge"].values()] == ["br8"]


async def test_a_refused_transaction_does_nothing(client: OvsdbClient) -> None:
    abort = {"op": "abort"}
    with pytest.raises(TransactionRefused, match="aborted"):
        await client.transact([*bridge("br7"), abort])
    with pytest.raises(TransactionRefused, match="No table named Nonsense"):
        await client.transact([{"op": "select", "table": "Nonsense", "where": []}])
    found = await client.transact([{"op": "select", "table": "Bridge", "where": [["name", "==", "br7"]]}])
    assert found == [{"rows": []}]


async def test_many_requests_may_be_under_way(client: OvsdbClient) -> None:
    select = {"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["next_cfg"]}
    bump = {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]}
    answers = await asyncio.gather(*(client.transact([bump, select]) for _ in range(50)))
    numbers = [answer[1]["rows"][0]["next_cfg"] for answer in answers]
    assert numbers == list(range(numbers[0], numbers[0] + 50))


async def test_long_answers_are_put_together(client: OvsdbClient) -> None:
    """Of a megabyte, in many pieces, with braces in its texts."""
    text = '}{"' * 1000
    pairs = {f"key{number}": text for number in range(350)}
    where = {"table": "Open_vSwitch", "where": []}
    await client.transact([{"op": "update", **where, "row": {"external_ids": to_map(pairs)}}])
    (found,) = await client.transact([{"op": "select", **where, "columns": ["external_ids"]}])
    assert from_map(found["rows"][0]["external_ids"]) == pairs


async def test_the_end_of_the_server_is_told_to_all(
    client: OvsdbClient, open_vswitch: RunningSwitch, lost: asyncio.Event
) -> None:
    pid = open_vswitch.pid("ovsdb-server")
    os.kill(pid, signal.SIGSTOP)
    waiting = asyncio.create_task(client.transact(bridge("br6")))
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(Unavailable, match="has ended"):
        await waiting
    async with asyncio.timeout(WITHIN_S):
        await lost.wait()
    with pytest.raises(Unavailable, match="has ended"):
        await client.transact([])


async def test_nobody_there_is_unavailable(short_path: Path) -> None:
    with pytest.raises(Unavailable, match="no OVSDB server"):
        await OvsdbClient.connect(str(short_path / "db.sock"), lambda: None)


def test_a_set_of_one_is_written_as_its_value() -> None:
    assert from_set(7) == [7]
    assert from_set(["set", []]) == []
    assert from_set(["set", [1, 2]]) == [1, 2]
    assert from_ids(["uuid", "x"]) == ["x"]
