"""Sets of numbers as people write them: `10-100,150`. A range of one is fine; order and overlap do not matter."""

from __future__ import annotations

import re

_PART = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?\Z")

VLANS = range(1, 4095)
VNIS = range(1, 1 << 24)


def parse_ranges(text: str, what: str, within: range) -> tuple[tuple[int, int], ...]:
    """`text` as ascending, disjoint, inclusive (first, last) pairs. `what` is the noun for the error.

    Raises: ValueError for what is no range, is reversed, or lies outside `within`.
    """
    pairs: list[tuple[int, int]] = []
    for part in text.replace(" ", "").split(","):
        match = _PART.match(part)
        if match is None:
            raise ValueError(f"{what} {text!r}: {part!r} is no range: expected numbers and ranges such as 10-100,150")
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        if first > last:
            raise ValueError(f"{what} {text!r}: {part!r} is reversed: expected {last}-{first}")
        if first not in within or last not in within:
            raise ValueError(f"{what} {text!r}: {part!r} is out of range: expected {within[0]} to {within[-1]}")
        pairs.append((first, last))
    return _merge(sorted(pairs))


def _merge(pairs: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for first, last in pairs:
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return tuple(merged)


def format_ranges(pairs: tuple[tuple[int, int], ...]) -> str:
    """The text that `parse_ranges` reads back: `10-100,150`."""
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in pairs)
