"""Whole intents on a real nats-server and ipam actor, by the command line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from messages import subjects
from messages.host import JoinHost
from services.cli import netctl, netdcli
from services.cli.client import Client
from services.cli.server import find_server
from services.runtime import identity
from tests.harness.ipam import ipam_process
from tests.harness.nats import RunningNats, running_nats

README = Path(__file__).resolve().parents[2] / "README.md"
WITHIN_S = 30.0
GIVEN = README.parents[1] / "shared" / "seed" / "intents"
WHOLE = """\
tenants:
  acme:
    subnet_pool: 10.1.0.0/16
    networks:
      web: {subnet: 10.1.1.0/24, gateway: 10.1.1.254, endpoints: {web1: c1@h1, web2: }}
      db: {encap: vxlan, endpoints: {"db[1-3]": {host: h2, container: "d[1-3]"}}}
  beta:
    networks: {web: 10.1.1.0/24}
"""


class Lines:
    """`netctl` in this process."""

    def __init__(self, server: RunningNats) -> None:
        creds = str(server.seed_file(identity.OPERATOR))
        self._where = ["--server", server.url, "--creds", creds]
        self._netdcli = ["-server", server.url, "-creds", creds, "-wait", "accepted"]
        self.client = Client(find_server(server.url, creds, None), 30.0)

    def __call__(self, *arguments: str, status: int = 0, stdin: str = "") -> str:
        return self._run(netctl.run, [*arguments, *self._where], status, stdin)

    def netdcli(self, *arguments: str, status: int = 0, stdin: str = "") -> str:
        return self._run(netdcli.run, [*arguments, *self._netdcli], status, stdin)

    @contextlib.contextmanager
    def started(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[str]]:
        """`netctl` as a process of its own."""
        command = [sys.executable, "-m", "services.cli.netctl", *arguments, *self._where]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=stdin, stdout=pipe, stderr=pipe, text=True) as process:
            yield process

    def _run(self, run: Callable[[Sequence[str]], int], arguments: Sequence[str], status: int, stdin: str) -> str:
        out, err = io.StringIO(), io.StringIO()
        before, sys.stdin = sys.stdin, io.StringIO(stdin)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                ended = run(arguments)
        finally:
            sys.stdin = before
        assert ended == status, f"{arguments}: {ended}\n{out.getvalue()}{err.getvalue()}"
        return out.getvalue() if status == 0 else out.getvalue() + err.getvalue()


@contextlib.contextmanager
def system(server: RunningNats) -> Iterator[Lines]:
    """An ipam actor, two members, and command lines that talk to it."""
    with ipam_process(server):
        made = Lines(server)
        for host in ("h1", "h2"):
            made.client.command(JoinHost(tenant="fabric", host=host, driver="ovs", datapath="netdev", version="0"))
        yield made
        made.client.close()


@pytest.fixture
def lines(nats_server: RunningNats) -> Iterator[Lines]:
    with system(nats_server) as made:
        yield made


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Lines]:
    """Another system, with nothing in it."""
    with running_nats(tmp_path / "other") as server, system(server) as made:
        yield made


def test_a_file_is_shown_done_and_then_true(lines: Lines, tmp_path: Path) -> None:
    file = tmp_path / "intent.yaml"
    file.write_text(WHOLE)
    plan = lines("apply", "-f", str(file), "--dry-run")
    assert "+ network acme/web: subnet 10.1.1.0/24, gateway 10.1.1.254" in plan
    assert plan.endswith("would be: 10 to add, 0 to change, 0 to remove\n")
    assert lines("network", "list", "-A", "-o", "name") == ""
    assert "+ tenant acme" in lines("diff", "-f", str(file), status=1)

    said = lines("apply", "-f", str(file), "--wait", "accepted")
    assert said.endswith("done: 10 to add, 0 to change, 0 to remove\n")
    assert all(", seq " in line for line in said.splitlines()[:-1])
    endpoints = json.loads(lines("endpoint", "list", "-t", "acme", "-o", "json"))
    assert [(each["name"], each["status"]["host"], each["status"]["container"]) for each in endpoints] == [
        ("db1", "h2", "d1"),
        ("db2", "h2", "d2"),
        ("db3", "h2", "d3"),
        ("web1", "h1", "c1"),
        ("web2", "", ""),
    ]
    assert lines("diff", "-f", str(file)) == ""
    assert lines("apply", "-f", str(file), "--wait", "accepted") == "done: 0 to add, 0 to change, 0 to remove\n"


def test_what_is_accepted_is_waited_for(lines: Lines, tmp_path: Path) -> None:
    """Nobody reports here: no host runs."""
    file = tmp_path / "intent.yaml"
    file.write_text("networks: {web: {endpoints: {a: c1@h1, b: }}}")
    said = lines("apply", "-f", str(file), "--timeout", "1s", status=4)
    assert "default/web/a was not reported within 1 s; all stays accepted" in said


def test_the_readme_s_file(lines: Lines) -> None:
    text = README.read_text().partition("## All of it in one file")[2].partition("## ")[0]
    file = "".join(line for line in text.splitlines(keepends=True) if line.startswith("    ") and "netctl" not in line)
    said = lines("apply", "-f", "-", "--wait", "accepted", stdin=textwrap.dedent(file))
    assert said.endswith("done: 115 to add, 0 to change, 0 to remove\n")


def test_all_or_nothing(lines: Lines) -> None:
    wrong = "tenants: {acme: {subnet_pool: 10.1.0.0/24, networks: {a: , b: }}}"
    said = lines("apply", "-f", "-", stdin=wrong, status=1)
    assert "refused: pool-exhausted: tenant acme: change 3 of 3 (create-network acme/b)" in said
    assert "acme" not in lines("tenant", "list", "-o", "name")


def test_changes_and_pruning(lines: Lines, tmp_path: Path) -> None:
    file = tmp_path / "intent.yaml"
    file.write_text(WHOLE)
    lines("apply", "-f", str(file), "--wait", "accepted")
    other = """\
