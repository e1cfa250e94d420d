"""Bytes to messages and back: msgpack, or JSON where `Content-Type` says so. What does not fit is named with its path.

Limits hold before anything is built from the bytes: size, then depth and items, then the types.
"""

from __future__ import annotations

import json
from typing import Any

import msgpack
import msgspec

from .addresses import decode_address, encode_address
from .catalog import COMMANDS, EVENTS, QUESTIONS, AnyEvent, command_type
from .replies import AnyReply
from .struct import Command
from .subjects import CommandSubject

MSGPACK = "application/msgpack"
JSON = "application/json"
CONTENT_TYPES = (MSGPACK, JSON)
SIZE_MAX_BYTES = 256 * 1024
DEPTH_MAX = 16
ITEMS_MAX = 20_000
SMALL_BYTES = 4096  # cannot hold more items or depth than a type allows and the limits do

_commands = {kind: msgspec.msgpack.Decoder(kind, dec_hook=decode_address) for kind in COMMANDS.values()}
_event = msgspec.msgpack.Decoder(AnyEvent, dec_hook=decode_address)
_replies: dict[str, msgspec.msgpack.Decoder[AnyReply] | msgspec.json.Decoder[AnyReply]] = {
    MSGPACK: msgspec.msgpack.Decoder(AnyReply, dec_hook=decode_address),
    JSON: msgspec.json.Decoder(AnyReply, dec_hook=decode_address),
}
_FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # a ValidationError is one of the first


