from __future__ import annotations

from pathlib import Path

import pytest

from services import netplugin


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--datapath", "quantum"], "auto, system or netdev"),
        (["--host", "Not A Host"], "host name"),
        (["--actors", "ipam,gremlin"], "gremlin"),
        (["--bridge", "x" * 16], "at most 15"),
        (["--purge"], "--clean"),
        (["--creds", "/nowhere"], "--nats"),
        (["--config", "/nowhere.toml"], "/nowhere.toml"),
        (["--log-level", "loud"], "debug, info, warning or error"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_made(
    tmp_path: Path, flags: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--state-dir", str(tmp_path / "state"), "--run-dir", str(tmp_path / "run")]
    assert netplugin.run([*own, *flags]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert says in errors
    assert list(tmp_path.iterdir()) == []


def test_a_flag_that_is_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        netplugin.run(["--frobnicate"])
    assert ended.value.code == 2
    assert "--frobnicate" in capsys.readouterr().err


def test_a_setting_in_the_file_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "netplugin.toml"
    file.write_text('bridge = "br0"\nspeed = 11\n')
    assert netplugin.run(["--config", str(file)]) == 2
    assert "speed" in capsys.readouterr().err


def test_the_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        netplugin.run(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("netplugin ")
