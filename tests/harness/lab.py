"""A cluster on one machine: `netplugin lab` as a person types it, its hosts, and containers on them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from services import processes
from services.lab import layout, namespaces, power
from services.lab.layout import LabHost

from .daemon import wait_for_end
from .netns import NetworkNamespace

UP_WITHIN_S = 120.0
LINE_WITHIN_S = 60.0
BACK_WITHIN_S = 60.0
LOOK_EVERY_S = 0.05


class Host:
    """One host of a running lab."""

    def __init__(self, host: LabHost) -> None:
        self.plan = host
        self.name = host.name
        self.namespace = NetworkNamespace(host.namespace)

    @property
    def init(self) -> processes.Process:
        """Its process 1, as this process sees it."""
        return power.running(self.plan)

    # -- what a person types on it

    def words(self, line: str) -> tuple[str, ...]:
        """What to run, with `environment`, to have a line run by the host's shell."""
        return namespaces.command_inside(self.init, ("/bin/sh", "-c", line), Path.cwd())

    @property
    def environment(self) -> dict[str, str]:
        """What a person's shell there has."""
        return {**os.environ, **self.plan.variables(), "PATH": power.search_path()}

    def ended(self, line: str, timeout_s: float = LINE_WITHIN_S) -> subprocess.CompletedProcess[str]:
        """The ended run of one line in the host's shell, whatever its status."""
        return subprocess.run(
            self.words(line),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def type(self, line: str, status: int = 0) -> str:
        """What the line said, on stdout and stderr; it ended with this status."""
        result = self.ended(line)
        said = result.stdout + result.stderr
        assert result.returncode == status, (
            f"{self.name}: {line}\nended with {result.returncode}, expected {status}\n{said}"
        )
        return said

    def show(self, line: str) -> Any:
        """What `netctl LINE -o json` shows."""
        return json.loads(self.type(f"netctl {line} -o json"))

    def events(self, since: int = 1) -> list[dict[str, Any]]:
        """The journal from `since` to its present end."""
        said = self.type(f"netctl events watch --since {since} --no-follow -o jsonl")
        return [json.loads(line) for line in said.splitlines()]

    def flows(self) -> list[str]:
        """What its switch forwards by, without what changes with every packet."""
        said = self.type("ovs-ofctl -O OpenFlow14 --no-stats --no-names dump-flows vlanBr")
        return sorted(line.strip() for line in said.splitlines() if "actions=" in line)

    def log(self, since: int = 0) -> list[dict[str, Any]]:
        """What its daemon and actors have logged, from line `since` on."""
        lines = self.plan.log_file.read_text().splitlines()[since:]
        return [json.loads(line) for line in lines if line.startswith("{")]

    # -- containers

    def make_container(self, name: str) -> NetworkNamespace:
        """A named namespace of this host's, where `netns:NAME` finds it."""
        self.type(f"ip netns add {name} && ip -n {name} link set lo up")
        made = NetworkNamespace(name)
        made.path = Path("/proc", str(self.init.pid), "root", "run", "netns", name)
        return made

    def remove_container(self, name: str) -> None:
        self.type(f"ip netns delete {name}")

    # -- its processes

    def pid(self, program: str) -> int:
        """The pid, as we see it, of `daemon`, `nats-server`, `ipam`, `host`, `ovs-vswitchd` or `ovsdb-server`."""
        if program == "daemon":
            process = processes.read_pid_file(power.daemon_file(self.plan))
            assert process is not None, f"the daemon of {self.name} does not run"
            return process.pid
        folder = "ovs" if program.startswith("ovs") else "pids"
        inside = int((self.plan.run_dir / folder / f"{program}.pid").read_text().split()[0])
        outside = namespaces.pids_inside(self.init).get(inside)
        assert outside is not None, f"{program} of {self.name} does not run"
        return outside

    def kill(self, program: str) -> int:
        """The pid that the program had; it was killed and is gone."""
        pid = self.pid(program)
        os.kill(pid, signal.SIGKILL)
        wait_for_end(pid)
        return pid

    def until_back(self, program: str, than: int) -> int:
        """The pid of a program in another life than that with the pid `than`."""

        def again() -> int | None:
            try:
                pid = self.pid(program)
            except (AssertionError, OSError, ValueError, IndexError):
                return None
            return pid if pid != than else None

        return until(again, f"{program} of {self.name} is back")


class Lab:
    """A lab that is up."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.plan = layout.read(directory)
        self.hosts = [Host(host) for host in self.plan.hosts]

    def __getitem__(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)

    def command(self, verb: str, *arguments: str, status: int = 0) -> str:
        """What `netplugin lab VERB ARGUMENTS` on this lab said."""
        result = command(self.directory, verb, *arguments)
        said = result.stdout + result.stderr
        assert result.returncode == status, f"lab {verb} ended with {result.returncode}, expected {status}\n{said}"
        return said

    def until_well(self) -> None:
        """Returns when `lab status` finds nothing amiss, and `netctl status` neither."""

        def is_well() -> bool:
            return (
                command(self.directory, "status").returncode == 0
                and self.hosts[0].ended("netctl status").returncode == 0
            )

        until(is_well, "the lab is well")

    def logs(self) -> str:
        """The end of every host's log, for a failure to show."""
        return "\n".join(f"{host.name}:\n{power.end_of_log(host.plan)}" for host in self.hosts)


def command(
    directory: Path, verb: str, *arguments: str, timeout_s: float = UP_WITHIN_S
) -> subprocess.CompletedProcess[str]:
    """The ended run of `netplugin lab VERB --dir DIRECTORY ARGUMENTS`."""
    return subprocess.run(
        words(directory, verb, *arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def words(directory: Path, verb: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "services.netplugin", "lab", verb, "--dir", str(directory), *arguments)


T = TypeVar("T")


def until(condition: Callable[[], T | None], what: str, within_s: float = BACK_WITHIN_S) -> T:
    """What `condition` says as soon as that is true. Fails, saying what was waited for, after `within_s`."""
    deadline_s = time.monotonic() + within_s
    pause = threading.Event()
    while not (found := condition()):
        assert time.monotonic() < deadline_s, f"not within {within_s:g} s: {what}"
        pause.wait(LOOK_EVERY_S)
    return found


def mounts() -> list[str]:
    """What is mounted here, but for /run/netns on itself, as `ip netns` mounts it for good."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in lines if line.split()[1] != str(layout.NAMED_NAMESPACES)]


@contextmanager
def running_lab(*flags: str) -> Iterator[Lab]:
    """A lab that is up, and gone after the context."""
    with tempfile.TemporaryDirectory(prefix="lab") as folder:
        directory = Path(folder) / "l"
        made = command(directory, "up", *flags)
        assert made.returncode == 0, made.stdout + made.stderr
        try:
            yield Lab(directory)
        finally:
            ended = command(directory, "down")
            assert ended.returncode == 0, ended.stdout + ended.stderr
