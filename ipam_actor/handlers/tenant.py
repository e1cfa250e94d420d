"""`tenant.create`, `set`, `delete`, `get`, `list`."""

from __future__ import annotations

from ipaddress import ip_network

from msgspec.structs import replace

from messages.addresses import Network
from messages.names import DEFAULT_TENANT
from messages.network import check_subnet
from messages.ranges import VLANS, VNIS, format_ranges, parse_ranges
from messages.replies import Item, Items
from messages.tenant import (
    CreateTenant,
    DeleteTenant,
    GetTenant,
    ListTenants,
    SetTenant,
    TenantChanged,
    TenantCreated,
    TenantDeleted,
)
from services.runtime.decision import Decision, Rejection, Stamp

from .. import facts
from ..lookup import find_tenant, require_tenant, some_of
from ..records import DEFAULT_TENANT_RECORD, TenantRecord
from ..state import State
from ..views import tenant_view

_DEFAULT_LENGTH = {4: DEFAULT_TENANT_RECORD.subnet_length, 6: 64}


def tenant_created(tenant: str, record: TenantRecord) -> TenantCreated:
    """The event that brings a tenant with these pools into being."""
    return TenantCreated(
        tenant=tenant,
        subnet_pool=record.subnet_pool,
        subnet_length=record.subnet_length,
        vlans=record.vlans,
        vnis=record.vnis,
        is_routing=record.is_routing,
    )


def create_tenant(state: State, command: CreateTenant, _stamp: Stamp) -> Decision:
    """Bring a tenant with its pools into being. Idempotent: what is left out agrees with any tenant that is there.

    Refuses: `tenant-exists`, `pool-unusable`.
    """
    show = GetTenant(tenant=command.tenant)
    aggregate = state.tenants.get(command.tenant)
    wanted = _record_of(command)
    if aggregate is None or aggregate.record is None:
        return Decision((facts.of_tenant(command.tenant, tenant_created(command.tenant, wanted)),), show)
    found = aggregate.record
    differing = [
        f"{noun} is {having or 'all'}, asked for {asking}"
        for noun, is_asked, having, asking in (
            ("subnet pool", command.subnet_pool, found.subnet_pool, wanted.subnet_pool),
            ("subnet length", command.subnet_length, found.subnet_length, wanted.subnet_length),
            ("vlans", command.vlans, found.vlans, wanted.vlans),
            ("vnis", command.vnis, found.vnis, wanted.vnis),
            ("routing", command.routing, on_or_off(found.is_routing), on_or_off(wanted.is_routing)),
        )
        if is_asked is not None and having != asking
    ]
    if differing:
        raise Rejection(
            "tenant-exists", f"tenant {command.tenant} exists with other parameters: {'; '.join(differing)}"
        )
    return Decision((), show)


def _record_of(command: CreateTenant) -> TenantRecord:
    pool: Network = command.subnet_pool or DEFAULT_TENANT_RECORD.subnet_pool
    length = command.subnet_length or max(_DEFAULT_LENGTH[pool.version], pool.prefixlen)
    _check_pool(pool, length)
    return TenantRecord(
        pool,
        length,
        format_ranges(parse_ranges(command.vlans, "vlans", VLANS)) if command.vlans is not None else "",
        format_ranges(parse_ranges(command.vnis, "vnis", VNIS)) if command.vnis is not None else "",
        bool(command.routing),
    )


def _check_pool(pool: Network, length: int) -> None:
    """Subnets of this length can be taken from the pool. Refuses: `pool-unusable`."""
    try:
        if length < pool.prefixlen:
            raise ValueError(f"expected /{pool.prefixlen} or longer")
        check_subnet(ip_network((pool.network_address, length)))
    except ValueError as fault:
        raise Rejection("pool-unusable", f"subnet pool {pool} cannot give out /{length} subnets: {fault}") from None


def set_tenant(state: State, command: SetTenant, _stamp: Stamp) -> Decision:
    """Change the pools that networks are chosen from; networks that are there keep their subnets and tags.

    Refuses: `unknown-tenant`, `pool-unusable`.
    """
    aggregate, record = require_tenant(state, command.tenant)
    show = GetTenant(tenant=command.tenant)
    pool: Network = command.subnet_pool or record.subnet_pool
    length = command.subnet_length
    if length is None:
        is_kept = command.subnet_pool is None
        length = record.subnet_length if is_kept else max(_DEFAULT_LENGTH[pool.version], pool.prefixlen)
    _check_pool(pool, length)
    vlans = record.vlans if command.vlans is None else _ranges(command.vlans, "vlans", VLANS)
    vnis = record.vnis if command.vnis is None else _ranges(command.vnis, "vnis", VNIS)
    wanted = replace(record, subnet_pool=pool, subnet_length=length, vlans=vlans, vnis=vnis)
    if wanted == record:
        return Decision((), show)
    if aggregate.record is None:
        return Decision((facts.of_tenant(command.tenant, tenant_created(command.tenant, wanted)),), show)
    changed = TenantChanged(subnet_pool=pool, subnet_length=length, vlans=vlans, vnis=vnis)
    return Decision((facts.of_tenant(command.tenant, changed),), show)


def _ranges(text: str, noun: str, within: range) -> str:
    return format_ranges(parse_ranges(text, noun, within)) if text else ""


def on_or_off(is_on: bool) -> str:  # noqa: FBT001  (a word for it)
    """How a switch is written."""
    return "on" if is_on else "off"


def delete_tenant(state: State, command: DeleteTenant, _stamp: Stamp) -> Decision:
    """Remove a tenant that has no networks. Refuses: `unknown-tenant`, `tenant-in-use`."""
    aggregate, _ = require_tenant(state, command.tenant)
    if aggregate.record is None:
        raise Rejection("unknown-tenant", f"tenant {command.tenant} was never used: there is nothing to delete")
    if aggregate.networks:
        names = some_of(sorted(aggregate.networks))
        raise Rejection("tenant-in-use", f"tenant {command.tenant} still has networks ({names}): delete them first")
    return Decision((facts.of_tenant(command.tenant, TenantDeleted(tenant=command.tenant)),))


def get_tenant(state: State, command: GetTenant, _stamp: Stamp) -> Decision:
    """One tenant; `default` is shown as it would be used, even before it is. Refuses: `unknown-tenant`."""
    aggregate, record = require_tenant(state, command.tenant)
    return Decision(reply=Item(seq=aggregate.seq, object=tenant_view(command.tenant, aggregate, record)))


def list_tenants(state: State, _command: ListTenants, _stamp: Stamp) -> Decision:
    """All tenants in the order of their names, `default` always among them."""
    views = []
    for name in sorted({*state.tenants, DEFAULT_TENANT}):
        found = find_tenant(state, name)
        if found is not None:
            views.append(tenant_view(name, *found))
    seq = max((aggregate.seq for aggregate in state.tenants.values()), default=0)
    return Decision(reply=Items(seq=seq, objects=tuple(views)))
