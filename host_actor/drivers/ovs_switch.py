"""One bridge of an Open vSwitch over its two sockets: the database and the bridge's OpenFlow management socket.

Tasks: each of the two connections has a keeper (`ovs_connection.py`) that connects again; one writer sends what waits
for the database in one transaction. What must happen in order (bundles, because they share the remembered groups) is
behind a lock. Whoever waits for a port is told by the switch's own port events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import structlog

from services.runtime.errors import Unavailable

from ..openflow import Flow, Port, add_flow
from ..openflow_client import FlowsRefused, OpenFlowClient
from ..ovsdb import Operation, OvsdbClient, TransactionRefused
from .ovs_connection import KeptConnection
from .ovs_flows import COMMON_OWNER, Seal, places_of, seal_of
from .ovs_rows import (
    COLUMNS,
    HIGHEST_OFPORT,
    SwitchRows,
    delete_ports,
    insert_patch,
    make_bridge,
    renumber_interface,
    secure_bridge,
)
from .ovs_rules import Groups, RuleEdit, Survey, flows_of_strangers, survey
from .ovs_schema import check_schema
from .ovs_stale import StaleFlows
from .ovs_uplink import Wires, owner_of_network

KERNEL_MODULE: Final = Path("/sys/module/openvswitch")
PORT_WITHIN_S: Final = 5.0
_BRIDGE_WITHIN_S: Final = 10.0
_GONE_WITHIN_S: Final = 2.0
_WRITTEN_WITHIN_S: Final = 2.0

Datapath = Literal["auto", "system", "netdev"]
RuleChange = Callable[[RuleEdit], None]

log = structlog.get_logger()


class PortMissing(Exception):
    """The switch did not take up a port; the text is its own reason where it gave one."""


class FlowsMissing(Exception):
    """The switch took flows and does not show them afterwards."""


class Switch:
    """The bridge. `on_change(reason)` is called for what others did to it, not for what we do to a device ourselves."""

    def __init__(
        self,
        bridge: str,
        datapath: Datapath,
        run_dir: Path,
        on_change: Callable[[str], None],
        is_ours_to_change: Callable[[str], bool],
        wires: Wires | None = None,
    ) -> None:
        self.bridge = bridge
        self.wires = wires or Wires()
        self._is_ours_to_change = is_ours_to_change
        self.groups = Groups()
        self.rows = SwitchRows(bridge, self._on_worse, self._on_bridge_row)
        self._wanted_datapath = datapath
        self._on_change = on_change
        self._database = KeptConnection[OvsdbClient](
            run_dir / "db.sock", self._connect_database, lambda: on_change("ovsdb-server is there again"), on_change
        )
        self._openflow = KeptConnection[OpenFlowClient](
            run_dir / f"{bridge}.mgmt", self._connect_openflow, lambda: on_change("the bridge is there"), self._on_away
        )
        self._writer = _Writer(self._transact_now)
        self._rule_lock = asyncio.Lock()
        self._are_groups_unsure = False
        self.runs_seen = 0  # how often the bridge was connected to: each time it may have been started anew
        self._common_seal = seal_of(self.wires.common())
        self._network_seals: dict[int, Seal] = {}  # of networks' own flows, by key
        self.is_echo_other = False  # this switch shows flows in other words than it was told them
        self._port_waiters: dict[str, list[asyncio.Future[int]]] = {}
        self._last_ofport = 0
        self.bundles = 0
        self.flow_messages = 0
        self._allocated: set[int] = set()  # by operations under way, not yet in a row
        self.stale = StaleFlows(run_dir, self._touch_rules)

    # Connections ---------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Both sockets are connected; of a bridge that is not there yet, only the database. Raises: `Unavailable`."""
        await self._database.open()
        if self.rows.bridge is not None:
            self.stale.begin()
        self._openflow.open_when_there()
        if self.rows.bridge is not None:
            await self._openflow.until_up(_BRIDGE_WITHIN_S)

    async def close(self) -> None:
        """Both connections are closed; nothing of the switch is touched."""
        await self._openflow.close()
        await self.until_written()
        await self._database.close()
        await self._writer.idle()

    @property
    def datapath(self) -> str:
        """The bridge's data path; for one that is not there yet, the one that it will get."""
        if self.rows.bridge is not None and self.rows.bridge.datapath:
            return self.rows.bridge.datapath
        if self._wanted_datapath != "auto":
            return self._wanted_datapath
        return "system" if self.rows.bridge is not None or KERNEL_MODULE.exists() else "netdev"

    @property
    def flow_client(self) -> OpenFlowClient:
        """Raises: `Unavailable` while nobody answers for the bridge."""
        return self._openflow.connection

    @property
    def is_secure(self) -> bool:
        """Whether the bridge is there, answers, and lets nothing pass without a flow."""
        return self.rows.bridge is not None and self.rows.bridge.fail_mode == "secure" and self._openflow.is_up

    def check(self) -> None:
        """Raises: `Unavailable` while the database is away."""
        _ = self._database.connection

    async def _connect_database(self, on_lost: Callable[[], None]) -> OvsdbClient:
        client = await OvsdbClient.connect(str(self._database.path), on_lost)
        try:
            if not self._database.has_been_up:
                log.info("database-there", path=str(self._database.path), schema=check_schema(await client.schema()))
            await client.monitor(COLUMNS, self.rows.restart, self.rows.update)
        except TransactionRefused as refusal:  # for one, a server that has not opened its database yet
            client.close()
            raise Unavailable(f"{self._database.path}: {refusal}") from refusal
        except BaseException:
            client.close()
            raise
        return client

    async def _connect_openflow(self, on_lost: Callable[[], None]) -> OpenFlowClient:
        client = await OpenFlowClient.connect(str(self._openflow.path), self._on_port_event, self._on_flows, on_lost)
        try:
            self.groups.restart(await client.groups())
        except BaseException:
            client.close()
            raise
        self._common_seal = seal_of(self.wires.common())
        self._network_seals.clear()
        self.is_echo_other = False
        self.runs_seen += 1
        return client

    def _on_away(self, reason: str) -> None:
        for waiters in self._port_waiters.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(Unavailable(reason))
        self._on_change(reason)

    def _on_flows(self) -> None:
        self._on_change(f"flows of {self.bridge} were changed")

    def _on_bridge_row(self) -> None:
        self._on_change(f"bridge {self.bridge} was changed")

    def _on_worse(self, device: str) -> None:
        if not self._is_ours_to_change(device):
            self._on_change(f"the row of port {device} was changed")

    # Ports ---------------------------------------------------------------------------------------------------------

    def _on_port_event(self, reason: str, port: Port) -> None:
        number = 0 if reason == "delete" else port.number
        if not number and port.name in {wire.device for wire in self.wires.all}:
            self._on_change(f"port {port.name} to an uplink was removed")
        for waiter in self._port_waiters.get(port.name, ()):
            if not waiter.done():
                waiter.set_result(number)

    def ofport_of(self, device: str) -> int:
        """The number under which the switch forwards for this device now; 0 for none."""
        return self._openflow.connection.ports.get(device, 0)

    def present_ofport(self, device: str) -> int:
        """The same, and 0 while the bridge does not answer."""
        return self.ofport_of(device) if self._openflow.is_up else 0

    async def until_port(self, device: str, ofport: int, within_s: float = PORT_WITHIN_S) -> None:
        """The switch forwards for this device under this number. Raises: `PortMissing`, `Unavailable`."""
        if self.ofport_of(device) == ofport:
            return
        try:
            async with asyncio.timeout(within_s):
                while self.ofport_of(device) != ofport:
                    await self._port_event(device)
        except TimeoutError as error:
            row = self.rows.ports.get(device)
            said = row.error if row is not None else ""
            number = self.ofport_of(device)
            found = f"it has number {number}" if number else "it is not there"
            detail = f"port {device} was to have number {ofport} within {within_s:g} s: {said or found}"
            raise PortMissing(detail) from error
        # Port events are told before packets of the port are looked up: until then they are lost, and a lost ARP
        # request costs a container's first connection a second. A barrier is answered after that.
        await self.flow_client.barrier()

    async def _port_event(self, device: str) -> int:
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._port_waiters.setdefault(device, []).append(waiter)
        try:
            return await waiter
        finally:
            self._port_waiters[device].remove(waiter)
            if not self._port_waiters[device]:
                del self._port_waiters[device]

    def allocate_ofport(self) -> int:
        """A number that no port has, has asked for, or has rules for. Give it back with `release_ofport`."""
        for _ in range(HIGHEST_OFPORT):
            self._last_ofport = self._last_ofport % HIGHEST_OFPORT + 1
            number = self._last_ofport
            is_taken = self.rows.is_ofport_used(number) or number in self.groups.key_of or number in self._allocated
            if not is_taken:
                self._allocated.add(number)
                return number
        raise PortMissing(f"the bridge has all of its {HIGHEST_OFPORT} ports")

    def release_ofport(self, number: int) -> None:
        """The operation that allocated the number is over: its row tells now whether it is in use."""
        self._allocated.discard(number)

    async def remove_port(self, device: str) -> bool:
        """The device's row is gone and the switch has closed it. Whether it had it open."""
        row = self.rows.ports.get(device)
        if row is None:
            return False
        was_open = self.ofport_of(device) > 0
        await self.transact(delete_ports(self.bridge, [row.port_id]))
        try:
            async with asyncio.timeout(_GONE_WITHIN_S):
                while self.ofport_of(device):
                    await self._port_event(device)
        except TimeoutError:
            log.warning("port-still-open", device=device, within_s=_GONE_WITHIN_S)
        return was_open

    # Database ------------------------------------------------------------------------------------------------------

    async def until_written(self) -> None:
        """What is on its way to the database is true or refused, also where nobody waits for it any more: whoever looks
        next would miss it. Given up after some seconds.
        """
        with suppress(TimeoutError):
            await asyncio.wait_for(self._writer.idle(), _WRITTEN_WITHIN_S)

    async def transact(self, operations: Sequence[Operation]) -> None:
        """The operations are done, all or none, perhaps in one transaction with others that waited.

        Raises: `TransactionRefused`, `Unavailable`.
        """
        await self._writer.submit(operations)

    async def _transact_now(self, operations: Sequence[Operation]) -> None:
        await self._database.connection.transact(operations)

    async def ensure_bridge(self) -> None:
        """The bridge is there, secure, and answers. Raises: `Unavailable`, `TransactionRefused`."""
        if self.rows.bridge is None:
            await self.transact(make_bridge(self.bridge, self.datapath, has_root=self.rows.has_root))
            log.info("bridge-created", bridge=self.bridge, datapath=self.datapath)
        elif self.rows.bridge.fail_mode != "secure":
            await self.transact(secure_bridge(self.rows.bridge))
        await self._openflow.until_up(_BRIDGE_WITHIN_S)
        await self._ensure_wires()

    @property
    def is_wired(self) -> bool:
        """Whether the patch port of every uplink is there under its number, and none of another."""
        numbers = {wire.device: wire.ofport for wire in self.wires.all}
        return self.rows.wires.keys() == numbers.keys() and all(
            self.present_ofport(device) == number for device, number in numbers.items()
        )

    async def _ensure_wires(self) -> None:
        """`is_wired`. Raises: `TransactionRefused`, `PortMissing`, `Unavailable`."""
        if self.is_wired:
            return
        wanted = {wire.device for wire in self.wires.all}
        gone = [row for device, row in self.rows.wires.items() if device not in wanted]
        operations = delete_ports(self.bridge, gone) if gone else []
        for wire in self.wires.all:
            if wire.device not in self.rows.wires:
                operations += insert_patch(self.bridge, wire.device, wire.uplink.outer_patch, wire.ofport)
            elif self.ofport_of(wire.device) != wire.ofport:
                operations.append(renumber_interface(wire.device, wire.ofport))
        await self.transact(operations)
        for wire in self.wires.all:
            await self.until_port(wire.device, wire.ofport)

    # Rules ---------------------------------------------------------------------------------------------------------

    async def change_rules(self, changes: Sequence[RuleChange]) -> list[FlowsRefused | None]:
        """What the switch said to each change. All in one bundle; one by one, if it refused that.

        Raises: `Unavailable`; what was under way is then found out by the next survey.
        """
        async with self._rule_lock:
            client = self.flow_client
            if self._are_groups_unsure:
                self.groups.restart(await client.groups())
            try:
                await self._bundle(client, changes)
            except FlowsRefused as refusal:
                log.warning("bundle-refused", changes=len(changes), reason=str(refusal))
                self.groups.restart(await client.groups())
            else:
                return [None] * len(changes)
            return [await self._bundle_alone(client, change) for change in changes]

    async def _bundle(self, client: OpenFlowClient, changes: Sequence[RuleChange]) -> None:
        edit = RuleEdit(self.groups, self.wires.of_network)
        for change in changes:
            change(edit)
        self._are_groups_unsure = True  # until the switch has answered: whoever waits for that may be cancelled
        messages = edit.messages()
        self.bundles += 1
        self.flow_messages += len(messages)
        await client.bundle(messages)
        self._are_groups_unsure = False

    async def _touch_rules(self) -> None:
        """One rule is told again as it is."""
        await self.flow_client.bundle([add_flow(self.wires.common()[0])])

    async def _bundle_alone(self, client: OpenFlowClient, change: RuleChange) -> FlowsRefused | None:
        try:
            await self._bundle(client, [change])
        except FlowsRefused as refusal:
            self.groups.restart(await client.groups())
            return refusal
        return None

    async def survey(self) -> Survey:
        """What the switch itself shows of its flows and groups. Raises: `Unavailable`."""
        if not self._openflow.has_been_up:
            await self._openflow.until_up(_BRIDGE_WITHIN_S)  # the bridge has only just been made
        async with self._rule_lock:
            client = self.flow_client
            self.groups.restart(await client.groups())
            return await survey(client, self._common_seal, self._seals_of_networks())

    def _seals_of_networks(self) -> dict[int, Seal]:
        """By cookie, what the own flows of each network with members here must look like, where it has any."""
        for key in self.groups.members.keys() - self._network_seals.keys():
            self._network_seals[key] = seal_of(self.wires.of_network(key))
        return {owner_of_network(key): self._network_seals[key] for key in self._networks_with_wires()}

    def _networks_with_wires(self) -> list[int]:
        return [key for key in self.groups.members if self.wires.suffix(key)]

    async def echo(self, owner: int, flows: Sequence[Flow]) -> Seal:
        """The seal of an owner's flows as the switch shows them, just after it was told these.

        Another version of the switch may put into other words what it was told. Were it then compared with what was
        sent, everything would look broken on every pass, and be repaired for ever.

        Raises: `FlowsMissing` when that are not these flows in any words; `Unavailable`.
        """
        shown: list[Flow] = []
        await self.flow_client.flows(shown.extend, owner)
        if places_of(shown) != places_of(flows):
            raise FlowsMissing(f"of {len(flows)} flows with cookie {owner:#x} the switch shows {len(shown)}")
        seal = seal_of(shown)
        if seal != seal_of(flows) and not self.is_echo_other:
            self.is_echo_other = True
            told = {entry.checksum for entry in flows}
            example = next((entry for entry in shown if entry.checksum not in told), None)
            version = self.rows.ovs_version
            log.warning("flows-shown-differently", bridge=self.bridge, ovs_version=version, example=str(example))
        return seal

    async def sweep(self, owners: Collection[int], ofports: Collection[int]) -> None:
        """The common flows stand; in our tables is nothing but what belongs to these owners, in groups to these ports.

        Raises: `Unavailable`, `FlowsRefused`, `FlowsMissing`.
        """
        keys = self._networks_with_wires()
        networks = {owner_of_network(key) for key in keys}
        strangers = await flows_of_strangers(self.flow_client, {*owners, *networks})
        common = self.wires.common()

        def change(edit: RuleEdit) -> None:
            edit.remove(COMMON_OWNER)
            edit.put(common, instead_of=strangers)
            for key in keys:
                edit.remove(owner_of_network(key))
                edit.put(self.wires.of_network(key), instead_of=())
            for port in self.groups.key_of.keys() - ofports:
                edit.leave(port)

        if strangers:
            log.info("strangers-removed", flows=len(strangers))
        for refusal in await self.change_rules([change]):
            if refusal is not None:
                raise refusal
        self._common_seal = await self.echo(COMMON_OWNER, common)
        for key in self._networks_with_wires():
            self._network_seals[key] = await self.echo(owner_of_network(key), self.wires.of_network(key))


