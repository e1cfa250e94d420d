"""`make demo` itself: on Docker and without, two at once, in little memory, and nothing is left of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness.netns import links
from tests.requires import needs_docker, needs_ovs

pytestmark = [pytest.mark.long, needs_ovs, needs_docker]

ROOT = Path(__file__).resolve().parents[2]
ISOLATED = (str(ROOT / "scripts" / "isolated"), "sh", "-c")
DEMO = 'NETPLUGIN_BUILD_DIR=$TMPDIR exec "$@"'
WITHOUT_DOCKER = f'mount --bind /dev/null "$(readlink -f "$(command -v dockerd)")" && {DEMO}'
MEMORY_MAX_KIB = 1 << 20
LOOK_EVERY_S = 0.1
PROPORTIONAL_SHARE = re.compile(r"^Pss: +(\d+)", re.MULTILINE)


def started(stack: ExitStack, how: str) -> subprocess.Popen[str]:
    words = (*ISOLATED, how, "demo", sys.executable, "-m", "services.demo")
    return stack.enter_context(
        subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    )


def memory_kib(pid: int) -> int:
    """What a process and all that came of it have in memory, what they share counted once."""
    children = defaultdict(list)
    for process in processes():
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
        children[parent].append(int(process.name))
    family, found = [pid], 0
    for member in family:
        family += children[member]
        try:
            share = PROPORTIONAL_SHARE.search(Path(f"/proc/{member}/smaps_rollup").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
        found += int(share[1]) if share else 0
    return found


def processes() -> list[Path]:
    return [path for path in Path("/proc").iterdir() if path.name.isdigit()]


def said(demo: subprocess.Popen[str]) -> str:
    output, _ = demo.communicate(timeout=300)
    assert demo.returncode == 0, output
    return output


def test_two_at_once_do_not_meet_and_leave_nothing() -> None:
    before = (links(), sorted(Path("/run").iterdir()), Path("/proc/self/mountinfo").read_text())
    running = {path.name for path in processes()}
    with ExitStack() as stack:
        for output in [said(demo) for demo in [started(stack, DEMO) for _ in range(2)]]:
            for shown in (
                "64 bytes from 11.1.1.2",
                "tag: 12",
                "100% packet loss",
                " 0% packet loss",
                "endpoint-deleted",
            ):
                assert shown in output
    assert (links(), sorted(Path("/run").iterdir()), Path("/proc/self/mountinfo").read_text()) == before
    assert {path.name for path in processes()} <= running


def test_it_keeps_to_a_gigabyte() -> None:
    with ExitStack() as stack, open(os.devnull, "w") as nothing:  # noqa: PTH123
        words = (*ISOLATED, DEMO, "demo", sys.executable, "-m", "services.demo")
        demo = stack.enter_context(subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=nothing, stderr=nothing))
        most_kib = 0
        while demo.poll() is None:
            most_kib = max(most_kib, memory_kib(demo.pid))
            try:
                demo.wait(LOOK_EVERY_S)
            except subprocess.TimeoutExpired:
                continue
    assert demo.returncode == 0
    print(f"at most {most_kib >> 10} MiB")
    assert 0 < most_kib < MEMORY_MAX_KIB


def test_without_docker_named_namespaces_are_the_containers() -> None:
    with ExitStack() as stack:
        output = said(started(stack, WITHOUT_DOCKER))
    assert "dockerd is not installed" in output
    assert "ip netns exec myContainer1 busybox ping" in output
    assert "64 bytes from 11.1.1.2" in output
