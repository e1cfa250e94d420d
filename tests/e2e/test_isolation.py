"""Two tenants with the same names and addresses on one host never meet, and nobody sends as somebody else."""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness import daemon
from tests.harness.daemon import Host
from tests.harness.frames import BROADCAST, Wire, advertisement, arp, ethernet, packed, udp4
from tests.harness.netns import NetworkNamespace, network_namespace
from tests.harness.typed import Shell
from tests.requires import needs_ovs

pytestmark = needs_ovs

IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD
REQUEST, REPLY = 1, 2
NOBODY = "00:00:00:00:00:00"
PORT = 5000
UDP_PORT = 9  # of `udp4`
WITHIN_S = 30.0
REFUSED_WITHIN_S = 0.5
MARK = b"after the frames of the test"
LAST = b"the last that is sent"
SECRET = b"from another tenant"


class Machine(NamedTuple):
    """An endpoint in a container of its own."""

    namespace: NetworkNamespace
    address: str
    mac: str
    tag: int


Machines = dict[str, Machine]


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="np") as folder, daemon.host(Path(folder)) as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def machines(host: Host) -> Iterator[Machines]:
    """`red1` and `blue1` are 12.0.0.1 of their tenants, and so on; `red3` has no like in blue; `other1` is red's, in
    another network.
    """
    shell = Shell(host)
    with ExitStack() as stack:
        for tenant in ("red", "blue"):
            shell.type(f"netctl tenant create {tenant}")
            shell.type(f"netctl -t {tenant} network create web --subnet 12.0.0.0/24")
        shell.type("netctl -t red network create other --subnet 12.1.0.0/24")
        names = {"red": ("red1", "red2", "red3"), "blue": ("blue1", "blue2"), "other": ("other1", "other2")}
        found = {}
        for group, members in names.items():
            tenant, network = ("red", "other") if group == "other" else (group, "web")
            for name in members:
                namespace = stack.enter_context(network_namespace(name))
                endpoint = f"e{name[-1]}"
                shell.type(
                    f"netctl -t {tenant} endpoint create {endpoint} --network {network} --container netns:{name}"
                )
                status = shell.show(f"-t {tenant} endpoint show {endpoint} --network {network}")["status"]
                address = status["addresses"][0].partition("/")[0]
                found[name] = Machine(namespace, address, status["mac"], status["tag"])
        yield found


def is_answered(machine: Machine, address: str) -> bool:
    ping = machine.namespace.run("busybox", "ping", "-c", "1", "-W", "1", address, check=False)
    return ping.returncode == 0


def datagram(sender: Machine, receiver: Machine, text: bytes) -> bytes:
    """What `sender` may send to `receiver`."""
    return ethernet(receiver.mac, sender.mac, IPV4, udp4(sender.address, receiver.address, text))


def heard(machines: Machines, listener: str, neighbour: str, sender: str, mate: str, *frames: bytes) -> list[bytes]:
    """What `listener` hears of frames that `sender` sends.

    The switch has had all of them when `mate` hears what `sender` sent after them; what `neighbour` sends to `listener`
    then is the end.
    """
    with ExitStack() as stack:
        ear, near, by, beside = (
            stack.enter_context(Wire(machines[name].namespace)) for name in (listener, neighbour, sender, mate)
        )
        for frame in frames:
            by.send(frame)
        by.send(datagram(machines[sender], machines[mate], MARK))
        beside.heard_until(MARK)
        near.send(datagram(machines[neighbour], machines[listener], LAST))
        return ear.heard_until(LAST)[:-1]


def test_the_same_addresses_are_used_twice_on_different_tags(machines: Machines) -> None:
    assert machines["red1"].address == machines["blue1"].address == "12.0.0.1"
    assert machines["red2"].address == machines["blue2"].address == "12.0.0.2"
    tags = {machines[name].tag for name in ("red1", "blue1", "other1")}
    assert len(tags) == 3
    assert len({machine.mac for machine in machines.values()}) == len(machines)


def test_pings_reach_their_own_network_and_no_other(machines: Machines) -> None:
    assert is_answered(machines["red1"], "12.0.0.2")
    assert is_answered(machines["blue1"], "12.0.0.2")
    assert is_answered(machines["red1"], "12.0.0.3")
    assert not is_answered(machines["blue1"], "12.0.0.3")
    assert not is_answered(machines["red1"], machines["other1"].address)


