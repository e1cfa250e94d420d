"""The kinds of failure that the code treats differently; a refusal is a reply (`messages/replies.py`), not an
exception.
"""

from __future__ import annotations


class Unavailable(Exception):
    """A bus, a journal or a switch is away for now. The shell retries with back-off, then answers when to try again."""

    def __init__(self, detail: str, retry_after_s: float = 1.0) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s


class Conflict(Unavailable):
    """Somebody else wrote the aggregate first: nothing was written; apply what they wrote and decide again."""


class OutcomeUnknown(Unavailable):
    """Nobody said whether it was written: the journal must be read before anything is decided on this aggregate."""


class JournalFull(Unavailable):
    """The journal takes no more writes (its disk or its limit is full); nothing was written by this one."""


class Misconfigured(Exception):
    """A flag, an environment variable or a file says what cannot be; the program ends with status 2 and this text."""
