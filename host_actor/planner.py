"""From what must be and what is to the operations between them: pure, and the same for every switch."""

from __future__ import annotations

from collections.abc import Mapping

from .drivers.contract import (
    ALL_PARTS,
    DropPort,
    DropRemote,
    EnsurePort,
    EnsureRemote,
    EnsureSwitch,
    Observed,
    ObservedPort,
    Op,
    Part,
    PortSpec,
    Remote,
)

NO_REMOTES: Mapping[str, Remote] = {}


def plan(
    desired: Mapping[str, PortSpec], observed: Observed, remotes: Mapping[str, Remote] = NO_REMOTES
) -> tuple[Op, ...]:
    """The operations after which the switch has exactly the ports in `desired`, and of other hosts exactly `remotes`
    (by mark); none when it has them already.

    In this order: the switch itself, then every port that must go (nobody's, of another epoch, or in a sandbox that the
    container has left), then the missing parts of those that stay. So nothing old is there when its successor comes.
    What is said of other hosts is exchanged last, in the same moment as the rules of the ports.
    """
    switch: list[Op] = [] if observed.is_switch_ready else [EnsureSwitch()]
    drops: list[Op] = []
    ensures: list[Op] = []
    for endpoint, port in observed.ports.items():
        if endpoint not in desired or not is_same(desired[endpoint], port):
            drops.append(DropPort(endpoint, port.device))
    for endpoint, spec in desired.items():
        found = observed.ports.get(endpoint)
        missing = missing_parts(spec, found)
        if missing:
            ensures.append(EnsurePort(spec, missing))
    gone = (DropRemote(mark) for mark in observed.remotes if mark not in remotes)
    come = (EnsureRemote(each) for mark, each in remotes.items() if not observed.remotes.get(mark, False))
    return (*switch, *drops, *ensures, *gone, *come)


def is_same(spec: PortSpec, port: ObservedPort) -> bool:
    """Whether what was found is (a part of) this very port: its epoch and its sandbox, if the switch can still tell."""
    return port.epoch in (0, spec.epoch) and port.sandbox_key in ("", spec.sandbox.key)


def missing_parts(spec: PortSpec, port: ObservedPort | None) -> frozenset[Part]:
    """The parts that must be made. A port whose epoch nobody can tell any more is made anew in all of them."""
    if port is None or not is_same(spec, port) or port.epoch == 0:
        return ALL_PARTS
    return ALL_PARTS - port.parts


def leave_unknown(
    desired: Mapping[str, PortSpec], observed: Observed, known_gone: Mapping[str, int]
) -> tuple[dict[str, PortSpec], Observed]:
    """The same question, for a host that cannot be sure to know all: what it does not know is not asked about.

    Left alone are ports of endpoints that are neither desired nor known to have ended (`known_gone`: endpoint to the
    newest epoch of it that has), and ports with an epoch newer than what is known of their endpoint.
    """
    ports: dict[str, ObservedPort] = {}
    specs = dict(desired)
    for endpoint, port in observed.ports.items():
        known = max(known_gone.get(endpoint, 0), desired[endpoint].epoch if endpoint in desired else 0)
        if known > 0 and port.epoch <= known:
            ports[endpoint] = port
        else:
            specs.pop(endpoint, None)
    return specs, Observed(observed.is_switch_ready, ports, observed.remotes)
