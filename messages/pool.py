"""Pools: ranges of a network's addresses that are kept for the endpoints which ask for them by name."""

from __future__ import annotations

from .addresses import AddressRange
from .names import Token, check_tenant, check_token
from .network import check_ranges
from .struct import Command, Event, Part, View


class CreatePool(Command, frozen=True, kw_only=True):
    """Keep ranges of a network's addresses for endpoints of this pool: nobody else is given one unasked."""

    tenant: Token
    network: Token
    name: Token
    ranges: tuple[AddressRange, ...]

    def __post_init__(self) -> None:
        check_tenant(self.tenant)
        check_token("network name", self.network)
        check_token("pool name", self.name)
        check_ranges("range", self.ranges)
        if not self.ranges:
            raise ValueError("a pool needs addresses: give a range such as 10.1.1.100-10.1.1.120")


class DeletePool(Command, frozen=True, kw_only=True):
    """Keep the pool's addresses for nobody. It has no endpoints left."""

    tenant: Token
    network: Token
    name: Token


class GetPool(Command, frozen=True, kw_only=True):
    """Ask for one pool."""

    tenant: Token
    network: Token
    name: Token


class ListPools(Command, frozen=True, kw_only=True):
    """Ask for the pools of a network, of a tenant, or with the tenant token `fabric` of all."""

    tenant: Token
    network: Token | None = None


class PoolCreated(Event, frozen=True, kw_only=True):
    """The network keeps these ranges for endpoints of this pool."""

    name: str
    ranges: tuple[AddressRange, ...]


class PoolDeleted(Event, frozen=True, kw_only=True):
    """The network keeps nothing for the pool any more."""

    name: str


class PoolSpec(Part, frozen=True, kw_only=True):
    """What a pool was asked to be."""

    ranges: tuple[AddressRange, ...]


class PoolStatus(Part, frozen=True, kw_only=True):
    """What a pool is: how many endpoints are of it; `seq` is the journal sequence its network last changed at."""

    state: str
    endpoints: int
    seq: int


class PoolView(View, frozen=True, kw_only=True):
    """A pool as shown."""

    tenant: str
    network: str
    name: str
    spec: PoolSpec
    status: PoolStatus
