"""A file system that is soon full."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(megabytes: int = 160) -> Iterator[Path]:
    """A file system of its own; it vanishes with the run's mount namespace at the latest."""
    disk = Path("/run/small-disk")
    disk.mkdir()
    status = os.spawnlp(os.P_WAIT, "mount", "mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(disk))
    assert status == 0
    yield disk
    assert os.spawnlp(os.P_WAIT, "umount", "umount", str(disk)) == 0
    disk.rmdir()


def fill(disk: Path, left_bytes: int) -> Path:
    """A file that leaves so much free."""
    filler = disk / "filler"
    free = os.statvfs(disk)
    with filler.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, free.f_bavail * free.f_frsize - left_bytes)
    return filler
