"""What `netplugin init` prepares: who gets which keys, and what it refuses."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from services import cluster, netplugin
from services.nats_server import NatsServer
from services.runtime import config, identity

THREE = {"a": "10.0.0.1", "b": "10.0.0.2", "c": "10.0.0.3"}


def test_each_server_has_the_shared_seeds_and_its_own_hosts_and_no_others(tmp_path: Path) -> None:
    cluster.prepare(tmp_path, THREE, ["d"])
    assert {file.name for file in (tmp_path / "b/keys").glob("*.nk")} == {
        "operator.nk",
        "viewer.nk",
        "daemon.nk",
        "ipam.nk",
        "host-b.nk",
    }
    assert {file.name for file in (tmp_path / "d/keys").iterdir()} == {"host-d.nk"}
    assert not list(tmp_path.glob("[abcd]/**/ca.key"))


def test_secrets_are_for_their_owner_alone(tmp_path: Path) -> None:
    cluster.prepare(tmp_path, THREE, ["d"])
    secret = [*tmp_path.glob("**/*.nk"), *tmp_path.glob("**/*.key")]
    assert {stat.S_IMODE(file.stat().st_mode) for file in secret} == {0o600}
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in (*THREE, "d", "authority")} == {0o700}


def test_every_server_knows_the_same_users(tmp_path: Path) -> None:
    cluster.prepare(tmp_path, THREE, ["d"])
    read = [cluster.read(tmp_path / name) for name in THREE]
    users = [member.users for member in read if member]
    assert users[0] == users[1] == users[2]
    assert set(users[0]) == {"operator", "viewer", "daemon", "ipam", "host-a", "host-b", "host-c", "host-d"}
    assert identity.principals(tmp_path / "a/keys") == {key: user for user, key in users[0].items()}


def test_called_again_it_adds_and_keeps(tmp_path: Path) -> None:
    first = cluster.prepare(tmp_path, THREE)
    ca = (tmp_path / "a/tls/ca.pem").read_bytes()
    second = cluster.prepare(tmp_path, {"d": "10.0.0.4"})
    assert second.servers == {**THREE, "d": "10.0.0.4"}
    assert first.users.items() <= second.users.items()
    assert (tmp_path / "d/tls/ca.pem").read_bytes() == ca


def test_clients_ask_their_own_server_first_and_then_the_others_in_turn(tmp_path: Path) -> None:
    cluster.prepare(tmp_path, THREE)
    assert NatsServer(tmp_path / "b", tmp_path / "run", "b").urls == (
        "tls://10.0.0.2:4222",
        "tls://10.0.0.3:4222",
        "tls://10.0.0.1:4222",
    )


@pytest.mark.parametrize(("count", "replicas"), [(1, 1), (2, 2), (3, 3), (5, 3)])
def test_a_stream_is_kept_by_three_servers_at_most(tmp_path: Path, count: int, replicas: int) -> None:
    assert cluster.prepare(tmp_path, {f"s{n}": f"10.0.0.{n}" for n in range(1, count + 1)}).replicas == replicas


def test_a_state_directory_says_whose_it_is(tmp_path: Path) -> None:
    cluster.prepare(tmp_path, THREE, ["d"])
    assert config.load({"state_dir": str(tmp_path / "a")}, {}, {}, cluster.remembered).host == "a"
    host = config.load({"state_dir": str(tmp_path / "d")}, {}, {}, cluster.remembered)
    assert (host.host, host.actors) == ("d", ("host",))
    assert sorted((host.nats or "").split(",")) == [f"tls://{address}:4222" for address in THREE.values()]
    assert (host.creds, host.ca) == (tmp_path / "d/keys/host-d.nk", tmp_path / "d/tls/ca.pem")


def test_hosts_without_a_server_spread_over_the_servers(tmp_path: Path) -> None:
    cluster.prepare(tmp_path, THREE, hosts := [f"h{number}" for number in range(6)])
    found = [config.load({"state_dir": str(tmp_path / name)}, {}, {}, cluster.remembered) for name in hosts]
    assert {(each.nats or "").split(",")[0] for each in found} == {f"tls://{ip}:4222" for ip in THREE.values()}


def test_a_server_that_is_named_wins_over_the_state_directory(tmp_path: Path) -> None:
    cluster.prepare(tmp_path, THREE, ["d"])
    told = {"state_dir": str(tmp_path / "d"), "nats": "nats://10.9.9.9:4222"}
    found = config.load(told, {}, {}, cluster.remembered)
    assert (found.nats, found.creds, found.ca) == ("nats://10.9.9.9:4222", None, None)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--server", "a"], "NAME=ADDRESS"),
        (["--server", "a=nowhere"], "'nowhere' is no IP address"),
        (["--server", "A b=10.0.0.1"], "server name"),
        (["--server", "a=10.0.0.1", "--server", "b=10.0.0.1"], "one address"),
        (["--server", "a=10.0.0.1", "--server", "a=10.0.0.2"], "named twice"),
        (["--server", "authority=10.0.0.1"], "choose another name"),
    ],
)
def test_what_cannot_be_a_cluster_is_refused_before_anything_is_made(
    tmp_path: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert netplugin.run(["init", str(tmp_path / "new"), *arguments]) == 2
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_init_says_what_it_made_and_that_two_servers_are_not_better_than_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert netplugin.run(["init", str(tmp_path), "--server", "a=10.0.0.1", "--server", "b=10.0.0.2"]) == 0
    output = capsys.readouterr().out
    assert f"{tmp_path / 'a'}: server a at 10.0.0.1" in output
    assert "commands stop while either is away" in output


def test_a_state_directory_of_another_server_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.prepare(tmp_path, THREE)
    own = ["--state-dir", str(tmp_path / "a"), "--run-dir", str(tmp_path / "run"), "--actors", "ipam"]
    assert netplugin.run([*own, "--host", "b"]) == 2
    assert "--host a" in capsys.readouterr().err


def test_a_cluster_file_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cluster.json").write_text("{}")
    assert netplugin.run(["--state-dir", str(tmp_path), "--run-dir", str(tmp_path / "run")]) == 2
    assert "netplugin init" in capsys.readouterr().err
