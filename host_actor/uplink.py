"""Taking a network card for the VLAN networks, and giving it back, without cutting the host off.

::

    recorded   what the card has is on the disk
    watched    a watchdog waits for our end (`uplink_watchdog.py`)
    bridged    the card's own bridge is there, empty
    joined     the card is in it; the kernel still hears it, so the host is reached as before
    moved      addresses and routes are on the bridge's local port: one write to the kernel
    shielded   the kernel hears the card no more, only the switch does (user-space data path)
    committed  the record says taken; the watchdog is told

Whoever dies before `committed` leaves a record that says `taking`, and it is undone: by the watchdog at once, or by
the next start. Untagged frames are the host's, on a bridge that switches as any does: its connectivity depends on no
flow of ours and no actor. Its MAC is the card's.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import anyio
import msgspec
import structlog

from services.runtime.errors import Unavailable
from services.runtime.uplinks import Uplink

from . import uplink_rows as rows
from .netlink import KernelRefused, NetlinkSocket
from .netlink_interface import (
    MAY_BE_SO_ALREADY,
    CannotMove,
    Card,
    InterfaceState,
    delete_route,
    list_cards,
    list_state,
    place,
    remove,
    surplus,
)
from .ovsdb import OvsdbClient, TransactionRefused
from .uplink_card import check_card, copy_settings, hear_again, hear_no_more, restore_offloads, switch_off_offloads
from .uplink_record import Record, Records, this_network, uplink_of

STEPS: Final = ("recorded", "watched", "bridged", "joined", "moved", "shielded", "committed")
TOLD_THAT_IT_IS_OVER: Final = b"over\n"
WATCHING: Final = b"watching\n"
DEFAULT_RUN_DIR: Final = Path("/var/run/openvswitch")
KERNEL_MODULE: Final = Path("/sys/module/openvswitch")
_WATCHED_WITHIN_S: Final = 20.0
_BATCH_BYTES: Final = 64 << 20

log = structlog.get_logger()


class UplinkRefused(Exception):
    """This card cannot be taken, or was not; all is as it was. `code` is kebab-case."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Place(msgspec.Struct, frozen=True):
    """Where uplinks of a host are taken: its records, its switch's database, the kind of its bridges."""

    state_dir: Path
    database: Path
    bridge: str = "vlanBr"  # of the endpoints: their data path must be one
    datapath: str = "auto"

    @property
    def records(self) -> Records:
        """The records of this host."""
        return Records(self.state_dir)

    def datapath_beside(self, bridges: Mapping[str, rows.Bridge]) -> str:
        """The kind of data path that an uplink's bridge must have: that of the endpoints' bridge, or what that will
        have.
        """
        if self.bridge in bridges:
            return bridges[self.bridge].datapath or "system"
        if self.datapath != "auto":
            return self.datapath
        return "system" if KERNEL_MODULE.exists() else "netdev"


@asynccontextmanager
async def alone(records: Records) -> AsyncIterator[None]:
    """Nobody else changes an uplink of this host meanwhile."""
    with ExitStack() as stack:
        await asyncio.to_thread(stack.enter_context, records.locked())
        yield


@asynccontextmanager
async def database_at(path: Path) -> AsyncIterator[OvsdbClient]:
    """A connection to the switch's database. Raises: `Unavailable`."""
    client = await OvsdbClient.connect(str(path), lambda: None)
    try:
        yield client
    finally:
        client.close()


# Taking ------------------------------------------------------------------------------------------------------------


async def ensure(uplink: Uplink, where: Place, on_step: Callable[[str], None] = lambda _: None) -> bool:
    """The card is taken: whether anything had to be done for it. What was half done by another life is undone first.

    Raises: `UplinkRefused` (all is as it was), `Unavailable` (the switch is away).
    """
    records = where.records
    async with alone(records), database_at(where.database) as database:
        record = records.read(uplink.interface)
        if record is not None and (record.phase == "taking" or not record.is_of_this_network):
            await _give_back(record, records, database)
            record = None
        bridges = await rows.read_bridges(database)
        cards = await asyncio.to_thread(_cards)
        card = _checked(uplink, cards, bridges)
        bridge = bridges.get(uplink.bridge)
        datapath = where.datapath_beside(bridges)
        if record is not None and await asyncio.to_thread(_is_whole, record, cards, bridge, datapath):
            return await _follow(uplink, record, records, database)
        await _take(uplink, card, record, where, database, on_step)
        return True


