"""A host: the real `netplugin` in a network namespace, with state and run directories of its own."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from services import processes, readiness
from services.open_vswitch import DATABASE, SWITCH, OpenVSwitch
from services.runtime import bus as nats_bus

from .netns import NetworkNamespace, network_namespace, run

READY_WITHIN_S = 90.0
STOP_WITHIN_S = 60.0


class Host:
    """One host. `start` and `stop` may alternate; what is started detached ends with `clean`."""

    def __init__(self, namespace: NetworkNamespace, directory: Path, actors: str = "ipam,host", *flags: str) -> None:
        self.namespace = namespace
        self.name = namespace.name
        self.state_dir = directory / "state"
        self.run_dir = directory / "run"
        self.actors = actors
        self.flags = flags
        self.log: list[str] = []
        self._logged = threading.Condition()
        self._killed_at_line = 0
        self.ready: dict[str, Any] = {}
        self._process: subprocess.Popen[str] | None = None
        self._readers: list[threading.Thread] = []

    # -- the daemon

    @staticmethod
    def program(module: str) -> tuple[str, ...]:
        """How one of our programs is started."""
        return (sys.executable, "-m", module)

    def command(self, *flags: str) -> tuple[str, ...]:
        """How the daemon is started with its directories and `flags`."""
        own = ("--state-dir", str(self.state_dir), "--run-dir", str(self.run_dir), "--host", self.name)
        program = self.program("services.netplugin")
        return self.namespace.command(*program, *own, "--actors", self.actors, *self.flags, *flags)

    @property
    def environment(self) -> dict[str, str]:
        """What a person on this host has: the run directory for netctl, the switch's for ovs-vsctl."""
        own = {"NETPLUGIN_RUN_DIR": str(self.run_dir), "NETPLUGIN_STATE_DIR": str(self.state_dir)}
        return {**os.environ, **own, "OVS_RUNDIR": str(self.run_dir / "ovs")}

    def start(self) -> dict[str, Any]:
        """What READY says, once it has been said."""
        self.launch()
        return self.until_ready()

    def launch(self) -> None:
        """It is started; `until_ready` waits for what it says."""
        environment = {**os.environ}
        environment.pop("OVS_RUNDIR", None)
        self._process = subprocess.Popen(
            self.command(), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._printed: queue.Queue[str | None] = queue.Queue()
        self._readers = [
            threading.Thread(target=self._read_output, args=(self._process.stdout, self._printed), daemon=True),
            threading.Thread(target=self._read_log, args=(self._process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def until_ready(self) -> dict[str, Any]:
        try:
            line = self._printed.get(timeout=READY_WITHIN_S)
        except queue.Empty:
            line = None
        assert line is not None, "netplugin did not become ready:\n" + "\n".join(self.log[-60:])
        assert line.startswith("READY "), line
        self.ready = json.loads(line.removeprefix("READY "))
        return self.ready

    def _read_output(self, stream: IO[str], printed: queue.Queue[str | None]) -> None:
        for line in stream:
            printed.put(line.rstrip())
        printed.put(None)

    def _read_log(self, stream: IO[str]) -> None:
        for line in stream:
            with self._logged:
                self.log.append(line.rstrip())
                self._logged.notify_all()

    def until_logged(self, is_it: Callable[[dict[str, Any]], bool], since: int = 0) -> dict[str, Any]:
        """The first fact of the log, from line `since` on, that `is_it`; waits for it."""
        seen: dict[str, Any] = {}

        def found() -> bool:
            facts = (json.loads(line) for line in self.log[since:] if line.startswith("{"))
            seen.update(next(filter(is_it, facts), {}))
            return bool(seen)

        with self._logged:
            assert self._logged.wait_for(found, READY_WITHIN_S), "\n".join(self.log[-30:])
        return seen

    def stop(self) -> int:
        """The daemon's exit status after SIGTERM."""
        assert self._process is not None
        self._process.terminate()
        return self._collect()

    def crash(self) -> None:
        """The daemon is killed, and with it its children; the switch stays. Returns when all of them are gone."""
        assert self._process is not None
        pids = [self.pid(name) for name in self.children]
        self._process.kill()
        self._collect()
        for pid in pids:
            wait_for_end(pid)

    def _collect(self) -> int:
        assert self._process is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        status = self._process.wait(STOP_WITHIN_S)
        for reader in self._readers:
            reader.join(STOP_WITHIN_S)
        self._process.stdout.close()
        self._process.stderr.close()
        self._process = None
        return status

    def clean(self, *flags: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command("--clean", *flags), capture_output=True, text=True, timeout=120, check=False)

    def end(self) -> None:
        """Nothing of this host runs."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.terminate()
            self._collect()
        if self.state_dir.exists() or self.run_dir.exists():
            result = self.clean("--purge")
            assert result.returncode == 0, result.stderr

    # -- its processes

    @property
    def pid_of_daemon(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def children(self) -> tuple[str, ...]:
        return tuple(sorted(file.stem for file in (self.run_dir / "pids").glob("*.pid")))

    def pid(self, child: str) -> int:
        """The pid of `nats-server`, `ipam`, `host`, or of `ovs-vswitchd`, `ovsdb-server`."""
        if child in (DATABASE, SWITCH):
            process = OpenVSwitch(self.state_dir, self.run_dir).running(child)
        else:
            process = processes.read_pid_file(self.run_dir / "pids" / f"{child}.pid")
        assert process is not None, f"{child} does not run"
        return process.pid

    def kill(self, child: str) -> int:
        """The pid that `child` had; it was killed and is gone."""
        pid = self.pid(child)
        self._killed_at_line = len(self.log)
        os.kill(pid, signal.SIGKILL)
        wait_for_end(pid)
        return pid

    def until_back(self, child: str) -> int:
        """The pid of `child`, which was killed last, in its next life."""

        def is_back(fact: dict[str, Any]) -> bool:
            if child in (DATABASE, SWITCH):
                return fact.get("event") == "open-vswitch-started"
            return fact.get("event") == "child-started" and fact.get("child") == child

        self.until_logged(is_back, since=self._killed_at_line)
        return self.pid(child)

    def until_answering(self, *actors: str) -> None:
        """Returns when these actors answer (all of this host's when none is named), as READY once said."""

        async def ask() -> None:
            seed = self.state_dir / "keys" / "daemon.nk"
            options = nats_bus.Options(urls=(self.ready["nats"],), user="daemon", credentials=seed)
            async with asyncio.timeout(READY_WITHIN_S):
                await readiness.until_ready(options, actors or self.actors.split(","), self.name, asyncio.Event())

        self.namespace.call(lambda: asyncio.run(ask()))

    # -- what a person types on it

    def run(
        self, *arguments: str, check: bool = True, timeout_s: float = 90.0, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = self.namespace.command(*arguments)
        return run(*command, timeout_s=timeout_s, check=check, environment={**self.environment, **(environment or {})})

    def netctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "services.cli.netctl", *arguments, check=check)

    def netdcli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "services.cli.netdcli", *arguments, check=check)


def wait_for_end(pid: int, timeout_s: float = STOP_WITHIN_S) -> None:
    """Returns when the process with this pid has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    import select

    try:
        ready, _, _ = select.select([descriptor], [], [], timeout_s)
    finally:
        os.close(descriptor)
    assert ready, f"process {pid} still runs after {timeout_s:g} s"


@contextmanager
def host(directory: Path, name: str = "h1", actors: str = "ipam,host", *flags: str) -> Iterator[Host]:
    """A host in a namespace of its own, not started; nothing of it is left after the context."""
    with network_namespace(name) as namespace:
        made = Host(namespace, directory / name, actors, *flags)
        try:
            yield made
        finally:
            made.end()
