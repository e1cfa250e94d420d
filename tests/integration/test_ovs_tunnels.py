"""Endpoints of VXLAN networks on several hosts: real switches, real packets, each host driven by its driver alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_interface
from pathlib import Path

import pytest

from host_actor.drivers.contract import (
    Done,
    EnsureRemote,
    PortSpec,
    Remote,
    RemoteEndpoint,
    RemoteFlood,
    RemoteTunnel,
    RemoteVtep,
    Sandbox,
)
from host_actor.drivers.ovs import OvsDriver
from host_actor.planner import plan
from tests.harness.hosts import HostLoop, RunningHost, running_hosts
from tests.harness.netns import NetworkNamespace
from tests.harness.ovs_world import mac_of
from tests.requires import needs_ovs, needs_tool

pytestmark = [needs_ovs, needs_tool("busybox")]

VNI = 5001


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
        self.start()

    def start(self) -> None:
        """A driver of this host's switch runs."""
        self.driver = OvsDriver(run_dir=self.host.switch.run_dir, vtep=self.host.vtep)
        self._loop.run(self.driver.open(self.changes.append))

    def stop(self) -> None:
        self._loop.run(self.driver.close())

    def close(self) -> None:
        self.stop()
        self._loop.close()

    def has(self, number: int, vni: int = VNI, host_part: int | None = None, epoch: int = 7) -> PortSpec:
        """Endpoint `number` is to be here; its addresses and MAC are those of `host_part`."""
        if number not in self.containers:
            self.containers[number] = self._make_namespace(f"c{number}")
        namespace = self.containers[number]
        last = number if host_part is None else host_part
        spec = PortSpec(
            endpoint=f"e{number:011d}x{number:03d}",
            epoch=epoch,
            tenant="acme",
            network=f"net{vni}",
            name=f"web{number}",
            mac=mac_of(last),
            addresses=(ip_interface(f"10.0.0.{last}/16"), ip_interface(f"fd00::{last:x}/64")),
            gateways=(),
            encap="vxlan",
            tag=vni,
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
            self.remotes += [RemoteFlood(vni, other.host.vtep) for vni in {spec.tag for spec in other.ports.values()}]
            self.remotes += [elsewhere(spec, other) for spec in other.ports.values()]

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

    def execute(self, *remotes: Remote) -> None:
        """These are told to the driver, whatever it has already."""
        ops = [EnsureRemote(remote) for remote in remotes]
        assert self._loop.run(self.driver.execute(ops)) == [Done(op) for op in ops]

    def pings(self, number: int, address: str, wait_s: int = 2) -> bool:
        command = ("busybox", "ping", "-c", "1", "-W", str(wait_s), address)
        return self.containers[number].run(*command, check=False).returncode == 0

    def flows(self) -> list[str]:
        """All flows, as the switch shows them to people."""
        shown = self.host.switch.run("ovs-ofctl", "-O", "OpenFlow15", "--no-stats", "dump-flows", "vlanBr")
        return sorted(line.strip() for line in shown.splitlines() if "cookie" in line)


def elsewhere(spec: PortSpec, host: Driven) -> RemoteEndpoint:
    addresses = tuple(interface.ip for interface in spec.addresses)
    return RemoteEndpoint(spec.endpoint, spec.epoch, spec.tag, spec.mac, addresses, host.host.vtep)


def know_each_other(hosts: Sequence[Driven]) -> None:
    for host in hosts:
        host.knows(*(other for other in hosts if other is not host))
        host.converge()


@pytest.fixture(params=[False, True], ids=["ipv4", "ipv6"])
def is_ipv6(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def hosts(short_path: Path, netns: Callable[[str], NetworkNamespace], is_ipv6: bool) -> Iterator[list[Driven]]:
    with running_hosts(short_path, ("h1", "h2", "h3"), is_ipv6=is_ipv6) as running:
        driven = [Driven(host, netns) for host in running]
        try:
            yield driven
        finally:
            for each in driven:
                each.close()


def test_the_first_packet_arrives_and_everything_is_answered(hosts: list[Driven]) -> None:
    one, two, _ = hosts
    one.has(1)
    two.has(2)
    know_each_other([one, two])
    assert one.pings(1, "10.0.0.2", wait_s=1), one.flows()
    assert two.pings(2, "10.0.0.1", wait_s=1)
    assert one.pings(1, "fd00::2")
    assert two.pings(2, "fd00::1")
