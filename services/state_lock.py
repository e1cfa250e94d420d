"""One daemon for each state directory: a lock file with the pid of its owner, free when the owner has ended."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from .runtime.errors import Misconfigured

LOCK_FILE = "lock"


class AlreadyRunning(Exception):
    """Another daemon owns the directory; `pid` is its process, 0 when it has not said yet."""

    def __init__(self, directory: Path, pid: int) -> None:
        super().__init__(
            f"netplugin runs on {directory} already, with pid {pid}: end it (kill {pid}), "
            "or name another --state-dir and --run-dir"
        )
        self.pid = pid


class StateLock:
    """The exclusive use of a directory, from `acquire` to `release` or the end of the process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor = -1

    def acquire(self) -> None:
        """The directory exists and is ours alone. Raises: AlreadyRunning, Misconfigured (it cannot be made)."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._directory / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise Misconfigured(f"{self._directory} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise AlreadyRunning(self._directory, int(pid) if pid.isdigit() else 0) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """The directory is free for the next."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1
