"""The options that stand everywhere, and an argument parser whose faults end with status 2 and one line.

argparse, not typer: a verb has 80 ms in all, typer and rich take 100 to import. Each noun's own file is imported only
when it is meant.
"""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn

from .exits import wrong_usage

FORMATS = ("table", "json", "jsonl", "yaml", "name")
DEFAULT_TIMEOUT_S = 30.0
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)\Z")
_SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}


class Parser(argparse.ArgumentParser):
    """argparse whose errors are ours: one line, what to do, status 2."""

    def __init__(self, prog: str, **settings: Any) -> None:
        settings.setdefault("allow_abbrev", False)
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(prog=prog, **settings)

    def error(self, message: str) -> NoReturn:
        """Raises: Ended."""
        raise wrong_usage(f"{message}; `{self.prog} --help` shows what is possible")


def add_common(parser: argparse.ArgumentParser, default: Any = argparse.SUPPRESS) -> None:
    """`parser` takes what stands everywhere. Left out, an option keeps what was said before the noun or the verb."""
    group = parser.add_argument_group("everywhere")
    group.add_argument("-t", "--tenant", default=default, metavar="TENANT", help="whose (default: default)")
    group.add_argument("-o", "--output", default=default, choices=FORMATS, help="how to print the result")
    group.add_argument("--timeout", default=default, type=duration_s, metavar="TIME", help="500ms, 30s (default), 2m")
    group.add_argument("--server", default=default, metavar="URL", help="nats://127.0.0.1:4222")
    group.add_argument("--creds", default=default, metavar="FILE", help="an nkey seed or a .creds file")
    group.add_argument("--context", default=default, metavar="NAME", help="of `netctl context`")


def add_wait(parser: argparse.ArgumentParser) -> None:
    """`parser` takes --wait."""
    parser.add_argument(
        "--wait",
        choices=("accepted", "applied"),
        default="applied",
        help="until it is recorded, or (default) until the host reports it done",
    )


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """`parser` takes --dry-run. (`apply` has one of its own: it shows a plan.)"""
    parser.add_argument("--dry-run", action="store_true", help="show what would be recorded, and do nothing")


def add_at(parser: argparse.ArgumentParser) -> None:
    """`parser` takes --at."""
    parser.add_argument(
        "--at", type=point, metavar="SEQ|TIME", help="as it was then: 17, 10m (ago), 2026-01-31T12:00:00Z"
    )


def point(text: str) -> str:
    """A journal sequence or a time, as the actor reads it. Raises: argparse.ArgumentTypeError."""
    from datetime import UTC, datetime, timedelta

    if text.isascii() and text.isdigit() and 0 < int(text) < 10**18:
        return text
    ago = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    if text[:-1].isascii() and text[:-1].isdigit() and len(text) < 10 and text[-1] in ago:
        return (datetime.now(UTC) - timedelta(seconds=int(text[:-1]) * ago[text[-1]])).isoformat()
    try:
        return datetime.fromisoformat(text).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no point: expected a sequence, 10m (s, m, h, d: ago), or a time such as 2026-01-31T12:00:00Z"
        ) from None


def duration_s(text: str) -> float:
    """`500ms`, `30s`, `2m` or a number of seconds, as seconds. Raises: argparse.ArgumentTypeError."""
    match = _DURATION.match(text)
    if match is None or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: expected one such as 500ms, 30s, 2m")
    return float(match[1]) * _SECONDS[match[2]]


def several(values: list[str] | None) -> list[str]:
    """The values of an option given more than once, or once with commas."""
    return [part.strip() for value in values or () for part in value.split(",") if part.strip()]


def switched(word: str | None) -> bool | None:
    """`on` and `off` as the message has them."""
    return None if word is None else word == "on"
