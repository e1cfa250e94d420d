"""The rows of an uplink's own bridge in the switch's database: read once, and the operations that write them.

BRIDGE phy-IF, no controller, NORMAL     phy-IF   internal, untagged only: the host's own
                                         IF       the card: everything
                                         dn-IF    patch to the bridge of the endpoints
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.runtime.uplinks import ALL_TAGS, Uplink

from .ovsdb import Json, Operation, OvsdbClient, Row, from_ids, from_map, from_set, named, row_id, to_map, to_set

MARK: Final = "np-uplink"  # the key of a bridge of ours, with the card's name
WITHIN_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge as the database has it."""

    row: str
    name: str
    datapath: str
    marked_for: str  # the card whose uplink it is; empty for another's bridge
    ports: tuple[str, ...]


async def read_bridges(database: OvsdbClient) -> Mapping[str, Bridge]:
    """All bridges by name. Raises: `Unavailable`, `TransactionRefused`."""
    columns = ["_uuid", "name", "datapath_type", "external_ids", "ports"]
    bridges, ports = await database.transact(
        [_select("Bridge", columns), _select("Port", ["_uuid", "name"])],
    )
    names = {row["_uuid"][1]: row["name"] for row in ports["rows"]}
    return {
        row["name"]: Bridge(
            row["_uuid"][1],
            row["name"],
            row["datapath_type"],
            from_map(row["external_ids"]).get(MARK, ""),
            tuple(sorted(names[port] for port in from_ids(row["ports"]) if port in names)),
        )
        for row in bridges["rows"]
    }


def make(uplink: Uplink, mac: str, mtu_bytes: int, datapath: str) -> list[Operation]:
    """The bridge with its local port and the patch, still without the card."""
    name = uplink.bridge
    local: Row = {"name": name, "type": "internal", "mtu_request": mtu_bytes}
    bridge: Row = {
        "name": name,
        "datapath_type": datapath,
        "fail_mode": "standalone",
        "other_config": to_map({"hwaddr": mac}),
        "external_ids": to_map({MARK: uplink.interface}),
        "ports": to_set([named("local_port"), named("patch_port")]),
    }
    return [
        _insert("Interface", "local", local),
        _insert("Port", "local_port", {"name": name, "interfaces": named("local"), "trunks": 0}),
        *_patch(uplink),
        _insert("Bridge", "bridge", bridge),
        _mutate("Open_vSwitch", [], "bridges", "insert", [named("bridge")]),
    ]


def mend(uplink: Uplink, bridge: Bridge) -> list[Operation]:
    """What is missing of a bridge that is there, but for the card."""
    if uplink.outer_patch in bridge.ports:
        return []
    where: list[Json] = [["_uuid", "==", row_id(bridge.row)]]
    return [*_patch(uplink), _mutate("Bridge", where, "ports", "insert", [named("patch_port")])]


def limit(uplink: Uplink) -> Operation:
    """The patch carries the uplink's tags; where that is all of them, what is untagged is dropped at its other end."""
    where: list[Json] = [["name", "==", uplink.outer_patch]]
    return {"op": "update", "table": "Port", "where": where, "row": {"trunks": to_set(_trunks(uplink))}}


def join(uplink: Uplink) -> list[Operation]:
    """The card is in its bridge."""
    return [
        _insert("Interface", "card", {"name": uplink.interface}),
        _insert("Port", "card_port", {"name": uplink.interface, "interfaces": named("card")}),
        _mutate("Bridge", [["name", "==", uplink.bridge]], "ports", "insert", [named("card_port")]),
    ]


def delete(bridge: Bridge) -> list[Operation]:
    """The bridge is gone, with all its ports."""
    return [_mutate("Open_vSwitch", [], "bridges", "delete", [row_id(bridge.row)])]


async def until_open(database: OvsdbClient, *devices: str) -> None:
    """The switch has taken up these devices. Raises: `TransactionRefused` with its own reason, or when it does not."""
    for device in devices:
        where: list[Json] = [["name", "==", device]]
        waiting: Operation = {
            "op": "wait",
            "timeout": WITHIN_MS,
            "table": "Interface",
            "where": where,
            "columns": ["ofport"],
            "until": "!=",
            "rows": [{"ofport": to_set([])}],
        }
        await database.transact([waiting])


async def fault_of(database: OvsdbClient, device: str) -> str:
    """What the switch says is wrong with a device; empty for nothing."""
    where: list[Json] = [["name", "==", device]]
    (found,) = await database.transact([_select("Interface", ["ofport", "error"], where)])
    for row in found["rows"]:
        if -1 in from_set(row["ofport"]):
            return " ".join(map(str, from_set(row["error"]))) or "it was not taken up"
    return ""


def _patch(uplink: Uplink) -> list[Operation]:
    options = to_map({"peer": uplink.inner_patch})
    port: Row = {"name": uplink.outer_patch, "interfaces": named("patch"), "trunks": to_set(_trunks(uplink))}
    return [
        _insert("Interface", "patch", {"name": uplink.outer_patch, "type": "patch", "options": options}),
        _insert("Port", "patch_port", port),
    ]


def _trunks(uplink: Uplink) -> list[Json]:
    if uplink.tags == ALL_TAGS:
        return []
    return [tag for first, last in uplink.tags for tag in range(first, last + 1)]


def _select(table: str, columns: list[str], where: list[Json] | None = None) -> Operation:
    return {"op": "select", "table": table, "where": where or [], "columns": columns}


def _insert(table: str, name: str, row: Row) -> Operation:
    return {"op": "insert", "table": table, "uuid-name": name, "row": row}


def _mutate(table: str, where: list[Json], column: str, mutator: str, values: list[Json]) -> Operation:
    return {"op": "mutate", "table": table, "where": where, "mutations": [[column, mutator, to_set(values)]]}
