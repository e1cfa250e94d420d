"""`netctl` and `netdcli` against the real daemon, as a person types them."""

from __future__ import annotations

import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness import daemon
from tests.harness.daemon import Host
from tests.harness.netns import network_namespace
from tests.harness.node import needs_node_packages, run_node
from tests.requires import needs_ovs

pytestmark = needs_ovs

CONTAINERS = ("c1", "c2", "c3")
VERB_CPU_S = 0.15


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="np") as folder, daemon.host(Path(folder)) as made:
        made.start()
        yield made


@pytest.fixture(autouse=True, scope="module")
def containers(host: Host) -> Iterator[None]:
    with network_namespace("c1"), network_namespace("c2"), network_namespace("c3"):
        yield


def netctl(host: Host, line: str, status: int = 0) -> str:
    """What was printed: the result of what was done, the fault of what was not."""
    result = host.netctl(*shlex.split(line), check=False)
    assert result.returncode == status, f"{line}: {result.returncode}\n{result.stdout}{result.stderr}"
    assert bool(result.stderr) == (status != 0), result.stderr
    return result.stdout if status == 0 else result.stderr


def netdcli(host: Host, line: str, status: int = 0) -> str:
    result = host.netdcli(*shlex.split(line), check=False)
    assert result.returncode == status, f"{line}: {result.returncode}\n{result.stdout}{result.stderr}"
    return result.stdout if status == 0 else result.stderr


