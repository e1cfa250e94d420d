"""What a test needs of the machine, said as a mark: ``@needs_isolation``, ``@needs_ovs``, ``@needs_tool("nft")``.

What is lacking skips the test with its reason on somebody's machine, and fails it where ``CI`` is set: there everything
must run. ``tests/conftest.py`` names this module in ``pytest_plugins``; a fixture may call ``require`` itself.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

SYSTEM_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"))
CNI_FOLDERS = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))


@dataclass(frozen=True)
class Requirement:
    """Something of the machine; ``lacking()`` is the reason why it is not there, or None."""

    lacking: Callable[[], str | None]


def tool(name: str) -> Requirement:
    """The command ``name`` can be run."""
    return Requirement(lambda: None if shutil.which(name, path=SYSTEM_PATH) else f"needs the command {name}")


def cni_plugin(name: str) -> Requirement:
    """The CNI plug-in ``name`` is installed."""
    there = any((folder / name).exists() for folder in CNI_FOLDERS)
    return Requirement(lambda: None if there else f"needs the CNI plug-in {name} (containernetworking-plugins)")


ROOT = Requirement(lambda: None if os.geteuid() == 0 else "needs root")
ISOLATION = Requirement(
    lambda: None if os.environ.get("NETPLUGIN_ISOLATED") else "needs root in namespaces of its own: scripts/isolated"
)


def needs(*requirements: Requirement) -> pytest.MarkDecorator:
    """The mark of a test that cannot run without ``requirements``."""
    return pytest.mark.needs(*requirements)


def needs_tool(*names: str) -> pytest.MarkDecorator:
    """The mark of a test that runs the commands ``names``."""
    return needs(*(tool(name) for name in names))


needs_root = needs(ROOT)
needs_isolation = needs(ROOT, ISOLATION)
needs_ovs = needs(ROOT, ISOLATION, tool("ovs-vswitchd"), tool("ovsdb-server"), tool("ovs-vsctl"))
needs_docker = needs(ROOT, ISOLATION, tool("dockerd"), tool("docker"), tool("busybox"))
needs_cni = needs(ROOT, ISOLATION, cni_plugin("bridge"), cni_plugin("host-local"))


def require(*requirements: Requirement) -> None:
    """Skips the running test, or fails it in CI, when one of ``requirements`` is lacking."""
    for requirement in requirements:
        reason = requirement.lacking()
        if reason is None:
            continue
        if os.environ.get("CI", "") not in {"", "0", "false"}:
            pytest.fail(f"{reason} (in CI nothing is skipped)", pytrace=False)
        pytest.skip(reason)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Holds every test to its ``needs`` marks before its fixtures start anything."""
    for mark in item.iter_markers("needs"):
        require(*mark.args)
