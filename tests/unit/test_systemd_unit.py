"""The unit and its drop-in: what systemd takes, and no right that compose.yaml would not give."""

from __future__ import annotations

import configparser
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from services import service_notice
from services.runtime import config
from tests.requires import needs_tool

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "packaging/systemd/netplugin.service"
DROP_IN = ROOT / "packaging/systemd/netplugin.service.d/nats.conf.example"


def read(file: Path) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read(file)
    return parsed


@needs_tool("systemd-analyze")
def test_systemd_finds_no_fault_in_it(tmp_path: Path) -> None:
    (tmp_path / "netplugin.service").write_text(
        UNIT.read_text().replace("/opt/netplugin/bin/netplugin", sys.executable)
    )
    folder = tmp_path / "netplugin.service.d"
    folder.mkdir()
    text = DROP_IN.read_text().replace("Requires=nats-server.service\n", "")
    (folder / "nats.conf").write_text(text)
    verified = subprocess.run(
        ("systemd-analyze", "verify", "--man=no", str(tmp_path / "netplugin.service")),
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (verified.returncode, verified.stderr) == (0, "")


def test_an_open_vswitch_that_it_started_outlives_it() -> None:
    service = read(UNIT)["Service"]
    assert service["KillMode"] == "process"
    assert service["RuntimeDirectoryPreserve"] == "yes"
    assert not {key for key in service if key.startswith(("Protect", "Private"))}  # mount namespaces of its own


def test_it_has_the_rights_of_the_container_and_those_of_a_switch() -> None:
    bounds = {name.removeprefix("CAP_") for name in read(UNIT)["Service"]["CapabilityBoundingSet"].split()}
    container = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["host"]["cap_add"]
    assert bounds == {*container, "NET_RAW"}  # an Open vSwitch of its own, in user space


def test_the_drop_in_sets_variables_that_are_read() -> None:
    lines = [line for line in DROP_IN.read_text().splitlines() if line.startswith("Environment=")]
    given = dict(line.removeprefix("Environment=").split("=", 1) for line in lines)
    assert set(given) <= set(config.VARIABLES.values())
    loaded = config.load({}, given, {})
    assert (loaded.actors, len((loaded.nats or "").split(","))) == (("host",), 3)


@pytest.mark.parametrize("is_abstract", [False, True])
def test_the_service_manager_is_told(monkeypatch: pytest.MonkeyPatch, short_path: Path, *, is_abstract: bool) -> None:
    address = f"@{short_path}/notice" if is_abstract else str(short_path / "notice")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + address[1:] if is_abstract else address)
        monkeypatch.setenv(service_notice.VARIABLE, address)
        service_notice.notify(service_notice.READY, "STATUS=well")
        assert manager.recv(4096) == b"READY=1\nSTATUS=well"


def test_nobody_is_told_where_nobody_listens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(service_notice.VARIABLE, raising=False)
    service_notice.notify(service_notice.READY)
    monkeypatch.setenv(service_notice.VARIABLE, str(tmp_path / "gone"))
    service_notice.notify(service_notice.READY)


def test_the_unit_s_program_is_what_the_image_has_too() -> None:
    program = read(UNIT)["Service"]["ExecStart"]
    assert f"PATH={Path(program).parent}" in (ROOT / "Dockerfile").read_text()
