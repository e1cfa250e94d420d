"""Results on stdout: tables for people, JSON, JSON lines, YAML or bare names for programs.

The shape of an object is pinned (`{"tenant", "network", "name", "spec", "status"}`): programs rely on it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from messages import codec

PINNED = ("tenant", "network", "name", "spec", "status")
PINNED_STATUS = ("state", "host", "container", "port", "device", "addresses", "mac", "tag", "encap", "seq", "reason")
GOOD, POOR, BAD = "32", "33", "31"
COLOURS = {
    **dict.fromkeys(("bound", "active", "ready", "up", "ok", "joined"), GOOD),
    **dict.fromkeys(("pending", "waiting", "waiting-policy", "deleting", "poor"), POOR),
    **dict.fromkeys(("failed", "unreachable", "away", "bad"), BAD),
}

Row = Sequence[str]


def shape(view: msgspec.Struct) -> dict[str, Any]:
    """A view as programs get it: the pinned keys first and in their order."""
    fields: dict[str, Any] = codec.to_builtins(view)
    if isinstance(fields.get("status"), dict):
        fields["status"] = _ordered(fields["status"], PINNED_STATUS)
    return _ordered(fields, PINNED)


def show_one(fields: Mapping[str, Any], output: str) -> None:
    """One object is on stdout, as JSON, a JSON line, YAML or its name."""
    if output == "name":
        print(fields.get("name", ""))
    elif output == "yaml":
        _print_yaml(fields)
    else:
        print(as_json(fields, is_indented=output != "jsonl"))


def show_next(fields: Mapping[str, Any], output: str) -> None:
    """One object of a stream that goes on is on stdout: a JSON line, a document of YAML, or its name."""
    if output == "yaml":
        print("---")
    show_one(fields, "jsonl" if output == "json" else output)
    sys.stdout.flush()


def show_many(objects: Sequence[Mapping[str, Any]], output: str) -> None:
    """Objects are on stdout: a JSON array, a line each, a YAML list or names."""
    if output == "name":
        print("".join(f"{fields.get('name', '')}\n" for fields in objects), end="")
    elif output == "yaml":
        _print_yaml(objects)
    elif output == "jsonl":
        print("".join(as_json(fields, is_indented=False) + "\n" for fields in objects), end="")
    else:
        print(as_json(objects, is_indented=True))


def as_json(value: Any, *, is_indented: bool) -> str:
    """`value` as JSON text, on one line or indented by two."""
    octets = msgspec.json.encode(value)
    return (msgspec.json.format(octets, indent=2) if is_indented else octets).decode()


def table(titles: Row, rows: Iterable[Row]) -> str:
    """Left-aligned columns two spaces apart; no line is ever wrapped or cut. Ends with a newline."""
    cells = [titles, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    is_coloured = colours_wanted()
    lines = [_line(row, widths, is_coloured=is_coloured) for row in cells]
    return "\n".join(lines) + "\n"


def colours_wanted() -> bool:
    """Standard output is a terminal and nobody said NO_COLOR (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def coloured(text: str, colour: str) -> str:
    """`text` in a colour, where colours are wanted."""
    return f"\x1b[{colour}m{text}\x1b[0m" if colour and colours_wanted() else text


def joined(values: Iterable[Any]) -> str:
    """Values in one cell; `-` for none."""
    return ",".join(str(value) for value in values) or "-"


def _line(row: Row, widths: Sequence[int], *, is_coloured: bool) -> str:
    padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
    if not is_coloured:
        return "  ".join(padded).rstrip()
    parts = (
        f"\x1b[{COLOURS[cell]}m{text}\x1b[0m" if cell in COLOURS else text
        for cell, text in zip(row, padded, strict=True)
    )
    return "  ".join(parts).rstrip()


def _ordered(fields: Mapping[str, Any], first: Sequence[str]) -> dict[str, Any]:
    return {key: fields[key] for key in first if key in fields} | {
        key: fields[key] for key in fields if key not in first
    }


def _print_yaml(value: Any) -> None:
    import yaml

    print(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120), end="")
