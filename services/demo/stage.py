"""Where the walk takes place: commands as typed, what they say, the daemon in the background, an end without traces."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from .terminal import NotShown, Terminal

READY_WITHIN_S = 60.0
STOP_WITHIN_S = 30.0
STEP_WITHIN_S = 60.0
LOG_LINES_SHOWN = 30
CONTAINER_PROMPT = "/ # "
_SCREEN_CODES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|\r")


class DemoFailed(Exception):
    """A step did not do what the walk says it does."""


class Stage:
    """The folder and the environment that every command of the walk runs in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "netplugin.log"
        scripts = Path(sys.executable).parent
        self.environment = {
            **os.environ,
            "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin{os.pathsep}/sbin",
            "NETPLUGIN_STATE_DIR": str(folder / "state"),
            "NETPLUGIN_RUN_DIR": str(folder / "run"),
            "NETPLUGIN_HOST": "demo",
        }
        self.environment.pop(
            "OVS_RUNDIR", None
        )  # it names an Open vSwitch that runs; ours is found where all look for one
        self._daemon: subprocess.Popen[str] | None = None

    def say(self, text: str) -> None:
        """A sentence between the commands."""
        print(f"\n# {text}", flush=True)

    def step(self, command: str, expect: str = "", status: int = 0) -> str:
        """What one command, run as typed, said; it is shown.

        Raises: DemoFailed when it ends with another status, or `expect` is not in what it says.
        """
        print(f"$ {command}", flush=True)
        with self._started(command) as running:
            said, _ = running.communicate(timeout=STEP_WITHIN_S)
        print(said, end="", flush=True)
        if running.returncode != status:
            raise DemoFailed(f"{command!r} ended with status {running.returncode}, expected {status}")
        if expect not in said:
            raise DemoFailed(f"{command!r} did not say {expect!r}")
        return said

    @contextmanager
    def meanwhile(self, command: str, expect: str) -> Iterator[None]:
        """The command runs while the block does; what it says is shown after it. Raises: DemoFailed as `step` does."""
        print(f"$ {command} &", flush=True)
        with self._started(command) as running:
            yield
            said, _ = running.communicate(timeout=STEP_WITHIN_S)
        print(said, end="", flush=True)
        if expect not in said:
            raise DemoFailed(f"{command!r} did not say {expect!r}")

    @contextmanager
    def until(self, command: str, expect: str) -> Iterator[None]:
        """The command, which goes on by itself, runs from before the block until a line of it matches `expect`.

        Raises: DemoFailed when it ends before.
        """
        print(f"$ {command} &", flush=True)
        with self._started(f"exec {command}") as running:
            assert running.stdout is not None
            _show_until(running.stdout, "", command)  # its first line: it watches now
            yield
            _show_until(running.stdout, expect, command)
            running.send_signal(signal.SIGINT)
            print("^C", flush=True)

    @contextmanager
    def _started(self, command: str) -> Iterator[subprocess.Popen[str]]:
        running = subprocess.Popen(
            ["/bin/sh", "-c", command],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with running:
            try:
                yield running
            except BaseException:  # Ctrl-C too
                running.kill()
                raise

    def terminal(self, stack: ExitStack, command: str) -> Terminal:
        """A terminal in which `command` shows the container's prompt; it is hung up on when `stack` unwinds."""
        print(f"$ {command}", flush=True)
        terminal = stack.enter_context(Terminal(command, self.environment))
        self._show(terminal)
        return terminal

    def type(self, terminal: Terminal, line: str, expect: str = "") -> None:
        """A line is typed in a container's terminal; it and its output are shown. Raises: DemoFailed."""
        terminal.type(line)
        print(CONTAINER_PROMPT, end="")
        if expect not in self._show(terminal):
            raise DemoFailed(f"{line!r} did not show {expect!r}")

    def _show(self, terminal: Terminal) -> str:
        try:
            shown = terminal.wait_for(CONTAINER_PROMPT, STEP_WITHIN_S)
        except NotShown as fault:
            raise DemoFailed(str(fault)) from None
        shown = _SCREEN_CODES.sub("", shown).removesuffix(CONTAINER_PROMPT)
        print(shown, end="", flush=True)
        return shown

    # -- the daemon

    def start_daemon(self) -> None:
        """`netplugin` runs in the background and is ready. Raises: DemoFailed with the end of its log."""
        print("$ netplugin &", flush=True)
        with self.log.open("ab") as log:
            self._daemon = subprocess.Popen(
                ["netplugin"], env=self.environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._daemon.stdout is not None
        line = self._daemon.stdout.readline()
        print(line, end="", flush=True)
        if not line.startswith("READY "):
            raise DemoFailed("netplugin did not get ready")

    def kill_daemon(self) -> None:
        """`kill -9` of the daemon, with which its actors and its server die; the switch goes on."""
        assert self._daemon is not None
        self.step(f"kill -9 {self._daemon.pid}")
        self._collect(self._daemon)

    def end(self) -> None:
        """The daemon is stopped, and all that it made is gone."""
        if self._daemon is not None and self._daemon.poll() is None:
            self._daemon.terminate()
            self._collect(self._daemon)
        with self.log.open("ab") as log:
            subprocess.run(
                ["netplugin", "--clean", "--purge"],
                env=self.environment,
                stdout=log,
                stderr=log,
                check=True,
                timeout=STOP_WITHIN_S,
            )

    def end_of_log(self) -> str:
        """The last that the daemon and its actors logged."""
        with suppress(FileNotFoundError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:])
        return "(netplugin was not started)"

    @staticmethod
    def _collect(daemon: subprocess.Popen[str]) -> None:
        daemon.wait(STOP_WITHIN_S)
        assert daemon.stdout is not None
        daemon.stdout.close()


def _show_until(stream: IO[str], pattern: str, command: str) -> None:
    """Lines are shown up to one that matches `pattern`. Raises: DemoFailed when the stream ends before."""
    for line in stream:
        print(line, end="", flush=True)
        if re.search(pattern, line):
            return
    raise DemoFailed(f"{command!r} ended and did not say {pattern!r}")
