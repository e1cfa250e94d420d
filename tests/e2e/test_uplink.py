"""Hosts whose VLAN networks leave by the network card that they live by: what people type, and real packets."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from services.open_vswitch import SWITCH
from tests.harness import daemon
from tests.harness.daemon import Host
from tests.harness.netns import NetworkNamespace, network_namespace
from tests.harness.openvswitch import running_switch
from tests.harness.outside import Outside, pings, reaches
from tests.harness.traffic import Pinging
from tests.requires import needs_ovs, needs_tool

pytestmark = [needs_ovs, needs_tool("busybox", "ethtool", "nft")]

CARD = "eth1"
FAR = "192.0.2.9"
NAMES = ("h1", "h2")


class Wired:
    """Two hosts on one wire, each with a container; a machine in the host's own network, and one in the VLAN."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.hosts = [stack.enter_context(daemon.host(folder, name, "ipam,host", "--uplink", CARD)) for name in NAMES]
        switch = stack.enter_context(running_switch(folder / "wire"))

        def namespace(name: str) -> NetworkNamespace:
            return stack.enter_context(network_namespace(name))

        self.outside = stack.enter_context(Outside(switch, namespace, CARD, *(each.namespace for each in self.hosts)))
        for number, each in enumerate(self.hosts, 1):
            each.run("ip", "address", "add", f"192.0.2.{number}/24", "dev", CARD)
            each.run("ip", "route", "add", "default", "via", FAR)
        self.routes = [routes(each) for each in self.hosts]
        self.far = self.outside.machine("far", f"{FAR}/24")
        self.machine = self.outside.machine("machine", "10.7.0.9/24", "fd07::9/64", tag=100)
        self.containers = [namespace(f"c{number}") for number, _ in enumerate(NAMES, 1)]

    def attach(self) -> None:
        for number, each in enumerate(self.hosts, 1):
            each.netctl("network", "create", "web", "--tag", "100", "--subnet", "10.7.0.0/24")
            where = ("--network", "web", "--container", f"netns:c{number}", "--address", f"10.7.0.{number}")
            each.netctl("endpoint", "create", f"e{number}", *where, "--wait", "applied")


def routes(host: Host) -> list[str]:
    """All but those of the link-local address, which the kernel gives the card when it comes round to it."""
    lines = host.run("ip", "route", "show", "table", "all").stdout.splitlines()
    return sorted(line for line in lines if "fe80:" not in line and "ff00:" not in line)


@pytest.fixture(scope="module")
def wired() -> Iterator[Wired]:
    with tempfile.TemporaryDirectory(prefix="np") as folder, ExitStack() as stack:
        made = Wired(stack, Path(folder))
        for each in made.hosts:
            each.start()
        made.attach()
        yield made


def test_hosts_and_machines_on_one_vlan_reach_each_other(wired: Wired) -> None:
    first, second = wired.containers
    assert pings(first, "10.7.0.2")
    assert pings(second, "10.7.0.1")
    assert pings(wired.machine, "10.7.0.1")
    assert pings(second, "10.7.0.9")
    for number, _ in enumerate(NAMES, 1):
        assert pings(wired.far, f"192.0.2.{number}")
    assert not pings(wired.far, "10.7.0.1")


def test_people_see_the_uplink(wired: Wired) -> None:
    host = wired.hosts[0]
    assert json.loads(host.netctl("host", "show", "-o", "json").stdout)["spec"]["uplinks"] == [CARD]
    assert CARD in host.netctl("host", "list").stdout
    assert "h1/eth1" in host.netctl("status").stdout
    wired.outside.pull("h1-far")
    try:
        host.until_logged(lambda fact: fact.get("event") == "uplink-without-carrier")
        said = host.netctl("status", check=False)
        assert said.returncode == 1
        assert "no carrier" in said.stdout
    finally:
        wired.outside.pull("h1-far", back=True)
    host.until_logged(lambda fact: fact.get("event") == "uplink-with-carrier")
    assert reaches(wired.far, "192.0.2.1")


def test_the_host_actor_may_die(wired: Wired) -> None:
    host, (first, _) = wired.hosts[0], wired.containers
    with Pinging(wired.far, "192.0.2.1") as own, Pinging(first, "10.7.0.2") as beyond:
        host.kill("host")
        host.until_back("host")
        host.until_answering("host")
    assert own.lost == []
    assert beyond.lost == []


def test_the_switch_may_die(wired: Wired) -> None:
    host, (first, _) = wired.hosts[0], wired.containers
    host.kill(SWITCH)
    host.until_back(SWITCH)
    assert reaches(wired.far, "192.0.2.1")
    assert reaches(first, "10.7.0.2")
    assert reaches(wired.machine, "10.7.0.1")


def test_a_restart_moves_nothing_and_clean_gives_all_back(wired: Wired) -> None:
    host = wired.hosts[0]
    taken = routes(host)
    host.stop()
    assert pings(wired.far, "192.0.2.1")
    host.start()
    assert routes(host) == taken
    host.stop()
    with Pinging(wired.far, "192.0.2.1"):
        assert host.clean().returncode == 0
    assert pings(wired.far, "192.0.2.1")
    assert routes(host) == wired.routes[0]
    assert "phy-eth1" not in host.run("ip", "link").stdout
