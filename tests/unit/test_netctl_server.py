"""Which server is meant: flags, then the environment, then a context, then what the daemon wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.cli import netctl, server
from services.cli.exits import DONE, FAILED, UNREACHABLE, USAGE, Ended

VARIABLES = ("NETPLUGIN_NATS_URL", "NETPLUGIN_CREDS", "NETPLUGIN_CONTEXT", "NETPLUGIN_HOST")


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("NETPLUGIN_RUN_DIR", str(tmp_path))
    return tmp_path


def write_client_file(folder: Path, **fields: str) -> None:
    (folder / "client.json").write_text(json.dumps(fields))


def test_the_daemon_s_file_is_the_default(folder: Path) -> None:
    write_client_file(
        folder, url="nats://127.0.0.1:4333", nkey_seed_file="/k/operator.nk", host="h7", monitor="http://m"
    )
    found = server.find_server()
    assert (found.urls, found.seed_file, found.host) == (("nats://127.0.0.1:4333",), "/k/operator.nk", "h7")
    assert (found.inbox_prefix, found.monitor) == ("_INBOX.operator", "http://m")
    assert server.local_host(found) == "h7"


def test_the_environment_wins_over_the_daemon_s_file_and_a_flag_over_both(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_client_file(folder, url="nats://127.0.0.1:4333", nkey_seed_file="/k/operator.nk")
    monkeypatch.setenv("NETPLUGIN_NATS_URL", "nats://a:1, nats://b:2")
    monkeypatch.setenv("NETPLUGIN_CREDS", "/c/viewer.nk")
    found = server.find_server()
    assert (found.urls, found.seed_file) == (("nats://a:1", "nats://b:2"), "/c/viewer.nk")
    found = server.find_server("c:3", "/c/me.creds")
    assert (found.urls, found.creds_file) == (("nats://c:3",), "/c/me.creds")


def test_the_daemon_s_own_url_comes_with_its_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_client_file(folder, url="nats://127.0.0.1:4333", nkey_seed_file="/k/operator.nk")
    monkeypatch.setenv("NETPLUGIN_NATS_URL", "nats://127.0.0.1:4333")
    assert server.find_server().seed_file == "/k/operator.nk"


def test_the_host_that_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETPLUGIN_HOST", "h9")
    assert server.local_host(None) == "h9"
    monkeypatch.delenv("NETPLUGIN_HOST")
    assert server.local_host(None) == server.local_host(None).lower()


def test_a_context_is_made_chosen_shown_and_forgotten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = ["context", "create", "lab", "--server", "nats://lab:4222", "--nkey", "/k/lab.nk", "-t", "acme", "--select"]
    assert netctl.run(made) == DONE
    found = server.find_server()
    assert (found.urls, found.seed_file, found.tenant) == (("nats://lab:4222",), "/k/lab.nk", "acme")
    capsys.readouterr()
    assert netctl.run(["context", "list", "-o", "json"]) == DONE
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)] == ["lab"]
    assert netctl.run(["context", "show", "-o", "name"]) == DONE
    assert capsys.readouterr().out == "lab\n"
    assert netctl.run(["context", "delete", "lab"]) == DONE
    assert server.selected_context() is None
    assert netctl.run(["context", "delete", "lab"]) == FAILED
    assert netctl.run(["context", "show"]) == FAILED


def test_a_context_of_the_nats_command_can_be_used(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = folder / "config" / "nats" / "context"
    theirs.mkdir(parents=True)
    (theirs / "prod.json").write_text(json.dumps({"url": "tls://n1:4222,tls://n2:4222", "creds": "/c/me.creds"}))
    found = server.find_server(context="prod")
    assert (found.urls, found.creds_file) == (("tls://n1:4222", "tls://n2:4222"), "/c/me.creds")
    assert netctl.run(["context", "select", "prod"]) == DONE
    assert server.find_server().creds_file == "/c/me.creds"
    assert netctl.run(["context", "unselect"]) == DONE
    assert server.selected_context() is None


def test_an_unknown_context_is_wrong_usage() -> None:
    with pytest.raises(Ended) as end:
        server.find_server(context="nowhere")
    assert end.value.status == USAGE


@pytest.mark.parametrize(("text", "said"), [("{", "is no JSON"), ("[]", "is list: expected a JSON object")])
def test_a_file_that_cannot_be_read_is_named(folder: Path, text: str, said: str) -> None:
    (folder / "client.json").write_text(text)
    with pytest.raises(Ended, match=said) as end:
        server.find_server()
    assert end.value.status == UNREACHABLE
    assert str(folder) in end.value.message


@contextmanager
def nobody() -> Iterator[None]:
    """What follows is done by a user who may not do everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_may_not_be_entered_is_not_taken_for_no_daemon(folder: Path) -> None:
    write_client_file(folder, url="nats://127.0.0.1:4333", nkey_seed_file="/k/operator.nk")
    folder.chmod(0o000)
    try:
        with nobody():
            with pytest.raises(Ended, match=r"may not be entered by this user.*sudo.*--server and --creds") as end:
                server.find_server()
            found = server.find_server("nats://a:1", "/k/me.nk")
    finally:
        folder.chmod(0o700)
    assert end.value.status == UNREACHABLE
    assert (found.urls, found.seed_file) == (("nats://a:1",), "/k/me.nk")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.nk", None, "No such file"),
        ("none.creds", None, "No such file"),
        ("folder.nk/x", None, "No such file|Not a directory"),
        ("empty.nk", b"", "holds no nkey seed"),
        ("noise.nk", b"\xff\xfe\x00", "cannot be read"),
        ("short.nk", b"SUAAAA", "holds no nkey seed"),
        ("noise.creds", b"-----BEGIN", "holds no JWT and seed"),
        ("half.creds", b"-----BEGIN A-----\nx\n-----BEGIN B-----\nSUAAA\n", "holds no nkey seed"),
    ],
)
def test_credentials_that_are_none_are_named(folder: Path, name: str, content: bytes | None, said: str) -> None:
    file = folder / name
    if content is not None:
        file.write_bytes(content)
    found = server.find_server("nats://a:1", str(file))
    with pytest.raises(Ended, match=said) as end:
        server.signed_login(found, "nonce")
    assert end.value.status == UNREACHABLE
    assert str(file) in end.value.message


