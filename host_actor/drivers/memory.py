"""The switch that is only remembered: the driver contract without a kernel, for tests and for hosts that are simulated.

`MemorySwitch` is the world: it outlives its driver, as a real switch outlives the process that drives it. Faults are
put into the world, and its driver meets them part by part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import assert_never

import msgspec

from services.runtime.errors import Unavailable

from .contract import (
    Capabilities,
    Done,
    DropPort,
    DropRemote,
    EnsurePort,
    EnsureRemote,
    EnsureSwitch,
    Failed,
    Figures,
    Observed,
    ObservedPort,
    Op,
    Outcome,
    Part,
    PortSpec,
    Remote,
)

_MAKING_ORDER = (Part.LINK, Part.SWITCH, Part.RULES)


class MemoryPort(msgspec.Struct):
    """One port as the remembered switch has it."""

    endpoint: str
    epoch: int
    device: str
    sandbox_key: str
    interface: str
    parts: set[Part]


class MemorySwitch:
    """A switch and the namespaces it reaches, with what shall go wrong."""

    def __init__(self) -> None:
        self.is_ready = False
        self.is_away = False
        self.ports: dict[str, MemoryPort] = {}
        self.remotes: dict[str, Remote] = {}  # by mark
        self.steps = 0  # changes made so far, each to one part
        self.fails_at_step: int | None = None  # the switch goes away instead of making this change
        self.refusals: dict[str, Failed] = {}  # endpoint -> what is answered instead of making its port
        self.dead_sandboxes: set[str] = set()
        self.on_change: Callable[[str], None] = lambda _: None

    def step(self) -> None:
        """One more change is about to be made. Raises: Unavailable when it is the one that fails."""
        if self.is_away or self.steps == self.fails_at_step:
            self.fails_at_step = None
            raise Unavailable("the remembered switch is away", 0.05)
        self.steps += 1

    def lose(self, endpoint: str, parts: Iterable[Part]) -> None:
        """Somebody else removes parts of a port."""
        port = self.ports[endpoint]
        port.parts.difference_update(parts)
        if not port.parts:
            del self.ports[endpoint]
        self.on_change(f"parts of {port.device} were removed")

    def lose_remote(self, mark: str) -> None:
        """Somebody else removes what the switch has of another host."""
        del self.remotes[mark]
        self.on_change("flows were changed")

    def restart(self) -> None:
        """The switch starts again: rows and links are kept, its rules are gone."""
        self.is_ready = False
        self.remotes.clear()
        for port in list(self.ports.values()):
            port.parts.discard(Part.RULES)
            if not port.parts:
                del self.ports[port.endpoint]
        self.on_change("the switch was restarted")

    def interface_for(self, sandbox_key: str) -> str:
        """The first free `ethN` in a sandbox."""
        taken = {port.interface for port in self.ports.values() if port.sandbox_key == sandbox_key}
        return next(name for index in range(len(taken) + 1) if (name := f"eth{index}") not in taken)


class MemoryDriver:
    """The driver contract on a `MemorySwitch`; `has_tunnels`: other hosts can be reached."""

    def __init__(self, switch: MemorySwitch | None = None, *, has_tunnels: bool = True) -> None:
        self.switch = switch or MemorySwitch()
        self._has_tunnels = has_tunnels

    @property
    def capabilities(self) -> Capabilities:
        """All that can be remembered."""
        return Capabilities(vlan=True, vxlan=self._has_tunnels, anti_spoofing=True, ipv6=True, datapath="memory")

    def mark_of(self, remote: Remote) -> str:
        """All of it, in words."""
        return repr(remote)

    async def open(self, on_change: Callable[[str], None]) -> None:
        """Changes by others are told to `on_change`. Raises: Unavailable while the switch is away."""
        if self.switch.is_away:
            raise Unavailable("the remembered switch is away", 0.05)
        self.switch.on_change = on_change

    async def observe(self) -> Observed:
        """All ports with their parts. Raises: Unavailable while the switch is away."""
        if self.switch.is_away:
            raise Unavailable("the remembered switch is away", 0.05)
        ports = {
            port.endpoint: ObservedPort(
                port.endpoint, port.epoch, port.device, frozenset(port.parts), port.sandbox_key, port.interface
            )
            for port in self.switch.ports.values()
        }
        return Observed(self.switch.is_ready, ports, dict.fromkeys(self.switch.remotes, True))

    async def execute(self, ops: Sequence[Op]) -> Sequence[Outcome]:
        """Each operation in its turn, part by part. Raises: Unavailable when the switch goes away on the way."""
        return [self._execute(op) for op in ops]

    async def figures(self) -> Figures:
        """A rule for each port that has its rules, and each change as a bundle. Raises: Unavailable."""
        if self.switch.is_away:
            raise Unavailable("the remembered switch is away", 0.05)
        ruled = sum(Part.RULES in port.parts for port in self.switch.ports.values())
        return Figures(flows={"all": ruled}, bundles=self.switch.steps, flow_messages=self.switch.steps)

    async def close(self) -> None:
        """Changes are told to nobody; the switch stays as it is."""
        self.switch.on_change = lambda _: None

    def _execute(self, op: Op) -> Outcome:
        match op:
            case EnsureSwitch():
                if not self.switch.is_ready:
                    self.switch.step()
                    self.switch.is_ready = True
                return Done(op)
            case DropPort():
                self._drop(op)
                return Done(op)
            case EnsurePort():
                return self._ensure(op)
            case EnsureRemote():
                mark = self.mark_of(op.remote)
                if mark not in self.switch.remotes:
                    self.switch.step()
                    self.switch.remotes[mark] = op.remote
                return Done(op)
            case DropRemote():
                if op.mark in self.switch.remotes:
                    self.switch.step()
                    del self.switch.remotes[op.mark]
                return Done(op)
            case _:
                assert_never(op)

    def _drop(self, op: DropPort) -> None:
        port = self.switch.ports.get(op.endpoint)
        for part in reversed(_MAKING_ORDER):
            if port is not None and part in port.parts:
                self.switch.step()
                port.parts.discard(part)
        if port is not None:
            del self.switch.ports[op.endpoint]

    def _ensure(self, op: EnsurePort) -> Outcome:
        spec = op.port
        refusal = self.switch.refusals.get(spec.endpoint)
        if refusal is not None:
            return Failed(op, refusal.code, refusal.detail)
        port = self.switch.ports.get(spec.endpoint)
        if port is not None and port.epoch > spec.epoch:
            return Failed(op, "epoch-superseded", f"epoch {spec.epoch} is older than {port.epoch}, which the port has")
        if spec.sandbox.key in self.switch.dead_sandboxes:
            return Failed(op, "container-gone", f"{spec.sandbox.netns_path} is gone")
        if port is not None and (port.epoch, port.sandbox_key) != (spec.epoch, spec.sandbox.key):
            self._drop(DropPort(spec.endpoint, port.device))
            port = None
        port = self._make(spec, port, op.parts)
        return Done(op, port.interface)

    def _make(self, spec: PortSpec, port: MemoryPort | None, parts: frozenset[Part]) -> MemoryPort:
        for part in _MAKING_ORDER:
            if part not in parts or (port is not None and part in port.parts):
                continue
            self.switch.step()
            if port is None:
                key = spec.sandbox.key
                port = MemoryPort(spec.endpoint, spec.epoch, spec.device, key, self.switch.interface_for(key), set())
                self.switch.ports[spec.endpoint] = port
            port.parts.add(part)
        assert port is not None, "a port is ensured in one part at least"
        return port
