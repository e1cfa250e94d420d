"""The daemon with the capabilities that compose.yaml gives it, and no others: containers come and reach each other."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from services.open_vswitch import OpenVSwitch
from tests.harness.daemon import Host
from tests.harness.netns import network_namespace
from tests.requires import needs_ovs, needs_tool

pytestmark = [needs_ovs, needs_tool("setpriv")]

COMPOSE = Path(__file__).resolve().parents[2] / "compose.yaml"


class Bounded(Host):
    """A host whose daemon has only the capabilities of the service `host`."""

    def command(self, *flags: str) -> tuple[str, ...]:
        wanted = yaml.safe_load(COMPOSE.read_text())["services"]["host"]["cap_add"]
        bounds = ",".join(["-all", *(f"+{name.lower()}" for name in wanted)])
        program = super().command(*flags)
        enter = self.namespace.command()
        return (*enter, "setpriv", f"--bounding-set={bounds}", "--inh-caps=-all", *program[len(enter) :])


@pytest.fixture
def host(short_path: Path) -> Iterator[Host]:
    with network_namespace("h1") as namespace:
        made = Bounded(namespace, short_path / "h1")
        try:
            yield made
        finally:
            made.end()


@contextmanager
def process_with_a_network_of_its_own() -> Iterator[subprocess.Popen[bytes]]:
    """A process with all rights, in a network namespace that has no name."""
    made = subprocess.Popen(("unshare", "--net", "sh", "-c", "echo; exec cat"), stdin=-1, stdout=-1)
    try:
        assert made.stdout is not None
        made.stdout.readline()
        yield made
    finally:
        made.communicate()


def test_a_named_namespace_and_a_process_are_attached_and_reach_each_other(host: Host) -> None:
    switch = OpenVSwitch(host.state_dir, host.run_dir)  # as the host's own: with all rights, and before
    host.namespace.call(lambda: asyncio.run(switch.start()))
    host.start()
    status = Path(f"/proc/{host.pid('host')}/status").read_text()
    assert "CapEff:\t000001ffffffffff" not in status
    host.netctl("network", "create", "web", "--subnet", "10.1.0.0/24")
    with network_namespace("c1") as named, process_with_a_network_of_its_own() as process:
        host.netctl("endpoint", "create", "e1", "--network", "web", "--container", "netns:c1")
        host.netctl("endpoint", "create", "e2", "--network", "web", "--container", f"pid:{process.pid}")
        assert host.netctl("status").returncode == 0
        named.run("busybox", "ping", "-c", "1", "-W", "5", "10.1.0.2")
        host.netctl("endpoint", "delete", "e1", "--network", "web")
    assert not any("permission" in line.lower() for line in host.log), host.log
