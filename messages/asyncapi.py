"""The AsyncAPI 3 document of all messages, made from their types: what a client in another language is written from.

Pure: `netctl asyncapi` prints it, docs/asyncapi.yaml is that output, and a test holds the two together.
Source: https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import msgspec

from . import endpoint, host, network, pool, port, replies, segment, subjects, tenant
from .addresses import address_schema
from .catalog import COMMANDS, EVENTS, QUESTIONS, construct_and_verb
from .struct import Command, Event, Reply, kebab

VERSION = "1.0.0"  # of the messages; it changes when they do
MSGPACK = "application/msgpack"

# Where each question is put to a host: the last token of its subject.
QUESTION_VERBS = {
    "inspect-host": "inspect",
    "repair-host": "repair",
    "adopt-journal": "adopt",
    "find-container": "container",
}
_REPLIES: tuple[type[Reply], ...] = (
    replies.Accepted,
    replies.Planned,
    replies.Item,
    replies.Items,
    replies.Refused,
    replies.Unavailable,
)
_DESCRIPTION = """\
netplugin is commanded over NATS. A payload is a msgpack map; with the header `Content-Type: application/json` it is
JSON and is answered as JSON. Every payload has `type`. Commands and queries are requests: that nobody is there is known
at once ("no responders"). A command carries an id of its sender's choice in `Np-Command-Id`: sent again with the same
id it is answered again and changes nothing. Unknown fields are refused in commands and are to be ignored in events and
replies."""

_PARAMETERS: dict[str, str] = {
    "tenant": "A tenant's name; `fabric` for what belongs to none, and to list over all tenants.",
    "network": "A network's name.",
    "host": "A host's name; in a network's event `_` for none.",
    "what": "The refused command, such as `network-create`.",
}


def document() -> dict[str, Any]:
    """The whole document, as dicts, lists and text; the same each time."""
    kinds = [*COMMANDS.values(), *QUESTIONS.values(), *_REPLIES, *EVENTS.values()]
    _, schemas = msgspec.json.schema_components(
        kinds, schema_hook=address_schema, ref_template="#/components/schemas/{name}"
    )
    channels: dict[str, Any] = {"reply": _reply_channel()}
    operations: dict[str, Any] = {}
    for name, command in COMMANDS.items():
        construct, verb = construct_and_verb(name)
        address = subjects.command("{tenant}", construct, verb)
        channels[name] = _channel(address, name, command)
        operations[name] = _request(name, ("accepted",) if _changes(verb) else ("item", "items"))
    for name, question in QUESTIONS.items():
        channels[name] = _channel(subjects.host_question("{host}", QUESTION_VERBS[name]), name, question)
        operations[name] = _request(name, ("item", "items"))
    for name, event in EVENTS.items():
        channels[name] = _channel(event_address(event), name, event)
        operations[name] = {"action": "send", "channel": _ref("channels", name)}
    channels["refusal"] = _channel(subjects.audit("{tenant}", "{what}"), "refused", replies.Refused)
    operations["refusal"] = {"action": "send", "channel": _ref("channels", "refusal")}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "netplugin",
            "version": VERSION,
            "description": _unfolded(_DESCRIPTION),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": MSGPACK,
        "servers": {
            "nats": {
                "host": "127.0.0.1:4222",
                "protocol": "nats",
                "description": "RUN_DIR/client.json on the host says where it is, and which nkey seed lets one in.",
            }
        },
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": {name: _message(name, kind) for name, kind in _named(kinds)},
            "schemas": {name: plain(schema) for name, schema in sorted(schemas.items())},
            "parameters": {name: {"description": text} for name, text in _PARAMETERS.items()},
        },
    }


def event_address(event: type[Event]) -> str:
    """The subject that an event is recorded on, with its parameters in braces."""
    name = kebab(event.__name__)
    match event.__module__:
        case tenant.__name__:
            return subjects.tenant_event("{tenant}", name)
        case network.__name__ | pool.__name__ | endpoint.__name__:
            return subjects.network_event("{tenant}", "{network}", name, "{host}")
        case port.__name__:
            return subjects.port_event("{tenant}", "{host}", name)
        case segment.__name__:
            return subjects.segment_event(name)
        case host.__name__:
            return subjects.host_event(name)
    raise ValueError(f"event {name} belongs to no aggregate that this document knows")


def _named(kinds: Iterable[type[msgspec.Struct]]) -> list[tuple[str, type[msgspec.Struct]]]:
    return [(kebab(kind.__name__), kind) for kind in kinds]


def _changes(verb: str) -> bool:
    return verb not in ("get", "list", "show")


def _ref(*path: str) -> dict[str, str]:
    return {"$ref": "#/" + "/".join(path)}


def _channel(address: str, message: str, kind: type[msgspec.Struct]) -> dict[str, Any]:
    channel: dict[str, Any] = {
        "address": address,
        "description": _unfolded(kind.__doc__ or ""),
        "messages": {message: _ref("components", "messages", message)},
    }
    parameters = {name: _ref("components", "parameters", name) for name in _PARAMETERS if f"{{{name}}}" in address}
    return {**channel, "parameters": parameters} if parameters else channel


def _reply_channel() -> dict[str, Any]:
    names = [kebab(kind.__name__) for kind in _REPLIES]
    return {
        "address": None,
        "description": "The inbox that the request named as its reply subject.",
        "messages": {name: _ref("components", "messages", name) for name in names},
    }


def _request(name: str, answers: tuple[str, ...]) -> dict[str, Any]:
    answered = [_ref("channels", "reply", "messages", answer) for answer in (*answers, "refused", "unavailable")]
    return {
        "action": "receive",
        "channel": _ref("channels", name),
        "messages": [_ref("channels", name, "messages", name)],
        "reply": {
            "address": {"location": "$message.header#/reply", "description": "The NATS reply subject of the request."},
            "channel": _ref("channels", "reply"),
            "messages": answered,
        },
    }


def _message(name: str, kind: type[msgspec.Struct]) -> dict[str, Any]:
    message: dict[str, Any] = {
        "name": name,
        "contentType": MSGPACK,
        "summary": _unfolded(kind.__doc__ or "").partition("\n")[0],
        "payload": _ref("components", "schemas", kind.__name__),
    }
    if issubclass(kind, Command):
        message["headers"] = _headers(_COMMAND_HEADERS)
    elif issubclass(kind, Event):
        message["headers"] = _headers(_EVENT_HEADERS)
    return message


_COMMAND_HEADERS = {
    "Np-Command-Id": "An id of the sender's choice, at most 64 printable ASCII characters; a UUID is fine.",
    "Np-Min-Seq": "Answer only from a copy that has applied at least this journal sequence: read your own writes.",
    "Content-Type": "application/msgpack (default) or application/json.",
    "traceparent": "W3C Trace Context; carried through to the events.",
}
_EVENT_HEADERS = {
    "Nats-Msg-Id": "The command's id and the event's position among the command's events.",
    "Np-Command-Id": "The command that caused it.",
    "Np-By": "Who sent that command, as the server said.",
    "ce-id": "CloudEvents 1.0: id.",
    "ce-type": "CloudEvents 1.0: type.",
    "ce-source": "CloudEvents 1.0: source.",
    "ce-time": "CloudEvents 1.0: time.",
    "traceparent": "W3C Trace Context of the command.",
}


def _headers(described: dict[str, str]) -> dict[str, Any]:
    properties = {name: {"type": "string", "description": text} for name, text in described.items()}
    return {"type": "object", "properties": properties}


def plain(schema: Any) -> Any:
    """A schema of msgspec's as AsyncAPI has them: descriptions unfolded, no OpenAPI discriminator (`enum` tells)."""
    if isinstance(schema, (list, tuple)):
        return [plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _unfolded(value) if key == "description" and isinstance(value, str) else plain(value)
        for key, value in schema.items()
        if not (key == "discriminator" and isinstance(value, dict) and "propertyName" in value)
    }


def _unfolded(text: str) -> str:
    """Each paragraph of `text` on one line."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in inspect.cleandoc(text).split("\n\n"))