class Malformed(ValueError):
    """Bytes that are no message. `code` is a refusal's: undecodable, too-large, too-deep, too-many-items,
    unknown-message,
    invalid-message, unsupported-content-type.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class UnknownEvent(Malformed):
    """An event of a type that this version does not know: whoever reads it must not decide on its aggregate."""

    def __init__(self, type_name: str) -> None:
        super().__init__("unknown-event", f"event type {type_name!r} is not known to this version")


def encode(message: msgspec.Struct, content_type: str = MSGPACK) -> bytes:
    """A message as bytes, as `content_type` says."""
    if content_type == JSON:
        return msgspec.json.encode(message, enc_hook=encode_address)
    return msgspec.msgpack.encode(message, enc_hook=encode_address)


def to_builtins(message: msgspec.Struct) -> Any:
    """A message as dicts, lists, text and numbers."""
    return msgspec.to_builtins(message, enc_hook=encode_address)


def unpack(payload: bytes, content_type: str = MSGPACK) -> Any:
    """Bytes as dicts, lists, text and numbers, within the limits. Raises: Malformed."""
    if len(payload) > SIZE_MAX_BYTES:
        raise Malformed("too-large", f"payload has {len(payload)} bytes: expected at most {SIZE_MAX_BYTES}")
    if content_type not in CONTENT_TYPES:
        raise Malformed("unsupported-content-type", f"Content-Type {content_type!r}: expected {MSGPACK} or {JSON}")
    try:
        value = _parse(payload, content_type)
    except (RecursionError, msgpack.exceptions.StackError):
        raise Malformed("too-deep", f"payload is nested more than {DEPTH_MAX} deep") from None
    except (ValueError, msgpack.exceptions.UnpackException) as fault:
        name = content_type.removeprefix("application/")
        raise Malformed("undecodable", f"payload is no {name}: {str(fault) or type(fault).__name__}") from None
    _check_shape(value)
    return value


def _parse(payload: bytes, content_type: str) -> Any:
    return json.loads(payload) if content_type == JSON else msgpack.unpackb(payload, raw=False, strict_map_key=True)


def _check_shape(value: Any) -> None:
    items = 0
    level = [value]
    depth = 0
    while level:
        depth += 1
        if depth > DEPTH_MAX:
            raise Malformed("too-deep", f"payload is nested more than {DEPTH_MAX} deep")
        below: list[Any] = []
        for each in level:
            children = list(each.values()) if isinstance(each, dict) else each if isinstance(each, list) else ()
            items += len(children)
            below.extend(child for child in children if isinstance(child, (dict, list)))
        if items > ITEMS_MAX:
            raise Malformed("too-many-items", f"payload has more than {ITEMS_MAX} items")
        level = below


def decode_command(subject: CommandSubject, payload: bytes, content_type: str = MSGPACK) -> Command:
    """The command that was sent to `subject`. Its `tenant` may be left out: the subject says it. Raises: Malformed."""
    expected = command_type(subject.construct, subject.verb)
    kind = COMMANDS.get(expected)
    if kind is None:
        raise Malformed(
            "unknown-message", f"{subject.construct}.{subject.verb} is not known: expected one of {_known()}"
        )
    if content_type == MSGPACK and len(payload) <= SMALL_BYTES:
        try:
            command: Command = _commands[kind].decode(payload)
        except _FAULTS:
            pass  # what is left out is added, or what is wrong is named, below
        else:
            if command.tenant == subject.tenant:
                return command
    fields = _mapping(payload, content_type, expected)
    if fields.setdefault("tenant", subject.tenant) != subject.tenant:
        raise Malformed(
            "invalid-message", f"tenant {fields['tenant']!r} was sent to the subject of tenant {subject.tenant!r}"
        )
    return _convert(fields, kind)


def decode_question(payload: bytes, verb_type: str, content_type: str = MSGPACK) -> Command:
    """The question that was put to a host. Raises: Malformed."""
    fields = _mapping(payload, content_type, verb_type)
    fields.setdefault("tenant", "fabric")
    return _convert(fields, QUESTIONS[verb_type])


def _mapping(payload: bytes, content_type: str, expected_type: str) -> dict[str, Any]:
    value = unpack(payload, content_type) if payload else {}
    if not isinstance(value, dict):
        raise Malformed(
            "invalid-message", f"payload is {type(value).__name__}: expected a map with type {expected_type!r}"
        )
    found = value.setdefault("type", expected_type)
    if found != expected_type:
        raise Malformed("invalid-message", f"type {found!r} was sent to the subject of {expected_type!r}")
    return value


def _convert(fields: dict[str, Any], kind: type[Command]) -> Command:
    try:
        return msgspec.convert(fields, kind, dec_hook=decode_address)
    except msgspec.ValidationError as fault:
        raise Malformed("invalid-message", str(fault)) from None


def decode_event(payload: bytes) -> AnyEvent:
    """The event that was recorded. Raises: UnknownEvent for a type of another version, Malformed for what is no
    event.
    """
    try:
        known: AnyEvent = _event.decode(payload)
    except _FAULTS:
        return _decode_event_slowly(payload)
    return known


def _decode_event_slowly(payload: bytes) -> AnyEvent:
    """The event, or exactly what is wrong with it."""
    fields = unpack(payload)
    type_name = fields.get("type") if isinstance(fields, dict) else None
    if not isinstance(type_name, str):
        raise Malformed("invalid-message", "payload is no event: it has no type")
    if type_name not in EVENTS:
        raise UnknownEvent(type_name)
    try:
        event: AnyEvent = msgspec.convert(fields, AnyEvent, dec_hook=decode_address)
    except msgspec.ValidationError as fault:
        raise Malformed("invalid-message", f"{type_name}: {fault}") from None
    return event


def decode_reply(payload: bytes, content_type: str = MSGPACK) -> AnyReply:
    """What an actor answered, however large: it may be a long list. Raises: Malformed."""
    if content_type not in _replies:
        raise Malformed("unsupported-content-type", f"Content-Type {content_type!r}: expected {MSGPACK} or {JSON}")
    try:
        reply: AnyReply = _replies[content_type].decode(payload)
    except msgspec.ValidationError as fault:
        raise Malformed("invalid-message", f"reply: {fault}") from None
    except _FAULTS as fault:
        name = content_type.removeprefix("application/")
        raise Malformed("undecodable", f"reply is no {name}: {fault}") from None
    return reply


def _known() -> str:
    return ", ".join(sorted(COMMANDS))
