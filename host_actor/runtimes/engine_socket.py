"""Requests to an engine's HTTP API over its unix socket, on a few connections that are kept.

No task lives here: each call reads its own answer on its own connection. `close` ends what is idle; a call under way
ends with its caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from services.runtime.errors import Unavailable

from .http1 import End, Head, ResponseReader

_READ_BYTES = 64 * 1024
_CONNECTION_LIMIT = 4
_BODY_LIMIT_BYTES = 8 * 1024 * 1024


class EngineSocket:
    """The API behind one unix socket."""

    def __init__(self, path: str, timeout_s: float = 5.0) -> None:
        self.path = path
        self._timeout_s = timeout_s
        self._idle: list[_Connection] = []
        self._slots = asyncio.Semaphore(_CONNECTION_LIMIT)
        self._is_closed = False

    async def get(self, target: str) -> tuple[int, bytes]:
        """Status and body of `GET target`.

        A kept connection that the engine has closed in the meantime is replaced once; a GET may be sent twice.
        Raises: `Unavailable` when nobody listens, nobody answers in time, or what comes is no answer.
        """
        async with self._slots:
            try:
                async with asyncio.timeout(self._timeout_s):
                    if self._idle:
                        try:
                            return await self._ask(self._idle.pop(), target)
                        except Unavailable:
                            self._drop_idle()
                    return await self._ask(await self._connect(), target)
            except TimeoutError:
                raise Unavailable(f"no answer from the engine at {self.path} in {self._timeout_s:g} s") from None

    async def lines(self, target: str) -> AsyncGenerator[bytes, None]:
        """The lines of an endless response, on its own connection; first an empty one as soon as its head has come.

        Ends when the engine ends it. Raises: `Unavailable`.
        """
        connection = await self._connect()
        try:
            connection.send(target)
            rest = b""
            async with aclosing(connection.parts()) as parts:
                async for part in parts:
                    if isinstance(part, Head):
                        _expect_ok(part, target)
                        yield b""
                    elif isinstance(part, bytes):
                        *whole, rest = (rest + part).split(b"\n")
                        for line in filter(None, whole):
                            yield line
                    if len(rest) > _BODY_LIMIT_BYTES:
                        raise Unavailable(f"a line of over {_BODY_LIMIT_BYTES} bytes from the engine at {self.path}")
        finally:
            connection.close()

    def close(self) -> None:
        """No connection is kept, now or later."""
        self._is_closed = True
        self._drop_idle()

    async def _connect(self) -> _Connection:
        try:
            reader, writer = await asyncio.open_unix_connection(self.path)
        except OSError as error:
            raise Unavailable(f"no engine at {self.path}: {error.strerror or error}") from error
        return _Connection(reader, writer)

    async def _ask(self, connection: _Connection, target: str) -> tuple[int, bytes]:
        """The answer; the connection is kept if it can be, closed otherwise (also when the caller is cancelled)."""
        is_kept = False
        try:
            connection.send(target)
            head, body = await connection.answer()
            is_kept = head.is_kept
            return head.status, body
        finally:
            if is_kept and not self._is_closed:
                self._idle.append(connection)
            else:
                connection.close()

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, target: str) -> None:
        self._writer.write(f"GET {target} HTTP/1.1\r\nHost: engine\r\nAccept: application/json\r\n\r\n".encode("ascii"))

    async def parts(self) -> AsyncGenerator[Head | bytes, None]:
        """The head, then the body as it comes. Raises: `Unavailable`."""
        response = ResponseReader()
        while True:
            try:
                received = await self._reader.read(_READ_BYTES)
            except OSError as error:
                raise Unavailable(f"the connection to the engine broke: {error}") from error
            for part in response.feed(received):
                if isinstance(part, End):
                    return
                yield part

    async def answer(self) -> tuple[Head, bytes]:
        head: Head | None = None
        body = bytearray()
        async with aclosing(self.parts()) as parts:
            async for part in parts:
                if isinstance(part, Head):
                    head = part
                else:
                    body += part
                if len(body) > _BODY_LIMIT_BYTES:
                    raise Unavailable(f"an answer of over {_BODY_LIMIT_BYTES} bytes from the engine")
        assert head is not None, "a response ends after its head"
        return head, bytes(body)

    def close(self) -> None:
        self._writer.close()


def _expect_ok(head: Head, target: str) -> None:
    if head.status != 200:
        raise Unavailable(f"the engine answered {head.status} to GET {target}")
