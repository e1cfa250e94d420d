"""The Open vSwitch of this host: one that runs already is used, else ours is started, detached, and kept running.

Ours outlives the daemon, stopped or killed: traffic goes on, and the next daemon finds it by its pid files. Only `end`
(`netplugin --clean`) ends it.

    RUN_DIR/ovs/    db.sock, <bridge>.mgmt, pid files, control sockets       STATE_DIR/ovs/    conf.db, logs

`keep` is the one task: it waits on pidfds of both processes and starts again what has ended. A dead ovsdb-server takes
ovs-vswitchd with it: without its database the user-space data path stands still and comes back slowly, by back-off.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from pathlib import Path

import structlog

from . import processes
from .runtime.errors import Misconfigured, Unavailable
from .supervisor import Backoff

DATABASE = "ovsdb-server"
SWITCH = "ovs-vswitchd"
TOOL = "ovsdb-tool"
SYSTEM_RUN_DIR = Path("/run/openvswitch")
SCHEMA = "openvswitch/vswitch.ovsschema"
SHARED_DIRS = (Path("/usr/share"), Path("/usr/local/share"))
PROGRAM_DIRS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
SOCKET_PATH_LENGTH_MAX = 107  # sockaddr_un less its NUL
LONGEST_SOCKET_NAME = "ovs-vswitchd.4194304.ctl"
# Forwarding in user space is a process's work: it goes before everybody's. Source: ovs-ctl(8), whose default this is.
PRIORITY = -10
START_WITHIN_S = 30.0
END_GRACE_S = 2.0

# The first row of a new database. One thread each: the data path in user space forwards on the main thread.
FIRST_ROW = (
    '["Open_vSwitch", {"op": "insert", "table": "Open_vSwitch", "row": {"other_config": '
    '["map", [["n-handler-threads", "1"], ["n-revalidator-threads", "1"]]]}}]'
)

log = structlog.get_logger()


def find_running(named: Path | None) -> Path | None:
    """The run directory of an Open vSwitch that serves this network namespace; None when there is none.

    Raises: Misconfigured when the one that OVS_RUNDIR names does not answer.
    """
    if named is not None:
        if not _answers(named / "db.sock"):
            raise Misconfigured(
                f"OVS_RUNDIR is {named}, but nobody answers at {named}/db.sock: start it, or unset OVS_RUNDIR"
            )
        return named
    if _answers(SYSTEM_RUN_DIR / "db.sock") and _is_in_this_network_namespace(SYSTEM_RUN_DIR):
        return SYSTEM_RUN_DIR.resolve()
    return None


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            return False
        return True


def _is_in_this_network_namespace(run_dir: Path) -> bool:
    """Whether the ovs-vswitchd with its pid file there lives in our network namespace, so that it can see our links."""
    try:
        pid = int((run_dir / f"{SWITCH}.pid").read_text())
        return Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/thread-self/ns/net").readlink()
    except (OSError, ValueError):
        return False


class OpenVSwitch:
    """Our own Open vSwitch, in our own directories."""

    def __init__(self, state_dir: Path, run_dir: Path) -> None:
        self.run_dir = run_dir / "ovs"
        self._state_dir = state_dir / "ovs"
        self._backoff = Backoff()

    @property
    def _file(self) -> Path:
        return self._state_dir / "conf.db"

    @property
    def _socket(self) -> Path:
        return self.run_dir / "db.sock"

    def exists(self) -> bool:
        """Whether it was ever started here, running or not."""
        return self._file.exists()

    def running(self, program: str) -> processes.Process | None:
        """Our `ovsdb-server` or `ovs-vswitchd`, when it runs."""
        try:
            process = processes.look_up(int((self.run_dir / f"{program}.pid").read_text()))
        except (FileNotFoundError, ValueError):
            return None
        if process is None:
            return None
        words = processes.command_line(process)
        is_ours = bool(words) and Path(words[0]).name == program and any(str(self._socket) in word for word in words)
        return process if is_ours else None

    async def start(self) -> None:
        """Both processes run and serve; what runs already is left as it is.

        Raises: Misconfigured when it is not installed or our path is too long, Unavailable when it will not start.
        """
        self._check()
        self.run_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._state_dir.mkdir(parents=True, exist_ok=True)
        if self.running(DATABASE) is None:
            await asyncio.gather(self._end(SWITCH), self._start_database())
        if self.running(SWITCH) is None:
            await self._start_switch()
        self._make_findable()

    async def keep(self) -> None:
        """Starts again what ends, for ever. Call after `start`."""
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            which = await self._first_end()
            pause_s = self._backoff.after_death(loop.time(), loop.time() - began_s)
            log.warning("open-vswitch-ended", process=which, again_in_s=pause_s)
            if self._backoff.is_looping:
                log.error("crash-loop", child=which, advice=f"its log is in {self._state_dir}")
            await asyncio.sleep(pause_s)
            try:
                await self.start()
            except Unavailable as error:
                log.error("open-vswitch-not-started", detail=error.detail)  # noqa: TRY400  (its own words say it)
            else:
                log.info("open-vswitch-started", pid=getattr(self.running(SWITCH), "pid", None))

    async def end(self) -> None:
        """Neither process runs, and their bridges and taps are gone with them."""
        if (switch := self.running(SWITCH)) is not None:
            with contextlib.suppress(Unavailable):
                await self._run(
                    "ovs-appctl", "--target", str(self.run_dir / f"{SWITCH}.{switch.pid}.ctl"), "exit", "--cleanup"
                )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(processes.ended(switch), END_GRACE_S)
        await self._end(SWITCH)
        await self._end(DATABASE)
        self._forget_findable()

    def _check(self) -> None:
        for program in (DATABASE, SWITCH, TOOL):
            find_program(program)
        longest = self.run_dir / LONGEST_SOCKET_NAME
        if len(os.fsencode(longest)) > SOCKET_PATH_LENGTH_MAX:
            raise Misconfigured(
                f"{longest} has {len(os.fsencode(longest))} bytes, a socket's path at most {SOCKET_PATH_LENGTH_MAX}: "
                "choose a shorter --run-dir"
            )

    async def _first_end(self) -> str:
        """The program that has ended first; returns at once when one does not run."""
        running = {program: self.running(program) for program in (DATABASE, SWITCH)}
        if missing := [program for program, process in running.items() if process is None]:
            return missing[0]
        waits = {
            asyncio.create_task(processes.ended(process), name=f"end of {program}"): program
            for program, process in running.items()
            if process is not None
        }
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return waits[done.pop()]
        finally:
            for wait in waits:
                wait.cancel()

    async def _start_database(self) -> None:
        await self._prepare_file()
        remote = f"--remote=punix:{self._socket}"
        await self._run(DATABASE, str(self._file), remote, *self._daemon_options(DATABASE))

    async def _prepare_file(self) -> None:
        """The database file exists, whole, in the installed version's schema."""
        schema = find_schema()
        if not self._file.exists():
            draft = self._file.with_suffix(".new")
            draft.unlink(missing_ok=True)
            await self._run(TOOL, "create", str(draft), str(schema))
            await self._run(TOOL, "transact", str(draft), FIRST_ROW)
            draft.replace(self._file)
        elif (await self._run(TOOL, "needs-conversion", str(self._file), str(schema))).strip() == "yes":
            await self._run(TOOL, "convert", str(self._file), str(schema))

    async def _start_switch(self) -> None:
        await self._run(SWITCH, f"unix:{self._socket}", *self._daemon_options(SWITCH))

    def _daemon_options(self, program: str) -> tuple[str, ...]:
        # --detach: it returns when the daemon serves, whose parent is then process 1.
        log_file = f"--log-file={self._state_dir / program}.log"
        return ("--detach", "--no-chdir", "--pidfile", log_file, "-vfile:warn", "-vsyslog:off", "-vconsole:off")

    async def _end(self, program: str) -> None:
        if (process := self.running(program)) is not None:
            await processes.end(process, END_GRACE_S)

    async def _run(self, program: str, *arguments: str) -> str:
        """What a program of Open vSwitch has printed. Raises: Unavailable with its own words when it fails."""
        child = await asyncio.create_subprocess_exec(
            *(("nice", "-n", str(PRIORITY)) if program in (DATABASE, SWITCH) else ()),
            find_program(program),
            *arguments,
            env=self._environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(START_WITHIN_S):
                output, errors = await child.communicate()
        except TimeoutError:
            raise Unavailable(f"{program} did not finish within {START_WITHIN_S:g} s") from None
        finally:
            if child.returncode is None:  # too slow, or we are being stopped
                child.kill()
                await child.communicate()
        if child.returncode != 0:
            raise Unavailable(
                f"{program} failed with status {child.returncode}: {errors.decode(errors='replace').strip()}"
            )
        return output.decode()

    def _environment(self) -> dict[str, str]:
        directory = str(self.run_dir)
        ours = dict.fromkeys(("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"), directory)
        return {"PATH": _search_path(), **ours}

    def _make_findable(self) -> None:
        """`ovs-vsctl show` as anybody types it finds ours, where no other Open vSwitch has that place."""
        with contextlib.suppress(FileExistsError, PermissionError):
            if SYSTEM_RUN_DIR.is_dir() and not SYSTEM_RUN_DIR.is_symlink():  # left by one that was stopped
                (SYSTEM_RUN_DIR / "db.sock").symlink_to(self._socket)
            else:
                SYSTEM_RUN_DIR.symlink_to(self.run_dir)

    def _forget_findable(self) -> None:
        for link, target in ((SYSTEM_RUN_DIR, self.run_dir), (SYSTEM_RUN_DIR / "db.sock", self._socket)):
            if link.is_symlink() and link.readlink() == target:
                link.unlink()


def find_program(name: str) -> str:
    """The path of a program of Open vSwitch. Raises: Misconfigured, saying what to install."""
    if found := shutil.which(name, path=_search_path()):
        return found
    raise Misconfigured(
        f"no Open vSwitch runs here and {name} is not installed: apt-get install openvswitch-switch "
        "(elsewhere the package is openvswitch), or start the one that OVS_RUNDIR names"
    )


def find_schema() -> Path:
    """The database's schema of the installed version. Raises: Misconfigured."""
    for directory in SHARED_DIRS:
        if (directory / SCHEMA).is_file():
            return directory / SCHEMA
    places = ", ".join(str(directory / SCHEMA) for directory in SHARED_DIRS)
    raise Misconfigured(
        f"the schema of Open vSwitch is missing, expected one of {places}: reinstall openvswitch-switch"
    )


def _search_path() -> str:
    return os.pathsep.join((os.environ.get("PATH", os.defpath), *PROGRAM_DIRS))
