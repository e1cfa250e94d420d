"""Tenants and networks: what is decided, and every way it is refused."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from messages.addresses import Network
from messages.network import (
    CreateNetwork,
    DeleteNetwork,
    GetNetwork,
    ListNetworks,
    NetworkCreated,
    NetworkDeleted,
)
from messages.replies import Item, Items
from messages.segment import SegmentReleased, SegmentTaken
from messages.tenant import (
    CreateTenant,
    DeleteTenant,
    GetTenant,
    ListTenants,
    NetworkAdded,
    NetworkRemoved,
    TenantCreated,
    TenantDeleted,
)
from tests.ipam_world import World, endpoint, network


def v4(text: str) -> Network:
    return ip_network(text)


def test_the_first_network_of_the_default_tenant_brings_the_tenant_and_takes_what_is_lowest() -> None:
    world = World()
    events = world.do(network("web"))
    assert events == (
        TenantCreated(tenant="default", subnet_pool=v4("11.0.0.0/8"), subnet_length=24),
        NetworkAdded(network="web", subnets=(v4("11.0.0.0/24"),)),
        SegmentTaken(encap="vlan", tag=1, tenant="default", network="web"),
        NetworkCreated(
            tenant="default", network="web", encap="vlan", tag=1, is_tag_chosen=True, subnets=(v4("11.0.0.0/24"),)
        ),
    )
    assert [line.subject for line in world.journal] == [
        "np.v1.evt.default.tenant.tenant-created",
        "np.v1.evt.default.tenant.network-added",
        "np.v1.evt.fabric.segment.segment-taken",
        "np.v1.evt.default.net.web.network-created._",
    ]
    assert [type(event).__name__ for event in world.do(network("db"))] == [
        "NetworkAdded",
        "SegmentTaken",
        "NetworkCreated",
    ]
    assert world.show_network("db").status.subnets == (v4("11.0.1.0/24"),)
    assert world.show_network("db").status.tag == 2


@pytest.mark.parametrize(
    "again",
    [
        network("web"),
        network("web", "10.1.0.0/16"),
        network("web", tag=7),
        network("web", "10.1.0.0/16", tag=7, gateways=("10.1.0.1",)),
    ],
)
def test_an_identical_network_is_there_already(again: CreateNetwork) -> None:
    world = World()
    world.network("web", "10.1.0.0/16", tag=7, gateways=("10.1.0.1",))
    assert world.do(again) == ()


@pytest.mark.parametrize(
    ("again", "says"),
    [
        (network("web", "10.2.0.0/16"), "subnets are 10.1.0.0/16, asked for 10.2.0.0/16"),
        (network("web", "none"), "asked for none"),
        (network("web", tag=8), "tag is 7, asked for 8"),
        (network("web", encap="vxlan"), "encap is vlan, asked for vxlan"),
        (network("web", gateways=("10.1.0.2",)), "gateways are 10.1.0.1, asked for 10.1.0.2"),
    ],
)
def test_a_network_with_other_parameters_is_refused(again: CreateNetwork, says: str) -> None:
    world = World()
    world.network("web", "10.1.0.0/16", tag=7, gateways=("10.1.0.1",))
    refusal = world.refused(again)
    assert refusal.code == "network-exists"
    assert says in refusal.detail


def test_a_network_without_subnet_is_the_same_before_and_after_it_adopted_one() -> None:
    world = World()
    world.network("web", "none")
    assert world.do(network("web", "none")) == ()
    assert world.refused(network("web")).code == "network-exists"
    world.endpoint("e1", "11.1.1.1")
    assert world.do(network("web", "none")) == ()
    assert world.do(network("web", "11.1.1.0/24")) == ()
    assert world.show_network().spec.subnets == ()
    assert world.show_network().status.subnets == (v4("11.1.1.0/24"),)


@pytest.mark.parametrize("subnet", ["10.1.0.0/16", "10.1.3.0/24", "10.0.0.0/8"])
def test_a_subnet_that_overlaps_another_of_the_tenant_is_refused(subnet: str) -> None:
    world = World()
    world.network("web", "10.1.0.0/16")
    refusal = world.refused(network("db", subnet))
    assert refusal.code == "subnet-overlaps"
    assert refusal.detail == f"subnet {subnet} overlaps 10.1.0.0/16 of network web: choose another"


def test_two_tenants_may_have_the_same_subnet() -> None:
    world = World()
    world.do(CreateTenant(tenant="acme"))
    world.network("web", "10.1.0.0/16")
    world.network("web", "10.1.0.0/16", tenant="acme")
    assert world.show_network("web", "acme").status.tag == 2


def test_a_chosen_subnet_goes_around_those_that_are_taken() -> None:
    world = World()
    world.network("a", "11.0.0.128/25", "11.0.1.0/26")
    world.network("b")
    assert world.show_network("b").status.subnets == (v4("11.0.2.0/24"),)
    world.do(DeleteNetwork(tenant="default", network="a"))
    world.network("c")
    assert world.show_network("c").status.subnets == (v4("11.0.0.0/24"),)


def test_a_subnet_pool_runs_out() -> None:
    world = World()
    world.do(CreateTenant(tenant="acme", subnet_pool=v4("10.0.0.0/29"), subnet_length=30))
    world.network("a", tenant="acme")
    world.network("b", tenant="acme")
    assert world.refused(network("c", tenant="acme")).code == "pool-exhausted"


def test_an_ipv6_pool_gives_out_64s() -> None:
    world = World()
    world.do(CreateTenant(tenant="acme", subnet_pool=v4("fd00::/48")))
    world.network("a", tenant="acme")
    world.network("b", tenant="acme")
    assert world.show_network("b", "acme").status.subnets == (v4("fd00:0:0:1::/64"),)


def test_a_tag_in_use_is_refused_and_says_by_whom() -> None:
    world = World()
    world.do(CreateTenant(tenant="acme"))
    world.network("web", tag=12)
    refusal = world.refused(network("db", tenant="acme", tag=12))
    assert (refusal.code, refusal.detail) == ("tag-in-use", "vlan tag 12 is in use by network web of tenant default")
    assert world.do(network("db", tenant="acme", tag=12, encap="vxlan"))


def test_tags_come_from_the_tenants_ranges_and_run_out() -> None:
    world = World()
    world.do(CreateTenant(tenant="acme", vlans="10-11,150", vnis="5"))
    for name in ("a", "b", "c"):
        world.network(name, tenant="acme")
    assert [world.show_network(name, "acme").status.tag for name in ("a", "b", "c")] == [10, 11, 150]
    assert world.refused(network("d", tenant="acme")).code == "tags-exhausted"
    assert world.refused(network("d", tenant="acme", tag=12)).code == "tag-out-of-range"
    world.network("d", tenant="acme", encap="vxlan")
    assert world.show_network("d", "acme").status.tag == 5


def test_vnis_are_chosen_from_10000_but_may_be_lower_when_asked_for() -> None:
    world = World()
    world.network("a", encap="vxlan")
    world.network("b", encap="vxlan", tag=42)
    assert [world.show_network(name).status.tag for name in ("a", "b")] == [10000, 42]
    assert world.show_network("a").status.mtu_bytes == 1450


def test_a_network_whose_tag_nobody_asked_for_shows_none() -> None:
    world = World()
    world.network("a")
    world.network("b", tag=9)
    assert world.show_network("a").spec.tag is None
    assert world.show_network("b").spec.tag == 9


@pytest.mark.parametrize(
    ("subnets", "gateway", "code"),
    [
        (("auto",), "10.0.0.1", "gateway-outside-subnet"),
        (("10.0.0.0/24",), "10.0.0.0", "gateway-reserved"),
        (("10.0.0.0/24",), "10.0.0.255", "gateway-reserved"),
        (("fd00::/64",), "fd00::", "gateway-reserved"),
    ],
)
def test_a_gateway_is_an_address_of_the_subnet(subnets: tuple[str, ...], gateway: str, code: str) -> None:
    assert World().refused(network("web", *subnets, gateways=(gateway,))).code == code


def test_a_gateway_may_be_in_the_subnet_that_is_chosen() -> None:
    world = World()
    world.network("web", gateways=("11.0.0.1",))
    assert str(world.endpoint("e1").status.addresses[0]) == "11.0.0.2/24"


def test_delete_frees_tag_and_subnet() -> None:
    world = World()
    world.network("web")
    assert world.do(DeleteNetwork(tenant="default", network="web")) == (
        NetworkRemoved(network="web"),
        SegmentReleased(encap="vlan", tag=1),
        NetworkDeleted(tenant="default", network="web"),
    )
    world.network("db")
    assert world.show_network("db").status.tag == 1
    assert world.show_network("db").status.subnets == (v4("11.0.0.0/24"),)
    assert world.refused(DeleteNetwork(tenant="default", network="web")).code == "unknown-network"


def test_a_network_with_endpoints_is_not_deleted() -> None:
    world = World()
    world.network("web")
    for number in range(7):
        world.endpoint(f"e{number}")
    refusal = world.refused(DeleteNetwork(tenant="default", network="web"))
    assert refusal.code == "network-in-use"
    assert "7 endpoints (e0, e1, e2, e3, e4 and 2 more)" in refusal.detail


def test_a_tenant_with_networks_is_not_deleted() -> None:
    world = World()
    world.do(CreateTenant(tenant="acme"))
    world.network("web", tenant="acme")
    refusal = world.refused(DeleteTenant(tenant="acme"))
    assert refusal.code == "tenant-in-use"
    assert "web" in refusal.detail
    world.do(DeleteNetwork(tenant="acme", network="web"))
    assert world.do(DeleteTenant(tenant="acme")) == (TenantDeleted(tenant="acme"),)
    assert world.refused(network("web", tenant="acme")).code == "unknown-tenant"


def test_a_tenant_again_is_the_same_or_refused() -> None:
    world = World()
    world.do(CreateTenant(tenant="acme", vlans="150,10-100"))
    assert world.do(CreateTenant(tenant="acme")) == ()
    assert world.do(CreateTenant(tenant="acme", vlans="10-100, 150")) == ()
    for other in (
        CreateTenant(tenant="acme", vlans="10-101"),
        CreateTenant(tenant="acme", vnis="7"),
        CreateTenant(tenant="acme", subnet_pool=v4("10.0.0.0/8")),
        CreateTenant(tenant="acme", subnet_length=25),
    ):
        assert world.refused(other).code == "tenant-exists"


@pytest.mark.parametrize("pool", ["224.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "fe80::/64"])
def test_a_pool_that_is_not_unicast_is_refused(pool: str) -> None:
    assert World().refused(CreateTenant(tenant="acme", subnet_pool=v4(pool))).code == "pool-unusable"


def test_a_small_pool_is_one_subnet() -> None:
    world = World()
    world.do(CreateTenant(tenant="acme", subnet_pool=v4("10.0.0.0/28")))
    world.network("web", tenant="acme")
    assert world.show_network("web", "acme").status.subnets == (v4("10.0.0.0/28"),)


def test_what_is_not_there_is_unknown() -> None:
    world = World()
    assert world.refused(GetTenant(tenant="acme")).code == "unknown-tenant"
    assert world.refused(DeleteTenant(tenant="acme")).code == "unknown-tenant"
    assert world.refused(DeleteTenant(tenant="default")).code == "unknown-tenant"
    assert world.refused(network("web", tenant="acme")).code == "unknown-tenant"
    assert world.refused(GetNetwork(tenant="acme", network="web")).code == "unknown-tenant"
    assert world.refused(GetNetwork(tenant="default", network="web")).code == "unknown-network"
    assert world.refused(DeleteNetwork(tenant="default", network="web")).code == "unknown-network"
    assert world.refused(ListNetworks(tenant="acme")).code == "unknown-tenant"
    assert world.refused(endpoint("e1")).code == "unknown-network"


def test_lists_are_in_the_order_of_names() -> None:
    world = World()
    world.do(CreateTenant(tenant="acme"))
    for name in ("b", "a"):
        world.network(name)
    world.network("c", tenant="acme")
    assert _names(world.decide(ListNetworks(tenant="default")).reply) == ["a", "b"]
    assert _names(world.decide(ListNetworks(tenant="fabric")).reply) == ["c", "a", "b"]
    assert _names(world.decide(ListTenants(tenant="fabric")).reply) == ["acme", "default"]
    assert _names(World().decide(ListTenants(tenant="fabric")).reply) == ["default"]


def test_the_default_tenant_is_shown_before_its_first_use() -> None:
    reply = World().decide(GetTenant(tenant="default")).reply
    assert isinstance(reply, Item)
    assert reply.seq == 0
    assert ip_address("11.0.0.0") in reply.object.spec.subnet_pool  # type: ignore[union-attr]


def _names(reply: object) -> list[str]:
    assert isinstance(reply, Items)
    return [view.name for view in reply.objects if hasattr(view, "name")]