tenants:
  acme:
    networks:
      web: {endpoints: {web1: c1@h2, web2: {address: 10.1.1.9}, web3: c3@h1}}
"""
    assert lines("diff", "-f", "-", stdin=other, status=1).splitlines() == [
        "~ endpoint acme/web/web1: c1 on h1 -> c1 on h2",
        "~ endpoint acme/web/web2: address 10.1.1.2 -> 10.1.1.9 (made anew)",
        "+ endpoint acme/web/web3: c3 on h1",
    ]
    said = lines("apply", "-f", "-", "--prune", stdin=other, status=1)
    assert "- network acme/db: vxlan 10000, 10.1.0.0/24" in said
    assert "4 removals need consent, and nobody can be asked here: give --yes" in said
    said = lines("apply", "-f", "-", "--prune", "--yes", "--wait", "accepted", stdin=other)
    assert said.endswith("done: 1 to add, 2 to change, 4 to remove\n")
    assert lines("endpoint", "list", "-A", "-o", "name").split() == ["web1", "web2", "web3"]
    assert lines("network", "list", "-A", "-o", "name").split() == ["web", "web"], "of a tenant that is not named too"


def test_what_cannot_be_changed_stands_in_the_way(lines: Lines) -> None:
    lines("apply", "-f", "-", stdin="networks: {web: 10.1.1.0/24}")
    said = lines("apply", "-f", "-", stdin="networks: {web: 10.2.1.0/24, db: }", status=1)
    assert "refused: network default/web: subnet 10.1.1.0/24 -> 10.2.1.0/24" in said
    assert "nothing was done" in said
    assert lines("network", "list", "-o", "name").split() == ["web"]


def test_a_thousand_endpoints(lines: Lines) -> None:
    many = "tenants: {acme: {networks: {web: {subnet: 10.1.0.0/16, endpoints: 1000}}}}"
    said = lines("apply", "-f", "-", "--wait", "accepted", stdin=many)
    assert said.endswith("done: 1002 to add, 0 to change, 0 to remove\n")
    assert len(lines("endpoint", "list", "-t", "acme", "-o", "name").split()) == 1000


def test_an_export_applies_to_nothing_and_makes_the_same_elsewhere(lines: Lines, other: Lines) -> None:
    lines("apply", "-f", "-", "--wait", "accepted", stdin=WHOLE)
    ranged = "networks: {web: {subnet: 10.1.1.10-10.1.1.20/24, pools: {vip: 10.1.1.30}, endpoints: {a: {pool: vip}}}}"
    lines("apply", "-f", "-", stdin=ranged)
    lines("network", "create", "adopting", "--subnet", "none")
    lines("endpoint", "create", "x", "--network", "adopting", "--address", "10.7.7.7", "--tag", "77")
    text = lines("export")
    assert "web1: {address: 10.1.1.1, mac: " in text
    assert lines("diff", "-f", "-", "--prune", stdin=text) == ""
    other("apply", "-f", "-", "--wait", "accepted", stdin=text)
    assert other("export") == text
    assert other("diff", "-f", "-", "--prune", stdin=lines("export", "-o", "json")) == ""
    assert list(json.loads(lines("export", "-t", "beta", "-o", "json"))["tenants"]) == ["beta"]
    assert "unknown-tenant" in lines("export", "-t", "nobody", status=1)


def test_endpoints_are_attached_late_from_a_file(lines: Lines) -> None:
    lines("apply", "-f", "-", stdin="networks: {web: {endpoints: 3}, db: {endpoints: [web-3, d]}}")
    where = ["endpoint", "attach", "-f", "-", "--wait", "accepted"]
    said = lines(*where, stdin="{web-1: c1@h1, web-2: {container: c2, host: h2}, web/web-3: c3@h2}")
    assert said.splitlines()[0].startswith("~ endpoint default/web/web-1: not attached -> c1 on h1, seq ")
    assert lines(*where, stdin="web-1: c1@h1") == ""
    wrong = "{web-1: c1@h2, web-3: c3@h1, nobody: c@h1, d: c@h9}"
    said = lines(*where, stdin=wrong, status=1)
    assert said.splitlines() == [
        "netctl: refused: endpoint default/web/web-1 is c1 on h1: detach it first, or move it (--move)",
        "refused: endpoint web-3 is in more than one network: expected one of db/web-3, web/web-3",
        "refused: endpoint nobody is not there: create it first",
        "refused: endpoint d: host h9 is not a member: expected one of h1, h2",
        "nothing was done",
    ]
    assert "c1 on h1 -> c1 on h2, seq " in lines(*where, "--move", stdin="web-1: c1@h2")
    assert "standard input: d: expected a place such as c1@h1" in lines(*where, stdin="d: ", status=2)


LEGACY = """\
{"Tenants": [{"Name": "acme", "DefaultNetType": "vxlan", "SubnetPool": "10.1.0.0/16", "Vxlans": "10001-10009",
\t"Networks": [{"Name": "red", "Endpoints": [{"Container": "cA", "Host": "h1"}, {"Container": "cB"}]}]}]}
"""


def test_netdcli_and_the_intents_of_2015(lines: Lines, tmp_path: Path) -> None:
    file = tmp_path / "intent.json"
    file.write_text(LEGACY)
    said = lines.netdcli("-cfg", str(file))
    assert said.endswith("done: 4 to add, 0 to change, 0 to remove\n")
    shown = json.loads(lines("endpoint", "list", "-t", "acme", "-o", "json"))
    assert [(each["name"], each["status"]["addresses"], each["status"]["tag"]) for each in shown] == [
        ("red-cA", ["10.1.0.1/24"], 10001),
        ("red-cB", ["10.1.0.2/24"], 10001),
    ]
    assert lines.netdcli("-cfg", str(file)) == "done: 0 to add, 0 to change, 0 to remove\n"
    bind = '[{"Container": "cB", "Host": "h2"}]'
    assert "not attached -> cB on h2" in lines.netdcli("--host-bindings-cfg", "-", stdin=bind)
    one = LEGACY.replace('{"Container": "cA", "Host": "h1"}, ', "")
    assert "- endpoint acme/red/red-cB" in lines.netdcli("-del-cfg=-", stdin=one)
    assert "+ endpoint acme/red/red-cB" in lines.netdcli("-add-cfg", "-", stdin=one)
    assert "- endpoint acme/red/red-cA" in lines.netdcli("-cfg", "-", stdin=one)
    assert "flag -oper is not for -cfg" in lines.netdcli("-oper", "create", "-cfg", "-", status=2)


@pytest.mark.skipif(not GIVEN.is_dir(), reason="the original's own files are not beside this checkout")
def test_the_original_s_own_files_come_up(lines: Lines) -> None:
    for host in ("host1", "host2"):
        lines.client.command(JoinHost(tenant="fabric", host=host, driver="ovs", datapath="netdev", version="0"))
    for name, count in (("one_host_vlan", 2), ("two_host_vxlan", 4), ("two_hosts_multiple_tenants", 4)):
        lines.netdcli("-cfg", str(GIVEN / f"{name}.json"))
        shown = json.loads(lines("endpoint", "list", "-A", "-o", "json"))
        assert len(shown) == count
        assert all(each["status"]["host"] in ("host1", "host2") for each in shown)
        for tenant in {each["tenant"] for each in shown}:
            lines("apply", "-f", "-", "--prune", "--yes", stdin=f"tenants: {{{tenant}: }}")
            lines("tenant", "delete", tenant)


def test_an_apply_that_was_killed_is_finished_by_the_next(lines: Lines, tmp_path: Path) -> None:
    file = tmp_path / "many.yaml"
    file.write_text("tenants: {acme: {networks: {web: {subnet: 10.1.0.0/16, endpoints: 6000}}}}")
    with lines.started("apply", "-f", str(file)) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline().startswith("+ tenant acme")
        killed.kill()
    before = len(lines("endpoint", "list", "-t", "acme", "-o", "name").split())
    said = lines("apply", "-f", str(file)).splitlines()[-1]
    done, added, *rest = said.split(maxsplit=2)
    assert (done, rest) == ("done:", ["to add, 0 to change, 0 to remove"])
    assert int(added) <= 6000 - before  # what the killed one had sent may have been recorded after the list
    assert len(lines("endpoint", "list", "-t", "acme", "-o", "name").split()) == 6000
    assert lines("diff", "-f", str(file)) == ""


def test_an_ipam_actor_that_is_killed_meanwhile(nats_server: RunningNats, tmp_path: Path) -> None:
    file = tmp_path / "many.yaml"
    file.write_text("tenants: {acme: {networks: {web: {subnet: 10.1.0.0/16, endpoints: 5000}}}}")
    with ipam_process(nats_server) as ipam:
        lines = Lines(nats_server)
        lines.client.follow(subjects.network_event("acme", "web", "*", "*"))
        with lines.started("apply", "-f", str(file)) as applying:
            assert lines.client.next_message(time.monotonic() + WITHIN_S) is not None
            ipam.end(signal.SIGKILL)
            ipam.start()
            ipam.wait_for("actor-ready", 2)
            said, fault = applying.communicate(timeout=60)
        if applying.returncode:  # it asked in the moment when nobody was there
            assert "no ipam actor is running" in fault
            said = lines("apply", "-f", str(file))
        assert said.endswith(" to add, 0 to change, 0 to remove\n")
        endpoints = json.loads(lines("endpoint", "list", "-t", "acme", "-o", "json"))
        assert len(endpoints) == len({each["status"]["addresses"][0] for each in endpoints}) == 5000
        lines.client.close()


def test_removal_is_asked_for_on_a_terminal(lines: Lines, tmp_path: Path) -> None:
    lines("apply", "-f", "-", stdin="networks: {web: , db: }")
    file = tmp_path / "web.yaml"
    file.write_text("networks: {web: }")
    for answer, status in (("n", 1), ("", 1), ("y", 0)):
        keyboard, terminal = os.openpty()
        with lines.started("apply", "-f", str(file), "--prune", stdin=terminal) as asking:
            os.write(keyboard, f"{answer}\n".encode())
            _, fault = asking.communicate(timeout=60)
        os.close(keyboard)
        os.close(terminal)
        assert asking.returncode == status
        assert fault.startswith("- network default/db: vlan 2, 11.0.1.0/24\nremove these 1? [y/N] ")
    assert lines("network", "list", "-o", "name").split() == ["web"]
