"""Uplinks as they are asked for: an interface of the host, and the VLAN tags that leave by it (all, if none is named).

In words `IF`, or `IF:RANGES` as in `eth1:10-20,30`; several are parted by commas, for what begins with a digit goes on
with the ranges before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b

import msgspec

from messages.ranges import VLANS, format_ranges, parse_ranges

NAME_LENGTH_MAX = 15  # of an interface: IFNAMSIZ less its NUL
ALL_TAGS = ((VLANS[0], VLANS[-1]),)
_IS_RANGE = re.compile(r"\d+(-\d+)?\Z")


class Uplink(msgspec.Struct, frozen=True):
    """One interface that VLAN networks leave the host by, and the tags that it carries: inclusive ranges of 1..4094."""

    interface: str
    tags: tuple[tuple[int, int], ...] = ALL_TAGS

    def __str__(self) -> str:
        return self.interface if self.tags == ALL_TAGS else f"{self.interface}:{format_ranges(self.tags)}"

    def carries(self, tag: int) -> bool:
        """Whether frames of this VLAN pass."""
        return any(first <= tag <= last for first, last in self.tags)

    def named(self, prefix: str) -> str:
        """The name of something made for this interface: prefix and interface, at most 15 characters, never two alike.

        What is too long keeps its beginning and gets a hash of the whole.
        """
        whole = prefix + self.interface
        if len(whole) <= NAME_LENGTH_MAX:
            return whole
        return whole[: NAME_LENGTH_MAX - 4] + blake2b(self.interface.encode(), digest_size=2).hexdigest()

    @property
    def bridge(self) -> str:
        """The bridge that the interface is taken into; its local port has the host's addresses."""
        return self.named("phy-")

    @property
    def inner_patch(self) -> str:
        """The patch port in the bridge of the endpoints."""
        return self.named("up-")

    @property
    def outer_patch(self) -> str:
        """The patch port in the interface's own bridge."""
        return self.named("dn-")


def parse_uplinks(texts: Iterable[str]) -> tuple[Uplink, ...]:
    """The uplinks that these words ask for, in their order; each interface once.

    Raises: ValueError with what is wrong.
    """
    words = [word.strip() for text in texts for word in text.split(",")]
    grouped: list[str] = []
    for word in words:
        if _IS_RANGE.match(word) and grouped and ":" in grouped[-1]:
            grouped[-1] += f",{word}"
        elif word:
            grouped.append(word)
    found = [_parse(word) for word in grouped]
    names = [uplink.interface for uplink in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(
            f"uplink {', '.join(sorted(twice))} is named twice: give all of its tags at once, eth1:10-20,30"
        )
    return tuple(found)


def _parse(word: str) -> Uplink:
    interface, colon, tags = word.partition(":")
    if not interface or len(interface) > NAME_LENGTH_MAX or "/" in interface or any(c.isspace() for c in interface):
        raise ValueError(f"uplink {word!r}: expected an interface, or an interface and tags such as eth1:10-20,30")
    if not colon:
        return Uplink(interface)
    return Uplink(interface, parse_ranges(tags, f"tags of uplink {interface}", VLANS))
