"""`netctl ipam check` on a cluster: what differs on any host is named and mended from another, who is away is said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness import lab as labs
from tests.harness.lab import Host, Lab, until
from tests.requires import needs_ovs

pytestmark = needs_ovs

REFUSED, UNREACHABLE = 1, 3


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.running_lab("--hosts", "3") as running:
        first = running["h1"]
        first.type("netctl network create web --encap vxlan --subnet 10.6.0.0/24")
        for host in running.hosts:
            host.make_container(f"c{host.name}")
            create = f"netctl endpoint create e{host.name} --network web --container netns:c{host.name}"
            host.type(f"{create} --address 10.6.0.{host.plan.number}")
        yield running


def check(host: Host, flags: str = "", status: int = 0) -> Any:
    return json.loads(host.type(f"netctl ipam check {flags} -o json", status))


def about(found: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(each["kind"], each["host"], each["name"]) for each in found]


def test_three_hosts_agree(lab: Lab) -> None:
    for host in lab.hosts:
        found = check(host)
        assert (found["is_clean"], found["hosts"], found["away"], found["endpoints"]) == (True, 3, 0, 3)
    shown = lab["h3"].show("ipam show web")[0]["subnets"][0]
    assert (shown["used"]["ranges"], shown["used"]["count"]) == (["10.6.0.1-10.6.0.3"], 3)


def test_what_differs_on_two_hosts_is_mended_from_a_third(lab: Lab) -> None:
    first = lab["h1"]
    lab["h2"].type("ip -n ch2 address delete 10.6.0.2/24 dev eth0")
    lab["h3"].type("ip -n ch3 link set eth0 address 02:00:00:00:00:99")
    expected = [("endpoint-without-address", "h2", "eh2"), ("other-mac", "h3", "eh3")]
    assert about(check(first, status=REFUSED)["differences"]) == expected
    mended = check(first, "--repair")
    assert (about(mended["mended"]), mended["differences"]) == (expected, [])
    assert check(lab["h2"])["is_clean"] is True
    for other in (2, 3):
        first.type(f"ip netns exec ch1 busybox ping -c 1 -W 10 10.6.0.{other}")


def test_a_host_that_is_stopped_is_said_and_the_others_are_compared(lab: Lab) -> None:
    lab.command("stop", "h3")
    lab["h2"].type("ip -n ch2 address delete 10.6.0.2/24 dev eth0")
    found = check(lab["h1"], status=REFUSED)
    assert about(found["differences"]) == [("endpoint-without-address", "h2", "eh2"), ("host-away", "h3", "")]
    assert about(check(lab["h1"], "--repair", UNREACHABLE)["differences"]) == [("host-away", "h3", "")]
    lab.command("start", "h3")
    until(lambda: lab["h1"].ended("netctl ipam check").returncode == 0, "all three hosts agree again")
