"""The journal taken and put back while all runs: nothing is torn down until somebody says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import daemon
from tests.harness.daemon import Host
from tests.harness.netns import NetworkNamespace, network_namespace
from tests.requires import needs_ovs, needs_tool

pytestmark = [needs_ovs, needs_tool("busybox")]


@pytest.fixture
def host(short_path: Path) -> Iterator[Host]:
    with daemon.host(short_path) as made:
        made.start()
        yield made


@pytest.fixture
def containers() -> Iterator[tuple[NetworkNamespace, NetworkNamespace]]:
    with network_namespace("c1") as first, network_namespace("c2") as second:
        yield first, second


def attach(host: Host, name: str, container: str) -> None:
    host.netctl("endpoint", "create", name, "--network", "web", "--container", f"netns:{container}")


def of_process(event: str, process: str = "host") -> Any:
    return lambda fact: fact.get("event") == event and fact.get("process") == process


def names(host: Host) -> list[str]:
    return [each["name"] for each in json.loads(host.netctl("endpoint", "list", "-o", "json").stdout)]


def test_an_older_journal_put_back_changes_no_host_until_it_is_adopted(
    host: Host, containers: tuple[NetworkNamespace, NetworkNamespace], short_path: Path
) -> None:
    host.netctl("network", "create", "web", "--subnet", "10.1.0.0/24")
    attach(host, "e1", "c1")
    said = host.netctl("journal", "backup", str(short_path / "b"))
    assert "events, last seq" in said.stdout
    attach(host, "e2", "c2")
    refused = host.netctl("journal", "restore", str(short_path / "b"), check=False)
    assert refused.returncode == 1
    assert "--replace" in refused.stderr

    line = len(host.log)
    host.netctl("journal", "restore", "--replace", str(short_path / "b"))
    host.until_logged(of_process("journal-mismatch"), since=line)
    host.until_logged(lambda fact: fact.get("event") == "child-started" and fact.get("child") == "ipam", since=line)
    host.until_answering("ipam")
    assert names(host) == ["e1"]
    containers[0].run("busybox", "ping", "-c", "1", "-W", "5", "10.1.0.2")  # e2, of which the journal knows nothing
    mismatch = host.netctl("doctor", check=False)
    assert mismatch.returncode == 1
    assert "adopt" in mismatch.stdout

    line = len(host.log)
    host.netctl("journal", "adopt", "--host", "h1")
    host.until_logged(of_process("journal-adopted"), since=line)
    host.until_answering()
    host.netctl("endpoint", "create", "e3", "--network", "web", "--container", "netns:c2")
    containers[0].run("busybox", "ping", "-c", "1", "-W", "5", "10.1.0.2")  # e3 has its address now
    assert names(host) == ["e1", "e3"]
