"""What is measured, as values: the time line of one attach, and a series of them as percentiles and a rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

MS: Final = 1000.0


@dataclass(slots=True)
class Timeline:
    """When (seconds of `time.perf_counter`) the stages of one attach were over; `started_ns` is its wall clock."""

    started_s: float
    started_ns: int = 0
    accepted_s: float = 0.0  # 0: there is no such stage
    bound_s: float = 0.0
    pinged_s: float = 0.0
    key: str = ""  # what was attached, for finding it in a journal
    recorded_ms: float = 0.0  # after the start, by the journal's clock

    @property
    def bound_ms(self) -> float:
        return (self.bound_s - self.started_s) * MS

    @property
    def pinged_ms(self) -> float:
        return (self.pinged_s - self.started_s) * MS

    @property
    def accepted_ms(self) -> float:
        return (self.accepted_s - self.started_s) * MS

    def stages_ms(self) -> dict[str, float]:
        """The pieces of the way to the first ping, in order, and `reply`, which nothing on that way waits for."""
        return {
            "recorded": self.recorded_ms,
            "bound": self.bound_ms - self.recorded_ms,
            "ping": self.pinged_ms - self.bound_ms,
            "reply": self.accepted_ms,
        }


@dataclass(slots=True)
class Series:
    """Attaches made under the same conditions. `took_s` is the time in which all of them were made."""

    lines: list[Timeline] = field(default_factory=list)
    took_s: float = 0.0

    @property
    def rate_per_s(self) -> float:
        return len(self.lines) / self.took_s if self.took_s else 0.0

    def figures(self) -> dict[str, float]:
        """Milliseconds until bound and until the first ping reply, and attaches a second."""
        bound = [line.bound_ms for line in self.lines]
        pinged = [line.pinged_ms for line in self.lines]
        return {
            "runs": float(len(self.lines)),
            "bound_p50_ms": percentile(bound, 50),
            "bound_p99_ms": percentile(bound, 99),
            "ping_p50_ms": percentile(pinged, 50),
            "ping_p99_ms": percentile(pinged, 99),
            "ping_max_ms": max(pinged, default=0.0),
            "rate_per_s": self.rate_per_s,
        }

    def stages_p50_ms(self) -> dict[str, float]:
        """The median of each of `Timeline.stages_ms`."""
        stages = [line.stages_ms() for line in self.lines]
        return {name: percentile([each[name] for each in stages], 50) for name in (stages[0] if stages else ())}


def percentile(values: Sequence[float], rank: float) -> float:
    """The nearest-rank percentile; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-len(ordered) * rank // 100) - 1))]
