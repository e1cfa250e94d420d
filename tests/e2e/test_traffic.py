"""Packets between endpoints while parts of the product are killed, and what is put back when somebody removes it."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from services.open_vswitch import DATABASE, SWITCH
from tests.harness import daemon
from tests.harness.daemon import Host
from tests.harness.netns import NetworkNamespace, network_namespace
from tests.harness.traffic import Pinging, Streaming
from tests.harness.typed import Shell
from tests.requires import needs_ovs

pytestmark = needs_ovs

REPAIRED_WITHIN_S = 15.0  # 0.1 s where the machine has time
SWITCH_GAP_MAX_S = 15.0  # 0.3 s on an idle machine, most of it the start of ovs-vswitchd
MACHINES = ("c1", "c2")


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="np") as folder, daemon.host(Path(folder)) as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def shell(host: Host) -> Shell:
    return Shell(host)


@pytest.fixture(autouse=True, scope="module")
def ends(shell: Shell) -> Iterator[tuple[NetworkNamespace, NetworkNamespace]]:
    """Two containers on one network, 12.0.0.1 and 12.0.0.2, and an endpoint that waits for a third."""
    with network_namespace("c1") as first, network_namespace("c2") as second:
        shell.type("netctl network create web --subnet 12.0.0.0/24")
        for number in (1, 2):
            shell.type(f"netctl endpoint create e{number} --network web --container netns:c{number}")
        shell.type("netctl endpoint create e3 --network web --container later")
        yield first, second


def everything(shell: Shell) -> dict[str, Any]:
    """All that a person can ask for, and the ports as the switch has them."""
    return {
        **{noun: shell.show(f"{noun} list -A") for noun in ("network", "endpoint")},
        "tenant": shell.show("tenant list"),
        "ports": shell.show("host ports"),
        "switch": sorted(re.findall(r"Port (\S+)\n(?: +tag: (\d+))?", shell.type("ovs-vsctl show"))),
        "journal": [event["seq"] for event in shell.events()],
    }


def flows(shell: Shell) -> list[str]:
    """What the switch forwards by, without what changes with every packet."""
    said = shell.type("ovs-ofctl -O OpenFlow14 --no-stats --no-names dump-flows vlanBr")
    return sorted(line.strip() for line in said.splitlines() if "actions=" in line)


def kill(*children: str) -> Callable[[Host], None]:
    def kill_and_wait(host: Host) -> None:
        for child in children:
            host.kill(child)
            host.until_back(child)
        host.until_answering()

    return kill_and_wait


def crash(host: Host) -> None:
    host.crash()
    host.start()


def stop(host: Host) -> None:
    host.stop()
    host.start()


@pytest.mark.parametrize(
    "act",
    [kill("ipam"), kill("host"), kill("nats-server"), kill("nats-server", "ipam", "host"), crash, stop],
    ids=["ipam", "host", "nats-server", "one after the other", "the daemon and all", "stopped and started"],
)
def test_no_reply_is_lost_while_it_is_killed_and_comes_back(
    host: Host, shell: Shell, ends: tuple[NetworkNamespace, NetworkNamespace], act: Callable[[Host], None]
) -> None:
    before, rules = everything(shell), flows(shell)
    with Pinging(ends[0], "12.0.0.2") as pings, Streaming(ends[0], ends[1], "12.0.0.2") as stream:
        act(host)
        after = everything(shell)
    assert pings.lost == []
    assert stream.is_whole
    assert after == before
    assert flows(shell) == rules


def test_a_command_after_a_kill_of_everything_is_applied(host: Host, shell: Shell) -> None:
    with network_namespace("c4") as fourth:
        crash(host)
        said = shell.type("netctl endpoint create e4 --network web --container netns:c4")
        assert "bound to netns:c4 (eth0)" in said
        with Pinging(fourth, "12.0.0.1") as pings:
            shell.type("netctl endpoint delete e3")
            shell.type("netctl endpoint create e3 --network web --container later")
        assert pings.lost == []
        shell.type("netctl endpoint delete e4")


REMOVALS = {
    "its row in the switch": "ovs-vsctl del-port vlanBr {device}",
    "its link": "ip link delete {device}",
    "one flow of it": "ovs-ofctl -O OpenFlow14 del-flows vlanBr in_port={device}",
    "every flow": "ovs-ofctl -O OpenFlow14 del-flows vlanBr",
    "the container's end": "ip -n c1 link delete eth0",
    "the bridge": "ovs-vsctl del-br vlanBr",
}


@pytest.mark.parametrize("what", REMOVALS)
def test_what_somebody_removes_is_put_back_within_a_second_and_said(
    host: Host, shell: Shell, ends: tuple[NetworkNamespace, NetworkNamespace], what: str
) -> None:
    device = shell.show("endpoint show e1")["status"]["device"]
    rules = flows(shell)
    since, began_s = len(host.log), time.time()
    shell.type(REMOVALS[what].format(device=device))
    fact = host.until_logged(put_back("e1"), since)
    took_s = datetime.fromisoformat(fact["timestamp"]).timestamp() - began_s
    assert took_s < REPAIRED_WITHIN_S, fact
    with Pinging(ends[1], "12.0.0.1") as pings:
        pass
    assert pings.lost == [], "it was said before it forwarded"
    assert [mask_ports(flow) for flow in flows(shell)] == [mask_ports(flow) for flow in rules]
    assert shell.show("endpoint show e1")["status"]["state"] == "bound"


def put_back(name: str) -> Callable[[dict[str, Any]], bool]:
    """Whether a fact of the log says that this endpoint's port was put back."""
    return lambda fact: (fact["event"], fact.get("name")) == ("put-back", name)


