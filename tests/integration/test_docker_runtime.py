"""Docker containers by name and id, with a real engine of the test's own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from host_actor.runtimes import runtimes_of
from host_actor.runtimes.contract import Died, Found, NotFound, Resolution, Resync, Started, Waiting
from host_actor.runtimes.dispatch import Runtimes
from services.demo.engine import Engine, EngineFailed
from services.demo.terminal import Terminal
from tests.harness.dockerd import container_pid, running_engine, start_container
from tests.harness.heard import Heard
from tests.requires import needs_docker

pytestmark = [pytest.mark.anyio, needs_docker]

SOON_S = 30.0  # told by the kernel or the engine, within milliseconds where the machine has time


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine() as running:
        yield running


@pytest.fixture(autouse=True)
def no_containers(engine: Engine) -> Iterator[None]:
    yield
    if containers := engine.docker("ps", "-aq").split():
        engine.docker("rm", "-f", *containers)


@pytest.fixture
async def heard() -> Heard:
    return Heard()


@pytest.fixture
async def runtimes(heard: Heard, engine: Engine) -> AsyncIterator[Runtimes]:
    opened = runtimes_of(engine.environment)
    await opened.open(heard)
    await heard.wait_for(Resync)
    yield opened
    await opened.close()


async def found(runtimes: Runtimes, reference: str) -> Found:
    resolution = await runtimes.resolve(reference)
    assert isinstance(resolution, Found), resolution
    return resolution


def waits(resolution: Resolution, code: str) -> str:
    assert isinstance(resolution, Waiting), resolution
    assert resolution.code == code
    return resolution.detail


async def test_a_running_container_is_found_by_each_of_its_names(runtimes: Runtimes, engine: Engine) -> None:
    full_id = start_container(engine, "myContainer1")
    pid = container_pid(engine, "myContainer1")
    by_name = await found(runtimes, "myContainer1")
    assert by_name.name == "myContainer1"
    assert by_name.sandbox.key == f"docker:{full_id[:12]}:{pid}"
    assert by_name.sandbox.netns_path == f"/proc/{pid}/ns/net"
    for reference in ("/myContainer1", "docker:myContainer1", full_id, full_id[:12], full_id[:20]):
        assert await found(runtimes, reference) == by_name


async def test_a_name_is_not_taken_for_the_beginning_of_an_id(runtimes: Runtimes, engine: Engine) -> None:
    full_id = start_container(engine, "web")
    assert "12 characters" in waits(await runtimes.resolve(full_id[:11]), "container-absent")
    assert waits(await runtimes.resolve("we"), "container-absent")
    engine.docker("run", "-d", "--name", full_id[:8], "ubuntu", "sleep", "60")
    assert (await found(runtimes, full_id[:8])).name == full_id[:8]


async def test_an_ambiguous_beginning_of_ids_is_not_an_error_of_the_engine(runtimes: Runtimes, engine: Engine) -> None:
    ids = [engine.docker("create", "ubuntu", "true") for _ in range(17)]  # two of them begin with the same digit
    shared = next(one[0] for one in ids if sum(other[0] == one[0] for other in ids) > 1)
    waits(await runtimes.resolve(shared), "container-absent")


async def test_a_container_that_comes_later_is_told_and_found(runtimes: Runtimes, heard: Heard, engine: Engine) -> None:
    assert waits(await runtimes.resolve("late"), "container-absent")
    full_id = engine.docker("create", "--name", "late", "ubuntu", "sleep", "60")
    assert "docker start late" in waits(await runtimes.resolve("late"), "container-not-started")
    engine.docker("start", "late")
    await heard.wait_until(Started("docker", "late", full_id), within_s=SOON_S)
    await found(runtimes, "late")


async def test_an_end_is_told_once_and_a_new_start_is_another_sandbox(
    runtimes: Runtimes, heard: Heard, engine: Engine
) -> None:
    full_id = start_container(engine, "web")
    await heard.wait_until(Started("docker", "web", full_id), within_s=SOON_S)
    first = await found(runtimes, "web")
    await found(runtimes, "web")
    os.kill(container_pid(engine, "web"), signal.SIGKILL)
    died = await heard.wait_for(Died, within_s=SOON_S)
    assert died.sandbox_key == first.sandbox.key
    waits(await runtimes.resolve("web"), "container-not-running")  # whether or not the engine knows already

    engine.docker("wait", "web")
    assert "exit code 137" in waits(await runtimes.resolve("web"), "container-not-running")
    heard.events.remove(Started("docker", "web", full_id))
    engine.docker("start", "web")
    await heard.wait_until(Started("docker", "web", full_id), within_s=SOON_S)
    second = await found(runtimes, "web")
    assert second.sandbox.key != first.sandbox.key
    assert [event.sandbox_key for event in heard.of(Died)] == [first.sandbox.key]


async def test_a_removed_container_is_absent(runtimes: Runtimes, heard: Heard, engine: Engine) -> None:
    start_container(engine, "web")
    await found(runtimes, "web")
    engine.docker("rm", "-f", "web")
    await heard.wait_for(Died, within_s=SOON_S)
    waits(await runtimes.resolve("web"), "container-absent")


async def test_a_paused_container_is_found(runtimes: Runtimes, engine: Engine) -> None:
    start_container(engine, "web")
    engine.docker("pause", "web")
    await found(runtimes, "web")
    engine.docker("unpause", "web")


async def test_a_container_renamed_into_a_name_is_told(runtimes: Runtimes, heard: Heard, engine: Engine) -> None:
    full_id = start_container(engine, "old")
    waits(await runtimes.resolve("new"), "container-absent")
    engine.docker("rename", "old", "new")
    await heard.wait_until(Started("docker", "new", full_id), within_s=SOON_S)
    assert (await found(runtimes, "new")).name == "new"
    waits(await runtimes.resolve("old"), "container-absent")


async def test_a_container_in_the_network_of_the_host_is_refused(runtimes: Runtimes, engine: Engine) -> None:
    start_container(engine, "bare", "--network", "host")
    resolution = await runtimes.resolve("bare")
    assert isinstance(resolution, NotFound)
    assert resolution.code == "container-uses-host-network"


async def test_a_container_that_could_not_start_says_why(runtimes: Runtimes, engine: Engine) -> None:
    with suppress(EngineFailed):
        engine.docker("run", "-d", "--name", "broken", "ubuntu", "no-such-program")
    assert "no-such-program" in waits(await runtimes.resolve("broken"), "container-not-started")


async def test_many_are_asked_for_at_once(runtimes: Runtimes, engine: Engine) -> None:
    start_container(engine, "web")
    resolutions = await asyncio.gather(*(runtimes.resolve("web") for _ in range(32)))
    assert len(set(resolutions)) == 1


async def test_an_engine_that_crashed_and_came_back_is_followed_again(
    runtimes: Runtimes, heard: Heard, engine: Engine
) -> None:
    start_container(engine, "web")
    there = await found(runtimes, "web")
    engine.kill()
    waits(await runtimes.resolve("web"), "engine-away")
    assert heard.of(Died) == []  # its containers run on
    engine.start()  # which ends what the crashed one left
    assert (await heard.wait_for(Died)).sandbox_key == there.sandbox.key
    assert (await heard.wait_for(Resync, 2)).runtime == "docker"
    waits(await runtimes.resolve("web"), "container-not-running")
    engine.docker("start", "web")
    await heard.wait_for(Started, 2, within_s=SOON_S)
    await found(runtimes, "web")


async def test_an_end_is_told_with_the_engine_away(runtimes: Runtimes, heard: Heard, engine: Engine) -> None:
    start_container(engine, "web")
    there = await found(runtimes, "web")
    pid = container_pid(engine, "web")
    engine.kill()
    os.kill(pid, signal.SIGKILL)
    assert (await heard.wait_for(Died, within_s=SOON_S)).sandbox_key == there.sandbox.key
    engine.start()


async def test_an_engine_that_appears_is_noticed(heard: Heard, short_path: Path) -> None:
    late = Engine(short_path / "e")
    runtimes = runtimes_of(late.environment)
    await runtimes.open(heard)
    waits(await runtimes.resolve("web"), "engine-away")
    with late:
        await heard.wait_for(Resync, within_s=SOON_S)
        waits(await runtimes.resolve("web"), "container-absent")
    waits(await runtimes.resolve("web"), "engine-away")
    await runtimes.close()


async def test_a_container_started_at_a_terminal_is_found_until_its_shell_ends(
    runtimes: Runtimes, heard: Heard, engine: Engine
) -> None:
    command = "docker run -it --name=myContainer1 --hostname=myContainer1 ubuntu /bin/bash"
    with Terminal(command, engine.environment) as terminal:
        terminal.wait_for("/ # ")
        there = await found(runtimes, "myContainer1")
        terminal.type("hostname")
        assert "myContainer1" in terminal.wait_for("/ # ").splitlines()
        terminal.type("exit 7")
        assert terminal.wait() == 7
    assert (await heard.wait_for(Died, within_s=SOON_S)).sandbox_key == there.sandbox.key
    assert "exit code 7" in waits(await runtimes.resolve("myContainer1"), "container-not-running")


def test_the_engine_leaves_nothing_behind(short_path: Path) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    with Engine(short_path / "e") as engine:
        engine.import_busybox("ubuntu")
        start_container(engine, "web")
        assert engine.docker("exec", "web", "/bin/bash", "-c", "hostname") == "web"
        groups = set(engine._control_groups())
        assert groups
        engine.kill()  # even after a crash
    assert set(engine._pids()) == set()
    assert not any(group.exists() for group in groups)
    assert not engine.root.exists()
    assert Path("/proc/self/mountinfo").read_text() == mounts
