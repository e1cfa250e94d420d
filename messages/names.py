"""What a name may be. A subject token is a tenant's, network's, group's, policy's or host's name; other names are
payload only.
"""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta

LABEL_PATTERN = r"^[a-z0-9]([a-z0-9_-]*[a-z0-9])?$"
LABEL_LENGTH_MAX = 63
NAME_LENGTH_MAX = 253
RESERVED_TENANT = "fabric"
DEFAULT_TENANT = "default"
NO_HOST = "_"

Token = Annotated[str, Meta(extra_json_schema={"pattern": LABEL_PATTERN, "maxLength": LABEL_LENGTH_MAX})]
Name = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": NAME_LENGTH_MAX})]

_TOKEN = re.compile(LABEL_PATTERN.removesuffix("$") + r"\Z")


def check_token(what: str, value: str) -> None:
    """`value` can stand in a subject. `what` is the noun for the error: "network name".

    Raises: ValueError, saying what was expected and what was found.
    """
    if not value:
        raise ValueError(f"{what} is empty: expected 1 to {LABEL_LENGTH_MAX} of a-z 0-9 _ -")
    if len(value) > LABEL_LENGTH_MAX:
        raise ValueError(f"{what} {value[:20]!r}... has {len(value)} characters: expected at most {LABEL_LENGTH_MAX}")
    if not _TOKEN.match(value):
        raise ValueError(
            f"{what} {value!r} is not valid: expected a-z 0-9 _ -, beginning and ending with a letter or a digit"
        )


def check_tenant(value: str) -> None:
    """`value` can be a tenant's name: a token, and not the reserved `fabric`. Raises: ValueError."""
    check_token("tenant name", value)
    if value == RESERVED_TENANT:
        raise ValueError(f"tenant name {value!r} is reserved for what belongs to no tenant: choose another")


def check_name(what: str, value: str) -> None:
    """`value` can name an endpoint or a container: 1 to 253 printable characters without white space. Raises:
    ValueError.
    """
    if not value:
        raise ValueError(f"{what} is empty: expected 1 to {NAME_LENGTH_MAX} characters")
    if len(value) > NAME_LENGTH_MAX:
        raise ValueError(f"{what} {value[:20]!r}... has {len(value)} characters: expected at most {NAME_LENGTH_MAX}")
    if not value.isprintable() or any(c.isspace() for c in value):
        raise ValueError(f"{what} {value!r} has white space or characters that cannot be printed")
    if any(c in "*>" for c in value):
        raise ValueError(f"{what} {value!r} has a wildcard: * and > are not allowed")


def check_container(value: str) -> None:
    """`value` refers to a container: `netns:NAME`, `pid:N`, or a Docker name or id. Raises: ValueError."""
    check_name("container", value)
    kind, colon, rest = value.partition(":")
    if not colon:
        return
    if kind not in ("netns", "pid"):
        raise ValueError(f"container {value!r} is of no known kind: expected a Docker name or id, netns:NAME or pid:N")
    if not rest:
        raise ValueError(f"container {value!r} names nothing after the colon")
    if kind == "pid" and not (rest.isascii() and rest.isdigit() and int(rest) > 0):
        raise ValueError(f"container {value!r} is not a process: expected pid: and a number above 0")
    if kind == "netns" and ("/" in rest or rest in (".", "..")):
        raise ValueError(f"container {value!r} is not the name of a namespace: expected one of /run/netns")
