"""Machines that join a cluster of three servers with a token, and those that may not."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cli.server import Server
from services.cli.wire import Rejected, Wire
from services.runtime import identity, join_token
from tests.harness.cluster_daemons import Daemons, Machine, running_daemons
from tests.harness.nats import RunningNats
from tests.requires import needs_isolation, needs_ovs

MACHINE_ID = "0123456789abcdef0123456789abcde"  # and one digit more for each machine


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemons]:
    with running_daemons(tmp_path_factory.mktemp("c")) as running:
        yield running


def token_of(daemons: Daemons, *flags: str) -> str:
    return daemons["n1"].netctl("host", "token", *flags).stdout.strip()


def join(machine: Machine, token: str, *flags: str, digit: str = "0") -> subprocess.CompletedProcess[str]:
    """What `netplugin join` says on this machine."""
    file = machine.state_dir.parent / f"machine-id-{digit}"
    file.write_text(f"{MACHINE_ID}{digit}\n")
    own = ("--host", machine.name, "--state-dir", str(machine.state_dir), "--machine-id-file", str(file))
    return machine.run(
        *machine.program("services.netplugin"), "join", "--token", token, *own, *flags, check=False, timeout_s=90
    )


def refused(done: subprocess.CompletedProcess[str], code: str, status: int = 1) -> None:
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert code in done.stderr
    assert "Traceback" not in done.stderr


def hosts(machine: Machine) -> dict[str, str]:
    views = json.loads(machine.netctl("host", "list", "-o", "json").stdout)
    return {view["name"]: view["status"]["state"] for view in views}


def addresses(machine: Machine) -> dict[str, list[str]]:
    views = json.loads(machine.netctl("endpoint", "list", "-o", "json").stdout)
    return {view["name"]: view["status"]["addresses"] for view in views}


def as_host(daemons: Daemons, server: str, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What netctl says at one server, with the key of the host of that name."""
    state_dir = daemons.directory / f"joined-{name}"
    environment = {"NETPLUGIN_CA": str(state_dir / "tls/ca.pem"), "NETPLUGIN_RUN_DIR": "/nowhere"}
    address = {"n1": "127.0.0.21", "n2": "127.0.0.22", "n3": "127.0.0.23"}[server]
    where = ("--server", f"tls://{address}:4222", "--creds", str(state_dir / f"keys/host-{name}.nk"))
    program = daemons[server].program("services.cli.netctl")
    return daemons[server].run(*program, *arguments, *where, "--timeout", "20s", check=False, environment=environment)


@needs_ovs
@needs_isolation
def test_a_machine_joins_with_a_token_and_plain_netplugin_then_runs_its_host(daemons: Daemons) -> None:
    machine = daemons.machine("d1")
    done = join(machine, token_of(daemons))
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert hosts(daemons["n2"])["d1"] == "admitted"
    machine.actors = "host"
    assert machine.start()["host"] == "d1"
    assert hosts(daemons["n1"])["d1"] == "joined"
    assert machine.netctl("host", "show", "d1").returncode == 0
    machine.stop()
    # away for good: what was on it is detached, keeps its addresses, and only then it can be removed
    operator = daemons["n2"]
    operator.netctl("network", "create", "web")
    for name in ("e1", "e2"):
        where = ("--container", f"netns:{name}", "--host", "d1", "--wait", "accepted")
        operator.netctl("endpoint", "create", name, "--network", "web", *where)
    before = addresses(operator)
    refused(operator.netctl("host", "remove", "d1", check=False), "host-in-use")
    assert "2 endpoint(s) detached" in operator.netctl("host", "drain", "d1").stdout
    assert addresses(operator) == before
    assert "0 endpoint(s) detached" in operator.netctl("host", "drain", "d1").stdout
    operator.netctl("host", "remove", "d1")
    refused(operator.netctl("host", "drain", "d1", check=False), "unknown-host")
    assert "d1" not in hosts(operator)


