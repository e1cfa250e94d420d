"""JetStream's JSON API over the bus: one call, its error with its number. Source: ADR-1, nats-server's errors.json."""

from __future__ import annotations

from typing import Any

import msgspec

from .bus import ANSWER_TIMEOUT_S, Bus
from .errors import Misconfigured, OutcomeUnknown, Unavailable

API = "$JS.API"

WRONG_LAST_SEQ = 10071  # an expectation does not hold
WRONG_LAST_SEQ_IN_PROCESS = 10164  # one cannot be checked: the subject is being written just now
STORE_FAILED = 10077  # a limit of the stream, or the file system
MESSAGE_NOT_FOUND = 10037
STREAM_NOT_FOUND = 10059
BATCH_INCOMPLETE = 10176  # the server has dropped it, or had no room to begin it
DUPLICATE_IN_BATCH = 10201
LOST_RACE = frozenset({WRONG_LAST_SEQ, WRONG_LAST_SEQ_IN_PROCESS})
NOT_ENABLED = frozenset({10039, 10076})
FULL = frozenset({10023, 10028, 10047, STORE_FAILED, BATCH_INCOMPLETE})  # resources, memory, storage ...


class ApiError(Exception):
    """JetStream said no."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{detail} ({code})")
        self.code = code
        self.detail = detail


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class PublishAck(msgspec.Struct):
    """What a stream answers to what was published. `seq`: of the last message, of `count` in a batch."""

    seq: int = 0
    count: int = 1
    duplicate: bool = False
    error: _Error | None = None


_ack = msgspec.json.Decoder(PublishAck)


def publish_ack(payload: bytes) -> PublishAck:
    """A stream's acknowledgement. Raises: ApiError."""
    ack = _ack.decode(payload)
    if ack.error is not None:
        raise ApiError(ack.error.err_code, ack.error.description)
    return ack


async def call(bus: Bus, verb: str, body: object = None, timeout_s: float = ANSWER_TIMEOUT_S) -> dict[str, Any]:
    """The answer to `$JS.API.<verb>`. Raises: ApiError, Unavailable, OutcomeUnknown."""
    payload = b"" if body is None else msgspec.json.encode(body)
    message = await bus.request(f"{API}.{verb}", payload, timeout_s=timeout_s)
    answer: dict[str, Any] = msgspec.json.decode(message.payload)
    if "error" in answer:
        error = msgspec.convert(answer["error"], _Error)
        raise ApiError(error.err_code, error.description)
    return answer


async def ask(bus: Bus, verb: str, body: object = None, timeout_s: float = ANSWER_TIMEOUT_S) -> dict[str, Any]:
    """The same for what only reads. Raises: Unavailable for every failure, ApiError only for what is not found."""
    try:
        return await call(bus, verb, body, timeout_s)
    except OutcomeUnknown as fault:
        raise Unavailable(fault.detail) from fault
    except ApiError as fault:
        if fault.code in {MESSAGE_NOT_FOUND, STREAM_NOT_FOUND}:
            raise
        if fault.code in NOT_ENABLED:
            raise Misconfigured(f"nats-server at {bus.where}: {fault.detail}") from fault
        raise Unavailable(f"JetStream at {bus.where} refused {verb}: {fault}") from fault
