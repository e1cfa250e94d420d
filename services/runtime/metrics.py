"""Figures of a process for Prometheus: what is counted where it happens, collected when somebody asks.

Whoever works counts in plain numbers; nothing is formatted, locked or sent until a scrape. An actor that is told to
(`--metrics`) answers on a socket `RUN_DIR/metrics/<actor>.sock` with its families; the daemon gathers those of all its
actors and serves them at one address (`services/metrics_http.py`). Both need no bus: what is away is seen.

Task: `serve` owns the socket and answers each connection in a task of its own, which ends with it.
"""

from __future__ import annotations

import math
import os
import resource
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Literal

import anyio
import msgspec
import structlog
from anyio.abc import SocketStream

from .errors import Misconfigured

SOCKETS_DIR = "metrics"
ANSWER_WITHIN_S = 2.0
ANSWER_BYTES_MAX = 8 << 20

# Upper bounds in seconds; the last bucket, of everything, is added when it is shown.
BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

log = structlog.get_logger()


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One line: a family's name with `suffix`, labels, and a value."""

    value: float
    labels: dict[str, str] = {}
    suffix: str = ""


class Family(msgspec.Struct, frozen=True, array_like=True):
    """All lines of one name. A counter's name ends in `_total`, and units stand before that: `_seconds`, `_bytes`."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    about: str
    samples: list[Sample]


Collect = Callable[[], Awaitable[Sequence[Family]]]


class Histogram:
    """How often something took how long."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0

    def observe(self, took_s: float) -> None:
        """It took this long once more."""
        self.counts[bisect_left(BOUNDS_S, took_s)] += 1
        self.sum_s += took_s

    def samples(self, labels: Mapping[str, str] | None = None) -> list[Sample]:
        """Its lines: a cumulative count for each bound, the sum and the count."""
        own = dict(labels or {})
        bounds = [*map(_number, BOUNDS_S), "+Inf"]
        cumulative = list(accumulate(self.counts))
        buckets = [
            Sample(count, {**own, "le": bound}, "_bucket") for bound, count in zip(bounds, cumulative, strict=True)
        ]
        return [*buckets, Sample(self.sum_s, own, "_sum"), Sample(cumulative[-1], own, "_count")]


def counter(name: str, about: str, value: float) -> Family:
    """A family of one counter."""
    return Family(name, "counter", about, [Sample(float(value))])


def gauge(name: str, about: str, value: float) -> Family:
    """A family of one gauge."""
    return Family(name, "gauge", about, [Sample(float(value))])


def by_label(
    name: str, kind: Literal["counter", "gauge"], about: str, label: str, values: Mapping[str, float]
) -> Family:
    """A family with one line for each value of a label."""
    return Family(name, kind, about, [Sample(value, {label: key}) for key, value in sorted(values.items())])


def histogram(name: str, about: str, measured: Histogram) -> Family:
    """A family of one histogram."""
    return Family(name, "histogram", about, measured.samples())


def of_this_process() -> list[Family]:
    """Memory, processor time and open files of this process, under the names that every exporter uses."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return [
        counter("process_cpu_seconds_total", "User and system time.", used.ru_utime + used.ru_stime),
        gauge("process_resident_memory_bytes", "Resident memory.", pages * os.sysconf("SC_PAGE_SIZE")),
        gauge("process_open_fds", "Open file descriptors.", len(os.listdir("/proc/self/fd")) - 1),  # noqa: PTH208
        gauge("process_max_fds", "Limit of open file descriptors.", resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    ]


def merged(parts: Mapping[str, Iterable[Family]], label: str) -> list[Family]:
    """The families of several processes as one list, each line with the process's name in `label`."""
    found: dict[str, Family] = {}
    for name, families in parts.items():
        for family in families:
            told = found.setdefault(family.name, Family(family.name, family.kind, family.about, []))
            told.samples.extend(Sample(s.value, {label: name, **s.labels}, s.suffix) for s in family.samples)
    return list(found.values())


def exposition(families: Iterable[Family]) -> str:
    """The families in Prometheus' text format, version 0.0.4."""
    lines: list[str] = []
    for family in families:
        lines += (f"# HELP {family.name} {_escaped(family.about)}", f"# TYPE {family.name} {family.kind}")
        lines += (_line(family.name, sample) for sample in family.samples)
    return "\n".join([*lines, ""])


def _line(name: str, sample: Sample) -> str:
    told = ",".join(f'{key}="{_escaped(value, quote=True)}"' for key, value in sample.labels.items())
    return f"{name}{sample.suffix}{f'{{{told}}}' if told else ''} {_number(sample.value)}"


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(float(value))


def _escaped(text: str, *, quote: bool = False) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if quote else escaped


# Between an actor and its daemon -------------------------------------------------------------------------------------


def socket_of(run_dir: Path, actor: str) -> Path:
    """Where an actor answers with its figures."""
    return run_dir / SOCKETS_DIR / f"{actor}.sock"


async def serve(path: Path, collect: Collect) -> None:
    """Whoever connects to `path` gets what `collect` returns, with the process's own figures. Raises: Misconfigured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        listener = await anyio.create_unix_listener(path, mode=0o600)
    except OSError as fault:
        raise Misconfigured(f"figures cannot be told at {path}: {fault}; choose a shorter --run-dir") from fault

    async def answer(stream: SocketStream) -> None:
        async with stream:
            with anyio.move_on_after(ANSWER_WITHIN_S), suppress(anyio.BrokenResourceError):
                await stream.send(msgspec.msgpack.encode([*await collect(), *of_this_process()]))

    async with listener:
        await listener.serve(answer)


async def ask(path: Path) -> list[Family] | None:
    """What the actor at `path` tells; None when it does not answer in time, or not like one of ours."""
    told = bytearray()
    try:
        with anyio.fail_after(ANSWER_WITHIN_S):
            async with await anyio.connect_unix(path) as stream:
                async for chunk in stream:
                    told += chunk
                    if len(told) > ANSWER_BYTES_MAX:
                        return None
        return msgspec.msgpack.decode(bytes(told), type=list[Family])
    except (OSError, TimeoutError, anyio.BrokenResourceError) as fault:
        log.debug("figures-not-told", socket=str(path), detail=str(fault))
        return None
    except msgspec.DecodeError as fault:  # it ended while it told, or is of another version
        log.warning("figures-unreadable", socket=str(path), detail=str(fault))
        return None
