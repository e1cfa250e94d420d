"""Bytes that were once written are read for ever: the journal never forgets. One file for each message, never changed.

A new message gets its file by `python -m tests.unit.test_golden`, which writes what is missing and changes nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from messages import codec
from messages.catalog import COMMANDS, EVENTS, QUESTIONS
from messages.struct import kebab
from messages.subjects import CommandSubject
from tests.golden import examples

FOLDER = Path(__file__).resolve().parents[1] / "golden"


def name_of(message: msgspec.Struct) -> str:
    return kebab(type(message).__name__)


CASES: dict[str, msgspec.Struct] = {
    **{f"command-{name_of(each)}": each for each in (*examples.COMMANDS, *examples.QUESTIONS)},
    **{f"event-{name_of(each)}": each for each in examples.EVENTS},
    "event-endpoint-bound-that-is-new": examples.NEW_AND_BOUND,
    **{f"reply-{name}": each for name, each in examples.REPLIES},
}


def file_of(case: str) -> Path:
    return FOLDER / f"{case}.msgpack"


def decode(case: str, payload: bytes) -> msgspec.Struct:
    kind, _, name = case.partition("-")
    if kind == "event":
        return codec.decode_event(payload)
    if kind == "reply":
        return codec.decode_reply(payload)
    if name in QUESTIONS:
        return codec.decode_question(payload, name)
    verb, _, construct = name.partition("-")
    construct = construct.removesuffix("s") if verb == "list" else construct
    return codec.decode_command(CommandSubject(codec.unpack(payload)["tenant"], construct, verb), payload)


@pytest.mark.parametrize("case", CASES)
def test_old_bytes_are_read_and_written_as_they_were(case: str) -> None:
    payload = file_of(case).read_bytes()
    assert decode(case, payload) == CASES[case]
    written = codec.encode(CASES[case])
    assert decode(case, written) == CASES[case]
    assert only_of(codec.unpack(written), codec.unpack(payload)) == codec.unpack(payload)


def only_of(written: Any, old: Any) -> Any:
    """What is written, without the fields that came later."""
    if isinstance(written, dict) and isinstance(old, dict):
        return {key: only_of(value, old[key]) for key, value in written.items() if key in old}
    if isinstance(written, list) and isinstance(old, list) and len(written) == len(old):
        return [only_of(one, other) for one, other in zip(written, old, strict=True)]
    return written


def test_every_message_has_an_example() -> None:
    assert {name_of(each) for each in examples.COMMANDS} == set(COMMANDS)
    assert {name_of(each) for each in examples.QUESTIONS} == set(QUESTIONS)
    assert {name_of(each) for each in examples.EVENTS} == set(EVENTS)
    assert {name_of(each) for _, each in examples.REPLIES} == {
        "accepted",
        "planned",
        "item",
        "items",
        "refused",
        "unavailable",
    }


def test_no_file_is_without_its_message() -> None:
    assert {file.stem for file in FOLDER.glob("*.msgpack")} == set(CASES)


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("event-")])
def test_an_event_of_a_newer_version_is_read_without_what_is_new(case: str) -> None:
    newer = {**codec.unpack(file_of(case).read_bytes()), "not_known_yet": {"a": [1, 2]}}
    assert codec.decode_event(msgspec.msgpack.encode(newer)) == CASES[case]


def write_missing() -> None:
    for case, message in CASES.items():
        if not file_of(case).exists():
            file_of(case).write_bytes(codec.encode(message))
            print(f"wrote {file_of(case)}")


if __name__ == "__main__":
    write_missing()
