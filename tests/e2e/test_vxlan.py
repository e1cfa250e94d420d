"""VXLAN networks across hosts: real host actors, real switches, real packets, said in netctl."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.host_actors import Cluster, running_cluster
from tests.harness.netns import NetworkNamespace
from tests.requires import needs_ovs, needs_tool

pytestmark = [needs_ovs, needs_tool("busybox")]


@pytest.fixture
def cluster(short_path: Path) -> Iterator[Cluster]:
    with running_cluster(short_path, ("h1", "h2", "h3")) as running:
        yield running


def pings(container: NetworkNamespace, address: str, wait_s: int = 1) -> bool:
    """Whether the very first packet is answered."""
    return container.run("busybox", "ping", "-c", "1", "-W", str(wait_s), address, check=False).returncode == 0


def test_two_endpoints_on_two_hosts(cluster: Cluster, netns: Callable[[str], NetworkNamespace]) -> None:
    one, two = netns("c1"), netns("c2")
    cluster.netctl("network", "create", "web", "--encap", "vxlan")
    first = cluster.attach("e1", "web", "c1", "h1")
    second = cluster.attach("e2", "web", "c2", "h2")
    assert pings(one, second, 10)
    assert pings(two, first)
