"""A tenant's pools, changed while it has networks."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from messages.addresses import Network
from messages.tenant import CreateTenant, SetTenant, TenantChanged, TenantCreated
from tests.ipam_world import World, network


def v4(text: str) -> Network:
    return ip_network(text)


def test_networks_are_chosen_from_the_new_pools_and_those_that_are_there_stay() -> None:
    world = World()
    world.do(CreateTenant(tenant="acme", subnet_pool=v4("10.0.0.0/16"), vlans="5-6"))
    world.network("web", tenant="acme")
    change = SetTenant(tenant="acme", subnet_pool=v4("10.9.0.0/16"), vlans="20-21,30")
    assert world.do(change) == (
        TenantChanged(subnet_pool=v4("10.9.0.0/16"), subnet_length=24, vlans="20-21,30", vnis=""),
    )
    assert world.do(change) == ()
    world.network("db", tenant="acme")
    before, after = (world.show_network(name, "acme").status for name in ("web", "db"))
    assert (before.subnets, before.tag) == ((v4("10.0.0.0/24"),), 5)
    assert (after.subnets, after.tag) == ((v4("10.9.0.0/24"),), 20)


def test_what_is_left_out_stays() -> None:
    world = World()
    world.do(CreateTenant(tenant="acme", subnet_pool=v4("10.0.0.0/16"), subnet_length=26, vlans="5-6", vnis="10000"))
    assert world.do(SetTenant(tenant="acme", vlans="")) == (
        TenantChanged(subnet_pool=v4("10.0.0.0/16"), subnet_length=26, vlans="", vnis="10000"),
    )
    assert world.do(SetTenant(tenant="acme", subnet_length=25)) == (
        TenantChanged(subnet_pool=v4("10.0.0.0/16"), subnet_length=25, vlans="", vnis="10000"),
    )


def test_the_default_tenant_is_changed_before_its_first_use() -> None:
    world = World()
    events = world.do(SetTenant(tenant="default", subnet_pool=v4("10.0.0.0/8")))
    assert events == (TenantCreated(tenant="default", subnet_pool=v4("10.0.0.0/8"), subnet_length=24),)
    assert not isinstance(world.do(network("web"))[0], TenantCreated)
    assert world.show_network().status.subnets == (v4("10.0.0.0/24"),)


@pytest.mark.parametrize(
    ("pool", "length"), [("10.0.0.0/16", 8), ("10.0.0.0/16", 32), ("fd00::/48", 128), ("224.0.0.0/8", 24)]
)
def test_a_pool_that_gives_no_subnets_is_refused(pool: str, length: int) -> None:
    world = World()
    world.do(CreateTenant(tenant="acme"))
    command = SetTenant(tenant="acme", subnet_pool=v4(pool), subnet_length=length)
    assert world.refused(command).code == "pool-unusable"


def test_an_unknown_tenant_is_refused() -> None:
    assert World().refused(SetTenant(tenant="acme", vlans="")).code == "unknown-tenant"
