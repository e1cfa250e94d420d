"""Reading the journal: where to begin, who did what, and msgpack as JSON."""

from __future__ import annotations

import io
import json
import sys
from datetime import UTC, datetime

import msgpack
import pytest

from messages import codec
from messages.network import NetworkDeleted
from messages.replies import Refused
from services.cli import log, netctl
from services.cli.exits import DONE, FAILED
from services.cli.journal_reader import Recorded, Start, parse_since
from services.cli.wire import parse_headers

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("17", Start(seq=17)),
        ("0", Start(seq=1)),
        ("10m", Start(time="2026-01-31T11:50:00Z")),
        ("1d", Start(time="2026-01-30T12:00:00Z")),
        ("2026-01-31T12:00:00Z", Start(time="2026-01-31T12:00:00Z")),
        ("2026-01-31T12:00:00+02:00", Start(time="2026-01-31T10:00:00Z")),
    ],
)
def test_where_to_begin(text: str, start: Start) -> None:
    assert parse_since(text, NOW) == start


def recorded(seq: int, command_id: str, network: str = "web", by: str = "operator") -> Recorded:
    subject = f"np.v1.evt.acme.net.{network}.network-deleted._"
    payload = codec.encode(NetworkDeleted(tenant="acme", network=network))
    headers = {"Np-Command-Id": command_id, "Np-By": by} if command_id else {}
    return Recorded(seq, subject, f"2026-01-31T12:00:{seq:02}Z", headers, payload)


def test_one_entry_for_all_that_one_command_brought_about() -> None:
    entries = list(log.by_command([recorded(1, "a"), recorded(2, "a", "db"), recorded(3, "b"), recorded(4, "")]))
    assert [(entry["seq"], len(entry["what"]), entry["command_id"]) for entry in entries] == [
        (2, 2, "a"),
        (3, 1, "b"),
        (4, 1, ""),
    ]
    assert entries[0]["what"] == ["network-deleted acme/web", "network-deleted acme/db"]
    assert entries[0]["by"] == "operator"


def test_events_without_a_command_stand_for_themselves() -> None:
    assert len(list(log.by_command([recorded(1, ""), recorded(2, "")]))) == 2
    assert list(log.by_command([])) == []


def test_a_refusal_is_an_entry_with_its_reason() -> None:
    headers = {"Np-Command-Id": "c", "Np-By": "operator", "Np-Command": "network.create"}
    payload = codec.encode(Refused(code="tag-in-use", detail="12 is of network db"))
    entry = log.refusal(Recorded(1, "np.v1.audit.acme.network-create", "2026-01-31T12:00:00Z", headers, payload))
    assert (entry["outcome"], entry["code"], entry["what"]) == ("refused", "tag-in-use", ["network.create acme"])


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (b"NATS/1.0\r\nA: b\r\nA: c\r\n\r\n", ({"A": "b"}, 0, "")),
        (b"NATS/1.0 503\r\n\r\n", ({}, 503, "")),
        (b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\n\r\n", ({"Nats-Num-Pending": "0"}, 204, "EOB")),
        (b"NATS/1.0\r\nContent-Type:application/json\r\n\r\n", ({"Content-Type": "application/json"}, 0, "")),
    ],
)
def test_headers(block: bytes, expected: tuple[dict[str, str], int, str]) -> None:
    assert parse_headers(block) == expected


def decode(payload: bytes, monkeypatch: pytest.MonkeyPatch, *flags: str) -> int:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(payload)))
    return netctl.run(["decode", *flags])


def test_decode_prints_a_line_for_each_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = [{"a": 1, "b": [None, True, "x"]}, [1.5], "text", {2: 3}]
    assert decode(b"".join(bytes(msgpack.packb(value)) for value in values), monkeypatch) == DONE
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert printed == [*values[:3], {"2": 3}]


def test_decode_shows_what_json_has_no_word_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = msgpack.packb({"raw": b"\x01", "ext": msgpack.ExtType(5, b"\x02"), "at": NOW}, datetime=True)
    assert decode(bytes(packed), monkeypatch) == DONE
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"raw": "AQ==", "ext": {"ext": 5, "hex": "02"}, "at": "2026-01-31T12:00:00Z"}


@pytest.mark.parametrize(
    ("payload", "said"), [(b"\x01\xc1", "no msgpack after 1 bytes"), (b"\x01\x92\x01", "in the middle")]
)
def test_decode_says_where_it_stopped(
    payload: bytes, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert decode(payload, monkeypatch) == FAILED
    captured = capsys.readouterr()
    assert captured.out == "1\n"
    assert said in captured.err


def test_decode_of_nothing_is_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert decode(b"", monkeypatch) == DONE
    assert capsys.readouterr().out == ""
