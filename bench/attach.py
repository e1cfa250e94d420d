"""How long an attach takes: ours beside the floor and beside the peers, in one run on one machine (`make bench`).

    ours     a command on the bus -> journal -> host actor -> first ping reply from the new endpoint (`ours.py`)
    floor    the same netlink, OVSDB and OpenFlow messages with nothing around them (`floor.py`)
    cni      CNI's bridge + host-local, ADD until its gateway answers (`peers.py`)
    docker   connecting a running container to a bridge network, until its gateway answers (`peers.py`)

At each number of endpoints present: one after the other, in alternating blocks, so that all meet the same weather; then
16 at a time. A pinger beside it (`stops.py`) tells for how long other traffic stood still. Runs in namespaces of its
own (`scripts/isolated`); what it starts ends with it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import sandboxes
import table
import verbs
from figures import Series
from floor import Floor
from ours import STEADY, Ours
from peers import Cni, Docker, NoPeer
from sandboxes import Sandbox

from services.open_vswitch import OpenVSwitch

WHO: Final = ("ours", "floor", "cni", "docker")
AT_ONCE: Final = 16
STINT: Final = 32  # attaches 16 at a time, then all of them are detached
BLOCK: Final = 20
SPACING_S: Final = 0.03  # after a detach: the switch has looked at its ports once more
STOP_RUNS: Final = 50
QUIET_S: Final = 2.0
DOCKER_RUNS: Final = 40  # it takes ten times as long
DOCKER_PRESENT: Final = 10


class Bench:
    """One run. `found` grows while it goes."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options = options
        self._folder = folder
        self._spare: list[Sandbox] = []
        self._ours: Ours | None = None
        self._floor: Floor | None = None
        self._cni: Cni | None = None
        self._peers: Sandbox | None = None
        self.found: dict[str, Any] = {"machine": _machine(), "levels": [], "verbs": {}, "absent": {}}

    async def run(self) -> None:
        """Everything asked for is in `found`, and nothing that was started is left."""
        options = self._options
        async with AsyncExitStack() as stack:
            self._spare = self._make(stack, "spare", STINT)
            (self._peers,) = self._make(stack, "peers", 1)
            await self._open_switched(stack)
            if "cni" in options.only:
                await self._open_cni(stack)
            present = 0
            for count in sorted(options.endpoints):
                await self._fill(stack, count - present)
                present = count
                await self._level(count)
            if self._ours is not None:
                self.found["verbs"] = await asyncio.to_thread(
                    verbs.measure, self._ours.environment, min(verbs.RUNS, options.runs // 2)
                )
        if "docker" in options.only:
            async with AsyncExitStack() as stack:
                (self._peers,) = self._make(stack, "engine", 1)
                await self._with_docker(stack)

    def _make(self, stack: AsyncExitStack, name: str, count: int) -> list[Sandbox]:
        made = sandboxes.make(f"{name}{number}" for number in range(count))
        for sandbox in made:
            stack.callback(sandbox.close)
        return made

    async def _open_switched(self, stack: AsyncExitStack) -> None:
        state_dir, run_dir = self._folder / "state", self._folder / "run"
        switch = OpenVSwitch(state_dir, run_dir)
        self._steady = self._make(stack, "steady", STEADY + 1)
        if "ours" in self._options.only:
            _say("starting the daemon")
            self._ours = Ours(state_dir, run_dir, self._folder / "netplugin.log")
            stack.push_async_callback(self._ours.close)
            await self._ours.open(self._steady[:STEADY])
        elif "floor" in self._options.only:
            stack.push_async_callback(switch.end)
        if "floor" in self._options.only:
            self._floor = Floor(switch)
            stack.push_async_callback(self._floor.close)
            await self._floor.open(self._steady[STEADY])

    async def _open_cni(self, stack: AsyncExitStack) -> None:
        assert self._peers is not None
        self._cni = Cni(self._peers, self._folder / "cni")
        try:
            await self._cni.open()
        except NoPeer as reason:
            self.found["absent"]["cni"] = str(reason)
            self._cni = None
        else:
            stack.push_async_callback(self._cni.close)

    async def _fill(self, stack: AsyncExitStack, count: int) -> None:
        """`count` endpoints more are present on our switch (the steady ones count), and with CNI."""
        number = len(self.found["levels"])
        _say(f"attaching {count} endpoints that stay")
        if self._ours is not None:
            missing = count - (len(self._ours.filled) if number == 0 else 0)
            await self._ours.fill(self._make(stack, f"present{number}x", missing))
        elif self._floor is not None:
            await self._floor.fill(self._make(stack, f"present{number}x", count - (number == 0)))
        if self._cni is not None:
            await self._cni.fill(self._make(stack, f"cni{number}x", count))

    async def _level(self, present: int) -> None:
        contenders = [each for each in (self._ours, self._floor, self._cni) if each is not None]
        level: dict[str, Any] = {"present": present, "series": {}, "stages": {}, "stops": {}}
        self.found["levels"].append(level)
        if not contenders:
            return
        _say(f"{present} present: one after the other")
        single = await one_by_one(contenders, self._spare, self._options.runs)
        _say(f"{present} present: {AT_ONCE} at a time")
        many = {each.name: await at_once(each, self._spare, self._options.runs) for each in contenders}
        for name, series in (("1", single), (str(AT_ONCE), many)):
            level["series"][name] = {who: each.figures() for who, each in series.items()}
            if self._ours is not None:
                await self._ours.look_up_journal(series["ours"].lines)
                level["stages"][name] = series["ours"].stages_p50_ms()
        if self._ours is not None:
            _say(f"{present} present: for how long other traffic stops")
            level["stops"] = await self._stops(min(STOP_RUNS, self._options.runs))

    async def _stops(self, runs: int) -> dict[str, Any]:
        assert self._ours is not None
        found = {"nothing": await self._stop_during(asyncio.sleep(QUIET_S))}
        for contender in (self._ours, self._floor):
            if contender is not None:
                found[contender.name] = await self._stop_during(one_by_one([contender], self._spare, runs))
        return found

    async def _stop_during(self, work: Any) -> dict[str, Any]:
        """What `stops.py` says of the time in which `work` was done."""
        assert self._ours is not None
        command = (sys.executable, str(Path(__file__).parent / "stops.py"))
        prober = await asyncio.create_subprocess_exec(
            *command,
            str(self._steady[1].path),
            self._ours.filled[0].address,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert prober.stdout is not None
        await prober.stdout.readline()
        try:
            await work
        finally:
            said, _ = await prober.communicate(b"")  # closes its input
        stop: dict[str, Any] = json.loads(said)
        return stop

    async def _with_docker(self, stack: AsyncExitStack) -> None:
        assert self._peers is not None
        _say("starting an engine")
        docker = Docker(self._peers, self._folder / "engine")
        stack.push_async_callback(docker.close)
        try:
            await docker.open(DOCKER_PRESENT, AT_ONCE)
        except NoPeer as reason:
            self.found["absent"]["docker"] = str(reason)
            return
        runs = min(DOCKER_RUNS, self._options.runs // 2)
        _say("docker: one after the other, then 16 at a time")
        single = await one_by_one([docker], docker.containers, runs)
        many = await at_once(docker, docker.containers, runs)
        for level in self.found["levels"]:
            if level["present"] == DOCKER_PRESENT:
                level["series"].setdefault("1", {})["docker"] = single["docker"].figures()
                level["series"].setdefault(str(AT_ONCE), {})["docker"] = many.figures()


async def one_by_one(contenders: Sequence[Any], places: Sequence[Any], runs: int) -> dict[str, Series]:
    """`runs` attaches of each, each detached before the next; in blocks that alternate between the contenders."""
    series = {contender.name: Series() for contender in contenders}
    for first in range(0, runs, BLOCK):
        for contender in contenders:
            for number in range(first, min(first + BLOCK, runs)):
                attached, line = await contender.attach(places[number % len(places)])
                series[contender.name].lines.append(line)
                series[contender.name].took_s += line.pinged_s - line.started_s
                await contender.detach(attached)
                await asyncio.sleep(SPACING_S)
    return series


async def at_once(contender: Any, places: Sequence[Any], runs: int) -> Series:
    """At least `runs` attaches, 16 at any time, all of a stint detached before the next."""
    series = Series()
    while len(series.lines) < runs:
        waiting = list(places[:STINT])
        made: list[Any] = []

        async def work(waiting: list[Any] = waiting, made: list[Any] = made) -> None:
            while waiting:
                attached, line = await contender.attach(waiting.pop())
                made.append(attached)
                series.lines.append(line)

        began_s = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        series.took_s += time.perf_counter() - began_s
        await asyncio.gather(*(contender.detach(attached) for attached in made))
        await asyncio.sleep(SPACING_S)
    return series


def _machine() -> dict[str, Any]:
    return {
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="attach.py", description="How long an attach takes.", allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="10 and 100 endpoints, 20 runs: less than a minute")
    parser.add_argument("--only", default=",".join(WHO), help="which of ours,floor,cni,docker")
    parser.add_argument("--endpoints", help="how many are present (10,100,300)")
    parser.add_argument("--runs", type=int, help="attaches of each (200)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the same figures as JSON")
    options = parser.parse_args(arguments)
    options.only = options.only.split(",")
    options.runs = options.runs or (20 if options.quick else 200)
    options.endpoints = [
        int(text) for text in (options.endpoints or ("10,100" if options.quick else "10,100,300")).split(",")
    ]
    if unknown := set(options.only) - set(WHO):
        parser.error(f"--only {','.join(sorted(unknown))}: expected some of {','.join(WHO)}")
    if min(options.endpoints) < STEADY:
        parser.error(f"--endpoints: at least {STEADY} are needed")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print. Returns the exit status: 0 measured, 2 wrong usage or not isolated."""
    options = _options(arguments)
    if not os.environ.get("NETPLUGIN_ISOLATED"):
        print("attach.py makes links and switches: run it by `make bench`, or after scripts/isolated", file=sys.stderr)
        return 2
    bench = Bench(options, Path(os.environ["TMPDIR"]))
    asyncio.run(bench.run())
    print(table.text(bench.found))
    if options.json is not None:
        options.json.write_text(json.dumps(bench.found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
