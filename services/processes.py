"""Processes told apart for certain: a pid with its start time, signalled and awaited through a pidfd."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from pathlib import Path

import msgspec

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Process(msgspec.Struct, frozen=True):
    """One process; its pid may be another's once it has ended, its pid with its start time never is."""

    pid: int
    started_ticks: int  # clock ticks from boot to its start


def look_up(pid: int) -> Process | None:
    """The process that has this pid now; None when there is none or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, started_ticks = fields[0], int(fields[19])
    return None if state in "ZX" else Process(pid, started_ticks)


def is_alive(process: Process) -> bool:
    """Whether that very process still runs."""
    return look_up(process.pid) == process


def command_line(process: Process) -> tuple[str, ...]:
    """Its arguments, the program first; nothing when it has ended."""
    try:
        raw = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return tuple(os.fsdecode(part) for part in raw.split(b"\0")[:-1])


def write_pid_file(file: Path, process: Process) -> None:
    """`file` names the process, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".new")
    draft.write_text(f"{process.pid} {process.started_ticks}\n")
    draft.replace(file)


def read_pid_file(file: Path) -> Process | None:
    """The process that `write_pid_file` named, if that very one still runs."""
    try:
        pid, started_ticks = (int(word) for word in file.read_text().split())
    except (FileNotFoundError, ValueError):
        return None
    process = Process(pid, started_ticks)
    return process if is_alive(process) else None


async def ended(process: Process) -> None:
    """Returns when that process has ended, at once if it had before."""
    pidfd = _open(process)
    if pidfd is None:
        return
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_reader(pidfd, done.set)
    try:
        await done.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


async def end(process: Process, grace_s: float = 5.0) -> None:
    """That process has ended: asked by SIGTERM, and made to by SIGKILL when it has not within `grace_s`."""
    send(process, signal.SIGTERM)
    try:
        async with asyncio.timeout(grace_s):
            await ended(process)
    except TimeoutError:
        send(process, signal.SIGKILL)
        await ended(process)


def send(process: Process, number: signal.Signals) -> None:
    """That process has been sent the signal; nothing happens when it has ended."""
    pidfd = _open(process)
    if pidfd is None:
        return
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)


def die_with_parent(parent_pid: int) -> None:
    """The calling process ends when its parent does, however that ends. Called in a child before its program starts."""
    if _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:  # it ended before prctl could know
        os._exit(1)


def _open(process: Process) -> int | None:
    """A pidfd of that very process; None when it has ended."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if not is_alive(process):
        os.close(pidfd)
        return None
    return pidfd