def show(host: Host, line: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(netctl(host, f"{line} -o json"))
    return found


def event_count(host: Host) -> int:
    return len(netctl(host, "events watch --since 1 --no-follow -o jsonl").splitlines())


def test_the_seed_s_walk_to_the_letter(host: Host) -> None:
    assert "created" in netdcli(host, "-oper create -construct network tenant1-net1")
    assert json.loads(netdcli(host, "-oper get -construct network tenant1-net1"))["status"]["state"] == "active"
    line = '-oper create -construct endpoint -net-id tenant1-net1 -tag 12 -ip-address="11.1.1.1" tenant1-net1-ep1'
    said = netdcli(host, line)
    assert "11.1.1.1/24" in said
    assert "network tenant1-net1 adopted subnet 11.1.1.0/24" in said
    network = json.loads(netdcli(host, "-oper get -construct network tenant1-net1"))
    assert (network["status"]["tag"], network["status"]["subnets"]) == (12, ["11.1.1.0/24"])
    endpoint = json.loads(netdcli(host, "-oper get -construct endpoint tenant1-net1-ep1"))
    assert (endpoint["status"]["state"], endpoint["status"]["addresses"]) == ("pending", ["11.1.1.1/24"])

    said = netdcli(host, "-oper attach -construct endpoint -container-id netns:c1 tenant1-net1-ep1")
    assert "bound to netns:c1 (eth0) on h1" in said
    bound = json.loads(netdcli(host, "-oper get -construct endpoint tenant1-net1-ep1"))["status"]
    shown = host.run("ovs-vsctl", "show").stdout
    assert f"Port {bound['port']}\n            tag: 12" in shown
    assert f"{bound['device']}@" in host.run("ip", "link", "show").stdout

    assert "detached" in netdcli(host, "-oper detach -construct endpoint -container-id netns:c1 tenant1-net1-ep1")
    assert bound["port"] not in host.run("ovs-vsctl", "show").stdout
    assert f"{bound['device']}@" not in host.run("ip", "link", "show").stdout
    assert "deleted" in netdcli(host, "-oper delete -construct endpoint tenant1-net1-ep1")
    assert "unknown-endpoint" in netdcli(host, "-oper get -construct endpoint tenant1-net1-ep1", status=1)
    assert json.loads(netdcli(host, "-oper get -construct network tenant1-net1"))["status"]["endpoints"] == 0
    assert "deleted" in netdcli(host, "-oper delete -construct network tenant1-net1")


def test_a_walk_with_netctl(host: Host) -> None:
    netctl(host, "tenant create walk --vlans 10-20")
    network = show(host, "net create web -t walk")
    assert network["status"]["tag"] == 10  # type: ignore[index]
    made = show(host, "ep create web1 -t walk --network web --container netns:c2")
    assert made["status"]["state"] == "bound"  # type: ignore[index]
    assert (made["tenant"], made["network"], made["name"]) == ("walk", "web", "web1")
    again = show(host, "ep create web1 -t walk --network web --container netns:c2")
    assert again["is_changed"] is False
    assert [each["name"] for each in json.loads(netctl(host, "ep ls -A -o json"))] == ["web1"]
    assert netctl(host, "ep ls -t walk -o name") == "web1\n"
    assert "bound" in netctl(host, "ep ls -t walk")
    assert "h1" in netctl(host, "host list")
    assert "link,rules,switch" in netctl(host, "host ports")
    netctl(host, "ep rm web1 -t walk")
    netctl(host, "net rm web -t walk")
    netctl(host, "tenant rm walk")
    assert "walk" not in netctl(host, "tenant ls")


REFUSED = {
    "tenant create acme --vlans 7": "tenant-exists",
    "tenant rm acme": "tenant-in-use",
    "tenant show nobody": "unknown-tenant",
    "net create other -t nobody": "unknown-tenant",
    "net create web -t acme --tag 99": "network-exists",
    "net create other -t acme --subnet 12.0.0.128/25": "subnet-overlaps",
    "net create other -t acme --tag 77": "tag-in-use",
    "net create other -t acme --subnet 12.9.0.0/24 --gateway 12.9.0.0": "gateway-reserved",
    "net rm web -t acme": "network-in-use",
    "net rm other -t acme": "unknown-network",
    "net show other -t acme": "unknown-network",
    "ep create web2 -t acme --network other": "unknown-network",
    "ep create web2 -t acme --network web --address 12.0.0.5": "address-in-use",
    "ep create web2 -t acme --network web --address 12.0.0.0": "address-reserved",
    "ep create web2 -t acme --network web --address 12.0.0.255": "address-reserved",
    "ep create web2 -t acme --network web --address 12.0.0.254": "address-reserved",
    "ep create web2 -t acme --network web --address 12.0.1.1": "address-outside-subnet",
    "ep create web2 -t acme --network web --tag 12": "tag-mismatch",
    "ep create web1 -t acme --network web --address 12.0.0.6": "endpoint-exists",
    "ep create web2 -t acme --network web --container netns:absent": "container-not-found",
    "ep create web2 -t acme --network web --container pid:999999999": "container-not-found",
    "ep attach web1 -t acme --network web --container netns:c2": "endpoint-bound",
    "ep attach web1 -t acme --container netns:c3": "ambiguous-endpoint",
    "ep attach web9 -t acme --container netns:c3": "unknown-endpoint",
    "ep detach web1 -t acme --network web --container netns:c2": "endpoint-bound-elsewhere",
    "ep show web1 -t acme": "ambiguous-endpoint",
    "ep create web2 -t acme --network web --container c1 --host h9 --wait accepted": "unknown-host",
    "host remove h1": "host-in-use",
}


@pytest.fixture(scope="module")
def acme(host: Host, containers: None) -> Iterator[None]:
    """Tenant acme: web with web1 in c1, db with another web1."""
    netctl(host, "tenant create acme")
    netctl(host, "net create web -t acme --subnet 12.0.0.0/24 --gateway 12.0.0.254 --tag 77")
    netctl(host, "net create db -t acme")
    netctl(host, "ep create web1 -t acme --network web --address 12.0.0.5 --container netns:c1")
    netctl(host, "ep create web1 -t acme --network db")
    yield
    for network in ("web", "db"):
        netctl(host, f"ep rm web1 -t acme --network {network}")
        netctl(host, f"net rm {network} -t acme")
    netctl(host, "tenant rm acme")


@pytest.mark.parametrize("line", REFUSED)
def test_a_refusal_has_its_code_and_changes_nothing(host: Host, acme: None, line: str) -> None:
    before = event_count(host)
    said = netctl(host, line, status=1)
    assert said.startswith(f"netctl: refused: {REFUSED[line]}: ")
    assert said.count("\n") == 1
    assert event_count(host) == before


def test_a_host_that_is_not_there_is_said_before_anything_is_sent(host: Host, acme: None) -> None:
    before = event_count(host)
    said = netctl(host, "ep attach web1 -t acme --network db --container c1 --host h9", status=3)
    assert "host 'h9' does not answer: start `netplugin` on it" in said
    assert event_count(host) == before


def test_a_docker_container_that_is_not_there_yet_is_waited_for(host: Host, acme: None) -> None:
    assert "waiting for later on h1" in netctl(host, "ep attach web1 -t acme --network db --container later")
    assert show(host, "ep show web1 -t acme --network db")["status"]["state"] == "waiting"  # type: ignore[index]
    assert "start later on h1" in netctl(host, "status")
    netctl(host, "ep detach web1 -t acme --network db")


def test_who_did_what_is_in_the_log_with_refusals(host: Host, acme: None) -> None:
    netctl(host, "net create web -t acme --tag 98", status=1)
    entries = json.loads(netctl(host, "log -t acme -o json"))
    refused = [entry for entry in entries if entry["outcome"] == "refused"]
    assert refused[-1]["code"] == "network-exists"
    assert refused[-1]["by"].startswith("operator")
    assert refused[-1]["command_id"]
    done = [entry for entry in entries if "network-created acme/web" in entry["what"]]
    assert len(done) == 1
    assert [entry["time"] for entry in entries] == sorted(entry["time"] for entry in entries)
    assert len(netctl(host, "log --last 3 --refused").splitlines()) == 4


def test_events_are_replayed_by_sequence_time_and_network(host: Host, acme: None) -> None:
    every = [json.loads(line) for line in netctl(host, "events watch --no-follow -o jsonl").splitlines()]
    assert [event["seq"] for event in every] == list(range(1, len(every) + 1))
    later = [json.loads(line) for line in netctl(host, "events watch --since 5 --no-follow -o jsonl").splitlines()]
    assert later == every[4:]
    since = every[6]["time"]
    again = [
        json.loads(line) for line in netctl(host, f"events watch --since {since} --no-follow -o jsonl").splitlines()
    ]
    assert again == every[6:]
    of_web = netctl(host, "events watch --since 1 --no-follow -t acme --network web -o jsonl").splitlines()
    assert {json.loads(line)["network"] for line in of_web} == {"web"}
    assert "endpoint-bound" in netctl(host, "events watch --since 1 --no-follow -t acme --network web")


@contextmanager
def typed(host: Host, line: str) -> Iterator[subprocess.Popen[str]]:
    """A verb that goes on until it is interrupted."""
    command = host.namespace.command(sys.executable, "-u", "-m", "services.cli.netctl", *shlex.split(line))
    process = subprocess.Popen(command, env=host.environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        process.stdout.close()


def test_events_are_followed(host: Host) -> None:
    last = event_count(host)
    with typed(host, f"events watch --since {last} -o jsonl") as watching:
        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline())["seq"] == last
        netctl(host, "net create followed")
        followed = [json.loads(watching.stdout.readline())]
        while followed[-1]["type"] != "network-created":
            followed.append(json.loads(watching.stdout.readline()))
        assert [event["seq"] for event in followed] == list(range(last + 1, last + 1 + len(followed)))
    netctl(host, "net rm followed")


def test_following_goes_on_where_it_was_when_the_server_has_been_killed(host: Host) -> None:
    last = event_count(host)
    with typed(host, f"events watch --since {last} -o jsonl") as watching:
        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline())["seq"] == last
        host.kill("nats-server")
        tries = (host.netctl("net", "create", "after-kill", check=False).returncode for _ in range(200))
        assert 0 in tries
        assert json.loads(watching.stdout.readline())["seq"] == last + 1
    netctl(host, "net rm after-kill")


