"""Children are kept running, end with us, and say under their name why they ended. Real processes, no doubles."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from services import processes
from services.supervisor import Backoff, Invocation, Program, Supervisor, describe_status, lines
from tests.harness.daemon import wait_for_end

pytestmark = pytest.mark.anyio

SERVING = "import signal; print('serving', flush=True); signal.pause()"


class Screen:
    """What children have printed, and a way to wait for it."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self._more = asyncio.Event()

    def show(self, name: str, line: str) -> None:
        self.lines.append((name, line))
        self._more.set()

    async def until(self, is_there: Callable[[list[tuple[str, str]]], bool]) -> None:
        async with asyncio.timeout(40):
            while not is_there(self.lines):
                self._more.clear()
                await self._more.wait()


def python(name: str, script: str, **options: object) -> Program:
    async def prepare() -> Invocation:
        return Invocation((sys.executable, "-S", "-c", script), dict(os.environ))

    return Program(name, prepare, **options)  # type: ignore[arg-type]


async def test_lines_come_under_the_child_s_name_and_one_of_them_means_ready(tmp_path: Path) -> None:
    screen = Screen()
    async with Supervisor(tmp_path, screen.show) as supervisor:
        supervisor.start(python("quiet", SERVING, is_ready_line=lambda line: line == "serving"))
        await asyncio.wait_for(supervisor.until_ready("quiet"), 40)
        assert screen.lines == [("quiet", "serving")]


async def test_a_killed_child_is_started_again_at_once(tmp_path: Path) -> None:
    screen = Screen()
    async with Supervisor(tmp_path, screen.show) as supervisor:
        supervisor.start(python("a", f"import os; print(os.getpid()); {SERVING}"))
        await screen.until(lambda seen: ("a", "serving") in seen)
        first = supervisor.pid("a")
        assert first is not None
        with capture_logs() as logs:
            os.kill(first, signal.SIGKILL)
            await screen.until(lambda seen: seen.count(("a", "serving")) == 2)
        ended = next(entry for entry in logs if entry["event"] == "child-ended")
        assert (ended["how"], ended["again_in_s"]) == ("SIGKILL", 0.0)
        assert supervisor.pid("a") != first


async def test_who_keeps_dying_is_started_ever_later_and_the_loop_is_said(tmp_path: Path) -> None:
    screen = Screen()
    with capture_logs() as logs:
        async with Supervisor(tmp_path, screen.show) as supervisor:
            supervisor.start(python("bad", "print('no such file: x'); raise SystemExit(3)"))
            await screen.until(lambda seen: len(seen) == 6)
    pauses = [entry["again_in_s"] for entry in logs if entry["event"] == "child-ended"]
    assert pauses[:5] == [0.0, 0.1, 0.2, 0.4, 0.8]
    loop = next(entry for entry in logs if entry["event"] == "crash-loop")
    assert loop["last_line"] == "no such file: x"


async def test_who_says_that_it_is_misconfigured_is_not_hurried(tmp_path: Path) -> None:
    said = asyncio.Event()

    def watch(_logger: object, _method: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if entry["event"] == "child-ended":
            assert entry["again_in_s"] == 5.0
            said.set()
        return entry

    with capture_logs(processors=[watch]):
        async with Supervisor(tmp_path, Screen().show) as supervisor:
            supervisor.start(python("wrong", "raise SystemExit(2)"))
            await asyncio.wait_for(said.wait(), 40)


async def test_stop_ends_the_last_started_first_and_kills_who_does_not_listen(tmp_path: Path) -> None:
    screen = Screen()
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SERVING}"
    polite = f"import signal,sys; signal.signal(signal.SIGTERM, lambda *_: (print('bye'), sys.exit(0))); {SERVING}"
    async with Supervisor(tmp_path, screen.show) as supervisor:
        supervisor.start(python("first", polite))
        supervisor.start(python("deaf", deaf, grace_s=0.2))
        supervisor.start(python("last", polite))
        await screen.until(lambda seen: len(seen) == 3)
        pids = [supervisor.pid(name) for name in ("first", "deaf", "last")]
    assert screen.lines[3:] == [("last", "bye"), ("first", "bye")]
    assert all(pid is not None and processes.look_up(pid) is None for pid in pids)
    assert list(tmp_path.glob("*.pid")) == []


async def test_a_restart_is_no_death(tmp_path: Path) -> None:
    screen = Screen()
    async with Supervisor(tmp_path, screen.show) as supervisor:
        supervisor.start(python("a", SERVING))
        await screen.until(lambda seen: len(seen) == 1)
        with capture_logs() as logs:
            await supervisor.restart("a", "because")
            await screen.until(lambda seen: len(seen) == 2)
    assert [entry["event"] for entry in logs if entry["event"] in ("child-restarted", "child-ended")] == [
        "child-restarted"
    ]


async def test_a_bug_in_what_prepares_a_child_ends_us(tmp_path: Path) -> None:
    async def prepare() -> Invocation:
        raise LookupError("a bug")

    async def supervise() -> None:
        async with Supervisor(tmp_path, lambda _name, _line: None) as supervisor:
            supervisor.start(Program("x", prepare))
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as caught:
        await supervise()
    assert caught.group_contains(LookupError)


PARENT = """
import asyncio, pathlib, sys
from tests.integration.test_supervisor import SERVING, python
from services.runtime import logs
from services.supervisor import Supervisor
async def main():
    logs.configure()
    def show(name, line):
        print(supervisor.pid(name), flush=True)
    async with Supervisor(pathlib.Path(sys.argv[1]), show) as supervisor:
        supervisor.start(python("child", SERVING))
        await asyncio.Event().wait()
asyncio.run(main())
"""


def killed_parent(pids_dir: Path) -> tuple[int, subprocess.Popen[str]]:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(pids_dir)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.stdout.close()
    return child, parent


def test_children_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    child, parent = killed_parent(tmp_path)
    parent.kill()
    parent.wait()
    wait_for_end(child)


async def test_what_a_killed_parent_left_is_ended_before_anything_starts(tmp_path: Path) -> None:
    left = await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", SERVING, stdout=asyncio.subprocess.DEVNULL)
    process = processes.look_up(left.pid)
    assert process is not None
    processes.write_pid_file(tmp_path / "a.pid", process)
    processes.write_pid_file(tmp_path / "b.pid", processes.Process(os.getpid(), 1))  # our pid, but not our start
    async with Supervisor(tmp_path, lambda _name, _line: None):
        assert not processes.is_alive(process)
        assert list(tmp_path.iterdir()) == []
    assert await left.wait() == -signal.SIGTERM


def test_the_pause_begins_at_none_again_after_a_long_life() -> None:
    backoff = Backoff()
    assert [backoff.after_death(now, 0.1) for now in range(8)] == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert backoff.is_looping
    assert backoff.after_death(100, 60.0) == 0.0
    assert [backoff.after_death(100 + 4 * life, 4.0) for life in range(3)] == [0.0] * 3, "killed some seconds apart"
    assert not backoff.is_looping


def test_an_exit_status_in_words() -> None:
    assert [describe_status(status) for status in (0, 3, -9, -64)] == [
        "exit status 0",
        "exit status 3",
        "SIGKILL",
        "SIGRTMAX",
    ]


async def test_lines_that_are_too_long_come_in_pieces_and_the_last_needs_no_end() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"a\r\n\n" + b"x" * 200_000 + b"\nlast \xff")
    reader.feed_eof()
    found = [line async for line in lines(reader)]
    assert found[:2] == ["a", ""]
    assert "".join(found[2:-1]) == "x" * 200_000
    assert found[-1] == "last \ufffd"
