"""Keeps this host's uplinks taken: at the start, when something about them changes, and every few seconds.

One task for the rounds. It is woken by the kernel's announcements of links (whether a card has its cable, whether its
bridge is there) and by the switch's database (a port that somebody takes out).
Shutdown touches nothing: what is taken stays taken, and a restart finds all as it should be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

import anyio
import structlog

from services.runtime.errors import Unavailable
from services.runtime.uplinks import Uplink

from .drivers.ovs_connection import KeptConnection
from .netlink import IFF_UP, KernelRefused, Link
from .netlink_links import LinkTable
from .ovsdb import OvsdbClient, TableUpdates, TransactionRefused
from .uplink import Place, UplinkRefused, ensure, give_back

EVERY_S: Final = 5.0
REFUSED, TAKEN, WAITING = "refused", "taken", "waiting"

log = structlog.get_logger()


class UplinkKeeper:
    """The uplinks of one host. `settled` is set once each has been looked at for the first time."""

    def __init__(self, uplinks: Sequence[Uplink], place: Place) -> None:
        self._uplinks = uplinks
        self._place = place
        self._work = asyncio.Event()
        self._tables: dict[str, LinkTable] = {}
        self._names = {
            name for each in uplinks for name in (each.interface, each.bridge, each.outer_patch)
        }  # of links and ports
        self._states = {uplink.interface: (WAITING, "the switch was not reached yet") for uplink in uplinks}
        self.settled = asyncio.Event()

    async def run(self) -> None:
        """All uplinks are taken, for ever, and no others; what cannot be is said, and tried again."""
        async with AsyncExitStack() as stack:
            for name in [name for each in self._uplinks for name in (each.interface, each.bridge)]:
                table = LinkTable(name, self._link_changed)
                self._tables[name] = table
                await table.open()
                stack.push_async_callback(table.close)
            if self._uplinks:
                database = KeptConnection(self._place.database, self._watch, self._work.set, lambda _: None)
                database.open_when_there()
                stack.push_async_callback(database.close)
            while True:
                self._work.clear()
                await self._round()
                if all(state != WAITING for state, _ in self._states.values()):
                    self.settled.set()
                with anyio.move_on_after(EVERY_S):
                    await self._work.wait()

    @property
    def facts(self) -> tuple[str, ...]:
        """Each uplink as people read it: what was asked for, and what is wrong with it."""
        return tuple(self._fact(uplink) for uplink in self._uplinks)

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong with any of them: not taken, or without a carrier."""
        return tuple(
            fact for uplink, fact in zip(self._uplinks, self.facts, strict=True) if fact != f"{uplink} (taken)"
        )

    def _fact(self, uplink: Uplink) -> str:
        state, detail = self._states[uplink.interface]
        if state != TAKEN:
            return f"{uplink} ({state}: {detail})"
        return f"{uplink} (taken)" if self._has_carrier(uplink.interface) else f"{uplink} (no carrier)"

    def _has_carrier(self, interface: str) -> bool:
        table = self._tables.get(interface)
        link = table.links.get(interface) if table is not None else None
        return link is not None and link.is_carrying

    async def _watch(self, on_lost: Callable[[], None]) -> OvsdbClient:
        client = await OvsdbClient.connect(str(self._place.database), on_lost)
        try:
            await client.monitor({"Port": ("name",)}, lambda _: None, self._rows_changed)
        except TransactionRefused as refusal:  # a server that has not opened its database yet
            client.close()
            raise Unavailable(str(refusal)) from refusal
        except BaseException:
            client.close()
            raise
        self._work.set()
        return client

    def _rows_changed(self, changes: TableUpdates) -> None:
        for change in changes.get("Port", {}).values():
            if "new" not in change and change["old"].get("name") in self._names:
                self._work.set()

    def _link_changed(self, name: str, before: Link | None, after: Link | None) -> None:
        if name not in self._names:
            return  # another whose name begins alike
        if before is None or after is None or not after.flags & IFF_UP:
            self._work.set()
        elif name not in self._states:
            return
        elif before.is_carrying and not after.is_carrying:
            log.warning("uplink-without-carrier", interface=name, effect="what is outside is not reached")
        elif after.is_carrying and not before.is_carrying:
            log.info("uplink-with-carrier", interface=name)

    async def _round(self) -> None:
        await self._give_back_others()
        for uplink in self._uplinks:
            try:
                await ensure(uplink, self._place)
            except UplinkRefused as refusal:
                self._note(uplink, REFUSED, f"{refusal.code}: {refusal.detail}")
            except (Unavailable, TransactionRefused, KernelRefused) as fault:
                self._note(uplink, WAITING, str(fault))
            else:
                self._note(uplink, TAKEN, "")

    async def _give_back_others(self) -> None:
        wanted = {uplink.interface for uplink in self._uplinks}
        for interface in await asyncio.to_thread(self._place.records.interfaces):
            if interface not in wanted:
                await give_back(interface, self._place.records)

    def _note(self, uplink: Uplink, state: str, detail: str) -> None:
        if self._states[uplink.interface] == (state, detail):
            return
        before, self._states[uplink.interface] = self._states[uplink.interface], (state, detail)
        if state == REFUSED:
            log.error("uplink-refused", interface=uplink.interface, detail=detail)
        elif state == WAITING and before[0] != WAITING:
            log.warning("uplink-not-seen", interface=uplink.interface, detail=detail)
