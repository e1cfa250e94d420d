"""A switch that shows flows in other words than it was told them, as another version of it might.

A socket before the bridge's own: everything passes as it is, but for the instructions in descriptions of flows.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from host_actor.openflow import HEADER, Multipart, Type

ENTRY_FIXED_BYTES = 24
MULTIPART_BYTES = 8


def paraphrased(raw: bytes) -> bytes:
    """The same message; in a flow description the last byte of each first instruction, a padding, is another."""
    kind = HEADER.unpack_from(raw)[1]
    if kind != Type.MULTIPART_REPLY or struct.unpack_from("!H", raw, HEADER.size)[0] != Multipart.FLOW_DESC:
        return raw
    changed = bytearray(raw)
    offset = HEADER.size + MULTIPART_BYTES
    while offset < len(raw):
        length = struct.unpack_from("!H", raw, offset)[0]
        at = offset + ENTRY_FIXED_BYTES
        for _ in ("match", "statistics"):
            at += (struct.unpack_from("!H", raw, at + 2)[0] + 7) & ~7
        if at < offset + length:
            changed[at + 7] ^= 0xA5
        offset += length
    return bytes(changed)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while received := await reader.read(1 << 16):
        writer.write(received)
    writer.close()


async def _pass_on_paraphrased(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        try:
            head = await reader.readexactly(HEADER.size)
            rest = await reader.readexactly(HEADER.unpack(head)[2] - HEADER.size)
        except asyncio.IncompleteReadError:
            writer.close()
            return
        writer.write(paraphrased(head + rest))


@asynccontextmanager
async def paraphrasing(run_dir: Path, directory: Path, bridge: str = "vlanBr") -> AsyncIterator[Path]:
    """A run directory for a driver: the database of the switch in `run_dir`, and its bridge behind our socket."""
    directory.mkdir()
    (directory / "db.sock").symlink_to(run_dir / "db.sock")
    path = directory / f"{bridge}.mgmt"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            switch_reader, switch_writer = await asyncio.open_unix_connection(run_dir / path.name)
        except OSError:
            writer.close()  # the bridge is still to be made
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_pass_on(reader, switch_writer))
            tasks.create_task(_pass_on_paraphrased(switch_reader, writer))

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield directory
    finally:
        server.close()