def _checked(uplink: Uplink, cards: Mapping[str, Card], bridges: Mapping[str, rows.Bridge]) -> Card:
    fault = check_card(uplink.interface, cards)
    for bridge in bridges.values():
        if uplink.interface in bridge.ports and bridge.name != uplink.bridge:
            detail = f"{uplink.interface} is a port of the bridge {bridge.name}: take it out (ovs-vsctl del-port) first"
            fault = fault or ("uplink-in-another-bridge", detail)
        if bridge.name == uplink.bridge and bridge.marked_for != uplink.interface:
            fault = fault or (
                "uplink-bridge-taken",
                f"the bridge {bridge.name} is not of this uplink: rename or remove it",
            )
    if fault is not None:
        raise UplinkRefused(*fault)
    return cards[uplink.interface]


def _is_whole(record: Record, cards: Mapping[str, Card], bridge: rows.Bridge | None, datapath: str) -> bool:
    """Whether the host has its addresses on the bridge (the one that got them), and the card is in it and has none."""
    uplink = uplink_of(record)
    wanted = {uplink.interface, uplink.bridge, uplink.outer_patch}
    if bridge is None or not wanted <= set(bridge.ports) or bridge.datapath != datapath:
        return False
    local = cards.get(uplink.bridge)
    if local is None or local.index != record.bridge_index:
        return False
    with _netlink() as kernel:
        on_card = list_state(kernel, cards[uplink.interface], is_strict=False)
    return not on_card.addresses and bool(local.flags & 1)


async def _follow(uplink: Uplink, record: Record, records: Records, database: OvsdbClient) -> bool:
    """The patch carries the tags that are asked for now, and the record says what the bridge has. Whether the tags were
    others.
    """
    asked = msgspec.json.encode(uplink).decode()
    has_other_tags = record.uplink != asked
    if has_other_tags:
        await database.transact([rows.limit(uplink)])
    now = await asyncio.to_thread(_on_bridge, uplink, record)
    if has_other_tags or now is not None:
        states = record.states if now is None else (now,)
        newer = msgspec.structs.replace(record, uplink=asked, states=states)
        await asyncio.to_thread(records.write, uplink.interface, newer)
    return has_other_tags


def _on_bridge(uplink: Uplink, record: Record) -> InterfaceState | None:
    """What the bridge has; None when the record says so already."""
    with _netlink() as kernel:
        local = list_cards(kernel)[uplink.bridge]
        now = list_state(kernel, local, is_strict=False)
    if now.facts == frozenset().union(*(state.facts for state in record.states)):
        return None
    return msgspec.structs.replace(now, addrgen_mode=record.states[0].addrgen_mode)


async def _take(
    uplink: Uplink,
    card: Card,
    before: Record | None,
    where: Place,
    database: OvsdbClient,
    on_step: Callable[[str], None],
) -> None:
    records = where.records
    try:
        record = await asyncio.to_thread(_recorded, uplink, card, before, where)
    except CannotMove as fault:
        raise UplinkRefused("uplink-cannot-move", f"{card.name}: {fault}") from fault
    on_step("recorded")
    async with _watched(record, where) as told_that_it_is_over:
        on_step("watched")
        try:
            await _do(record, where, database, on_step)
        except (TransactionRefused, KernelRefused, Unavailable) as fault:
            await _undo(record, records, database)
            told_that_it_is_over()
            raise UplinkRefused("uplink-not-taken", f"{card.name} is as it was: {fault}") from fault
        except BaseException:
            await _undo(record, records, database)
            told_that_it_is_over()
            raise
        told_that_it_is_over()
    log.info("uplink-taken", interface=card.name, bridge=uplink.bridge, addresses=record.people_read)


