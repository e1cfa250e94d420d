"""What a deciding actor counts while it works, and its families of figures."""

from __future__ import annotations

import time
from collections import Counter, defaultdict

from messages.replies import Accepted, AnyReply, Refused, Unavailable

from .metrics import Family, Histogram, Sample, by_label, histogram


class ActorMeasures:
    """Counts of one running copy of an actor."""

    def __init__(self) -> None:
        self.answers: Counter[tuple[str, str]] = Counter()  # command and outcome
        self.codes: Counter[str] = Counter()  # of what was refused or put off
        self.command_s: dict[str, Histogram] = defaultdict(Histogram)
        self.decide_s = Histogram()
        self.append_s = Histogram()
        self.appends: Counter[str] = Counter()  # outcome: recorded, conflict, unknown, unavailable
        self.events = 0  # that were recorded

    def answered(self, command: str, reply: AnyReply, started_ns: int) -> None:
        """A command has its reply; `started_ns` is of `time.perf_counter_ns`."""
        self.answers[command, _outcome(reply)] += 1
        self.command_s[command].observe((time.perf_counter_ns() - started_ns) / 1e9)
        if isinstance(reply, Refused | Unavailable):
            self.codes[reply.code] += 1

    def families(self) -> list[Family]:
        """All of it."""
        answers = [
            Sample(count, {"command": command, "outcome": outcome})
            for (command, outcome), count in sorted(self.answers.items())
        ]
        took = [
            sample
            for command, measured in sorted(self.command_s.items())
            for sample in measured.samples({"command": command})
        ]
        return [
            Family("np_commands_total", "counter", "Commands and queries answered.", answers),
            by_label("np_refusals_total", "counter", "Answers that were a refusal, or put off.", "code", self.codes),
            Family("np_command_seconds", "histogram", "From a command's arrival to its answer.", took),
            histogram("np_decide_seconds", "Time in a handler.", self.decide_s),
            histogram("np_append_seconds", "Until the journal has acknowledged an append.", self.append_s),
            by_label("np_appends_total", "counter", "Appends to the journal.", "outcome", self.appends),
            Family("np_events_total", "counter", "Events recorded by this copy.", [Sample(self.events)]),
        ]


def _outcome(reply: AnyReply) -> str:
    if isinstance(reply, Refused):
        return "refused"
    if isinstance(reply, Unavailable):
        return "unavailable"
    if isinstance(reply, Accepted):
        return "repeated" if reply.is_repeated else "accepted" if reply.is_changed else "unchanged"
    return "answered"
