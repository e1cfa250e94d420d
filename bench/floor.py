"""The floor: what an attach costs on this switch if nobody has to be asked, told or remembered.

The same netlink messages, one OVSDB transaction and the same flows as the driver's, side by side, over connections
that stand; ready by the switch's own port event. No bus, no journal, no plan, nothing observed. It has a bridge of its
own on the switch that the measured daemon uses, so that both meet the same number of ports.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any, Final

from figures import Timeline
from sandboxes import Sandbox

from host_actor.drivers.contract import PortSpec
from host_actor.drivers.contract import Sandbox as Place
from host_actor.drivers.ovs_flows import common_flows, network_key, owner_of, port_flows
from host_actor.drivers.ovs_rows import make_bridge
from host_actor.netlink_veth import Born, LinkSpec, VethMaker
from host_actor.openflow import (
    BUCKET_LAST,
    GroupCommand,
    Port,
    add_flow,
    delete_by_cookie,
    group_mod,
    port_bucket,
)
from host_actor.openflow_client import OpenFlowClient
from host_actor.ovsdb import Operation, OvsdbClient, named, row_id, to_set
from services.open_vswitch import OpenVSwitch

BRIDGE: Final = "floorBr"
TAG: Final = 4000
KEY: Final = network_key("vlan", TAG)
MTU_BYTES: Final = 1500
FIRST_INDEX: Final = 1 << 24  # of links: far from the host actor's
FIRST_ADDRESS: Final = int(IPv4Address("10.202.0.1"))
READY_WITHIN_S: Final = 10.0


class Attached:
    """What one attach made, and how to take it away."""

    def __init__(self, number: int, spec: PortSpec, port_id: str) -> None:
        self.number = number
        self.spec = spec
        self.port_id = port_id
        self.device = _device(number)


class Floor:
    """Endpoints on a bridge of its own."""

    name = "floor"

    def __init__(self, switch: OpenVSwitch) -> None:
        self._switch = switch
        self._numbers = itertools.count(1)
        self._veths = VethMaker()
        self._database: OvsdbClient | None = None
        self._flows: OpenFlowClient | None = None
        self._waiting: dict[str, asyncio.Future[None]] = {}  # device -> when its port comes, or goes
        self._steady: Attached | None = None
        self._filled: list[Attached] = []

    async def open(self, steady: Sandbox) -> None:
        """The bridge stands, with the endpoint that all others ping."""
        await self._switch.start()
        self._database = await OvsdbClient.connect(str(self._switch.run_dir / "db.sock"), _lost)
        await self._database.transact(make_bridge(BRIDGE, "netdev", has_root=True))
        self._flows = await _connect_when_there(self._switch.run_dir / f"{BRIDGE}.mgmt", self._on_port)
        await self._flows.bundle([*map(add_flow, common_flows()), group_mod(GroupCommand.ADD, KEY)])
        await self._veths.open([FIRST_INDEX])
        self._steady, _ = await self._attach(steady)

    async def close(self) -> None:
        """No port of it is left; the bridge goes with the switch."""
        for attached in [*self._filled, *([self._steady] if self._steady else [])]:
            await self.detach(attached)
        await self._veths.close()
        for client in (self._database, self._flows):
            if client is not None:
                client.close()

    async def fill(self, sandboxes: list[Sandbox]) -> None:
        """An endpoint is in each of these."""
        for sandbox in sandboxes:
            self._filled.append((await self._attach(sandbox))[0])

    async def attach(self, sandbox: Sandbox) -> tuple[Attached, Timeline]:
        """An endpoint more, and when the steady one had answered it."""
        attached, line = await self._attach(sandbox)
        assert self._steady is not None
        target = str(self._steady.spec.addresses[0].ip)
        line.pinged_s = await asyncio.to_thread(sandbox.ping, target)
        return attached, line

    async def _attach(self, sandbox: Sandbox) -> tuple[Attached, Timeline]:
        number = next(self._numbers)
        line = Timeline(time.perf_counter())
        spec = _spec(number, sandbox)
        device = _device(number)
        there = self._expect(device)
        assert self._flows is not None
        joined = group_mod(GroupCommand.INSERT_BUCKET, KEY, [port_bucket(number)], BUCKET_LAST)
        flows = asyncio.create_task(self._flows.bundle([joined, *map(add_flow, port_flows(spec, number))]))
        rows: list[asyncio.Task[str]] = []

        def on_born(_: Born) -> None:
            rows.append(asyncio.create_task(self._insert_row(device, number, flows)))

        await self._veths.ensure(_link(spec, device), on_born)
        async with asyncio.timeout(READY_WITHIN_S):
            await there
            await self._flows.barrier()  # answered once packets from the new port are looked up; before, they are lost
        line.bound_s = time.perf_counter()
        return Attached(number, spec, await rows[0]), line

    async def detach(self, attached: Attached) -> None:
        """Nothing of the endpoint is left."""
        assert self._flows is not None
        assert self._database is not None
        owner = owner_of(attached.spec.endpoint, attached.spec.epoch)
        left = group_mod(GroupCommand.REMOVE_BUCKET, KEY, bucket=attached.number)
        await self._flows.bundle([delete_by_cookie(owner), left])
        gone = self._expect(attached.device)
        await self._database.transact([_of_bridge("delete", row_id(attached.port_id))])
        async with asyncio.timeout(READY_WITHIN_S):
            await gone
        await self._veths.delete([attached.device])

    def _expect(self, device: str) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[device] = future
        return future

    def _on_port(self, _reason: str, port: Port) -> None:
        future = self._waiting.pop(port.name, None)
        if future is not None and not future.done():
            future.set_result(None)

    async def _insert_row(self, device: str, number: int, flows: asyncio.Task[None]) -> str:
        """The id of the port's row. What a port says before its flows stand is remembered as to be dropped."""
        assert self._database is not None
        await flows
        interface = {"name": device, "ofport_request": number}
        port = {"name": device, "interfaces": named("i"), "tag": TAG}
        answers = await self._database.transact(
            [
                {"op": "insert", "table": "Interface", "uuid-name": "i", "row": interface},
                {"op": "insert", "table": "Port", "uuid-name": "p", "row": port},
                _of_bridge("insert", named("p")),
            ]
        )
        return str(answers[1]["uuid"][1])


