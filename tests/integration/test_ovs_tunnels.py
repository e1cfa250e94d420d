"""Endpoints of VXLAN networks on several hosts: real switches, real packets, each host driven by its driver alone."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from ipaddress import ip_interface
from pathlib import Path

import pytest

from host_actor.drivers.contract import (
    Done,
    PortSpec,
    Remote,
    RemoteEndpoint,
    RemoteFlood,
    RemoteTunnel,
    RemoteVtep,
    Sandbox,
)
from host_actor.drivers.ovs import OvsDriver
from host_actor.drivers.ovs_flows import link_local_of
from host_actor.drivers.ovs_remotes import remote_flows
from host_actor.planner import plan
from services.runtime.errors import Unavailable
from services.runtime.uplinks import Uplink
from tests.harness.frames import BROADCAST, Wire, ethernet, udp4, vxlan
from tests.harness.hosts import BRIDGE, UNDERLAY, HostLoop, RunningHost, running_hosts
from tests.harness.netns import NetworkNamespace
from tests.harness.ovs_world import mac_of
from tests.requires import needs_ovs, needs_tool

pytestmark = [needs_ovs, needs_tool("busybox")]

VNI = 5001
UPLINK = Uplink("eth1")
IPV4 = 0x0800
WITHIN_S = 60.0
AGE = re.compile(r"cookie=(0x[0-9a-f]+), duration=([0-9.]+)s, (table=\d+), .*n_bytes=\d+, (.*)$")


class Driven:
    """A host with its driver, and what it shall have."""

    def __init__(self, host: RunningHost, make_namespace: Callable[[str], NetworkNamespace]) -> None:
        self.host = host
        self._make_namespace = make_namespace
        self._loop = HostLoop(host.namespace)
        self.containers: dict[int, NetworkNamespace] = {}
        self.ports: dict[str, PortSpec] = {}
        self.remotes: list[Remote] = [RemoteTunnel(host.vtep)]
        self.changes: list[str] = []
        self.uplinks: tuple[Uplink, ...] = ()
        self.start()

    def start(self) -> None:
        """A driver of this host's switch runs."""
        self.driver = OvsDriver(run_dir=self.host.switch.run_dir, vtep=self.host.vtep, uplinks=self.uplinks)
        self._loop.run(self.driver.open(self.changes.append))

    def stop(self) -> None:
        self._loop.run(self.driver.close())

    def close(self) -> None:
        self.stop()
        self._loop.close()

    def has(
        self, number: int, vni: int = VNI, host_part: int | None = None, epoch: int = 7, vlan: int | None = None
    ) -> PortSpec:
        """Endpoint `number` is to be here; its addresses and MAC are those of `host_part`."""
        if number not in self.containers:
            self.containers[number] = self._make_namespace(f"c{number}")
        namespace = self.containers[number]
        last = number if host_part is None else host_part
        spec = PortSpec(
            endpoint=endpoint_of(number),
            epoch=epoch,
            tenant="acme",
            network=f"net{vlan or vni}",
            name=f"web{number}",
            mac=mac_of(last),
            addresses=(ip_interface(f"10.0.0.{last}/16"), ip_interface(f"fd00::{last:x}/64")),
            gateways=(),
            encap="vxlan" if vlan is None else "vlan",
            tag=vlan or vni,
            mtu_bytes=1450,
            sandbox=Sandbox(f"netns:{namespace.path.stat().st_ino}", str(namespace.path)),
        )
        self.ports[spec.endpoint] = spec
        return spec

    def knows(self, *others: Driven) -> None:
        """What these hosts have is to be reached from here, and nothing else."""
        self.remotes = [RemoteTunnel(self.host.vtep)]
        for other in others:
            self.remotes.append(RemoteVtep(other.host.vtep, other.host.vtep_mac))
            common = {spec.tag for spec in self.ports.values() if spec.encap == "vxlan"}
            there = [spec for spec in other.ports.values() if spec.encap == "vxlan" and spec.tag in common]
            self.remotes += [RemoteFlood(vni, other.host.vtep) for vni in {spec.tag for spec in there}]
            self.remotes += [elsewhere(spec, other) for spec in there]

    def converge(self) -> int:
        """The switch has exactly what it shall have; how many operations that took."""
        return self._loop.run(self._converge())

    async def _converge(self) -> int:
        wanted = {self.driver.mark_of(each): each for each in self.remotes}
        ops = plan(self.ports, await self.driver.observe(), wanted)
        outcomes = await self.driver.execute(ops)
        assert [outcome for outcome in outcomes if not isinstance(outcome, Done)] == []
        assert plan(self.ports, await self.driver.observe(), wanted) == ()
        return len(ops)

    def until_converged(self) -> None:
        """The same, of a switch that is just being started."""
        deadline = time.monotonic() + WITHIN_S
        while True:
            try:
                self.converge()
            except (Unavailable, AssertionError):
                assert time.monotonic() < deadline
            else:
                return

    def pings(self, number: int, address: str, wait_s: int = 2) -> bool:
        command = ("busybox", "ping", "-c", "1", "-W", str(wait_s), address)
        return self.containers[number].run(*command, check=False).returncode == 0

    def trace(self, packet: str) -> str:
        """What the switch would do with a packet."""
        return self.host.switch.run("ovs-appctl", "ofproto/trace", "vlanBr", packet)

    def flow_ages(self) -> dict[str, float]:
        """Of each flow in words, how old it is in seconds."""
        shown = self.host.switch.run("ovs-ofctl", "-O", "OpenFlow15", "dump-flows", "vlanBr")
        ages = {}
        for line in shown.splitlines():
            if found := AGE.search(line):
                ages[f"{found[1]} {found[3]} {found[4]}"] = float(found[2])
        return ages

    def flows(self) -> list[str]:
        """All flows, as the switch shows them to people."""
        shown = self.host.switch.run("ovs-ofctl", "-O", "OpenFlow15", "--no-stats", "dump-flows", "vlanBr")
        return sorted(line.strip() for line in shown.splitlines() if "cookie" in line)


