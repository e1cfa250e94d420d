"""What `cluster.py` found, as people read it, each figure beside its budget. The same values are the JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from table import columns, judged
from table import machine as machine_line

BUDGET_CHANGE_MS: Final = {"p50_ms": 15.0, "p99_ms": 100.0}
BUDGET_RESTART_S: Final = 2.0
BUDGET_GRANTS_PER_S: Final = 3000.0
BUDGET_SNAPSHOT_S: Final = 5.0
BUDGET_ENDPOINT_BYTES: Final = 2000.0

Found = Mapping[str, Any]


def text(found: Found) -> str:
    """Everything that was found, a section each, and how it stands to the budgets."""
    sections: dict[str, Callable[[Any], str]] = {
        "fan": _fan,
        "work": _work,
        "levels": _levels,
        "restart": _restart,
        "grants": _grants,
        "replay": _replay,
        "memory": _memory,
    }
    parts = [machine_line(found["machine"])]
    parts += [show(found[name]) for name, show in sections.items() if name in found]
    parts += [f"not measured: {who}: {why}" for who, why in found["absent"].items()]
    budgets = list(_budgets(found))
    parts += ["budgets\n" + "\n".join(budgets)] if budgets else []
    return "\n\n".join(parts)


def _fan(fan: Found) -> str:
    title = f"a change among {fan['hosts']} hosts: ms from the command until those that it concerns have made it\n"
    rows = [
        (what, f"{each['runs']:.0f}", *(f"{each[key]:.1f}" for key in ("p50_ms", "p99_ms", "max_ms")))
        for what, each in (
            ("on one host", fan["one"]),
            ("of a network that all have, until the last has the way", fan["all"]),
            ("on every host at once, until the last", fan["each"]),
        )
    ]
    return title + columns(("change", "runs", "p50", "p99", "max"), rows)


def _work(levels: list[Found]) -> str:
    title = "work for each change: events that a host was told, rounds that it ran\n"
    keys = ("told_concerned", "rounds_concerned", "told_others", "rounds_others")
    rows = [(f"{each['hosts']}", *(f"{each[key]:.2f}" for key in keys)) for each in levels]
    return title + columns(("hosts", "told: its host", "rounds", "told: all others", "rounds"), rows)


def _levels(levels: list[Found]) -> str:
    title = "port up: ms, ours from the command until it is reported bound, OVN's until the logical port is up\n"
    rows = []
    for level in levels:
        for who in ("ours", "ovn", "ovn tools"):
            if who in level:
                each = level[who]
                ratio = f"{level['ours']['p50_ms'] / each['p50_ms']:.2f}"
                times = (f"{each[key]:.1f}" for key in ("p50_ms", "p99_ms"))
                rows.append((f"{level['present']}", who, f"{each['runs']:.0f}", *times, ratio))
    return title + columns(("present", "who", "runs", "p50", "p99", "ours / it"), rows)


def _restart(restart: Found) -> str:
    traffic = restart["traffic"]
    lost = traffic["sent"] - traffic["answered"]
    return (
        f"host actor killed with {restart['endpoints']} endpoints: all reconciled after {restart['ready_s']:.2f} s "
        f"(start and journal {restart['start_s']:.2f} s, then {restart['reconcile_s']:.2f} s)\n"
        f"ports that changed {restart['ports_changed']}, parts put back {restart['put_back']}; "
        f"of {traffic['sent']} pings meanwhile {lost} lost, longest stop {traffic['longest_ms']:.1f} ms"
    )


def _grants(found: Found) -> str:
    idle, loaded = found["idle"], found["loaded"]
    return (
        f"grants: {loaded['grants_per_s']:.0f} a second with 64 clients, p50 {loaded['grant_p50_ms']:.1f} ms, "
        f"p99 {loaded['grant_p99_ms']:.1f} ms; alone {idle['command_p50_ms']:.2f} ms, "
        f"{idle['beyond_p50_ms']:.2f} ms beyond a durable publish"
    )


def _replay(found: Found) -> str:
    rows = [("nothing", f"{found['empty_s']:.2f}", "-")]
    rows += [
        (f"{each['events']} events", f"{each['ready_s']:.2f}", f"{each['cpu_s']:.2f}") for each in found["replays"]
    ]
    snapshot = found["snapshot"]
    name = f"a snapshot of {snapshot['events']}"
    rows.append((name, f"{snapshot['ready_s']:.2f}", f"{snapshot['cpu_s']:.2f}"))
    return "ipam ready again: seconds from its start, and of processor time\n" + columns(("after", "s", "cpu s"), rows)


def _memory(found: Found) -> str:
    rows = [(who, f"{found[f'{who}_bytes']:.0f}") for who in ("ipam", "host")]
    title = f"memory of each of {found['endpoints']:.0f} endpoints: bytes of resident memory\n"
    return title + columns(("actor", "bytes"), rows)


def _budgets(found: Found) -> Iterable[str]:
    if "fan" in found:
        for key, limit in BUDGET_CHANGE_MS.items():
            rank = key.removesuffix("_ms")
            name = f"one change enforced on {found['fan']['hosts']} hosts, {rank}"
            yield judged(name, found["fan"]["all"][key], limit, "ms")
    for level in found.get("work", ()):
        yield judged(f"rounds on hosts not concerned, {level['hosts']} hosts", level["rounds_others"], 0, "")
    for level in found.get("levels", ()):
        for who in ("ovn", "ovn tools"):
            if who in level:
                name = f"port up beside {who}, {level['present']} present"
                yield judged(name, level["ours"]["p50_ms"], level[who]["p50_ms"], "ms")
    if "restart" in found:
        yield judged("host actor restarted", found["restart"]["ready_s"], BUDGET_RESTART_S, "s")
        yield judged("ports changed by it", found["restart"]["ports_changed"], 0, "")
    if "grants" in found:
        rate = found["grants"]["loaded"]["grants_per_s"]
        yield judged("grants, 64 clients", rate, BUDGET_GRANTS_PER_S, "/s", is_least=True)
    if "replay" in found:
        yield judged("ready by a snapshot", found["replay"]["snapshot"]["ready_s"], BUDGET_SNAPSHOT_S, "s")
    for who in ("ipam", "host") if "memory" in found else ():
        yield judged(f"an endpoint in {who}", found["memory"][f"{who}_bytes"], BUDGET_ENDPOINT_BYTES, "bytes")
