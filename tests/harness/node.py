"""Node with the packages that tests/node/package-lock.json names, which `scripts/node-modules` puts into build/node."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.requires import Requirement, needs, tool

SOURCES = Path(__file__).resolve().parents[1] / "node"
INSTALLED = Path(os.environ.get("NETPLUGIN_TEST_NODE") or SOURCES.parents[1] / "build" / "node")
RUN_WITHIN_S = 120.0


def _lacking() -> str | None:
    marker = INSTALLED / "node_modules" / "installed.json"
    if marker.exists() and marker.read_text() == (SOURCES / "package-lock.json").read_text():
        return None
    return "needs the Node packages of tests/node: scripts/node-modules"


needs_node_packages = needs(tool("node"), Requirement(_lacking))


def run_node(
    script: str, *arguments: str, stdin: str = "", command: tuple[str, ...] = ("node",)
) -> subprocess.CompletedProcess[str]:
    """The ended run of one script of tests/node; `command` may run node elsewhere, such as in a network namespace."""
    beside_packages = INSTALLED / script  # where Node looks for what it imports
    if not beside_packages.exists() or beside_packages.read_text() != (SOURCES / script).read_text():
        shutil.copy(SOURCES / script, beside_packages)
    return subprocess.run(
        [*command, str(beside_packages), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=RUN_WITHIN_S,
        check=False,
    )
