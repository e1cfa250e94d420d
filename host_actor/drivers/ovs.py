"""The Open vSwitch driver: endpoints are veth pairs on one bridge through which nothing passes unless a flow says so.

What is where: `ovs_flows.py` the flow table, `ovs_rules.py` the rules as the switch has them, `ovs_rows.py` the
database's rows, `ovs_switch.py` the two connections, `ovs_ports.py` the making of ports, `ovs_removal.py` their paced
removal, `ovs_remotes.py` the flows of other hosts, `ovs_reach.py` the way to them, `ovs_uplink.py` the ways out of the
host, `ovs_shield.py` what keeps containers off this host's own network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import structlog

from services.runtime.config import Config
from services.runtime.uplinks import Uplink

from ..netlink import Link
from ..netlink_links import LinkTable
from ..netlink_veth import VethMaker, endpoint_of, mark_of
from ..openflow_client import FlowsRefused
from ..ovsdb import TransactionRefused
from .contract import (
    Capabilities,
    Done,
    DropPort,
    DropRemote,
    EnsurePort,
    EnsureRemote,
    EnsureSwitch,
    Failed,
    Figures,
    Observed,
    ObservedPort,
    Op,
    Outcome,
    Part,
    Remote,
)
from .ovs_flows import OUR_TABLES, Seal, Table, owner_of
from .ovs_ports import Ports, stamp_of
from .ovs_reach import Reach
from .ovs_remotes import remote_mark
from .ovs_rows import PortRow
from .ovs_rules import Survey
from .ovs_shield import shield_host
from .ovs_switch import Datapath, FlowsMissing, PortMissing, Switch
from .ovs_uplink import Wires

DEFAULT_RUN_DIR = Path("/var/run/openvswitch")
DEVICE_PREFIX = "np"

_DeviceOp = EnsurePort | DropPort | EnsureRemote | DropRemote  # not about the switch as a whole

log = structlog.get_logger()


class OvsDriver:
    """The driver contract on a running Open vSwitch (ovsdb-server and ovs-vswitchd) of this network namespace."""

    def __init__(
        self,
        bridge: str = "vlanBr",
        datapath: Datapath = "auto",
        run_dir: Path = DEFAULT_RUN_DIR,
        uplinks: Sequence[Uplink] = (),
        vtep: IPv4Address | IPv6Address | None = None,
    ) -> None:
        self._bridge = bridge
        self._vtep = vtep
        self._datapath: Datapath = datapath
        self._run_dir = run_dir
        self._wires = Wires(uplinks)
        self._on_change: Callable[[str], None] = lambda _: None
        self._busy: set[str] = set()
        self._assemble()

    def _assemble(self) -> None:
        """Everything that is connected, as it is before it is opened: once closed, none of it is used again."""
        self._switch = Switch(
            self._bridge, self._datapath, self._run_dir, self._changed, self._is_ours_to_change, self._wires
        )
        self._links = LinkTable(DEVICE_PREFIX, self._link_changed)
        self._veths = VethMaker()
        self._reach = Reach(self._switch, self._run_dir, self._vtep)
        self._ports = Ports(self._switch, self._veths, self._links, self._reach)

    @classmethod
    def of(cls, config: Config) -> OvsDriver:
        """The driver that the configuration asks for."""
        vtep = ip_address(config.vtep) if config.vtep is not None else None
        run_dir = config.ovs_run_dir or DEFAULT_RUN_DIR
        return cls(config.bridge, config.datapath, run_dir, config.uplinks, vtep)  # type: ignore[arg-type]

    @property
    def capabilities(self) -> Capabilities:
        """What can be enforced here. Without a VTEP address, VXLAN networks are kept apart and end at this host."""
        has_tunnels = self._vtep is not None
        return Capabilities(vlan=True, vxlan=has_tunnels, anti_spoofing=True, ipv6=True, datapath=self._switch.datapath)

    def mark_of(self, remote: Remote) -> str:
        return remote_mark(remote)

    async def open(self, on_change: Callable[[str], None]) -> None:
        self._assemble()
        self._on_change = on_change
        try:
            await self._switch.open()
            if self._switch.datapath == "netdev":
                await shield_host(DEVICE_PREFIX)
            await self._links.open()
            await self._veths.open([link.index for link in self._links.links.values()])
        except BaseException:
            await self.close()
            raise
        log.info("driver-open", driver="ovs", bridge=self._switch.bridge, datapath=self._switch.datapath)

    async def close(self) -> None:
        self._on_change = lambda _: None
        await self._ports.removal.close()
        await self._links.close()
        await self._veths.close()
        await self._switch.close()

    async def figures(self) -> Figures:
        tables = await self._switch.flow_client.tables()
        told = {Table(number).name: stats for number, stats in tables.items() if number in OUR_TABLES}
        return Figures(
            flows={name: stats.entries for name, stats in told.items()},
            dropped_packets={name: stats.looked_up - stats.matched for name, stats in told.items()},
            bundles=self._switch.bundles,
            flow_messages=self._switch.flow_messages,
        )

    # Observing -----------------------------------------------------------------------------------------------------

    async def observe(self) -> Observed:
        self._switch.check()
        await self._switch.until_written()
        rows = {device: row for device, row in self._switch.rows.ports.items() if not self._is_leaving(device)}
        if self._switch.rows.bridge is None:
            return Observed(is_switch_ready=False, ports=await self._observed_ports(rows, Survey({}, Seal())))
        survey = await self._switch.survey()
        ports = await self._observed_ports(rows, survey)
        owners = self._owners()
        is_clean = not survey.strangers(owners) and self._switch.groups.key_of.keys() <= self._ofports()
        is_ready = self._switch.is_secure and self._switch.is_wired and survey.is_common_whole and is_clean
        return Observed(is_switch_ready=is_ready, ports=ports, remotes=await self._reach.observed(survey, owners))

    async def _observed_ports(self, rows: dict[str, PortRow], survey: Survey) -> dict[str, ObservedPort]:
        found = {row.applied.endpoint: await self._observed_port(row, survey) for row in rows.values()}
        for link in self._links.links.values():
            endpoint = endpoint_of(link)
            if endpoint and endpoint not in found and not self._is_leaving(link.name):
                found[endpoint] = ObservedPort(endpoint, 0, link.name, frozenset())
        return found

    async def _observed_port(self, row: PortRow, survey: Survey) -> ObservedPort:
        applied = row.applied
        link = self._links.links.get(row.device)
        mark = mark_of(stamp_of(applied.endpoint, applied.epoch, applied.sandbox_key))
        if link is None or not link.is_carrying:
            # One just made may be carrying before that is announced; and a list that changed while read may lack one.
            link = await self._veths.find(row.device)
        parts = set()
        if link is not None and link.is_carrying and link.group == mark:
            parts.add(Part.LINK)
        number = self._switch.present_ofport(row.device)
        if number and (link is None or link.index == applied.link_index):
            parts.add(Part.SWITCH)
        seal = survey.seals.get(owner_of(applied.endpoint, applied.epoch))
        key = self._switch.groups.key_of.get(row.ofport_request)
        is_sealed = seal is not None and f"{seal}{self._wires.suffix(key)}" == applied.rules
        if is_sealed and key is not None and number in (0, row.ofport_request):
            parts.add(Part.RULES)
        return ObservedPort(
            applied.endpoint, applied.epoch, row.device, frozenset(parts), applied.sandbox_key, applied.interface
        )

    def _owners(self) -> set[int]:
        return {owner_of(row.applied.endpoint, row.applied.epoch) for row in self._switch.rows.ports.values()}

    def _ofports(self) -> set[int]:
        rows = self._switch.rows.ports.values()
        return {number for row in rows for number in (row.ofport, row.ofport_request)}

    # Executing -----------------------------------------------------------------------------------------------------

    async def execute(self, ops: Sequence[Op]) -> Sequence[Outcome]:
        self._switch.check()
        outcomes: list[Outcome] = []
        for wave in _waves(ops, self._sandbox_of):
            if isinstance(wave, EnsureSwitch):
                outcomes.append(await self._ensure_switch(wave))
                continue
            devices = {_subject_of(op) for op in wave if isinstance(op, EnsurePort | DropPort)}
            self._busy |= devices
            try:
                outcomes += await self._ports.carry_out(wave)
            finally:
                self._busy -= devices
        return outcomes

    async def _ensure_switch(self, op: EnsureSwitch) -> Outcome:
        try:
            await self._switch.ensure_bridge()
            await self._switch.sweep(self._owners(), self._ofports())
        except (FlowsRefused, FlowsMissing, PortMissing, TransactionRefused) as refusal:
            return Failed(op, "switch-refused", str(refusal))
        return Done(op)

    def _sandbox_of(self, device: str) -> str:
        row = self._switch.rows.ports.get(device)
        return row.applied.sandbox_key if row is not None else ""

    # What others do ------------------------------------------------------------------------------------------------

    def _is_leaving(self, device: str) -> bool:
        return device in self._ports.removal.pending

    def _is_ours_to_change(self, device: str) -> bool:
        return device in self._busy or self._is_leaving(device)

    def _changed(self, reason: str) -> None:
        self._on_change(reason)

    def _link_changed(self, device: str, before: Link | None, after: Link | None) -> None:
        if device not in self._switch.rows.ports or self._is_ours_to_change(device) or before is None:
            return
        if after is None:
            self._on_change(f"device {device} was removed")
        elif before.is_carrying and not after.is_carrying:
            self._on_change(f"device {device} lost its link")


def _subject_of(op: _DeviceOp) -> str:
    """The device or the mark that it is about."""
    match op:
        case EnsurePort():
            return op.port.device
        case DropPort():
            return op.device
        case EnsureRemote():
            return remote_mark(op.remote)
        case DropRemote():
            return op.mark


def _waves(ops: Sequence[Op], sandbox_of: Callable[[str], str]) -> Iterator[EnsureSwitch | list[_DeviceOp]]:
    """The operations in their order, as many together as have no device in common.

    Nothing is made in a sandbox in the wave that takes something out of it: the interface there keeps its name until
    it is gone.
    """
    wave: list[_DeviceOp] = []
    devices: set[str] = set()
    left: set[str] = set()  # sandboxes that something is taken out of
    for op in ops:
        is_crowded = isinstance(op, EnsurePort) and op.port.sandbox.key in left
        if wave and (isinstance(op, EnsureSwitch) or is_crowded or _subject_of(op) in devices):
            yield wave
            wave, devices, left = [], set(), set()
        if isinstance(op, EnsureSwitch):
            yield op
            continue
        wave.append(op)
        devices.add(_subject_of(op))
        if isinstance(op, DropPort):
            left.add(sandbox_of(op.device))
    if wave:
        yield wave
