"""The daemon as an operator meets it: started, started twice, stopped, killed, cleaned. All with real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import nats
import pytest

from services.open_vswitch import DATABASE, SWITCH
from tests.harness import daemon
from tests.harness.daemon import Host, wait_for_end
from tests.harness.netns import NetworkNamespace, links, pids_in
from tests.requires import SYSTEM_PATH, needs_ovs

pytestmark = needs_ovs


@pytest.fixture
def host(short_path: Path) -> Iterator[Host]:
    with daemon.host(short_path) as made:
        yield made


def of_the_switch(host: Host) -> dict[str, int]:
    return {program: host.pid(program) for program in (DATABASE, SWITCH)}


def test_ready_is_said_when_a_command_would_succeed(host: Host) -> None:
    ready = host.start()
    assert set(ready) == {"host", "nats", "pid"}
    assert (ready["host"], ready["pid"]) == ("h1", host.pid_of_daemon)
    client = json.loads((host.run_dir / "client.json").read_text())
    assert client["url"] == ready["nats"] == "nats://127.0.0.1:4222"
    assert Path(client["nkey_seed_file"]).stat().st_mode & 0o777 == 0o600
    assert "web" in host.netctl("network", "create", "web", "-o", "json").stdout
    assert host.children == ("host", "ipam", "nats-server")


def test_the_seed_s_own_commands_find_the_bridge(host: Host) -> None:
    host.start()
    assert "vlanBr" in host.run("ovs-vsctl", "show").stdout


def test_another_port_is_taken_when_4222_is_not_free(host: Host) -> None:
    taken = host.namespace.call(lambda: socket.create_server(("127.0.0.1", 4222)))
    with taken:
        ready = host.start()
    assert ready["nats"] != "nats://127.0.0.1:4222"
    assert host.netctl("network", "list", "-o", "json").returncode == 0


def test_a_second_start_is_refused_with_the_pid_of_the_first(host: Host) -> None:
    ready = host.start()
    second = subprocess.run(host.command(), capture_output=True, text=True, timeout=90, check=False)
    assert second.returncode == 1
    assert f"pid {ready['pid']}" in second.stderr
    assert second.stdout == ""
    assert host.netctl("network", "list", "-o", "json").returncode == 0


def test_sigterm_ends_all_but_the_switch_and_the_next_start_finds_it(host: Host) -> None:
    host.start()
    switch, children = of_the_switch(host), [host.pid(child) for child in host.children]
    assert host.stop() == 0
    assert of_the_switch(host) == switch
    for pid in children:
        wait_for_end(pid)
    host.start()
    assert of_the_switch(host) == switch


def test_ctrl_c_is_as_good_as_sigterm(host: Host) -> None:
    host.start()
    os.kill(host.pid_of_daemon, signal.SIGINT)
    assert host.stop() == 0
    assert not any("Traceback" in line for line in host.log)


def test_kill_9_of_all_of_it_and_a_start_lose_nothing(host: Host) -> None:
    host.start()
    host.netctl("network", "create", "web")
    before = json.loads(host.netctl("network", "list", "-o", "json").stdout)
    switch = of_the_switch(host)
    host.crash()
    for program, pid in switch.items():
        assert host.kill(program) == pid
    host.start()
    assert json.loads(host.netctl("network", "list", "-o", "json").stdout) == before
    assert "vlanBr" in host.run("ovs-vsctl", "list-br").stdout


@pytest.mark.parametrize("child", ["nats-server", "ipam", "host", SWITCH, DATABASE])
def test_what_is_killed_comes_back_by_itself(host: Host, child: str) -> None:
    host.start()
    old = host.kill(child)
    assert host.until_back(child) != old
    host.until_answering()
    host.netctl("network", "create", "after")
    assert "vlanBr" in host.run("ovs-vsctl", "list-br").stdout


def test_clients_find_the_server_again_where_it_was(host: Host) -> None:
    url = host.start()["nats"]
    host.kill("nats-server")
    host.until_back("nats-server")
    host.until_answering()
    host.netctl("network", "create", "web")
    assert json.loads((host.run_dir / "client.json").read_text())["url"] == url


def test_clean_leaves_nothing_but_journal_and_keys_and_purge_not_even_these(host: Host) -> None:
    host.start()
    host.netctl("network", "create", "web")
    assert host.clean().returncode == 0  # the daemon runs: it is ended first
    assert pids_in(host.namespace) == set()
    assert links(host.namespace) == {"lo"}
    if shutil.which("nft", path=SYSTEM_PATH):
        assert host.run("nft", "list", "tables").stdout == ""
    assert not host.run_dir.exists()
    assert {path.name for path in host.state_dir.iterdir()} <= {"jetstream", "keys", "ipam", "host", "lock"}
    host.stop()
    host.start()
    assert [each["name"] for each in json.loads(host.netctl("network", "list", "-o", "json").stdout)] == ["web"]
    host.stop()
    assert host.clean("--purge").returncode == 0
    assert not host.state_dir.exists()
    assert host.clean("--purge").returncode == 0


def test_clean_removes_links_that_a_killed_host_has_left_and_no_others(host: Host) -> None:
    host.start()
    host.crash()
    host.run("ip", "link", "add", "npabcdefghijkl", "type", "veth", "peer", "name", "x0")
    host.run("ip", "link", "set", "npabcdefghijkl", "group", "4711")
    host.run("ip", "link", "add", "npsomebodys", "type", "veth", "peer", "name", "x1")
    assert host.clean().returncode == 0
    assert links(host.namespace) == {"lo", "npsomebodys", "x1"}


def test_two_endpoints_in_one_container_answer_and_clean_leaves_the_container_as_it_was(
    host: Host, netns: Callable[[str], NetworkNamespace]
) -> None:
    host.start()
    inside, other = netns("c1"), netns("c2")
    before = inside.run("ip", "rule", "show").stdout
    host.netctl("network", "create", "web", "--subnet", "12.0.0.0/24")
    for name, container in (("e1", "c1"), ("e2", "c1"), ("e3", "c2")):
        host.netctl("endpoint", "create", name, "--network", "web", "--container", f"netns:{container}")
    for address in ("12.0.0.1", "12.0.0.2"):
        other.run("busybox", "ping", "-c", "1", "-W", "10", address)
    assert inside.run("ip", "rule", "show").stdout != before
    host.crash()
    assert host.clean().returncode == 0
    assert links(inside) == {"lo"}
    assert inside.run("ip", "rule", "show").stdout == before


def test_another_journal_is_said_with_the_remedy_and_taken_once_an_operator_says_so(
    host: Host, netns: Callable[[str], NetworkNamespace]
) -> None:
    host.start()
    inside = netns("c1")
    host.netctl("network", "create", "web")
    host.netctl("endpoint", "create", "e1", "--network", "web", "--container", "netns:c1")
    refused = host.netctl("journal", "adopt", "--host", "h1", check=False)
    assert (refused.returncode, "journal-not-in-question" in refused.stderr) == (1, True)
    host.stop()
    (host.state_dir / "jetstream").rename(host.state_dir / "jetstream.before")
    since = len(host.log)
    host.launch()
    fact = host.until_logged(lambda fact: fact["event"] == "not-ready", since)
    assert "netctl journal adopt --host h1" in fact["remedy"]
    status = host.netctl("status", check=False)
    assert status.returncode == 1
    assert "journal-mismatch" in status.stdout
    assert "host h1: restore the right journal; or, if this one is to be taken as it is: netctl journal adopt" in (
        status.stdout
    )
    assert "eth0" in links(inside), "nothing is torn down meanwhile"
    assert "takes the journal as it is" in host.netctl("journal", "adopt", "--host", "h1").stdout
    host.until_ready()
    assert host.netctl("status").returncode == 0
    assert "eth0" not in links(inside)
    shutil.rmtree(host.state_dir / "jetstream.before")


def test_an_open_vswitch_that_runs_is_used_and_left(
    short_path: Path, netns: Callable[[str], NetworkNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.harness.openvswitch import running_switch

    first = Host(netns("h1"), short_path / "first")
    with running_switch(short_path / "other", first.namespace) as other:
        first.start()
        assert "vlanBr" in other.run("ovs-vsctl", "list-br")
        assert not (first.run_dir / "ovs").exists()
        first.end()
        assert other.run("ovs-vsctl", "list-br") == ""
        assert other.pid()


def test_the_actors_run_on_a_server_that_somebody_else_runs(
    short_path: Path, netns: Callable[[str], NetworkNamespace]
) -> None:
    with daemon.host(short_path, "h1", "ipam") as server:
        url = server.start()["nats"]
        key = server.state_dir / "keys" / "host-h1.nk"
        second = Host(server.namespace, short_path / "second", "host", "--nats", url, "--creds", str(key))
        try:
            assert second.start()["nats"] == url
            assert second.children == ("host",)
        finally:
            second.end()


def test_without_root_it_says_so(host: Host) -> None:
    command = [*host.command()]
    at = command.index("--") + 1
    plain = [*command[:at], "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command[at:]]
    result = subprocess.run(plain, capture_output=True, text=True, timeout=90, check=False)
    assert result.returncode == 2
    assert "root" in result.stderr


def test_without_open_vswitch_it_says_what_to_install(host: Host) -> None:
    hide = 'mount --bind /dev/null "$(readlink -f "$(command -v ovs-vswitchd)")" && exec "$@"'
    command = ("unshare", "--mount", "sh", "-c", hide, "sh", *host.command())
    result = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert result.returncode == 2
    assert "apt-get install openvswitch-switch" in result.stderr
    assert "Traceback" not in result.stderr
    assert pids_in(host.namespace) == set()


async def a_stock_client(url: str, seed: str) -> str:
    client = await nats.connect(url, nkeys_seed=seed)
    answer = await client.request(
        "np.v1.cmd.default.network.list", b'{"type": "list-networks"}', headers={"Content-Type": "application/json"}
    )
    await client.close()
    return answer.data.decode()


def test_a_stock_client_with_client_json_is_answered(host: Host) -> None:
    host.start()
    client = json.loads((host.run_dir / "client.json").read_text())
    answer = host.namespace.call(lambda: asyncio.run(a_stock_client(client["url"], client["nkey_seed_file"])))
    assert json.loads(answer)["type"] != "refused", answer


def test_a_disk_that_was_full_and_has_space_again_is_written_to_again(short_path: Path) -> None:
    disk = short_path / "h1"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(disk)], check=True)
    try:
        with daemon.host(short_path, "h1", "ipam") as host:
            host.start()
            host.netctl("network", "create", "before")
            with (disk / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
                while ballast.write(bytes(4096)):
                    pass
            refused = fill(host)
            assert refused.returncode != 0
            assert "journal-full" in refused.stderr
            assert not any("child-restarted" in line for line in host.log)
            (disk / "ballast").unlink()
            host.until_logged(lambda fact: fact["event"] == "child-restarted" and fact["child"] == "nats-server")
            host.until_answering()
            host.netctl("network", "create", "after")
            names = {each["name"] for each in json.loads(host.netctl("network", "list", "-o", "json").stdout)}
            assert {"before", "after"} <= names
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fill(host: Host) -> subprocess.CompletedProcess[str]:
    """The first command that fails for want of space; what the file system had in hand takes some before it."""
    for number in range(200):
        result = host.netctl("endpoint", "create", f"e{number}", "--network", "before", "--timeout", "3", check=False)
        if result.returncode != 0:
            return result
    raise AssertionError("200 commands were written to a full disk")


def test_the_service_manager_hears_that_it_is_ready_and_that_it_stops(
    host: Host, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(short_path / "notice"))
        manager.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(short_path / "notice"))
        host.start()
        assert manager.recv(4096).startswith(b"READY=1\nSTATUS=host h1")
        host.stop()
        assert manager.recv(4096) == b"STOPPING=1"
