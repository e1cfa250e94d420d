"""What is printed: the pinned shape for programs, tables without wrapping for people."""

from __future__ import annotations

import io
import json
import sys

import pytest
import yaml

from services.cli import endpoint, events, network, output
from services.cli.journal_reader import Recorded
from services.cli.output import PINNED, PINNED_STATUS
from tests.golden import examples


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_an_endpoint_has_the_pinned_shape_first() -> None:
    fields = json.loads(output.as_json(output.shape(examples.ENDPOINT_VIEW), is_indented=False))
    assert tuple(fields)[: len(PINNED)] == PINNED
    assert tuple(fields["status"])[: len(PINNED_STATUS)] == PINNED_STATUS
    assert fields["status"]["addresses"] == ["11.1.1.1/24", "fd00:1::1/64"]


def test_one_object_is_an_object_and_many_are_an_array(capsys: pytest.CaptureFixture[str]) -> None:
    fields = json.loads(output.as_json(output.shape(examples.NETWORK_VIEW), is_indented=False))
    output.show_one(fields, "json")
    assert json.loads(capsys.readouterr().out) == fields
    output.show_many([fields], "json")
    assert json.loads(capsys.readouterr().out) == [fields]
    output.show_many([], "json")
    assert json.loads(capsys.readouterr().out) == []
    output.show_many([fields, fields], "jsonl")
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [fields, fields]
    output.show_many([fields], "yaml")
    assert yaml.safe_load(capsys.readouterr().out) == [fields]
    output.show_many([fields, fields], "name")
    assert capsys.readouterr().out == "web\nweb\n"


def test_a_stream_is_lines_of_json_or_documents_of_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    for seq in (1, 2):
        output.show_next({"name": "web", "seq": seq}, "yaml")
    assert [each["seq"] for each in yaml.safe_load_all(capsys.readouterr().out)] == [1, 2]
    for seq in (1, 2):
        output.show_next({"name": "web", "seq": seq}, "json")
    assert [json.loads(line)["seq"] for line in capsys.readouterr().out.splitlines()] == [1, 2]


def test_a_table_is_aligned_and_never_wrapped() -> None:
    text = output.table(("NAME", "FACTS"), [("a", "x" * 500), ("longer-name", "-")])
    lines = text.splitlines()
    assert [line.index(second) for line, second in zip(lines, ("FACTS", "x", "-"), strict=True)] == [13, 13, 6]
    assert lines[1] == "a" + " " * 12 + "x" * 500
    assert not any(line.endswith(" ") for line in lines)


def test_colours_only_on_a_terminal_that_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32mbound" in output.table(("STATE",), [("bound",)])
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in output.table(("STATE",), [("bound",)])
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.delenv("NO_COLOR")
    assert "\x1b" not in output.table(("STATE",), [("bound",)])


def test_rows_have_a_cell_for_each_title() -> None:
    assert len(endpoint.row(examples.ENDPOINT_VIEW)) == len(endpoint.TITLES)
    assert len(network.row(examples.NETWORK_VIEW)) == len(network.TITLES)


def test_an_endpoint_in_words() -> None:
    assert endpoint.sentence(examples.ENDPOINT_VIEW, "attached") == (
        "endpoint acme/web/web1 attached: 11.1.1.1/24,fd00:1::1/64, bound to c1 (eth0) on h1"
    )


def test_an_event_s_line_and_who_caused_it() -> None:
    recorded = Recorded(
        seq=17,
        subject="np.v1.evt.acme.port.h1.port-bound",
        at="2026-01-31T12:00:00.123456789Z",
        headers={},
        payload=bytes.fromhex("82a474797065aa706f72742d626f756e64a46e616d65a477656231"),
    )
    event = events.describe(recorded)
    assert (event["tenant"], event["by"], event["type"], event["name"]) == ("acme", "host-h1", "port-bound", "web1")
    assert events.line(event) == "    17  2026-01-31 12:00:00.123  port-bound         acme/web1    by host-h1"


def test_an_event_that_cannot_be_read_is_shown_as_such() -> None:
    recorded = Recorded(1, "np.v1.evt.acme.tenant.x", "2026-01-31T12:00:00Z", {}, b"\xc1")
    assert "undecodable" in events.describe(recorded)["event"]
