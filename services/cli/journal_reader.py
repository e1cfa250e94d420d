"""Events and refusals as the streams have them, read with direct gets (ADR-31): no consumer is made or left behind.

To follow, the same subjects are subscribed to as a wake-up only: what is shown always comes from the stream, in its
order and without a gap.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from messages import subjects

from .client import Client
from .exits import UNREACHABLE, Ended, wrong_usage
from .wire import Message, NoResponders

BATCH = 256
BATCH_BYTES = 4 * 1024 * 1024
ANSWER_TIMEOUT_S = 5.0
TICK_S = 1.0


class Recorded(NamedTuple):
    """One message of a stream. `at` is the server's time, RFC 3339."""

    seq: int
    subject: str
    at: str
    headers: Mapping[str, str]
    payload: bytes


class Start(NamedTuple):
    """Where to begin: a sequence, or (if not empty) a time."""

    seq: int = 1
    time: str = ""


def parse_since(text: str, now: datetime) -> Start:
    """`17` (a sequence), `10m` (ago), `2026-01-31`, `2026-01-31T12:00:00Z` as where to begin. Raises: Ended."""
    if text.isascii() and text.isdigit():
        return Start(seq=max(1, int(text)))
    ago = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    if text[:-1].isascii() and text[:-1].isdigit() and text[-1] in ago:
        return Start(time=_rfc3339(now.timestamp() - int(text[:-1]) * ago[text[-1]]))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise wrong_usage(
            f"since {text!r} is no point: expected a sequence, 10m (s, m, h, d: ago), or a time"
            " such as 2026-01-31T12:00:00Z"
        ) from None
    return Start(time=_rfc3339((moment if moment.tzinfo else moment.astimezone()).timestamp()))


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def read(client: Client, stream: str, subject: str, start: Start) -> Iterator[Recorded]:
    """What the stream holds on `subject` from `start` on, in order, up to its end now. Raises: Ended."""
    limits: dict[str, Any] = {"batch": BATCH, "max_bytes": BATCH_BYTES, "next_by_subj": subject}
    request = {**limits, **({"start_time": start.time} if start.time else {"seq": start.seq})}
    while True:
        batch, is_more = client.attempt(partial(_fetch, client, stream, request), f"stream {stream}")
        for message in batch:
            yield _recorded(message)
        if not is_more or not batch:
            return
        request = {**limits, "seq": _recorded(batch[-1]).seq + 1}


def follow(client: Client, stream: str, subject: str, start: Start) -> Iterator[Recorded]:
    """The same, and then what comes, for ever. Raises: Ended."""
    client.follow(subject)
    while True:
        client.deadline = time.monotonic() + client.timeout_s + TICK_S
        for recorded in read(client, stream, subject, start):
            start = Start(seq=recorded.seq + 1)
            yield recorded
        until = time.monotonic() + TICK_S
        while client.next_message(until) is not None:
            until = time.monotonic()  # what else has woken us is stored too: read once for all


def last_seq(client: Client, stream: str) -> int:
    """The stream's last sequence, 0 for none. Raises: Ended."""
    state = stream_facts(client, stream).get("state", {})
    return int(state.get("last_seq", 0))


def stream_facts(client: Client, stream: str) -> dict[str, Any]:
    """What the server says of a stream. Raises: Ended with status 3 when it is not there."""
    subject = f"$JS.API.STREAM.INFO.{stream}"

    def ask() -> Message:
        return client.wire.request(subject, b"", None, time.monotonic() + ANSWER_TIMEOUT_S)

    try:
        message = client.attempt(ask, f"stream {stream}")
    except (NoResponders, TimeoutError):
        raise Ended(UNREACHABLE, f"the server keeps no stream {stream}: does it run with JetStream?") from None
    facts: dict[str, Any] = json.loads(message.payload)
    if "error" in facts:
        raise Ended(UNREACHABLE, f"stream {stream}: {facts['error'].get('description', 'not found')}")
    return facts


def _fetch(client: Client, stream: str, request: Mapping[str, Any]) -> tuple[list[Message], bool]:
    """One batch, and whether there is more after it. Raises: Ended, Unreachable."""
    inbox = client.wire.ask(f"$JS.API.DIRECT.GET.{stream}", json.dumps(request).encode())
    until = time.monotonic() + ANSWER_TIMEOUT_S
    batch: list[Message] = []
    while (message := client.wire.next_on(inbox, until)) is not None:
        match message.status:
            case 0:
                batch.append(message)
            case 204:  # the end of the batch
                return batch, message.headers.get("Nats-Num-Pending", "0") != "0"
            case 404:
                return batch, False
            case 503:
                raise Ended(UNREACHABLE, f"the server keeps no stream {stream}: is an ipam actor running?")
            case _:
                raise Ended(UNREACHABLE, f"stream {stream}: {message.status} {message.description}")
    raise Ended(UNREACHABLE, f"stream {stream} does not answer within {ANSWER_TIMEOUT_S:g} s")


def _recorded(message: Message) -> Recorded:
    headers = message.headers
    at = headers.get("Nats-Time-Stamp", "")
    return Recorded(int(headers.get("Nats-Sequence", 0)), headers.get("Nats-Subject", ""), at, headers, message.payload)


def event_filter(tenant: str | None) -> str:
    """The subject of all events, or of one tenant's."""
    return f"{subjects.EVENTS}.{tenant}.>" if tenant else subjects.ALL_EVENTS
