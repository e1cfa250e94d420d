"""What a host actor counts while it works, and its families of figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from services.runtime.metrics import Family, Histogram, Sample, by_label, counter, gauge, histogram

from .drivers.contract import Done, Figures, Op, Outcome


class Measures:
    """Counts of one running host actor."""

    def __init__(self) -> None:
        self.round_s = Histogram()
        self.execute_s = Histogram()
        self.operations: Counter[tuple[str, str]] = Counter()  # kind and outcome: done, or the code of a refusal
        self.repairs: Counter[str] = Counter()  # by part, `switch` for the switch itself
        self.sessions = 0  # with the journal

    def executed(self, outcomes: Sequence[Outcome], took_s: float) -> None:
        """The driver has answered to operations."""
        self.execute_s.observe(took_s)
        for outcome in outcomes:
            self.operations[_kind(outcome.op), "done" if isinstance(outcome, Done) else outcome.code] += 1

    def families(self) -> list[Family]:
        """All of it."""
        operations = [
            Sample(count, {"operation": kind, "outcome": outcome})
            for (kind, outcome), count in sorted(self.operations.items())
        ]
        return [
            histogram("np_round_seconds", "One round of plan and execution.", self.round_s),
            histogram("np_execute_seconds", "The switch's part of a round.", self.execute_s),
            Family("np_operations_total", "counter", "Operations by what the switch said.", operations),
            by_label("np_repairs_total", "counter", "Parts that a full pass put back.", "part", self.repairs),
            counter("np_journal_sessions_total", "Sessions with the journal begun.", self.sessions),
        ]


def of_switch(figures: Figures | None) -> list[Family]:
    """What the switch says of itself; only that it is away when there is nothing."""
    is_up = gauge("np_switch_up", "Whether the switch answers.", figures is not None)
    if figures is None:
        return [is_up]
    dropped = "Packets that a table had no entry for: what is not allowed is dropped there."
    return [
        is_up,
        by_label("np_flows", "gauge", "Flow entries.", "table", _named(figures.flows)),
        by_label("np_dropped_packets_total", "counter", dropped, "table", _named(figures.dropped_packets)),
        counter("np_bundles_total", "Bundles of flow changes.", figures.bundles),
        counter("np_flow_messages_total", "Flow and group changes within bundles.", figures.flow_messages),
    ]


def _named(values: Mapping[str, int]) -> dict[str, float]:
    return {name.lower(): value for name, value in values.items()}


def _kind(op: Op) -> str:
    return str(op.__struct_config__.tag)
