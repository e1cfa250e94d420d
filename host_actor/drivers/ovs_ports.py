"""One endpoint's port on the switch, made and taken away.

Making starts at three ends at once: the link is born in a thread, the rules of a port with a new number go to the
switch in one bundle with those of all the others, and the row follows as soon as the device exists (so that the switch
finds it at its first look). It is ready when the switch says that the port is there and the inner end of the link is
configured.

A device that was made anew under its old name is not taken up by itself: the switch goes on listening on the one that
is gone. So its port gets another number, which makes the switch open it again, and rules for that number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Final, TypeVar

from services.runtime.errors import Unavailable

from ..netlink import KernelRefused, Link
from ..netlink_links import LinkTable
from ..netlink_veth import Born, DeviceTaken, LinkSpec, NoFreeInterface, SandboxGone, VethMaker, endpoint_of
from ..openflow import Flow
from ..openflow_client import FlowsRefused
from ..ovsdb import TransactionRefused
from ..unixctl import CommandRefused
from .contract import Done, DropPort, DropRemote, EnsurePort, EnsureRemote, Failed, Outcome, Part, PortSpec
from .ovs_flows import Seal, network_key, owner_of, seal_of
from .ovs_reach import Reach, UnderlayMissing
from .ovs_removal import PacedRemoval
from .ovs_rows import Applied, PortRow, insert_port, update_port
from .ovs_rules import RuleEdit
from .ovs_stale import Place
from .ovs_switch import FlowsMissing, PortMissing, RuleChange, Switch
from .ovs_uplink import Wires

T = TypeVar("T")

WAITED_FOR_REMOVALS: Final = 4  # so many ports are waited for until they are gone; of more, the rest goes by and by


def stamp_of(endpoint: str, epoch: int, sandbox_key: str) -> str:
    """What a link was completed for; its mark in the kernel is made of this."""
    return f"{endpoint}/{epoch}/{sandbox_key}"


def link_spec(port: PortSpec, *, is_tx_checksum_off: bool) -> LinkSpec:
    """The link of a port."""
    return LinkSpec(
        endpoint=port.endpoint,
        device=port.device,
        stamp=stamp_of(port.endpoint, port.epoch, port.sandbox.key),
        netns_path=port.sandbox.netns_path,
        mac=port.mac,
        mtu_bytes=port.mtu_bytes,
        addresses=port.addresses,
        gateways=port.gateways,
        is_tx_checksum_off=is_tx_checksum_off,
    )


_CODES: Final[dict[type[Exception], str]] = {
    SandboxGone: "container-gone",
    NoFreeInterface: "interface-limit",
    DeviceTaken: "switch-refused",
    KernelRefused: "switch-refused",
    FlowsRefused: "switch-refused",
    FlowsMissing: "switch-refused",
    TransactionRefused: "switch-refused",
    PortMissing: "device-missing",
    UnderlayMissing: "vtep-missing",
    CommandRefused: "switch-refused",
}


class _Dropping:
    """One DropPort under way. Nothing is touched that belongs to another endpoint."""

    def __init__(self, op: DropPort, row: PortRow | None, link: Link | None) -> None:
        self.op = op
        self.row = row if row is not None and row.applied.endpoint == op.endpoint else None
        self.has_link = link is not None and endpoint_of(link) == op.endpoint
        self.refusal: FlowsRefused | None = None

    @property
    def device(self) -> str:
        return self.op.device

    def early_change(self) -> RuleChange | None:
        return None if self.row is None else self._remove_rules

    def _remove_rules(self, edit: RuleEdit) -> None:
        assert self.row is not None
        edit.remove(owner_of(self.row.applied.endpoint, self.row.applied.epoch))
        edit.leave(self.row.ofport)
        edit.leave(self.row.ofport_request)


class _Ensuring:
    """One EnsurePort under way: what was there when it began, and the number under which the port will be."""

    def __init__(self, op: EnsurePort, row: PortRow | None, link: Link | None, ofport: int, wires: Wires) -> None:
        self.op = op
        self.port = op.port
        self.row = row
        self.ofport = ofport
        self.wires = wires
        self.flows: tuple[Flow, ...] = ()
        self.echo: Seal | None = None  # of the flows as the switch shows them, where that was asked
        self.refusal: FlowsRefused | None = None
        self.needs_rules = Part.RULES in op.parts or row is None
        # Without a row nobody knows the interface's name inside: then the link is looked at, too.
        self.needs_link = Part.LINK in op.parts or row is None
        self.link_index = link.index if link is not None else 0

    @property
    def device(self) -> str:
        return self.port.device

    @property
    def place(self) -> Place:
        """Where packets to it are told apart."""
        return network_key(self.port.encap, self.port.tag), self.port.mac

    def early_change(self) -> RuleChange | None:
        """The rules, where the port's number is certain before its link has been seen."""
        is_certain = self.row is None or not (self.needs_link or self.is_another_link(self.link_index))
        return self.write_rules if self.needs_rules and is_certain else None

    def is_another_link(self, index: int) -> bool:
        """Whether this is not the device that the switch opened for the row."""
        return self.row is not None and index not in (0, self.row.applied.link_index)

    def write_rules(self, edit: RuleEdit) -> None:
        if self.row is not None:
            edit.remove(owner_of(self.row.applied.endpoint, self.row.applied.epoch))
            edit.remove(owner_of(self.port.endpoint, self.port.epoch))
            for number in {self.row.ofport, self.row.ofport_request} - {self.ofport}:
                edit.leave(number)
        self.flows = self.wires.of_port(self.port, self.ofport)
        edit.install(self.flows, self.ofport, network_key(self.port.encap, self.port.tag))

    def unwrite_rules(self, edit: RuleEdit) -> None:
        edit.remove(owner_of(self.port.endpoint, self.port.epoch))
        edit.leave(self.ofport)

    def applied(self, born: Born) -> Applied:
        """What the row will say."""
        if not self.flows and self.needs_rules:
            self.flows = self.wires.of_port(self.port, self.ofport)
        seal = self.echo or seal_of(self.flows)
        sealed = f"{seal}{self.wires.suffix(network_key(self.port.encap, self.port.tag))}"
        rules = sealed if self.flows or self.row is None else self.row.applied.rules
        return Applied(
            endpoint=self.port.endpoint,
            epoch=self.port.epoch,
            sandbox_key=self.port.sandbox.key,
            interface=born.interface,
            link_index=born.index,
            rules=rules,
            tenant=self.port.tenant,
            network=self.port.network,
            name=self.port.name,
        )


