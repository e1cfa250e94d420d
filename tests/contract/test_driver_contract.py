"""Every registered driver under the one suite of `driver_contract.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host_actor.drivers import DRIVERS
from host_actor.drivers.contract import (
    Driver,
    Op,
    Part,
    PortSpec,
    Remote,
    RemoteEndpoint,
    RemoteFlood,
    Sandbox,
)
from host_actor.drivers.memory import MemoryDriver, MemorySwitch
from services.runtime.errors import Unavailable
from tests.contract.driver_contract import CUTS_S, VTEP, Bench, DriverContract, walk
from tests.harness.netns import NetworkNamespace, run
from tests.harness.openvswitch import RunningSwitch
from tests.requires import needs_ovs


class MemoryBench:
    """The remembered switch."""

    def __init__(self) -> None:
        self.switch = MemorySwitch()
        self._runs: dict[int, int] = {}

    def driver(self) -> Driver:
        return MemoryDriver(self.switch)

    def sandbox(self, number: int) -> Sandbox:
        run = self._runs.setdefault(number, 1)
        return Sandbox(f"c{number}:{run}", f"/run/netns/c{number}")

    def restart(self, number: int) -> None:
        self.end(number)
        self._runs[number] += 1

    def end(self, number: int) -> None:
        key = self.sandbox(number).key
        self.switch.dead_sandboxes.add(key)
        for port in list(self.switch.ports.values()):
            if port.sandbox_key == key and Part.LINK in port.parts:
                self.switch.lose(port.endpoint, [Part.LINK])

    def remove(self, port: PortSpec, part: Part) -> None:
        self.switch.lose(port.endpoint, [part])

    def remove_remote(self, driver: Driver, remote: Remote) -> None:
        self.switch.lose_remote(driver.mark_of(remote))

    async def cut_short(self, driver: Driver, ops: Sequence[Op], cut: int) -> None:
        self.switch.fails_at_step = self.switch.steps + cut % 10
        try:
            await driver.execute(ops)
        except Unavailable:
            return
        finally:
            self.switch.fails_at_step = None


class OvsBench:
    """A real Open vSwitch with named namespaces."""

    def __init__(self, switch: RunningSwitch, netns: Callable[[str], NetworkNamespace]) -> None:
        self._switch = switch
        self._netns = netns
        self._sandboxes: dict[int, Sandbox] = {}
        self._count = 0
        switch.run("ovs-vsctl", "add-br", "br-phy", "--", "set", "bridge", "br-phy", "datapath_type=netdev")
        run("ip", "address", "add", f"{VTEP}/24", "dev", "br-phy")
        run("ip", "link", "set", "br-phy", "up")

    def driver(self) -> Driver:
        from host_actor.drivers.ovs import OvsDriver

        return OvsDriver("vlanBr", "netdev", self._switch.run_dir, vtep=VTEP)

    def sandbox(self, number: int) -> Sandbox:
        if number not in self._sandboxes:
            self._begin(number)
        return self._sandboxes[number]

    def _begin(self, number: int) -> None:
        self._count += 1
        namespace = self._netns(f"c{number}-{self._count}")
        found = namespace.path.stat()
        self._sandboxes[number] = Sandbox(f"netns:{found.st_ino}:{found.st_ctime_ns}", str(namespace.path))

    def restart(self, number: int) -> None:
        if number in self._sandboxes:
            self.end(number)
        self._begin(number)

    def end(self, number: int) -> None:
        run("umount", self.sandbox(number).netns_path)

    def remove(self, port: PortSpec, part: Part) -> None:
        match part:
            case Part.LINK:
                run("ip", "link", "delete", port.device)
            case Part.SWITCH:
                self._switch.run("ovs-vsctl", "del-port", "vlanBr", port.device)
            case Part.RULES:
                self._switch.run("ovs-ofctl", "-O", "OpenFlow14", "del-flows", "vlanBr", f"in_port={port.device}")

    def remove_remote(self, driver: Driver, remote: Remote) -> None:
        flows = ("ovs-ofctl", "-O", "OpenFlow15")
        match remote:
            case RemoteEndpoint():
                self._switch.run(*flows, "del-flows", "vlanBr", f"table=50,dl_src={remote.mac}")
            case RemoteFlood():
                bucket = f"command_bucket_id={int(remote.vtep)}"
                self._switch.run(*flows, "remove-buckets", "vlanBr", f"group_id={remote.vni | 1 << 24},{bucket}")
            case _:
                self._switch.run("ovs-vsctl", "del-port", "vlanBr", "np-vxlan")

    async def cut_short(self, driver: Driver, ops: Sequence[Op], cut: int) -> None:
        with anyio.move_on_after(CUTS_S[cut % len(CUTS_S)]):
            await driver.execute(ops)


def test_every_registered_driver_is_under_contract() -> None:
    assert set(DRIVERS) == {"memory", "ovs"}, "a new driver gets a bench and a class below"


class TestMemory(DriverContract):
    @pytest.fixture
    def bench(self) -> Bench:
        return MemoryBench()

    @given(st.integers(0, 2**32))
    @settings(max_examples=150, deadline=None)
    def test_any_walk_converges(self, seed: int) -> None:
        asyncio.run(walk(MemoryBench(), seed, steps=8))


@needs_ovs
class TestOvs(DriverContract):
    @pytest.fixture
    def bench(self, open_vswitch: RunningSwitch, netns: Callable[[str], NetworkNamespace]) -> Bench:
        return OvsBench(open_vswitch, netns)

    @pytest.mark.parametrize("seed", range(4))
    async def test_any_walk_converges(self, bench: Bench, seed: int) -> None:
        await walk(bench, seed, steps=4)
