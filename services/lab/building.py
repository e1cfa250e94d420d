"""A lab comes up, whole or not at all, and is taken down with all that it made."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from .. import nats_server, open_vswitch
from ..open_vswitch import LONGEST_SOCKET_NAME, SOCKET_PATH_LENGTH_MAX
from ..runtime.errors import Misconfigured
from . import layout, power, underlay
from .layout import Lab, LabHost

TOOLS = {"ip": "iproute2", "nsenter": "util-linux", "mount": "mount"}
SWITCH_PROGRAMS = (open_vswitch.DATABASE, open_vswitch.SWITCH, "ovsdb-tool", "ovs-vsctl")
MEMORY_OF_HOST_BYTES = 120 << 20  # three Pythons, a switch, a nats-server; measured: 90 MiB
DISK_OF_HOST_BYTES = 64 << 20
LOCK_FILE = "lock"


def check(lab: Lab) -> None:
    """This machine can have that lab. Raises: Misconfigured, saying what it lacks."""
    if os.geteuid() != 0:
        raise Misconfigured("a lab is made of network namespaces: run it as root (sudo netplugin lab ...)")
    for tool, package in TOOLS.items():
        if shutil.which(tool, path=power.search_path()) is None:
            raise Misconfigured(f"no {tool} on PATH: install {package}")
    for program in SWITCH_PROGRAMS:
        open_vswitch.find_program(program)
    nats_server.find_binary()
    longest = lab.hosts[-1].run_dir / "ovs" / LONGEST_SOCKET_NAME
    if len(os.fsencode(longest)) > SOCKET_PATH_LENGTH_MAX:
        raise Misconfigured(f"a socket's path has at most {SOCKET_PATH_LENGTH_MAX} bytes, {longest} has more: --dir")
    _check_room(lab)


def _check_room(lab: Lab) -> None:
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) << 10
    wanted = lab.host_count * MEMORY_OF_HOST_BYTES
    if free < wanted:
        raise Misconfigured(
            f"{lab.host_count} hosts take {wanted >> 20} MiB of memory, and {free >> 20} MiB are free: fewer --hosts"
        )
    place = next(folder for folder in (lab.directory, *lab.directory.parents) if folder.exists())
    free, wanted = shutil.disk_usage(place).free, lab.host_count * DISK_OF_HOST_BYTES
    if free < wanted:
        raise Misconfigured(
            f"{lab.host_count} hosts want {wanted >> 20} MiB in {place}, and {free >> 20} MiB are free: another --dir"
        )


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Nobody else makes or changes a lab in `directory` meanwhile. Raises: Misconfigured when somebody does."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        descriptor = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Misconfigured(f"{directory} cannot be used: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Misconfigured(f"another netplugin lab works in {directory} at this moment: wait for it") from None
        yield
    finally:
        os.close(descriptor)


def up(lab: Lab, say: Callable[[str], None]) -> None:
    """Every host of the lab is ready. Raises: Misconfigured, Unavailable; then nothing is left of it."""
    if lab.file.exists():
        raise Misconfigured(
            f"there is a lab in {lab.directory} already: netplugin lab status tells how it is, "
            "netplugin lab down ends it"
        )
    check(lab)
    layout.write(lab)
    try:
        underlay.make_underlay(lab)
        _prepare_keys(lab)
        for_each(lab.hosts, power.switch_on)
        for_each(lab.hosts, power.start_daemon)
        deadline_s = time.monotonic() + power.READY_WITHIN_S
        for host in lab.hosts:
            power.until_ready(host, deadline_s)
            say(f"{host.name} is ready: {host.address.ip}, {', '.join(host.actors)}")
    except BaseException:  # Ctrl-C too
        say("taking down what there is of it")
        down(lab)
        raise


def down(lab: Lab) -> None:
    """No process, namespace, link or file of the lab is left. Idempotent; half a lab goes as a whole one."""
    for_each(lab.hosts, power.switch_off)
    underlay.remove_underlay(lab)
    for folder in (lab.state_dir, lab.names_dir, *(host.directory for host in lab.hosts)):
        shutil.rmtree(folder, ignore_errors=True)
    lab.file.unlink(missing_ok=True)


def forget(directory: Path) -> None:
    """The directory is gone if nothing but our lock was in it."""
    if directory.is_dir() and not any(path.name != LOCK_FILE for path in directory.iterdir()):
        shutil.rmtree(directory)


def for_each(hosts: tuple[LabHost, ...], do: Callable[[LabHost], object]) -> None:
    """It has been done for each of the hosts, side by side. Raises: the first error, when all have come to an end."""
    with ThreadPoolExecutor(max_workers=len(hosts)) as pool:
        for done in [pool.submit(do, host) for host in hosts]:
            done.result()


def _prepare_keys(lab: Lab) -> None:
    servers = {host.name: str(host.address.ip) for host in lab.hosts if host.has_server}
    others = [host.name for host in lab.hosts if not host.has_server]
    from .. import cluster

    cluster.prepare(lab.state_dir, servers, others)