def test_connections_reach_their_own_network_and_no_other(machines: Machines) -> None:
    def server(name: str) -> socket.socket:
        return machines[name].namespace.call(lambda: socket.create_server(("0.0.0.0", PORT)))

    def greeting(name: str, address: str, listening: socket.socket) -> bytes:
        """What `address` says to a connection from `name`, through whichever machine listens there."""

        def connect() -> socket.socket:
            return socket.create_connection((address, PORT), timeout=REFUSED_WITHIN_S)

        with machines[name].namespace.call(connect) as client:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"here")
            return client.recv(16)

    with server("red2") as of_red, server("blue2") as of_blue, server("red3") as only_red:
        for listening in (of_red, of_blue, only_red):
            listening.settimeout(REFUSED_WITHIN_S)
        assert greeting("red1", "12.0.0.2", of_red) == b"here"
        assert greeting("blue1", "12.0.0.2", of_blue) == b"here"
        assert greeting("red1", "12.0.0.3", only_red) == b"here"
        with pytest.raises(OSError, match=r"timed out|unreachable|No route"):
            greeting("blue1", "12.0.0.3", only_red)


def test_nothing_that_one_tenant_sends_is_heard_by_the_other(machines: Machines) -> None:
    red, blue = machines["red1"], machines["blue1"]
    frames = (
        ethernet(BROADCAST, blue.mac, ARP, arp(REQUEST, (blue.mac, blue.address), (NOBODY, "12.0.0.3"))),
        ethernet(BROADCAST, blue.mac, IPV4, udp4(blue.address, "12.0.0.255", SECRET)),
        ethernet(BROADCAST, blue.mac, IPV4, udp4(blue.address, "255.255.255.255", SECRET)),
        ethernet("01:00:5e:00:00:fb", blue.mac, IPV4, udp4(blue.address, "224.0.0.251", SECRET)),
        ethernet(red.mac, blue.mac, IPV4, udp4(blue.address, red.address, SECRET)),
        ethernet(red.mac, blue.mac, IPV4, udp4(blue.address, red.address, SECRET), tag=red.tag),
        ethernet(BROADCAST, blue.mac, IPV4, udp4(blue.address, red.address, SECRET), tag=red.tag),
    )
    for listener, neighbour in (("red1", "red2"), ("red3", "red2"), ("other1", "other2")):
        found = heard(machines, listener, neighbour, "blue1", "blue2", *frames)
        assert not [frame for frame in found if SECRET in frame or packed(blue.mac) in frame]


def test_a_broadcast_is_heard_in_its_own_network(machines: Machines) -> None:
    red = machines["red1"]
    sent = ethernet(BROADCAST, red.mac, IPV4, udp4(red.address, "12.0.0.255", SECRET))
    assert any(SECRET in frame for frame in heard(machines, "red3", "red2", "red1", "red2", sent))


SPOOFS = ("address", "mac", "arp", "neighbour", "tag")


@pytest.mark.parametrize("what", SPOOFS)
def test_nobody_sends_as_somebody_else(machines: Machines, what: str) -> None:
    me, victim, other = machines["red1"], machines["red3"], machines["red2"]
    stranger = "02:00:00:00:00:99"
    frame = {
        "address": ethernet(victim.mac, me.mac, IPV4, udp4(other.address, victim.address, SECRET)),
        "mac": ethernet(victim.mac, stranger, IPV4, udp4(me.address, victim.address, SECRET)),
        "arp": ethernet(BROADCAST, me.mac, ARP, arp(REPLY, (me.mac, other.address), (victim.mac, victim.address))),
        "neighbour": ethernet("33:33:00:00:00:01", me.mac, IPV6, advertisement("fe80::1", "fe80::1", me.mac)),
        "tag": ethernet(victim.mac, me.mac, IPV4, udp4(me.address, victim.address, SECRET), tag=me.tag),
    }[what]
    found = heard(machines, "red3", "red2", "red1", "red2", frame)
    assert not [each for each in found if SECRET in each or packed(me.mac) in each]


def test_a_container_does_not_reach_the_host_it_is_on(host: Host, machines: Machines) -> None:
    """Not even by the host's own MAC: the switch in user space hears a port's frames, and so does the host's kernel."""
    host_address = "12.9.9.9"
    host.run("ip", "address", "add", host_address, "dev", "lo")
    device = Shell(host).show("-t red endpoint show e1 --network web")["status"]["device"]
    for interface in ("all", device):
        host.run("sysctl", "-w", f"net.ipv4.conf.{interface}.rp_filter=0")
    link = json.loads(host.run("ip", "-json", "link", "show", device).stdout)[0]
    red = machines["red1"]
    frame = ethernet(link["address"], red.mac, IPV4, udp4(red.address, host_address, SECRET))
    with (
        host.namespace.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as ear,
        Wire(red.namespace) as by,
    ):
        ear.bind((host_address, UDP_PORT))
        ear.settimeout(WITHIN_S)
        by.send(frame)
        ear.sendto(LAST, (host_address, UDP_PORT))  # what came before it is heard before it
        assert ear.recv(100) == LAST
