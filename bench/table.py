"""The result as people read it: figures beside the floor, the peers and the budgets. The same values are the JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

BUDGET_PING_MS: Final = {"ping_p50_ms": 12.0, "ping_p99_ms": 30.0}  # with 10 endpoints
BUDGET_RATE_PER_S: Final = 150.0  # the same, 16 at a time
BUDGET_FLOORS: Final = {10: 2.0, 100: 1.5, 300: 1.3}
BUDGET_STOP_MS: Final = 25.0
BUDGET_VERB_MS: Final = 150.0
LOAD_MAX: Final = 0.5  # above it, at the start, the machine is not ours alone

Level = Mapping[str, Any]
Found = Mapping[str, Any]


def text(found: Found) -> str:
    """Everything that was found, a section each."""
    parts = [
        machine(found["machine"]),
        _attaches(found["levels"]),
        _stages(found["levels"]),
        _stops(found["levels"]),
        _verbs(found["verbs"]),
    ]
    parts += [f"not measured: {who}: {why}" for who, why in found["absent"].items()]
    parts.append(_budgets(found))
    return "\n\n".join(part for part in parts if part)


def machine(machine: Mapping[str, Any]) -> str:
    """The machine in a line, and whether it has other things to do."""
    text = f"{machine['cpus']} CPUs, Linux {machine['kernel']}, Python {machine['python']}, load {machine['load']:.1f}"
    if machine["load"] > LOAD_MAX:
        text += ": others work here, so read the ratios and not the milliseconds"
    return text


def _attaches(levels: Sequence[Level]) -> str:
    titles = (
        "present",
        "who",
        "runs",
        "at once",
        "bound p50",
        "ping p50",
        "ping p99",
        "per s",
        "x floor",
        "x cni",
        "x docker",
    )
    rows = []
    for level in levels:
        for at_once in ("1", "16"):
            series = level["series"].get(at_once, {})
            for who, figures in series.items():
                ratios = [_ratio(figures, series.get(other)) for other in ("floor", "cni", "docker")]
                times = [f"{figures[key]:.1f}" for key in ("bound_p50_ms", "ping_p50_ms", "ping_p99_ms", "rate_per_s")]
                rows.append((str(level["present"]), who, f"{figures['runs']:.0f}", at_once, *times, *ratios))
    return "attach: milliseconds from the command until bound, until the first ping reply\n" + columns(titles, rows)


def _ratio(figures: Mapping[str, float], other: Mapping[str, float] | None) -> str:
    return f"{figures['ping_p50_ms'] / other['ping_p50_ms']:.2f}" if other else "-"


def _stages(levels: Sequence[Level]) -> str:
    rows = [
        (str(level["present"]), at_once, *(f"{stages[name]:.1f}" for name in ("recorded", "bound", "ping", "reply")))
        for level in levels
        for at_once, stages in level["stages"].items()
    ]
    if not rows:
        return ""
    title = "where ours spends its time: median ms until the journal has it, then until bound, then until the ping\n"
    return title + columns(("present", "at once", "recorded", "bound", "ping", "the reply came after"), rows)


def _stops(levels: Sequence[Level]) -> str:
    rows = [
        (
            str(level["present"]),
            during,
            f"{stop['longest_ms']:.1f}",
            f"{stop['sent']}",
            f"{stop['sent'] - stop['answered']}",
        )
        for level in levels
        for during, stop in level["stops"].items()
    ]
    if not rows:
        return ""
    title = "the longest stop (ms) of a ping each millisecond between two steady endpoints meanwhile\n"
    return title + columns(("present", "during", "longest", "sent", "lost"), rows)


def _verbs(verbs: Mapping[str, float]) -> str:
    if not verbs:
        return ""
    python_ms = verbs["python"]
    rows = [(typed, f"{took:.0f}", f"{took - python_ms:.0f}") for typed, took in verbs.items()]
    return "a verb as a whole process, median ms\n" + columns(("typed", "took", "less python"), rows)


def columns(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells in columns: words to the left, numbers to the right."""
    table = [tuple(titles), *map(tuple, rows)]
    widths = [max(len(row[place]) for row in table) for place in range(len(titles))]
    is_number = [all(row[place][:1] in "-0123456789" for row in table[1:]) for place in range(len(titles))]
    lines = []
    for row in table:
        cells = zip(row, widths, is_number, strict=True)
        lines.append(
            "  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in cells).rstrip()
        )
    return "\n".join(lines)


def _budgets(found: Found) -> str:
    lines = [*_budgets_of_levels(found["levels"])]
    lines += [
        judged(f"{typed} less python", took - found["verbs"]["python"], BUDGET_VERB_MS, "ms")
        for typed, took in found["verbs"].items()
        if typed.endswith("list")
    ]
    return "budgets\n" + "\n".join(lines) if lines else ""


def _budgets_of_levels(levels: Sequence[Level]) -> Iterable[str]:
    for level in levels:
        present = level["present"]
        single, many = (level["series"].get(at_once, {}) for at_once in ("1", "16"))
        ours = single.get("ours")
        if ours is None:
            continue
        if present == 10:
            for key, limit in BUDGET_PING_MS.items():
                yield judged(f"{key.replace('_', ' ').removesuffix(' ms')}, 10 present", ours[key], limit, "ms")
            if "ours" in many:
                yield judged(
                    "16 at a time, 10 present", many["ours"]["rate_per_s"], BUDGET_RATE_PER_S, "/s", is_least=True
                )
            for peer in ("cni", "docker"):
                if peer in single:
                    yield judged(f"ping p50 beside {peer}", ours["ping_p50_ms"], single[peer]["ping_p50_ms"], "ms")
        if "floor" in single and present in BUDGET_FLOORS:
            times = ours["ping_p50_ms"] / single["floor"]["ping_p50_ms"]
            yield judged(f"ping p50 beside the floor, {present} present", times, BUDGET_FLOORS[present], "x")
        if "ours" in level["stops"]:
            longest = level["stops"]["ours"]["longest_ms"]
            yield judged(f"longest stop, {present} present", longest, BUDGET_STOP_MS, "ms")


def judged(what: str, value: float, limit: float, unit: str, *, is_least: bool = False) -> str:
    """A figure beside its budget."""
    is_met = value >= limit if is_least else value <= limit
    bound = "at least" if is_least else "at most"
    digits = 2 if unit == "x" else 1
    return f"  {'met   ' if is_met else 'MISSED'}  {what}: {value:.{digits}f} {unit}, {bound} {limit:.{digits}f} {unit}"
