"""Parts of a cluster die while packets flow between two of its hosts: what its users see. Actors and switches."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from services.open_vswitch import DATABASE, SWITCH
from tests.harness.daemon import wait_for_end
from tests.harness.lab import Lab, until
from tests.harness.lab_scene import ADDRESSES, Scene, scene
from tests.requires import needs_ovs

pytestmark = [needs_ovs, pytest.mark.long]

GAP_MAX_S = 15.0  # 0.3 s and 0.8 s where nothing else runs; it is printed


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


def kill(*victims: tuple[str, str]) -> Callable[[Lab], None]:
    """Kills these programs (host, name), all at once, and waits until all are back."""

    def act(lab: Lab) -> None:
        pids = {(host, program): lab[host].pid(program) for host, program in victims}
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
        for (host, program), pid in pids.items():
            lab[host].until_back(program, than=pid)

    return act


def crash_daemons(*hosts: str) -> Callable[[Lab], None]:
    """Kills these daemons, and with each its actors and its server; starts them again."""

    def act(lab: Lab) -> None:
        for host in hosts:
            pid = lab[host].pid("daemon")
            os.kill(pid, signal.SIGKILL)
            wait_for_end(pid)
        lab.command("start", *hosts)

    return act


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(kill(("h4", "host")), marks=pytest.mark.long),
        pytest.param(kill(("h1", "ipam")), marks=pytest.mark.long),
        kill(*((f"h{n}", "ipam") for n in (1, 2)), *((f"h{n}", "host") for n in (1, 2, 3, 4))),
        crash_daemons("h1", "h2", "h3", "h4"),
    ],
    ids=["host actor", "ipam", "every actor", "every daemon and server"],
)
def test_no_packet_is_lost_while_it_is_killed_and_comes_back(world: Scene, act: Callable[[Lab], None]) -> None:
    before = world.everything()
    with world.traffic() as (pings, stream):
        act(world.lab)
        world.lab.until_well()
    assert pings.lost == []
    assert stream.is_whole
    assert world.everything() == before


def test_commands_in_flight_are_answered_or_safely_repeated(world: Scene) -> None:
    host, names = world.lab["h3"], [f"n{number}" for number in range(6)]
    loop = "; ".join(f"until netctl network create {name} --tag {900 + i}; do :; done" for i, name in enumerate(names))
    command = subprocess.Popen(
        host.words(loop), env=host.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with command:
        for victim in ("h1", "h2"):
            kill((victim, "ipam"))(world.lab)
        said, _ = command.communicate(timeout=120)
    made = [row for row in host.show("network list") if row["name"] in names]
    assert [row["status"]["tag"] for row in made] == [900 + i for i in range(6)], said
    for name in names:
        host.type(f"netctl network delete {name}")


@pytest.mark.parametrize("program", [SWITCH, DATABASE])
def test_a_switch_that_is_killed_forwards_again_with_all_it_had(world: Scene, program: str) -> None:
    host, before = world.lab["h4"], world.everything()
    with world.traffic("far", "near") as (across, stream), world.pinging("near", "next") as within:
        pid = host.kill(program)
        host.until_back(program, than=pid)
        for source, sink in (("far", "near"), ("near", "next")):
            world.until_answered(source, ADDRESSES[sink])
        world.lab.until_well()
        for pings in (across, within):  # both have lost some, and wait for them: side by side
            pings._stopping.set()
    print(json.dumps({"killed": program, "gap_s": [across.longest_gap_s, within.longest_gap_s]}))
    assert stream.is_whole
    assert max(across.longest_gap_s, within.longest_gap_s) < GAP_MAX_S
    until(lambda: world.everything() == before, "all is as it was")


REMOVALS = {
    "every flow": "ovs-ofctl -O OpenFlow14 del-flows vlanBr",
    "every group": "ovs-ofctl -O OpenFlow14 del-groups vlanBr",
    "the tunnel": "ovs-vsctl del-port np-vxlan",
    "a port": "ovs-vsctl del-port {near}",
    "a link": "ip link delete {near}",
    "the bridge": "ovs-vsctl del-br vlanBr",
}


@pytest.mark.parametrize("what", REMOVALS)
def test_what_somebody_removes_by_hand_is_put_back(world: Scene, what: str) -> None:
    host = world.lab["h4"]
    device = host.show("endpoint show near")["status"]["device"]
    since, began_s = len(host.plan.log_file.read_text().splitlines()), time.monotonic()
    host.type(REMOVALS[what].format(near=device))
    until(lambda: any(fact["event"] == "put-back" for fact in host.log(since)), f"{what} is said to be put back")
    print(f"{what}: put back within {time.monotonic() - began_s:.2f} s")
    world.until_forwarding()
    world.lab.until_well()