def _of_bridge(mutator: str, port: Any) -> Operation:
    where = [["name", "==", BRIDGE]]
    return {"op": "mutate", "table": "Bridge", "where": where, "mutations": [["ports", mutator, to_set([port])]]}


def _device(number: int) -> str:
    return f"fl{number}"


def _spec(number: int, sandbox: Sandbox) -> PortSpec:
    return PortSpec(
        endpoint=f"floor{number:011d}",
        epoch=1,
        tenant="floor",
        network="floor",
        name=f"f{number}",
        mac=(b"\x02\xf1" + number.to_bytes(4, "big")).hex(":"),
        addresses=(IPv4Interface((FIRST_ADDRESS + number, 16)),),
        gateways=(),
        encap="vlan",
        tag=TAG,
        mtu_bytes=MTU_BYTES,
        sandbox=Place(key=sandbox.name, netns_path=str(sandbox.path)),
    )


def _link(spec: PortSpec, device: str) -> LinkSpec:
    return LinkSpec(
        endpoint=spec.endpoint,
        device=device,
        stamp=spec.endpoint,
        netns_path=spec.sandbox.netns_path,
        mac=spec.mac,
        mtu_bytes=spec.mtu_bytes,
        addresses=spec.addresses,
        gateways=spec.gateways,
        is_tx_checksum_off=True,
    )


async def _connect_when_there(path: Path, on_port: Any) -> OpenFlowClient:
    """A connection to the bridge's socket, which the switch makes some milliseconds after the bridge's row."""
    until_s = time.monotonic() + READY_WITHIN_S
    while not path.exists() and time.monotonic() < until_s:  # noqa: ASYNC110
        await asyncio.sleep(0.005)  # nothing tells when a socket is made
    return await OpenFlowClient.connect(str(path), on_port, _lost, _lost)


def _lost() -> None:
    """Whoever waits for what was lost is told by an exception."""
