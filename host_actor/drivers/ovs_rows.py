"""The rows of Open vSwitch's database that are ours: a live copy of them, and the operations that write them.

Pure but for the copy itself, which the monitor's updates change in place. Port and Interface of an endpoint have the
same name, the device's. What an endpoint's port is, is written in `external_ids` with the port in one transaction, so
that the switch itself can tell what was applied. Source: ovs-vswitchd.conf.db(5), RFC 7047.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ..ovsdb import Json, Operation, Row, TableUpdates, from_map, from_set, named, row_id, to_map, to_set
from .contract import PortSpec

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "Open_vSwitch": ("ovs_version", "datapath_types"),
    "Bridge": ("name", "datapath_type", "fail_mode"),
    "Port": ("name", "tag", "external_ids"),
    "Interface": ("name", "ofport", "ofport_request", "error", "options", "external_ids"),
}
WIRE_MARK: Final = "np-wire"  # the key of patch ports to uplinks
HIGHEST_OFPORT: Final = 0xFDFF  # of an endpoint; what is up to OFPP_MAX of OpenFlow 1.0 (0xFEFF) is left for tunnels
TUNNEL_DEVICE: Final = "np-vxlan"


@dataclass(frozen=True, slots=True)
class Applied:
    """What a port's row says was applied, as `external_ids` keep it."""

    endpoint: str
    epoch: int
    sandbox_key: str
    interface: str  # its name inside the container
    link_index: int  # the device that the switch opened; another one of the same name needs the port opened anew
    rules: str  # the seal of its flows
    tenant: str
    network: str
    name: str

    def external_ids(self) -> dict[str, str]:
        """The keys and values of the row."""
        return {
            "np-endpoint": self.endpoint,
            "np-epoch": str(self.epoch),
            "np-sandbox": self.sandbox_key,
            "np-interface": self.interface,
            "np-link": str(self.link_index),
            "np-rules": self.rules,
            "np-tenant": self.tenant,
            "np-network": self.network,
            "np-name": self.name,
        }

    @classmethod
    def of(cls, ids: Mapping[str, str]) -> Applied:
        """What a row says; what it does not say is empty or 0."""
        return cls(
            endpoint=ids["np-endpoint"],
            epoch=_number(ids.get("np-epoch", "0")),
            sandbox_key=ids.get("np-sandbox", ""),
            interface=ids.get("np-interface", ""),
            link_index=_number(ids.get("np-link", "0")),
            rules=ids.get("np-rules", ""),
            tenant=ids.get("np-tenant", ""),
            network=ids.get("np-network", ""),
            name=ids.get("np-name", ""),
        )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


@dataclass(slots=True)
class PortRow:
    """One port of ours with its interface. `ofport` is 0 as long as the switch has given none, -1 when it could not."""

    device: str
    port_id: str
    raw_ids: Json
    applied: Applied
    ofport: int = 0
    ofport_request: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class BridgeRow:
    bridge_id: str
    datapath: str
    fail_mode: str


@dataclass(frozen=True, slots=True)
class TunnelRow:
    """This host's end of all tunnels. `underlay` is the link and the address on it that it was made for."""

    ofport: int
    ofport_request: int
    error: str
    options: Mapping[str, str]
    underlay: str


@dataclass(slots=True)
class _Interface:
    name: str
    ofport: int
    ofport_request: int
    error: str
    tunnel: TunnelRow | None = None