class Capture:
    """The tunnelled packets that come to a host."""

    def __init__(self, host: RunningHost) -> None:
        self._socket = host.namespace.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
        self._socket.bind(("eth0", 3))
        self._socket.setblocking(False)

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def datagrams(self) -> int:
        """How many of UDP port 4789 have come so far."""
        count = 0
        with suppress(BlockingIOError):
            while True:
                raw = self._socket.recv(1 << 16)
                count += raw[12:14] == b"\x08\x00" and raw[36:38] == (4789).to_bytes(2, "big")
        return count


def endpoint_of(number: int) -> str:
    return f"e{number:011d}x{number:03d}"


def elsewhere(spec: PortSpec, host: Driven) -> RemoteEndpoint:
    addresses = tuple(interface.ip for interface in spec.addresses)
    return RemoteEndpoint(spec.endpoint, spec.epoch, spec.tag, spec.mac, addresses, host.host.vtep)


def know_each_other(hosts: Sequence[Driven]) -> None:
    for host in hosts:
        host.knows(*(other for other in hosts if other is not host))
        host.converge()


@pytest.fixture
def is_ipv6(request: pytest.FixtureRequest) -> bool:
    return bool(getattr(request, "param", False))


@pytest.fixture
def hosts(short_path: Path, netns: Callable[[str], NetworkNamespace], is_ipv6: bool) -> Iterator[list[Driven]]:
    with running_hosts(short_path, ("h1", "h2", "h3"), is_ipv6=is_ipv6) as running:
        driven = [Driven(host, netns) for host in running]
        try:
            yield driven
        finally:
            for each in driven:
                each.close()


def frame(to: str, sender: int, text: bytes) -> bytes:
    """A UDP datagram of endpoint `sender`."""
    return ethernet(to, mac_of(sender), IPV4, udp4(f"10.0.0.{sender}", "10.0.0.2", text))