def _recorded(uplink: Uplink, card: Card, before: Record | None, where: Place) -> Record:
    """The record of this attempt, on the disk. What a bridge that was taken away had is remembered from before."""
    with _netlink() as kernel:
        found = [list_state(kernel, card)]
        local = list_cards(kernel).get(uplink.bridge)
        if local is not None and (there := list_state(kernel, local)).has_own_addresses:
            found.append(there)
    states = [msgspec.structs.replace(state, addrgen_mode=_addrgen_mode(before, card)) for state in found]
    if before is not None and (local is None or local.index != before.bridge_index):
        states = [*before.states, *(state for state in states if state.has_own_addresses)]
    record = Record(
        attempt=os.urandom(8).hex(),
        phase="taking",
        network=this_network(),
        uplink=msgspec.json.encode(uplink).decode(),
        mac=card.mac,
        mtu_bytes=card.mtu_bytes,
        database=str(where.database),
        offloads=before.offloads if before is not None else {},
        people_read=tuple(dict.fromkeys(text for state in states for text in state.texts)),
        states=tuple(states),
    )
    where.records.write(uplink.interface, record)
    return record


async def _do(record: Record, where: Place, database: OvsdbClient, on_step: Callable[[str], None]) -> None:
    uplink = uplink_of(record)
    bridges = await rows.read_bridges(database)
    bridge = bridges.get(uplink.bridge)
    datapath = where.datapath_beside(bridges)
    if bridge is not None and bridge.datapath != datapath:
        await database.transact(rows.delete(bridge))
        bridge = None
    if bridge is None:
        await database.transact(rows.make(uplink, record.mac, record.mtu_bytes, datapath))
    else:
        await database.transact([*rows.mend(uplink, bridge), rows.limit(uplink)])
    await rows.until_open(database, uplink.bridge)
    on_step("bridged")
    if bridge is None or uplink.interface not in bridge.ports:
        await database.transact(rows.join(uplink))
    await rows.until_open(database, uplink.interface)
    if fault := await rows.fault_of(database, uplink.interface):
        raise TransactionRefused("the switch did not take the card up", fault)
    on_step("joined")
    bridge_index = await asyncio.to_thread(_move, record)
    on_step("moved")
    offloads = await asyncio.to_thread(_shield, record, datapath)
    on_step("shielded")
    offloads |= record.offloads
    taken = msgspec.structs.replace(record, phase="taken", bridge_index=bridge_index, offloads=offloads)
    await asyncio.to_thread(where.records.write, uplink.interface, taken)
    on_step("committed")


def _move(record: Record) -> int:
    """Addresses and routes are on the bridge's local port, and no others of the kernel's making. Returns its number."""
    uplink = uplink_of(record)
    with _netlink() as kernel:
        cards = list_cards(kernel)
        card, local = cards.get(uplink.interface), cards.get(uplink.bridge)
        if card is None or local is None:
            raise UplinkRefused("uplink-unknown", f"{uplink.interface} has gone while it was taken: plug it in again")
        copy_settings(card.name, local.name)
        moves = [message for state in record.states for message in place(state, card, local, record.mac)]
        kernel.request(*moves, accepting=MAY_BE_SO_ALREADY)
        _remove_surplus(kernel, record.states, local)
        return local.index


def _shield(record: Record, datapath: str) -> dict[str, int]:
    """In user space, the switch and not the kernel hears the card, frame by frame. Returns what was switched off."""
    if datapath != "netdev":
        return {}
    interface = uplink_of(record).interface
    hear_no_more(interface)
    return switch_off_offloads(interface)


def _addrgen_mode(record: Record | None, card: Card) -> int:
    """How the kernel made link-local addresses on the card before it was taken first."""
    return record.states[0].addrgen_mode if record is not None else card.addrgen_mode


def _remove_surplus(kernel: NetlinkSocket, wanted: Sequence[InterfaceState], card: Card) -> None:
    extra = surplus(wanted, list_state(kernel, card, is_strict=False))
    if extra:
        kernel.request(*(delete_route(body, card) for body in extra), accepting=MAY_BE_SO_ALREADY)


# Giving back -------------------------------------------------------------------------------------------------------


