"""Reading HTTP/1.1 responses, without any I/O: bytes in, head and body out, however the bytes were cut.

Only what an engine's API on a local socket sends: no trailers kept, no compression.
Source: RFC 9112 sections 4, 6 and 7.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum, auto

import msgspec

from services.runtime.errors import Unavailable

_HEAD_LIMIT_BYTES = 64 * 1024
_LINE_LIMIT_BYTES = 4096
_NO_BODY = frozenset({204, 304})


class Garbled(Unavailable):
    """What came is not HTTP/1.1 as this reader knows it. The connection is of no use any more."""


class Head(msgspec.Struct, frozen=True):
    """A status line and its headers, names in lower case."""

    status: int
    headers: Mapping[str, str]

    @property
    def is_kept(self) -> bool:
        """Whether the connection may carry another request afterwards."""
        return self.headers.get("connection", "").lower() != "close"


class End(msgspec.Struct, frozen=True):
    """The response is complete."""


Part = Head | bytes | End


class _State(Enum):
    HEAD = auto()
    COUNTED = auto()  # Content-Length says how much is left
    UNTIL_CLOSE = auto()
    CHUNK_SIZE = auto()
    CHUNK = auto()
    CHUNK_CRLF = auto()
    TRAILER = auto()
    DONE = auto()


class ResponseReader:
    """One response. `feed` what was received and use what it yields; after `End` take a new reader.

    HEAD -> COUNTED | UNTIL_CLOSE -> DONE (a status without body: HEAD -> DONE)
    HEAD -> CHUNK_SIZE -> CHUNK -> CHUNK_CRLF -> CHUNK_SIZE ... -> TRAILER -> DONE
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._state = _State.HEAD
        self._left_bytes = 0

    def feed(self, received: bytes) -> Iterator[Part]:
        """What `received` completes, in order; `b""` says that the peer closed. Body parts are never empty.

        Raises: `Garbled`, for bytes that are no response, for bytes after its end, and for a close in its middle.
        """
        if not received:
            yield from self._close()
            return
        self._buffer += received
        while (part := self._next()) is not None:
            yield part
            if isinstance(part, End):
                return

    def _close(self) -> Iterator[Part]:
        if self._state is not _State.UNTIL_CLOSE:
            raise Garbled(f"the engine closed the connection in the middle of a response ({self._state.name.lower()})")
        self._state = _State.DONE
        yield End()

    def _next(self) -> Part | None:
        """The next part that the buffer holds; None when more bytes are needed."""
        while True:
            match self._state:
                case _State.HEAD:
                    return self._head()
                case _State.UNTIL_CLOSE:
                    return self._body(len(self._buffer))
                case _State.COUNTED | _State.CHUNK if self._left_bytes:
                    return self._body(self._left_bytes)
                case _State.COUNTED:
                    self._state = _State.DONE
                case _State.CHUNK:
                    self._state = _State.CHUNK_CRLF
                case _State.CHUNK_SIZE | _State.CHUNK_CRLF | _State.TRAILER:
                    if not self._line_of_chunking():
                        return None
                case _State.DONE:
                    if self._buffer:
                        raise Garbled(f"{len(self._buffer)} bytes came after the end of a response")
                    return End()

    def _head(self) -> Head | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _HEAD_LIMIT_BYTES:
                raise Garbled(f"expected the head of a response in {_HEAD_LIMIT_BYTES} bytes, found no end of it")
            return None
        head = parse_head(bytes(self._buffer[:end]))
        del self._buffer[: end + 4]
        if head.status in _NO_BODY:
            self._state = _State.DONE
        elif "chunked" in head.headers.get("transfer-encoding", "").lower():
            self._state = _State.CHUNK_SIZE
        elif (length := head.headers.get("content-length")) is not None:
            self._left_bytes = _number(length, 10)
            self._state = _State.COUNTED
        else:
            self._state = _State.UNTIL_CLOSE
        return head

    def _body(self, limit_bytes: int) -> bytes | None:
        if not self._buffer:
            return None
        piece = bytes(self._buffer[:limit_bytes])
        del self._buffer[: len(piece)]
        self._left_bytes = max(0, self._left_bytes - len(piece))
        return piece

    def _line_of_chunking(self) -> bool:
        """Takes one line and goes to the state that it asks for; False when no whole line is there."""
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > _LINE_LIMIT_BYTES:
                raise Garbled(f"expected a line of at most {_LINE_LIMIT_BYTES} bytes between chunks")
            return False
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        if self._state is _State.CHUNK_SIZE:
            self._left_bytes = _number(line.split(b";")[0].decode("latin-1"), 16)
            self._state = _State.CHUNK if self._left_bytes else _State.TRAILER
        elif self._state is _State.CHUNK_CRLF:
            if line:
                raise Garbled(f"expected the end of a chunk, found {line[:40]!r}")
            self._state = _State.CHUNK_SIZE
        elif not line:
            self._state = _State.DONE
        return True


def parse_head(head: bytes) -> Head:
    """The status and headers in `head`, which excludes the empty line. Raises: `Garbled`."""
    status_line, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = status_line.partition(" ")
    if not version.startswith("HTTP/1."):
        raise Garbled(f"expected an HTTP/1.1 status line, found {status_line[:80]!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, content = line.partition(":")
        if not colon:
            raise Garbled(f"expected a header, found {line[:80]!r}")
        headers[name.strip().lower()] = content.strip()
    return Head(_number(rest[:3], 10), headers)


def _number(text: str, radix: int) -> int:
    """`text` as a number without sign, in at most 16 digits. Raises: `Garbled`."""
    digits = text.strip()
    if not digits or len(digits) > 16 or not digits.isascii() or not digits.isalnum():
        raise Garbled(f"expected a number in a response, found {text[:40]!r}")
    try:
        return int(digits, radix)
    except ValueError as error:
        raise Garbled(f"expected a number in a response, found {text[:40]!r}") from error
