"""Who has joined since `netplugin init`: folded from the journal, kept on disk, and let in by this machine's server.

    follow ---- reads np.v1.evt.fabric.host.> from its beginning, then what comes; for ever, whatever goes away

A server needs no actor to let known hosts in: keys/admitted.json is there before it starts. What happened while it was
away is read as soon as the journal can be. A one-time key stays known for a while after it is of no use any more, so
that whoever comes too late with it is told so by ipam, which alone decides.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from pathlib import Path

import msgspec
import structlog

from messages import codec, subjects
from messages.host import HostAdmitted, HostInvited, HostRemoved

from . import nats_keys
from .runtime import identity
from .runtime.bus import Options, connect
from .runtime.errors import Misconfigured, Unavailable
from .runtime.journal import Recorded
from .runtime.journal_follow import JournalReplaced
from .runtime.journal_jetstream import JetStreamJournal

FILE = "admitted.json"
INVITATION_KNOWN_FOR_NS = 24 * 3600 * 10**9  # after it has expired
RETRY_S = 1.0

log = structlog.get_logger()


class Admissions(msgspec.Struct, kw_only=True):
    """The fold. `removed`: hosts whose key of `netplugin init` is worth nothing any more, whatever came after."""

    admitted: dict[str, str] = msgspec.field(default_factory=dict)  # host -> public key
    removed: set[str] = msgspec.field(default_factory=set)
    invited: dict[str, tuple[str, int]] = msgspec.field(default_factory=dict)  # name -> public key, expires at (ns)

    def apply(self, recorded: Recorded) -> None:
        """One event of `np.v1.evt.fabric.host.>`; those that say nothing of keys change nothing."""
        try:
            event = codec.decode_event(recorded.payload)
        except codec.Malformed as fault:  # of a newer version: what it says of keys is not known here
            log.warning("event-unreadable", seq=recorded.seq, subject=recorded.subject, detail=fault.detail)
            return
        match event:
            case HostInvited():
                self.invited[event.invitation] = (event.public_key, event.expires_at_ns)
            case HostAdmitted():
                self.admitted[event.host] = event.public_key
            case HostRemoved():
                self.admitted.pop(event.host, None)
                self.removed.add(event.host)

    def users(self, given: Mapping[str, str], now_ns: int) -> dict[str, str]:
        """All users by name -> public key; `given` are those that the server was prepared with."""
        gone = {identity.host_user(host) for host in self.removed}
        return {
            **{identity.host_user(host): key for host, key in self.admitted.items()},
            **{user: key for user, key in given.items() if user not in gone},
            **{
                identity.join_user(name): key
                for name, (key, expires_at_ns) in self.invited.items()
                if now_ns < expires_at_ns + INVITATION_KNOWN_FOR_NS
            },
        }


def load(keys_dir: Path) -> Admissions:
    """What was known when the server last ran. Raises: Misconfigured."""
    file = keys_dir / FILE
    try:
        return msgspec.json.decode(file.read_bytes(), type=Admissions)
    except FileNotFoundError:
        return Admissions()
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as fault:
        raise Misconfigured(f"{file}: {fault}: remove it, it is read from the journal again") from fault


def save(keys_dir: Path, admissions: Admissions) -> None:
    """`load` finds it."""
    nats_keys.write(keys_dir / FILE, msgspec.json.encode(admissions, order="sorted"), mode=0o600)


async def follow(options: Options, changed: Callable[[Admissions], None]) -> None:
    """`changed` is told of all that is known, once at first and after every event. Never returns."""
    said = ""
    while True:
        try:
            await _follow(options, changed)
        except Unavailable as fault:
            if fault.detail != said:
                log.info("admissions-not-followed", detail=fault.detail, asked_again_every_s=RETRY_S)
            said = fault.detail
        except JournalReplaced as fault:
            log.warning("journal-replaced", detail=str(fault))
        await asyncio.sleep(RETRY_S)


async def _follow(options: Options, changed: Callable[[Admissions], None]) -> None:
    async with await connect(options) as bus:
        journal = JetStreamJournal(bus)
        end = await journal.last_seq(subjects.HOST_AGGREGATE)
        known = Admissions()
        if not end:
            changed(known)
        async with aclosing(journal.follow([subjects.HOST_AGGREGATE])) as events:
            async for recorded in events:
                known.apply(recorded)
                if recorded.seq >= end:  # before that it is the past, in which others were let in
                    changed(known)


def now_ns() -> int:
    """The time that invitations are held to."""
    return time.time_ns()
