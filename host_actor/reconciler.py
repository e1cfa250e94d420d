"""The worker of a host: what is dirty when it comes round goes through one plan and one execution.

It owns the driver and `_ports`, its belief of what the switch has: taken from an observation, moved on by what
operations answer. A full pass (at the start, when the driver says that somebody else changed something, and on a timer)
observes again; between them nothing looks at more than what is dirty.

Until the host is sure to know all of the journal, ports that it does not know are left alone.

One task for the rounds, one for the timer, one for each round's ports that only go: a switch takes its time over those,
and nothing that comes waits for them; meanwhile they belong to that task and no round looks at them. Shutdown cancels
them and touches nothing: what was half done is seen by the next start's observation.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence

import anyio
import msgspec
import structlog
from anyio.abc import TaskGroup

from messages.port import PortBound
from services.runtime.errors import Unavailable

from .attachments import Attachments
from .back_off import Retries, delay_s
from .desired import Desired
from .drivers.contract import (
    ALL_PARTS,
    Done,
    Driver,
    DropPort,
    EnsurePort,
    EnsureSwitch,
    Failed,
    Observed,
    ObservedPort,
    Op,
    Outcome,
    Part,
)
from .measures import Measures
from .planner import leave_unknown, plan
from .reach import Reach
from .remotes import REMOTE
from .reports import Reports
from .verdict import verdict

log = structlog.get_logger()

SWITCH = ""  # the name of the switch itself among what is tried again
SWITCH_RETRY_MAX_S = 1.5


class Reconciler:
    """Makes the switch have what the journal and the containers say.

    `may_tear_down(epoch)` is asked after each observation, with the newest epoch seen: whether what this host does not
    know may be removed; `knows_remotes()`, whether it knows of all that it has to reach on other hosts.
    """

    def __init__(
        self,
        driver: Driver,
        desired: Desired,
        attachments: Attachments,
        reports: Reports,
        may_tear_down: Callable[[int], bool],
        knows_remotes: Callable[[], bool],
        full_pass_every_s: float,
        measures: Measures | None = None,
    ) -> None:
        self.trouble = "the switch was not reached yet"  # empty when it answers
        self.passes = 0  # full ones that were completed
        self.measures = measures or Measures()
        self._driver = driver
        self._desired = desired
        self._attachments = attachments
        self._reports = reports
        self._may_tear_down = may_tear_down
        self._knows_remotes = knows_remotes
        self._full_pass_every_s = full_pass_every_s
        self._ports: dict[str, ObservedPort] = {}
        self._newest_epoch = 0
        self._is_ready = False
        self._failures: dict[str, Failed] = {}
        self._retries = Retries(self._try_again)
        self.reach = Reach(desired.remotes, driver, self._retries.later, self._retries.succeeded)
        self._dirty: dict[str, None] = {}
        self._unknowing: dict[str, None] = {}  # endpoints whose port stands, in networks that were not read yet
        self._full_reason = "start"
        self._is_passing = False
        self._work = asyncio.Event()
        self._work.set()
        self._switch_changed = asyncio.Event()
        self._passed = asyncio.Event()
        self._leaving: set[str] = set()
        self._doubted: set[str] = set()
        self._tasks: TaskGroup | None = None

    @property
    def ports(self) -> Iterable[ObservedPort]:
        """What the switch is believed to have."""
        return tuple(self._ports.values())

    def port(self, endpoint: str) -> ObservedPort | None:
        """What the switch is believed to have of an endpoint."""
        return self._ports.get(endpoint)

    def failure(self, endpoint: str) -> Failed | None:
        """What the switch said last about an endpoint, if it said no."""
        return self._failures.get(endpoint)

    def touch(self, endpoint: str) -> None:
        """This endpoint is looked at in the next round."""
        self._dirty[endpoint] = None
        self._work.set()

    def look(self) -> None:
        """There is a next round, whose question finds what is known of other hosts now."""
        self._work.set()

    def look_at_all(self, reason: str) -> None:
        """The next round observes the switch and looks at everything."""
        self._full_reason = reason
        self._work.set()

    def doubt(self, endpoints: Iterable[str]) -> None:
        """The next round looks at everything, and makes the links of these right whatever the switch shows."""
        self._doubted.update(endpoints)
        self.look_at_all("asked to repair")

    async def passed(self) -> None:
        """Return when a full pass that begins from now on has been completed."""
        wanted = self.passes + (2 if self._is_passing else 1)
        self.look_at_all("asked")
        while self.passes < wanted:
            await self._passed.wait()

    async def reached(self) -> None:
        """Return when the switch has been seen."""
        while not self.passes:
            await self._passed.wait()

    async def run(self) -> None:
        """Open the driver and make it so, for ever. What is away is tried again."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                tasks.start_soon(self._tick)
                tasks.start_soon(self._rounds)
        finally:
            self._retries.close()
            with anyio.CancelScope(shield=True):
                await self._driver.close()

    async def _rounds(self) -> None:
        attempts = 0
        is_open = False
        while True:
            self._switch_changed.clear()
            try:
                if not is_open:
                    await self._driver.open(self._on_switch_change)
                    is_open = True
                await self._work.wait()
                self._work.clear()
                await self.round()
                attempts = 0
            except Unavailable as fault:
                attempts += 1
                await self._wait_for_switch(fault, attempts)
            # What a burst of events has made dirty is taken together: let the loop deliver the rest of it first.
            await asyncio.sleep(0)

    def _on_switch_change(self, reason: str) -> None:
        self._switch_changed.set()
        self.look_at_all(reason)

    async def _wait_for_switch(self, fault: Unavailable, attempts: int) -> None:
        """A while that grows with `attempts`, or until the driver says that something changed."""
        self._note_trouble(fault)
        self.look_at_all("the switch was away")
        with anyio.move_on_after(delay_s(attempts, max_s=SWITCH_RETRY_MAX_S)):
            await self._switch_changed.wait()

    def _note_trouble(self, fault: Unavailable) -> None:
        if self.trouble != fault.detail:
            log.warning("switch-away", detail=fault.detail)
        self.trouble = fault.detail

    async def _tick(self) -> None:
        while True:
            await anyio.sleep(self._full_pass_every_s)
            self._attachments.ask_unfound()
            self.look_at_all("timer")

    async def round(self) -> None:
        """One plan and one execution for all that is dirty now. Raises: Unavailable; then all of it is dirty still."""
        started_ns = time.perf_counter_ns()
        self._dirty |= self._take_knowing()
        reason, self._full_reason = self._full_reason, ""
        self._is_passing = bool(reason)
        batch, self._dirty = self._dirty, {}
        try:
            if reason:
                await self._observe()
                batch = dict.fromkeys((*self._desired.departures, *self._ports, *self._desired.bindings))
            batch = dict.fromkeys(endpoint for endpoint in batch if endpoint not in self._leaving)
            ops = self._let_go(self._plan(batch, is_full=bool(reason)))
            outcomes = await self._execute(ops)
        except Unavailable:
            self._dirty = batch | self._dirty
            raise
        for outcome in outcomes:
            self._absorb(outcome)
        self.reach.answered()
        for endpoint in batch:
            self._settle(endpoint)
        if self._is_ready and self.trouble:
            log.info("switch-here", ports=len(self._ports), datapath=self._driver.capabilities.datapath)
            self.trouble = ""
        if reason:
            self._end_pass(reason, outcomes)
        self.measures.round_s.observe((time.perf_counter_ns() - started_ns) / 1e9)

    def _take_knowing(self) -> dict[str, None]:
        """The endpoints that waited to be reported until their networks were known, which now are."""
        known = {
            endpoint: None
            for endpoint in self._unknowing
            if (attachment := self._attachments.get(endpoint)) is None
            or self._desired.remotes.is_known(attachment.binding.bound)
        }
        for endpoint in known:
            del self._unknowing[endpoint]
        return known

    async def _execute(self, ops: Sequence[Op]) -> Sequence[Outcome]:
        """What the driver made of the operations. Raises: Unavailable."""
        if not ops:
            return ()
        started_ns = time.perf_counter_ns()
        outcomes = await self._driver.execute(ops)
        self.measures.executed(outcomes, (time.perf_counter_ns() - started_ns) / 1e9)
        return outcomes

    def _let_go(self, ops: Sequence[Op]) -> list[Op]:
        """The ports that only go are on their way, in a task of their own; returns the other operations."""
        coming = {op.port.endpoint for op in ops if isinstance(op, EnsurePort)}
        going = [op for op in ops if isinstance(op, DropPort) and op.endpoint not in coming]
        if going:
            assert self._tasks is not None, "rounds are of a reconciler that runs"
            self._leaving.update(op.endpoint for op in going)
            self._tasks.start_soon(self._leave, going)
        return [op for op in ops if not isinstance(op, DropPort) or op.endpoint in coming]

    async def _leave(self, ops: Sequence[DropPort]) -> None:
        """These ports are gone, or are looked at again."""
        endpoints = [op.endpoint for op in ops]
        try:
            outcomes = await self._execute(ops)
        except Unavailable as fault:
            self._note_trouble(fault)
            self._retries.later(SWITCH)
            self._leaving.difference_update(endpoints)
            return
        for outcome in outcomes:
            self._absorb(outcome)
        self._leaving.difference_update(endpoints)
        for endpoint in endpoints:
            self._settle(endpoint)
            self.touch(endpoint)

    def _end_pass(self, reason: str, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Done):
                self._log_repair(reason, outcome.op)
        if self.reach.repaired:
            log.info("put-back", remotes=self.reach.repaired, reason=reason)
        if self._is_ready:
            self._retries.succeeded(SWITCH)
        self.passes += 1
        self._is_passing = False
        passed, self._passed = self._passed, asyncio.Event()
        passed.set()

    async def _observe(self) -> None:
        observed = await self._driver.observe()
        self._ports = dict(observed.ports)
        for port in [port for port in self._ports.values() if port.endpoint in self._doubted]:
            self._ports[port.endpoint] = msgspec.structs.replace(port, parts=port.parts - {Part.LINK})
        self._doubted.clear()
        self.reach.observed(observed.remotes)
        self._is_ready = observed.is_switch_ready
        self._newest_epoch = max((port.epoch for port in self._ports.values()), default=0)

    def _plan(self, batch: Iterable[str], *, is_full: bool) -> tuple[Op, ...]:
        """Operations for these endpoints, and for what changed of other hosts (when full: for all that is known of
        them), from what is believed of the switch.
        """
        specs = {}
        ports = {}
        gone = {}
        for endpoint in batch:
            port = self._ports.get(endpoint)
            attachment = self._attachments.get(endpoint)
            epoch = attachment.binding.epoch if attachment is not None else 0
            if attachment is not None and attachment.is_open and (port is None or port.epoch in (0, epoch)):
                continue  # nobody knows yet whether its container lives
            if port is not None:
                ports[endpoint] = port
            spec = attachment.spec() if attachment is not None else None
            if spec is not None:
                specs[endpoint] = spec
            gone[endpoint] = max((*self._desired.departures.get(endpoint, ()), epoch))
        is_sure = self._may_tear_down(self._newest_epoch)
        remotes, believed = self.reach.question(is_full=is_full, is_sure=is_sure and self._knows_remotes())
        observed = Observed(self._is_ready, ports, believed)
        if not is_sure:
            specs, observed = leave_unknown(specs, observed, gone)
        return plan(specs, observed, remotes)

    def _absorb(self, outcome: Outcome) -> None:
        """The belief moves on by what the driver answered."""
        match outcome:
            case Done(op=EnsureSwitch()):
                self._is_ready = True
                self._retries.succeeded(SWITCH)
            case Failed(op=EnsureSwitch()):
                self._is_ready = False
                self.trouble = f"{outcome.code}: {outcome.detail}"
                log.warning("switch-refused", code=outcome.code, detail=outcome.detail)
                self._retries.later(SWITCH)
            case Done(op=DropPort() as op):
                self._ports.pop(op.endpoint, None)
                self._failures.pop(op.endpoint, None)
            case Failed(op=DropPort() as op):
                self._fail(op.endpoint, outcome)
            case Done(op=EnsurePort() as op):
                self._ports[op.port.endpoint] = _as_made(op, outcome.interface)
                self._failures.pop(op.port.endpoint, None)
                self._retries.succeeded(op.port.endpoint)
            case Failed(op=EnsurePort() as op):
                self._fail_port(op, outcome)
            case _:
                self.reach.absorb(outcome)

    def _fail_port(self, op: EnsurePort, failure: Failed) -> None:
        """It may be there in any part, so no part is believed to be; what could not be dropped is still there."""
        spec = op.port
        before = self._ports.get(spec.endpoint)
        if before is None or before.epoch in (0, spec.epoch):
            self._ports[spec.endpoint] = ObservedPort(
                spec.endpoint, spec.epoch, spec.device, frozenset(), spec.sandbox.key
            )
        self._fail(spec.endpoint, failure)
        if failure.code == "container-gone":
            self._attachments.lost(spec.endpoint, spec.sandbox.key, failure.detail)
            self.touch(spec.endpoint)

    def _fail(self, endpoint: str, failure: Failed) -> None:
        before = self._failures.get(endpoint)
        if before is None or (before.code, before.detail) != (failure.code, failure.detail):
            log.warning("port-refused", endpoint=endpoint, code=failure.code, detail=failure.detail)
        self._failures[endpoint] = failure
        self._retries.later(endpoint)

    def _try_again(self, name: str) -> None:
        if name == SWITCH:
            self.look_at_all("the switch refused")
        elif name.startswith(REMOTE):
            self.reach.touch(name)
            self._work.set()
        else:
            self._attachments.ask(name)
            self.touch(name)

    def _log_repair(self, reason: str, op: Op) -> None:
        """What a full pass put back: parts of a port that had been reported whole, or the switch."""
        if isinstance(op, EnsureSwitch):
            self.measures.repairs["switch"] += 1
            log.info("switch-made", reason=reason)
        elif isinstance(op, EnsurePort):
            spec = op.port
            reported = self._desired.reported.get(spec.endpoint)
            if reported is not None and (reported.epoch, reported.kind) == (spec.epoch, "port-bound"):
                self.measures.repairs.update(part.value for part in op.parts)
                log.info("put-back", endpoint=spec.endpoint, name=spec.name, parts=sorted(op.parts), reason=reason)

    def _settle(self, endpoint: str) -> None:
        """Say what became of an endpoint: which bindings left nothing behind, and how the present one stands."""
        if endpoint in self._leaving:
            return
        port = self._ports.get(endpoint)
        for departure in self._desired.owed(endpoint):
            if port is None or port.epoch > departure.epoch:
                self._reports.gone(departure)
        attachment = self._attachments.get(endpoint)
        if attachment is None:
            if port is None:
                self._failures.pop(endpoint, None)
                self._retries.succeeded(endpoint)
            return
        report = verdict(attachment, port, self._failures.get(endpoint), self._desired.reported.get(endpoint))
        if isinstance(report, PortBound) and not self._desired.remotes.is_known(attachment.binding.bound):
            self._unknowing[endpoint] = None  # its first packet might be for somebody that this host has yet to hear of
            return
        if report is not None:
            self._reports.tell(report, attachment.binding.trace)


def _as_made(op: EnsurePort, interface: str) -> ObservedPort:
    spec = op.port
    return ObservedPort(spec.endpoint, spec.epoch, spec.device, ALL_PARTS, spec.sandbox.key, interface)
