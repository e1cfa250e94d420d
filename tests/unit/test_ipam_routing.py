"""Networks that route: which do, and what their gateways are."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from msgspec.structs import replace

from messages.endpoint import EndpointBound
from messages.network import CreateNetwork
from messages.tenant import CreateTenant
from tests.ipam_world import World, endpoint, network


def routed(name: str, *subnets: str, tenant: str = "default", routing: bool | None = True) -> CreateNetwork:
    return replace(network(name, *subnets, tenant=tenant), routing=routing)


@pytest.mark.parametrize(
    ("subnet", "gateway", "first"),
    [
        ("10.1.0.0/24", "10.1.0.1", "10.1.0.2/24"),
        ("10.1.0.0/31", "10.1.0.0", "10.1.0.1/31"),
        ("fd00:1::/64", "fd00:1::1", "fd00:1::2/64"),
    ],
)
def test_a_routed_network_has_the_first_address_as_its_gateway(subnet: str, gateway: str, first: str) -> None:
    world = World("h1")
    world.do(routed("web", subnet))
    view = world.show_network("web")
    assert view.spec.routing
    assert view.status.gateways == (ip_address(gateway),)
    (bound,) = world.do(replace(endpoint("e1", network="web"), container="c1", host="h1"))
    assert isinstance(bound, EndpointBound)
    assert bound.is_routed
    assert str(bound.addresses[0]) == first
    assert bound.gateways == (ip_address(gateway),)


def test_a_gateway_that_was_asked_for_is_kept_and_the_other_family_gets_one() -> None:
    world = World()
    world.do(replace(routed("web", "10.1.0.0/24", "fd00:1::/64"), gateways=(ip_address("10.1.0.254"),)))
    assert world.show_network("web").status.gateways == (ip_address("10.1.0.254"), ip_address("fd00:1::1"))


def test_networks_route_as_their_tenant_does_unless_they_say_otherwise() -> None:
    world = World()
    world.do(CreateTenant(tenant="acme", routing=True))
    world.do(routed("web", tenant="acme", routing=None))
    world.do(routed("db", tenant="acme", routing=False))
    world.do(routed("bare", "none", tenant="acme", routing=None))
    assert [world.show_network(name, "acme").spec.routing for name in ("web", "db", "bare")] == [True, False, False]
    assert world.refused(CreateTenant(tenant="acme", routing=False)).code == "tenant-exists"
    assert world.do(CreateTenant(tenant="acme")) == ()


def test_without_it_networks_are_as_they_were() -> None:
    world = World()
    world.do(network("web"))
    assert not world.show_network("web").spec.routing
    assert world.show_network("web").status.gateways == ()
    refusal = world.refused(routed("web"))
    assert refusal.code == "network-exists"
    assert "routing is off, asked for on" in refusal.detail


def test_a_network_without_a_subnet_cannot_route() -> None:
    assert World().refused(routed("web", "none")).code == "subnet-needed"
