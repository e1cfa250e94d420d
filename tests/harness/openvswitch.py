"""A real Open vSwitch for one test, started and ended by the daemon's own code, in user space unless told otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services.open_vswitch import OpenVSwitch

from .netns import NetworkNamespace, in_thread, run


class RunningSwitch:
    """ovsdb-server and ovs-vswitchd in one network namespace; there can be one pair in each."""

    def __init__(self, directory: Path, namespace: NetworkNamespace | None = None) -> None:
        self.switch = OpenVSwitch(directory / "state", directory / "run")
        self.namespace = namespace

    @property
    def run_dir(self) -> Path:
        return self.switch.run_dir

    @property
    def database_socket(self) -> Path:
        return self.run_dir / "db.sock"

    def management_socket(self, bridge: str = "vlanBr") -> Path:
        return self.run_dir / f"{bridge}.mgmt"

    def pid(self, program: str = "ovs-vswitchd") -> int:
        process = self.switch.running(program)
        assert process is not None, f"{program} does not run"
        return process.pid

    def start(self) -> None:
        """Both run; what was killed is started again."""
        self._inside(self.switch.start)

    def end(self) -> None:
        self._inside(self.switch.end)

    def _inside(self, action: Callable[[], Coroutine[Any, Any, None]]) -> None:
        def act() -> None:
            asyncio.run(action())

        if self.namespace is None:
            in_thread(act)
        else:
            self.namespace.call(act)

    def run(self, program: str, *arguments: str) -> str:
        """What `ovs-vsctl`, `ovs-ofctl` or `ovs-appctl` prints."""
        words = (program, *arguments)
        command = self.namespace.command(*words) if self.namespace else words
        environment = {
            "OVS_RUNDIR": str(self.run_dir),
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        }
        return run(*command, environment=environment).stdout


@contextmanager
def running_switch(directory: Path, namespace: NetworkNamespace | None = None) -> Iterator[RunningSwitch]:
    """A switch that has ended when the context has, with its bridges."""
    switch = RunningSwitch(directory, namespace)
    switch.start()
    try:
        yield switch
    finally:
        switch.end()