def test_every_server_lets_a_joined_host_in_and_it_speaks_for_itself_alone(daemons: Daemons) -> None:
    assert join(daemons.machine("d2"), token_of(daemons)).returncode == 0
    for server in ("n1", "n2", "n3"):
        assert as_host(daemons, server, "d2", "host", "list").returncode == 0
    for command in (
        ("network", "create", "web"),
        ("host", "remove", "d2"),
        ("host", "token"),
        ("endpoint", "delete", "e", "--network", "web"),
    ):
        done = as_host(daemons, "n2", "d2", *command)
        assert done.returncode == 1
        assert "permission" in done.stderr.lower() or "refused" in done.stderr, done.stderr


def test_a_joined_host_reports_on_no_other(daemons: Daemons) -> None:
    assert join(daemons.machine("d7"), token_of(daemons)).returncode == 0
    state_dir = daemons["d7"].state_dir
    server = Server(
        urls=("tls://127.0.0.22:4222",),
        source="the test",
        seed_file=str(state_dir / "keys/host-d7.nk"),
        ca=str(state_dir / "tls/ca.pem"),
        inbox_prefix=identity.inbox_prefix("host-d7"),
    )

    def is_let(subject: str) -> bool:
        wire = Wire(server, "test")
        wire.connect(time.monotonic() + 20)
        try:
            wire.publish(subject, b"\x80")
            wire.subscribe(f"{server.inbox_prefix}.x")  # the server has read it when it has read this
        except Rejected:
            return False
        finally:
            wire.close()
        return True

    def let(*subjects: str) -> list[str]:
        return daemons.namespace.call(lambda: [subject for subject in subjects if is_let(subject)])

    own = ("np.v1.port.d7.acme.e1", "np.v1.cmd.fabric.host.join")
    others = ("np.v1.port.n1.acme.e1", "np.v1.evt.acme.port.n1.port-bound", "np.v1.evt.fabric.host.host-joined")
    commands = ("np.v1.cmd.acme.endpoint.detach", "np.v1.cmd.fabric.host.remove", "np.v1.svc.fabric.host.join")
    assert let(*own, *others, *commands) == list(own)


def test_a_token_lasts_a_minute_at_least(daemons: Daemons) -> None:
    done = daemons["n1"].netctl("host", "token", "--ttl", "5s", check=False)
    refused(done, "expected 60 to", status=2)


def test_a_server_that_was_away_learns_who_joined(daemons: Daemons) -> None:
    daemons["n3"].stop()
    assert join(daemons.machine("d3"), token_of(daemons)).returncode == 0
    daemons["n3"].start()
    daemons["n3"].until_logged(lambda fact: fact.get("event") == "users-changed" and "d3" in fact.get("hosts", ()))
    assert as_host(daemons, "n3", "d3", "host", "list").returncode == 0
    daemons["n3"].stop()
    daemons["n3"].start()  # and knows it from its own disk now
    assert as_host(daemons, "n3", "d3", "host", "list").returncode == 0


def test_a_token_lets_one_host_in_and_the_same_one_again(daemons: Daemons) -> None:
    token = token_of(daemons)
    machine = daemons.machine("d4")
    assert join(machine, token).returncode == 0
    assert join(machine, token).returncode == 0
    refused(join(daemons.machine("d5"), token, digit="5"), "token-used")


def test_a_name_belongs_to_its_machine_until_that_host_is_removed(daemons: Daemons) -> None:
    machine = daemons.machine("d6")
    assert join(machine, token_of(daemons), digit="6").returncode == 0
    (machine.state_dir / "keys/host-d6.nk").unlink()
    refused(join(machine, token_of(daemons), digit="7"), "host-name-taken")
    assert join(machine, token_of(daemons), digit="6").returncode == 0  # the same machine, set up anew
    assert daemons["n1"].netctl("host", "remove", "d6").returncode == 0
    daemons["n2"].until_logged(lambda fact: fact.get("event") == "users-changed" and "d6" not in fact.get("hosts", ()))
    assert join(machine, token_of(daemons), digit="7").returncode == 0


