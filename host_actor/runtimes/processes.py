"""`pid:N`: the network namespace of a process, for containers of runtimes that we do not speak to."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..drivers.contract import Sandbox
from .contract import Died, Found, NotFound, Resolution, RuntimeEvent
from .kernel import ProcessEnds, identity_of, is_own_namespace

_PID = re.compile(r"[1-9][0-9]{0,9}")


class Processes:
    """Processes of this host by number. One that has ended never comes back: there is no waiting for it."""

    def __init__(self) -> None:
        self._on_event: Callable[[RuntimeEvent], None] = lambda _: None
        self._ends = ProcessEnds(lambda key: self._on_event(Died(key, "the process ended")))

    async def open(self, on_event: Callable[[RuntimeEvent], None]) -> None:
        """Ends of processes are told from here on."""
        self._on_event = on_event

    async def resolve(self, name: str) -> Resolution:
        """The network namespace of process `name`, a decimal number."""
        if not _PID.fullmatch(name):
            return NotFound("invalid-reference", f"container 'pid:{name}': expected a process number, as in pid:4711")
        path = f"/proc/{name}/ns/net"
        identity = identity_of(path)
        if identity is not None and is_own_namespace(identity):
            return NotFound(
                "container-uses-host-network",
                f"container 'pid:{name}': the process uses the host's own network, an endpoint needs a namespace",
            )
        key = "" if identity is None else f"pid:{name}:{identity.st_ino}"
        if not key or not self._ends.follow(key, int(name)):
            return NotFound("container-not-found", f"container 'pid:{name}': no such process, or none we may look into")
        return Found(Sandbox(key, path), f"pid:{name}")

    async def close(self) -> None:
        """No process is followed any more."""
        self._ends.close()
