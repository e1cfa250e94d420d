"""nats-servers of a cluster fail, or are out of reach, while packets flow: what its users see."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.harness.lab import Host, Lab, until
from tests.harness.lab_scene import Scene, scene
from tests.requires import needs_ovs

pytestmark = [needs_ovs, pytest.mark.long]

GOES_ON_WITHIN_S = 30.0  # netctl's own patience; it is printed, and is 0.3 s unless the server led the journal
CUT = """table inet cut {
  chain incoming { type filter hook input priority 0; iifname != "lo" tcp dport { 4222, 6222 } drop; }
  chain outgoing { type filter hook output priority 0; oifname != "lo" tcp dport { 4222, 6222 } drop; }
}"""


@pytest.fixture(scope="module")
def world() -> Iterator[Scene]:
    with scene() as made:
        yield made


@pytest.fixture(autouse=True)
def shows_logs(world: Scene, request: pytest.FixtureRequest) -> Iterator[None]:
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        print(world.lab.logs())


@contextmanager
def paused(lab: Lab, host: str) -> Iterator[None]:
    pid = lab[host].pid("nats-server")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def killed(lab: Lab, host: str) -> Iterator[None]:
    pid = lab[host].kill("nats-server")
    yield
    lab[host].until_back("nats-server", than=pid)


@contextmanager
def cut_off(lab: Lab, host: str) -> Iterator[None]:
    """Nothing of the bus leaves the host nor comes to it; packets of endpoints do."""
    lab[host].type(f"nft '{CUT}'")
    try:
        yield
    finally:
        lab[host].type("nft delete table inet cut")


@contextmanager
def away(lab: Lab) -> Iterator[None]:
    """No nats-server runs, and none is started again meanwhile."""
    daemons = [lab[host].pid("daemon") for host in ("h1", "h2", "h3")]
    for pid in daemons:
        os.kill(pid, signal.SIGSTOP)
    try:
        for host in ("h1", "h2", "h3"):
            pid = lab[host].pid("nats-server")
            os.kill(pid, signal.SIGKILL)
        yield
    finally:
        for pid in daemons:
            os.kill(pid, signal.SIGCONT)


def ports_of(host: Host) -> set[str]:
    """The endpoints that have a port on the host; none while it does not answer."""
    said = host.ended(f"netctl host ports {host.name} -o json")
    return {port["name"] for port in json.loads(said.stdout)} if said.returncode == 0 else set()


Fault = Callable[[Lab, str], AbstractContextManager[None]]
OTHERS: list[tuple[Fault, str]] = [(killed, "h2"), (killed, "h3"), (paused, "h1"), (paused, "h2"), (cut_off, "h3")]


@pytest.mark.parametrize(
    ("fault", "host"),
    [
        (killed, "h1"),
        (paused, "h3"),
        (cut_off, "h1"),
        *(pytest.param(fault, host, marks=pytest.mark.long) for fault, host in OTHERS),
    ],
)
def test_commands_go_on_without_one_server_of_three(world: Scene, fault: Fault, host: str) -> None:
    lab, name = world.lab, f"{fault.__name__.replace('_', '-')}-{host}"
    with world.traffic() as (pings, stream):
        with fault(lab, host):
            began_s = time.monotonic()
            for number in range(3):
                lab["h2"].type(f"netctl network create {name}-{number}")
            took_s = time.monotonic() - began_s
        lab.until_well()
        for asked in lab.hosts:
            known = {row["name"] for row in asked.show("network list")}
            assert {f"{name}-{number}" for number in range(3)} <= known, asked.name
    print(json.dumps({"fault": name, "commands_s": round(took_s, 2)}))
    assert took_s < 3 * GOES_ON_WITHIN_S
    assert (pings.lost, stream.is_whole) == ([], True)
    for number in range(3):
        lab["h2"].type(f"netctl network delete {name}-{number}")


@pytest.mark.long
def test_without_any_server_traffic_goes_on_commands_say_why_and_all_catches_up(world: Scene) -> None:
    lab, before = world.lab, world.everything()
    with world.traffic() as (pings, stream):
        with away(lab):
            until(lambda: lab["h2"].ended("netctl network create nobody --timeout 1s").returncode == 3, "it is refused")
            began_s = time.monotonic()
            said = lab["h2"].type("netctl network create nobody", status=3)
            print(json.dumps({"said": said, "after_s": round(time.monotonic() - began_s, 2)}))
            assert "cannot reach nats-server" in said
            sent = len(pings.sent_at_s)
            until(lambda: len(pings.sent_at_s) > sent + 1000, "ten seconds of traffic")
        lab.until_well()
        lab["h2"].type("netctl network create somebody")
    assert (pings.lost, stream.is_whole) == ([], True)
    lab["h2"].type("netctl network delete somebody")
    assert world.everything() == before


@pytest.mark.long
def test_a_host_cut_off_from_the_bus_forwards_and_takes_over_the_difference(world: Scene) -> None:
    lab, host = world.lab, world.lab["h4"]
    kept = host.show("host ports h4")
    late = host.make_container("late")
    with world.traffic() as (pings, stream):
        with cut_off(lab, "h4"):
            sent = len(pings.sent_at_s)
            create = "netctl endpoint create late --network web --address 10.7.0.9 --host h4 --container netns:late"
            lab["h1"].type(f"{create} --wait accepted")
            lab["h1"].type("netctl endpoint delete next --wait accepted")
            host.type("netctl network list --timeout 3s", status=3)
            until(lambda: len(pings.sent_at_s) > sent + 1000, "ten seconds of traffic")
            assert "late" not in host.type("ip netns exec late ip -br link")
        until(lambda: ports_of(host) == {"near", "late"}, "the difference is applied")
        world.until_answered("far", "10.7.0.9")
        lab.until_well()
    assert (pings.lost, stream.is_whole) == ([], True)
    assert late.run("busybox", "ping", "-c", "1", "-W", "5", "10.7.0.1").returncode == 0
    after = {port["name"]: port for port in host.show("host ports h4")}
    assert [after["near"]] == [port for port in kept if port["name"] == "near"]
    world.detach("late", host)
    host.type("netctl endpoint create next --network web --address 10.7.0.3 --container netns:next")
    world.until_forwarding()


def test_nobody_changes_anything_for_a_host_actor_that_is_away(world: Scene) -> None:
    lab, before = world.lab, world.everything()
    with world.traffic() as (pings, stream):
        lab.command("stop", "h4")
        until(lambda: "does not answer" in lab["h1"].ended("netctl status").stdout, "netctl status says so")
        assert lab["h1"].ended("netctl status").returncode == 1
        assert lab["h1"].show("endpoint list -A") == before["endpoint"]
        assert lab["h1"].flows() == before["flows"]["h1"]
        lab.command("start", "h4")
    assert (pings.lost, stream.is_whole) == ([], True)
    lab.until_well()
    assert world.everything() == before
