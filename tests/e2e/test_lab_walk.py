"""`make cluster` itself: it does what it says, and nothing is left of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from services.lab import layout
from tests.harness.lab import mounts
from tests.harness.netns import links
from tests.requires import needs_ovs

pytestmark = [pytest.mark.long, needs_ovs]


def test_the_walk_does_what_it_says_and_leaves_nothing() -> None:
    before = (links(), mounts())
    walk = subprocess.run(
        (sys.executable, "-P", "-m", "services.lab.walk"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert walk.returncode == 0, walk.stdout + walk.stderr
    for shown in ("the lab is up", "64 bytes from 10.1.1.3", "100% packet loss", "h3 is ready", "ipam@h2"):
        assert shown in walk.stdout
    assert (links(), mounts()) == before
    if layout.NAMED_NAMESPACES.exists():
        assert [path.name for path in layout.NAMED_NAMESPACES.iterdir() if path.name.startswith("np-")] == []
