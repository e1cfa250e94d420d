"""An asyncio client of an OVSDB server: transactions and a monitor over one kept connection.

Source: RFC 7047. The standard library's JSON is used: it decodes thirty times faster than the `ovs` package's own.
One reader (`data_received`, on the event loop) owns the table of waiting requests; when the connection ends, every
waiting request fails with `Unavailable` and `on_lost` is called once. Connecting again is the caller's business.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from services.runtime.errors import Unavailable

Json = Any  # what the JSON decoder returns; shapes are checked where values are taken out
Operation = dict[str, Json]
Row = dict[str, Json]
TableUpdates = Mapping[str, Mapping[str, Mapping[str, Row]]]  # table -> row id -> {"old": ..., "new": ...}
OnUpdate = Callable[[TableUpdates], None]

_CONNECT_TIMEOUT_S: Final = 5.0
_REPLY_TIMEOUT_S: Final = 30.0


class TransactionRefused(Exception):
    """The database refused a transaction as a whole, for example because a row was no longer what was expected."""

    def __init__(self, error: str, details: str) -> None:
        super().__init__(f"{error}: {details}" if details else error)
        self.error = error
        self.details = details


class OvsdbClient(asyncio.Protocol):
    """One connection to one database. Made by `connect`, unusable after `on_lost`."""

    def __init__(self, database: str, on_lost: Callable[[], None]) -> None:
        self._database = database
        self._on_lost = on_lost
        self._on_update: OnUpdate | None = None
        self._transport: asyncio.Transport | None = None
        self._decoder = json.JSONDecoder()
        self._raw = b""
        self._last_id = 0
        self._waiting: dict[int, asyncio.Future[Json]] = {}
        self._on_result: dict[int, Callable[[Json], None]] = {}

    @classmethod
    async def connect(cls, path: str, on_lost: Callable[[], None], database: str = "Open_vSwitch") -> OvsdbClient:
        """A connection to the server listening at `path`. Raises: `Unavailable` when nobody does."""
        loop = asyncio.get_running_loop()
        client = cls(database, on_lost)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await loop.create_unix_connection(lambda: client, path)
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"no OVSDB server at {path}: {str(error) or 'no answer'}") from error
        return client

    def close(self) -> None:
        """End the connection without calling `on_lost`."""
        self._on_lost = lambda: None
        if self._transport is not None:
            self._transport.close()

    async def transact(self, operations: Sequence[Operation]) -> list[Row]:
        """Every operation's result, in order; all are done or none.

        Raises: `TransactionRefused` when the database said no, `Unavailable` when the connection ended (what was sent
        may then have been done: only a new monitor says).
        """
        results = await self._call("transact", [self._database, *operations])
        for result in results:
            if result and "error" in result:
                raise TransactionRefused(str(result["error"]), str(result.get("details", "")))
        return [cast(Row, result) for result in results if result is not None]

    async def monitor(self, columns: Mapping[str, Sequence[str]], on_start: OnUpdate, on_update: OnUpdate) -> None:
        """`on_start` has got all present rows of these tables and columns; from then on `on_update` gets every change.

        Both are called by the reader itself, so nothing comes between them. Updates come in the order of the
        transactions; what an own transaction changed comes before its result.
        """
        self._on_update = on_update
        requests = {table: [{"columns": list(names)}] for table, names in columns.items()}
        await self._call("monitor", [self._database, "np", requests], on_start)

    async def schema(self) -> Json:
        """The database's schema as RFC 7047 section 3.2 writes it. Raises: `Unavailable`."""
        return await self._call("get_schema", [self._database])

    async def _call(self, method: str, params: list[Json], on_result: Callable[[Json], None] | None = None) -> Json:
        """The result; `on_result` has got it from the reader itself, before anything that came after it."""
        if self._transport is None or self._transport.is_closing():
            raise Unavailable("the connection to the OVSDB server has ended")
        self._last_id += 1
        request = self._last_id
        reply: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._waiting[request] = reply
        if on_result is not None:
            self._on_result[request] = on_result
        self._send({"method": method, "params": params, "id": request})
        try:
            async with asyncio.timeout(_REPLY_TIMEOUT_S):
                return await reply
        except TimeoutError as error:
            raise Unavailable(f"the OVSDB server did not answer within {_REPLY_TIMEOUT_S:g} s") from error
        finally:
            self._waiting.pop(request, None)
            self._on_result.pop(request, None)

    def _send(self, value: Json) -> None:
        assert self._transport is not None
        self._transport.write(json.dumps(value, separators=(",", ":")).encode())

    # asyncio.Protocol ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio.Protocol)
        for reply in self._waiting.values():
            if not reply.done():
                reply.set_exception(Unavailable("the connection to the OVSDB server has ended"))
        on_lost, self._on_lost = self._on_lost, lambda: None
        on_lost()

    def data_received(self, data: bytes) -> None:
        # A value can only be complete where a brace closes: between, a long one is gathered without trying to decode.
        self._raw += data
        if not self._raw.endswith(b"}"):
            return
        text = self._raw.decode().strip()
        offset = 0
        while offset < len(text):
            try:
                value, offset = self._decoder.raw_decode(text, offset)
            except json.JSONDecodeError:
                break  # the rest is still on its way
            self._received(value)
        self._raw = text[offset:].encode()

    def _received(self, value: Json) -> None:
        if value.get("method") == "echo":
            self._send({"result": value["params"], "error": None, "id": value["id"]})
        elif value.get("method") == "update":
            if self._on_update is not None:
                self._on_update(value["params"][1])
        elif reply := self._waiting.get(value["id"]):
            if reply.done():
                return
            if value.get("error"):
                error = value["error"]
                reply.set_exception(TransactionRefused(str(error.get("error", error)), str(error.get("details", ""))))
            else:
                if on_result := self._on_result.get(value["id"]):
                    on_result(value["result"])
                reply.set_result(value["result"])


# How values are written and read (RFC 7047 section 5.1) ------------------------------------------------------------


def to_map(values: Mapping[str, str]) -> Json:
    """A map column's value."""
    return ["map", [[key, value] for key, value in values.items()]]


def to_set(values: Sequence[Json]) -> Json:
    """A set column's value."""
    return ["set", list(values)]


def named(name: str) -> Json:
    """The id of a row that the same transaction inserts under this name."""
    return ["named-uuid", name]


def row_id(uuid: str) -> Json:
    """A reference to a row that is there already."""
    return ["uuid", uuid]


def from_map(value: Json) -> dict[str, str]:
    """A map column as a dict."""
    return {str(key): str(item) for key, item in value[1]}


def from_set(value: Json) -> list[Json]:
    """A set column as a list; a set of one is written as the value alone."""
    if isinstance(value, list) and value and value[0] == "set":
        return list(value[1])
    return [value]


def from_ids(value: Json) -> list[str]:
    """A set of row references as row ids."""
    return [str(item[1]) for item in from_set(value)]
