"""Programs kept running: each a child process that is started again when it ends, and that ends when we do.

One task keeps one program (`_Keeper.run`): it starts it, passes on the lines it prints, waits for its end, pauses, and
starts it again. The first start after a long life is immediate; while it keeps dying the pause goes from 0.1 s to 5 s.
`stop` ends all of them, the last started first, and waits for each; whoever is not gone within its grace is killed.

          start                    ends                        pause over
    idle --------> running ----------------------> pausing ----------------> running
                     |  restart(): ended and started without a pause
                     `---- stop(): SIGTERM, grace, SIGKILL ----> stopped
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec
import structlog

from . import processes

PAUSE_MIN_S = 0.1
PAUSE_MAX_S = 5.0
STEADY_S = 3.0  # who lived this long has started well: the next pause begins at none again
LOOP_DEATHS = 5
LOOP_WINDOW_S = 30.0
LINE_LENGTH_MAX = 1 << 16
EXIT_MISCONFIGURED = 2

log = structlog.get_logger()


class Backoff:
    """The pause before a program's next start: none after a long life, doubling while it keeps dying."""

    def __init__(self) -> None:
        self._pause_s = 0.0
        self._has_died = False
        self._deaths_s: collections.deque[float] = collections.deque(maxlen=LOOP_DEATHS)

    def after_death(self, now_s: float, lived_s: float, *, is_hopeless: bool = False) -> float:
        """Seconds to wait now. `is_hopeless`: it will not get better by itself, so the longest pause."""
        self._deaths_s.append(now_s)
        if is_hopeless:
            self._pause_s = PAUSE_MAX_S
        elif lived_s >= STEADY_S or not self._has_died:
            self._pause_s = 0.0
        else:
            self._pause_s = min(max(PAUSE_MIN_S, 2 * self._pause_s), PAUSE_MAX_S)
        self._has_died = True
        return self._pause_s

    @property
    def is_looping(self) -> bool:
        """Whether it has died five times within half a minute."""
        return len(self._deaths_s) == LOOP_DEATHS and self._deaths_s[-1] - self._deaths_s[0] < LOOP_WINDOW_S


class Invocation(msgspec.Struct, frozen=True):
    """What to run: arguments, the program first, and its whole environment."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]


class Program(msgspec.Struct, frozen=True):
    """A program to keep running."""

    name: str
    prepare: Callable[[], Awaitable[Invocation]]  # asked before every start
    is_ready_line: Callable[[str], bool] = lambda _: True  # which line of its output says that it serves
    on_line: Callable[[str], None] = lambda _: None  # sees every line that it prints
    grace_s: float = 5.0


class Supervisor:
    """The programs of one daemon; use it as an asynchronous context that ends them all."""

    def __init__(self, pids_dir: Path, show: Callable[[str, str], None]) -> None:
        self._pids_dir = pids_dir
        self._show = show  # (program's name, line of its output)
        self._keepers: dict[str, _Keeper] = {}
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Supervisor:
        """Any child of a daemon that was killed has ended: two of one kind would fight over files and ports."""
        for file in sorted(self._pids_dir.glob("*.pid")):
            if left_over := processes.read_pid_file(file):
                log.warning("left-over-process-ended", child=file.stem, pid=left_over.pid)
                await processes.end(left_over)
            file.unlink()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *reason: object) -> None:
        try:
            await self.stop()
        finally:
            await self._tasks.__aexit__(None, None, None)

    def start(self, program: Program) -> None:
        """`program` is kept running from now on."""
        keeper = _Keeper(program, self._pids_dir / f"{program.name}.pid", partial(self._show, program.name))
        self._keepers[program.name] = keeper
        self._tasks.create_task(keeper.run(), name=f"keep {program.name}")

    async def until_ready(self, name: str) -> None:
        """Returns when the program has said that it serves, in its present life."""
        await self._keepers[name].ready.wait()

    async def restart(self, name: str, reason: str) -> None:
        """The program has ended, and its next life begins without a pause. Returns when the old one is gone."""
        log.warning("child-restarted", child=name, reason=reason)
        await self._keepers[name].restart()

    async def stop(self) -> None:
        """All programs have ended, the last started first. Idempotent."""
        for keeper in reversed(self._keepers.values()):
            await keeper.stop()

    def starts(self) -> dict[str, int]:
        """How often each program was started."""
        return {name: keeper.starts for name, keeper in self._keepers.items()}

    def signal(self, name: str, number: signal.Signals) -> None:
        """The program in its present life has been sent the signal; between two lives nothing happens."""
        if process := self._keepers[name].process:
            processes.send(process, number)

    def pid(self, name: str) -> int | None:
        """The program's pid in its present life; None between two."""
        process = self._keepers[name].process
        return process.pid if process else None


