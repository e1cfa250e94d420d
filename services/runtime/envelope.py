"""What a command's headers say: who sent it, under which id, what it must have seen, which trace it belongs to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from messages import subjects
from messages.codec import Malformed

from .decision import Origin
from .journal import COMMAND_ID_HEADER
from .past import AT_HEADER, At, read_at

REQUEST_INFO_HEADER = "Nats-Request-Info"
MIN_SEQ_HEADER = "Np-Min-Seq"
TRACE_HEADER = "traceparent"
DRY_RUN_HEADER = "Np-Dry-Run"
COMMAND_ID_LENGTH_MAX = 64
MIN_SEQ_DIGITS_MAX = 19

NOBODY = "anonymous"  # the server knows of no user
UNVERIFIED = Origin("unverified")
_is_command_id = re.compile(rf"[!-~]{{1,{COMMAND_ID_LENGTH_MAX}}}").fullmatch
_is_trace = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}").fullmatch


class _RequestInfo(msgspec.Struct):
    """What the server says of who sent a message; it says more."""

    user: str = ""
    acc: str = ""
    host: str = ""


_request_info = msgspec.json.Decoder(_RequestInfo)


class Envelope(NamedTuple):
    """The headers of one command. `command_id` is empty when it has none, `trace` when it has none that is valid."""

    origin: Origin
    command_id: str
    min_seq: int
    trace: str
    at: At | None = None
    is_dry_run: bool = False


def read_envelope(headers: Mapping[str, str], principals: Mapping[str, str] | None) -> Envelope:
    """The headers of a command, checked; `principals`: the user's name by public key, None where nobody can say.

    Raises: Malformed: `unidentified`, `invalid-command-id`, `invalid-min-seq`, `invalid-at`, `invalid-dry-run`.
    """
    return Envelope(
        read_origin(headers, principals),
        command_id_of(headers),
        _min_seq(headers),
        trace_of(headers),
        read_at(headers[AT_HEADER]) if AT_HEADER in headers else None,
        is_dry_run(headers),
    )


def is_dry_run(headers: Mapping[str, str]) -> bool:
    """Whether the sender only wants to know what its command would become. Raises: Malformed (`invalid-dry-run`)."""
    stated = headers.get(DRY_RUN_HEADER, "0")
    if stated not in ("0", "1"):
        raise Malformed("invalid-dry-run", f"{DRY_RUN_HEADER} is {stated[:20]!r}: expected 1, or 0 for none")
    return stated == "1"


def read_origin(headers: Mapping[str, str], principals: Mapping[str, str] | None) -> Origin:
    """Who sent it, as the server says. Raises: Malformed (`unidentified`) when nothing vouches for the sender."""
    if principals is None:
        return UNVERIFIED
    stated = headers.get(REQUEST_INFO_HEADER)
    if stated is None:
        raise Malformed("unidentified", f"the server did not say who sent this: publish to {subjects.COMMANDS}.>")
    try:
        said = _request_info.decode(stated)
    except (msgspec.DecodeError, msgspec.ValidationError) as fault:
        raise Malformed("unidentified", f"{REQUEST_INFO_HEADER} names nobody: {fault}") from None
    user = said.user or NOBODY
    return Origin(principals.get(user, user), said.acc, said.host)


def command_id_of(headers: Mapping[str, str]) -> str:
    """The id that the sender gave its command, empty for none. Raises: Malformed (`invalid-command-id`)."""
    stated = headers.get(COMMAND_ID_HEADER)
    if stated is None:
        return ""
    if not _is_command_id(stated):
        expected = f"1 to {COMMAND_ID_LENGTH_MAX} printable ASCII characters without spaces"
        raise Malformed("invalid-command-id", f"{COMMAND_ID_HEADER} is {stated[:80]!r}: expected {expected}")
    return stated


def trace_of(headers: Mapping[str, str]) -> str:
    """The trace that the command belongs to; empty for none. One that is not valid is none. Source: W3C Trace Context
    section 3.2.
    """
    stated = headers.get(TRACE_HEADER, "")
    return stated if _is_trace(stated) else ""


def _min_seq(headers: Mapping[str, str]) -> int:
    stated = headers.get(MIN_SEQ_HEADER)
    if stated is None:
        return 0
    if not (stated.isascii() and stated.isdigit() and len(stated) <= MIN_SEQ_DIGITS_MAX):
        raise Malformed("invalid-min-seq", f"{MIN_SEQ_HEADER} is {stated[:30]!r}: expected a journal sequence")
    return int(stated)
