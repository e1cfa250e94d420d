"""The host actor: journal and containers on one side, the switch on the other, in between only what differs.

Tasks, all in one group that ends when any of them fails (the supervisor then starts the process again):

    reconciler     rounds of plan and execute; owns the driver
    uplinks        takes network cards for VLAN networks, and keeps them taken (`uplink_keeper.py`)
    attachments    questions to container runtimes
    saver          writes the folded state to disk, behind everything else
    session        one after another: connect, follow the journal and the networks of interest, send reports, answer
                   questions, join

The session comes and goes with the bus; the others do not wait for it: what is known is attached, and repaired,
without. Shutdown cancels all of them, saves the state, and touches nothing that forwards.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

import anyio
import msgspec
import structlog
from anyio.abc import TaskGroup

from messages.codec import MSGPACK
from services.runtime.bus import Bus
from services.runtime.clock import Clock
from services.runtime.discovery import Service
from services.runtime.errors import Unavailable
from services.runtime.journal import Journal
from services.runtime.journal_follow import JournalReplaced
from services.runtime.metrics import Family, by_label, counter, gauge

from .attachments import Attachments
from .back_off import delay_s
from .drivers.contract import Driver
from .follower import Follower, JournalMismatch, Standing
from .interests import Interests
from .measures import Measures, of_switch
from .membership import HostFacts, keep_joined
from .questions import Questions
from .reconciler import Reconciler
from .remotes import Gap
from .reports import Reports
from .runtimes.contract import Resolution, RuntimeEvent
from .state_file import StateFile
from .underlay import Underlay, find_underlay
from .uplink_keeper import UplinkKeeper

log = structlog.get_logger()

RECONNECT_MAX_S = 2.0
PORT_STATES = ("bound", "waiting", "failed", "pending")
UPLINKS_WITHIN_S = 30.0  # a card that is not taken by then is no reason to keep others waiting
JOIN_WITHIN_S = 5.0


class Uplink(NamedTuple):
    """A way to the journal; without a bus (in a simulation) there are no questions and nobody to join."""

    journal: Journal
    bus: Bus | None = None


class Containers(Protocol):
    """What the host actor asks of container runtimes."""

    async def open(self, on_event: Callable[[RuntimeEvent], None]) -> None:
        """See `Runtime.open`."""
        ...

    async def resolve(self, reference: str) -> Resolution:
        """See `Runtime.resolve`; `reference` is as a person wrote it."""
        ...

    async def close(self) -> None:
        """See `Runtime.close`."""
        ...


class Settings(msgspec.Struct, frozen=True):
    """The rhythm of a host actor, in seconds."""

    full_pass_every_s: float = 5.0
    look_at_journal_every_s: float = 5.0
    save_at_most_every_s: float = 0.2


class HostActor:
    """One host. Any number may run in one process; nothing is shared."""

    def __init__(
        self,
        facts: HostFacts,
        driver: Driver,
        containers: Containers,
        state_file: StateFile,
        clock: Clock,
        settings: Settings | None = None,
        uplinks: UplinkKeeper | None = None,
    ) -> None:
        settings = settings or Settings()
        self.facts = facts
        self.measures = Measures()
        self.desired = state_file.load()
        self.attachments = Attachments(containers.resolve, self._on_answer)
        self.reports = Reports(self.desired, clock, self._on_state_changed)
        self.follower = Follower(
            self.desired,
            self.attachments,
            self._on_binding,
            state_file.take_adopt_flag,
            settings.look_at_journal_every_s,
        )
        self.desired.remotes.settle(facts.vtep)
        self.interests = Interests(self.desired.remotes, self._on_remotes)
        self.reconciler = Reconciler(
            driver,
            self.desired,
            self.attachments,
            self.reports,
            self.follower.may_tear_down,
            lambda: self.interests.is_current,
            settings.full_pass_every_s,
            self.measures,
        )
        self.questions = Questions(self.desired, self.attachments, self.reconciler, containers.resolve, self.follower)
        self._uplinks = uplinks
        self._driver = driver
        self._containers = containers
        self._state_file = state_file
        self._clock = clock
        self._settings = settings
        self._unsaved = anyio.Event()
        self._gaps_said: dict[str, Gap] = {}
        self._found_on: Bus | None = None  # where this host can be discovered
        self._bus: Bus | None = None  # of the present session, or the last

    async def run(self, connect: Callable[[], AbstractAsyncContextManager[Uplink]]) -> None:
        """Make this host what the journal says, for ever; `connect` is called for each session with it.

        `connect` raises Unavailable when nobody is there.
        """
        try:
            async with anyio.create_task_group() as tasks:
                await self._containers.open(self.attachments.handle)
                self.attachments.start(tasks)
                for binding in self.desired.bindings.values():
                    self.attachments.bind(binding)
                tasks.start_soon(self.reconciler.run)
                if self._uplinks is not None:
                    tasks.start_soon(self._uplinks.run)
                tasks.start_soon(self._save)
                tasks.start_soon(self._keep_connected, connect)
        finally:
            with anyio.CancelScope(shield=True):
                await self._containers.close()
            self._save_now()

    def status(self) -> dict[str, str]:
        """How this host is, for people and for `$SRV` discovery."""
        trouble = self.follower.reason or self.reconciler.trouble
        state = self.follower.standing.value if self.follower.reason else "switch-away" if trouble else "ready"
        return {
            "host": self.facts.host,
            "state": state,
            "reason": trouble,
            "seq": str(self.desired.seq),
            "endpoints": str(len(self.desired.bindings)),
            "reports_waiting": str(len(self.reports)),
            "driver": self.facts.driver,
            "datapath": self._driver.capabilities.datapath,
            "tunnels": self._tunnels(),
            "uplinks": "\n".join(self._uplinks.facts) if self._uplinks is not None else "",
        }

    def _tunnels(self) -> str:
        """How this host reaches others: `none`, `ready`, or a code and what is wrong, for each thing that is."""
        failed = [f"{failure.code}: {failure.detail}" for failure in self.reconciler.reach.failures.values()]
        missing = [f"{gap.code}: {gap.detail}" for _, gap in sorted(self.desired.remotes.gaps.items())]
        return "; ".join(dict.fromkeys((*failed, *missing))) or ("ready" if self.facts.vtep is not None else "none")

    async def figures(self) -> list[Family]:
        """What there is to see of this host from outside (`services.runtime.metrics`)."""
        bus = self._bus
        ports = dict.fromkeys(PORT_STATES, 0) | self.questions.states()
        is_current = self.follower.standing is Standing.CURRENT
        families = [
            *self.measures.families(),
            by_label("np_ports", "gauge", "Ports that this host has to have, by state.", "state", ports),
            counter("np_reconcile_passes_total", "Full passes completed.", self.reconciler.passes),
            gauge("np_reports_waiting", "Reports that the journal does not have yet.", len(self.reports)),
            gauge("np_journal_followed_seq", "The last event about this host that was read.", self.desired.seq),
            gauge("np_journal_current", "Whether all that the journal held was read.", is_current),
            gauge("np_bus_up", "Whether this host is connected.", bus is not None and bus.is_connected),
            counter("np_bus_reconnections_total", "Connections to NATS made again.", bus.reconnections if bus else 0),
            counter("np_follow_reopenings_total", "Times the journal was followed anew.", bus.reopenings if bus else 0),
        ]
        try:
            return families + of_switch(await self._driver.figures())
        except Unavailable as fault:
            log.debug("switch-not-seen", detail=fault.detail)
            return families + of_switch(None)

    # -- what the parts tell each other

    def _on_answer(self, endpoint: str) -> None:
        self.reconciler.touch(endpoint)

    def _on_binding(self, endpoint: str) -> None:
        if endpoint:
            self.reconciler.touch(endpoint)
        self._on_remotes()

    def _on_remotes(self) -> None:
        """What is known of other hosts may have changed, and which networks are of interest."""
        self.reconciler.look()
        self.interests.look()
        self._say_gaps()
        self._unsaved.set()

    def _say_gaps(self) -> None:
        """What cannot be reached is said once, and when it can be again."""
        gaps = self.desired.remotes.gaps
        if gaps != self._gaps_said:
            for subject in gaps.keys() | self._gaps_said.keys():
                gap, before = gaps.get(subject), self._gaps_said.get(subject)
                if gap is None:
                    log.info("gap-closed", subject=subject)
                elif gap != before:
                    log.warning(gap.code, subject=subject, detail=gap.detail)
            self._gaps_said = dict(gaps)

    def _on_state_changed(self) -> None:
        self._unsaved.set()

    # -- sessions with the journal

    async def _keep_connected(self, connect: Callable[[], AbstractAsyncContextManager[Uplink]]) -> None:
        attempts = 0
        said: list[str] = []
        while True:
            faults: list[str] = []
            current = anyio.Event()
            try:
                async with connect() as uplink:
                    await self._session(uplink, current)
            except* Unavailable as group:
                faults += [str(fault) for fault in _leaves(group)]
            except* (JournalMismatch, JournalReplaced) as group:
                faults += [str(fault) for fault in _leaves(group)]
            if current.is_set():
                attempts, said = 0, []
            attempts += 1
            if faults != said:  # a bus that stays away is said once
                log.warning("journal-session-ended", reasons=faults)
            said = faults
            await anyio.sleep(delay_s(attempts, max_s=RECONNECT_MAX_S))

    async def _session(self, uplink: Uplink, current: anyio.Event) -> None:
        """Ends with what ended it; `current` is set once the journal has been read."""
        self._bus = uplink.bus
        self.measures.sessions += 1
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.follower.run, uplink.journal, current.set)
            if uplink.bus is not None:
                tasks.start_soon(uplink.bus.broken)
                await self.questions.start(uplink.bus, tasks)
                tasks.start_soon(self._show_mismatch, uplink.bus, tasks)
            await current.wait()
            self.reconciler.look_at_all("the journal was read")
            self._unsaved.set()
            tasks.start_soon(self.interests.run, uplink.journal, self._on_networks_read)
            tasks.start_soon(self.reports.run, uplink.journal, _state_publisher(uplink.bus))
            if uplink.bus is not None:
                await self._serve(uplink.bus, tasks)

    async def _serve(self, bus: Bus, tasks: TaskGroup) -> None:
        """Others find this host once it has seen its switch and is a member, or nobody has decided that for a while.

        Raises: Unavailable.
        """
        await self.reconciler.reached()
        if self._uplinks is not None:
            with anyio.move_on_after(UPLINKS_WITHIN_S):
                await self._uplinks.settled.wait()
        joined = anyio.Event()
        tasks.start_soon(self._join, bus, joined)
        with anyio.move_on_after(JOIN_WITHIN_S):
            await joined.wait()
        await self._be_found(bus, tasks)
        log.info("actor-ready", host=self.facts.host, seq=self.desired.seq)

    async def _show_mismatch(self, bus: Bus, tasks: TaskGroup) -> None:
        """Who looks for hosts finds this one, and why it does nothing, while an operator has to say how to go on."""
        await self.follower.mismatched.wait()
        await self._be_found(bus, tasks)

    async def _be_found(self, bus: Bus, tasks: TaskGroup) -> None:
        if self._found_on is bus:
            return
        self._found_on = bus
        stats = list(self.questions.stats.values())
        instance = self._clock.entropy().hex()
        await Service(bus, "host", instance, self.facts.version, stats, self.status).start(tasks)
        await bus.flush()

    async def _join(self, bus: Bus, joined: anyio.Event) -> None:
        def on_joined(underlay: Underlay | None) -> None:
            if underlay is not None:
                self.desired.remotes.settle(self.facts.vtep, underlay.mtu_bytes)
                self._on_remotes()
            joined.set()

        datapath = self._driver.capabilities.datapath
        await keep_joined(bus, self.facts, datapath, find_underlay, lambda: self._clock.entropy().hex(), on_joined)

    def _on_networks_read(self) -> None:
        self.reconciler.look_at_all("the networks were read")

    # -- the state on disk

    async def _save(self) -> None:
        is_told = False
        while True:
            await self._unsaved.wait()
            self._unsaved = anyio.Event()
            state = self.desired.dump()
            try:
                await anyio.to_thread.run_sync(self._state_file.save, state)
            except OSError as fault:
                if not is_told:
                    log.warning("state-not-saved", file=str(self._state_file.path), detail=str(fault))
                is_told = True
                self._unsaved.set()
            else:
                is_told = False
            await anyio.sleep(self._settings.save_at_most_every_s)

    def _save_now(self) -> None:
        if not self._unsaved.is_set():
            return
        try:
            self._state_file.save(self.desired.dump())
        except OSError as fault:
            log.warning("state-not-saved", file=str(self._state_file.path), detail=str(fault))


def _state_publisher(bus: Bus | None) -> Callable[[str, bytes], Awaitable[None]]:
    async def publish(subject: str, payload: bytes) -> None:
        if bus is not None:
            await bus.publish(subject, payload, headers={"Content-Type": MSGPACK})

    return publish


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for each in group.exceptions:
        leaves += _leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return leaves
