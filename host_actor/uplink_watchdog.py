"""Puts an uplink back as it was when the process that was taking it ends half way. Ends by itself.

    python -m host_actor.uplink_watchdog STATE_DIR IF ATTEMPT PID     started by `uplink.py`, before it touches anything
    python -m host_actor.uplink_watchdog STATE_DIR                    gives back all uplinks (`netplugin --clean`)

It waits for one of two: a line on its standard input (it is over: taken, or undone by the taker itself), or the end of
the process, told by its pidfd and by the closed pipe. Then the uplink's lock is free, and the record says what to do.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path

from services.runtime import logs

from .uplink import TOLD_THAT_IT_IS_OVER, WATCHING, give_back
from .uplink_record import Records


def main() -> None:
    """Waits and undoes, or gives back everything."""
    records = Records(Path(sys.argv[1]))
    logs.configure("info", process="uplink")
    if len(sys.argv) == 2:
        asyncio.run(give_all_back(records))
        return
    interface, attempt, pid = sys.argv[2], sys.argv[3], int(sys.argv[4])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # whoever ends everything else must not end this
    if not is_over(pid):
        asyncio.run(give_back(interface, records, attempt))


def is_over(pid: int) -> bool:
    """Whether the process says so before it ends; blocks until it does either."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    with suppress(ProcessLookupError):  # it has ended: so has the pipe
        poll.register(os.pidfd_open(pid), select.POLLIN)
    os.write(1, WATCHING)
    os.close(1)
    poll.poll()
    os.set_blocking(0, False)
    try:
        return os.read(0, 1 << 10).startswith(TOLD_THAT_IT_IS_OVER)
    except BlockingIOError:
        return False


async def give_all_back(records: Records) -> None:
    """No uplink is taken."""
    for interface in records.interfaces():
        await give_back(interface, records)


if __name__ == "__main__":
    main()
