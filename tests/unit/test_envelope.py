"""What the headers of a command are taken for."""

from __future__ import annotations

import pytest

from messages.codec import Malformed
from services.runtime.decision import Origin
from services.runtime.envelope import Envelope, read_envelope

SENDER = {"Nats-Request-Info": '{"acc":"EDGE","user":"UKEY","host":"127.0.0.1","name":"root","rtt":5}'}
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PRINCIPALS = {"UKEY": "operator"}


def test_everything_is_read() -> None:
    headers = {**SENDER, "Np-Command-Id": "c-1", "Np-Min-Seq": "12", "traceparent": TRACE}
    origin = Origin("operator", "EDGE", "127.0.0.1")
    assert read_envelope(headers, PRINCIPALS) == Envelope(origin, "c-1", 12, TRACE)


def test_nothing_but_the_sender_must_be_there() -> None:
    assert read_envelope(SENDER, PRINCIPALS)[1:] == ("", 0, "", None, False)


def test_a_user_without_a_name_is_its_key() -> None:
    assert read_envelope(SENDER, {}).origin.user == "UKEY"
    assert read_envelope({"Nats-Request-Info": '{"acc":"A"}'}, {}).origin.user == "anonymous"


@pytest.mark.parametrize("stated", [None, "", "[]", "null", '"mallory"', "{", '{"user":7}', '{"user":["a"]}'])
def test_a_sender_nobody_vouches_for_is_refused(stated: str | None) -> None:
    with pytest.raises(Malformed) as fault:
        read_envelope({} if stated is None else {"Nats-Request-Info": stated}, PRINCIPALS)
    assert fault.value.code == "unidentified"


def test_where_nobody_can_say_all_is_unverified() -> None:
    assert str(read_envelope(SENDER, None).origin) == "unverified"
    assert str(read_envelope({}, None).origin) == "unverified"


@pytest.mark.parametrize("command_id", ["", " ", "a b", "x" * 65, "é", "a\tb", "a\nNats-Msg-Id: b"])
def test_a_command_id_must_be_short_and_printable(command_id: str) -> None:
    with pytest.raises(Malformed) as fault:
        read_envelope({**SENDER, "Np-Command-Id": command_id}, PRINCIPALS)
    assert fault.value.code == "invalid-command-id"


@pytest.mark.parametrize("min_seq", ["", "-1", "1.0", "0x1", "²", "9" * 20, " 1"])
def test_a_minimal_sequence_must_be_one(min_seq: str) -> None:
    with pytest.raises(Malformed) as fault:
        read_envelope({**SENDER, "Np-Min-Seq": min_seq}, PRINCIPALS)
    assert fault.value.code == "invalid-min-seq"


@pytest.mark.parametrize("trace", ["", "00", TRACE.upper(), f"{TRACE}-more", f"{TRACE}\nNp-By: root", "x" * 10_000])
def test_a_trace_that_is_none_is_left_out(trace: str) -> None:
    assert read_envelope({**SENDER, "traceparent": trace}, PRINCIPALS).trace == ""
