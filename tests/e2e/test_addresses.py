"""Addresses as people manage them: ranges, exclusions, pools, what is used and free, and whether it is so."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import daemon
from tests.harness.daemon import Host
from tests.harness.typed import Shell
from tests.requires import needs_ovs

pytestmark = needs_ovs

REFUSED, USAGE, UNREACHABLE = 1, 2, 3


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="np") as folder, daemon.host(Path(folder)) as made:
        made.start()
        yield made


@pytest.fixture
def shell(host: Host) -> Iterator[Shell]:
    shell = Shell(host)
    yield shell
    for endpoint in shell.show("endpoint list"):
        shell.type(f"netctl endpoint delete {endpoint['name']}")
    for network in shell.show("network list"):
        shell.type(f"netctl network delete {network['name']}")


@pytest.fixture
def attached(shell: Shell) -> Iterator[Shell]:
    """Endpoints e1 and e2 of network web are in namespaces c1 and c2."""
    shell.type("netctl network create web --subnet 10.1.1.0/24 --subnet fd00:1::/64")
    for number in (1, 2):
        shell.type(f"ip netns add c{number}")
        shell.type(f"netctl endpoint create e{number} --network web --container netns:c{number}")
    yield shell
    for number in (1, 2):
        shell.type(f"ip netns delete c{number}")


def sets(shell: Shell, network: str = "web") -> dict[str, str]:
    """The kinds of addresses in a network's first subnet, each as ranges."""
    shown = shell.show(f"ipam show {network}")[0]["subnets"][0]
    kinds = {what: each for what, each in shown.items() if what not in ("subnet", "rests_for")}
    return {what: ", ".join(each["ranges"]) for what, each in kinds.items() if each["count"]}


def kinds(shell: Shell, status: int) -> list[tuple[str, str]]:
    """What `ipam check` finds, ending with `status`: the kind and the endpoint of each difference."""
    found = checked(shell, "", status)["differences"]
    return [(each["kind"], each["name"]) for each in found]


def checked(shell: Shell, flags: str, status: int) -> Any:
    import json

    return json.loads(shell.type(f"netctl ipam check {flags} -o json", status))


def test_ranges_exclusions_and_pools_decide_what_is_given(shell: Shell) -> None:
    shell.type(
        "netctl network create web --subnet 10.1.1.10-10.1.1.99/24 --exclude 10.1.1.11-10.1.1.12 --gateway 10.1.1.1"
    )
    said = shell.type("netctl ipam pool create front --network web --range 10.1.1.20-10.1.1.29,10.1.1.200")
    assert said.startswith("pool default/web/front created: 10.1.1.20-10.1.1.29, 10.1.1.200, seq ")
    given = {
        "a": ("", "10.1.1.10/24"),
        "b": ("", "10.1.1.13/24"),
        "c": ("--pool front", "10.1.1.20/24"),
        "d": ("--pool front --address 10.1.1.200", "10.1.1.200/24"),
        "e": ("--address 10.1.1.250", "10.1.1.250/24"),
    }
    for name, (flags, address) in given.items():
        assert f": {address}" in shell.type(f"netctl endpoint create {name} --network web {flags}")
    assert sets(shell) == {
        "used": "10.1.1.10, 10.1.1.13, 10.1.1.20, 10.1.1.200, 10.1.1.250",
        "reserved": "10.1.1.0-10.1.1.1, 10.1.1.255",
        "excluded": "10.1.1.11-10.1.1.12",
        "pooled": "10.1.1.21-10.1.1.29",
        "on_request": "10.1.1.2-10.1.1.9, 10.1.1.100-10.1.1.199, 10.1.1.201-10.1.1.249, 10.1.1.251-10.1.1.254",
        "free": "10.1.1.14-10.1.1.19, 10.1.1.30-10.1.1.99",
    }
    table = shell.type("netctl ipam show web")
    assert "free        76     10.1.1.14-10.1.1.19, 10.1.1.30-10.1.1.99" in table
    refused = {
        "netctl endpoint create f --network web --address 10.1.1.11": "address-excluded",
        "netctl endpoint create f --network web --pool back": "unknown-pool",
        "netctl endpoint create f --network web --pool front --address 10.1.1.30": "address-outside-pool",
        "netctl network set web --exclude 10.1.1.13": "exclusion-in-use: 10.1.1.13 cannot be excluded: b of network",
        "netctl ipam pool create back --network web --range 10.1.1.29-10.1.1.30": "pool-overlaps",
        "netctl ipam pool delete front --network web": "pool-in-use: pool front still has endpoints (c, d)",
        "netctl ipam show db": "unknown-network",
    }
    for line, code in refused.items():
        assert code in shell.type(line, REFUSED)
    shell.type("netctl network set web --exclude none --range none")
    assert ": 10.1.1.2/24" in shell.type("netctl endpoint create g --network web")
    assert shell.show("ipam pool list")[0]["status"]["endpoints"] == 2
    shell.type("netctl endpoint delete c")
    shell.type("netctl endpoint delete d")
    assert "pool default/web/front deleted" in shell.type("netctl ipam pool delete front --network web")


def test_all_agree(attached: Shell) -> None:
    said = attached.type("netctl ipam check")
    assert "2 endpoint(s) on 1 host(s) compared, 0 away: 0 difference(s)" in said
    assert checked(attached, "", 0)["is_clean"] is True


def test_an_address_that_was_taken_away_by_hand_is_named_and_given_back(attached: Shell) -> None:
    attached.type("ip -n c1 address delete 10.1.1.1/24 dev eth0")
    attached.type("ip -n c2 address add 10.1.1.77/24 dev eth0")
    assert kinds(attached, REFUSED) == [("address-without-endpoint", "e2"), ("endpoint-without-address", "e1")]
    found = checked(attached, "--repair", REFUSED)
    assert [(each["kind"], each["name"], each["done"]) for each in found["mended"]] == [
        ("endpoint-without-address", "e1", "host h1 looked again")
    ]
    assert [each["detail"] for each in found["differences"]] == [
        "eth0 in netns:c2 has 10.1.1.77/24 besides, which the journal gives to nobody there"
    ]
    assert "10.1.1.1/24" in attached.type("ip -n c1 address show dev eth0")
    attached.type("ip -n c2 address delete 10.1.1.77/24 dev eth0")
    assert kinds(attached, 0) == []


def test_another_mac_is_named_and_put_right(attached: Shell) -> None:
    attached.type("ip -n c1 link set eth0 address 02:00:00:00:00:99")
    assert kinds(attached, REFUSED) == [("other-mac", "e1")]
    assert "mended: other-mac" in attached.type("netctl ipam check --repair")
    assert kinds(attached, 0) == []


def test_a_port_that_was_removed_by_hand_is_back_when_it_is_looked_at(attached: Shell) -> None:
    device = attached.show("endpoint show e1")["status"]["device"]
    attached.type(f"ip link delete {device}")
    assert kinds(attached, 0) == []
    assert "10.1.1.1/24" in attached.type("ip -n c1 address show dev eth0")


def test_a_host_that_does_not_answer_is_said(attached: Shell, host: Host) -> None:
    pid = host.pid("host")
    os.kill(pid, signal.SIGSTOP)
    try:
        said = attached.type("netctl ipam check", UNREACHABLE)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "it does not answer: its 2 endpoint(s) were not compared" in said
    assert "2 endpoint(s) on 1 host(s) compared, 1 away: 1 difference(s)" in said
    host.until_answering()