def mask_ports(flow: str) -> str:
    """A flow without the numbers of ports: a port that was made anew has another."""
    return re.sub(r"(in_port=|output:|->reg\d+|reg\d+=)\S*", r"\1", flow)


def test_a_switch_that_is_killed_is_filled_again(
    host: Host, shell: Shell, ends: tuple[NetworkNamespace, NetworkNamespace], record_property: Callable[..., None]
) -> None:
    before, rules = everything(shell), flows(shell)
    with Pinging(ends[0], "12.0.0.2") as pings, Streaming(ends[0], ends[1], "12.0.0.2") as stream:
        killed_at = len(pings.sent_at_s)
        host.kill(SWITCH)
        host.until_back(SWITCH)
        host.until_logged(lambda fact: fact["event"] == "switch-here", host._killed_at_line)
        answered = len(pings.answered_at_s)
        while len(pings.answered_at_s) == answered:
            everything(shell)
    assert stream.is_whole
    assert killed_at < len(pings.sent_at_s)
    record_property("gap_s", pings.longest_gap_s)
    print(json.dumps({"gap_s": pings.longest_gap_s, "lost": len(pings.lost), "stream_gap_s": stream.longest_gap_s}))
    assert pings.longest_gap_s < SWITCH_GAP_MAX_S
    assert everything(shell) == before
    assert flows(shell) == rules


def test_a_host_that_comes_back_from_a_power_cut_has_its_ports_again(
    host: Host, shell: Shell, ends: tuple[NetworkNamespace, NetworkNamespace]
) -> None:
    before, rules = everything(shell), flows(shell)
    devices = [each["status"]["device"] for each in before["endpoint"] if each["status"]["device"]]
    host.crash()
    for program in (SWITCH, DATABASE):
        host.kill(program)
    shutil.rmtree(host.state_dir / "ovs")
    for device in devices:
        shell.type(f"ip link delete {device}")
    since = len(host.log)
    host.start()
    for name in ("e1", "e2"):
        host.until_logged(put_back(name), since)
    with Pinging(ends[0], "12.0.0.2") as pings:
        after = everything(shell)
    assert pings.lost == []
    assert after == before
    assert [mask_ports(flow) for flow in flows(shell)] == [mask_ports(flow) for flow in rules]
