"""Proof, at every start, that the server itself says who sent a command: the actor sends itself a forged statement.

On a server whose account imports its own command subjects (`services/nats_server.py` writes such a configuration),
the server
replaces what the sender claims. On any other server a claim would be believed, so an actor refuses to run there.
"""

from __future__ import annotations

import json

import anyio

from messages import subjects
from messages.codec import Malformed

from .bus import Bus, Message
from .envelope import NOBODY, REQUEST_INFO_HEADER, read_origin
from .errors import Misconfigured

ANSWER_WITHIN_S = 2.0
_FORGED = "forged-by-self-test"


async def check_identity(bus: Bus, nonce: str) -> None:
    """A forged `Nats-Request-Info` does not survive on this server.

    Raises: Misconfigured, when it does or when commands do not reach actors here; Unavailable when the bus is away.
    """
    received: list[Message] = []
    arrived = anyio.Event()

    def receive(message: Message) -> None:
        received.append(message)
        arrived.set()

    # With a wildcard, as actors subscribe: only then is it sure that nothing but the import delivers here.
    subscription = await bus.subscribe(f"{subjects.SERVICES}.*.selftest.{nonce}", receive)
    try:
        await bus.flush()
        target = subjects.command(subjects.FABRIC, "selftest", nonce)
        await bus.publish(target, headers={REQUEST_INFO_HEADER: json.dumps({"user": _FORGED})})
        with anyio.move_on_after(ANSWER_WITHIN_S):
            await arrived.wait()
    finally:
        await subscription.close()
    if not received:
        raise _fault(f"does not hand {subjects.COMMANDS}.> to {subjects.SERVICES}.>")
    headers = received[0].headers
    if _FORGED in headers.get(REQUEST_INFO_HEADER, ""):
        raise _fault(f"lets a forged {REQUEST_INFO_HEADER} pass")
    try:
        sender = read_origin(headers, {})
    except Malformed as fault:
        raise _fault(f"says nothing that can be read ({fault.detail})") from fault
    if sender.user == NOBODY:
        raise _fault(f"names only the account of who sends a command ({sender.account!r}), not the user")


def _fault(what: str) -> Misconfigured:
    return Misconfigured(
        f"this nats-server {what}: nobody can say who sends a command here. Its account must import its own service "
        f"{subjects.SERVICES}.> as {subjects.COMMANDS}.> with share: true, or the actor be told --unverified-identity"
    )
