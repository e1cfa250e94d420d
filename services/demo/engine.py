"""A Docker engine of one's own, beside whatever runs on the host, that leaves nothing behind when it is stopped.

`make demo` and the tests use the same one. It needs root, the standard library and the Debian package docker.io.

- Everything it writes lies in one folder. What dockerd insists on having elsewhere (/run, /etc/docker, /opt/containerd)
  is covered in a mount namespace of its own, which vanishes with the last of its processes, and its mounts with it.
- Its network is the one of the caller, its containers are in control groups of their own.
- Its processes carry the folder in their environment (`ENGINE_MARK`), its containers' are in its control groups: so all
  of them are found and ended by pid, also by the next run after a crash.
"""

from __future__ import annotations

import hashlib
import io
import os
import select
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

ENGINE_MARK = "NETPLUGIN_ENGINE"
IMAGE = "netplugin-demo:latest"
_SOCKET_PATH_LIMIT = 107  # bytes, unix(7)
_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_STORAGE_DRIVERS = ("overlay2", "vfs")  # the second works on every file system

# Runs as: sh -c SCRIPT engine ROOT COMMAND... in a new mount namespace; ends as COMMAND.
_COVER = """
set -e
root=$1; shift
mkdir -p "$root/etc" "$root/tmp"
mount --bind /etc "$root/etc"
mount -t tmpfs -o mode=0755 engine /etc
ln -s "$root"/etc/* /etc/
rm -f /etc/docker
mkdir /etc/docker /etc/root
mount --rbind "$root" /etc/root
mount -t tmpfs -o mode=0755 engine /run
mkdir -p "$root"
mount --rbind /etc/root "$root"
if [ -d /opt ]; then mount -t tmpfs -o mode=0755 engine /opt; fi
exec "$@"
"""


class EngineFailed(Exception):
    """The engine cannot be started, or a `docker` command failed; the text says why."""


