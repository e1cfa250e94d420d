from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from messages.endpoint import EndpointSpec, EndpointStatus, EndpointView
from messages.host import HostSpec, HostStatus, HostView, PortView
from messages.network import NetworkSpec, NetworkStatus, NetworkView
from services.cli import diagnosis
from services.cli.diagnosis import Member
from services.cli.status import BAD, OK, POOR, Check


def host(name: str, mtu_bytes: int = 0, vtep: str | None = None) -> HostView:
    address = ip_address(vtep) if vtep else None
    spec = HostSpec(
        driver="ovs", datapath="netdev", version="1", bridge="b", vtep=address, underlay_mtu_bytes=mtu_bytes
    )
    return HostView(host=name, name=name, spec=spec, status=HostStatus(state="ready", endpoints=0, seq=1))


def network(mtu_bytes: int, encap: Any = "vxlan") -> NetworkView:
    subnets = (ip_network("10.1.0.0/24"),)
    spec = NetworkSpec(encap=encap, tag=None, subnets=subnets, gateways=())
    status = NetworkStatus(
        state="active", encap=encap, tag=9, subnets=subnets, gateways=(), mtu_bytes=mtu_bytes, endpoints=0, seq=1
    )
    return NetworkView(tenant="acme", network="web", name="web", spec=spec, status=status)


def endpoint(container: str, on: str = "h1") -> EndpointView:
    status = EndpointStatus(
        state="bound",
        host=on,
        container=container,
        port="",
        device="",
        interface="",
        addresses=(ip_interface("10.1.0.2/24"),),
        mac="02:00:00:00:00:01",
        tag=9,
        encap="vlan",
        epoch=3,
        seq=3,
        reason="",
    )
    spec = EndpointSpec(addresses=(), container=container, host=on)
    return EndpointView(tenant="acme", network="web", name="e1", id="x", spec=spec, status=status)


def short(checks: Iterable[Check]) -> list[tuple[str, str, str]]:
    return [(check.what, check.name, check.state) for check in checks]


def test_clocks_are_apart_beyond_what_the_question_took() -> None:
    assert diagnosis.clock(0.5, 0.01).state == OK
    assert diagnosis.clock(4.0, 3.0).state == OK
    assert diagnosis.clock(-5.0, 0.01)[2:4] == (POOR, "5.0 s behind the server's")
    assert diagnosis.clock(300.0, 0.01).state == BAD


def test_an_older_version_is_named_with_the_newest() -> None:
    assert short(diagnosis.versions("0.9.0", {"ipam": "0.9.0"})) == [("version", "all", OK)]
    found = list(diagnosis.versions("0.10.0", {"ipam": "0.9.0", "host@h1": "0.10.0"}))
    assert short(found) == [("version", "ipam", POOR)]
    assert "0.10.0" in found[0].advice
    assert short(diagnosis.versions("0.9.0", {"ipam": "0.10.0"})) == [("version", "netctl", POOR)]


def test_a_host_that_does_not_know_the_journal_is_bad_and_says_how_to_go_on() -> None:
    found = list(diagnosis.members([Member("h1", "1", "ready", ""), Member("h2", "1", "journal-mismatch", "older")]))
    assert short(found) == [("journal", "h2", BAD)]
    assert "h2" in found[0].advice
    assert short(diagnosis.members([Member("h3", "1", "switch-away", "gone")])) == [("switch", "h3", BAD)]


def test_a_network_that_promises_more_than_the_tunnels_carry_is_named() -> None:
    hosts = [host("h1", 1500, "10.0.0.1"), host("h2", 1500, "10.0.0.2")]
    assert short(diagnosis.underlay(hosts, [network(1450)])) == [("mtu", "underlay", OK)]
    found = list(diagnosis.underlay(hosts, [network(1500)]))
    assert short(found) == [("mtu", "acme/web", BAD)] * 2 + [("mtu", "underlay", OK)]
    assert "by 50" in found[0].advice
    assert short(diagnosis.underlay(hosts, [network(1500, "vlan")])) == [("mtu", "underlay", OK)]
    over_six = [host("h1", 1500, "fd00::1"), host("h2", 1500, "fd00::2")]
    assert BAD in {check.state for check in diagnosis.underlay(over_six, [network(1450)])}


def test_an_underlay_that_is_smaller_on_one_host_is_named_with_that_host() -> None:
    hosts = [host("h1", 9000, "10.0.0.1"), host("h2", 1500, "10.0.0.2")]
    assert short(diagnosis.underlay(hosts, [network(1450)])) == [("mtu", "h2", POOR)]


def test_a_host_without_a_vtep_is_named_where_there_are_tunnels() -> None:
    hosts = [host("h1", 1500, "10.0.0.1"), host("h2")]
    assert ("vtep", "h2", POOR) in short(diagnosis.underlay(hosts, [network(1450)]))
    assert short(diagnosis.underlay(hosts, [])) == [("mtu", "underlay", OK)]


def test_a_disk_is_full_before_nothing_is_left() -> None:
    assert diagnosis.disk("/s", 50, 100).state == OK
    assert diagnosis.disk("/s", 2 << 30, 1 << 40).state == OK  # much, though a small share
    assert diagnosis.disk("/s", 7 << 20, 100 << 20).state == POOR
    assert diagnosis.disk("/s", 1 << 20, 100 << 20).state == BAD


def test_names_without_namespaces_and_endpoints_without_names_are_left_over() -> None:
    named = {"c1": True, "old": False}
    assert short(diagnosis.namespaces(named, [endpoint("netns:c1")], "h1")) == [("netns", "old", POOR)]
    gone = [endpoint("netns:c2"), endpoint("netns:c3", on="h2"), endpoint("web")]
    assert short(diagnosis.namespaces({}, gone, "h1")) == [("netns", "acme/web/e1", POOR)]


def test_a_port_that_failed_has_a_remedy_by_its_code() -> None:
    port = PortView(
        tenant="acme",
        network="web",
        name="e1",
        endpoint="x",
        epoch=3,
        device="npx",
        interface="eth0",
        container="c1",
        parts=(),
        state="failed",
        reason="container-gone: it ended",
    )
    (found,) = diagnosis.strangers("h1", [port])
    assert (found.state, found.advice) == (BAD, "start the container; its port is made by itself")
