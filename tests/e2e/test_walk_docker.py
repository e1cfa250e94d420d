"""The seed's walk on real Docker containers, to the letter, and what may happen to a container on the way."""

from __future__ import annotations

import json
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.demo.engine import Engine
from services.demo.terminal import Terminal
from tests.harness import daemon
from tests.harness.daemon import Host
from tests.harness.dockerd import container_pid, running_engine, start_container
from tests.harness.typed import InsideProcess, Shell
from tests.requires import needs_docker, needs_ovs

pytestmark = [needs_ovs, needs_docker]

SOON_S = 30.0  # milliseconds where the machine has time
PORT = 5000
TCP_BYTES = 1 << 20


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine() as running:
        yield running


@pytest.fixture(scope="module")
def host(engine: Engine) -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="np") as folder, pytest.MonkeyPatch.context() as environment:
        for name, value in engine.environment.items():
            environment.setenv(name, value)
        with daemon.host(Path(folder)) as made:
            made.start()
            yield made


@pytest.fixture(scope="module")
def shell(host: Host, engine: Engine) -> Shell:
    return Shell(host, **engine.environment)


@pytest.fixture
def network(shell: Shell, engine: Engine) -> Iterator[str]:
    """A network with a subnet; it, its endpoints and all containers are gone after the test."""
    shell.type("netctl network create web --subnet 12.0.0.0/24")
    yield "web"
    for endpoint in shell.show("endpoint list --network web"):
        shell.type(f"netctl endpoint delete {endpoint['name']} --network web")
    shell.type("netctl network delete web")
    remove_containers(engine)


def remove_containers(engine: Engine) -> None:
    if containers := engine.docker("ps", "-aq").split():
        engine.docker("rm", "-f", *containers)


def inside(engine: Engine, name: str) -> InsideProcess:
    return InsideProcess(container_pid(engine, name))


def addresses(namespace: InsideProcess) -> dict[str, list[str]]:
    """IPv4 addresses by interface, but for the loopback's."""
    links = json.loads(namespace.run("ip", "-4", "-json", "address", "show").stdout)
    return {
        link["ifname"]: [f"{each['local']}/{each['prefixlen']}" for each in link["addr_info"]]
        for link in links
        if link["ifname"] != "lo"
    }


def listening(namespace: InsideProcess) -> socket.socket:
    return namespace.call(lambda: socket.create_server(("0.0.0.0", PORT)))