class _Writer:
    """Sends what waits in one transaction while the one before is under way; one by one, if that was refused."""

    def __init__(self, transact: Callable[[Sequence[Operation]], Awaitable[None]]) -> None:
        self._transact = transact
        self._waiting: list[tuple[Sequence[Operation], asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def submit(self, operations: Sequence[Operation]) -> None:
        """The operations are done. Raises: `TransactionRefused`, `Unavailable`."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((operations, done))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="ovsdb writer")
        await done

    async def idle(self) -> None:
        """Nothing waits or is under way: it ends by itself, whatever waits is answered or refused."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await self._transact([operation for operations, _ in batch for operation in operations])
            except TransactionRefused as refusal:
                if len(batch) == 1:
                    _finish(batch[0][1], refusal)
                else:
                    await self._one_by_one(batch)
            except Unavailable as away:
                for _, done in batch:
                    _finish(done, away)
            else:
                for _, done in batch:
                    _finish(done, None)

    async def _one_by_one(self, batch: Sequence[tuple[Sequence[Operation], asyncio.Future[None]]]) -> None:
        for operations, done in batch:
            try:
                await self._transact(operations)
            except (TransactionRefused, Unavailable) as refusal:
                _finish(done, refusal)
            else:
                _finish(done, None)


def _finish(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return  # whoever waited was cancelled
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
