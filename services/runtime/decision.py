"""What a handler is given and gives back. Handlers are pure: what they may not read themselves is stamped onto the
command.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from messages.replies import AnyReply
from messages.struct import Command, Event


class Origin(msgspec.Struct, frozen=True):
    """Who sent a command, as the server itself says (or `unverified`, on a server that cannot)."""

    user: str
    account: str = ""
    host: str = ""

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" if self.host else self.user


class Stamp(msgspec.Struct, frozen=True):
    """Time, identity and randomness of one command. Deciding again uses the same stamp."""

    at_ns: int
    command_id: str
    by: Origin
    entropy: bytes  # 16 bytes


class Fact(NamedTuple):
    """An event and the subject it is to be recorded on; the subject says which aggregate it belongs to."""

    subject: str
    event: Event


class Decision(msgspec.Struct, frozen=True):
    """What a command comes to: a refusal, an answer, or facts; `show` is the query whose answer goes into
    `Accepted.object`.

    `parts`: of a command made of several, how many facts each came to; its answer then has the sequence of each.
    `notes`: what else becomes true that nobody asked for by name, a sentence each.
    No facts and no reply mean that it was true already. `Accepted` is the shell's own, to what was recorded before.
    """

    facts: tuple[Fact, ...] = ()
    show: Command | None = None
    reply: AnyReply | None = None
    parts: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


class Rejection(Exception):
    """Raised by what handlers call; the shell turns it into a `Refused` with nothing changed."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class State(Protocol):
    """An actor's folded state. It is kept by aggregate, so that events of different aggregates may be applied in any
    order.
    """

    def fork(self, aggregate: str) -> Any:
        """A copy of what belongs to one aggregate (cheap: values are frozen), for `put_back`."""
        ...

    def put_back(self, aggregate: str, copy: Any) -> None:
        """That aggregate is again what `fork` copied."""
        ...


StateT = TypeVar("StateT", bound=State)


class Definition(msgspec.Struct, Generic[StateT], frozen=True):
    """All that makes an actor: the shell adds the bus, the journal and the clock."""

    name: str  # also its queue group: "ipam"
    follows: tuple[str, ...]  # subject filters of the events that it folds
    handlers: Mapping[type[Command], Callable[[StateT, Any, Stamp], Decision]]
    new_state: Callable[[], StateT]
    apply: Callable[[StateT, str, Any, int, int], None]  # state, subject, event, sequence, server time in ns
    writes: Callable[[StateT, Command], tuple[str, ...]]  # aggregates that a command may write, none for a query
    batch_key: Callable[[Command], str]  # two commands with the same key never share a batch; "" never shares one
    dump_state: Callable[[StateT], bytes]
    load_state: Callable[[bytes], StateT]