def transferred(client: InsideProcess, server: socket.socket, address: str) -> bool:
    """Whether a megabyte sent over TCP arrives as it was sent."""
    sent = bytes(range(256)) * (TCP_BYTES // 256)
    with client.call(lambda: socket.create_connection((address, PORT), timeout=30.0)) as sender:
        receiver, _ = server.accept()
        receiver.settimeout(5.0)
        with receiver:
            received = bytearray()
            for at in range(0, TCP_BYTES, 1 << 15):
                sender.sendall(sent[at : at + (1 << 15)])
                while len(received) < at + (1 << 15) and (part := receiver.recv(1 << 16)):
                    received += part
    return bytes(received) == sent


def endpoint_of(shell: Shell, name: str) -> dict[str, Any]:
    status: dict[str, Any] = shell.show(f"endpoint show {name}")["status"]
    return status


def test_the_seed_s_walk_to_the_letter(shell: Shell, engine: Engine) -> None:
    shell.type("netdcli -oper create -construct network tenant1-net1")
    assert json.loads(shell.type("netdcli -oper get -construct network tenant1-net1"))["status"]["state"] == "active"
    said = shell.type(
        'netdcli -oper create -construct endpoint -net-id tenant1-net1 -tag 12 -ip-address="11.1.1.1" tenant1-net1-ep1'
    )
    assert "11.1.1.1/24" in said
    network = json.loads(shell.type("netdcli -oper get -construct network tenant1-net1"))
    assert (network["status"]["tag"], network["status"]["endpoints"]) == (12, 1)
    endpoint = json.loads(shell.type("netdcli -oper get -construct endpoint tenant1-net1-ep1"))
    assert endpoint["status"]["addresses"] == ["11.1.1.1/24"]
    typed = "docker run -it --name=myContainer1 --hostname=myContainer1 ubuntu /bin/bash"
    with Terminal(typed, engine.environment) as terminal:
        terminal.wait_for("/ # ")
        said = shell.type("netdcli -oper attach -construct endpoint -container-id myContainer1 tenant1-net1-ep1")
        assert "bound to myContainer1 (eth0)" in said
        terminal.type("ip address show eth0")
        assert "11.1.1.1/24" in terminal.wait_for("/ # ")
        status = endpoint_of(shell, "tenant1-net1-ep1")
        assert f"Port {status['port']}\n            tag: 12" in shell.type("ovs-vsctl show")
        assert f"{status['device']}@" in shell.type("ip link show")

        said = shell.type("netdcli -oper detach -construct endpoint -container-id myContainer1 tenant1-net1-ep1")
        assert "detached" in said
        terminal.type("ip address show eth0")
        assert "11.1.1.1" not in terminal.wait_for("/ # ")
        shell.type("netdcli -oper delete -construct endpoint tenant1-net1-ep1")
    assert json.loads(shell.type("netdcli -oper get -construct network tenant1-net1"))["status"]["endpoints"] == 0
    assert "unknown-endpoint" in shell.type("netdcli -oper get -construct endpoint tenant1-net1-ep1", status=1)
    shell.type("netdcli -oper delete -construct network tenant1-net1")
    remove_containers(engine)


def test_ping_and_tcp_work_with_the_first_packet(shell: Shell, engine: Engine, network: str) -> None:
    for name in ("c1", "c2"):
        start_container(engine, name)
    first, second = inside(engine, "c1"), inside(engine, "c2")
    with listening(first) as server:
        shell.type("netctl endpoint create e1 --network web --container c1")
        shell.type("netctl endpoint create e2 --network web --container c2")
        assert transferred(second, server, "12.0.0.1")
    assert "1 packets received" in shell.type("docker exec c1 ping -c 1 -W 1 12.0.0.2")
    assert addresses(first) == {"eth0": ["12.0.0.1/24"]}


def test_a_container_that_comes_later_is_attached_when_it_starts(shell: Shell, engine: Engine, network: str) -> None:
    said = shell.type("netctl endpoint create e1 --network web --container later")
    assert "waiting for later" in said
    assert "there is no container 'later' yet" in said
    with shell.following() as journal:
        start_container(engine, "later")
        journal.until_port("bound", "e1")
    assert addresses(inside(engine, "later")) == {"eth0": ["12.0.0.1/24"]}


def test_a_container_named_by_its_id(shell: Shell, engine: Engine, network: str) -> None:
    full_id = start_container(engine, "c1")
    shell.type(f"netctl endpoint create e1 --network web --container {full_id[:12]}")
    assert addresses(inside(engine, "c1")) == {"eth0": ["12.0.0.1/24"]}


def test_a_container_that_dies_loses_its_port_within_a_second(shell: Shell, engine: Engine, network: str) -> None:
    start_container(engine, "c1")
    shell.type("netctl endpoint create e1 --network web --container c1")
    device = endpoint_of(shell, "e1")["device"]
    with shell.following() as journal:
        began_s = time.monotonic()
        engine.docker("kill", "c1")
        event = journal.until_port("waiting", "e1")
        assert time.monotonic() - began_s < SOON_S
    assert event["event"]["code"] == "container-not-running"
    assert device not in shell.type("ovs-vsctl show")
    assert device not in shell.type("ip link show")
    assert endpoint_of(shell, "e1")["state"] == "waiting"
    assert "start c1 on h1" in shell.type("netctl status")


def test_a_container_that_is_restarted_is_attached_again(shell: Shell, engine: Engine, network: str) -> None:
    for number in (1, 2):
        start_container(engine, f"c{number}")
        shell.type(f"netctl endpoint create e{number} --network web --container c{number}")
    before = endpoint_of(shell, "e1")
    with shell.following() as journal:
        engine.docker("restart", "-t", "0", "c1")
        journal.until_port("bound", "e1")
    after = endpoint_of(shell, "e1")
    assert (after["addresses"], after["mac"], after["epoch"]) == (before["addresses"], before["mac"], before["epoch"])
    assert "1 packets received" in shell.type("docker exec c1 ping -c 1 -W 1 12.0.0.2")


def test_a_stopped_container_has_its_own_message(shell: Shell, engine: Engine, network: str) -> None:
    start_container(engine, "c1")
    engine.docker("kill", "c1")
    engine.docker("create", "--name", "c2", "ubuntu", "sleep", "86400")
    said = shell.type("netctl endpoint create e1 --network web --container c1")
    assert "waiting for c1 on h1 (container 'c1' stopped with exit code 137: docker start c1)" in said
    said = shell.type("netctl endpoint create e2 --network web --container c2")
    assert "waiting for c2 on h1 (container 'c2' is created and not started: docker start c2)" in said
    with shell.following() as journal:
        engine.docker("start", "c1")
        journal.until_port("bound", "e1")


def test_a_container_that_dies_during_the_attach_leaves_nothing(shell: Shell, engine: Engine, network: str) -> None:
    shell.type("netctl endpoint create e1 --network web")
    for life in range(4):
        start_container(engine, "c1")
        pid = container_pid(engine, "c1")
        attach = shell.start("netctl endpoint attach e1 --container c1")
        with attach:
            engine.docker(*(("kill", "c1") if life % 2 else ("rm", "-f", "c1")))
            said, _ = attach.communicate(timeout=90)
        assert attach.returncode == 0, said
        with shell.following() as journal:
            state = endpoint_of(shell, "e1")["state"]
            if state == "bound":  # its end has not been reported yet
                journal.until_port("waiting", "e1", SOON_S)
        assert not Path(f"/proc/{pid}").exists()
        assert " np" not in shell.type("ip link show")
        assert " np" not in shell.type("ovs-vsctl show")
        shell.type("netctl endpoint detach e1")
        remove_containers(engine)


def test_attaching_twice_at_once_is_attaching_once(shell: Shell, engine: Engine, network: str) -> None:
    for name in ("c1", "c2"):
        start_container(engine, name)
    shell.type("netctl endpoint create e1 --network web")
    twice = [shell.start("netctl endpoint attach e1 --container c1") for _ in range(2)]
    said = [each.communicate(timeout=90)[0] for each in twice]
    assert [each.returncode for each in twice] == [0, 0], said
    assert addresses(inside(engine, "c1")) == {"eth0": ["12.0.0.1/24"]}

    shell.type("netctl endpoint create e2 --network web")
    rivals = [shell.start(f"netctl endpoint attach e2 --container c{number}") for number in (1, 2)]
    said = [each.communicate(timeout=90)[0] for each in rivals]
    assert sorted(each.returncode for each in rivals) == [0, 1], said
    assert sum("refused: endpoint-bound" in each for each in said) == 1


def test_two_endpoints_of_one_container_are_two_interfaces(shell: Shell, engine: Engine, network: str) -> None:
    start_container(engine, "c1")
    shell.type("netctl network create db --subnet 12.1.0.0/24")
    both = [shell.start(f"netctl endpoint create e1 --network {name} --container c1") for name in ("web", "db")]
    said = [each.communicate(timeout=90)[0] for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    found = addresses(inside(engine, "c1"))
    assert set(found) == {"eth0", "eth1"}
    assert sorted(found.values()) == [["12.0.0.1/24"], ["12.1.0.1/24"]]
    shell.type("netctl endpoint delete e1 --network db")
    shell.type("netctl network delete db")


def test_a_container_with_a_network_of_the_engine_gets_the_next_interface(
    shell: Shell, engine: Engine, network: str
) -> None:
    engine.docker("network", "create", "theirs", "--subnet", "10.77.0.0/24")
    start_container(engine, "c1", "--network", "theirs")
    shell.type("netctl network create routed --subnet 12.2.0.0/24 --gateway 12.2.0.254")
    shell.type("netctl endpoint create e1 --network routed --container c1")
    container = inside(engine, "c1")
    assert addresses(container) == {"eth0": ["10.77.0.2/24"], "eth1": ["12.2.0.1/24"]}
    assert "default via 10.77.0.1 dev eth0" in container.run("ip", "route").stdout  # the one it had is kept
    start_container(engine, "c2")
    shell.type("netctl endpoint create e2 --network routed --container c2")
    assert "default via 12.2.0.254 dev eth0" in inside(engine, "c2").run("ip", "route").stdout
    for name in ("e1", "e2"):
        shell.type(f"netctl endpoint delete {name}")
    shell.type("netctl network delete routed")
    remove_containers(engine)
    engine.docker("network", "rm", "theirs")


def test_an_engine_that_is_killed_and_comes_back_takes_no_port_away(
    shell: Shell, host: Host, engine: Engine, network: str
) -> None:
    """Containers die with it here (the next engine ends them); an endpoint that waits is attached by the new one."""
    shell.type("netctl endpoint create e1 --network web --container later")
    engine.kill()
    said = shell.type("netctl endpoint create e2 --network web --container c2")
    assert "waiting for c2" in said
    with shell.following() as journal:
        engine.start()
        start_container(engine, "later")
        journal.until_port("bound", "e1")
        start_container(engine, "c2")
        journal.until_port("bound", "e2")
