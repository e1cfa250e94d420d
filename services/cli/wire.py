"""The part of the NATS client protocol that a command line needs, on one blocking socket.

A verb asks once or twice and ends. Importing asyncio and nats-py for that takes 75 ms of the 80 that a verb should
take, this file 5. It is no second bus: actors use `services/runtime/bus.py`, and tests hold this to a real nats-server.

    Wire(server).connect() -> publish / subscribe / request / next_message -> close()

Source: https://docs.nats.io/reference/reference-protocols/nats-protocol, ADR-4 (headers), ADR-26 (nkeys).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .server import Server, signed_login

if TYPE_CHECKING:
    from typing import NoReturn

CONNECT_TIMEOUT_S = 2.0
CONNECT_TIMEOUT_OF_SEVERAL_S = 1.0  # to one of them
LINE_MAX_BYTES = 64 * 1024
DEFAULT_PORT = 4222


class Unreachable(Exception):
    """No server answers, or the connection broke. The text says which address, and why."""


class Rejected(Exception):
    """The server answers and does not let this client in, or forbids what it did."""


class NoResponders(Exception):
    """Nobody listens on the subject that was asked."""


class Message(NamedTuple):
    """What the server delivered. `status` is that of a header line such as `NATS/1.0 503`, 0 for none."""

    subject: str
    reply: str
    headers: Mapping[str, str]
    payload: bytes
    status: int
    description: str


class Wire:
    """A connection. Not for more than one thread; times are deadlines by `time.monotonic()`."""

    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self._name = name
        self._socket: socket.socket | None = None
        self._buffer = bytearray()
        self._delivered: deque[Message] = deque()
        self._subscriptions = 0
        self._requests = 0
        self._next_url = 0
        self._inbox = f"{server.inbox_prefix}.{os.urandom(8).hex()}"
        self.server_facts: dict[str, Any] = {}

    def connect(self, deadline: float) -> None:
        """The server has let us in. Tries each address once, first that which answered last.

        Raises: Unreachable, Rejected.
        """
        faults: list[str] = []
        rejected: Rejected | None = None
        urls = self._server.urls
        each_s = CONNECT_TIMEOUT_S if len(urls) == 1 else CONNECT_TIMEOUT_OF_SEVERAL_S
        for url in (*urls[self._next_url :], *urls[: self._next_url]):
            try:
                self._connect_one(url, min(deadline, time.monotonic() + each_s))
            except (OSError, Unreachable) as fault:
                self.close()
                faults.append(f"{_without_password(url)}: {_cause(fault)}")
            except Rejected as fault:  # another one may know us: who has just joined is not known everywhere at once
                self.close()
                rejected = rejected or fault
            else:
                self._next_url = urls.index(url)
                return
        if rejected is not None:
            raise rejected
        raise Unreachable("; ".join(faults))

    @property
    def where(self) -> str:
        """The address that answers; empty while none does."""
        return _without_password(self._server.urls[self._next_url]) if self._socket else ""

    @property
    def has_others(self) -> bool:
        """There are further servers to ask."""
        return len(self._server.urls) > 1

    def leave(self) -> None:
        """The connection is gone; the next one is to the server after this one."""
        self.close()
        self._next_url = (self._next_url + 1) % len(self._server.urls)

    def close(self) -> None:
        """The connection is gone; what was published has been sent."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._buffer.clear()
        self._delivered.clear()

    def publish(self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None, reply: str = "") -> None:
        """The message is on its way. Raises: Unreachable."""
        target = f"{subject} {reply}" if reply else subject
        if headers:
            block = "NATS/1.0\r\n" + "".join(f"{key}: {value}\r\n" for key, value in headers.items()) + "\r\n"
            head = block.encode()
            self._send(f"HPUB {target} {len(head)} {len(head) + len(payload)}\r\n".encode() + head + payload + b"\r\n")
        else:
            self._send(f"PUB {target} {len(payload)}\r\n".encode() + payload + b"\r\n")

    def subscribe(self, subject: str) -> None:
        """Messages on `subject` are delivered from now on, as the server confirms. Raises: Unreachable, Rejected."""
        self._subscriptions += 1
        self._send(f"SUB {subject} {self._subscriptions}\r\nPING\r\n".encode())
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        while (op := self._operation(deadline)) != "PONG":
            if op is None:
                raise Unreachable("the server does not answer")

    def request(self, subject: str, payload: bytes, headers: Mapping[str, str] | None, deadline: float) -> Message:
        """The first answer. What arrives meanwhile on subscriptions is kept for `next_message`.

        Raises: NoResponders, TimeoutError, Unreachable, Rejected (we may not ask that).
        """
        message = self.next_on(self.ask(subject, payload, headers), deadline)
        if message is None:
            raise TimeoutError(subject)
        if message.status == 503:
            raise NoResponders(subject)
        return message

    def ask(self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None) -> str:
        """The question is on its way; its answers (one or many) arrive by `next_message` on the subject returned."""
        if self._requests == 0:
            self._subscriptions += 1
            self._send(f"SUB {self._inbox}.* {self._subscriptions}\r\n".encode())
        self._requests += 1
        inbox = f"{self._inbox}.{self._requests}"
        self.publish(subject, payload, headers, reply=inbox)
        return inbox

    def next_message(self, deadline: float) -> Message | None:
        """The next one delivered; None when the deadline passes first. Raises: Unreachable, Rejected."""
        while not self._delivered:
            if self._operation(deadline) is None:
                return None
        return self._delivered.popleft()

    def next_on(self, subject: str, deadline: float) -> Message | None:
        """The next one on `subject`, None when the deadline passes first; the others are kept for `next_message`."""
        kept: list[Message] = []
        try:
            while (message := self.next_message(deadline)) is not None:
                if message.subject == subject:
                    return message
                kept.append(message)
            return None
        finally:
            self._delivered.extendleft(reversed(kept))

    def _connect_one(self, url: str, deadline: float) -> None:
        from urllib.parse import urlsplit

        parts = urlsplit(url)
        timeout_s = max(0.05, deadline - time.monotonic())
        self._socket = socket.create_connection((parts.hostname or "", parts.port or DEFAULT_PORT), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._subscriptions = self._requests = 0
        if self._operation(deadline) != "INFO":
            raise Unreachable("what listens there is no nats-server")
        if parts.scheme == "tls" or self.server_facts.get("tls_required"):
            if not self.server_facts.get("tls_required"):
                raise Unreachable("it does not speak TLS, and tls:// asks for it")
            self._wrap_in_tls(parts.hostname or "")
        login = signed_login(self._server, str(self.server_facts.get("nonce", "")))
        if parts.username and not login:
            secret = parts.password
            login = {"user": parts.username, "pass": secret} if secret else {"auth_token": parts.username}
        options = {
            "verbose": False,
            "pedantic": False,
            "headers": True,
            "no_responders": True,
            "protocol": 1,
            "lang": "python",
            "version": "netplugin",
            "name": self._name,
            **login,
        }
        self._send(b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n")
        while (op := self._operation(deadline)) != "PONG":
            if op is None:
                raise Unreachable("the server does not answer")

    def _wrap_in_tls(self, host: str) -> None:
        import ssl

        try:
            context = ssl.create_default_context(cafile=self._server.ca or None)
        except OSError as fault:
            raise Rejected(f"the certificate in {self._server.ca} cannot be used: {_cause(fault)}") from fault
        if self._server.cert:
            context.load_cert_chain(self._server.cert, self._server.key or None)
        assert self._socket is not None
        self._socket = context.wrap_socket(self._socket, server_hostname=host)

    def _operation(self, deadline: float) -> str | None:
        """The name of the next protocol operation, acted on; None when the deadline passes first."""
        line = self._read_line(deadline)
        if line is None:
            return None
        op, _, rest = line.partition(" ")
        match op.upper():
            case "MSG":
                self._deliver(rest.split(), with_headers=False)
            case "HMSG":
                self._deliver(rest.split(), with_headers=True)
            case "PING":
                self._send(b"PONG\r\n")
            case "INFO":
                with contextlib.suppress(ValueError):  # not JSON: no nats-server; `connect` says so
                    self.server_facts |= json.loads(rest)
            case "-ERR":
                self._refuse(rest.strip("' "))
            case "PONG" | "+OK":
                pass
            case _:
                raise Unreachable("what listens there is no nats-server")
        return op.upper()

    def _refuse(self, text: str) -> NoReturn:
        lower = text.lower()
        if "authorization" in lower or "authentication" in lower or "permissions" in lower:
            raise Rejected(text)
        raise Unreachable(f"the server ended the connection: {text}")

    def _deliver(self, fields: list[str], *, with_headers: bool) -> None:
        sizes = fields[-2:] if with_headers else ["0", fields[-1]]
        head_bytes, total_bytes = int(sizes[0]), int(sizes[1])
        subject, reply = fields[0], fields[2] if len(fields) == (5 if with_headers else 4) else ""
        body = self._read_exactly(total_bytes + 2)[:-2]
        headers, status, description = parse_headers(body[:head_bytes]) if head_bytes else ({}, 0, "")
        self._delivered.append(Message(subject, reply, headers, body[head_bytes:], status, description))

    def _read_line(self, deadline: float) -> str | None:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > LINE_MAX_BYTES:
                raise Unreachable("what listens there is no nats-server")
            if not self._receive(deadline):
                return None
        line = self._buffer[:end].decode("utf-8", "replace")
        del self._buffer[: end + 2]
        return line

    def _read_exactly(self, size_bytes: int) -> bytes:
        # A message that has begun is read to its end: a deadline in its middle would lose the place in the stream.
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        while len(self._buffer) < size_bytes:
            if not self._receive(deadline):
                raise Unreachable("the server stopped in the middle of a message")
        body = bytes(self._buffer[:size_bytes])
        del self._buffer[:size_bytes]
        return body

    def _receive(self, deadline: float) -> bool:
        if self._socket is None:
            raise Unreachable("the connection is closed")
        self._socket.settimeout(max(0.0, deadline - time.monotonic()) or 1e-6)
        try:
            received = self._socket.recv(65536)
        except (TimeoutError, BlockingIOError):
            return False
        except OSError as fault:
            raise Unreachable(f"the connection broke: {_cause(fault)}") from fault
        if not received:
            raise Unreachable("the server closed the connection")
        self._buffer += received
        return True

    def _send(self, octets: bytes) -> None:
        if self._socket is None:
            raise Unreachable("the connection is closed")
        self._socket.settimeout(CONNECT_TIMEOUT_S)
        try:
            self._socket.sendall(octets)
        except OSError as fault:
            raise Unreachable(f"the connection broke: {_cause(fault)}") from fault


def parse_headers(block: bytes) -> tuple[dict[str, str], int, str]:
    """The headers of a message with the status of its first line, 0 for none. Of a repeated header the first stands."""
    lines = block.decode("utf-8", "replace").split("\r\n")
    status_text, _, description = lines[0].removeprefix("NATS/1.0").strip().partition(" ")
    headers: dict[str, str] = {}
    for key, value in _pairs(lines[1:]):
        headers.setdefault(key, value)
    return headers, int(status_text) if status_text.isdigit() else 0, description


def _pairs(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    for line in lines:
        key, colon, value = line.partition(":")
        if colon:
            yield key.strip(), value.strip()


def _without_password(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _cause(fault: BaseException) -> str:
    return getattr(fault, "strerror", None) or str(fault) or type(fault).__name__
