"""The soft switches that a host can have: one file and one line in `DRIVERS` each."""

from __future__ import annotations

from collections.abc import Callable

from services.runtime.config import Config

from .contract import Driver
from .memory import MemoryDriver


def _ovs(config: Config) -> Driver:
    from .ovs import OvsDriver  # noqa: PLC0415  (its libraries are loaded only where it is used)

    return OvsDriver.of(config)


# name -> the driver, made from the configuration and not yet open
DRIVERS: dict[str, Callable[[Config], Driver]] = {
    "ovs": _ovs,
    "memory": lambda _: MemoryDriver(),
}
