"""Endpoints: the places where containers meet a network. Who they are (tenant, network, name) and where they are
bound.
"""

from __future__ import annotations

from typing import Literal

from .addresses import Address, Interface, Mac, check_mac
from .names import Name, Token, check_container, check_name, check_tenant, check_token
from .network import Encap, check_tag
from .struct import Command, Event, Part, View

ADDRESSES_MAX = 16
EndpointState = Literal["pending", "waiting", "waiting-policy", "bound", "failed", "unreachable", "deleting"]


class CreateEndpoint(Command, frozen=True, kw_only=True):
    """Reserve an address of each of the network's families, and a MAC; with `container` bind it as well.

    `tag` is the network's: one that disagrees is refused, but a network whose tag nobody asked for, and which is still
    empty, takes it. `host` defaults to none and is needed with `container`. `pool`: one of the network's, whose
    addresses it gets.
    """

    tenant: Token
    network: Token
    name: Name
    addresses: tuple[Address, ...] = ()
    mac: Mac | None = None
    tag: int | None = None
    container: Name | None = None
    host: Token | None = None
    pool: Token | None = None

    def __post_init__(self) -> None:
        check_tenant(self.tenant)
        check_token("network name", self.network)
        check_name("endpoint name", self.name)
        if len(self.addresses) > ADDRESSES_MAX:
            raise ValueError(f"{len(self.addresses)} addresses are too many: expected at most {ADDRESSES_MAX}")
        if len(set(self.addresses)) != len(self.addresses):
            raise ValueError("an address is given twice")
        if self.mac is not None:
            check_mac(self.mac)
        if self.tag is not None:
            check_tag("vlan" if self.tag < 4095 else "vxlan", self.tag)
        check_place(self.container, self.host)
        if self.pool is not None:
            check_token("pool name", self.pool)


class AttachEndpoint(Command, frozen=True, kw_only=True, omit_defaults=True):
    """Bind an endpoint to a container on a host. No network means the one endpoint of this name in the tenant.

    `move`: one that is bound elsewhere leaves that place in the same moment, instead of being refused.
    """

    tenant: Token
    name: Name
    container: Name
    host: Token
    network: Token | None = None
    move: bool = False

    def __post_init__(self) -> None:
        check_place(self.container, self.host)


class DetachEndpoint(Command, frozen=True, kw_only=True):
    """Unbind an endpoint; it keeps its address. With `container`, only if it is bound to that one."""

    tenant: Token
    name: Name
    network: Token | None = None
    container: Name | None = None

    def __post_init__(self) -> None:
        if self.container is not None:
            check_container(self.container)


class DeleteEndpoint(Command, frozen=True, kw_only=True):
    """Unbind and remove an endpoint. Its address rests until its host has taken the port away, and 2 s more."""

    tenant: Token
    name: Name
    network: Token | None = None


class GetEndpoint(Command, frozen=True, kw_only=True):
    """Ask for one endpoint."""

    tenant: Token
    name: Name
    network: Token | None = None


class ListEndpoints(Command, frozen=True, kw_only=True):
    """Ask for the endpoints of a network, of a tenant, or with the tenant token `fabric` of all."""

    tenant: Token
    network: Token | None = None


class EndpointCreated(Event, frozen=True, kw_only=True, omit_defaults=True):
    """The endpoint exists and owns these addresses and this MAC. `endpoint` is its id, never used again."""

    endpoint: str
    name: str
    addresses: tuple[Interface, ...]
    mac: str
    asked: tuple[Address, ...] = ()
    pool: str = ""


class EndpointBound(Event, frozen=True, kw_only=True, omit_defaults=True):
    """The endpoint is in this container on this host, with all that the host needs to know of it.

    The journal sequence of this event is its epoch: a host never applies an older one over a newer. `is_new`: it came
    into being with this very event (`asked`: with these addresses asked for, `pool`: of this pool); there is no
    `endpoint-created` then,
    because one event is recorded several times faster than two that stand or fall together.
    """

    tenant: str
    network: str
    endpoint: str
    name: str
    host: str
    container: str
    addresses: tuple[Interface, ...]
    gateways: tuple[Address, ...]
    mac: str
    encap: Encap
    tag: int
    mtu_bytes: int
    is_new: bool = False
    asked: tuple[Address, ...] = ()
    is_routed: bool = False
    pool: str = ""


class EndpointUnbound(Event, frozen=True, kw_only=True):
    """The endpoint is no longer on this host; `epoch` is that of the binding which ended."""

    endpoint: str
    name: str
    host: str
    epoch: int


class EndpointDeleted(Event, frozen=True, kw_only=True):
    """The endpoint is gone, and with it its binding if it had one. Its addresses rest until `host` reports the port of
    `epoch` gone, and 2 s more; no host, no rest.
    """

    endpoint: str
    name: str
    addresses: tuple[Interface, ...]
    host: str = ""
    epoch: int = 0


class EndpointSpec(Part, frozen=True, kw_only=True):
    """What an endpoint was asked to be."""

    addresses: tuple[Address, ...]
    container: str
    host: str
    pool: str = ""


class EndpointStatus(Part, frozen=True, kw_only=True):
    """What an endpoint is. `port` and `device` are the host's end, `interface` the container's; `seq` its last
    change.
    """

    state: EndpointState
    host: str
    container: str
    port: str
    device: str
    interface: str
    addresses: tuple[Interface, ...]
    mac: str
    tag: int
    encap: Encap
    epoch: int
    seq: int
    reason: str


class EndpointView(View, frozen=True, kw_only=True):
    """An endpoint as shown. `id` is the opaque one that the switch carries."""

    tenant: str
    network: str
    name: str
    id: str
    spec: EndpointSpec
    status: EndpointStatus


def check_place(container: str | None, host: str | None) -> None:
    """A container comes with the host that it is on. Raises: ValueError."""
    if container is not None:
        check_container(container)
        if host is None:
            raise ValueError(f"container {container!r} is given without its host: add host")
    if host is not None:
        check_token("host name", host)
