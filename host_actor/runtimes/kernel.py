"""What the kernel says about network namespaces and processes: identities, ends, mount changes. Never forks."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import resource
import select
from collections.abc import Callable
from pathlib import Path

import structlog

log = structlog.get_logger()

_NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)
_CLONE_NEWNET = 0x40000000
_KEPT_FREE = 64  # file descriptors


def identity_of(path: str) -> os.stat_result | None:
    """The inode of the network namespace at `path`; None when there is none, or none that we may look into."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return os.fstat(fd) if fcntl.ioctl(fd, _NS_GET_NSTYPE) == _CLONE_NEWNET else None
    except OSError:
        return None  # ENOTTY: not a namespace at all
    finally:
        os.close(fd)


def is_own_namespace(found: os.stat_result) -> bool:
    """Whether this is the network namespace that the switch itself lives in: no container's."""
    own = Path("/proc/self/ns/net").stat()
    return (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino)


class ProcessEnds:
    """Calls back when a followed process has ended: at once, by its pidfd, never for another with its number."""

    def __init__(self, on_end: Callable[[str], None]) -> None:
        self._on_end = on_end
        self._pidfds: dict[str, int] = {}

    def follow(self, key: str, pid: int) -> bool:
        """Whether `pid` lives and its end will be told, once, with `key`. Following a key again changes nothing.

        When file descriptors run out nobody is followed, and that is logged: the device that vanishes with the
        namespace still tells the switch's driver. Some are kept free, for namespaces could not be looked into without.
        """
        if key in self._pidfds:
            return True
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            return self._leave_unfollowed(key, pid)
        if pidfd >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _KEPT_FREE:
            os.close(pidfd)
            return self._leave_unfollowed(key, pid)
        self._pidfds[key] = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._end, key)
        return True

    def _leave_unfollowed(self, key: str, pid: int) -> bool:
        log.warning("process-not-followed", key=key, pid=pid, reason="out of file descriptors", kept_free=_KEPT_FREE)
        return True

    def close(self) -> None:
        """No process is followed any more."""
        for key in list(self._pidfds):
            self._release(key)

    def _end(self, key: str) -> None:
        self._release(key)
        self._on_end(key)

    def _release(self, key: str) -> None:
        pidfd = self._pidfds.pop(key)
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)


class MountChanges:
    """Calls back when something was (un)mounted where this process can see it: so do named namespaces come and go.

    Source: proc(5), /proc/pid/mountinfo: poll reports POLLPRI when the mounts change. It also reports POLLIN all the
    time, so the file sits in an epoll of its own that asks for POLLPRI alone, and the event loop waits for that one.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._mountinfo = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._mountinfo, select.EPOLLPRI)
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._changed)

    def _changed(self) -> None:
        self._epoll.poll(0)
        self._on_change()

    def close(self) -> None:
        """Mounts are not followed any more."""
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self._epoll.close()
        os.close(self._mountinfo)
