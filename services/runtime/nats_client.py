"""What nats-py is told and what of it is ours: headers, the choice of a server, credentials. Only `bus` uses
it, and the daemon to look at credentials before it starts anything.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import ssl
from pathlib import Path
from typing import Any

import nkeys
from nats import errors as nats_errors
from nats.aio.client import Client, Server

RECONNECT_WAIT_S = 0.05  # and up to as much again, by chance

_is_token = re.compile(r"[!-~]+").fullmatch


class NatsClient(Client):
    """nats-py's client with a header parser of ours: half of a replay's time is headers, and this one is strict.

    nats-py strips names, so that `Nats-Request-Info :`, which the server lets through as a header like any other, reads
    as the one that only the server writes. Here a name that is no token (RFC 9110 section 5.6.2) is dropped.
    """

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        headers: dict[str, str] = {}
        for line in raw.decode("utf-8", "replace").split("\r\n"):
            name, colon, value = line.partition(":")
            if colon and _is_token(name):
                headers[name] = value.strip()
        return headers

    async def _send_publish(
        self, subject: str, reply: str, payload: bytes, payload_size: int, headers: dict[str, Any] | None
    ) -> None:
        """nats-py's own, with the headers written in one piece where they are plain: half of what a publish takes."""
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()]) if headers else ""
        if not headers or not lines.count("\n") == lines.count("\r") == len(headers):
            await super()._send_publish(subject, reply, payload, payload_size, headers)
            return
        header = f"NATS/1.0\r\n{lines}\r\n".encode()
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += payload_size
        size = f"{len(header)} {len(header) + payload_size}"
        await self._send_command(b"".join((f"HPUB {subject} {reply} {size}\r\n".encode(), header, payload, b"\r\n")))
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    async def _process_info(
        self,
        info: dict[str, Any],
        initial_connection: bool = False,  # noqa: FBT001, FBT002  (nats-py's signature)
    ) -> None:
        """nats-py's own, but where `tls://` asks for TLS, a server that wants none is none of ours; nats-py goes on."""
        server = self._current_server
        if initial_connection and server and server.uri.scheme == "tls" and not info.get("tls_required"):
            raise nats_errors.Error(f"{server.uri.hostname} does not speak TLS, and tls:// asks for it")
        await super()._process_info(info, initial_connection)

    async def _attempt_reconnect(self) -> None:
        """nats-py's own, but TLS with a server that hangs is dropped, not taken leave of: that takes 30 s."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
        await super()._attempt_reconnect()

    async def _process_pong(self) -> None:
        """nats-py's own, but a flush that nobody waits for any more does not end the connection."""
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def flush_in_order(self) -> None:
        """The server has taken all that was sent before. nats-py's own ping overtakes what is still to be written."""
        assert self._flush_queue is not None, "it has connected before"
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._flush_queue.put(written)
        await written
        await self.flush()


def credentials_of(file: Path | None) -> dict[str, Any]:
    """How nats-py is told who we are. Raises: OSError or ValueError, where nats-py would fail late or never."""
    if file is None:
        return {}
    content = file.read_bytes()
    if file.suffix == ".creds":
        if b"BEGIN NATS USER JWT" not in content or b"BEGIN USER NKEY SEED" not in content:
            raise ValueError("it holds no user JWT with its seed")
        return {"user_credentials": str(file)}
    try:
        nkeys.from_seed(bytearray(content.strip())).wipe()
    except nkeys.NkeysError as fault:
        raise ValueError(str(fault)) from fault
    return {"nkeys_seed": str(file)}


def tls_of(urls: tuple[str, ...], ca: Path | None) -> dict[str, Any]:
    """How nats-py is told whose certificate to believe: `ca`'s, else the system's. Raises: OSError, ValueError."""
    if ca is None and not any(url.startswith("tls://") for url in urls):
        return {}
    if ca is not None and "BEGIN CERTIFICATE" not in ca.read_text():
        raise ValueError("it holds no certificate")
    logging.getLogger("asyncio").addFilter(_is_of_use)
    return {"tls": ssl.create_default_context(cafile=ca)}


def _is_of_use(record: logging.LogRecord) -> bool:
    """Not what asyncio says whenever a server goes away whose connection nats-py had upgraded to TLS."""
    return "eof_received()" not in record.getMessage()


def next_server(servers: list[Server], _: dict[str, Any]) -> tuple[Server, float]:
    """Each server in turn; at once the first time, then after a short while that differs between clients."""
    server = min(servers, key=lambda each: each.reconnects)
    wait_s = RECONNECT_WAIT_S * (1 + random.random()) if server.reconnects else 0.0  # noqa: S311  (jitter)
    return server, wait_s


def text_of(fault: BaseException) -> str:
    """What a fault says, or at least what it is."""
    return str(fault) or type(fault).__name__