async def give_back(interface: str, records: Records, attempt: str = "") -> bool:
    """The card has its addresses and routes again, and its bridge is gone. Whether there was anything to do.

    With `attempt`: only what that attempt left half done.
    """
    async with alone(records):
        record = await asyncio.to_thread(records.read, interface)
        if record is None or (attempt and (record.attempt, record.phase) != (attempt, "taking")):
            return False
        try:
            async with database_at(Path(record.database)) as database:
                await _give_back(record, records, database)
        except Unavailable as away:
            log.info("uplink-bridge-unreachable", interface=interface, detail=away.detail)
            await _give_back(record, records, None)
    return True


async def _undo(record: Record, records: Records, database: OvsdbClient) -> None:
    with anyio.CancelScope(shield=True):
        await _give_back(record, records, database)


async def _give_back(record: Record, records: Records, database: OvsdbClient | None) -> None:
    """First the kernel, so that the host is reached at once, then the switch."""
    uplink = uplink_of(record)
    await asyncio.to_thread(_return, record)
    if database is not None:
        with suppress(TransactionRefused, Unavailable):
            bridge = (await rows.read_bridges(database)).get(uplink.bridge)
            if bridge is not None and bridge.marked_for == uplink.interface:
                await database.transact(rows.delete(bridge))
    await asyncio.to_thread(records.forget, uplink.interface)
    log.info("uplink-given-back", interface=uplink.interface, addresses=record.people_read)


def _return(record: Record) -> None:
    """The kernel hears the card, and has on it what was there, or what the bridge has got since it was taken."""
    uplink = uplink_of(record)
    hear_again(uplink.interface)
    states = record.states if record.is_of_this_network else ()
    with _netlink() as kernel:
        cards = list_cards(kernel)
        card, local = cards.get(uplink.interface), cards.get(uplink.bridge)
        if card is None:
            log.warning("uplink-card-gone", interface=uplink.interface, addresses=record.people_read)
            return
        if local is not None:
            there = list_state(kernel, local, is_strict=False)
            if (record.phase == "taken" or not states) and there.has_own_addresses:
                states = (msgspec.structs.replace(there, addrgen_mode=_addrgen_mode(record, card)),)
        moves = [message for state in states for message in place(state, local, card)]
        kernel.request(*moves, accepting=MAY_BE_SO_ALREADY)
        _remove_surplus(kernel, states, card)
        if local is not None:
            left = list_state(kernel, local, is_strict=False)
            kernel.request(*remove(left, local), accepting=MAY_BE_SO_ALREADY)
    restore_offloads(uplink.interface, record.offloads)


# The kernel and the watchdog ---------------------------------------------------------------------------------------


@contextmanager
def _netlink() -> Iterator[NetlinkSocket]:
    """A socket for a while, for batches of thousands."""
    kernel = NetlinkSocket(_BATCH_BYTES)
    try:
        yield kernel
    finally:
        kernel.close()


def _cards() -> dict[str, Card]:
    with _netlink() as kernel:
        return list_cards(kernel)


@asynccontextmanager
async def _watched(record: Record, where: Place) -> AsyncIterator[Callable[[], None]]:
    """A process of its own puts all back as it was should this one end before it calls what it is given."""
    interface = uplink_of(record).interface
    words = (str(where.state_dir), interface, record.attempt, str(os.getpid()))
    with (where.records.folder / f"{interface}.log").open("ab") as said:
        watchdog = await asyncio.to_thread(
            subprocess.Popen,
            (sys.executable, "-P", "-m", "host_actor.uplink_watchdog", *words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            cwd="/",
            start_new_session=True,
        )
    assert watchdog.stdin is not None
    assert watchdog.stdout is not None

    def told_that_it_is_over() -> None:
        assert watchdog.stdin is not None
        with suppress(BrokenPipeError):
            watchdog.stdin.write(TOLD_THAT_IT_IS_OVER)
            watchdog.stdin.flush()

    try:
        async with asyncio.timeout(_WATCHED_WITHIN_S):
            answer = await asyncio.to_thread(watchdog.stdout.readline)
        if answer != WATCHING:
            raise UplinkRefused("uplink-not-watched", f"the watchdog of {interface} did not start: see its log")
        yield told_that_it_is_over
    finally:
        watchdog.stdin.close()
        watchdog.stdout.close()
        await asyncio.to_thread(watchdog.wait)
