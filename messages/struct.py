"""The kinds of frozen data that go over the bus, and how a class becomes the `type` in its payload (`CreateNetwork`:
`create-network`).
"""

from __future__ import annotations

import re
from functools import cache

import msgspec


@cache
def kebab(name: str) -> str:
    """`CreateNetwork` as `create-network`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


def view_kind(name: str) -> str:
    """`NetworkView` as `network`."""
    return kebab(name.removesuffix("View"))


class Command(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag=kebab):
    """What somebody wants. Unknown fields are refused, so that a misspelt wish is never half granted."""

    tenant: str


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=kebab):
    """What became true. Unknown fields are ignored: versions must live together."""


class Reply(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=kebab):
    """What an actor answers."""


class View(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=view_kind):
    """An object as people and programs are shown it, the same in replies and in `-o json`."""


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A piece of a message that is never sent alone."""
