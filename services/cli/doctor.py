"""`netctl doctor`: what commonly goes wrong, looked for here and in the cluster, and what to do about each.

Everything of `netctl status`, and: clocks, versions, the underlay's MTU, journal mismatches, ports that failed; on a
host with a daemon also its disk, Open vSwitch, nft, and what is left over. Works without a server as far as it goes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from messages import subjects
from messages.endpoint import EndpointView, ListEndpoints
from messages.host import HostView, InspectHost, ListHosts, PortView
from messages.network import ListNetworks, NetworkView
from messages.replies import Items
from services.runtime.version import VERSION

from . import diagnosis, journal_reader, status
from .client import Client
from .exits import Ended
from .server import RUN_DIR
from .status import BAD, OK, POOR, Check
from .verbs import Session, Verb

NAMED_NAMESPACES = Path("/run/netns")
KERNEL_DATAPATH = Path("/sys/module/openvswitch")
PROGRAM_DIRS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
PROGRAM_WITHIN_S = 5.0
STATE_DIR = "/var/lib/netplugin"


def _arguments(_parser: argparse.ArgumentParser) -> None:
    pass


def _doctor(session: Session, _chosen: argparse.Namespace) -> int:
    checks: list[Check] = []
    endpoints: list[EndpointView] = []
    try:
        client = session.client
        checks += status.look(client)
        checks += _cluster(client)
        views = client.items(ListEndpoints(tenant=subjects.FABRIC)).objects
        endpoints = [view for view in views if isinstance(view, EndpointView)]
    except Ended as fault:
        checks.append(Check("server", "-", BAD, fault.message, "what follows is of this host alone"))
    if _has_daemon():
        checks += _here(session.host, endpoints)
    return status.show(checks, session.output)


def _cluster(client: Client) -> Iterator[Check]:
    """What the cluster as a whole shows. Raises: Ended."""
    yield _clock(client)
    services = status.discover(client)
    actors = {_actor(service): str(service.get("version", "?")) for service in services}
    yield from diagnosis.versions(VERSION, actors)
    members = [_member(service) for service in services if service.get("name") == "host"]
    yield from diagnosis.members(members)
    hosts = [view for view in client.items(ListHosts(tenant=subjects.FABRIC)).objects if isinstance(view, HostView)]
    views = client.items(ListNetworks(tenant=subjects.FABRIC)).objects
    yield from diagnosis.underlay(hosts, [view for view in views if isinstance(view, NetworkView)])
    following = {member.host for member in members}
    for host in hosts:
        reply = client.ask_host(host.name, "inspect", InspectHost(tenant=subjects.FABRIC))
        if not isinstance(reply, Items):
            continue
        if host.name not in following:
            yield diagnosis.not_following(host.name, "it answers, and does not follow this journal (or reads it still)")
        ports = [view for view in reply.objects if isinstance(view, PortView)]
        yield from diagnosis.strangers(host.name, ports)


def _clock(client: Client) -> Check:
    began = time.time()
    said = str(journal_reader.stream_facts(client, subjects.JOURNAL_STREAM).get("ts", ""))
    ended = time.time()
    try:
        server_s = datetime.fromisoformat(said).timestamp()
    except ValueError:
        return Check("clock", "server", POOR, f"the server says {said!r}", "it should be nats-server 2.12 or newer")
    return diagnosis.clock((began + ended) / 2 - server_s, ended - began)


def _actor(service: dict[str, object]) -> str:
    host = status.metadata(service).get("host")
    return f"{service.get('name')}@{host}" if host else str(service.get("name"))


def _member(service: dict[str, object]) -> diagnosis.Member:
    said = status.metadata(service)
    return diagnosis.Member(
        said.get("host", "?"), str(service.get("version", "?")), said.get("state", ""), said.get("reason", "")
    )


# This machine ---------------------------------------------------------------------------------------------------------


def _run_dir() -> Path:
    return Path(os.environ.get("NETPLUGIN_RUN_DIR") or RUN_DIR)


def _has_daemon() -> bool:
    return _run_dir().is_dir()


def _here(host: str, endpoints: Sequence[EndpointView]) -> Iterator[Check]:
    """What this machine shows."""
    state_dir = Path(os.environ.get("NETPLUGIN_STATE_DIR") or STATE_DIR)
    if state_dir.is_dir():
        usage = shutil.disk_usage(state_dir)
        yield diagnosis.disk(str(state_dir), usage.free, usage.total)
    yield from _switch()
    if NAMED_NAMESPACES.is_dir():
        device = NAMED_NAMESPACES.stat().st_dev  # what is mounted on a name is on another
        named = {path.name: path.stat().st_dev != device for path in NAMED_NAMESPACES.iterdir()}
        yield from diagnosis.namespaces(named, endpoints, host)


def _switch() -> Iterator[Check]:
    version = _first_line("ovs-vswitchd", "--version")
    if version is None:
        yield Check("ovs", "installed", BAD, "ovs-vswitchd is not found", "apt-get install openvswitch-switch")
        return
    kernel = "the kernel module is there" if KERNEL_DATAPATH.exists() else "no kernel module: data path in user space"
    yield Check("ovs", "installed", OK, f"{version.rpartition(' ')[2]}, {kernel}")
    if _find("nft") is None:
        advice = "apt-get install nftables: without it containers reach this host's own network but for rp_filter"
        yield Check("nft", "installed", POOR, "nft is not found", advice)


def _first_line(program: str, *arguments: str) -> str | None:
    path = _find(program)
    if path is None:
        return None
    with suppress(OSError, subprocess.TimeoutExpired):
        ran = subprocess.run((path, *arguments), capture_output=True, text=True, timeout=PROGRAM_WITHIN_S, check=False)
        return next(iter(ran.stdout.splitlines()), "?")
    return "?"


def _find(program: str) -> str | None:
    return shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *PROGRAM_DIRS)))


VERBS = {
    "": Verb(
        "What commonly goes wrong, here and in the cluster, and what to do about it. Exit status 1: something is.",
        _arguments,
        _doctor,
    )
}
