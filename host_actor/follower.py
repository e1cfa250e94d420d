"""Reads the journal into `Desired`: what was missed, then what comes; and makes sure that it is the journal it was.

    reading --all of it folded--> current --it is another, an older one--> journal-mismatch --adopted--> reading

While the journal is not the one that made the ports of this host, nothing is folded and nothing is torn down: an
operator has to say that it is to be taken as it is (`adopt`). One that has nothing to do with anything here is taken at
once.

Runs inside a session with the journal, as its first task, and a second one that looks again and again which journal it
is.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

import anyio
import structlog

from messages import subjects
from messages.codec import Malformed, decode_event
from services.runtime.errors import Unavailable
from services.runtime.journal import Identity, Journal, Recorded

from .attachments import Attachments
from .desired import Desired

log = structlog.get_logger()

READ_AT_ONCE = 50_000  # sequences
TRACE_HEADER = "traceparent"


class Standing(enum.StrEnum):
    """How well this host knows the journal."""

    READING = "reading"
    CURRENT = "current"
    MISMATCH = "journal-mismatch"


class JournalMismatch(Exception):
    """The journal is another one than the one that was followed."""


class Follower:
    """Keeps `Desired` and the attachments as the journal says.

    `on_change(endpoint)`: that one may be another now; empty: what is known of other hosts may be.
    """

    def __init__(
        self,
        desired: Desired,
        attachments: Attachments,
        on_change: Callable[[str], None],
        is_told_to_adopt: Callable[[], bool],
        look_every_s: float,
    ) -> None:
        self.standing = Standing.READING
        self.reason = ""  # of a mismatch
        self._desired = desired
        self._attachments = attachments
        self._on_change = on_change
        self._is_told_to_adopt = is_told_to_adopt
        self._look_every_s = look_every_s
        self._epoch_seen = 0  # on the switch, where that is more than the journal knows
        self._is_adopted = False  # the switch's epochs say nothing about the journal any more
        self._is_said = False
        self.mismatched = anyio.Event()  # set while an operator has to say how to go on
        self._adopted = anyio.Event()
        self._doubted = anyio.Event()

    def adopt(self) -> None:
        """The journal is to be taken as it is: what it does not know is removed from this host."""
        self._adopted.set()

    def may_tear_down(self, newest_epoch: int) -> bool:
        """Whether what is not desired may be removed; a switch that knows newer bindings than the journal says no."""
        if self.standing is not Standing.CURRENT:
            return False
        if newest_epoch <= self._desired.seq or self._is_adopted:
            return True
        self._epoch_seen = newest_epoch
        self._doubted.set()
        return False

    async def run(self, journal: Journal, on_current: Callable[[], None]) -> None:
        """Fold what was missed, call `on_current`, and follow for ever.

        Raises: JournalMismatch, once it is another journal; Unavailable.
        """
        await self._agree(journal)
        await self._catch_up(journal)
        self.standing = Standing.CURRENT
        log.info("journal-current", seq=self._desired.seq, endpoints=len(self._desired.bindings))
        on_current()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, journal)
            filters = [subjects.bound_to(self._desired.host), subjects.HOST_AGGREGATE]
            async for recorded in journal.follow(filters, min(self._desired.seq, self._desired.hosts_seq)):
                self._take(recorded)

    async def _agree(self, journal: Journal) -> None:
        """Return when the journal may be read: it is the one that was, or has been adopted. Raises: Unavailable."""
        while True:
            identity = await journal.identity()
            reason = self._mismatch(identity)
            if not reason:
                break
            if self._adopted.is_set() or self._is_told_to_adopt() or self._is_unconcerned():
                log.warning("journal-adopted", reason=reason, created=identity.created, last_seq=identity.last_seq)
                self._desired.forget(identity.created)
                self._is_adopted = True
                self._adopted = anyio.Event()
                break
            self._say_mismatch(reason, identity)
            with anyio.move_on_after(self._look_every_s):
                await self._adopted.wait()
        self.reason = ""
        self._is_said = False
        self.mismatched = anyio.Event()
        self._doubted = anyio.Event()
        self._desired.created = identity.created
        self.standing = Standing.READING

    def _mismatch(self, identity: Identity) -> str:
        """Why this is not the journal that was read before; empty when it is."""
        desired = self._desired
        if desired.created and identity.created != desired.created:
            return f"this journal was made at {identity.created}, the one that was followed at {desired.created}"
        if identity.last_seq < desired.seq:
            return f"this journal ends at {identity.last_seq}, and was read to {desired.seq} before"
        if identity.last_seq < self._epoch_seen and not self._is_adopted:
            return f"the switch has a port of epoch {self._epoch_seen}, this journal ends at {identity.last_seq}"
        return ""

    def _is_unconcerned(self) -> bool:
        """Nothing that stands or is owed here comes from the journal that was."""
        return not (self._desired.bindings or self._desired.departures or self._epoch_seen)

    def _say_mismatch(self, reason: str, identity: Identity) -> None:
        self.standing = Standing.MISMATCH
        self.mismatched.set()
        if self.reason == reason and self._is_said:
            return
        self.reason = reason
        self._is_said = True
        log.error(
            "journal-mismatch",
            reason=reason,
            last_seq=identity.last_seq,
            effect="nothing on this host is changed",
            remedy=f"once the journal is as it should be: netctl journal adopt --host {self._desired.host}",
        )

    async def _catch_up(self, journal: Journal) -> None:
        """All that the journal holds about this host is folded, its own reports too. Raises: Unavailable."""
        desired = self._desired
        filters = [subjects.bound_to(desired.host), subjects.reported_by(desired.host), subjects.HOST_AGGREGATE]
        identity = await journal.identity()
        known_seq = min(desired.seq, desired.reports_seq, desired.hosts_seq)
        done_seq = max(known_seq, min(identity.first_seq - 1, identity.last_seq))
        while done_seq < identity.last_seq:
            until_seq = min(done_seq + READ_AT_ONCE, identity.last_seq)
            for recorded in await journal.read(filters, done_seq, until_seq):
                self._fold(recorded)
            done_seq = until_seq
        desired.seq = desired.reports_seq = desired.hosts_seq = max(desired.seq, identity.last_seq)
        for attachment in self._attachments:
            if attachment.binding.bound.endpoint not in desired.bindings:
                self._attachments.unbind(attachment.binding.bound.endpoint)
        for binding in desired.bindings.values():
            self._attachments.bind(binding)

    def _take(self, recorded: Recorded) -> None:
        endpoint = self._fold(recorded)
        if endpoint is None:
            self._on_change("")
            return
        binding = self._desired.bindings.get(endpoint)
        if binding is None:
            self._attachments.unbind(endpoint)
        else:
            self._attachments.bind(binding)
        self._on_change(endpoint)

    def _fold(self, recorded: Recorded) -> str | None:
        try:
            event = decode_event(recorded.payload)
        except Malformed as fault:
            log.warning("event-unreadable", seq=recorded.seq, subject=recorded.subject, detail=fault.detail)
            return None
        return self._desired.apply(recorded.seq, recorded.subject, event, recorded.headers.get(TRACE_HEADER, ""))

    async def _watch(self, journal: Journal) -> None:
        """Raises: JournalMismatch as soon as the journal is found to be another."""
        while True:
            with anyio.move_on_after(self._look_every_s):
                await self._doubted.wait()
            self._doubted = anyio.Event()
            try:
                reason = self._mismatch(await journal.identity())
            except Unavailable as fault:
                log.debug("journal-away", detail=fault.detail)
                continue
            if reason:
                self.standing = Standing.MISMATCH
                self.reason = reason
                raise JournalMismatch(reason)
            self._epoch_seen = 0
