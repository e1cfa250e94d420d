"""Other hosts as this switch reaches them: the tunnel port, the neighbours on the underlay, and whose flows stand.

Flows and broadcast branches are changed in the bundle of the round that they belong to (`change`); the tunnel port and
the neighbours are no flows, and are made beside it (`finish`).

With the data path in user space the switch sends tunnelled packets itself: it must know the underlay MAC of each VTEP,
or the first packet to it is lost, and the VTEP address must be on the inner port of one of its own bridges. That port
is a tap, which ends with ovs-vswitchd and comes back without its address: the tunnel's row says which it was, and it is
put back. With the data path in the kernel both are the kernel's, and a neighbour is a permanent entry there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_interface
from pathlib import Path
from typing import Final, assert_never

import structlog

from ..underlay import Underlay, find_underlay, restore_address, set_neighbour
from ..unixctl import ask
from .contract import (
    DropRemote,
    EnsureRemote,
    RemoteEndpoint,
    RemoteFlood,
    RemoteTunnel,
    RemoteVtep,
    Route,
    RoutedEndpoint,
    RoutedNetwork,
    RouterPeer,
)
from .ovs_flows import TUNNEL_PORT, Seal, network_key
from .ovs_remotes import (
    endpoint_mark,
    flood_bucket,
    flood_mark,
    is_whole,
    owner_of_remote,
    remote_flows,
    remote_mark,
    tunnel_mark,
)
from .ovs_rows import TUNNEL_DEVICE, delete_ports, insert_tunnel, tunnel_options, update_tunnel
from .ovs_rules import RuleEdit, Survey
from .ovs_switch import RuleChange, Switch

_IPV4_BUCKETS: Final = 0x10000  # bucket ids from here on are hosts; below them, from SHARED_BUCKETS on, uplinks
_NEIGHBOUR_FOR_S: Final = 300.0  # the switch forgets one that it has not used for 15 minutes
_TUNNEL_WITHIN_S: Final = 1.0

log = structlog.get_logger()


class UnderlayMissing(Exception):
    """No link of this host has its VTEP address."""


class Reach:
    """What the switch has of other hosts, and how it is changed."""

    def __init__(self, switch: Switch, run_dir: Path, vtep: IPv4Address | IPv6Address | None) -> None:
        self._switch = switch
        self._run_dir = run_dir
        self._vtep = vtep
        self._neighbours: dict[str, tuple[int, float]] = {}  # mark -> which run of the switch was told, until when
        self._broken: set[str] = set()  # marks, at the last look
        self._echoes: dict[int, Seal] = {}  # cookie -> how the switch shows flows that it puts into other words
        self._writing = asyncio.Lock()

    async def observed(self, survey: Survey, owners: Collection[int]) -> dict[str, bool]:
        """All that there is of other hosts, by mark, and whether it is whole."""
        found = {
            endpoint_mark(cookie): is_whole(cookie, seal) or self._echoes.get(cookie) == seal
            for cookie, seal in survey.remotes(owners).items()
        }
        for key, members in self._switch.groups.members.items():
            found |= {flood_mark(key, each): True for each in members if each >= _IPV4_BUCKETS}
        now = time.monotonic()
        run = self._switch.runs_seen
        found |= {mark: told == run and until > now for mark, (told, until) in self._neighbours.items()}
        found |= await self._observed_tunnel()
        self._broken = {mark for mark, is_right in found.items() if not is_right}
        return found

    async def _observed_tunnel(self) -> Mapping[str, bool]:
        row = self._switch.rows.tunnel
        if row is None:
            return {}
        vtep = row.options.get("local_ip", "")
        is_made = row.options == tunnel_options(vtep) and row.ofport_request == TUNNEL_PORT
        is_open = self._switch.present_ofport(TUNNEL_DEVICE) == TUNNEL_PORT
        underlay = await self._underlay()
        is_right = is_made and is_open and underlay is not None and row.underlay == _words(underlay) and underlay.is_up
        return {tunnel_mark(vtep): is_right}

    async def _underlay(self) -> Underlay | None:
        return await find_underlay(self._vtep) if self._vtep is not None else None

    # Flows and groups ----------------------------------------------------------------------------------------------

    def change(self, op: EnsureRemote | DropRemote) -> RuleChange | None:
        """What it changes of flows and groups."""
        if isinstance(op, DropRemote):
            return _removal(op.mark)
        match op.remote:
            case RemoteEndpoint() | RoutedNetwork() | RoutedEndpoint() | RouterPeer() as remote:
                return lambda edit: _install(edit, remote)
            case RemoteFlood() as flood:
                return lambda edit: edit.flood(network_key("vxlan", flood.vni), flood_bucket(flood))
        return None

    # The rest ------------------------------------------------------------------------------------------------------

    async def finish(self, op: EnsureRemote | DropRemote) -> None:
        """What is no flow is done, and what was repaired is read back.

        Raises: `UnderlayMissing`, `PortMissing`, `CommandRefused`, `KernelRefused`, `TransactionRefused`,
        `FlowsMissing`, `Unavailable`.
        """
        if isinstance(op, DropRemote):
            await self._drop(op.mark)
            return
        match op.remote:
            case RemoteEndpoint() | RoutedNetwork() | RoutedEndpoint() | RouterPeer():
                await self._read_back(op.remote)
            case RemoteFlood():
                pass
            case RemoteVtep():
                await self._meet(op.remote)
            case RemoteTunnel():
                async with self._writing:
                    await self._open_tunnel(op.remote)
            case _:
                assert_never(op.remote)

    async def _read_back(self, remote: RemoteEndpoint | Route) -> None:
        """A switch that shows flows in other words than it was told them would be repaired for ever."""
        if remote_mark(remote) in self._broken or self._switch.is_echo_other:
            owner = owner_of_remote(remote)
            self._echoes[owner] = await self._switch.echo(owner, remote_flows(remote))

    async def _drop(self, mark: str) -> None:
        kind, _, rest = mark.partition("/")
        if kind == "vtep":
            self._neighbours.pop(mark, None)  # the switch forgets it by itself
        elif kind == "endpoint":
            self._echoes.pop(int(rest, 16), None)
        elif kind == "tunnel":
            async with self._writing:
                row = self._switch.rows.tunnel
                if row is not None and row.options.get("local_ip", "") == rest:
                    await self._switch.transact(delete_ports(self._switch.bridge, [self._switch.rows.tunnel_port_id]))

    async def _meet(self, neighbour: RemoteVtep) -> None:
        run = self._switch.runs_seen
        underlay = await self._underlay()
        if underlay is None:
            raise UnderlayMissing(f"no link of this host has the VTEP address {self._vtep}")
        if self._switch.datapath == "netdev":
            await ask(self._run_dir, "tnl/neigh/set", underlay.device, str(neighbour.vtep), neighbour.mac)
        else:
            await set_neighbour(underlay.index, neighbour.vtep, neighbour.mac)
        self._neighbours[remote_mark(neighbour)] = (run, time.monotonic() + _NEIGHBOUR_FOR_S)

    async def _open_tunnel(self, tunnel: RemoteTunnel) -> None:
        """The tunnel port stands, and the VTEP address where it stood."""
        row = self._switch.rows.tunnel
        underlay = await self._underlay()
        if row is not None and row.underlay and (underlay is None or not underlay.is_up):
            underlay = await self._restored(row.underlay)
        if underlay is None:
            raise UnderlayMissing(f"no link of this host has the VTEP address {tunnel.vtep}")
        wanted = tunnel_options(str(tunnel.vtep))
        if row is None:
            operations = insert_tunnel(self._switch.bridge, str(tunnel.vtep), _words(underlay), TUNNEL_PORT)
            await self._switch.transact(operations)
        elif (row.options, row.underlay, row.ofport_request) != (wanted, _words(underlay), TUNNEL_PORT):
            await self._switch.transact(update_tunnel(str(tunnel.vtep), _words(underlay), TUNNEL_PORT))
        await self._switch.until_port(TUNNEL_DEVICE, TUNNEL_PORT, _TUNNEL_WITHIN_S)

    async def _restored(self, words: str) -> Underlay | None:
        """The underlay link, with the address that it lost when the switch was restarted."""
        device, _, text = words.partition(" ")
        if self._vtep is None or not text or ip_interface(text).ip != self._vtep:
            return None
        if await restore_address(device, ip_interface(text)):
            log.info("vtep-restored", device=device, address=text)
        return await self._underlay()


def _words(underlay: Underlay) -> str:
    return f"{underlay.device} {underlay.interface}"


def _install(edit: RuleEdit, remote: RemoteEndpoint | Route) -> None:
    """The flows stand, and the groups and ways out that they lead to."""
    match remote:
        case RemoteEndpoint() | RouterPeer():
            edit.need_group(network_key("vxlan", remote.vni))
        case RoutedNetwork() | RoutedEndpoint():
            edit.need_group(network_key(remote.encap, remote.tag))
    edit.put(remote_flows(remote), instead_of=())


def _removal(mark: str) -> RuleChange | None:
    kind, *rest = mark.split("/")
    if kind == "endpoint":
        return lambda edit: edit.remove(int(rest[0], 16))
    if kind == "flood":
        return lambda edit: edit.unflood(int(rest[0]), int(rest[1]))
    return None
