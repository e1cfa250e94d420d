"""`netns:NAME` and `pid:N` with real namespaces and processes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from host_actor.runtimes import runtimes_of
from host_actor.runtimes.contract import Died, Found, NotFound, Started
from host_actor.runtimes.dispatch import Runtimes
from tests.harness.heard import Heard
from tests.harness.netns import NetworkNamespace, run
from tests.requires import needs_isolation

pytestmark = [pytest.mark.anyio, needs_isolation]

SOON_S = 30.0  # told by the kernel, within milliseconds where the machine has time


@pytest.fixture
async def heard() -> Heard:
    return Heard()


@pytest.fixture
async def runtimes(heard: Heard, short_path: Path) -> AsyncIterator[Runtimes]:
    opened = runtimes_of({"DOCKER_HOST": f"unix://{short_path}/no-engine"})
    await opened.open(heard)
    yield opened
    await opened.close()


def ip_netns(*arguments: str) -> None:
    run("ip", "netns", *arguments)


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has started to execute `command` and is ended afterwards."""
    with subprocess.Popen([*command, "sh", "-c", "echo; exec sleep 86400"], stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"\n"
        try:
            yield started
        finally:
            started.kill()


async def found(runtimes: Runtimes, reference: str) -> Found:
    resolution = await runtimes.resolve(reference)
    assert isinstance(resolution, Found), resolution
    return resolution


async def refused(runtimes: Runtimes, reference: str) -> str:
    resolution = await runtimes.resolve(reference)
    assert isinstance(resolution, NotFound), resolution
    return resolution.code


async def test_a_named_namespace_is_found(runtimes: Runtimes, netns: Callable[[str], NetworkNamespace]) -> None:
    netns("blue")
    blue = await found(runtimes, "netns:blue")
    assert blue.name == "netns:blue"
    assert blue.sandbox.netns_path == "/run/netns/blue"
    assert blue.sandbox.key.startswith(f"netns:{Path('/run/netns/blue').stat().st_ino}:")
    assert await found(runtimes, "netns:blue") == blue


async def test_a_missing_name_is_not_found(runtimes: Runtimes) -> None:
    assert await refused(runtimes, "netns:green") == "container-not-found"


async def test_a_file_that_is_no_network_namespace_is_not_found(runtimes: Runtimes) -> None:
    Path("/run/netns/file").touch()
    Path("/run/netns/uts").symlink_to("/proc/self/ns/uts")
    assert await refused(runtimes, "netns:file") == "container-not-found"
    assert await refused(runtimes, "netns:uts") == "container-not-found"
    Path("/run/netns/file").unlink()
    Path("/run/netns/uts").unlink()


async def test_the_own_network_of_the_host_is_no_container(runtimes: Runtimes) -> None:
    ip_netns("attach", "own", str(os.getpid()))
    assert await refused(runtimes, "netns:own") == "container-uses-host-network"
    assert await refused(runtimes, f"pid:{os.getpid()}") == "container-uses-host-network"
    ip_netns("delete", "own")


async def test_a_deleted_name_is_told_and_the_next_of_that_name_is_another(runtimes: Runtimes, heard: Heard) -> None:
    ip_netns("add", "blue")
    first = await found(runtimes, "netns:blue")
    ip_netns("delete", "blue")
    died = await heard.wait_for(Died, within_s=SOON_S)
    assert died.sandbox_key == first.sandbox.key
    assert await refused(runtimes, "netns:blue") == "container-not-found"

    ip_netns("add", "blue")
    assert await heard.wait_for(Started, within_s=SOON_S) == Started("netns", "blue")
    second = await found(runtimes, "netns:blue")
    assert second.sandbox.key != first.sandbox.key
    ip_netns("delete", "blue")
    assert (await heard.wait_for(Died, 2, within_s=SOON_S)).sandbox_key == second.sandbox.key


async def test_a_name_replaced_behind_our_back_is_told_when_it_is_asked_for(runtimes: Runtimes, heard: Heard) -> None:
    ip_netns("add", "blue")
    first = await found(runtimes, "netns:blue")
    ip_netns("delete", "blue")
    ip_netns("add", "blue")
    second = await found(runtimes, "netns:blue")  # before the event loop could look at the mounts
    assert [event.sandbox_key for event in heard.of(Died)] == [first.sandbox.key]
    assert second.sandbox.key != first.sandbox.key
    ip_netns("delete", "blue")


async def test_a_name_that_was_asked_for_too_early_is_told(runtimes: Runtimes, heard: Heard) -> None:
    assert await refused(runtimes, "netns:late") == "container-not-found"
    ip_netns("add", "late")
    assert await heard.wait_for(Started, within_s=SOON_S) == Started("netns", "late")
    ip_netns("delete", "late")


async def test_names_nobody_asked_for_are_not_told(runtimes: Runtimes, heard: Heard) -> None:
    await refused(runtimes, "netns:wanted")
    for name in ("other", "wanted"):
        ip_netns("add", name)
    await heard.wait_for(Started, within_s=SOON_S)
    assert heard.events == [Started("netns", "wanted")]
    for name in ("other", "wanted"):
        ip_netns("delete", name)


async def test_a_process_is_found_until_it_ends(runtimes: Runtimes, heard: Heard) -> None:
    with process("unshare", "--net") as sleeping:
        reference = f"pid:{sleeping.pid}"
        there = await found(runtimes, reference)
        inode = Path(f"/proc/{sleeping.pid}/ns/net").stat().st_ino
        assert there.sandbox.key == f"pid:{sleeping.pid}:{inode}"
        assert there.sandbox.netns_path == f"/proc/{sleeping.pid}/ns/net"
        assert await found(runtimes, reference) == there
        sleeping.kill()
        assert (await heard.wait_for(Died, within_s=SOON_S)).sandbox_key == there.sandbox.key
        assert await refused(runtimes, reference) == "container-not-found"  # a zombie still, and no network any more
    assert len(heard.events) == 1


async def test_a_process_that_is_not_there_is_not_found(runtimes: Runtimes) -> None:
    assert await refused(runtimes, "pid:4194305") == "container-not-found"


async def test_nothing_is_held_after_close(heard: Heard, netns: Callable[[str], NetworkNamespace]) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    runtimes = runtimes_of({"DOCKER_HOST": "unix:///run/no-engine"})
    await runtimes.open(heard)
    netns("blue")
    await found(runtimes, "netns:blue")
    with process("unshare", "--net") as sleeping:
        await found(runtimes, f"pid:{sleeping.pid}")
        await runtimes.close()
    assert set(Path("/proc/self/fd").iterdir()) == before
