"""Finding what a command is about, or saying that it is not there."""

from __future__ import annotations

from typing import NamedTuple

from messages.names import DEFAULT_TENANT, RESERVED_TENANT
from services.runtime.decision import Rejection
from services.runtime.errors import Conflict

from .records import DEFAULT_TENANT_RECORD, EndpointRecord, NetworkRecord, Owner, TenantRecord
from .state import NetworkAggregate, State, TenantAggregate

NAMED_MAX = 5


class FoundNetwork(NamedTuple):
    """A network that exists: its aggregate, and its record."""

    tenant: str
    name: str
    aggregate: NetworkAggregate
    record: NetworkRecord


def find_tenant(state: State, tenant: str) -> tuple[TenantAggregate, TenantRecord] | None:
    """A tenant that exists. The tenant `default` always does, even before its first use."""
    aggregate = state.tenants.get(tenant)
    if aggregate is not None and aggregate.record is not None:
        return aggregate, aggregate.record
    return (TenantAggregate(), DEFAULT_TENANT_RECORD) if tenant == DEFAULT_TENANT else None


def require_tenant(state: State, tenant: str) -> tuple[TenantAggregate, TenantRecord]:
    """A tenant that exists. Refuses: `unknown-tenant`."""
    found = find_tenant(state, tenant)
    if found is None:
        raise Rejection("unknown-tenant", f"tenant {tenant} does not exist: create it first")
    return found


def find_network(state: State, tenant: str, network: str) -> FoundNetwork | None:
    """A network that exists."""
    aggregate = state.network(tenant, network)
    if aggregate is None or aggregate.record is None:
        return None
    return FoundNetwork(tenant, network, aggregate, aggregate.record)


def require_network(state: State, tenant: str, network: str) -> FoundNetwork:
    """A network that exists. Refuses: `unknown-tenant`, `unknown-network`."""
    found = find_network(state, tenant, network)
    if found is None:
        require_tenant(state, tenant)
        raise Rejection("unknown-network", f"network {network} of tenant {tenant} does not exist: create it first")
    return found


def networks_of(state: State, tenant: str, network: str | None) -> list[FoundNetwork]:
    """A network, all of a tenant's, or with the tenant `fabric` those of all, by tenant and name.

    Refuses: `unknown-tenant`, `unknown-network`.
    """
    if tenant == RESERVED_TENANT:
        tenants = sorted(state.networks)
    elif network is not None:
        return [require_network(state, tenant, network)]
    else:
        require_tenant(state, tenant)
        tenants = [tenant]
    found = (find_network(state, each, name) for each in tenants for name in sorted(state.networks.get(each, {})))
    return [each for each in found if each is not None and network in (None, each.name)]


def require_pool(network: FoundNetwork, pool: str) -> None:
    """The network has a pool of this name. Refuses: `unknown-pool`."""
    if pool not in network.aggregate.kept:
        having = some_of(sorted(network.aggregate.kept)) or "none"
        raise Rejection("unknown-pool", f"network {network.name} has no pool {pool} (pools: {having}): create it first")


def networks_with(state: State, tenant: str, endpoint: str) -> list[str]:
    """The names of the tenant's networks that have an endpoint of this name, ascending."""
    networks = state.networks.get(tenant, {})
    return sorted(name for name, aggregate in networks.items() if endpoint in aggregate.endpoints)


def require_endpoint(state: State, tenant: str, network: str | None, name: str) -> tuple[FoundNetwork, EndpointRecord]:
    """An endpoint that exists; with no network, the one of this name in the tenant.

    Refuses: `unknown-tenant`, `unknown-network`, `unknown-endpoint`, `ambiguous-endpoint`.
    """
    if network is None:
        network = _only_network_with(state, tenant, name)
    found = require_network(state, tenant, network)
    endpoint = found.aggregate.endpoints.get(name)
    if endpoint is None:
        raise Rejection("unknown-endpoint", f"endpoint {name} of network {network} of tenant {tenant} does not exist")
    return found, endpoint


def _only_network_with(state: State, tenant: str, name: str) -> str:
    require_tenant(state, tenant)
    networks = networks_with(state, tenant, name)
    if not networks:
        raise Rejection("unknown-endpoint", f"no network of tenant {tenant} has an endpoint {name}")
    if len(networks) > 1:
        raise Rejection(
            "ambiguous-endpoint",
            f"endpoint {name} is in {len(networks)} networks of tenant {tenant} ({some_of(networks)}): say which",
        )
    return networks[0]


def some_of(names: list[str]) -> str:
    """The first of the names, and how many more there are."""
    more = len(names) - NAMED_MAX
    return ", ".join(names[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def check_whole(tenant: TenantAggregate, network: str, record: NetworkRecord | None) -> None:
    """What the tenant and the network say of its subnets is the same.

    Raises: Conflict when only a part of a batch that wrote to both has been followed: to be decided again.
    """
    subnets = tenant.networks.get(network)
    if subnets != (record.subnets if record is not None else None):
        raise Conflict(f"a change of network {network} has been followed in part only")


def check_tag_whole(state: State, found: FoundNetwork) -> None:
    """What the fabric and the network say of its tag is the same.

    Raises: Conflict when only a part of a batch that wrote to both has been followed: to be decided again.
    """
    owner = state.segments.owners[found.record.encap].get(found.record.tag)
    if owner != Owner(found.tenant, found.name):
        raise Conflict(f"a change of the tag of network {found.name} has been followed in part only")