@pytest.mark.parametrize("is_ipv6", [False, True], ids=["ipv4-underlay", "ipv6-underlay"], indirect=True)
def test_the_first_packet_arrives_and_everything_is_answered(hosts: list[Driven]) -> None:
    one, two, _ = hosts
    one.has(1)
    two.has(2)
    know_each_other([one, two])
    assert one.pings(1, "10.0.0.2", wait_s=1), one.flows()
    assert two.pings(2, "10.0.0.1", wait_s=1)
    assert one.pings(1, "fd00::2")
    assert two.pings(2, "fd00::1")
    assert one.pings(1, f"{link_local_of(mac_of(2))}%eth0")


def test_tcp_carries_data_at_the_full_mtu(hosts: list[Driven]) -> None:
    one, two, _ = hosts
    one.has(1)
    two.has(2)
    know_each_other([one, two])
    payload = bytes(range(256)) * 2048
    with two.containers[2].call(lambda: socket.create_server(("10.0.0.2", 5001))) as server:
        server.settimeout(30)

        def send() -> None:
            with socket.create_connection(("10.0.0.2", 5001), timeout=30) as connection:
                connection.sendall(payload)

        sender = threading.Thread(target=one.containers[1].call, args=(send,))
        sender.start()
        connection, _ = server.accept()
        with connection:
            received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        sender.join()
    assert received == payload
    words = ("busybox", "ping", "-c", "1", "-W", "10", "-s", str(1450 - 28), "10.0.0.2")
    assert one.containers[1].run(*words, check=False).returncode == 0


def test_the_same_addresses_in_two_networks_never_meet(hosts: list[Driven]) -> None:
    one, two, _ = hosts
    for number, vni in ((1, VNI), (11, VNI + 1)):
        one.has(number, vni, host_part=1)
        two.has(number + 1, vni, host_part=2)
    two.has(22, vlan=VNI & 0xFFF, host_part=2)
    two.has(32, vlan=VNI & 0xFFF, host_part=3)
    one.has(21, vlan=VNI & 0xFFF, host_part=1)
    know_each_other([one, two])
    red, blue, vlan = two.containers[2], two.containers[12], two.containers[22]
    for to in (mac_of(2), BROADCAST):
        with Wire(red) as hears_red, Wire(blue) as hears_blue, Wire(vlan) as hears_vlan:
            with Wire(one.containers[1]) as sends:
                sends.send(frame(to, 1, b"to red"))
            hears_red.heard_until(b"to red")
            with Wire(one.containers[11]) as sends:
                sends.send(frame(to, 1, b"to blu"))
            assert not any(b"to red" in each for each in hears_blue.heard_until(b"to blu"))
            with Wire(two.containers[32]) as sends:
                sends.send(frame(to, 3, b"to vlan"))
            assert not any(b"to red" in e or b"to blu" in e for e in hears_vlan.heard_until(b"to vlan"))
    assert not one.pings(21, "10.0.0.2", wait_s=1), "a VLAN network without an uplink ends at its host"


def test_vlans_and_tunnels_with_the_same_addresses_never_meet_between_hosts(hosts: list[Driven]) -> None:
    one, two, _ = hosts
    for host in (one, two):
        host.stop()
        host.host.take_uplink(UPLINK)
        host.uplinks = (UPLINK,)
        host.start()
    kinds: dict[str, dict[str, int]] = {
        "red": {"vni": VNI},
        "blu": {"vni": 100},
        "grn": {"vlan": 100},
        "ylw": {"vlan": 200},
    }
    numbers = dict(zip(kinds, (1, 11, 21, 31), strict=True))
    for word, number in numbers.items():
        one.has(number, host_part=1, **kinds[word])
        two.has(number + 1, host_part=2, **kinds[word])
    know_each_other([one, two])
    for word, number in numbers.items():
        assert one.pings(number, "10.0.0.2"), word
    for to in (mac_of(2), BROADCAST):
        with ExitStack() as stack:
            hears = {word: stack.enter_context(Wire(two.containers[each + 1])) for word, each in numbers.items()}
            for word, number in numbers.items():
                with Wire(one.containers[number]) as sends:
                    sends.send(frame(to, 1, b"to " + word.encode()))
            for word, wire in hears.items():
                heard = [each[-3:].decode() for each in wire.heard_until(b"to " + word.encode()) if b"to " in each]
                assert heard == [word]


