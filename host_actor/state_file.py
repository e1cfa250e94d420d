"""The folded state of a host on its own disk, so that it starts, and attaches what it knows, with the bus away."""

from __future__ import annotations

import os
from pathlib import Path

import structlog

from .desired import Desired, Unreadable

log = structlog.get_logger()


class StateFile:
    """One file, replaced as a whole: it is the old state or the new one, whenever the machine stops."""

    def __init__(self, directory: Path, host: str) -> None:
        self._host = host
        self.path = directory / f"host-{host}.state"
        self.adopt_flag = directory / f"host-{host}.adopt-journal"

    def load(self) -> Desired:
        """What was saved last; nothing known where there is no file or none that can be read (which is logged)."""
        try:
            return Desired.load(self._host, self.path.read_bytes())
        except FileNotFoundError:
            log.info("state-absent", file=str(self.path))
        except Unreadable as fault:
            log.warning("state-unreadable", file=str(self.path), detail=str(fault))
        return Desired(self._host)

    def save(self, state: bytes) -> None:
        """`state` is on the disk, in place of what was there."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(state)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)

    def take_adopt_flag(self) -> bool:
        """Whether an operator has asked, once, that the journal be taken as it is now."""
        try:
            self.adopt_flag.unlink()
        except FileNotFoundError:
            return False
        return True
