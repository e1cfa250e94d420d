"""What a cluster takes (`make bench-cluster`): changes on many hosts, ports beside OVN, restarts, replays, memory.

    fabric     simulated hosts: real host actors on remembered switches in one process, over a real nats-server: one
               change among 50 hosts, one that concerns all of them (an endpoint of a VXLAN network with a member on
               each), a change on each at once; the work of a change counted at 10, 100, 1,000
    ports      port up with 2, 100, 1,000 ports there, beside OVN; then the host actor killed (`cluster_ports`)
    grants     addresses a second with 64 clients (`grants.py`)
    replay     ipam ready again after 100,000 events, after 1,000,000, and after a snapshot of them (`cluster_replay`)
    memory     bytes for each of 10,000 endpoints, in ipam and in a host actor

Each part is measured alone, one after the other. Runs in namespaces of its own (`scripts/isolated`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cluster_fabric
import cluster_ports
import cluster_replay
import cluster_table
import grants
from cluster_fabric import Fabric
from figures import percentile

PARTS: Final = ("fabric", "ports", "grants", "replay", "memory")
CLIENTS: Final = 64
FULL: Final = {
    "hosts": [10, 100, 1000],
    "fan": 50,
    "runs": 300,
    "everywhere": 30,
    "changes": 50,
    "ports": [2, 100, 1000],
    "port_runs": 20,
    "grants": 10_000,
    "events": [100_000, 1_000_000],
    "endpoints": 10_000,
}
QUICK: Final = {
    **FULL,
    "hosts": [10, 50],
    "runs": 30,
    "everywhere": 5,
    "changes": 10,
    "ports": [2, 50],
    "port_runs": 8,
    "grants": 1000,
    "events": [20_000, 40_000],
    "endpoints": 1000,
}


class Bench:
    """One run. `found` grows while it goes."""

    def __init__(self, sizes: dict[str, Any], folder: Path) -> None:
        self._sizes = sizes
        self._folder = folder
        self.found: dict[str, Any] = {"machine": machine(), "absent": {}}

    async def run(self, parts: Sequence[str]) -> None:
        """Every part that was asked for is in `found`, and nothing that was started is left."""
        for part in parts:
            await getattr(self, part)()

    async def fabric(self) -> None:
        fan = self._sizes["fan"]
        say(f"{fan} hosts: one change, and one on each")
        fabric = Fabric(self._folder / "fan", fan, has_underlay=True)
        try:
            await fabric.open()
            single = await cluster_fabric.one_change(fabric, fan, self._sizes["runs"])
            all_told = await cluster_fabric.change_of_all(fabric, fan, self._sizes["runs"])
            every = await cluster_fabric.change_everywhere(fabric, fan, self._sizes["everywhere"])
        finally:
            await fabric.close()
        self.found["fan"] = {"hosts": fan, "one": spread(single), "all": spread(all_told), "each": spread(every)}
        self.found["work"] = [await self._work(count) for count in self._sizes["hosts"]]

    async def _work(self, hosts: int) -> dict[str, float]:
        say(f"{hosts} hosts: the work of a change")
        fabric = Fabric(self._folder / f"hosts{hosts}", hosts)
        try:
            await fabric.open()
            return {"hosts": hosts, **await cluster_fabric.work_per_change(fabric, self._sizes["changes"])}
        finally:
            await fabric.close()

    async def ports(self) -> None:
        say("ports, ours and OVN's")
        self.found["levels"] = []
        folder = self._folder / "ports"
        await cluster_ports.measure(folder, self._sizes["ports"], self._sizes["port_runs"], self.found)

    async def grants(self) -> None:
        say(f"addresses for {CLIENTS} clients")
        self.found["grants"] = await grants.measure(CLIENTS, self._sizes["grants"], None)

    async def replay(self) -> None:
        say(f"replay of {self._sizes['events'][-1]} events")
        self.found["replay"] = await cluster_replay.measure(self._folder / "replay", self._sizes["events"])

    async def memory(self) -> None:
        say("memory")
        fabric = Fabric(self._folder / "memory", 1)
        try:
            await fabric.open()
            self.found["memory"] = await cluster_fabric.memory_per_endpoint(fabric, self._sizes["endpoints"])
        finally:
            await fabric.close()


def spread(took_ms: list[float]) -> dict[str, float]:
    """Percentiles of a series."""
    percentiles = {f"p{rank}_ms": percentile(took_ms, rank) for rank in (50, 99)}
    return {"runs": float(len(took_ms)), **percentiles, "max_ms": max(took_ms, default=0.0)}


def machine() -> dict[str, Any]:
    return {
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print. Returns the exit status: 0 measured, 2 wrong usage or not isolated."""
    parser = argparse.ArgumentParser(prog="cluster.py", description="What a cluster takes.", allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="small sizes: a minute or two")
    parser.add_argument("--only", default=",".join(PARTS), help=f"which of {','.join(PARTS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the same figures as JSON")
    options = parser.parse_args(arguments)
    parts = options.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--only {','.join(sorted(unknown))}: expected some of {','.join(PARTS)}")
    if not os.environ.get("NETPLUGIN_ISOLATED"):
        print("cluster.py makes links and switches: run it by `make bench-cluster`", file=sys.stderr)
        return 2
    bench = Bench(QUICK if options.quick else FULL, Path(os.environ["TMPDIR"]))
    asyncio.run(bench.run(parts))
    print(cluster_table.text(bench.found))
    if options.json is not None:
        options.json.write_text(json.dumps(bench.found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
