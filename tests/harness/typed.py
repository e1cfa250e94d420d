"""What a person types on a host, and what they see: whole lines with their quotes, and the journal as it grows."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .daemon import Host
from .netns import NetworkNamespace

WITHIN_S = 40.0
LINE_WITHIN_S = 60.0
PATH = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))

Event = dict[str, Any]


class Shell:
    """A shell of a person on this host, with the project's commands on its path."""

    def __init__(self, host: Host, **environment: str) -> None:
        self._host = host
        self._environment = {**host.environment, "PATH": PATH, **environment}
        for name in ("OVS_RUNDIR", "PYTHONUNBUFFERED"):  # what a person does not have
            self._environment.pop(name, None)

    def ended(self, line: str) -> subprocess.CompletedProcess[str]:
        """The ended run of one line, whatever its status."""
        return subprocess.run(
            self._host.namespace.command("sh", "-c", line),
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LINE_WITHIN_S,
            check=False,
        )

    def type(self, line: str, status: int = 0) -> str:
        """What the line said, on stdout and stderr; it ended with this status."""
        result = self.ended(line)
        said = result.stdout + result.stderr
        assert result.returncode == status, f"{line}\nended with {result.returncode}, expected {status}\n{said}"
        return said

    def start(self, line: str) -> subprocess.Popen[str]:
        """The line runs; whoever starts it waits for its end."""
        return subprocess.Popen(
            self._host.namespace.command("sh", "-c", f"exec {line}"),
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def show(self, line: str) -> Any:
        """What `netctl LINE -o json` shows."""
        return json.loads(self.type(f"netctl {line} -o json"))

    def last_seq(self) -> int:
        """The journal's last sequence."""
        return self.events()[-1]["seq"]  # type: ignore[no-any-return]

    def events(self, since: int = 1) -> list[Event]:
        """The journal from `since` to its present end."""
        return [
            json.loads(line)
            for line in self.type(f"netctl events watch --since {since} --no-follow -o jsonl").splitlines()
        ]

    @contextmanager
    def following(self) -> Iterator[Following]:
        """The journal is followed from its present end on."""
        last = self.last_seq()
        process = self.start(f"netctl events watch --since {last} -o jsonl")
        following = Following(process)
        try:
            following.until(lambda event: event["seq"] == last)
            yield following
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(WITHIN_S)
            following.close()


class Following:
    """Events as `netctl events watch` prints them."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: queue.Queue[str] = queue.Queue()
        self.seen: list[Event] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)

    def until(self, is_it: Callable[[Event], bool], within_s: float = WITHIN_S) -> Event:
        """The next event that `is_it`. Raises: AssertionError when there is none in time, with those that came."""
        while True:
            try:
                event = json.loads(self._lines.get(timeout=within_s))
            except queue.Empty:
                raise AssertionError(f"not within {within_s:g} s; the last were {self.seen[-8:]}") from None
            self.seen.append(event)
            if is_it(event):
                return event  # type: ignore[no-any-return]

    def until_port(self, state: str, endpoint: str, within_s: float = WITHIN_S) -> Event:
        """The next event `port-STATE` of this endpoint."""
        return self.until(lambda event: event["type"] == f"port-{state}" and event["name"] == endpoint, within_s)

    def close(self) -> None:
        self._reader.join(WITHIN_S)
        assert self._process.stdout is not None
        self._process.stdout.close()


class InsideProcess(NetworkNamespace):
    """The network namespace that a process lives in, such as a container's."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"pid-{pid}")
        self.path = Path(f"/proc/{pid}/ns/net")
