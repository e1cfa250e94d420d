"""Prometheus at a real daemon: what is told, what rises, and what is told while something is away."""

from __future__ import annotations

import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import daemon
from tests.harness.daemon import Host
from tests.harness.exposition import parse
from tests.requires import needs_ovs

pytestmark = needs_ovs

URL = "http://127.0.0.1:9464/metrics"
WITHIN_S = 10
Figures = dict[tuple[str, str], float]


@pytest.fixture
def host(short_path: Path) -> Iterator[Host]:
    with daemon.host(short_path, "h1", "ipam,host", "--metrics", "9464") as made:
        yield made


def scrape(host: Host, url: str = URL) -> Figures:
    def read() -> str:
        with urllib.request.urlopen(url, timeout=WITHIN_S) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            text: str = answer.read().decode()
            return text

    return parse(host.namespace.call(read))


def scrape_until(host: Host, is_so: Callable[[Figures], bool]) -> Figures:
    """The first figures that are so; a scrape asks all that tells any, so it takes its time by itself."""
    figures: Figures = {}
    for _ in range(2000):
        figures = scrape(host)
        if is_so(figures):
            return figures
    raise AssertionError(f"it never was so: {figures}")


def test_figures_rise_with_what_is_done(host: Host) -> None:
    host.start()
    before = scrape(host)
    assert before["np_actor_up", 'actor="ipam"'] == before["np_actor_up", 'actor="host"'] == 1
    host.netctl("network", "create", "web", "--subnet", "10.1.0.0/24")
    again = host.netctl("network", "create", "web", "--subnet", "10.2.0.0/24", check=False)
    assert again.returncode == 1
    after = scrape(host)
    created = 'actor="ipam",command="network.create",outcome="accepted"'
    assert after["np_commands_total", created] == 1
    assert after["np_refusals_total", 'actor="ipam",code="network-exists"'] == 1
    assert after["np_command_seconds_count", 'actor="ipam",command="network.create"'] == 2
    assert after["np_append_seconds_count", 'actor="ipam"'] > before["np_append_seconds_count", 'actor="ipam"']
    assert after["np_journal_last_seq", 'actor="ipam"'] > before["np_journal_last_seq", 'actor="ipam"']
    assert after["np_journal_followed_seq", 'actor="ipam"'] <= after["np_journal_last_seq", 'actor="ipam"']
    assert after["np_switch_up", 'actor="host"'] == 1
    assert after["np_flows", 'actor="host",table="classify"'] >= 0
    for actor in ("ipam", "host", "daemon"):
        assert after["process_resident_memory_bytes", f'actor="{actor}"'] > 1 << 20
    assert after["np_program_resident_memory_bytes", 'actor="daemon",program="ovs-vswitchd"'] > 1 << 20
    assert after["np_child_starts_total", 'actor="daemon",program="ipam"'] == 1


def test_a_port_and_its_repair_are_counted(host: Host) -> None:
    host.start()
    pid = subprocess.Popen(host.namespace.command("unshare", "--net", "cat"), stdin=subprocess.PIPE)
    try:
        host.netctl("network", "create", "web")
        host.netctl("endpoint", "create", "web1", "--network", "web", "--container", f"pid:{pid.pid}")
        figures = scrape_until(host, lambda found: found["np_ports", 'actor="host",state="bound"'] == 1)
        assert figures["np_flows", 'actor="host",table="source"'] > 0
        assert figures["np_operations_total", 'actor="host",operation="ensure-port",outcome="done"'] >= 1
        assert figures["np_bundles_total", 'actor="host"'] >= 1
        host.run("ovs-ofctl", "-O", "OpenFlow15", "del-flows", f"unix:{host.run_dir}/ovs/vlanBr.mgmt")
        figures = scrape_until(host, lambda found: ("np_repairs_total", 'actor="host",part="rules"') in found)
        assert figures["np_reconcile_passes_total", 'actor="host"'] >= 2
    finally:
        pid.communicate()


def test_what_is_away_is_seen_and_the_rest_is_told(host: Host) -> None:
    host.start()
    host.kill("ovsdb-server")
    figures = scrape_until(host, lambda found: found["np_switch_up", 'actor="host"'] == 1)
    assert figures["np_actor_up", 'actor="ipam"'] == 1
    stopped = host.pid("ipam")
    try:
        os.kill(stopped, signal.SIGSTOP)
        figures = scrape(host)
        assert (figures["np_actor_up", 'actor="ipam"'], figures["np_actor_up", 'actor="host"']) == (0, 1)
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert scrape_until(host, lambda found: found["np_actor_up", 'actor="ipam"'] == 1)
    host.kill("nats-server")
    host.until_back("nats-server")
    reconnected = ("np_bus_reconnections_total", 'actor="ipam"')
    assert scrape_until(host, lambda found: found.get(reconnected, 0) == 1)


def test_there_is_nothing_else_at_that_address(host: Host) -> None:
    host.start()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        scrape(host, "http://127.0.0.1:9464/")


def test_an_address_that_is_taken_is_refused_by_name(host: Host) -> None:
    host.start()
    other = Host(host.namespace, host.state_dir.parent / "other", "ipam", "--metrics", "9464")
    refused = subprocess.run(other.command(), capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode == 2
    assert "--metrics 127.0.0.1:9464" in refused.stderr
