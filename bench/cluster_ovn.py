"""OVN beside us: a container's port, from the logical port and the link until the logical port is up.

Its own programs (northd, ovn-controller, two databases) and an Open vSwitch of its own in user space. It is asked in
two ways: over the databases' sockets, all at once, with our own netlink code for the link, so that nothing but OVN is
measured; and as its tools do it, `ovn-nbctl --wait=hv` in its daemon, then `ovs-vsctl`, the link made before.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import time
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any, Final

from figures import MS, percentile
from sandboxes import Sandbox

from host_actor.netlink_veth import LinkSpec, VethMaker
from host_actor.ovsdb import OvsdbClient, TableUpdates
from services.open_vswitch import find_schema

SCHEMAS: Final = Path("/usr/share/ovn")
SEARCH: Final = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))
PROGRAMS: Final = (
    "ovn-northd",
    "ovn-controller",
    "ovsdb-server",
    "ovs-vswitchd",
    "ovsdb-tool",
    "ovn-nbctl",
    "ovs-vsctl",
)
WITHIN_S: Final = 120.0
GROWN_AT_ONCE: Final = 50
FIRST_ADDRESS: Final = int(IPv4Interface("10.205.0.1").ip)
BRIDGE: Final = "br-int"
SWITCH: Final = "sw0"


class NoOvn(Exception):
    """It cannot be measured on this machine; the text says why."""


def check_installed() -> None:
    """OVN is there. Raises: NoOvn."""
    if missing := [name for name in PROGRAMS if shutil.which(name, path=SEARCH) is None]:
        raise NoOvn(f"{', '.join(missing)} not installed: scripts/setup --peers (Debian's ovn-central, ovn-host)")


class Ovn:
    """OVN for this network namespace."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pids: list[Path] = []
        self._numbers = itertools.count(1)
        self._veths = VethMaker()
        self._north: OvsdbClient | None = None
        self._switch: OvsdbClient | None = None
        self._up: dict[str, asyncio.Event] = {}
        self._bridge_row = ""
        self._switch_row = ""
        self._tool_socket = ""

    async def open(self) -> None:
        """An empty logical switch, and a bridge that ovn-controller has taken. Raises: NoOvn."""
        check_installed()
        self._folder.mkdir()
        await asyncio.to_thread(self._start)
        self._north = await OvsdbClient.connect(str(self._folder / "nb.sock"), _lost, "OVN_Northbound")
        self._switch = await OvsdbClient.connect(str(self._folder / "db.sock"), _lost)
        columns = {"Logical_Switch_Port": ("name", "up")}
        await self._north.monitor(columns, self._on_ports, self._on_ports)
        insert = {"op": "insert", "table": "Logical_Switch", "row": {"name": SWITCH}}
        self._switch_row = (await self._north.transact([insert]))[0]["uuid"][1]
        async with asyncio.timeout(WITHIN_S):
            while not self._bridge_row:
                found = await self._switch.transact([_select("Bridge", BRIDGE)])
                self._bridge_row = found[0]["rows"][0]["_uuid"][1] if found[0]["rows"] else ""
        await self._veths.open([])

    def _start(self) -> None:
        folder = self._folder
        files = {"nb": SCHEMAS / "ovn-nb.ovsschema", "sb": SCHEMAS / "ovn-sb.ovsschema", "conf": find_schema()}
        for name, file in files.items():
            self._run("ovsdb-tool", "create", str(folder / f"{name}.db"), str(file))
        south = f"unix:{folder}/sb.sock"
        settings = {
            "system-id": "ch1",
            "ovn-remote": south,
            "ovn-encap-type": "geneve",
            "ovn-encap-ip": "127.0.0.1",
            "ovn-bridge-datapath-type": "netdev",
        }
        threads = {"n-handler-threads": "1", "n-revalidator-threads": "1"}
        row = {"external_ids": _map(settings), "other_config": _map(threads)}
        operation = {"op": "insert", "table": "Open_vSwitch", "row": row}
        self._run("ovsdb-tool", "transact", str(folder / "conf.db"), json.dumps(["Open_vSwitch", operation]))
        for name, place in (("nb", "nb.sock"), ("sb", "sb.sock"), ("conf", "db.sock")):
            self._daemon("ovsdb-server", str(folder / f"{name}.db"), f"--remote=punix:{folder}/{place}", name=name)
        self._daemon("ovs-vswitchd", f"unix:{folder}/db.sock", name="vswitchd")
        self._daemon("ovn-northd", f"--ovnnb-db=unix:{folder}/nb.sock", f"--ovnsb-db={south}", name="northd")
        self._daemon("ovn-controller", f"unix:{folder}/db.sock", name="controller")
        self._daemon("ovn-nbctl", name="nbctl")
        (socket,) = folder.glob("ovn-nbctl.*.ctl")
        self._tool_socket = str(socket)

    def _daemon(self, program: str, *arguments: str, name: str) -> None:
        pid_file = self._folder / f"{name}.pid"
        self._pids.append(pid_file)
        log = f"--log-file={self._folder / name}.log"
        self._run(program, *arguments, "--detach", "--no-chdir", f"--pidfile={pid_file}", log, "-vconsole:off")

    def _run(self, program: str, *arguments: str) -> None:
        places = ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR", "OVN_RUNDIR", "OVN_LOGDIR", "OVN_DBDIR")
        own = {"PATH": SEARCH, "OVN_NB_DB": f"unix:{self._folder}/nb.sock", **dict.fromkeys(places, str(self._folder))}
        if self._tool_socket:
            own["OVN_NB_DAEMON"] = self._tool_socket
        ran = subprocess.run(
            (program, *arguments), env={**os.environ, **own}, capture_output=True, text=True, check=False
        )
        if ran.returncode != 0:
            raise NoOvn(f"{program} ended with {ran.returncode}: {ran.stderr.strip()}")

    async def close(self) -> None:
        """None of it runs."""
        for client in (self._north, self._switch):
            if client is not None:
                client.close()
        await self._veths.close()
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        for file in reversed(self._pids):
            with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
                pid = int(file.read_text())
                handle = os.pidfd_open(pid)
                os.kill(pid, signal.SIGTERM)
                _until_ended(handle)

    async def fill(self, sandboxes: list[Sandbox]) -> None:
        """A port is in each of these, and up."""
        for first in range(0, len(sandboxes), GROWN_AT_ONCE):
            some = sandboxes[first : first + GROWN_AT_ONCE]
            names = [self._name() for _ in some]
            for name, sandbox in zip(names, some, strict=True):
                await self._make_link(name, sandbox)
            await asyncio.gather(self._make_logical(names), self._make_rows(names))
            await self._until_up(names)

    async def attach_ms(self, sandbox: Sandbox) -> float:
        """How long a port took until it was up, asked for over the sockets; it is gone again afterwards."""
        name = self._name()
        began = time.perf_counter()
        await asyncio.gather(self._make_logical([name]), self._make_link_and_row(name, sandbox))
        await self._until_up([name])
        took_ms = (time.perf_counter() - began) * MS
        await self._remove(name)
        return took_ms

    async def attach_by_tools_ms(self, sandbox: Sandbox) -> float:
        """The same, as somebody types it; the link is there already."""
        name = self._name()
        await self._make_link(name, sandbox)
        began = time.perf_counter()
        logical = ("--wait=hv", "lsp-add", SWITCH, name, "--", "lsp-set-addresses", name, _addresses(name))
        await asyncio.to_thread(self._run, "ovn-nbctl", *logical)
        row = ("set", "interface", name, f"external_ids:iface-id={name}")
        await asyncio.to_thread(self._run, "ovs-vsctl", "add-port", BRIDGE, name, "--", *row)
        await self._until_up([name])
        took_ms = (time.perf_counter() - began) * MS
        await self._remove(name)
        return took_ms

    def _name(self) -> str:
        name = f"ov{next(self._numbers)}"
        self._up[name] = asyncio.Event()
        return name

    async def _make_link_and_row(self, name: str, sandbox: Sandbox) -> None:
        await self._make_link(name, sandbox)
        await self._make_rows([name])

    async def _make_link(self, name: str, sandbox: Sandbox) -> None:
        number = int(name[2:])
        spec = LinkSpec(
            endpoint=f"ovn{number:013d}",
            device=name,
            stamp=name,
            netns_path=str(sandbox.path),
            mac=_mac(name),
            mtu_bytes=1442,
            addresses=(IPv4Interface((FIRST_ADDRESS + number, 16)),),
            gateways=(),
            is_tx_checksum_off=True,
        )
        await self._veths.ensure(spec, lambda _: None)

    async def _make_logical(self, names: list[str]) -> None:
        assert self._north is not None
        rows = [{"name": name, "addresses": _addresses(name)} for name in names]
        table, holder = "Logical_Switch_Port", "Logical_Switch"
        made = [operation for row in rows for operation in _into(table, row, holder, self._switch_row)]
        await self._north.transact(made)

    async def _make_rows(self, names: list[str]) -> None:
        assert self._switch is not None
        operations: list[Any] = []
        for name in names:
            row = {"name": name, "external_ids": _map({"iface-id": name})}
            operations.append({"op": "insert", "table": "Interface", "row": row, "uuid-name": f"i{name}"})
            port = {"name": name, "interfaces": ["named-uuid", f"i{name}"]}
            operations += _into("Port", port, "Bridge", self._bridge_row)
        bump = {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]}
        await self._switch.transact([*operations, bump])

    async def _until_up(self, names: list[str]) -> None:
        try:
            async with asyncio.timeout(WITHIN_S):
                for name in names:
                    await self._up[name].wait()
        except TimeoutError:
            raise NoOvn(f"ports were not up within {WITHIN_S:g} s; its logs are in {self._folder}") from None

    async def _remove(self, name: str) -> None:
        assert self._north is not None
        assert self._switch is not None
        for client, table, holder, row in (
            (self._north, "Logical_Switch_Port", "Logical_Switch", self._switch_row),
            (self._switch, "Port", "Bridge", self._bridge_row),
        ):
            found = await client.transact([_select(table, name)])
            gone = ["set", [["uuid", found[0]["rows"][0]["_uuid"][1]]]]
            await client.transact([_mutate(holder, row, "delete", gone)])
        await self._veths.delete([name])
        del self._up[name]

    def _on_ports(self, updates: TableUpdates) -> None:
        for change in updates.get("Logical_Switch_Port", {}).values():
            row = change.get("new", {})
            if row.get("up") is True and row["name"] in self._up:
                self._up[row["name"]].set()