def test_credentials_that_may_not_be_read_are_named(folder: Path) -> None:
    file = folder / "secret.nk"
    file.write_text("SUSECRET")
    file.chmod(0o000)
    with nobody(), pytest.raises(Ended, match=r"may not be read by this user.*sudo") as end:
        server.signed_login(server.find_server("nats://a:1", str(file)), "nonce")
    assert end.value.status == UNREACHABLE


def test_keys_that_are_none_are_said(folder: Path) -> None:
    bad = folder / "bad.nk"
    bad.write_text("SUNOTASEED")
    with pytest.raises(Ended, match="holds no nkey seed"):
        server.signed_login(server.Server(urls=(), source="", seed_file=str(bad)), "nonce")
    with pytest.raises(Ended, match=r"absent.nk cannot be read: No such file"):
        server.signed_login(server.Server(urls=(), source="", seed_file=str(folder / "absent.nk")), "nonce")
    with pytest.raises(Ended, match="holds no JWT and seed"):
        server.signed_login(server.Server(urls=(), source="", creds_file=str(bad)), "nonce")


def test_logins_without_keys() -> None:
    assert server.signed_login(server.Server(urls=(), source="", user="u", password="p"), "") == {
        "user": "u",
        "pass": "p",
    }
    assert server.signed_login(server.Server(urls=(), source="", token="t"), "") == {"auth_token": "t"}
    assert server.signed_login(server.Server(urls=(), source=""), "") == {}
