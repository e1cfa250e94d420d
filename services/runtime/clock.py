"""The one place where time and randomness are read; pure code gets them stamped onto its commands."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Time and randomness, so that a simulation can have its own."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970 (UTC)."""
        ...

    def entropy(self) -> bytes:
        """16 random bytes."""
        ...


class SystemClock:
    """The machine's own."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970 (UTC)."""
        return time.time_ns()

    def entropy(self) -> bytes:
        """16 random bytes."""
        return os.urandom(16)


def rfc3339(at_ns: int) -> str:
    """A moment as people and CloudEvents write it: `2026-11-23T20:10:11.123456Z`. Source: RFC 3339 section 5.6."""
    return datetime.fromtimestamp(at_ns / 1e9, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
