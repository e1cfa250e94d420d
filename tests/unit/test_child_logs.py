from __future__ import annotations

import json

import pytest
from structlog.testing import capture_logs

from services import child_logs


def test_an_object_keeps_its_fields_and_gets_the_name(capsys: pytest.CaptureFixture[str]) -> None:
    child_logs.show("ipam", '{"event": "actor-ready", "seq": 7}')
    assert json.loads(capsys.readouterr().err) == {"process": "ipam", "event": "actor-ready", "seq": 7}


@pytest.mark.parametrize(
    ("line", "level", "text"),
    [
        ("[7] 2026/11/23 20:04:53.2 [INF] Server is ready", "debug", "Server is ready"),
        ("[7] 2026/11/23 20:04:53.2 [INF]", "debug", ""),
        ("[7] 2026/11/23 20:04:53.2 [WRN] slow", "warning", "slow"),
        ("[7] 2026/11/23 20:04:53.2 [ERR] no space left on device", "error", "no space left on device"),
        ("[7] 2026/11/23 20:04:53.2 [FTL] gone", "critical", "gone"),
        ("Traceback (most recent call last):", "info", "Traceback (most recent call last):"),
        ("{not an object", "info", "{not an object"),
        ("{}]", "info", "{}]"),
    ],
)
def test_any_other_line_becomes_a_fact_with_its_level(line: str, level: str, text: str) -> None:
    with capture_logs() as logs:
        child_logs.show("x", line)
    assert logs == [{"event": "printed", "process": "x", "line": text, "log_level": level}]


def test_an_empty_line_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    child_logs.show("x", "")
    assert capsys.readouterr() == ("", "")
