"""A host for the Open vSwitch driver's tests: a real switch, containers' namespaces, and endpoints to put into them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_interface
from typing import Literal

from host_actor.drivers.contract import Done, EnsurePort, EnsureSwitch, Observed, Op, Part, PortSpec, Sandbox
from host_actor.drivers.ovs import OvsDriver
from services.runtime.uplinks import Uplink

from .netns import NetworkNamespace
from .openvswitch import RunningSwitch

WITHIN_S = 30.0


class OvsWorld:
    """Specs and packets for one driver. Container `n` is the namespace `c<n>`, its address ends in `n`."""

    def __init__(self, switch: RunningSwitch, make_namespace: Callable[[str], NetworkNamespace]) -> None:
        self.switch = switch
        self.containers: dict[int, NetworkNamespace] = {}
        self.changes: asyncio.Queue[str] = asyncio.Queue()
        self._make_namespace = make_namespace

    def container(self, number: int) -> NetworkNamespace:
        if number not in self.containers:
            self.containers[number] = self._make_namespace(f"c{number}")
        return self.containers[number]

    def spec(
        self,
        number: int,
        *,
        tag: int = 100,
        encap: Literal["vlan", "vxlan"] = "vlan",
        host_part: int | None = None,
        container: int | None = None,
        epoch: int = 7,
        gateway: str | None = "10.0.255.254",
    ) -> PortSpec:
        """Endpoint `number`; with `host_part`, its MAC and addresses are those of another number."""
        namespace = self.container(number if container is None else container)
        last = number if host_part is None else host_part
        return PortSpec(
            endpoint=f"e{number:011d}x{number:03d}",
            epoch=epoch,
            tenant="acme",
            network=f"net{tag}",
            name=f"web{number}",
            mac=mac_of(last),
            addresses=(ip_interface(f"10.0.{last >> 8}.{last & 255}/16"), ip_interface(f"fd00::{last:x}/64")),
            gateways=(ip_address(gateway),) if gateway else (),
            encap=encap,
            tag=tag,
            mtu_bytes=1450,
            sandbox=Sandbox(f"netns:{namespace.path.stat().st_ino}", str(namespace.path)),
        )

    def pings(self, number: int, address: str) -> bool:
        """Whether a container gets an answer from an address."""
        ran = self.container(number).run("busybox", "ping", "-c", "1", "-W", "2", address, check=False)
        return ran.returncode == 0

    async def change(self, words: str) -> str:
        """The first change told from now on whose reason holds these words."""
        async with asyncio.timeout(WITHIN_S):
            while words not in (reason := await self.changes.get()):
                pass
        return reason

    @asynccontextmanager
    async def driver(self, *uplinks: Uplink) -> AsyncIterator[OvsDriver]:
        """An open driver on the switch."""
        driver = OvsDriver(run_dir=self.switch.run_dir, uplinks=uplinks)
        await driver.open(self.changes.put_nowait)
        try:
            yield driver
        finally:
            await driver.close()


def mac_of(number: int) -> str:
    return f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"


async def done(driver: OvsDriver, *ops: Op) -> list[str]:
    """The interfaces that the operations answered with, all of them done."""
    outcomes = await driver.execute(ops)
    refused = [outcome for outcome in outcomes if not isinstance(outcome, Done)]
    assert not refused
    return [outcome.interface for outcome in outcomes if isinstance(outcome, Done)]


async def attached(driver: OvsDriver, *specs: PortSpec) -> list[str]:
    """The interfaces of these endpoints, attached to a switch that is ready."""
    return (await done(driver, EnsureSwitch(), *map(EnsurePort, specs)))[1:]


def is_whole(observed: Observed, *specs: PortSpec) -> bool:
    """Whether exactly these ports are there, in all their parts, on a switch that is ready."""
    parts = {endpoint: port.parts for endpoint, port in observed.ports.items()}
    return observed.is_switch_ready and parts == {spec.endpoint: frozenset(Part) for spec in specs}
