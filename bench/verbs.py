"""What a command line verb takes, as whole processes, beside the start of the interpreter it runs in."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from figures import MS, percentile

RUNS: Final = 20
VERBS: Final = (("network", "list"), ("endpoint", "list"), ("--help",), ("--version",))


def measure(environment: Mapping[str, str], runs: int = RUNS) -> dict[str, float]:
    """The median of `runs` processes in milliseconds, by what was typed; `python` is the interpreter alone."""
    script = Path(sys.executable).parent / "netctl"
    program = [str(script)] if script.exists() else [sys.executable, "-P", "-m", "services.cli.netctl"]
    found = {"python": _median_ms([sys.executable, "-c", "pass"], environment, runs)}
    for verb in VERBS:
        found[f"netctl {' '.join(verb)}"] = _median_ms([*program, "-t", "bench", *verb], environment, runs)
    return found


def _median_ms(command: list[str], environment: Mapping[str, str], runs: int) -> float:
    times = []
    for _ in range(runs):
        began_s = time.perf_counter()
        subprocess.run(command, env=dict(environment), stdout=subprocess.DEVNULL, check=True)
        times.append((time.perf_counter() - began_s) * MS)
    return percentile(times, 50)
