"""A process that takes an uplink and is killed on the way: `python -m tests.harness.taking STATE_DIR DATABASE IF STEP`.

It prints the pid of the watchdog that watches it, and dies of SIGKILL at the step.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from host_actor.uplink import Place, ensure
from services.runtime.uplinks import Uplink


def main() -> None:
    state_dir, database, interface, fatal = sys.argv[1:]

    def on_step(step: str) -> None:
        if step == "watched":
            children = [
                pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()
            ]
            print(*children, flush=True)
        if step == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    place = Place(Path(state_dir), Path(database))
    asyncio.run(ensure(Uplink(interface), place, on_step))


if __name__ == "__main__":
    main()
