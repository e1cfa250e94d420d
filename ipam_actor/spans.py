"""A set of whole numbers as ascending spans, for what is mostly dense: addresses, tags and subnets in use.

Every question is a binary search; adding and removing move at most one list tail.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

import msgspec

Span = tuple[int, int]


def without(spans: Iterable[Span], holes: Sequence[Span]) -> list[Span]:
    """What is left of `spans` where no hole is. Both ascend, and `spans` are disjoint; so is the result."""
    left: list[Span] = []
    at = 0
    for first, last in spans:
        begin = first
        while at < len(holes) and holes[at][1] < begin:
            at += 1
        hole = at
        while begin <= last and hole < len(holes) and holes[hole][0] <= last:
            if begin < holes[hole][0]:
                left.append((begin, holes[hole][0] - 1))
            begin = max(begin, holes[hole][1] + 1)
            hole += 1
        if begin <= last:
            left.append((begin, last))
    return left


def joined(numbers: Iterable[int]) -> list[Span]:
    """Ascending numbers as spans."""
    spans: list[Span] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    return spans


class Spans(msgspec.Struct):
    """Disjoint spans of numbers, never touching each other: span `i` is `firsts[i]` to `lasts[i]`, both included."""

    firsts: list[int] = msgspec.field(default_factory=list)
    lasts: list[int] = msgspec.field(default_factory=list)

    def copy(self) -> Spans:
        """The same numbers, to be changed on their own."""
        return Spans(self.firsts.copy(), self.lasts.copy())

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self.firsts, number) - 1
        return at >= 0 and number <= self.lasts[at]

    def first_gap(self, at_least: int) -> int:
        """The lowest number from `at_least` up that is not in the set."""
        at = bisect_right(self.firsts, at_least) - 1
        if at >= 0 and at_least <= self.lasts[at]:
            return self.lasts[at] + 1
        return at_least

    def first_taken(self, at_least: int) -> int | None:
        """The lowest number from `at_least` up that is in the set; none if there is none."""
        at = bisect_left(self.lasts, at_least)
        return max(at_least, self.firsts[at]) if at < len(self.firsts) else None

    def overlaps(self, first: int, last: int) -> bool:
        """Some number from `first` to `last` is in the set."""
        taken = self.first_taken(first)
        return taken is not None and taken <= last

    def add(self, first: int, last: int) -> None:
        """`first` to `last` are in the set; none of them was."""
        assert first <= last, f"span {first} to {last} is reversed"
        assert not self.overlaps(first, last), f"{first} to {last} is taken in part"
        at = bisect_left(self.firsts, first)
        is_joined_below = at > 0 and self.lasts[at - 1] == first - 1
        is_joined_above = at < len(self.firsts) and self.firsts[at] == last + 1
        if is_joined_below and is_joined_above:
            self.lasts[at - 1] = self.lasts.pop(at)
            del self.firsts[at]
        elif is_joined_below:
            self.lasts[at - 1] = last
        elif is_joined_above:
            self.firsts[at] = first
        else:
            self.firsts.insert(at, first)
            self.lasts.insert(at, last)

    def remove(self, first: int, last: int) -> None:
        """`first` to `last` are not in the set any more; all of them were."""
        at = bisect_right(self.firsts, first) - 1
        assert at >= 0, f"{first} to {last} is not taken"
        assert last <= self.lasts[at], f"{first} to {last} is not taken"
        below, above = self.firsts[at], self.lasts[at]
        left = [(below, first - 1)] if below < first else []
        left += [(last + 1, above)] if last < above else []
        self.firsts[at : at + 1] = [span[0] for span in left]
        self.lasts[at : at + 1] = [span[1] for span in left]
