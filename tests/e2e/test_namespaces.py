"""Containers that are no Docker's: named network namespaces and processes, as they come and go."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import daemon
from tests.harness.daemon import Host
from tests.harness.typed import InsideProcess, Shell
from tests.requires import needs_ovs

pytestmark = needs_ovs

SOON_S = 30.0


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="np") as folder, daemon.host(Path(folder)) as made:
        made.start()
        yield made


@pytest.fixture
def shell(host: Host) -> Iterator[Shell]:
    shell = Shell(host)
    shell.type("netctl network create web --subnet 12.0.0.0/24")
    yield shell
    for endpoint in shell.show("endpoint list"):
        shell.type(f"netctl endpoint delete {endpoint['name']}")
    shell.type("netctl network delete web")


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a network namespace of its own that has no name; it ends when told."""
    command = ("unshare", "--net", "sh", "-c", "echo there; exec cat")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"there\n"
        yield started
        started.kill()


def assert_nothing_is_left(shell: Shell) -> None:
    assert " np" not in shell.type("ip link show")
    assert " np" not in shell.type("ovs-vsctl show")


def test_a_namespace_that_goes_takes_its_port_along_and_has_it_again_when_it_comes(shell: Shell) -> None:
    shell.type("ip netns add c1")
    shell.type("netctl endpoint create e1 --network web --container netns:c1")
    with shell.following() as journal:
        began_s = time.monotonic()
        shell.type("ip netns delete c1")
        journal.until(lambda event: event["type"] in {"port-waiting", "port-failed"})
        assert time.monotonic() - began_s < SOON_S
        assert_nothing_is_left(shell)
        shell.type("ip netns add c1")
        journal.until_port("bound", "e1")
    assert "12.0.0.1/24" in shell.type("ip -n c1 address show dev eth0")
    shell.type("netctl endpoint delete e1")
    shell.type("ip netns delete c1")


def test_a_process_that_ends_takes_its_port_along(shell: Shell, process: subprocess.Popen[bytes]) -> None:
    shell.type(f"netctl endpoint create e1 --network web --container pid:{process.pid}")
    inside = InsideProcess(process.pid)
    assert "12.0.0.1/24" in inside.run("ip", "address", "show", "dev", "eth0").stdout
    with shell.following() as journal:
        began_s = time.monotonic()
        process.kill()
        journal.until(lambda event: event["type"] in {"port-waiting", "port-failed"})
        assert time.monotonic() - began_s < SOON_S
    assert_nothing_is_left(shell)


def test_an_endpoint_moves_from_one_container_to_another(shell: Shell, process: subprocess.Popen[bytes]) -> None:
    shell.type("ip netns add c2")
    shell.type("netctl endpoint create e1 --network web --container netns:c2")
    shell.type("netctl endpoint detach e1")
    shell.type(f"netctl endpoint attach e1 --container pid:{process.pid}")
    assert "12.0.0.1/24" in InsideProcess(process.pid).run("ip", "address", "show", "dev", "eth0").stdout
    assert "eth0" not in shell.type("ip -n c2 link show")
    shell.type("ip netns delete c2")
