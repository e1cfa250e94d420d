"""Three daemons, each with a nats-server and an ipam copy: what their users see when one of them is away."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.harness.cluster_daemons import Daemons, Machine, running_daemons

pytestmark = pytest.mark.long

ASKED_AT_MOST = 200  # each time takes a tenth of a second at least


@pytest.fixture
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemons]:
    with running_daemons(tmp_path_factory.mktemp("c")) as running:
        yield running


def servers(machine: Machine) -> dict[str, dict[str, Any]]:
    """What `netctl status` says of the servers that keep the journal, by name."""
    checks = json.loads(machine.netctl("status", "-o", "json", check=False).stdout)["checks"]
    return {check["name"]: check for check in checks if check["what"] == "server"}


def until(machine: Machine, is_so: Callable[[dict[str, dict[str, Any]]], bool]) -> dict[str, dict[str, Any]]:
    """What `servers` gives, once it is so."""
    found: dict[str, dict[str, Any]] = {}
    for _ in range(ASKED_AT_MOST):
        found = servers(machine)
        if is_so(found):
            return found
    raise AssertionError(found)


def test_with_one_machine_away_the_others_serve_and_say_so(daemons: Daemons) -> None:
    daemons["n1"].netctl("network", "create", "before")
    daemons["n3"].crash()
    for name in ("n1", "n2"):
        daemons[name].netctl("network", "create", f"at-{name}")
    found = until(daemons["n1"], lambda said: said.get("n3", {}).get("facts", "").startswith("away"))
    assert found["n3"]["state"] == "bad"
    assert "start `netplugin` on it: 2 of 3 servers keep the journal, commands go on" in found["n3"]["advice"]
    daemons["n3"].start()
    until(daemons["n1"], lambda said: said.get("n3", {}).get("state") == "ok")
    names = {view["name"] for view in json.loads(daemons["n3"].netctl("network", "list", "-o", "json").stdout)}
    assert names == {"before", "at-n1", "at-n2"}


def test_all_machines_killed_and_started_again_know_all_that_was_acknowledged(daemons: Daemons) -> None:
    names = [f"web{number}" for number in range(5)]
    for name in names:
        daemons["n1"].netctl("network", "create", name)
    for machine in daemons.machines.values():
        machine.crash()
    done = daemons["n1"].netctl("network", "list", "--timeout", "2s", check=False)
    assert done.returncode == 3
    assert all(f"127.0.0.2{number}:4222: Connection refused" in done.stderr for number in (1, 2, 3)), done.stderr
    daemons.start()
    views = json.loads(daemons["n3"].netctl("network", "list", "-o", "json").stdout)
    assert [view["name"] for view in views] == names


def test_a_machine_that_is_stopped_hands_on_and_its_own_command_line_asks_the_others(daemons: Daemons) -> None:
    leader = next(name for name, check in servers(daemons["n1"]).items() if check["facts"] == "leads the journal")
    daemons[leader].kill("ipam")
    daemons[leader].until_back("ipam")
    daemons[leader].stop()
    other = next(name for name in daemons.machines if name != leader)
    daemons[other].netctl("network", "create", "after")
    view = json.loads(daemons[leader].netctl("network", "create", "after", "-o", "json").stdout)
    assert (view["name"], view["is_changed"]) == ("after", False)
    daemons[leader].start()
