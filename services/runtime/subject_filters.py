"""NATS subject filters: `*` is one token, `>` is one and more at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations, zip_longest


def matches_any(patterns: Iterable[str], subject: str) -> bool:
    """At least one of the patterns names the subject."""
    return any(includes(pattern, subject) for pattern in patterns)


def includes(outer: str, inner: str) -> bool:
    """Every subject that `inner` names, `outer` names too. `inner` may be a plain subject."""
    for left, right in zip_longest(outer.split("."), inner.split(".")):
        if left == ">":
            return right is not None
        if left is None or right is None or right == ">" or (left not in ("*", right)):
            return False
    return True


def overlap(one: str, other: str) -> bool:
    """Some subject is named by both."""
    for left, right in zip_longest(one.split("."), other.split(".")):
        if left is None or right is None:
            return False
        if ">" in (left, right):
            return True
        if left != right and "*" not in (left, right):
            return False
    return True


def cover(patterns: Sequence[str]) -> tuple[str, ...]:
    """Patterns that name all that the given ones do, maybe more; no two overlap, which JetStream would refuse."""
    covering = list(dict.fromkeys(patterns))
    while (pair := next((p for p in combinations(covering, 2) if overlap(*p)), None)) is not None:
        one, other = pair
        covering = [each for each in covering if each not in pair]
        covering.append(_join(one, other))
    return tuple(dict.fromkeys(covering))


def _join(one: str, other: str) -> str:
    """The narrowest pattern that includes both of two that overlap."""
    joined: list[str] = []
    for left, right in zip(one.split("."), other.split("."), strict=False):  # up to the first `>`
        if ">" in (left, right):
            joined.append(">")
            break
        joined.append(left if left == right else "*")
    return ".".join(joined)
