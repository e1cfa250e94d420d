"""compose.yaml and the Dockerfile name only what is there: flags, variables, files, subjects of the image."""

from __future__ import annotations

import re
import shlex
import tomllib
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from services import init_command, netplugin
from services.cli import netctl
from services.runtime import config

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "compose.yaml"
DOCKERFILE = ROOT / "Dockerfile"
# Of the Compose Specification, section "services": what is used here.
SERVICE_KEYS = {
    "build",
    "cap_add",
    "cap_drop",
    "command",
    "depends_on",
    "entrypoint",
    "environment",
    "healthcheck",
    "image",
    "network_mode",
    "networks",
    "pid",
    "read_only",
    "restart",
    "security_opt",
    "stop_grace_period",
    "tmpfs",
    "user",
    "volumes",
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return loaded


def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def test_services_say_nothing_that_compose_does_not_know(compose: dict[str, Any]) -> None:
    assert {key for key in compose if not key.startswith("x-")} == {"name", "services", "networks"}
    for name, service in services(compose).items():
        assert service.keys() <= SERVICE_KEYS, name
        for other in service.get("depends_on", {}):
            assert other in services(compose)


def test_every_daemon_is_started_with_flags_that_it_takes(compose: dict[str, Any]) -> None:
    for name, service in services(compose).items():
        if service["command"][0] != "netplugin":
            continue
        given = vars(netplugin.parser().parse_args(service["command"][1:]))
        loaded = config.load(given, {}, {})
        assert loaded.metrics, name
        assert ("host" in loaded.actors) == (name == "host")


def test_the_cluster_is_prepared_for_the_addresses_that_the_servers_have(compose: dict[str, Any]) -> None:
    (script,) = services(compose)["init"]["command"]
    line = script.replace("\\\n", " ").splitlines()[0].replace("$$", "$")
    given = init_command.parser().parse_args(shlex.split(line)[2:])
    told = dict(text.split("=") for text in given.server)
    subnet = ip_network(compose["networks"]["bus"]["ipam"]["config"][0]["subnet"])
    for name, address in told.items():
        service = services(compose)[name]
        assert service["networks"]["bus"]["ipv4_address"] == address
        assert ip_address(address) in subnet
        assert f"./cluster/{name}:/var/lib/netplugin" in service["volumes"]
        assert service["command"][service["command"].index("--host") + 1] == name
    assert len(told) == 3


def test_servers_have_no_rights_and_the_host_those_that_are_listed(compose: dict[str, Any]) -> None:
    for name, service in services(compose).items():
        assert "privileged" not in service
        assert service["cap_drop"] == ["ALL"], name
        if name.startswith("server-"):
            assert "cap_add" not in service
            assert service["user"].split(":")[0] != "0"
            assert service["read_only"]
    host = services(compose)["host"]
    assert "SYS_MODULE" not in host["cap_add"]
    assert (host["network_mode"], host["pid"]) == ("host", "host")


def test_health_is_asked_by_a_verb_that_is_there(compose: dict[str, Any]) -> None:
    test = services(compose)["server-1"]["healthcheck"]["test"]
    assert test[:3] == ["CMD", "netctl", "host"]
    assert test[2] in netctl.NOUNS


def test_variables_are_ours(compose: dict[str, Any]) -> None:
    for service in services(compose).values():
        assert set(service.get("environment", {})) <= set(config.VARIABLES.values())


def test_the_image_is_made_of_files_that_are_there_and_ignored_ones_are_not() -> None:
    copied = [
        source
        for line in DOCKERFILE.read_text().splitlines()
        if (found := re.match(r"COPY (?!--from)(.*)", line))
        for source in found[1].split()[:-1]
    ]
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == {source.rstrip("/") for source in copied}
    for source in copied:
        assert (ROOT / source).exists(), source
    assert "--require-hashes" in DOCKERFILE.read_text()


def test_the_image_has_every_package_of_the_wheel() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    for package in {name.partition(".")[0] for name in packages}:
        assert f"COPY {package}/ {package}/" in DOCKERFILE.read_text()
