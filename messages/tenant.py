"""Tenants: owners of disjoint networks, each with pools of its own from which subnets, tags and VNIs are chosen."""

from __future__ import annotations

from .addresses import Network
from .names import Token, check_tenant
from .ranges import VLANS, VNIS, parse_ranges
from .struct import Command, Event, Part, View

SUBNET_POOL = "11.0.0.0/8"
SUBNET_LENGTH = 24


class CreateTenant(Command, frozen=True, kw_only=True):
    """Bring a tenant into being. Ranges left out mean all the fabric has; the pool left out is 11.0.0.0/8 in /24s.

    `routing`: whether its networks reach each other through their gateways, unless one of them says otherwise.
    """

    tenant: Token
    subnet_pool: Network | None = None
    subnet_length: int | None = None
    vlans: str | None = None
    vnis: str | None = None
    routing: bool | None = None

    def __post_init__(self) -> None:
        check_tenant(self.tenant)
        if self.vlans is not None:
            parse_ranges(self.vlans, "vlans", VLANS)
        if self.vnis is not None:
            parse_ranges(self.vnis, "vnis", VNIS)
        if self.subnet_length is None:
            return
        pool_length = self.subnet_pool.prefixlen if self.subnet_pool else int(SUBNET_POOL.split("/")[1])
        longest = 127 if self.subnet_pool is not None and self.subnet_pool.version == 6 else 31
        if not pool_length <= self.subnet_length <= longest:
            raise ValueError(f"subnet length {self.subnet_length} is out of range: expected {pool_length} to {longest}")


class SetTenant(Command, frozen=True, kw_only=True):
    """Change what a tenant's networks are chosen from; those that it has keep what they have.

    What is left out (`null`) stays; empty ranges mean all that the fabric has. With a pool and no length, its subnets
    are /24, or /64.
    """

    tenant: Token
    subnet_pool: Network | None = None
    subnet_length: int | None = None
    vlans: str | None = None
    vnis: str | None = None

    def __post_init__(self) -> None:
        check_tenant(self.tenant)
        if self.vlans:
            parse_ranges(self.vlans, "vlans", VLANS)
        if self.vnis:
            parse_ranges(self.vnis, "vnis", VNIS)
        if (self.subnet_pool, self.subnet_length, self.vlans, self.vnis) == (None,) * 4:
            raise ValueError("nothing to change: give subnet_pool, subnet_length, vlans or vnis")


class DeleteTenant(Command, frozen=True, kw_only=True):
    """Remove a tenant that has no networks left."""

    tenant: Token

    def __post_init__(self) -> None:
        check_tenant(self.tenant)


class GetTenant(Command, frozen=True, kw_only=True):
    """Ask for one tenant."""

    tenant: Token


class ListTenants(Command, frozen=True, kw_only=True):
    """Ask for all tenants. Sent with the tenant token `fabric`."""


class TenantCreated(Event, frozen=True, kw_only=True, omit_defaults=True):
    """The tenant exists, with these pools. Empty ranges mean all that the fabric has."""

    tenant: str
    subnet_pool: Network
    subnet_length: int
    vlans: str = ""
    vnis: str = ""
    is_routing: bool = False


class TenantChanged(Event, frozen=True, kw_only=True):
    """From now on the tenant's networks are chosen from these pools. Empty ranges mean all that the fabric has."""

    subnet_pool: Network
    subnet_length: int
    vlans: str
    vnis: str


class TenantDeleted(Event, frozen=True, kw_only=True):
    """The tenant is gone."""

    tenant: str


class NetworkAdded(Event, frozen=True, kw_only=True):
    """A network of this tenant came into being with these subnets; written here so that no two subnets of a tenant
    overlap.
    """

    network: str
    subnets: tuple[Network, ...]


class SubnetTaken(Event, frozen=True, kw_only=True):
    """A network that had no subnet (of this family) took this one."""

    network: str
    subnet: Network


class NetworkRemoved(Event, frozen=True, kw_only=True):
    """A network of this tenant is gone and its subnets are free."""

    network: str


class TenantSpec(Part, frozen=True, kw_only=True):
    """What a tenant was asked to have."""

    subnet_pool: Network
    subnet_length: int
    vlans: str
    vnis: str
    routing: bool = False


class TenantStatus(Part, frozen=True, kw_only=True):
    """What a tenant has; `seq` is the journal sequence it last changed at."""

    state: str
    networks: tuple[str, ...]
    seq: int


class TenantView(View, frozen=True, kw_only=True):
    """A tenant as shown. `tenant` and `name` are the same."""

    tenant: str
    name: str
    spec: TenantSpec
    status: TenantStatus
