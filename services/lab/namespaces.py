"""Namespaces by system calls: what enters or makes them is a thread of its own, and its children are born inside.

Of the thread itself the network, mount and host name namespaces change; a process namespace is its children's alone.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from .. import processes
from ..processes import Process
from ..runtime.errors import Unavailable
from .layout import LabHost

RUN = Path("/run")
# Process 1 of a host. It waits until it is known to whoever made it, and ends if that ends before; then it does nothing
# but reap: children of a process that ignores SIGCHLD leave no zombies.
INIT = (
    "mount -t proc proc /proc && echo made && read -r known && "
    "exec env --ignore-signal=CHLD sleep infinity </dev/null >/dev/null 2>&1"
)
# Starts a program in the background and says its pid. What a shell starts so ignores Ctrl-C, unless env gives it back.
START = 'output=$1 errors=$2; shift 2; env --default-signal=INT,QUIT "$@" </dev/null >"$output" 2>>"$errors" & echo $!'
PIDS = re.compile(r"^NSpid:.*\s(\d+)$", re.MULTILINE)  # from the outermost namespace to the process's own
_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWPID, _CLONE_NEWNET, _CLONE_FS = (
    0x00020000,
    0x04000000,
    0x20000000,
    0x40000000,
    0x00000200,
)
_MS_BIND, _MS_MOVE, _MS_REC, _MS_PRIVATE = 0x1000, 0x2000, 0x4000, 1 << 18
_ENTERED = (("net", _CLONE_NEWNET), ("uts", _CLONE_NEWUTS), ("pid", _CLONE_NEWPID), ("mnt", _CLONE_NEWNS))
_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


def make_init(host: LabHost) -> Process:
    """Process 1 of a host whose network namespace stands; `host.init_file` names it. Raises: Unavailable."""
    init = _in_thread(lambda: _start_init(host))
    with init.stdin as known, init.stdout as said, init.stderr as wrong:  # type: ignore[union-attr]  # all are pipes
        is_made = said.readline() == b"made\n"
        process = processes.look_up(init.pid)
        if not is_made or process is None:
            known.close()
            raise Unavailable(f"{host.name} did not start: {wrong.read().decode(errors='replace').strip()}")
        processes.write_pid_file(host.init_file, process)
        known.write(b"known\n")
    return process


def _start_init(host: LabHost) -> subprocess.Popen[bytes]:
    """Process 1, in namespaces of its own but for the network's, which is the host's. Its /proc is made by itself."""
    with host.namespace_path.open() as network:
        _call("setns", network.fileno(), _CLONE_NEWNET)
    _call("unshare", _CLONE_NEWNS | _CLONE_NEWUTS | _CLONE_NEWPID)
    _call("sethostname", host.name.encode(), len(host.name))
    _mount("none", Path("/"), flags=_MS_REC | _MS_PRIVATE)
    _make_run_private(host.directory, (host.lab.directory, Path(tempfile.gettempdir()), Path.cwd()))
    pipe = subprocess.PIPE
    return subprocess.Popen(
        ("/bin/sh", "-c", INIT), stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True, cwd="/"
    )


def start_inside(
    init: Process, arguments: Sequence[str], environment: Mapping[str, str], output: Path, errors: Path
) -> Process | None:
    """A process started inside the host whose process 1 is `init`; None when it has ended already.

    Its parent is that process 1: were it ours, the host could not end before we had reaped it. `output` is written
    anew, `errors` goes on.
    """
    words = ("/bin/sh", "-c", START, "sh", str(output), str(errors), *arguments)

    def start() -> subprocess.CompletedProcess[bytes]:
        _enter(init.pid)
        return subprocess.run(
            words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False, start_new_session=True
        )

    started = _in_thread(start)
    if started.returncode != 0:
        raise Unavailable(f"{words[0]} did not start: {started.stderr.decode(errors='replace').strip()}")
    outside = pids_inside(init).get(int(started.stdout))
    return processes.look_up(outside) if outside else None


def pids_inside(init: Process) -> dict[int, int]:
    """The processes of the host whose process 1 is `init`: pid there -> pid here."""
    namespace = Path("/proc", str(init.pid), "ns", "pid").readlink()
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            is_inside = (directory / "ns" / "pid").readlink() == namespace
            names = PIDS.search((directory / "status").read_text()) if is_inside else None
        except OSError:  # it has ended
            continue
        if names:
            found[int(names[1])] = int(directory.name)
    return found


def command_inside(init: Process, arguments: Sequence[str], folder: Path) -> tuple[str, ...]:
    """What to run to have `arguments` run inside, in `folder` where that is there."""
    enter = ("nsenter", f"--target={init.pid}", "--net", "--uts", "--pid", "--mount", "--")
    return (*enter, "/bin/sh", "-c", 'cd "$0" 2>/dev/null || cd /; exec "$@"', str(folder), *arguments)


def _enter(pid: int) -> None:
    """The calling thread is in the namespaces of `pid`, and so are its children."""
    descriptors = [(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY), kind) for name, kind in _ENTERED]
    try:
        _call("unshare", _CLONE_FS)
        for descriptor, kind in descriptors:
            _call("setns", descriptor, kind)
    finally:
        for descriptor, _ in descriptors:
            os.close(descriptor)


def _make_run_private(scratch: Path, kept: Iterable[Path]) -> None:
    """/run is empty but for those folders in it that are `kept`, as on a machine of its own."""
    draft = scratch / "new-run"
    draft.mkdir(exist_ok=True)
    _mount("tmpfs", draft, kind="tmpfs", data="mode=755")
    (draft / "netns").mkdir()
    (draft / "lock").mkdir()
    folders = sorted({path.resolve() for path in kept if path.resolve().is_relative_to(RUN)} - {RUN})
    for folder in folders:
        target = draft / folder.relative_to(RUN)
        if not any(folder.is_relative_to(outer) for outer in folders if outer != folder):
            target.mkdir(parents=True, exist_ok=True)
            _mount(str(folder), target, flags=_MS_BIND | _MS_REC)
    _mount(str(draft), RUN, flags=_MS_MOVE)


def _mount(source: str, target: Path, *, kind: str = "", flags: int = 0, data: str = "") -> None:
    _call("mount", source.encode(), bytes(target), kind.encode(), ctypes.c_ulong(flags), data.encode())


def _call(name: str, *arguments: object) -> None:
    """A function of libc that answers 0. Raises: OSError."""
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _in_thread(function: Callable[[], T]) -> T:
    """What `function` returns, called in a thread that ends with it: what it enters, nobody else is in."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(function).result()
