"""What this host has to tell the journal about its ports: kept until it is there, in order, only the newest of each.

A confirmation that a port is gone is never replaced by anything: addresses wait for it. Reports survive the bus being
away here, and the end of the process in `Desired`: what the journal does not have is found owing again at the next
start.

One sender task, inside the session with the journal; making ports never waits for it. A second one publishes the last
state of each port a moment later: who waits for a port is told by the event, and should not wait for what nobody does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import structlog

from messages import subjects
from messages.catalog import event_name
from messages.codec import MSGPACK, encode
from messages.port import PortEvent, PortUnbound
from services.runtime.clock import Clock, rfc3339
from services.runtime.errors import OutcomeUnknown, Unavailable
from services.runtime.journal import BY_HEADER, MESSAGE_ID_HEADER, Draft, Journal

from .desired import Departure, Desired, PortReport, facts_of

log = structlog.get_logger()

SENT_AT_ONCE = 16
STATES_EVERY_S = 0.1
STATES_AT_THE_END_WITHIN_S = 1.0
RETRY_AFTER_MAX_S = 5.0
TRACE_HEADER = "traceparent"

PublishState = Callable[[str, bytes], Awaitable[None]]
Key = tuple[str, int]  # endpoint, and the epoch that is gone, 0 for how it stands


class Report:
    """One report on its way. Its `message_id` stays the same however often it is sent."""

    def __init__(self, event: PortEvent, trace: str, number: int, *, ended_seq: int = 0) -> None:
        self.event = event
        self.trace = trace
        self.ended_seq = ended_seq  # of a departure
        self.is_recorded = False
        self.message_id = f"{event.endpoint}.{event.epoch}.{event_name(event).removeprefix('port-')}.{number}"


class Reports:
    """The reports that the journal does not have yet.

    One whose outcome is unknown is sent again until it is known, before anything newer about its endpoint: else nobody
    could say which of the two the journal had last.
    """

    def __init__(self, desired: Desired, clock: Clock, on_recorded: Callable[[], None]) -> None:
        self._desired = desired
        self._clock = clock
        self._on_recorded = on_recorded
        self._waiting: dict[Key, Report] = {}  # oldest first
        self._unknown: dict[str, Report] = {}  # endpoint -> may be recorded
        self._last_number = 0
        self._last_seq = 0  # of what was acknowledged
        self._arrived = anyio.Event()
        self._states: dict[str, bytes] = {}  # by subject, the newest that was not published yet
        self._has_states = anyio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def tell(self, event: PortReport, trace: str = "") -> None:
        """The journal will have this as the last word about the endpoint; nothing, if it has that already."""
        key = (event.endpoint, 0)
        under_way = self._waiting.get(key) or self._unknown.get(event.endpoint)
        if (under_way.event == event) if under_way is not None else self._is_recorded(event):
            return
        self._put(key, Report(event, trace, self._next_number()))
        log.info(event_name(event), endpoint=event.endpoint, name=event.name, epoch=event.epoch, facts=facts_of(event))

    def gone(self, departure: Departure) -> None:
        """The journal will have that nothing is left of this binding's port."""
        key = (departure.endpoint, departure.epoch)
        waiting = self._waiting.get(key)
        if waiting is not None and waiting.ended_seq == departure.ended_seq:
            return
        state = self._waiting.get((departure.endpoint, 0))
        if state is not None and state.event.epoch <= departure.epoch:
            del self._waiting[departure.endpoint, 0]
        event = PortUnbound(
            tenant=departure.tenant,
            network=departure.network,
            endpoint=departure.endpoint,
            name=departure.name,
            host=self._desired.host,
            epoch=departure.epoch,
        )
        self._put(key, Report(event, departure.trace, departure.ended_seq, ended_seq=departure.ended_seq))
        log.info("port-unbound", endpoint=departure.endpoint, name=departure.name, epoch=departure.epoch)

    async def run(self, journal: Journal, publish_state: PublishState) -> None:
        """Send what waits, for ever; what is refused for now is sent again later. Never raises Unavailable."""
        self._last_seq = 0  # this may be another journal
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._publish_states, publish_state)
            await self._send_all(journal)

    async def _send_all(self, journal: Journal) -> None:
        attempts = 0
        while True:
            if not (self._waiting or self._unknown):
                self._arrived = anyio.Event()
                await self._arrived.wait()
            faults: list[Unavailable] = []
            async with anyio.create_task_group() as tasks:
                for key, report in self._next():
                    tasks.start_soon(self._send, key, report, journal, faults)
            if faults:
                attempts += 1
                delay_s = min(RETRY_AFTER_MAX_S, 0.05 * 2 ** min(attempts, 8))
                log.warning("reports-kept", waiting=len(self._waiting), detail=faults[0].detail, again_in_s=delay_s)
                await anyio.sleep(delay_s)
            else:
                attempts = 0
                self._know_all()

    def _know_all(self) -> None:
        """Nothing is under way: the journal has no report of ours after the last acknowledged one."""
        if not self._unknown:
            self._desired.reports_seq = max(self._desired.reports_seq, self._last_seq)

    def _put(self, key: Key, report: Report) -> None:
        self._waiting.pop(key, None)
        self._waiting[key] = report
        self._arrived.set()

    def _is_recorded(self, event: PortReport) -> bool:
        recorded = self._desired.reported.get(event.endpoint)
        if recorded is None:
            return False
        return (recorded.epoch, recorded.kind, recorded.facts) == (event.epoch, event_name(event), facts_of(event))

    def _next(self) -> list[tuple[Key, Report]]:
        """The oldest report of each endpoint: those of different endpoints need not wait for each other."""
        oldest = {report.event.endpoint: ((name, 0), report) for name, report in self._unknown.items()}
        for key, report in self._waiting.items():
            if len(oldest) >= SENT_AT_ONCE:
                break
            oldest.setdefault(key[0], (key, report))
        return list(oldest.values())

    async def _publish_states(self, publish_state: PublishState) -> None:
        """What stands as the last state of each port follows its reports, for ever; also when this is cancelled."""
        while True:
            await self._has_states.wait()
            try:
                await anyio.sleep(STATES_EVERY_S)
            finally:
                with anyio.move_on_after(STATES_AT_THE_END_WITHIN_S, shield=True), suppress(Unavailable):
                    await self._publish_all(publish_state)

    async def _publish_all(self, publish_state: PublishState) -> None:
        """Raises: Unavailable; what was not published waits for the next time."""
        while self._states:
            subject, payload = next(iter(self._states.items()))
            await publish_state(subject, payload)
            if self._states.get(subject) is payload:
                del self._states[subject]
        self._has_states = anyio.Event()

    async def _send(self, key: Key, report: Report, journal: Journal, faults: list[Unavailable]) -> None:
        event = report.event
        try:
            if not report.is_recorded and self._is_due(report):
                await self._record(report, journal)
        except Unavailable as fault:
            if isinstance(fault, OutcomeUnknown) and not isinstance(event, PortUnbound):
                self._unknown[event.endpoint] = report
            faults.append(fault)
        else:
            if report.is_recorded:
                self._states[subjects.port_state(event.host, event.tenant, event.endpoint)] = encode(event)
                self._has_states.set()
            self._done(key, report)

    async def _record(self, report: Report, journal: Journal) -> None:
        """The journal has it, and `Desired` knows. Raises: Unavailable."""
        event = report.event
        appended = await journal.append([self._draft(report)], [])
        report.is_recorded = True
        self._last_seq = max(self._last_seq, appended.first_seq)
        if isinstance(event, PortUnbound):
            self._desired.confirm(event.endpoint, event.epoch, appended.first_seq)
        else:
            self._desired.note(event)
        self._on_recorded()

    def _done(self, key: Key, report: Report) -> None:
        if self._waiting.get(key) is report:
            del self._waiting[key]
        if self._unknown.get(key[0]) is report:
            del self._unknown[key[0]]

    def _is_due(self, report: Report) -> bool:
        """Whether the journal still lacks it: what was read since may have it, or have ended what it is about."""
        event = report.event
        if isinstance(event, PortUnbound):
            return event.epoch in self._desired.departures.get(event.endpoint, {})
        binding = self._desired.bindings.get(event.endpoint)
        return binding is not None and binding.epoch == event.epoch and not self._is_recorded(event)

    def _draft(self, report: Report) -> Draft:
        event = report.event
        kind = event_name(event)
        headers = {
            MESSAGE_ID_HEADER: report.message_id,
            BY_HEADER: f"host-{event.host}",
            "Content-Type": MSGPACK,
            "ce-id": report.message_id,
            "ce-type": f"io.np.v1.{kind}",
            "ce-source": f"/np/host/{event.host}",
            "ce-specversion": "1.0",
            "ce-time": rfc3339(self._clock.now_ns()),
        }
        if report.trace:
            headers[TRACE_HEADER] = report.trace
        return Draft(subjects.port_event(event.tenant, event.host, kind), encode(event), headers)

    def _next_number(self) -> int:
        """A number that no report has had, in this process or in one before it."""
        self._last_number = max(self._last_number + 1, self._clock.now_ns())
        return self._last_number
