"""What a verb does with the bus: ask, ask again when told to, and say in words why not.

A command is sent with one id for its whole life, so sending it again (a server that died, an actor that was busy) can
never do it twice.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from messages import catalog, codec, subjects
from messages.replies import Accepted, AnyReply, Item, Items, Planned, Refused, Unavailable
from messages.struct import Command, kebab

from .exits import FAILED, UNREACHABLE, WAIT_RAN_OUT, Ended
from .server import Server
from .wire import Message, NoResponders, Rejected, Unreachable, Wire

ANSWER_TIMEOUT_S = 5.0  # of one try
ANSWER_TIMEOUT_OF_SEVERAL_S = 2.0  # then another server is asked
RECONNECT_S = 5.0  # how long a server that went away in the middle is waited for
RETRY_S = 0.1
PROGRESS_AFTER_S = 1.0
AnswerT = TypeVar("AnswerT")
LASTING_CODES = frozenset({"journal-full"})  # trying again within a verb's time is of no use

ACTOR_OF = dict.fromkeys(("tenant", "network", "pool", "ipam", "endpoint", "host", "intent"), "ipam")


class Rehearsed(Exception):
    """A command was only tried: what it would become."""

    def __init__(self, planned: Planned) -> None:
        super().__init__("nothing was done")
        self.planned = planned


class Client:
    """A connection with a deadline for the whole verb. `trace` is the traceparent that all its messages carry.

    `at`: queries are about that point of the past; `is_dry_run`: commands are only tried.
    """

    def __init__(self, server: Server, timeout_s: float, name: str = "netctl") -> None:
        self.server = server
        self.timeout_s = timeout_s
        self.deadline = time.monotonic() + timeout_s
        self.wire = Wire(server, name)
        self.trace = os.environ.get("TRACEPARENT") or f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01"
        self._is_connected = False
        self._progress = Progress()
        self._followed: list[str] = []
        self.at = ""
        self.is_dry_run = False

    def connect(self) -> None:
        """Connected. Raises: Ended with status 3."""
        if self._is_connected:
            return
        try:
            self._connect()
            for subject in self._followed:
                self.wire.subscribe(subject)
        except Unreachable as fault:
            raise Ended(UNREACHABLE, self._unreachable(fault)) from None
        except Rejected as fault:
            raise Ended(
                UNREACHABLE, f"the server at {', '.join(self.server.urls)} does not let us in: {fault}; check --creds"
            ) from None
        self._is_connected = True

    def _connect(self) -> None:
        try:
            self.wire.connect(self.deadline)
        except Rejected:
            if not self.wire.has_others:
                raise
            time.sleep(RETRY_S)  # while a server of a cluster learns who has joined it knows nobody for a moment
            self.wire.connect(self.deadline)

    def close(self) -> None:
        """Nothing is open any more."""
        self.wire.close()
        self._is_connected = False

    def follow(self, subject: str) -> None:
        """What is published on `subject` now arrives by `next_message`, even after a reconnect. Raises: Ended."""
        self._followed.append(subject)
        if self._is_connected:
            self.attempt(lambda: self.wire.subscribe(subject), subject)
        else:
            self.connect()

    def next_message(self, until: float) -> Message | None:
        """The next message of what is followed, None when `until` passes. Raises: Ended when the server stays away."""
        return self.attempt(lambda: self.wire.next_message(min(until, self.deadline)), "the answer")

    def command(self, command: Command) -> Accepted:
        """The command was accepted. Raises: Ended (1 refused, 3 unreachable); Rehearsed, when it was only tried."""
        reply = self.ask(command, is_dry_run=self.is_dry_run)
        if isinstance(reply, Planned):
            raise Rehearsed(reply)
        if self.is_dry_run and isinstance(reply, Accepted):
            raise Ended(FAILED, f"the actor is too old to know --dry-run: it was DONE, seq {reply.seq}")
        if not isinstance(reply, Accepted):
            raise Ended(FAILED, f"{_what(command)} was answered with {kebab(type(reply).__name__)}: expected accepted")
        return reply

    def get(self, query: Command, min_seq: int = 0) -> Item:
        """The one object asked for. Raises: Ended (1 refused, 3 unreachable)."""
        reply = self.ask(query, min_seq)
        if not isinstance(reply, Item):
            raise Ended(FAILED, f"{_what(query)} was answered with {kebab(type(reply).__name__)}: expected item")
        return reply

    def items(self, query: Command) -> Items:
        """The objects asked for. Raises: Ended (1 refused, 3 unreachable)."""
        reply = self.ask(query)
        if not isinstance(reply, Items):
            raise Ended(FAILED, f"{_what(query)} was answered with {kebab(type(reply).__name__)}: expected items")
        return reply

    def ask(self, command: Command, min_seq: int = 0, *, is_dry_run: bool = False) -> Accepted | Planned | Item | Items:
        """The answer. Raises: Ended with status 1 for a refusal, 3 when nobody can answer."""
        construct, verb = catalog.construct_and_verb(kebab(type(command).__name__))
        headers = self.headers(uuid_text())
        if min_seq:
            headers["Np-Min-Seq"] = str(min_seq)
        if is_dry_run:
            headers["Np-Dry-Run"] = "1"
        elif self.at:
            headers["Np-At"] = self.at
        reply = self._ask(subjects.command(command.tenant, construct, verb), command, headers, self._nobody(construct))
        if isinstance(reply, Refused):
            raise Ended(FAILED, f"refused: {reply.code}: {reply.detail}")
        return reply

    def ask_host(
        self, host: str, verb: str, question: Command, timeout_s: float = 2.0
    ) -> Accepted | Item | Items | Refused | None:
        """What a host says of itself; None when it says nothing within `timeout_s` or is not there. Raises: Ended."""
        self.connect()
        deadline = min(self.deadline, time.monotonic() + timeout_s)
        subject = subjects.host_question(host, verb)
        try:
            message = self.wire.request(subject, codec.encode(question), self._headers(), deadline)
        except (NoResponders, TimeoutError, Unreachable):
            return None
        except Rejected as fault:
            raise Ended(FAILED, f"refused: permission-denied: {fault}") from None
        reply = decode(message)
        return reply if isinstance(reply, (Accepted, Item, Items, Refused)) else None

    def _ask(
        self, subject: str, command: Command, headers: dict[str, str], nobody: str
    ) -> Accepted | Planned | Item | Items | Refused:
        payload = codec.encode(command)
        while True:
            try:
                message = self.attempt(lambda: self._try(subject, payload, headers), _what(command))
            except NoResponders:
                raise Ended(UNREACHABLE, nobody) from None
            except TimeoutError:
                raise Ended(
                    UNREACHABLE, f"{_what(command)} was not answered within {self.timeout_s:g} s{UNKNOWN}"
                ) from None
            reply = decode(message)
            if not isinstance(reply, Unavailable):
                return reply
            self._wait_to_retry(reply, command)

    def _try(self, subject: str, payload: bytes, headers: dict[str, str]) -> Message:
        while True:
            each_s = ANSWER_TIMEOUT_OF_SEVERAL_S if self.wire.has_others else ANSWER_TIMEOUT_S
            until = min(self.deadline, time.monotonic() + each_s)
            try:
                return self.wire.request(subject, payload, headers, until)
            except TimeoutError:
                if time.monotonic() >= self.deadline:
                    raise
                self._progress.say(f"no answer yet to {subject}, asking again")
            if self.wire.has_others:  # this one may hang
                self.wire.leave()
                self._is_connected = False
                self.connect()

    def _wait_to_retry(self, reply: Unavailable, command: Command) -> None:
        left_s = self.deadline - time.monotonic()
        if reply.code in LASTING_CODES or left_s <= reply.retry_after_s:
            unknown = UNKNOWN if reply.is_outcome_unknown else ""
            raise Ended(UNREACHABLE, f"unavailable: {reply.code}: {reply.detail}{unknown}")
        self._progress.say(f"{_what(command)}: {reply.detail}; trying again")
        time.sleep(reply.retry_after_s)  # the actor says when it is of use to ask again

    def attempt(self, act: Callable[[], AnswerT], what: str) -> AnswerT:
        """What `act` returns; done again on a new connection if the server went away. Raises: Ended, and its own."""
        gone_at: float | None = None
        while True:
            try:
                self.connect()
                return act()
            except Rejected as fault:
                raise Ended(FAILED, f"refused: permission-denied: {fault}") from None
            except Unreachable as fault:
                cause: Exception = fault
            except Ended as fault:
                if gone_at is None or fault.status != UNREACHABLE:
                    raise
                cause = fault
            now = time.monotonic()
            gone_at = gone_at or now
            self.close()
            if now - gone_at > RECONNECT_S or now >= self.deadline:
                raise Ended(UNREACHABLE, f"the server went away before {what} was answered ({cause}){UNKNOWN}")
            self._progress.say("the server went away, connecting again")
            time.sleep(RETRY_S)  # between tries to connect: nothing tells when a server is back

    def headers(self, command_id: str) -> dict[str, str]:
        """The headers of a command with this id."""
        return {**self._headers(), "Np-Command-Id": command_id}

    def _headers(self) -> dict[str, str]:
        return {"Content-Type": codec.MSGPACK, "traceparent": self.trace}

    def _unreachable(self, fault: Unreachable) -> str:
        return (
            f"cannot reach nats-server ({fault}); the address is from {self.server.source}: start `netplugin`,"
            " or name another server with --server, NETPLUGIN_NATS_URL or `netctl context`"
        )

    def _nobody(self, construct: str) -> str:
        actor = ACTOR_OF.get(construct, construct)
        return f"no {actor} actor is running: the server answers, nobody takes {construct} commands; start `netplugin`"


UNKNOWN = "; whether it was done is not known: `netctl log` tells"


class Progress:
    """Says on stderr what is waited for, once, if it takes more than a second and somebody is looking."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._said = ""

    def say(self, text: str) -> None:
        """`text` was shown, if it is time for it."""
        if text != self._said and time.monotonic() - self._started >= PROGRESS_AFTER_S and sys.stderr.isatty():
            self._said = text
            print(f"... {text}", file=sys.stderr, flush=True)


def decode(message: Message) -> AnyReply:
    """The reply in a message. Raises: Ended."""
    try:
        return codec.decode_reply(message.payload, message.headers.get("Content-Type", codec.MSGPACK))
    except codec.Malformed as fault:
        raise Ended(FAILED, f"the answer on {message.subject} is not understood: {fault.detail}") from None


def uuid_text() -> str:
    """A new command id: a random UUID (RFC 9562 section 5.4), without importing `uuid` for it."""
    octets = bytearray(os.urandom(16))
    octets[6] = octets[6] & 0x0F | 0x40
    octets[8] = octets[8] & 0x3F | 0x80
    text = octets.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def wait_ran_out(client: Client, what: str) -> Ended:
    """The end of a wait that took longer than `--timeout`."""
    return Ended(
        WAIT_RAN_OUT, f"{what} within {client.timeout_s:g} s; it stays accepted: `netctl endpoint show` tells how it is"
    )


def _what(command: Command) -> str:
    return kebab(type(command).__name__)
