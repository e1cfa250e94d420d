"""`pool.create`, `delete`, `get`, `list`: ranges of a network that are kept for the endpoints which ask for them."""

from __future__ import annotations

from messages.pool import CreatePool, DeletePool, GetPool, ListPools, PoolCreated, PoolDeleted
from messages.replies import Item, Items
from services.runtime.decision import Decision, Rejection, Stamp

from .. import facts
from ..lookup import FoundNetwork, networks_of, require_network, require_pool, some_of
from ..state import State
from ..views import pool_view
from .network import check_in_subnets, ordered


def create_pool(state: State, command: CreatePool, _stamp: Stamp) -> Decision:
    """Keep ranges of a network for endpoints of this pool. Endpoints that have addresses of it already keep them.

    Refuses: `unknown-tenant`, `unknown-network`, `pool-exists`, `pool-overlaps`, `range-outside-subnet`,
    `range-excluded`.
    """
    found = require_network(state, command.tenant, command.network)
    show = GetPool(tenant=command.tenant, network=command.network, name=command.name)
    ranges = ordered(command.ranges)
    existing = found.aggregate.kept.get(command.name)
    if existing is not None:
        if existing != ranges:
            having, asked = (", ".join(map(str, each)) for each in (existing, ranges))
            raise Rejection("pool-exists", f"pool {command.name} exists with {having}, asked for {asked}")
        return Decision((), show)
    check_in_subnets(found, ranges)
    _check_apart(found, command)
    created = PoolCreated(name=command.name, ranges=ranges)
    return Decision((facts.of_network(command.tenant, command.network, created),), show)


def _check_apart(found: FoundNetwork, command: CreatePool) -> None:
    """No other pool and no exclusion has any of the addresses. Refuses: `pool-overlaps`, `range-excluded`."""
    for each in command.ranges:
        for name, kept in found.aggregate.kept.items():
            other = next(filter(each.overlaps, kept), None)
            if other is not None:
                raise Rejection("pool-overlaps", f"range {each} overlaps {other} of pool {name}: choose another")
        excluded = next(filter(each.overlaps, found.record.excluded), None)
        if excluded is not None:
            raise Rejection(
                "range-excluded", f"range {each} has addresses that network {found.name} excludes ({excluded})"
            )


def delete_pool(state: State, command: DeletePool, _stamp: Stamp) -> Decision:
    """The pool's free addresses are for whoever comes. Refuses: `unknown-tenant`, `unknown-network`, `unknown-pool`,
    `pool-in-use`.
    """
    found = require_network(state, command.tenant, command.network)
    require_pool(found, command.name)
    users = sorted(each.name for each in found.aggregate.endpoints.values() if each.pool == command.name)
    if users:
        raise Rejection("pool-in-use", f"pool {command.name} still has endpoints ({some_of(users)}): delete them first")
    return Decision((facts.of_network(command.tenant, command.network, PoolDeleted(name=command.name)),))


def get_pool(state: State, command: GetPool, _stamp: Stamp) -> Decision:
    """One pool. Refuses: `unknown-tenant`, `unknown-network`, `unknown-pool`."""
    found = require_network(state, command.tenant, command.network)
    require_pool(found, command.name)
    return Decision(reply=Item(seq=found.aggregate.seq, object=pool_view(found, command.name)))


def list_pools(state: State, command: ListPools, _stamp: Stamp) -> Decision:
    """The pools of a network, of a tenant, or with `fabric` of all, by tenant, network and name.

    Refuses: `unknown-tenant`, `unknown-network`.
    """
    networks = networks_of(state, command.tenant, command.network)
    seq = max((found.aggregate.seq for found in networks), default=0)
    views = tuple(pool_view(found, name) for found in networks for name in sorted(found.aggregate.kept))
    return Decision(reply=Items(seq=seq, objects=views))
