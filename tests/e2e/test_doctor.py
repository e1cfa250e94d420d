"""`netctl doctor` where all is well, where something is not, and where nothing answers."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import daemon
from tests.harness.daemon import Host
from tests.harness.netns import network_namespace
from tests.requires import needs_ovs

pytestmark = needs_ovs


@pytest.fixture
def host(short_path: Path) -> Iterator[Host]:
    with daemon.host(short_path) as made:
        yield made


def doctor(host: Host, status: int | None = None) -> list[dict[str, str]]:
    said = host.netctl("doctor", "-o", "json", check=False)
    assert status in (None, said.returncode), said.stdout + said.stderr
    checks: list[dict[str, str]] = json.loads(said.stdout)["checks"]
    return checks


def state(checks: list[dict[str, str]], what: str) -> set[str]:
    return {check["state"] for check in checks if check["what"] == what}


def test_where_all_is_well_it_says_so_with_status_0(host: Host) -> None:
    host.start()
    checks = doctor(host, 0)
    for what in ("server", "durability", "clock", "version", "host", "disk", "ovs"):
        assert state(checks, what) == {"ok"}, (what, checks)
    assert "what to do" not in host.netctl("doctor").stdout


def test_what_is_wrong_is_named_with_its_remedy(host: Host) -> None:
    host.start()
    host.netctl("network", "create", "web")
    with network_namespace("gone"):
        host.netctl("endpoint", "create", "web1", "--network", "web", "--container", "netns:gone")
    (found,) = [check for check in doctor(host) if check["what"] == "netns"]
    assert (found["state"], found["facts"]) == ("poor", "bound to netns:gone, which is not there")
    assert "endpoint detach web1" in found["advice"]
    ipam = host.pid("ipam")
    os.kill(ipam, signal.SIGSTOP)
    try:
        said = host.netctl("doctor", "--timeout", "2s", check=False)
    finally:
        os.kill(ipam, signal.SIGCONT)
    assert said.returncode == 1
    assert "what to do:" in said.stdout


def test_without_a_server_it_tells_what_it_sees_here(host: Host) -> None:
    host.start()
    host.stop()
    checks = doctor(host, 1)
    assert state(checks, "server") == {"bad"}
    assert state(checks, "disk") == {"ok"}
