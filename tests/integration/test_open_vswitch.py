"""Our own Open vSwitch: found, started, adopted, started again after a death, ended. All with the real programs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from services import open_vswitch as subject
from services import processes
from services.open_vswitch import DATABASE, PRIORITY, SWITCH, OpenVSwitch
from services.runtime.errors import Misconfigured
from tests.harness.netns import NetworkNamespace, links
from tests.harness.openvswitch import RunningSwitch, running_switch
from tests.requires import needs_ovs

pytestmark = [pytest.mark.anyio, needs_ovs]


def add_bridge(switch: RunningSwitch) -> None:
    switch.run("ovs-vsctl", "add-br", "vlanBr", "--", "set", "bridge", "vlanBr", "datapath_type=netdev")


def test_it_serves_when_start_returns(open_vswitch: RunningSwitch) -> None:
    add_bridge(open_vswitch)
    assert "vlanBr" in open_vswitch.run("ovs-vsctl", "show")
    assert open_vswitch.management_socket().exists()
    settings = open_vswitch.run("ovs-vsctl", "get", "Open_vSwitch", ".", "other_config")
    assert 'n-handler-threads="1"' in settings
    assert 'n-revalidator-threads="1"' in settings


def test_it_lives_in_a_session_of_its_own_with_no_parent_of_ours(open_vswitch: RunningSwitch) -> None:
    for program in (DATABASE, SWITCH):
        pid = open_vswitch.pid(program)
        assert os.getsid(pid) != os.getsid(0)
        assert f"PPid:\t{os.getpid()}" not in Path(f"/proc/{pid}/status").read_text()


def test_ovs_vsctl_as_anybody_types_it_finds_ours_until_it_has_ended(short_path: Path) -> None:
    with running_switch(short_path) as switch:
        assert subject.SYSTEM_RUN_DIR.resolve() == switch.run_dir.resolve()
        assert subject.find_running(None) == switch.run_dir.resolve()
    assert not subject.SYSTEM_RUN_DIR.is_symlink()
    assert subject.find_running(None) is None


def test_it_is_found_where_a_stopped_one_has_left_its_folder(short_path: Path) -> None:
    subject.SYSTEM_RUN_DIR.mkdir()
    try:
        with running_switch(short_path) as switch:
            add_bridge(switch)
            shown = subprocess.run(["ovs-vsctl", "list-br"], capture_output=True, text=True, check=True).stdout
            assert shown == "vlanBr\n"
        assert list(subject.SYSTEM_RUN_DIR.iterdir()) == []
    finally:
        subject.SYSTEM_RUN_DIR.rmdir()


def test_forwarding_goes_before_everybody_s_work(open_vswitch: RunningSwitch) -> None:
    for program in (DATABASE, SWITCH):
        assert os.getpriority(os.PRIO_PROCESS, open_vswitch.pid(program)) == PRIORITY


def test_a_second_start_adopts_what_runs(open_vswitch: RunningSwitch) -> None:
    before = {program: open_vswitch.pid(program) for program in (DATABASE, SWITCH)}
    open_vswitch.start()
    assert {program: open_vswitch.pid(program) for program in (DATABASE, SWITCH)} == before


def test_bridges_survive_an_end_and_a_start(open_vswitch: RunningSwitch) -> None:
    add_bridge(open_vswitch)
    open_vswitch.end()
    assert links() == {"lo"}
    open_vswitch.start()
    assert "vlanBr" in open_vswitch.run("ovs-vsctl", "list-br")


async def kill_and_come_back(switch: RunningSwitch, program: str) -> None:
    """`program` is killed while it is kept; returns when it has been started again."""
    is_back = asyncio.Event()

    def watch(_logger: object, _method: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if entry["event"] == "open-vswitch-started":
            is_back.set()
        return entry

    with capture_logs(processors=[watch]):
        keeper = asyncio.create_task(switch.switch.keep())
        os.kill(switch.pid(program), signal.SIGKILL)
        await asyncio.wait_for(is_back.wait(), 20)
        keeper.cancel()
        await asyncio.wait([keeper])


async def test_a_killed_vswitchd_is_started_again(open_vswitch: RunningSwitch) -> None:
    add_bridge(open_vswitch)
    database, switch = open_vswitch.pid(DATABASE), open_vswitch.pid(SWITCH)
    await kill_and_come_back(open_vswitch, SWITCH)
    assert open_vswitch.pid(DATABASE) == database
    assert open_vswitch.pid(SWITCH) != switch
    assert "vlanBr" in open_vswitch.run("ovs-vsctl", "list-br")


async def test_a_killed_ovsdb_server_takes_vswitchd_with_it_and_both_come_back(open_vswitch: RunningSwitch) -> None:
    add_bridge(open_vswitch)
    database, switch = open_vswitch.pid(DATABASE), open_vswitch.pid(SWITCH)
    await kill_and_come_back(open_vswitch, DATABASE)
    assert open_vswitch.pid(DATABASE) != database
    assert open_vswitch.pid(SWITCH) != switch
    assert "vlanBr" in open_vswitch.run("ovs-vsctl", "list-br")


def test_pid_files_of_the_dead_and_of_others_are_no_sign_of_life(open_vswitch: RunningSwitch) -> None:
    open_vswitch.end()
    (open_vswitch.run_dir / f"{DATABASE}.pid").write_text(f"{os.getpid()}\n")
    (open_vswitch.run_dir / f"{SWITCH}.pid").write_text("4194000\n")
    assert open_vswitch.switch.running(DATABASE) is None
    assert open_vswitch.switch.running(SWITCH) is None
    open_vswitch.start()
    assert open_vswitch.pid(DATABASE) != os.getpid()


def test_one_in_another_network_namespace_is_not_taken_for_this_host_s(
    short_path: Path, netns: Callable[[str], NetworkNamespace]
) -> None:
    other = netns("other")
    with running_switch(short_path, other):
        assert subject.find_running(None) is None
        assert other.call(lambda: subject.find_running(None)) is not None


def test_one_that_is_named_must_answer(short_path: Path) -> None:
    with pytest.raises(Misconfigured, match="nobody answers"):
        subject.find_running(short_path)


def test_a_run_dir_too_long_for_a_socket_is_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="shorter --run-dir"):
        asyncio.run(OpenVSwitch(tmp_path, tmp_path / ("x" * 90)).start())


def test_a_program_that_is_missing_is_named_with_what_to_install() -> None:
    with pytest.raises(Misconfigured, match="openvswitch-switch"):
        subject.find_program("ovs-nothing")


def test_processes_are_told_apart_by_their_start(open_vswitch: RunningSwitch) -> None:
    alive = processes.look_up(open_vswitch.pid())
    assert alive is not None
    assert processes.is_alive(alive)
    assert not processes.is_alive(processes.Process(alive.pid, alive.started_ticks - 1))
