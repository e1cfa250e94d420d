"""What our children print, passed on to our stderr with its name: one JSON object a line where nobody watches."""

from __future__ import annotations

import json
import sys

import structlog

NATS_LEVELS = {
    "[DBG]": "debug",
    "[TRC]": "debug",
    "[INF]": "debug",
    "[WRN]": "warning",
    "[ERR]": "error",
    "[FTL]": "critical",
}

log = structlog.get_logger()


def show(process: str, line: str) -> None:
    """`line` is on stderr: after the name on a terminal, else with the name as one more field of its object."""
    if not line:
        return
    if sys.stderr.isatty():
        sys.stderr.write(f"{process}: {line}\n")
        sys.stderr.flush()
    elif (fields := _object(line)) is not None:
        sys.stderr.write(json.dumps({"process": process, **fields}) + "\n")
        sys.stderr.flush()
    else:
        level, text = _split(line)
        log.log(LEVELS[level], "printed", process=process, line=text)


LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


def _object(line: str) -> dict[str, object] | None:
    """The JSON object that a line is; None for any other line."""
    if not line.startswith("{"):
        return None
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _split(line: str) -> tuple[str, str]:
    """The level and text of a line: nats-server's `[pid] date time [INF] text`, anybody else's as it is."""
    for mark, level in NATS_LEVELS.items():
        before, found, text = line.partition(f" {mark}")
        if found and before.startswith("["):
            return level, text.lstrip()
    return "info", line