class _Reaching:
    """One change of what the switch has of other hosts."""

    def __init__(self, op: EnsureRemote | DropRemote, change: RuleChange | None) -> None:
        self.op = op
        self.refusal: FlowsRefused | None = None
        self._change = change

    def early_change(self) -> RuleChange | None:
        return self._change


_Work = _Ensuring | _Dropping | _Reaching


class Ports:
    """Makes and takes away ports on one switch, and what it has of other hosts in the same bundles."""

    def __init__(self, switch: Switch, veths: VethMaker, links: LinkTable, reach: Reach) -> None:
        self._switch = switch
        self._reach = reach
        self._veths = veths
        self._links = links
        self._serial = 0
        self.removal = PacedRemoval(switch.remove_port, veths.delete)

    async def carry_out(self, ops: Sequence[EnsurePort | DropPort | EnsureRemote | DropRemote]) -> list[Outcome]:
        """Every operation's outcome; no two of them are about one device or mark. Raises: `Unavailable`."""
        for op in ops:
            if isinstance(op, EnsurePort):
                await self.removal.make_room(op.port.device, op.port.sandbox.key)
        works = [self._begin(op) for op in ops]
        for work in works:
            if isinstance(work, (_Dropping, _Ensuring)):
                is_known = self._switch.stale.knows(work.device)  # its row may have been taken away by hand
                if work.row is not None or is_known:
                    self._switch.stale.went(work.device)
        early = asyncio.create_task(self._change_early([work for work in works if not isinstance(work, Failed)]))
        try:
            outcomes = await together([self._outcome(work, early) for work in works])
            await early
            return outcomes
        finally:
            early.cancel()
            if early.done() and not early.cancelled():
                early.exception()  # whoever waited for it has raised it
            for work in works:
                if isinstance(work, _Ensuring):
                    self._switch.release_ofport(work.ofport)

    def _begin(self, op: EnsurePort | DropPort | EnsureRemote | DropRemote) -> _Work | Failed:
        """What the operation starts from, or why it is refused at once."""
        if isinstance(op, EnsureRemote | DropRemote):
            return _Reaching(op, self._reach.change(op))
        device = op.port.device if isinstance(op, EnsurePort) else op.device
        row = self._switch.rows.ports.get(device)
        link = self._links.links.get(device)
        if isinstance(op, DropPort):
            return _Dropping(op, row, link)
        port = op.port
        if row is None:
            return _Ensuring(op, None, link, self._switch.allocate_ofport(), self._switch.wires)
        if row.applied.endpoint != port.endpoint:
            return Failed(op, "switch-refused", f"port {device} belongs to endpoint {row.applied.endpoint}")
        if row.applied.epoch > port.epoch:
            detail = f"epoch {port.epoch} is older than {row.applied.epoch}, which the port has"
            return Failed(op, "epoch-superseded", detail)
        ofport = self._switch.ofport_of(device) or row.ofport_request or self._switch.allocate_ofport()
        return _Ensuring(op, row, link, ofport, self._switch.wires)

    async def _change_early(self, works: Sequence[_Work]) -> None:
        """The rules of all operations whose numbers are certain are changed, in one bundle."""
        changing = [(work, change) for work in works if (change := work.early_change()) is not None]
        if not changing:
            return
        refusals = await self._switch.change_rules([change for _, change in changing])
        for (work, _), refusal in zip(changing, refusals, strict=True):
            work.refusal = refusal

    async def _outcome(self, work: _Work | Failed, early: asyncio.Task[None]) -> Outcome:
        if isinstance(work, Failed):
            return work
        try:
            if isinstance(work, _Dropping):
                return await self._drop(work, early)
            if isinstance(work, _Reaching):
                return await self._reach_out(work, early)
            return await self._ensure(work, early)
        except tuple(_CODES) as refusal:
            await asyncio.shield(early)
            if isinstance(work, _Ensuring) and work.row is None:
                await self._switch.change_rules([work.unwrite_rules])
            return Failed(work.op, _CODES[type(refusal)], str(refusal))

    async def _drop(self, work: _Dropping, early: asyncio.Task[None]) -> Outcome:
        """The flows are gone at once, the row and the link in their turn."""
        await asyncio.shield(early)
        if work.refusal is not None:
            raise work.refusal
        if work.row is not None or work.has_link:
            gone = self.removal.add(work.op.device, work.row.applied.sandbox_key if work.row is not None else "")
            if len(self.removal.pending) <= WAITED_FOR_REMOVALS:
                await asyncio.shield(gone)
        return Done(work.op)

    async def _reach_out(self, work: _Reaching, early: asyncio.Task[None]) -> Outcome:
        await asyncio.shield(early)
        if work.refusal is not None:
            raise work.refusal
        await self._reach.finish(work.op)
        return Done(work.op)

    async def _ensure(self, work: _Ensuring, early: asyncio.Task[None]) -> Outcome:
        port = work.port
        is_early = work.early_change() is not None
        linking: asyncio.Task[str] | None = None
        if work.needs_link:
            born, linking = await self._birth(port)
        else:
            assert work.row is not None
            index = work.link_index or work.row.applied.link_index
            born = Born(work.row.applied.interface, index, is_new=False)
        if work.is_another_link(born.index):
            work.ofport = self._switch.allocate_ofport()
            work.needs_rules = True
        rules = asyncio.shield(early) if is_early else asyncio.ensure_future(self._rules(work))
        if work.needs_rules and (work.row is not None or self._switch.is_echo_other):
            steps: list[Any] = [self._sealed_row(work, born, rules)]
        else:
            steps = [self._row_after(work, born, rules)]
        if linking is not None:
            steps.append(linking)
        await together(steps)
        if work.refusal is not None:
            raise work.refusal
        await self._switch.until_port(port.device, work.ofport)
        if self._switch.stale.may_be_remembered(work.place):
            await self._switch.stale.forgotten()
        self._switch.stale.came(port.device, work.place)
        return Done(work.op, born.interface)

    async def _birth(self, port: PortSpec) -> tuple[Born, asyncio.Task[str]]:
        """The link as soon as its device exists, and the task that completes it. Raises what making it raises."""
        born: asyncio.Future[Born] = asyncio.get_running_loop().create_future()
        spec = link_spec(port, is_tx_checksum_off=self._switch.datapath == "netdev")
        linking = asyncio.create_task(self._veths.ensure(spec, born.set_result))
        either: list[asyncio.Future[Any]] = [born, linking]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            linking.cancel()
            raise
        if not born.done():
            linking.result()
        return await born, linking

    async def _rules(self, work: _Ensuring) -> None:
        if work.needs_rules:
            (work.refusal,) = await self._switch.change_rules([work.write_rules])

    async def _row_after(self, work: _Ensuring, born: Born, rules: asyncio.Future[None]) -> None:
        """The row, once the rules stand: what a port says before is remembered as to be dropped, for a while after."""
        await rules
        if work.refusal is None:
            await self._write_row(work, born)

    async def _sealed_row(self, work: _Ensuring, born: Born, rules: asyncio.Future[None]) -> None:
        """The row, sealed by what the switch shows of the rules: so a repair is never asked for twice."""
        await rules
        if work.refusal is None:
            work.echo = await self._switch.echo(owner_of(work.port.endpoint, work.port.epoch), work.flows)
            await self._write_row(work, born)

    async def _write_row(self, work: _Ensuring, born: Born) -> None:
        """The row says what is applied; written only when it says something else."""
        applied = work.applied(born)
        if work.row is None:
            self._serial += 1
            operations = insert_port(self._switch.bridge, work.port, applied, work.ofport, self._serial)
        elif work.row.applied != applied or work.row.ofport_request != work.ofport:
            operations = update_port(work.row, work.port, applied, work.ofport)
        else:
            return
        await self._switch.transact(operations)


async def together(steps: Sequence[Coroutine[Any, Any, T] | asyncio.Future[T]]) -> list[T]:
    """The results of all steps. A failure is raised only when every step has come to its end."""
    tasks = [asyncio.ensure_future(step) for step in steps]
    if not tasks:
        return []
    try:
        await asyncio.wait(tasks)
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    failures = [error for task in tasks if (error := task.exception()) is not None]
    if failures:
        raise next((error for error in failures if not isinstance(error, Unavailable)), failures[0])
    return [task.result() for task in tasks]
