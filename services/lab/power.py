"""A host of a lab switched on and off, and its daemon started and stopped.

switch_on ----> namespace, cable, process 1 ----> start_daemon ----> until_ready
switch_off      power is gone: every process and link of the host with it; its state stays
stop_daemon     `netplugin` alone ends, as on an upgrade; the switch goes on, and so does traffic
"""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path

from .. import processes
from ..processes import Process
from ..runtime.config import VARIABLES
from ..runtime.errors import Misconfigured, Unavailable
from . import namespaces, underlay
from .layout import LabHost

READY_WITHIN_S = 90.0
STOP_WITHIN_S = 30.0
LOOK_EVERY_S = 0.02
READY = "READY "
LOG_LINES_SHOWN = 12
SOURCE_DIR = Path(__file__).resolve().parents[2]  # where our packages are, installed or not
PROGRAM_DIRS = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin")


def switch_on(host: LabHost) -> Process:
    """The host's process 1; the host has a cable to the underlay, and nothing runs there yet.

    Raises: Misconfigured (its name is taken), Unavailable.
    """
    host.directory.mkdir(parents=True, exist_ok=True)
    underlay.plug_in(host)
    return namespaces.make_init(host)


def switch_off(host: LabHost) -> None:
    """Nothing of the host runs and its links are gone; its state is as a power cut leaves it. Idempotent."""
    if (init := processes.read_pid_file(host.init_file)) is not None:
        processes.send(init, signal.SIGKILL)  # the kernel ends all that runs in its process namespace
        asyncio.run(processes.ended(init))
    underlay.unplug(host)
    host.init_file.unlink(missing_ok=True)
    host.ready_file.unlink(missing_ok=True)
    shutil.rmtree(host.run_dir, ignore_errors=True)
    shutil.rmtree(host.state_dir / "uplinks", ignore_errors=True)  # of one boot: here the next looks like this one


def running(host: LabHost) -> Process:
    """Its process 1. Raises: Misconfigured when the host is off."""
    init = processes.read_pid_file(host.init_file)
    if init is None:
        raise Misconfigured(f"{host.name} is off: switch it on with netplugin lab start {host.name}")
    return init


def start_daemon(host: LabHost) -> None:
    """The host's daemon is being started. Raises: Misconfigured when the host is off."""
    init = running(host)
    words = (sys.executable, "-P", "-m", "services.lab.boot", str(host.lab.directory), host.name)
    process = namespaces.start_inside(init, words, daemon_environment(), host.ready_file, host.log_file)
    if process is not None:
        processes.write_pid_file(daemon_file(host), process)


def until_ready(host: LabHost, deadline_s: float) -> str:
    """What the daemon said when it was ready. Raises: Unavailable when it has ended, or `deadline_s` has passed."""
    while True:
        said = host.ready_file.read_text()
        if said.startswith(READY) and said.endswith("\n"):
            return said.strip()
        daemon = processes.read_pid_file(daemon_file(host))
        if daemon is None and not host.ready_file.read_text():
            raise Unavailable(f"the daemon of {host.name} has ended; its log says:\n{end_of_log(host)}")
        if time.monotonic() > deadline_s:
            raise Unavailable(f"{host.name} was not ready in time; its log says:\n{end_of_log(host)}")
        _wait_for_end(daemon, LOOK_EVERY_S)


def stop_daemon(host: LabHost) -> None:
    """The host's daemon and its children have ended; the switch goes on. Idempotent."""
    if (daemon := processes.read_pid_file(daemon_file(host))) is not None:
        asyncio.run(processes.end(daemon, STOP_WITHIN_S))
    daemon_file(host).unlink(missing_ok=True)
    host.ready_file.unlink(missing_ok=True)


def daemon_file(host: LabHost) -> Path:
    """Names the host's daemon."""
    return host.directory / "daemon.pid"


def end_of_log(host: LabHost) -> str:
    """The last that the host's daemon logged."""
    try:
        lines = host.log_file.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return f"(nothing in {host.log_file})"
    return "\n".join(f"  {line}" for line in lines[-LOG_LINES_SHOWN:])


def daemon_environment() -> dict[str, str]:
    """What a daemon is started with: nothing of ours but where its code is."""
    ours = {*VARIABLES.values(), "DOCKER_HOST"}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    source = os.pathsep.join(filter(None, (str(SOURCE_DIR), os.environ.get("PYTHONPATH", ""))))
    return {**kept, "PYTHONPATH": source, "PYTHONUNBUFFERED": "1", "PATH": search_path()}


def search_path() -> str:
    """Where commands are found in a host: beside this Python, as here, and where the system's are."""
    beside = str(Path(sys.executable).parent)
    return os.pathsep.join((beside, os.environ.get("PATH", os.defpath), *PROGRAM_DIRS))


def _wait_for_end(process: Process | None, at_most_s: float) -> None:
    """Returns when the process has ended or the time is over."""
    try:
        descriptor = os.pidfd_open(process.pid) if process else None
    except ProcessLookupError:
        descriptor = None
    try:
        select.select([descriptor] if descriptor is not None else [], [], [], at_most_s)
    finally:
        if descriptor is not None:
            os.close(descriptor)
