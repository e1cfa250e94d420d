"""Connections to a switch that says no: nothing of a failed attempt stays, and the next one is made."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from host_actor.drivers.ovs_connection import KeptConnection
from host_actor.drivers.ovs_switch import Switch
from services.runtime.errors import Unavailable

pytestmark = pytest.mark.anyio

WITHIN_S = 30.0


class Line:
    """A connection that is closed once."""

    def close(self) -> None:
        """Nothing to close."""


@asynccontextmanager
async def closed_database(path: Path) -> AsyncIterator[asyncio.Queue[list[str]]]:
    """A server that has not opened its database yet. For each connection that has ended, what was asked on it."""
    ended: asyncio.Queue[list[str]] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = json.JSONDecoder()
        asked: list[str] = []
        while text := (await reader.read(1 << 16)).decode():
            request: dict[str, Any] = decoder.raw_decode(text)[0]
            asked.append(request["method"])
            refusal = {"result": None, "error": {"error": "unknown database"}, "id": request["id"]}
            writer.write(json.dumps(refusal).encode())
        writer.close()
        ended.put_nowait(asked)

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield ended
    finally:
        server.close()


async def test_a_database_that_is_not_open_yet_is_unavailable(short_path: Path) -> None:
    async with closed_database(short_path / "db.sock") as ended:
        switch = Switch("vlanBr", "netdev", short_path, lambda _: None, lambda _: False)
        for _ in range(3):
            with pytest.raises(Unavailable, match="unknown database"):
                await switch.open()
            assert await asyncio.wait_for(ended.get(), WITHIN_S) == ["get_schema"]
        await switch.close()


async def test_a_bug_in_connecting_again_is_not_passed_over(short_path: Path) -> None:
    lost: list[Any] = []
    tried = asyncio.Event()

    async def connect(on_lost: Any) -> Line:
        lost.append(on_lost)
        if len(lost) > 1:
            tried.set()
            raise ZeroDivisionError
        return Line()

    kept = KeptConnection[Line](short_path / "socket", connect, lambda: None, lambda _: None)
    await kept.open()
    lost[0]()
    await asyncio.wait_for(tried.wait(), WITHIN_S)
    with pytest.raises(ZeroDivisionError):
        _ = kept.connection
