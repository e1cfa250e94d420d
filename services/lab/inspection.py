"""How the hosts of a lab are, as far as their processes tell; `netctl status` on one of them says the rest."""

from __future__ import annotations

from pathlib import Path

import msgspec

from .. import processes
from ..open_vswitch import DATABASE, SWITCH
from . import power
from .layout import LabHost

HEAD = ("HOST", "ADDRESS", "NAMESPACE", "STATE", "RUNS")


class HostState(msgspec.Struct, frozen=True):
    """One host, seen from outside."""

    host: LabHost
    is_on: bool
    is_ready: bool  # its daemon said so, and lives
    runs: tuple[str, ...]  # programs with a pid file whose process lives

    @property
    def is_well(self) -> bool:
        """Whether it is as `lab up` left it."""
        wanted = {*self.host.actors, DATABASE, SWITCH, *(("nats-server",) if self.host.has_server else ())}
        return self.is_on and self.is_ready and wanted <= set(self.runs)


def state_of(host: LabHost) -> HostState:
    """The host as it is now."""
    init = processes.read_pid_file(host.init_file)
    if init is None:
        return HostState(host, is_on=False, is_ready=False, runs=())
    daemon = processes.read_pid_file(power.daemon_file(host))
    said = host.ready_file.read_text() if host.ready_file.exists() else ""
    files = [*(host.run_dir / "pids").glob("*.pid"), *(host.run_dir / "ovs").glob("ovs*.pid")]
    runs = sorted(file.stem for file in files if _lives(init.pid, file))
    return HostState(host, is_on=True, is_ready=daemon is not None and said.startswith(power.READY), runs=tuple(runs))


def table(states: list[HostState]) -> str:
    """The hosts in columns, under a heading."""
    rows = [HEAD, *(_row(state) for state in states)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _row(state: HostState) -> tuple[str, ...]:
    host = state.host
    said = "ready" if state.is_well else ("not as it should be" if state.is_on else "off")
    return (host.name, str(host.address.ip), host.namespace, said, " ".join(state.runs))


def _lives(init_pid: int, pid_file: Path) -> bool:
    """Whether the process that a file inside names by its pid there runs; the host's own /proc knows it."""
    try:
        pid = int(pid_file.read_text().split()[0])
        state = Path("/proc", str(init_pid), "root", "proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError, IndexError):
        return False
    return state not in "ZX"