def figures(took_ms: list[float]) -> dict[str, float]:
    """Percentiles of a series."""
    return {"runs": float(len(took_ms)), "p50_ms": percentile(took_ms, 50), "p99_ms": percentile(took_ms, 99)}


def _into(table: str, row: dict[str, Any], holder: str, holder_row: str) -> list[dict[str, Any]]:
    """A row, and its place in the set of ports of the row that holds it."""
    name = f"r{row['name']}"
    return [
        {"op": "insert", "table": table, "row": row, "uuid-name": name},
        _mutate(holder, holder_row, "insert", ["set", [["named-uuid", name]]]),
    ]


def _mutate(table: str, row: str, how: str, what: list[Any]) -> dict[str, Any]:
    return {
        "op": "mutate",
        "table": table,
        "where": [["_uuid", "==", ["uuid", row]]],
        "mutations": [["ports", how, what]],
    }


def _select(table: str, name: str) -> dict[str, Any]:
    return {"op": "select", "table": table, "where": [["name", "==", name]], "columns": ["_uuid"]}


def _mac(name: str) -> str:
    return (b"\x02\xf2" + int(name[2:]).to_bytes(4, "big")).hex(":")


def _addresses(name: str) -> str:
    return f"{_mac(name)} {IPv4Interface(FIRST_ADDRESS + int(name[2:])).ip}"


def _map(values: dict[str, str]) -> list[Any]:
    return ["map", [[key, value] for key, value in values.items()]]


def _until_ended(handle: int) -> None:
    try:
        select.select([handle], [], [], 10.0)
    finally:
        os.close(handle)


def _lost() -> None:
    raise NoOvn("a database of OVN ended the connection")
