"""`netplugin --clean`: nothing that the daemon and its actors made on this host is left; the journal and the keys stay.

In this order: the daemon and its children, the uplinks (given back to the host), the bridge with its ports, our Open
vSwitch, our links, the packet filter that hides the host from them, the run directory, the switch's database. `--purge`
takes the journal, the keys and the actors' own files as well. Idempotent. What is not ours stays: another Open vSwitch
loses nothing but our bridge, a folder nothing but the files that we name.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pyroute2
import structlog

from . import bus_file, cluster, nats_server, open_vswitch, processes
from .daemon import CLIENT_FILE, PIDS_DIR, SOURCE_DIR
from .open_vswitch import OpenVSwitch
from .runtime.config import ACTORS, Config
from .runtime.errors import Misconfigured, Unavailable
from .state_lock import LOCK_FILE, AlreadyRunning, StateLock

DAEMON_GRACE_S = 30.0
DEVICE = re.compile(r"np[a-z0-9]{12}\Z")  # host_actor/drivers/contract.py: PortSpec.device
RULE_PROTOCOL = 110  # host_actor/netlink_rules.py: PROTOCOL
SHIELD_TABLE = "netplugin"  # host_actor/drivers/ovs_shield.py: TABLE
RUN_FILES = (CLIENT_FILE, nats_server.CONFIG_FILE, PIDS_DIR, "ovs", LOCK_FILE, *ACTORS)
UPLINKS = "uplinks"  # host_actor/uplink_record.py: FOLDER
STATE_FILES = ("ovs", UPLINKS)
PURGED_FILES = ("jetstream", "keys", cluster.FILE, cluster.TLS_DIR, bus_file.FILE, LOCK_FILE, *ACTORS)

log = structlog.get_logger()


async def clean(config: Config, *, is_purge: bool) -> None:
    """Nothing of ours is left on this host. Raises: Misconfigured, Unavailable (a switch that will not end)."""
    locks = [await _take(directory) for directory in dict.fromkeys((config.state_dir, config.run_dir))]
    try:
        await _end_children(config)
        await _give_back_uplinks(config)
        await _remove_switch(config)
        await asyncio.to_thread(_remove_links)
        await asyncio.to_thread(_remove_shield)
        _remove(config.run_dir, RUN_FILES)
        _remove(config.state_dir, STATE_FILES + (PURGED_FILES if is_purge else ()))
    finally:
        for lock in locks:
            lock.release()
    log.info("cleaned", run_dir=str(config.run_dir), state_dir=str(config.state_dir), purged=is_purge)


async def _take(directory: Path) -> StateLock:
    """The directory's lock, once the daemon that holds it has been told to end and has."""
    lock = StateLock(directory)
    try:
        lock.acquire()
    except AlreadyRunning as owner:
        process = processes.look_up(owner.pid) if owner.pid else None
        if process is None:
            raise
        log.info("ending-daemon", pid=process.pid)
        await processes.end(process, DAEMON_GRACE_S)
        lock.acquire()
    return lock


async def _end_children(config: Config) -> None:
    """No child of a daemon that was killed still runs."""
    for file in sorted((config.run_dir / PIDS_DIR).glob("*.pid")):
        if (process := processes.read_pid_file(file)) is not None:
            await processes.end(process)


async def _give_back_uplinks(config: Config) -> None:
    """Every network card that was taken has its addresses and routes again. Raises: Unavailable."""
    if not (config.state_dir / UPLINKS).is_dir():
        return
    path = os.pathsep.join(filter(None, (str(SOURCE_DIR), os.environ.get("PYTHONPATH", ""))))
    giving = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "host_actor.uplink_watchdog", str(config.state_dir)),
        env={**os.environ, "PYTHONPATH": path},
    )
    if await giving.wait():
        raise Unavailable(f"uplinks were not given back: what they had is written in {config.state_dir / UPLINKS}")


async def _remove_switch(config: Config) -> None:
    """Our bridge is gone, from our Open vSwitch together with that, from another's by itself."""
    ours = OpenVSwitch(config.state_dir, config.run_dir)
    found = _find_foreign(config, ours)
    if found is not None:
        await asyncio.to_thread(_remove_bridge, found, config.bridge)
    is_running = any(ours.running(program) for program in (open_vswitch.DATABASE, open_vswitch.SWITCH))
    if ours.exists() and found is None and not is_running:
        try:
            await ours.start()  # it alone can take down the bridges and taps that a killed one has left
        except Misconfigured as error:
            log.warning("switch-not-cleaned", reason=str(error))
    await ours.end()


def _find_foreign(config: Config, ours: OpenVSwitch) -> Path | None:
    try:
        found = open_vswitch.find_running(config.ovs_run_dir)
    except Misconfigured:  # one that is named and does not answer has nothing that could be removed now
        return None
    return None if found is None or found == ours.run_dir.resolve() else found


def _remove_bridge(run_dir: Path, bridge: str) -> None:
    """The bridge is gone if it carries our mark."""
    database = f"--db=unix:{run_dir / 'db.sock'}"
    program = open_vswitch.find_program("ovs-vsctl")
    marks = subprocess.run(
        (program, database, "--if-exists", "get", "Bridge", bridge, "external_ids"),
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    if "netplugin" in marks or "np-" in marks:
        subprocess.run((program, database, "--if-exists", "del-br", bridge), check=True)
        log.info("bridge-removed", bridge=bridge, run_dir=str(run_dir))


def _remove_links() -> None:
    """No link of an endpoint is left: veth, named after one, and marked by a link group as all of ours are."""
    with pyroute2.IPRoute() as netlink:
        for link in netlink.get_links(kind="veth"):
            name = link.get("ifname")
            if name and DEVICE.match(name) and link.get("group"):
                if namespace := link.get("ifalias"):
                    _remove_rules(namespace, link.get("link"))
                netlink.link("del", index=link["index"])
                log.info("link-removed", device=name)


def _remove_rules(namespace: str, table: int) -> None:
    """The rules that a container with several interfaces had for one of them are gone."""
    with contextlib.suppress(OSError, pyroute2.NetlinkError), pyroute2.NetNS(namespace, flags=0) as inside:
        for family in (socket.AF_INET, socket.AF_INET6):
            for rule in inside.get_rules(family=family):
                if (rule.get("table"), rule.get("protocol")) == (table, RULE_PROTOCOL):
                    inside.rule("del", family=family, table=table, priority=rule.get("priority"), src=rule.get("src"))


def _remove_shield() -> None:
    """The table that keeps containers off this host's own network is gone."""
    if nft := shutil.which("nft", path=os.pathsep.join((os.environ.get("PATH", ""), *open_vswitch.PROGRAM_DIRS))):
        subprocess.run((nft, "delete", "table", "inet", SHIELD_TABLE), capture_output=True, check=False)


def _remove(directory: Path, names: tuple[str, ...]) -> None:
    """These are gone from `directory`, and it as well if nothing else was in it."""
    for name in names:
        path = directory / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if directory.is_dir() and not any(path.name != LOCK_FILE for path in directory.iterdir()):
        shutil.rmtree(directory)
