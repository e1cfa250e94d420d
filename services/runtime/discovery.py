"""Answers to `$SRV.PING|INFO|STATS`, so that `nats service ls` and `netctl status` find every actor. Source: ADR-32."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import structlog
from anyio.abc import TaskGroup

from .bus import Bus, Handler, Message
from .clock import rfc3339
from .errors import Unavailable

log = structlog.get_logger()

_TYPE = "io.nats.micro.v1."


class EndpointStats(msgspec.Struct):
    """One subject of a service: how often it was asked, and how long answers took."""

    name: str
    subject: str
    queue_group: str
    num_requests: int = 0
    num_errors: int = 0
    last_error: str = ""
    processing_time: int = 0  # nanoseconds, in all

    def count(self, started_ns: int, error: str = "") -> None:
        """One more request was answered; `started_ns` is of `time.perf_counter_ns`."""
        self.num_requests += 1
        self.processing_time += time.perf_counter_ns() - started_ns
        if error:
            self.num_errors += 1
            self.last_error = error


class Service:
    """One instance of a service as others discover it. `metadata` is asked anew each time: it may tell what moves."""

    def __init__(
        self,
        bus: Bus,
        name: str,
        instance: str,
        version: str,
        endpoints: Sequence[EndpointStats],
        metadata: Callable[[], Mapping[str, str]],
    ) -> None:
        self._bus = bus
        self._identity = {"name": name, "id": instance, "version": version}
        self._endpoints = endpoints
        self._metadata = metadata
        self._started_ns = time.time_ns()

    async def start(self, tasks: TaskGroup) -> None:
        """Answer from now on, to everybody, to the name and to the instance; `tasks` sends. Raises: Unavailable."""
        name, instance = self._identity["name"], self._identity["id"]
        for verb, answer in (("PING", self._ping), ("INFO", self._info), ("STATS", self._stats)):
            for subject in (f"$SRV.{verb}", f"$SRV.{verb}.{name}", f"$SRV.{verb}.{name}.{instance}"):
                await self._bus.subscribe(subject, self._answering(tasks, answer))

    def _answering(self, tasks: TaskGroup, answer: Callable[[], dict[str, Any]]) -> Handler:
        def receive(message: Message) -> None:
            if message.reply:
                body = {**self._identity, "metadata": dict(self._metadata()), **answer()}
                tasks.start_soon(self._send, message.reply, msgspec.json.encode(body))

        return receive

    async def _send(self, subject: str, payload: bytes) -> None:
        try:
            await self._bus.publish(subject, payload)
        except Unavailable as fault:
            log.debug("discovery-not-answered", detail=fault.detail)

    def _ping(self) -> dict[str, Any]:
        return {"type": f"{_TYPE}ping_response"}

    def _info(self) -> dict[str, Any]:
        endpoints = [
            {"name": e.name, "subject": e.subject, "queue_group": e.queue_group, "metadata": {}}
            for e in self._endpoints
        ]
        return {"type": f"{_TYPE}info_response", "description": "", "endpoints": endpoints}

    def _stats(self) -> dict[str, Any]:
        rows = [
            {**msgspec.to_builtins(e), "average_processing_time": e.processing_time // max(1, e.num_requests)}
            for e in self._endpoints
        ]
        return {"type": f"{_TYPE}stats_response", "started": rfc3339(self._started_ns), "endpoints": rows}
