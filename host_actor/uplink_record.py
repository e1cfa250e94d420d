"""What is known of an uplink that is being taken, or is taken, written down before anything is touched.

`STATE_DIR/uplinks/IF.json`, replaced as a whole and on the disk before `write` returns. Whoever changes an uplink (the
actor, the watchdog of one that died, `--clean`) holds the folder's lock; the kernel lets go of it when its holder ends.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from services.runtime.uplinks import Uplink

from .netlink_interface import InterfaceState

FOLDER = "uplinks"  # in the state directory
_LOCK_FILE = "lock"
_SO_NETNS_COOKIE = 71
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One uplink. `taking`: what is under way is undone unless it ends. `taken`: the bridge has what the card had."""

    attempt: str  # another one each time
    phase: Literal["taking", "taken"]
    network: str  # of which boot, and which network namespace: what another one had is no more
    uplink: str  # as it was asked for
    mac: str
    mtu_bytes: int
    database: str  # the socket of the switch's database
    offloads: dict[str, int]  # what the card did with packets before they are seen, where it was told to stop
    people_read: tuple[str, ...]  # the addresses
    bridge_index: int = 0  # the number of the bridge's interface, once it has what the card had: another one has not
    states: tuple[InterfaceState, ...]  # what is on the card, and what a bridge of ours had already

    @property
    def is_of_this_network(self) -> bool:
        """Whether the kernel still knows any of it."""
        return self.network == this_network()


def this_network() -> str:
    """Which boot of this machine this is, and which network namespace: no two ever have the same."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        cookie = struct.unpack("=Q", any_socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))[0]
    return f"{_BOOT_ID.read_text().strip()}/{cookie}"


class Records:
    """The records of one host."""

    def __init__(self, state_dir: Path) -> None:
        self.folder = state_dir / FOLDER

    def read(self, interface: str) -> Record | None:
        """What is written down of it; None for nothing, or for what cannot be read."""
        try:
            return msgspec.json.decode(self._file(interface).read_bytes(), type=Record)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def interfaces(self) -> list[str]:
        """All interfaces of which something is written down."""
        return sorted(path.stem for path in self.folder.glob("*.json"))

    def write(self, interface: str, record: Record) -> None:
        """The record is on the disk, in place of what was there."""
        file = self._file(interface)
        draft = file.with_suffix(".new")
        with draft.open("wb") as out:
            out.write(msgspec.json.encode(record))
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def forget(self, interface: str) -> None:
        """Nothing is written down of it."""
        self._file(interface).unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else changes an uplink of this host. Blocks: not to be used on the event loop."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / _LOCK_FILE).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _file(self, interface: str) -> Path:
        return self.folder / f"{interface}.json"


def uplink_of(record: Record) -> Uplink:
    """The uplink as it was asked for when it was taken."""
    return msgspec.json.decode(record.uplink, type=Uplink)
