"""One fact a line: JSON where nobody watches, columns on a terminal. Everything goes to stderr; stdout is for
results.
"""

from __future__ import annotations

import logging
import sys
from types import TracebackType

import structlog

COMMAND_FACTS = ("command", "tenant", "command_id")  # on every line about a command

log = structlog.get_logger()


def configure(level: str = "info", **facts: str) -> None:
    """Every log line of this process has `facts`, a level and a UTC time; those below `level` are dropped.

    What ends the process unforeseen is a line too, with its traceback.
    """
    is_terminal = sys.stderr.isatty()
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=True) if is_terminal else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(**facts)
    sys.excepthook = _log_end


def about_command(command: str, tenant: str, command_id: str) -> None:
    """Every line of this task, and of those that it starts, is about this command."""
    structlog.contextvars.bind_contextvars(command=command, tenant=tenant, command_id=command_id)


def _log_end(kind: type[BaseException], fault: BaseException, trace: TracebackType | None) -> None:
    """In place of Python's own: what nobody caught ends the process."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, fault, trace)
    else:
        log.critical("process-failed", exc_info=(kind, fault, trace))
