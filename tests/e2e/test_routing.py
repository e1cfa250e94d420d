"""Networks of a tenant that route, on one host and across hosts: host actors, switches and packets are real."""

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
    with running_cluster(short_path, ("h1", "h2")) as running:
        yield running


def answers(container: NetworkNamespace, address: str) -> bool:
    """Whether one of ten packets is answered: routes follow their events, they are not waited for."""
    ping = ("busybox", "ping", "-c", "10", "-i", "0.5", "-W", "1", "-w", "30", "-A", address)
    return container.run(*ping, check=False).returncode == 0


def is_silent(container: NetworkNamespace, address: str) -> bool:
    return container.run("busybox", "ping", "-c", "2", "-W", "1", address, check=False).returncode != 0


def test_networks_reach_each_other_across_hosts_and_no_other_tenant(
    cluster: Cluster, netns: Callable[[str], NetworkNamespace]
) -> None:
    for tenant in ("acme", "other"):
        cluster.netctl("tenant", "create", tenant, "--routing", "on", "--subnet-pool", "10.0.0.0/8")
        for network in ("web", "db"):
            cluster.netctl("-t", tenant, "network", "create", network, "--encap", "vxlan")
    cluster.netctl("-t", "acme", "network", "create", "alone", "--encap", "vxlan", "--routing", "off")
    web1, _, db2, alone, theirs, _ = (netns(name) for name in ("w1", "d1", "d2", "a1", "t1", "n1"))
    cluster.attach("w1", "web", "w1", "h1", tenant="acme")
    first = cluster.attach("d1", "db", "d1", "h1", tenant="acme")
    second = cluster.attach("d2", "db", "d2", "h2", tenant="acme")
    apart = cluster.attach("a1", "alone", "a1", "h2", tenant="acme")
    assert (first, second) == ("10.0.1.2", "10.0.1.3")
    assert answers(web1, first)
    assert answers(web1, second)
    assert answers(db2, "10.0.0.2")
    assert answers(db2, "10.0.0.1")
    assert is_silent(web1, apart)
    assert is_silent(alone, "10.0.0.2")
    # The other tenant has the same addresses, on the same hosts: it reaches its own and nothing of these.
    cluster.attach("t1", "web", "t1", "h2", tenant="other")
    assert answers(theirs, "10.0.1.1")
    assert is_silent(theirs, second)
    # A host actor that is killed and comes back changes nothing, and knows as much as before.
    cluster.hosts[0].kill()
    assert answers(web1, second)
    cluster.hosts[0].start()
    cluster.netctl("-t", "acme", "network", "create", "new", "--encap", "vxlan")
    newest = cluster.attach("n1", "new", "n1", "h2", tenant="acme")
    assert answers(web1, newest)
    cluster.netctl("-t", "acme", "endpoint", "delete", "d2")
    assert is_silent(web1, second)
    assert answers(web1, first)
