"""Port up on a switch that has many already, ours beside OVN; and our host actor killed with all of them there."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import sandboxes
from cluster_ovn import NoOvn, Ovn
from figures import percentile
from ours import STEADY, Ours
from sandboxes import Sandbox

WITHIN_S: Final = 120.0
LOOK_EVERY_S: Final = 0.005
SPARE: Final = 8
WARMING_UP: Final = 2  # runs that do not count


async def measure(folder: Path, sizes: list[int], runs: int, found: dict[str, Any]) -> None:
    """`found` has "levels", and "restart" at the largest of `sizes`."""
    folder.mkdir(parents=True)
    async with AsyncExitStack() as stack:
        spare = _make(stack, "spare", SPARE)
        async with AsyncExitStack() as own:
            await _ours(own, folder, sizes, runs, spare, found)
        async with AsyncExitStack() as own:
            try:
                await _ovn(own, folder, sizes, runs, spare, found)
            except NoOvn as reason:
                found["absent"]["ovn"] = str(reason)


async def _ours(
    stack: AsyncExitStack, folder: Path, sizes: list[int], runs: int, spare: list[Sandbox], found: dict[str, Any]
) -> None:
    ours = Ours(folder / "state", folder / "run", folder / "netplugin.log")
    stack.push_async_callback(ours.close)
    steady = _make(stack, "steady", STEADY)
    await ours.open(steady)
    for size in sizes:
        present = len(ours.filled)
        await ours.fill(_make(stack, f"in{size}x", size - present))
        took = []
        for number in range(WARMING_UP + runs):
            attached, line = await ours.attach(spare[number % len(spare)])
            took.append(line.bound_ms)
            await ours.detach(attached)
        found["levels"].append({"present": size, "ours": figures(took[WARMING_UP:])})
    found["restart"] = await _restart(ours, folder, steady)


async def _ovn(
    stack: AsyncExitStack, folder: Path, sizes: list[int], runs: int, spare: list[Sandbox], found: dict[str, Any]
) -> None:
    ovn = Ovn(folder / "ovn")
    stack.push_async_callback(ovn.close)
    await ovn.open()
    present = 0
    for level, size in zip(found["levels"], sizes, strict=True):
        await ovn.fill(_make(stack, f"ovn{size}x", size - present))
        present = size
        places = [spare[number % len(spare)] for number in range(WARMING_UP + runs)]
        for who, attach in (("ovn", ovn.attach_ms), ("ovn tools", ovn.attach_by_tools_ms)):
            level[who] = figures([await attach(place) for place in places][WARMING_UP:])


def figures(took_ms: list[float]) -> dict[str, float]:
    """Percentiles of a series."""
    return {"runs": float(len(took_ms)), "p50_ms": percentile(took_ms, 50), "p99_ms": percentile(took_ms, 99)}


def _make(stack: AsyncExitStack, name: str, count: int) -> list[Sandbox]:
    made = sandboxes.make(f"{name}{number}" for number in range(count))
    for sandbox in made:
        stack.callback(sandbox.close)
    return made


async def _restart(ours: Ours, folder: Path, steady: list[Sandbox]) -> dict[str, Any]:
    """Seconds from a kill -9 of the host actor until it has reconciled all, and what became of traffic meanwhile."""
    before = _interfaces(ours)
    log = folder / "netplugin.log"
    said_before = log.stat().st_size
    prober = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).parent / "stops.py"),
        str(steady[1].path),
        ours.filled[0].address,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert prober.stdout is not None
    await prober.stdout.readline()
    began = time.perf_counter()
    os.kill(ours.pid("host"), signal.SIGKILL)
    await _until_said(log, said_before, "actor-ready")
    took_s = time.perf_counter() - began
    stopped, _ = await prober.communicate(b"")  # closes its input
    facts = _facts(log, said_before)
    born, current, ready = (
        _at(facts, event, actor)
        for event, actor in (("child-started", None), ("journal-current", "host"), ("actor-ready", "host"))
    )
    return {
        "endpoints": len(ours.filled),
        "ready_s": took_s,
        "start_s": current - born,
        "reconcile_s": ready - current,
        "put_back": sum(fact.get("event") == "put-back" for fact in facts),
        "ports_changed": len(before ^ _interfaces(ours)),
        "traffic": json.loads(stopped),
    }


def _interfaces(ours: Ours) -> set[str]:
    """Every port of the switch with its number and its peer: a port that was made anew has another."""
    listing = ("ovs-vsctl", "--format=csv", "--no-headings", "--columns=name,ofport,_uuid", "list", "Interface")
    environment = {**os.environ, "OVS_RUNDIR": str(ours.run_dir / "ovs")}
    return set(subprocess.run(listing, env=environment, check=True, capture_output=True, text=True).stdout.split())


async def _until_said(log: Path, after: int, event: str) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not any(  # noqa: ASYNC110  (another process writes the file)
            fact.get("event") == event and fact.get("process") == "host" for fact in _facts(log, after)
        ):
            await asyncio.sleep(LOOK_EVERY_S)


def _facts(log: Path, after: int) -> list[dict[str, Any]]:
    """What the daemon's log says after that many bytes."""
    with log.open("rb") as file:
        file.seek(after)
        whole = file.read().rpartition(b"\n")[0]
    return [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]


def _at(facts: list[dict[str, Any]], event: str, process: str | None) -> float:
    """When it was said last, in seconds of the wall clock."""
    said = [
        fact for fact in facts if fact.get("event") == event and fact.get("process", process) in (process, "netplugin")
    ]
    return datetime.fromisoformat(said[-1]["timestamp"]).timestamp()
