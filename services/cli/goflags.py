"""Flags as Go's `flag` package reads them: `-name value`, `-name=value`, one dash or two, until the first other word.

Source: https://pkg.go.dev/flag#hdr-Command_line_flag_syntax. One thing more than Go: flags may also follow the name.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple


class WrongFlags(ValueError):
    """The arguments cannot be read; the text says which and what is possible."""


class HelpWanted(Exception):
    """`-h` or `-help` was given."""


class Flags(NamedTuple):
    """What was given: the last value of each flag, and the other words."""

    values: dict[str, str]
    words: list[str]


def parse(arguments: Sequence[str], known: Collection[str]) -> Flags:
    """The flags and words in `arguments`. `--` ends the flags. Raises: WrongFlags, HelpWanted."""
    values: dict[str, str] = {}
    words: list[str] = []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument == "--":
            return Flags(values, words + left)
        if not argument.startswith("-") or argument == "-":
            words.append(argument)
            continue
        name, equals, value = argument[2 if argument.startswith("--") else 1 :].partition("=")
        if not name or name.startswith("-"):
            raise WrongFlags(f"bad flag syntax: {argument}")
        if name in ("h", "help") and name not in known:
            raise HelpWanted
        if name not in known:
            raise WrongFlags(f"flag provided but not defined: -{name}")
        if not equals:
            if not left:
                raise WrongFlags(f"flag needs an argument: -{name}")
            value = left.pop(0)
        values[name] = value
    return Flags(values, words)
