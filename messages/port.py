"""Ports: what a host made of an endpoint that was bound to it. Said by that host alone, about an epoch."""

from __future__ import annotations

from .struct import Event


class PortStatement(Event, frozen=True, kw_only=True):
    """What every word of a host about a port names: the endpoint, the host, and the binding (by its epoch) that it
    is about.
    """

    tenant: str
    network: str
    endpoint: str
    name: str
    host: str
    epoch: int


class PortBound(PortStatement, frozen=True, kw_only=True):
    """The port forwards: device on the host, interface in the container."""

    device: str
    interface: str


class PortWaiting(PortStatement, frozen=True, kw_only=True):
    """The binding stands, its container is not there (yet).

    `code`: `container-absent`, `container-not-started`, `container-not-running`, `engine-away`.
    """

    code: str
    reason: str


class PortFailed(PortStatement, frozen=True, kw_only=True):
    """The port could not be made; the host goes on trying while the binding stands. `code` is kebab-case."""

    code: str
    reason: str


class PortUnbound(PortStatement, frozen=True, kw_only=True):
    """Nothing is left of the port that this epoch had made: its addresses may be given to others after their rest."""


PortEvent = PortBound | PortWaiting | PortFailed | PortUnbound