@dataclass
class SwitchRows:
    """The copy. `on_worse(device)` is called when something was taken away from a port of ours: its row, its number,
    what it says was applied; `on_bridge()` when the bridge is another one than before.
    """

    bridge_name: str
    on_worse: Callable[[str], None]
    on_bridge: Callable[[], None]
    has_root: bool = False
    ovs_version: str = ""
    bridge: BridgeRow | None = None
    ports: dict[str, PortRow] = field(default_factory=dict)  # ours, by device
    wires: dict[str, str] = field(default_factory=dict)  # patch ports to uplinks: their row ids by name
    tunnel_port_id: str = ""
    _interfaces: dict[str, _Interface] = field(default_factory=dict)  # all, by row id
    _by_name: dict[str, _Interface] = field(default_factory=dict)
    _ofports: Counter[int] = field(default_factory=Counter)

    def restart(self, everything: TableUpdates) -> None:
        """The copy is exactly this."""
        self.ports, self._interfaces, self._by_name, self.bridge, self.has_root = {}, {}, {}, None, False
        self.wires = {}
        self.tunnel_port_id = ""
        self._ofports.clear()
        self.update(everything)

    def update(self, changes: TableUpdates) -> None:
        """The copy follows these changes, and those who must know are told."""
        worse: set[str] = set()
        for row_uuid, change in changes.get("Interface", {}).items():
            self._update_interface(row_uuid, change, worse)
        for row_uuid, change in changes.get("Port", {}).items():
            self._update_port(row_uuid, change, worse)
        for change in changes.get("Open_vSwitch", {}).values():
            self.has_root = "new" in change
            if self.has_root:
                self.ovs_version = "".join(map(str, from_set(change["new"]["ovs_version"])))
        bridges = changes.get("Bridge", {})
        for row_uuid, change in bridges.items():
            self._update_bridge(row_uuid, change)
        for device in worse:
            self.on_worse(device)

    @property
    def tunnel(self) -> TunnelRow | None:
        """This host's end of all tunnels, if there is one."""
        found = self._by_name.get(TUNNEL_DEVICE)
        return found.tunnel if found is not None else None

    def is_ofport_used(self, number: int) -> bool:
        """Whether somebody has this port number or has asked for it."""
        return self._ofports[number] > 0

    def _update_interface(self, row_uuid: str, change: Mapping[str, Row], worse: set[str]) -> None:
        gone = self._interfaces.pop(row_uuid, None)
        if gone is not None:
            self._ofports.subtract((gone.ofport, gone.ofport_request))
            if self._by_name.get(gone.name) is gone:
                del self._by_name[gone.name]
            if gone.tunnel is not None and "new" not in change:
                worse.add(gone.name)
        if "new" not in change:
            return
        new = change["new"]
        item = _Interface(
            new["name"],
            _optional_number(new["ofport"]),
            _optional_number(new["ofport_request"]),
            " ".join(map(str, from_set(new["error"]))),
        )
        if item.name == TUNNEL_DEVICE:
            underlay = from_map(new["external_ids"]).get("np-underlay", "")
            options = from_map(new["options"])
            item.tunnel = TunnelRow(item.ofport, item.ofport_request, item.error, options, underlay)
        self._interfaces[row_uuid] = self._by_name[item.name] = item
        self._ofports.update((item.ofport, item.ofport_request))
        if (port := self.ports.get(item.name)) is not None:
            before = (port.ofport, port.error)
            port.ofport, port.ofport_request, port.error = item.ofport, item.ofport_request, item.error
            if before != (port.ofport, port.error) and (item.ofport <= 0 or item.error):
                worse.add(item.name)

    def _update_port(self, row_uuid: str, change: Mapping[str, Row], worse: set[str]) -> None:
        new = change.get("new")
        ids = from_map(new["external_ids"]) if new else {}
        device = (new or change["old"]).get("name", "")
        if device == TUNNEL_DEVICE and (new is not None or row_uuid == self.tunnel_port_id):
            self.tunnel_port_id = row_uuid if new is not None else ""
        known = self.ports.get(device)
        if WIRE_MARK in ids:
            self.wires[device] = row_uuid
        elif self.wires.get(device) == row_uuid:
            del self.wires[device]
        if new is None or "np-endpoint" not in ids:
            if known is not None and known.port_id == row_uuid:
                del self.ports[device]
                worse.add(device)
            return
        row = PortRow(device, row_uuid, new["external_ids"], Applied.of(ids))
        if (item := self._by_name.get(device)) is not None:
            row.ofport, row.ofport_request, row.error = item.ofport, item.ofport_request, item.error
        self.ports[device] = row
        if known is not None and known.applied != row.applied:
            worse.add(device)

    def _update_bridge(self, row_uuid: str, change: Mapping[str, Row]) -> None:
        new = change.get("new")
        before = self.bridge
        if new is not None and new["name"] == self.bridge_name:
            self.bridge = BridgeRow(row_uuid, new["datapath_type"], "".join(map(str, from_set(new["fail_mode"]))))
        elif new is None and before is not None and before.bridge_id == row_uuid:
            self.bridge = None
        if before is not None and before != self.bridge:
            self.on_bridge()


def _optional_number(value: Json) -> int:
    """A set of at most one number; 0 for none."""
    numbers = from_set(value)
    return int(numbers[0]) if numbers else 0


# Operations --------------------------------------------------------------------------------------------------------


def make_bridge(name: str, datapath: str, *, has_root: bool) -> list[Operation]:
    """A bridge through which nothing passes until flows say so, with its local port."""
    bridge = {
        "name": name,
        "datapath_type": datapath,
        "fail_mode": "secure",
        "ports": named("local_port"),
        "external_ids": to_map({"np-bridge": "true"}),
    }
    operations: list[Operation] = [
        _insert("Interface", "local_interface", {"name": name, "type": "internal"}),
        _insert("Port", "local_port", {"name": name, "interfaces": named("local_interface")}),
        _insert("Bridge", "bridge", bridge),
    ]
    if not has_root:
        return [*operations, _insert("Open_vSwitch", "root", {"bridges": named("bridge")})]
    return [*operations, _mutate("Open_vSwitch", [], "bridges", "insert", [named("bridge")])]


def secure_bridge(bridge: BridgeRow) -> list[Operation]:
    """Nothing passes the bridge without a flow."""
    return [_update("Bridge", bridge.bridge_id, {"fail_mode": "secure"})]


