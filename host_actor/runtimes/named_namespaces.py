"""`netns:NAME`: a network namespace by the name that `ip netns` gave it.

One reader: the mount table (`kernel.MountChanges`). A name comes into being with a bind mount and goes with it, so both
ends of its life are seen at once, whether or not /run/netns exists yet. Only names that were asked for are looked at.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..drivers.contract import Sandbox
from .contract import Died, Found, NotFound, Resolution, RuntimeEvent, Started
from .kernel import MountChanges, identity_of, is_own_namespace

DIRECTORY = Path("/run/netns")  # iproute2's, compiled in
_NAME_LIMIT = 255  # of a file name, bytes
_ABSENT_LIMIT = 4096  # names asked for and not there; the oldest is forgotten


class NamedNamespaces:
    """What stands in /run/netns. Missing names are `NotFound`, and `Started` all the same when they come."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self._directory = directory
        self._on_event: Callable[[RuntimeEvent], None] = lambda _: None
        self._keys: dict[str, str] = {}  # name -> key as handed out; "" for one that was not there
        self._mounts: MountChanges | None = None

    async def open(self, on_event: Callable[[RuntimeEvent], None]) -> None:
        """Mounts are followed from here on."""
        self._on_event = on_event
        self._mounts = MountChanges(self._look_again)

    async def resolve(self, name: str) -> Resolution:
        """The network namespace mounted under `name`."""
        if not name or "/" in name or "\0" in name or name in (".", "..") or len(name.encode()) > _NAME_LIMIT:
            return NotFound("invalid-reference", f"container 'netns:{name}': expected one name in {self._directory}")
        identity = identity_of(str(self._directory / name))
        if identity is not None and is_own_namespace(identity):
            return NotFound(
                "container-uses-host-network",
                f"container 'netns:{name}': it is the host's own network, an endpoint needs another namespace",
            )
        key = _key(identity)
        self._now(name, key)
        if not key:
            self._forget_oldest_absent()
            return NotFound(
                "container-not-found", f"container 'netns:{name}': no network namespace at {self._directory / name}"
            )
        return Found(Sandbox(key, str(self._directory / name)), f"netns:{name}")

    async def close(self) -> None:
        """Mounts are not followed any more."""
        if self._mounts is not None:
            self._mounts.close()
            self._mounts = None

    def _look_again(self) -> None:
        for name in list(self._keys):
            self._now(name, _key(identity_of(str(self._directory / name))))

    def _now(self, name: str, key: str) -> None:
        """Tells what became of `name` since it was looked at last: first its end, then that it is there (again)."""
        before = self._keys.get(name, key)
        self._keys[name] = key
        if before and before != key:
            self._on_event(Died(before, f"the network namespace {name} was deleted"))
        if key and before != key:
            self._on_event(Started("netns", name))

    def _forget_oldest_absent(self) -> None:
        absent = [name for name, key in self._keys.items() if not key]
        if len(absent) > _ABSENT_LIMIT:
            del self._keys[absent[0]]


def _key(identity: os.stat_result | None) -> str:
    """`netns:<inode>:<birth>`; empty when there is none.

    The kernel gives the inode number of a deleted namespace to the next one made; the time tells the two apart.
    """
    return "" if identity is None else f"netns:{identity.st_ino}:{identity.st_ctime_ns}"
