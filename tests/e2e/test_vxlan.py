"""VXLAN networks across hosts: real host actors, real switches, real packets, said in netctl."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.host_actors import Cluster, running_cluster
from tests.harness.netns import NetworkNamespace
from tests.harness.traffic import Pinging
from tests.requires import needs_ovs, needs_tool

pytestmark = [needs_ovs, needs_tool("busybox")]

WITHIN_S = 30


@pytest.fixture
def cluster(short_path: Path) -> Iterator[Cluster]:
    with running_cluster(short_path, ("h1", "h2", "h3")) as running:
        yield running


def pings(container: NetworkNamespace, address: str, wait_s: int = 1) -> bool:
    """Whether the very first packet is answered."""
    return container.run("busybox", "ping", "-c", "1", "-W", str(wait_s), address, check=False).returncode == 0


def until_pings(container: NetworkNamespace, address: str) -> None:
    """Return when it is answered: the other host may not have heard of this endpoint yet."""
    assert any(pings(container, address) for _ in range(WITHIN_S)), address


def flows(cluster: Cluster, host: int) -> list[str]:
    shown = cluster.hosts[host].host.switch.run("ovs-ofctl", "-O", "OpenFlow15", "--no-stats", "dump-flows", "vlanBr")
    return sorted(line.strip() for line in shown.splitlines() if "cookie" in line)


def test_two_tenants_with_the_same_addresses_on_three_hosts(
    cluster: Cluster, netns: Callable[[str], NetworkNamespace]
) -> None:
    addresses: dict[str, list[str]] = {}
    containers: dict[str, list[NetworkNamespace]] = {}
    for tenant in ("red", "blue"):
        cluster.netctl("tenant", "create", tenant)
        words = ("network", "create", "web", "--encap", "vxlan", "--subnet", "10.7.0.0/24")
        shown = cluster.netctl("-t", tenant, "-o", "json", *words)
        assert json.loads(shown.stdout)["status"]["mtu_bytes"] == 1600 - 50
        containers[tenant] = [netns(f"{tenant}{number}") for number in (1, 2, 3)]
        addresses[tenant] = [
            cluster.attach(f"e{number}", "web", f"{tenant}{number}", f"h{number}", tenant=tenant)
            for number in ((1, 2, 3) if tenant == "red" else (1, 2))
        ]
    assert addresses["red"][:2] == addresses["blue"]
    for tenant in ("red", "blue"):
        for one in range(2):
            until_pings(containers[tenant][one], addresses[tenant][1 - one])
    until_pings(containers["red"][0], addresses["red"][2])
    until_pings(containers["red"][2], addresses["red"][1])
    assert not pings(containers["blue"][0], addresses["red"][2]), "of the other tenant, on another host"
    link = containers["red"][0].run("ip", "-o", "link", "show", "eth0").stdout
    assert "mtu 1550" in link
    full = ("busybox", "ping", "-c", "1", "-W", "10", "-s", str(1550 - 28), addresses["red"][1])
    containers["red"][0].run(*full)


def test_an_endpoint_moves_and_its_traffic_follows(cluster: Cluster, netns: Callable[[str], NetworkNamespace]) -> None:
    one, two, three = (netns(f"c{number}") for number in (1, 2, 3))
    cluster.netctl("network", "create", "web", "--encap", "vxlan")
    cluster.attach("e1", "web", "c1", "h1")
    address = cluster.attach("e2", "web", "c2", "h2")
    until_pings(one, address)
    refused = cluster.netctl("endpoint", "attach", "e2", "--container", "netns:c3", "--host", "h3", check=False)
    assert refused.returncode == 1
    assert "endpoint-bound" in refused.stderr
    with Pinging(one, address) as going:
        for container, host in (("c3", "h3"), ("c2", "h2"), ("c1", "h1"), ("c3", "h3")):
            going.until_answered()
            words = ("endpoint", "attach", "e2", "--container", f"netns:{container}", "--host", host, "--move")
            cluster.netctl(*words)
            going.until_answered()
    assert going.answered_twice == []
    until_pings(three, "11.0.0.1")
    assert not pings(two, "11.0.0.1"), "the place that it left"


def test_a_killed_actor_disturbs_nothing_and_a_returned_one_catches_up(
    cluster: Cluster, netns: Callable[[str], NetworkNamespace]
) -> None:
    one, _, three = (netns(f"c{number}") for number in (1, 2, 3))
    cluster.netctl("network", "create", "web", "--encap", "vxlan")
    cluster.attach("e1", "web", "c1", "h1")
    second = cluster.attach("e2", "web", "c2", "h2")
    until_pings(one, second)
    with Pinging(one, second) as going:
        going.until_answered()
        before = flows(cluster, 0)
        cluster.hosts[0].kill()
        cluster.hosts[1].kill()
        going.until_answered()
        cluster.hosts[0].start()
        cluster.hosts[1].start()
        going.until_answered()
        assert flows(cluster, 0) == before
        cluster.hosts[0].relay.cut(True)
        third = cluster.attach("e3", "web", "c3", "h3")
        going.until_answered()
        assert flows(cluster, 0) == before, "cut off, it changes nothing"
    assert going.lost == []
    cluster.netctl("endpoint", "delete", "e2")
    cluster.hosts[0].relay.cut(False)
    until_pings(one, third)
    assert not pings(one, second)
    assert pings(three, "11.0.0.1", WITHIN_S)


def test_a_host_knows_the_others_with_the_bus_and_its_switch_gone(
    cluster: Cluster, netns: Callable[[str], NetworkNamespace]
) -> None:
    one, _ = netns("c1"), netns("c2")
    cluster.netctl("network", "create", "web", "--encap", "vxlan")
    cluster.attach("e1", "web", "c1", "h1")
    second = cluster.attach("e2", "web", "c2", "h2")
    until_pings(one, second)
    first = cluster.hosts[0]
    first.until_saved(second)
    first.kill()
    first.relay.cut(True)
    first.host.restart_switch()
    first.start("driver-open")
    until_pings(one, second)


def test_who_has_no_tunnels_says_so_and_goes_on_alone(
    short_path: Path, netns: Callable[[str], NetworkNamespace]
) -> None:
    one, two, three = (netns(f"c{number}") for number in (1, 2, 3))
    with running_cluster(short_path, ("h1", "h2"), without_vtep=("h2",)) as cluster:
        cluster.netctl("network", "create", "web", "--encap", "vxlan")
        first = cluster.attach("e1", "web", "c1", "h1")
        second = cluster.attach("e2", "web", "c2", "h2")
        third = cluster.attach("e3", "web", "c3", "h2")
        assert pings(two, third, WITHIN_S)
        assert pings(three, second)
        assert "h1" in cluster.hosts[1].until_logged("vtep-not-set")["detail"]
        assert "h2" in cluster.hosts[0].until_logged("host-without-vtep")["detail"]
        assert not pings(one, second)
        assert not pings(two, first)
        assert "np-vxlan" not in cluster.hosts[1].host.switch.run("ovs-vsctl", "list-ports", "vlanBr")


def test_the_last_member_takes_the_interest_with_it(cluster: Cluster, netns: Callable[[str], NetworkNamespace]) -> None:
    one = netns("c1")
    netns("c2")
    netns("c3")
    cluster.netctl("network", "create", "web", "--encap", "vxlan")
    cluster.attach("e1", "web", "c1", "h1")
    second = cluster.attach("e2", "web", "c2", "h2")
    third = cluster.attach("e3", "web", "c3", "h3")
    until_pings(one, second)
    until_pings(one, third)
    cluster.netctl("endpoint", "detach", "e1")
    assert any(not any("tun_id" in line for line in flows(cluster, 0)) for _ in range(WITHIN_S * 5))
    cluster.netctl("endpoint", "attach", "e1", "--container", "netns:c1", "--host", "h1")
    until_pings(one, second)
    until_pings(one, third)
