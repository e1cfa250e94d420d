"""`GET /metrics` at one address for all actors of a daemon: each is asked on its socket, and told apart by `actor`.

The daemon adds its own figures, and what it knows of its children. One task a connection, which is closed after one
answer; a scraper that says nothing is not waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import structlog

from .runtime import metrics
from .runtime.errors import Misconfigured
from .runtime.metrics import Family, Sample
from .runtime.version import VERSION

READ_WITHIN_S = 5.0
REQUEST_BYTES_MAX = 1 << 14
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PATH = "/metrics"

log = structlog.get_logger()


class MetricsServer:
    """Answers at `address` (`ADDRESS:PORT`) while its context lasts. `children`: names, and what is counted of each."""

    def __init__(
        self, address: str, run_dir: Path, actors: Sequence[str], children: Callable[[], Sequence[Family]], host: str
    ) -> None:
        self._address = address
        self._run_dir = run_dir
        self._actors = tuple(actors)
        self._children = children
        self._host = host
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> MetricsServer:
        """It listens. Raises: Misconfigured when the address cannot be had."""
        address, _, port = self._address.rpartition(":")
        try:
            self._server = await asyncio.start_server(
                self._connected, address.strip("[]"), int(port), limit=REQUEST_BYTES_MAX
            )
        except OSError as fault:
            reason = fault.strerror or str(fault)
            raise Misconfigured(
                f"--metrics {self._address}: {reason}; choose an address and a port of this host"
            ) from fault
        log.info("metrics-ready", url=f"http://{self._address}{PATH}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()

    async def text(self) -> str:
        """All figures in Prometheus' text format."""
        told = await asyncio.gather(*(metrics.ask(metrics.socket_of(self._run_dir, actor)) for actor in self._actors))
        answers = dict(zip(self._actors, told, strict=True))
        own = [*metrics.of_this_process(), *self._children()]
        parts = {actor: families for actor, families in answers.items() if families is not None} | {"daemon": own}
        about = Family(
            "np_build", "gauge", "The version and the host.", [Sample(1, {"version": VERSION, "host": self._host})]
        )
        up = Family(
            "np_actor_up",
            "gauge",
            "Whether an actor of this daemon answers.",
            [Sample(families is not None, {"actor": actor}) for actor, families in answers.items()],
        )
        return metrics.exposition([about, up, *metrics.merged(parts, "actor")])

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_WITHIN_S):
                request = await reader.readuntil(b"\r\n\r\n")
            writer.write(await self._answer(request.split(b"\r\n", 1)[0].decode("latin-1")))
            await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as fault:
            log.debug("scrape-broken", detail=str(fault))
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, request_line: str) -> bytes:
        method, _, rest = request_line.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method not in ("GET", "HEAD"):
            return _response("405 Method Not Allowed", f"{method} is not GET\n", with_body=True)
        if path != PATH:
            return _response("404 Not Found", f"{path} is not {PATH}\n", with_body=method == "GET")
        return _response("200 OK", await self.text(), with_body=method == "GET")


def of_programs(starts: Mapping[str, int], pids: Mapping[str, int | None]) -> list[Family]:
    """How often each child was started, and the memory of those programs that tell nothing themselves."""
    page = os.sysconf("SC_PAGE_SIZE")
    resident = {}
    for program, pid in pids.items():
        with contextlib.suppress(OSError):
            if pid is not None:
                resident[program] = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
    return [
        metrics.by_label("np_child_starts_total", "counter", "Starts of a program.", "program", starts),
        metrics.by_label("np_program_resident_memory_bytes", "gauge", "Resident memory.", "program", resident),
    ]


def _response(status: str, text: str, *, with_body: bool) -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (body if with_body else b"")