def test_a_removed_host_is_let_in_nowhere(daemons: Daemons) -> None:
    assert join(daemons.machine("d8"), token_of(daemons)).returncode == 0
    lines = {name: len(daemons[name].log) for name in ("n1", "n2", "n3")}
    assert daemons["n1"].netctl("host", "remove", "d8").returncode == 0
    for server, since in lines.items():
        daemons[server].until_logged(
            lambda fact: fact.get("event") == "users-changed" and "d8" not in fact["hosts"], since
        )
        done = as_host(daemons, server, "d8", "host", "list")
        assert done.returncode == 3
        assert "does not let us in" in done.stderr


@pytest.mark.parametrize("token", ["", "nonsense", "np1-", "np1-@@@", "np1-kA", "np1-" + "A" * 20_000])
def test_a_token_that_is_none_is_wrong_usage_and_changes_nothing(daemons: Daemons, token: str) -> None:
    machine = daemons.machine("d9")
    refused(join(machine, token), "token", status=2)
    assert not machine.state_dir.exists()


@pytest.mark.parametrize("name", ["../../evil", "A Host", "", "h" * 64])
def test_a_name_that_is_none_is_wrong_usage_and_changes_nothing(daemons: Daemons, name: str) -> None:
    machine = daemons.machine("d9")
    refused(join(machine, token_of(daemons), "--host", name), "host name", status=2)
    assert not machine.state_dir.exists()


def test_what_is_no_machine_id_is_wrong_usage(daemons: Daemons, tmp_path: Path) -> None:
    for content, says in (("", "is empty"), ("no id", "machine id 'no id'")):
        (tmp_path / "id").write_text(content)
        done = join(daemons.machine("d9"), token_of(daemons), "--machine-id-file", str(tmp_path / "id"))
        refused(done, says, status=2)
    refused(
        join(daemons.machine("d9"), token_of(daemons), "--machine-id-file", str(tmp_path / "none")),
        "No such file",
        status=2,
    )


def test_a_token_of_another_authority_reaches_nobody(daemons: Daemons, tmp_path: Path) -> None:
    from services import cluster

    cluster.prepare(tmp_path, {"n1": "127.0.0.21"})
    token = join_token.parse(token_of(daemons))
    other = join_token.to_text(token.seed, token.urls, (tmp_path / "authority/ca.pem").read_text())
    refused(join(daemons.machine("d9"), other), "certificate verify failed", status=3)


def test_a_token_that_nobody_made_is_unknown(daemons: Daemons) -> None:
    from services.nats_keys import new_seed

    token = join_token.parse(token_of(daemons))
    other = join_token.to_text(new_seed().decode(), token.urls, token.ca)
    refused(join(daemons.machine("d9"), other), "token-unknown")


def test_nobody_there_is_said_with_every_address(daemons: Daemons) -> None:
    token = join_token.parse(token_of(daemons))
    other = join_token.to_text(token.seed, ("tls://127.0.0.77:4222", "tls://127.0.0.78:4222"), token.ca)
    done = join(daemons.machine("d9"), other)
    refused(done, "127.0.0.77:4222", status=3)
    assert "127.0.0.78:4222" in done.stderr


def test_a_token_of_a_server_on_loopback_cannot_be_made(nats_server: RunningNats, tmp_path: Path) -> None:
    client = {"url": nats_server.url, "host": "h", "nkey_seed_file": str(nats_server.seed_file("operator"))}
    (tmp_path / "client.json").write_text(json.dumps(client))
    done = subprocess.run(
        [*Machine.program("services.cli.netctl"), "host", "token"],
        env={**os.environ, "NETPLUGIN_RUN_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "does not speak TLS" in done.stderr
