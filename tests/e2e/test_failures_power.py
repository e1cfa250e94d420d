"""A host of a cluster loses everything but its keys, and is again what the journal says."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.open_vswitch import DATABASE, SWITCH
from tests.harness.daemon import wait_for_end
from tests.harness.lab import Host, until
from tests.harness.lab_scene import Scene, scene
from tests.requires import needs_ovs

pytestmark = [pytest.mark.long, needs_ovs]

ENDPOINTS = 100
REBUILT_MAX_S = 60.0  # 2 s where nothing else runs; it is printed


@pytest.fixture(scope="module")
def world() -> Iterator[Scene]:
    with scene() as made:
        yield made


def bound_on(host: Host) -> int:
    """How many endpoints have their port on the host, as it says itself."""
    said = host.ended(f"netctl host ports {host.name} -o json")
    return len(json.loads(said.stdout)) if said.returncode == 0 else 0


def lose_everything(host: Host) -> None:
    """Its processes, the switch's database and what its actor knew are gone; containers and links to them stay."""
    for program in ("daemon", SWITCH, DATABASE):
        pid = host.pid(program)
        os.kill(pid, signal.SIGKILL)
        wait_for_end(pid)
    for folder in ("ovs", "host"):
        shutil.rmtree(Path(host.plan.state_dir) / folder)


def test_a_host_that_lost_everything_is_rebuilt_from_the_journal(world: Scene) -> None:
    lab, host = world.lab, world.lab["h4"]
    names = [f"e{number}" for number in range(ENDPOINTS)]
    host.type(f"for name in {' '.join(names)}; do ip netns add $name; done")
    endpoints = {name: f"netns:{name}@h4" for name in names}
    intent = {"tenants": {"big": {"networks": {"web": {"encap": "vxlan", "endpoints": endpoints}}}}}
    (lab.directory / "intent.json").write_text(json.dumps(intent))
    host.type(f"netctl apply -f {lab.directory}/intent.json --yes")
    wanted = ENDPOINTS + 2  # with those of the scene
    until(lambda: bound_on(host) == wanted, f"{wanted} ports", within_s=120)
    before, others = host.flows(), lab["h1"].flows()
    lose_everything(host)
    began_s = time.monotonic()
    lab.command("start", "h4")
    ready_s = time.monotonic() - began_s
    until(lambda: bound_on(host) == wanted, f"{wanted} ports again", within_s=120)
    rebuilt_s = time.monotonic() - began_s
    print(json.dumps({"endpoints": wanted, "ready_s": round(ready_s, 2), "rebuilt_s": round(rebuilt_s, 2)}))
    assert rebuilt_s < REBUILT_MAX_S
    world.until_forwarding()
    until(lambda: len(host.flows()) == len(before), "as many flows as before")
    assert lab["h1"].flows() == others
    (lab.directory / "intent.json").unlink()
    lab.until_well()
