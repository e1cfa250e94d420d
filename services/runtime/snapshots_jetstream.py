"""Snapshots in the stream NP_STATE: compressed, in parts that fit a message, whole or not there.

    np.v1.snapshot.<actor>.index            which set is the newest: its sequence, its parts, its checksum; written last
    np.v1.snapshot.<actor>.<set>.<n>        part n of a set; a set's name is new each time, so no save touches another's

A save that breaks off leaves the newest as it was, and parts that the next save removes. Two copies of an actor that
save at once: the index is written with its expected sequence, so the loser looks again and gives way to what is newer.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import zlib

import msgspec
import structlog

from messages.subjects import STATE_STREAM, snapshot

from . import jetstream_api
from .bus import Bus
from .errors import Unavailable
from .jetstream_api import ApiError

log = structlog.get_logger()

PART_BYTES = 768 * 1024  # below the server's 1 MB with its headers
COMPRESSION = 1  # a tenth of the default's time for most of its gain
SAVE_ATTEMPTS_MAX = 20  # lost races, each to a save that has ended; a copy saves one at a time
LOST_RACE_DELAY_S = 0.005  # after the first, longer after each; a second in all
PART_TIMEOUT_S = 5.0

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"


class _Index(msgspec.Struct, frozen=True):
    seq: int
    parts: tuple[str, ...]  # their subjects, in order
    sha256: str  # of the compressed state


class JetStreamSnapshots:
    """`Snapshots` under np.v1.snapshot. The bus is its owner's to close."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def save(self, actor: str, seq: int, state: bytes) -> None:
        """See `Snapshots.save`."""
        try:
            await self._save(actor, seq, await asyncio.to_thread(zlib.compress, state, COMPRESSION))
        except ApiError as fault:
            raise Unavailable(f"snapshot of {actor} at {seq}: {fault}") from fault

    async def _save(self, actor: str, seq: int, packed: bytes) -> None:
        root = snapshot(actor)
        own_set = f"{seq}-{secrets.token_hex(4)}"
        pieces = [packed[at : at + PART_BYTES] for at in range(0, len(packed), PART_BYTES)]
        subjects = tuple(f"{root}.{own_set}.{number}" for number in range(len(pieces)))
        for subject, piece in zip(subjects, pieces, strict=True):
            await self._publish(subject, piece)
        is_newest = await self._point_to(root, _Index(seq, subjects, hashlib.sha256(packed).hexdigest()))
        await self._remove(root, [own_set] if not is_newest else await self._sets_before(root, seq))
        log.debug("snapshot-stored", actor=actor, seq=seq, is_newest=is_newest, parts=len(pieces), bytes=len(packed))

    async def _publish(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> None:
        answer = await self._bus.request(subject, payload, headers=headers, timeout_s=PART_TIMEOUT_S)
        jetstream_api.publish_ack(answer.payload)

    async def _point_to(self, root: str, index: _Index) -> bool:
        """The index names this set, unless what it names is as new. Raises: Unavailable, ApiError."""
        for attempt in range(1, SAVE_ATTEMPTS_MAX + 1):
            stored_at, newest = await self._index(root)
            if newest is not None and newest.seq >= index.seq:
                return False
            try:
                await self._publish(f"{root}.index", msgspec.msgpack.encode(index), {_EXPECTED: str(stored_at)})
            except ApiError as fault:
                if fault.code not in jetstream_api.LOST_RACE:
                    raise
                # Of several servers the leader refuses while the winner's write is still on its way to the others.
                await asyncio.sleep(LOST_RACE_DELAY_S * attempt)
            else:
                return True
        return False

    async def _index(self, root: str) -> tuple[int, _Index | None]:
        """Where the index stands in the stream and what it says; 0 and None for none. Raises: Unavailable."""
        try:
            answer = await jetstream_api.ask(
                self._bus, f"STREAM.MSG.GET.{STATE_STREAM}", {"last_by_subj": f"{root}.index"}
            )
        except ApiError as fault:
            if fault.code == jetstream_api.MESSAGE_NOT_FOUND:
                return 0, None
            raise Unavailable(f"there is no stream {STATE_STREAM} at {self._bus.where}: {fault}") from fault
        message = answer["message"]
        try:
            return int(message["seq"]), msgspec.msgpack.decode(base64.b64decode(message["data"]), type=_Index)
        except (msgspec.DecodeError, msgspec.ValidationError) as fault:
            log.warning("snapshot-index-unreadable", subject=f"{root}.index", detail=str(fault))
            return int(message["seq"]), None

    async def _sets_before(self, root: str, seq: int) -> list[str]:
        """The sets of older states, whole or not. Another copy may be writing one of a newer state: that is left."""
        answer = await jetstream_api.call(self._bus, f"STREAM.INFO.{STATE_STREAM}", {"subjects_filter": f"{root}.*.*"})
        found = dict.fromkeys(subject.split(".")[-2] for subject in answer["state"].get("subjects") or {})
        return [each for each in found if int(each.partition("-")[0]) < seq]

    async def _remove(self, root: str, sets: list[str]) -> None:
        for each in sets:
            await jetstream_api.call(self._bus, f"STREAM.PURGE.{STATE_STREAM}", {"filter": f"{root}.{each}.*"})

    async def load(self, actor: str) -> tuple[int, bytes] | None:
        """See `Snapshots.load`. What is not whole is not there."""
        _, index = await self._index(snapshot(actor))
        if index is None:
            return None
        packed = b"".join([await self._part(subject) for subject in index.parts])
        if hashlib.sha256(packed).hexdigest() != index.sha256:
            log.warning("snapshot-torn", actor=actor, seq=index.seq, bytes=len(packed))
            return None
        return index.seq, await asyncio.to_thread(zlib.decompress, packed)

    async def _part(self, subject: str) -> bytes:
        question = msgspec.json.encode({"last_by_subj": subject})
        message = await self._bus.request(
            f"{jetstream_api.API}.DIRECT.GET.{STATE_STREAM}", question, timeout_s=PART_TIMEOUT_S
        )
        return b"" if message.status else message.payload