class _Keeper:
    """One program kept running. `run` owns the child; the other methods ask it to end."""

    def __init__(self, program: Program, pid_file: Path, show: Callable[[str], None]) -> None:
        self.program = program
        self.ready = asyncio.Event()
        self.process: processes.Process | None = None
        self.starts = 0
        self._pid_file = pid_file
        self._show = show
        self._stopping = asyncio.Event()
        self._restarting = False
        self._stopped = asyncio.Event()
        self._backoff = Backoff()
        self._last_line = ""

    async def run(self) -> None:
        """Keeps the program running until `stop`."""
        loop = asyncio.get_running_loop()
        try:
            while not self._stopping.is_set():
                began_s = loop.time()
                status = await self._live()
                if self._stopping.is_set():
                    return
                await self._after_death(status, loop.time() - began_s)
        finally:
            self._stopped.set()

    async def restart(self) -> None:
        if self.process:
            self._restarting = True
            await processes.end(self.process, self.program.grace_s)

    async def stop(self) -> None:
        self._stopping.set()
        if self.process:
            await processes.end(self.process, self.program.grace_s)
        await self._stopped.wait()

    async def _live(self) -> int:
        """One life of the program, from start to end: its exit status, negative for a signal."""
        invocation = await self.program.prepare()
        child = await asyncio.create_subprocess_exec(
            *invocation.arguments,
            env=invocation.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C on the terminal is for the daemon, which stops them in order
            preexec_fn=partial(processes.die_with_parent, os.getpid()),
        )
        assert child.stdout is not None
        self.starts += 1
        self.process = processes.look_up(child.pid)
        if self.process:
            processes.write_pid_file(self._pid_file, self.process)
            log.info("child-started", child=self.program.name, pid=child.pid)
        reader = asyncio.create_task(self._pass_on(child.stdout), name=f"lines of {self.program.name}")
        try:
            if self._stopping.is_set() and self.process:  # asked to stop while it was being started
                await processes.end(self.process, self.program.grace_s)
            status = await child.wait()
            with contextlib.suppress(TimeoutError):  # its last words; a grandchild may hold the pipe for ever
                await asyncio.wait_for(reader, 1.0)
        finally:
            reader.cancel()
            self.process = None
            self.ready.clear()
            self._pid_file.unlink(missing_ok=True)
        return status

    async def _pass_on(self, stream: asyncio.StreamReader) -> None:
        async for line in lines(stream):
            self._last_line = line
            self._show(line)
            self.program.on_line(line)
            if not self.ready.is_set() and self.program.is_ready_line(line):
                self.ready.set()

    async def _after_death(self, status: int, lived_s: float) -> None:
        """Says how it died and waits out the pause, which `stop` cuts short."""
        if self._restarting:
            self._restarting = False
            return
        now_s = asyncio.get_running_loop().time()
        pause_s = self._backoff.after_death(now_s, lived_s, is_hopeless=status == EXIT_MISCONFIGURED)
        log.warning(
            "child-ended",
            child=self.program.name,
            how=describe_status(status),
            lived_s=round(lived_s, 3),
            again_in_s=pause_s,
        )
        if self._backoff.is_looping:
            log.error(
                "crash-loop",
                child=self.program.name,
                deaths=f"{LOOP_DEATHS} within {LOOP_WINDOW_S:g} s",
                last_line=self._last_line,
                advice=f"it is started again every {PAUSE_MAX_S:g} s; its lines above say why it ends",
            )
        if pause_s:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)


def describe_status(status: int) -> str:
    """An exit status in words: `exit status 1`, `SIGKILL`."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """The lines of a stream without their ends, until it closes; one that is too long comes in pieces."""
    rest = b""
    while chunk := await stream.read(LINE_LENGTH_MAX):
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > LINE_LENGTH_MAX:
            whole, rest = [*whole, rest], b""
        for line in whole:
            yield line.decode(errors="replace").rstrip()
    if rest:
        yield rest.decode(errors="replace").rstrip()
