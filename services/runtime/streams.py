"""The three streams, as they must be: made where they are missing, compared where they are there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog

from messages import subjects

from . import jetstream_api
from .bus import Bus
from .errors import Misconfigured, OutcomeUnknown, Unavailable
from .jetstream_api import ApiError

log = structlog.get_logger()

RETRY_S = 0.2
INFO_WITHIN_S = 1.0  # servers that have not chosen a leader yet do not answer at all
DUPLICATE_WINDOW_S = 3600  # a command repeated within it is answered again and changes nothing
AUDIT_BYTES_MAX = 64 * 2**20

_NS = 10**9
_SHARED = {"retention": "limits", "storage": "file", "allow_direct": True}

STREAMS: Mapping[str, Mapping[str, Any]] = {
    subjects.JOURNAL_STREAM: {
        **_SHARED,
        "subjects": [subjects.ALL_EVENTS],
        "max_msgs_per_subject": -1,
        "discard": "new",
        "allow_atomic": True,
        "deny_delete": True,
        "deny_purge": True,
        "duplicate_window": DUPLICATE_WINDOW_S * _NS,
    },
    subjects.STATE_STREAM: {
        **_SHARED,
        "subjects": [f"{subjects.PORTS}.>", f"{subjects.RULES}.>", f"{subjects.SNAPSHOTS}.>"],
        "max_msgs_per_subject": 1,
        "discard": "old",
        "duplicate_window": 120 * _NS,
    },
    subjects.AUDIT_STREAM: {
        **_SHARED,
        "subjects": [subjects.ALL_AUDIT],
        "max_msgs_per_subject": -1,
        "max_bytes": AUDIT_BYTES_MAX,
        "discard": "old",
        "duplicate_window": 120 * _NS,
    },
}


async def streams_ready(bus: Bus, replicas: int) -> None:
    """`ensure_streams` has succeeded; it is tried again while servers of the cluster are still to come.

    Raises: Misconfigured, Unavailable when the bus has ended for good.
    """
    said = ""
    while True:
        try:
            return await ensure_streams(bus, replicas)
        except Unavailable as fault:
            if fault.detail != said:
                advice = "most of the cluster's servers must run" if replicas > 1 else "nats-server must run"
                log.warning("journal-not-ready", detail=fault.detail, asked_again_every_s=RETRY_S, advice=advice)
            said = fault.detail
        await bus.connected()
        await asyncio.sleep(RETRY_S)


async def ensure_streams(bus: Bus, replicas: int = 1) -> None:
    """All three streams are there as this version needs them, on `replicas` servers at least, as far as there are.

    Raises: Misconfigured (one is there and differs, or the server is too old), Unavailable.
    """
    bus.check_server()
    for name, wanted in STREAMS.items():
        found = await _configuration(bus, name)
        if found is None:
            found = await _create(bus, name, {**wanted, "name": name, "num_replicas": replicas})
        _compare(name, wanted, found)
        if int(found["num_replicas"]) < replicas:
            await _spread(bus, name, found, replicas)


async def _configuration(bus: Bus, name: str) -> dict[str, Any] | None:
    try:
        answer = await jetstream_api.ask(bus, f"STREAM.INFO.{name}", timeout_s=INFO_WITHIN_S)
    except ApiError:
        return None
    configuration: dict[str, Any] = answer["config"]
    return configuration


async def _create(bus: Bus, name: str, configuration: dict[str, Any]) -> dict[str, Any]:
    try:
        answer = await jetstream_api.call(bus, f"STREAM.CREATE.{name}", configuration, timeout_s=5.0)
    except OutcomeUnknown as fault:
        raise Unavailable(f"stream {name}: {fault.detail}") from fault
    except ApiError as fault:
        raise Unavailable(f"stream {name} could not be made at {bus.where}: {fault}") from fault
    log.info("stream-made", stream=name, replicas=configuration["num_replicas"])
    made: dict[str, Any] = answer["config"]
    return made


async def _spread(bus: Bus, name: str, found: dict[str, Any], replicas: int) -> None:
    """The stream is kept by more servers from now on; where it cannot be yet, that is said and all goes on."""
    try:
        await jetstream_api.call(bus, f"STREAM.UPDATE.{name}", {**found, "num_replicas": replicas}, timeout_s=5.0)
    except (ApiError, Unavailable) as fault:
        detail = str(fault)
        log.warning("stream-not-spread", stream=name, replicas=found["num_replicas"], wanted=replicas, detail=detail)
    else:
        log.info("stream-spread", stream=name, replicas=replicas)


def _compare(name: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    for setting, value in wanted.items():
        if found.get(setting, False) != value:
            raise Misconfigured(f"stream {name}: {setting} is {found.get(setting)!r}, expected {value!r}")
