"""The JSON Schema of the files that `netctl apply` takes, made from the commands: for editors.

docs/intent.schema.json is what `netctl apply --schema` prints; a test holds the two together. An editor with a YAML
language server takes it from a first line `# yaml-language-server: $schema=intent.schema.json`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from messages.addresses import address_schema
from messages.asyncapi import plain
from messages.endpoint import CreateEndpoint
from messages.names import LABEL_PATTERN
from messages.network import CreateNetwork
from messages.pool import CreatePool
from messages.struct import Command
from messages.tenant import CreateTenant

from .intent import NAMED_BY_PLACE, SHORT, lists_of

_NOTHING = {"type": "null", "description": "All is chosen."}
_RANGE = {"type": "string", "description": "addresses such as 11.1.1.10-11.1.1.20"}


def schema() -> dict[str, Any]:
    """The whole schema, as dicts, lists and text; the same each time. Source: JSON Schema 2020-12."""
    tenant = _object(CreateTenant, networks=_named("network"))
    endpoints = {
        "description": "By name (a range such as web[1-9] is one name for many), a list of names, or how many.",
        "anyOf": [
            _map_of({"$ref": "#/$defs/endpoint"}),
            {"type": "array", "items": {"type": "string"}},
            {"type": "integer", "minimum": 1},
        ],
    }
    pool = {"anyOf": [_RANGE, {"type": "array", "items": _RANGE}, _object(CreatePool)]}
    network = _object(CreateNetwork, pools=_map_of(pool), endpoints=endpoints)
    place = {"type": "string", "description": "The container and its host, such as c1@h1; a container alone."}
    subnet = {"type": "string", "description": "The subnet, such as 10.1.1.0/24 or 10.1.1.10-10.1.1.99/24."}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "netplugin intent",
        "description": "What `netctl apply -f FILE` makes true. What is left out is chosen, or stays as it is.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "tenants": _named("tenant"),
            "networks": {
                **_named("network"),
                "description": "Of the tenant that the command line names, else default.",
            },
            "hosts": {"type": "array", "items": _label(), "description": "Hosts that must be members."},
        },
        "$defs": {
            "tenant": {"anyOf": [_NOTHING, tenant]},
            "network": {"anyOf": [_NOTHING, subnet, network]},
            "endpoint": {"anyOf": [_NOTHING, place, _object(CreateEndpoint)]},
        },
    }


def _object(kind: type[Command], **inside: Any) -> dict[str, Any]:
    """A map with the fields of a command, their short forms, and what stands inside."""
    _, components = msgspec.json.schema_components((kind,), schema_hook=address_schema)
    fields = plain(components[kind.__name__])["properties"]
    own = {name: _open(field) for name, field in fields.items() if name not in {*NAMED_BY_PLACE, "type"}}
    for name in lists_of(kind) & own.keys():
        own[name] = {"anyOf": [_item(own[name]), *own[name].get("anyOf", [own[name]])]}
    short = {one: _item(_open(fields[many])) for one, many in SHORT.items() if many in own}
    description = plain(components[kind.__name__])["description"]
    return {
        "type": "object",
        "description": description,
        "additionalProperties": False,
        "properties": {**own, **short, **inside},
    }


def _open(field: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in field.items() if key != "default"}


def _item(field: dict[str, Any]) -> dict[str, Any]:
    """What one value of a list may be."""
    arrays = [each for each in field.get("anyOf", [field]) if each.get("type") == "array"]
    found: dict[str, Any] = arrays[0]["items"]
    return found


def _named(what: str) -> dict[str, Any]:
    return {"type": ["object", "null"], "propertyNames": _label(), "additionalProperties": {"$ref": f"#/$defs/{what}"}}


def _map_of(described: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": described}


def _label() -> dict[str, Any]:
    return {"type": "string", "pattern": LABEL_PATTERN}