def test_endpoints_are_watched(host: Host) -> None:
    netctl(host, "net create watched")
    with typed(host, "ep watch -o jsonl --network watched") as watching:
        netctl(host, "ep create w1 --network watched --container netns:c3")
        assert watching.stdout is not None
        states = []
        while "bound" not in states:
            states.append(json.loads(watching.stdout.readline())["status"]["state"])
        netctl(host, "ep rm w1 --network watched")
        while not (last := json.loads(watching.stdout.readline())).get("is_deleted"):
            pass
        assert last["name"] == "w1"
    netctl(host, "net rm watched")


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_wait_that_runs_out_ends_with_4_and_what_was_accepted_stays(host: Host) -> None:
    netctl(host, "net create slow")
    netctl(host, "ep create s1 --network slow --container netns:c3")
    with stopped(host.pid("host")):
        said = netctl(host, "ep rm s1 --timeout 1s", status=4)
        assert "host h1 did not report the port of endpoint default/slow/s1 gone within 1 s; it stays accepted" in said
        assert "host 'h1' does not answer" in netctl(host, "ep create s2 --network slow --container netns:c3", status=3)
        unwell = host.netctl("status", check=False)
        assert unwell.returncode == 1
        assert "host h1: start `netplugin` on it" in unwell.stdout
    assert "unknown-endpoint" in netctl(host, "ep show s1", status=1)
    netctl(host, "net rm slow")


def test_status_says_that_all_is_well(host: Host) -> None:
    found = json.loads(netctl(host, "status -o json"))
    assert found["is_healthy"] is True
    whats = [check["what"] for check in found["checks"]]
    assert {"server", "durability", "stream", "actor", "host", "endpoints"} <= set(whats)
    durability = next(check for check in found["checks"] if check["what"] == "durability")
    assert (durability["state"], durability["facts"]) == ("ok", "every write is on disk before it is acknowledged")
    assert "ipam@h1" in netctl(host, "status")


def test_status_without_an_actor_says_what_to_do(host: Host) -> None:
    with stopped(host.pid("ipam")):
        unwell = host.netctl("status", "--timeout", "2s", check=False)
    assert unwell.returncode == 1
    assert "actor ipam: start `netplugin`" in unwell.stdout


def test_a_verb_keeps_to_its_budget(host: Host) -> None:
    """Of processor time, which other work on the machine hardly changes; the best of a few, for what it does change."""

    def cpu_s() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        netctl(host, "net list")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(cpu_s() for _ in range(7)) < VERB_CPU_S


@needs_node_packages
@pytest.mark.parametrize("content", ["msgpack", "json"])
def test_a_stock_client_of_another_language_does_the_walk(host: Host, content: str) -> None:
    client = str(host.run_dir / "client.json")
    result = run_node("walk.mjs", client, "h1", "netns:c3", content, command=host.namespace.command("node"))
    assert result.returncode == 0, result.stdout + result.stderr
    steps = [line.split(" ", 1)[0] for line in result.stdout.splitlines()]
    assert steps[-1] == "done"
    assert {"network.create", "endpoint.create", "endpoint.attach", "endpoint.delete", "event"} <= set(steps)