def test_broadcasts_go_to_hosts_with_members_and_to_no_others(hosts: list[Driven]) -> None:
    one, two, three = hosts
    one.has(1)
    two.has(2)
    three.has(3, VNI + 1)
    know_each_other(hosts)
    know_each_other([one, two])  # the third has no member of that network: it has no place there
    with Wire(two.containers[2]) as hears, Wire(one.containers[1]) as sends, Capture(three.host) as third:
        for word in (b"first", b"second"):
            sends.send(frame(BROADCAST, 1, word))
            assert [each[42:] for each in hears.heard_until(word) if b"first" in each or b"second" in each] == [word]
        assert third.datagrams() == 0
    trace = one.trace(f"in_port=np-vxlan,tun_id={VNI},tun_src={two.host.vtep},dl_src={mac_of(2)},dl_dst={BROADCAST}")
    done = trace.rpartition("Datapath actions: ")[2].strip()
    assert done.isdigit(), f"out of one port here, and into no tunnel: {done}"


def test_only_the_host_that_an_endpoint_is_bound_to_speaks_for_it(hosts: list[Driven]) -> None:
    one, two, three = hosts
    one.has(1)
    two.has(2)
    three.has(3)
    know_each_other(hosts)
    honest = frame(mac_of(1), 2, b"honest")
    forged = {
        "an unknown VTEP": ("172.30.0.99", frame(mac_of(1), 2, b"forged")),
        "the VTEP of another endpoint": (str(three.host.vtep), frame(mac_of(1), 2, b"forged")),
        "a MAC that nobody has": (str(two.host.vtep), frame(mac_of(1), 9, b"forged")),
        "a broadcast of a stranger": ("172.30.0.99", frame(BROADCAST, 2, b"forged")),
    }
    with Wire(NetworkNamespace(UNDERLAY), BRIDGE) as wire, Wire(one.containers[1]) as hears:
        for name, (vtep, inner) in forged.items():
            for source, each in ((vtep, inner), (str(two.host.vtep), honest)):
                outer = vxlan(source, str(one.host.vtep), VNI, each)
                wire.send(ethernet(one.host.vtep_mac, two.host.vtep_mac, IPV4, outer))
            assert not any(b"forged" in each for each in hears.heard_until(b"honest")), name


def test_an_endpoint_that_moves_is_followed_by_a_few_flows(hosts: list[Driven]) -> None:
    one, two, three = hosts
    one.has(1)
    for number in range(2, 8):
        two.has(number)
    know_each_other(hosts)
    before = set(one.flows())
    moved = two.ports.pop(endpoint_of(2))
    three.containers[2] = two.containers.pop(2)
    three.has(2, epoch=moved.epoch + 1)
    two.converge()
    three.knows(one, two)
    three.converge()
    one.knows(two, three)
    operations = one.converge()
    assert operations <= 4, "the old place, the new one, and the first member of another host"
    gone, come = before - set(one.flows()), set(one.flows()) - before
    assert len(gone) == len(come) == len(remote_flows(elsewhere(moved, two)))
    assert one.pings(1, "10.0.0.2", wait_s=1)


def test_a_driver_that_starts_again_changes_nothing(hosts: list[Driven]) -> None:
    one, two, _ = hosts
    one.has(1)
    two.has(2)
    know_each_other([one, two])
    ages = one.flow_ages()
    one.stop()
    one.start()
    one.converge()
    later = one.flow_ages()
    assert len(ages) == len(one.flows())
    assert later.keys() == ages.keys()
    assert all(later[place] >= ages[place] for place in ages), "every flow is as old as before, and older"


def test_all_is_there_again_after_vswitchd_was_killed(hosts: list[Driven]) -> None:
    one, two, _ = hosts
    one.has(1)
    two.has(2)
    know_each_other([one, two])
    flows = one.flows()
    one.host.restart_switch()
    one.until_converged()
    assert one.flows() == flows
    assert str(two.host.vtep) in one.host.known_neighbours()
    assert one.pings(1, "10.0.0.2", wait_s=1), "the VTEP address is on its link again, and the neighbour known"
    assert two.pings(2, "10.0.0.1", wait_s=1)
