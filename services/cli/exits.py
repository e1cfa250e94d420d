"""Exit statuses, and the one exception that ends a verb with a message. Both command lines have the same."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

DONE = 0
FAILED = 1  # refused, or accepted and then failed
USAGE = 2
UNREACHABLE = 3
WAIT_RAN_OUT = 4
INTERRUPTED = 130  # 128 + SIGINT


class Ended(Exception):
    """The verb ends with `status`; `message` goes to stderr."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def leave(status: int) -> NoReturn:
    """The process has ended with `status`, at once: the interpreter's own tear-down takes 8 ms of a verb's 80.

    Nothing is lost by it: connections are closed, no thread runs, and what was printed is flushed here.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:  # whoever read our output has had enough
        status = DONE
    os._exit(status)


def wrong_usage(message: str) -> Ended:
    """What was typed can never be right; nothing was sent."""
    return Ended(USAGE, message)