class Engine:
    """One dockerd with its containerd, in folder `root`. `start` and `stop` may alternate; `remove` ends it."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.socket = self.root / "docker.sock"
        self.log = self.root / "dockerd.log"
        self._dockerd: subprocess.Popen[bytes] | None = None
        self._group = f"netplugin-engine-{hashlib.sha256(bytes(self.root)).hexdigest()[:12]}"
        if len(bytes(self.socket)) > _SOCKET_PATH_LIMIT:
            raise EngineFailed(f"{self.socket}: longer than {_SOCKET_PATH_LIMIT} bytes, choose a shorter folder")

    def __enter__(self) -> Self:
        """The engine answers from here to the end of the block, after which nothing of it is left."""
        try:
            self.start()
        except BaseException:  # Ctrl-C too
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @property
    def url(self) -> str:
        """What `DOCKER_HOST` has to say."""
        return f"unix://{self.socket}"

    @property
    def environment(self) -> dict[str, str]:
        """What makes `docker` and netplugin use this engine: `DOCKER_HOST`, and a client configuration of its own."""
        return {"DOCKER_HOST": self.url, "DOCKER_CONFIG": str(self.root / "client")}

    def start(self, timeout_s: float = 60.0) -> None:
        """The engine answers. What an earlier one in this folder left running is ended first.

        Raises: `EngineFailed` with the end of its log.
        """
        for program in ("dockerd", "containerd", "docker", "unshare", "busybox"):
            if _which(program) is None:
                raise EngineFailed(
                    f"{program} is not installed (Debian packages docker.io, util-linux, busybox-static)"
                )
        self.stop()
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "dockerd.json").write_text("{}\n")
        deadline_s = time.monotonic() + timeout_s
        for driver in _STORAGE_DRIVERS:
            if self._start_with(driver, deadline_s):
                return
        raise EngineFailed(f"dockerd did not start; the end of {self.log}:\n{self._log_end()}")

    def stop(self) -> None:
        """No process, mount or control group of it is left; its folder stays. Containers get no time to say goodbye."""
        self._end_processes()
        if self._dockerd is not None:
            self._dockerd.wait()
            self._dockerd = None
        self._remove_control_groups()

    def remove(self) -> None:
        """Stopped, and its folder is gone too."""
        self.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def kill(self) -> None:
        """dockerd and its containerd are gone as in a crash; containers run on. `start` ends those."""
        assert self._dockerd is not None, "kill an engine that was started"
        self._dockerd.kill()
        self._dockerd.wait()
        self._dockerd = None

    def docker(self, *arguments: str, stdin: bytes | None = None) -> str:
        """What `docker ARGUMENTS` printed, without the last newline. Raises: `EngineFailed` with its complaint."""
        done = subprocess.run(
            ["docker", *arguments],
            input=stdin,
            env={**os.environ, **self.environment},
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            raise EngineFailed(f"docker {' '.join(arguments)}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout.decode(errors="replace").removesuffix("\n")

    def import_busybox(self, *tags: str) -> None:
        """An image of a shell and the usual small programs stands under `IMAGE` and each of `tags` (as in `ubuntu`)."""
        self.docker("import", "--change", 'CMD ["/bin/sh"]', "-", IMAGE, stdin=busybox_image())
        for tag in tags:
            self.docker("tag", IMAGE, tag)

    def _command(self, driver: str) -> Sequence[str]:
        root = self.root
        return [
            *("unshare", "--mount", "--propagation", "private", "sh", "-c", _COVER, "engine", str(root)),
            *("dockerd", f"--host={self.url}", f"--config-file={root}/dockerd.json"),
            *(f"--data-root={root}/images", "--exec-root=/run/docker", f"--pidfile={root}/dockerd.pid"),
            *("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"),
            *(
                f"--storage-driver={driver}",
                "--exec-opt=native.cgroupdriver=cgroupfs",
                f"--cgroup-parent=/{self._group}",
            ),
        ]

    def _start_with(self, driver: str, deadline_s: float) -> bool:
        """Whether dockerd took this storage driver and says (sd_notify(3)) that it is ready. Raises: `EngineFailed`."""
        notify = self.root / "ready.sock"
        for stale in (self.socket, notify, self.root / "dockerd.pid"):
            stale.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, self.log.open("ab") as log:
            ready.bind(str(notify))
            environment = {
                **os.environ,
                "NOTIFY_SOCKET": str(notify),
                ENGINE_MARK: str(self.root),
                "HOME": str(self.root),
            }
            environment |= {"PATH": _path(), "TMPDIR": str(self.root / "tmp")}
            self._dockerd = subprocess.Popen(
                self._command(driver), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            pidfd = os.pidfd_open(self._dockerd.pid)
            try:
                return self._is_ready(ready, pidfd, deadline_s)
            finally:
                os.close(pidfd)
                notify.unlink()

    def _is_ready(self, ready: socket.socket, pidfd: int, deadline_s: float) -> bool:
        while True:
            waited_for: list[socket.socket | int] = [ready, pidfd]
            readable, _, _ = select.select(waited_for, [], [], max(0.0, deadline_s - time.monotonic()))
            if ready in readable and b"READY=1" in ready.recv(4096):
                return True
            if pidfd in readable:
                self.stop()
                return False
            if not readable:
                self.stop()
                raise EngineFailed(f"dockerd was not ready in time; the end of {self.log}:\n{self._log_end()}")

    def _log_end(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-8:]) if self.log.exists() else "(no log)"

    def _end_processes(self) -> None:
        """All are killed and gone. Others may just have been born meanwhile: it looks until it finds none."""
        while pids := set(self._pids()):
            pidfds = list(filter(None, map(_kill, pids)))
            for pidfd in pidfds:
                select.select([pidfd], [], [])
                os.close(pidfd)
            if self._dockerd is not None:
                self._dockerd.poll()

    def _pids(self) -> Iterator[int]:
        mark = f"{ENGINE_MARK}={self.root}".encode()
        for process in Path("/proc").glob("[1-9]*"):
            with suppress(OSError):  # it ended meanwhile
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    yield int(process.name)
        for group in self._control_groups():
            with suppress(OSError):
                yield from map(int, (group / "cgroup.procs").read_text().split())

    def _control_groups(self) -> Iterator[Path]:
        """Ours, the inner ones first: one tree for each controller (version 1), or one (version 2)."""
        for top in (*_CONTROL_GROUPS.glob(f"*/{self._group}"), _CONTROL_GROUPS / self._group):
            for folder, _, _ in os.walk(top, topdown=False):
                yield Path(folder)

    def _remove_control_groups(self) -> None:
        for group in self._control_groups():
            group.rmdir()


def busybox_image() -> bytes:
    """A root file system as a tar archive: busybox, a link for each of its programs, and its shell as /bin/bash."""
    busybox = _which("busybox")
    if busybox is None:
        raise EngineFailed("busybox is not installed (Debian package busybox-static)")
    programs = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for folder in ("bin", "etc", "root", "tmp"):
            _add(archive, folder, tarfile.DIRTYPE)
        _add(archive, "bin/busybox", tarfile.REGTYPE, Path(busybox).read_bytes())
        for program in sorted(set(programs) - {"busybox", "bash"}):
            _add(archive, f"bin/{program}", tarfile.SYMTYPE, b"busybox")
        _add(archive, "bin/bash", tarfile.REGTYPE, b'#!/bin/busybox sh\nexec /bin/busybox sh "$@"\n')
        _add(archive, "etc/passwd", tarfile.REGTYPE, b"root:x:0:0:root:/root:/bin/sh\n")
        _add(archive, "etc/group", tarfile.REGTYPE, b"root:x:0:\n")
    return packed.getvalue()


def _add(archive: tarfile.TarFile, name: str, kind: bytes, content: bytes = b"") -> None:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.mode = 0o755
    if kind == tarfile.SYMTYPE:
        member.linkname = content.decode()
        archive.addfile(member)
        return
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _kill(pid: int) -> int | None:
    """A pidfd of the killed process, readable once it has ended; None when it is gone already."""
    try:
        pidfd = os.pidfd_open(pid)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return None
    return pidfd


def _path() -> str:
    """Where daemons live is often not in a person's PATH."""
    return os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))


def _which(program: str) -> str | None:
    return shutil.which(program, path=_path())
