"""`netctl decode`: msgpack on stdin (one value or many, one after the other) as JSON lines on stdout.

`nats sub '$SUBJECT' --translate 'netctl decode'` shows what goes over the bus as people read it.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from . import output
from .exits import DONE, FAILED, Ended
from .verbs import Session, Verb

MESSAGE_MAX_BYTES = 64 * 1024 * 1024


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--indent", action="store_true", help="indent by two, as -o json does")


def _decode(session: Session, chosen: argparse.Namespace) -> int:
    import msgpack

    is_indented = chosen.indent or session.output == "json"
    unpacker = msgpack.Unpacker(
        sys.stdin.buffer, raw=False, strict_map_key=False, timestamp=3, max_buffer_size=MESSAGE_MAX_BYTES
    )
    position = 0
    try:
        for value in unpacker:
            if session.output == "yaml":
                output.show_one(value, "yaml")
            else:
                print(output.as_json(_printable(value), is_indented=is_indented), flush=True)
            position = unpacker.tell()
    except (ValueError, msgpack.exceptions.UnpackException) as fault:
        raise Ended(FAILED, f"no msgpack after {position} bytes: {str(fault) or type(fault).__name__}") from None
    if unpacker.tell() != position or _is_cut_off(unpacker):
        raise Ended(FAILED, f"the input ends in the middle of a value that begins after {position} bytes")
    return DONE


def _is_cut_off(unpacker: Any) -> bool:
    return bool(unpacker.read_bytes(1))


def _printable(value: Any) -> Any:
    """`value` with keys of any kind as text and extension types as hexadecimal."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _printable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "code"):
        return [_printable(item) for item in value]
    if hasattr(value, "code"):
        return {"ext": value.code, "hex": value.data.hex()}
    return value


VERBS = {"": Verb("msgpack on stdin as JSON on stdout, a line for each value.", _arguments, _decode)}
