"""The walk of the README as it stands there: every line of its code blocks, in order, on a host with Docker."""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.demo.engine import Engine
from tests.harness import daemon
from tests.harness.daemon import Host
from tests.harness.dockerd import running_engine
from tests.harness.typed import Following, Shell
from tests.requires import needs_docker, needs_ovs, needs_tool

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
DAEMON = "netplugin"
GOES_ON = "netctl events watch --since 0"

# What a line shows of which the README says that it is shown.
SHOWN = {
    'netdcli -oper create -construct endpoint -net-id tenant1-net1 -tag 12 -ip-address="11.1.1.1" tenant1-net1-ep1': (
        "11.1.1.1/24"
    ),
    "netdcli -oper attach -construct endpoint -container-id myContainer1 tenant1-net1-ep1": "bound to myContainer1",
    "netdcli -oper create -construct endpoint -net-id tenant1-net1 -cont-id myContainer2 tenant1-net1-ep2": (
        "11.1.1.2/24, bound to myContainer2"
    ),
    "docker exec myContainer1 ping -c 2 11.1.1.2": "2 packets received",
    "ovs-vsctl show": "tag: 12",
    "ip link show": " np",
    "netctl endpoint list -o json": '"web1"',
}


def lines_of(section: str) -> list[str]:
    """The lines of the code blocks (indented by four) under a heading."""
    text = re.split(r"^## ", README, flags=re.MULTILINE)
    found = next(part for part in text if part.startswith(f"{section}\n"))
    return [line.strip() for line in found.splitlines() if line.startswith("    ")]


@pytest.fixture
def engine() -> Iterator[Engine]:
    with running_engine() as running:
        yield running


@pytest.fixture
def host(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    for name, value in engine.environment.items():
        monkeypatch.setenv(name, value)
    with tempfile.TemporaryDirectory(prefix="np") as folder, daemon.host(Path(folder)) as made:
        yield made


@needs_ovs
@needs_docker
def test_the_walk_works_as_it_stands(host: Host) -> None:
    lines = lines_of("The walk")
    assert lines[0] == DAEMON
    assert set(SHOWN) <= set(lines)
    host.start()
    shell = Shell(host)
    for line in lines[1:]:
        if line == GOES_ON:
            watching = shell.start(line + " -o jsonl")
            following = Following(watching)
            following.until(lambda event: event["type"] == "endpoint-bound" and event["name"] == "web1")
            watching.terminate()
            watching.wait()
            following.close()
        else:
            assert SHOWN.get(line, "") in shell.type(line)


@needs_tool("make")
def test_the_commands_of_the_readme_are_targets() -> None:
    for line in lines_of("Two commands"):
        words = shlex.split(line, comments=True)
        assert words[0] == "make"
        subprocess.run([*words, "--dry-run"], cwd=ROOT, check=True, capture_output=True)