def insert_port(bridge: str, port: PortSpec, applied: Applied, ofport: int, serial: int) -> list[Operation]:
    """The port of an endpoint that has none. `serial` tells apart several of one transaction."""
    ids = to_map(applied.external_ids())
    interface: Row = {"name": port.device, "ofport_request": ofport, "external_ids": ids}
    row: Row = {"name": port.device, "interfaces": named(f"interface{serial}"), "external_ids": ids}
    if port.encap == "vlan":
        row["tag"] = port.tag
    return [
        _insert("Interface", f"interface{serial}", interface),
        _insert("Port", f"port{serial}", row),
        _mutate("Bridge", [["name", "==", bridge]], "ports", "insert", [named(f"port{serial}")]),
    ]


def update_port(row: PortRow, port: PortSpec, applied: Applied, ofport: int) -> list[Operation]:
    """The port says this instead of what it said; refused when it has said something else meanwhile.

    Another number than the one it has makes the switch open the device anew.
    """
    ids = to_map(applied.external_ids())
    unchanged: Operation = {
        "op": "wait",
        "timeout": 0,
        "table": "Port",
        "where": [["_uuid", "==", row_id(row.port_id)]],
        "columns": ["external_ids"],
        "until": "==",
        "rows": [{"external_ids": row.raw_ids}],
    }
    tag = port.tag if port.encap == "vlan" else to_set([])
    interface = [["name", "==", row.device]]
    return [
        unchanged,
        _update("Port", row.port_id, {"external_ids": ids, "tag": tag}),
        {
            "op": "update",
            "table": "Interface",
            "where": interface,
            "row": {"external_ids": ids, "ofport_request": ofport},
        },
    ]


def tunnel_options(vtep: str) -> dict[str, str]:
    """One port for all tunnels: flows say where to, and in which network (RFC 7348, UDP port 4789)."""
    return {"remote_ip": "flow", "key": "flow", "local_ip": vtep, "dst_port": "4789"}


def insert_tunnel(bridge: str, vtep: str, underlay: str, ofport: int) -> list[Operation]:
    """The port of all tunnels, where there is none."""
    interface: Row = {"name": TUNNEL_DEVICE, "type": "vxlan", "ofport_request": ofport}
    return [
        _insert("Interface", "tunnel_interface", interface | _tunnel_says(vtep, underlay)),
        _insert("Port", "tunnel_port", {"name": TUNNEL_DEVICE, "interfaces": named("tunnel_interface")}),
        _mutate("Bridge", [["name", "==", bridge]], "ports", "insert", [named("tunnel_port")]),
    ]


def update_tunnel(vtep: str, underlay: str, ofport: int) -> list[Operation]:
    """The port of all tunnels says this, whatever it said before."""
    row = {"type": "vxlan", "ofport_request": ofport} | _tunnel_says(vtep, underlay)
    return [{"op": "update", "table": "Interface", "where": [["name", "==", TUNNEL_DEVICE]], "row": row}]


def _tunnel_says(vtep: str, underlay: str) -> Row:
    return {"options": to_map(tunnel_options(vtep)), "external_ids": to_map({"np-underlay": underlay})}


def delete_ports(bridge: str, port_ids: Iterable[str]) -> list[Operation]:
    """The ports are in no bridge any more; the database forgets what nobody refers to."""
    return [_mutate("Bridge", [["name", "==", bridge]], "ports", "delete", [row_id(uuid) for uuid in port_ids])]


def insert_patch(bridge: str, device: str, peer: str, ofport: int) -> list[Operation]:
    """A patch port with this number; it carries frames once its peer is there, in whichever bridge."""
    ids = to_map({WIRE_MARK: peer})
    interface: Row = {"name": device, "type": "patch", "options": to_map({"peer": peer}), "ofport_request": ofport}
    return [
        _insert("Interface", f"interface_{ofport}", interface),
        _insert(
            "Port", f"port_{ofport}", {"name": device, "interfaces": named(f"interface_{ofport}"), "external_ids": ids}
        ),
        _mutate("Bridge", [["name", "==", bridge]], "ports", "insert", [named(f"port_{ofport}")]),
    ]


def renumber_interface(device: str, ofport: int) -> Operation:
    """The port has this number."""
    where: list[Json] = [["name", "==", device]]
    return {"op": "update", "table": "Interface", "where": where, "row": {"ofport_request": ofport}}


def _insert(table: str, name: str, row: Row) -> Operation:
    return {"op": "insert", "table": table, "uuid-name": name, "row": row}


def _update(table: str, row_uuid: str, row: Row) -> Operation:
    return {"op": "update", "table": table, "where": [["_uuid", "==", row_id(row_uuid)]], "row": row}


def _mutate(table: str, where: list[Json], column: str, mutator: str, values: list[Json]) -> Operation:
    return {"op": "mutate", "table": table, "where": where, "mutations": [[column, mutator, to_set(values)]]}
