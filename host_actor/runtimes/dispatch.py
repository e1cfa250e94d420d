"""One door to all runtimes: the host actor asks here with a reference as a person wrote it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from .contract import NotFound, Resolution, Runtime, RuntimeEvent
from .reference import Reference


class Runtimes:
    """Every registered runtime, opened and closed together."""

    def __init__(self, runtimes: Mapping[str, Runtime]) -> None:
        self._runtimes = MappingProxyType(dict(runtimes))

    async def open(self, on_event: Callable[[RuntimeEvent], None]) -> None:
        """All runtimes report to `on_event`; see `Runtime.open`."""
        for runtime in self._runtimes.values():
            await runtime.open(on_event)

    async def resolve(self, reference: str) -> Resolution:
        """The network namespace meant by `reference`, or why there is none."""
        asked = Reference.of(reference)
        runtime = self._runtimes.get(asked.runtime)
        if runtime is None:
            known = ", ".join(f"{prefix}:" for prefix in self._runtimes)
            return NotFound(
                "invalid-reference",
                f"container {reference!r}: no runtime {asked.runtime!r} here, expected one of {known}",
            )
        return await runtime.resolve(asked.name)

    async def close(self) -> None:
        """Nothing is followed any more."""
        for runtime in self._runtimes.values():
            await runtime.close()
