"""Endpoints: addresses, MACs, tags, and where they are bound; every way it is refused."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

import pytest
from msgspec.structs import replace

from messages.endpoint import (
    AttachEndpoint,
    CreateEndpoint,
    DeleteEndpoint,
    DetachEndpoint,
    EndpointBound,
    EndpointCreated,
    EndpointDeleted,
    EndpointUnbound,
    EndpointView,
    GetEndpoint,
    ListEndpoints,
)
from messages.network import DeleteNetwork, NetworkRetagged, SubnetAdopted
from messages.port import PortBound, PortFailed, PortUnbound, PortWaiting
from messages.replies import Items
from messages.segment import SegmentReleased, SegmentTaken
from messages.tenant import CreateTenant, SubnetTaken
from tests.ipam_world import World, endpoint, network


@pytest.fixture
def world() -> World:
    world = World("h1", "h2")
    world.network("web", "10.0.0.0/24", gateways=("10.0.0.1",))
    return world


def attach(name: str, container: str = "netns:a", host: str = "h1", network: str | None = "web") -> AttachEndpoint:
    return AttachEndpoint(tenant="default", network=network, name=name, container=container, host=host)


def test_an_endpoint_gets_the_first_free_address_and_a_mac_of_its_own(world: World) -> None:
    (created,) = world.do(endpoint("e1"))
    assert isinstance(created, EndpointCreated)
    assert created.addresses == (ip_interface("10.0.0.2/24"),)
    assert len(created.endpoint) == 16
    assert set(created.endpoint) <= set("abcdefghijklmnopqrstuvwxyz234567")
    first = int(created.mac[:2], 16)
    assert first & 0b11 == 0b10, "locally administered, unicast"
    assert created.mac.endswith(":0a:00:00:02")
    assert world.journal[-1].subject == "np.v1.evt.default.net.web.endpoint-created._"
    assert world.endpoint("e2").status.mac[:5] == created.mac[:5]


def test_created_with_a_container_it_is_bound_by_the_same_event(world: World) -> None:
    (bound,) = world.do(endpoint("e1", "10.0.0.9", container="netns:a"))
    assert isinstance(bound, EndpointBound)
    assert bound == EndpointBound(
        tenant="default",
        network="web",
        endpoint=bound.endpoint,
        name="e1",
        host="h1",
        container="netns:a",
        addresses=(ip_interface("10.0.0.9/24"),),
        gateways=(ip_address("10.0.0.1"),),
        mac=bound.mac,
        encap="vlan",
        tag=1,
        mtu_bytes=1500,
        is_new=True,
        asked=(ip_address("10.0.0.9"),),
    )
    assert world.journal[-1].subject == "np.v1.evt.default.net.web.endpoint-bound.h1"
    view = world.show("e1")
    assert (view.status.state, view.status.host, view.status.epoch) == ("pending", "h1", world.journal[-1].seq)


@pytest.mark.parametrize(
    ("address", "code", "says"),
    [
        ("10.0.1.1", "address-outside-subnet", "expected one of 10.0.0.0/24"),
        ("10.0.0.0", "address-reserved", "the network address of 10.0.0.0/24"),
        ("10.0.0.255", "address-reserved", "the broadcast address of 10.0.0.0/24"),
        ("10.0.0.1", "address-reserved", "the gateway of 10.0.0.0/24"),
        ("10.0.0.2", "address-in-use", "in use by endpoint e1"),
        ("127.0.0.1", "address-outside-subnet", "expected one of"),
    ],
)
def test_an_address_that_cannot_be_had_is_refused(world: World, address: str, code: str, says: str) -> None:
    world.endpoint("e1")
    refusal = world.refused(endpoint("e2", address))
    assert refusal.code == code
    assert says in refusal.detail


def test_point_to_point_subnets_have_no_reserved_addresses() -> None:
    world = World()
    world.network("four", "10.0.0.0/31")
    world.network("six", "fd00::/127")
    addresses = [str(world.endpoint(name, network=net).status.addresses[0]) for net in ("four", "six") for name in "ab"]
    assert addresses == ["10.0.0.0/31", "10.0.0.1/31", "fd00::/127", "fd00::1/127"]
    assert world.refused(endpoint("c", network="four")).code == "subnet-full"


def test_a_network_of_both_families_gives_one_address_of_each() -> None:
    world = World()
    world.network("web", "10.0.0.0/30", "fd00::/64")
    assert [str(each) for each in world.endpoint("e1").status.addresses] == ["10.0.0.1/30", "fd00::1/64"]
    assert [str(each) for each in world.endpoint("e2", "fd00::9").status.addresses] == ["fd00::9/64", "10.0.0.2/30"]
    assert world.refused(endpoint("e3", "fd00::")).code == "address-reserved"
    assert world.refused(endpoint("e3")).code == "subnet-full"


def test_the_mac_of_an_ipv6_endpoint_is_a_hash_and_unique() -> None:
    world = World()
    world.network("six", "fd00::/64")
    macs = {world.endpoint(f"e{number}", network="six").status.mac for number in range(50)}
    assert len(macs) == 50


def test_a_mac_that_collides_is_salted(world: World) -> None:
    chosen = world.endpoint("e1").status.mac
    world.delete("e1")
    assert world.do(endpoint("other", "10.0.0.77", mac=chosen))
    salted = world.endpoint("e1").status.mac
    assert salted != chosen
    assert salted.endswith(":0a:00:00:02")
    assert world.refused(endpoint("e3", mac=chosen)).code == "mac-in-use"


def test_an_identical_endpoint_is_there_already(world: World) -> None:
    world.endpoint("e1", "10.0.0.9", container="netns:a")
    mac = world.show("e1").status.mac
    for same in (
        endpoint("e1"),
        endpoint("e1", "10.0.0.9"),
        endpoint("e1", mac=mac),
        endpoint("e1", tag=1),
        endpoint("e1", "10.0.0.9", container="netns:a"),
    ):
        assert world.do(same) == ()


def test_an_endpoint_with_other_parameters_is_refused(world: World) -> None:
    world.endpoint("e1", "10.0.0.9", container="netns:a")
    world.endpoint("e2")
    for other, says in (
        (endpoint("e1", "10.0.0.10"), "addresses are 10.0.0.9, asked for 10.0.0.10"),
        (endpoint("e1", mac="02:00:00:00:00:09"), "asked for 02:00:00:00:00:09"),
        (endpoint("e1", container="netns:b"), "it is in netns:a on h1, asked for netns:b on h1"),
        (endpoint("e1", container="netns:a", host="h2"), "asked for netns:a on h2"),
        (endpoint("e2", container="netns:a"), "it is not attached"),
    ):
        refusal = world.refused(other)
        assert refusal.code == "endpoint-exists"
        assert says in refusal.detail
    assert world.refused(endpoint("e1", tag=99)).code == "tag-mismatch"


# --- a network without a subnet, and tags: the seed's walk


def test_the_first_address_makes_a_network_adopt_the_subnet_around_it() -> None:
    world = World("h1")
    world.network("tenant1-net1", "none")
    events = world.do(endpoint("ep1", "11.1.1.1", network="tenant1-net1", tag=12))
    assert [type(event) for event in events] == [
        SubnetTaken,
        SubnetAdopted,
        SegmentReleased,
        SegmentTaken,
        NetworkRetagged,
        EndpointCreated,
    ]
    assert world.show("ep1", "tenant1-net1").status.addresses == (ip_interface("11.1.1.1/24"),)
    assert world.show("ep1", "tenant1-net1").status.tag == 12
    assert world.show_network("tenant1-net1").spec.tag == 12
    assert str(world.endpoint("ep2", network="tenant1-net1").status.addresses[0]) == "11.1.1.2/24"
    assert world.refused(network("other", "11.1.1.0/25")).code == "subnet-overlaps"


def test_an_ipv6_address_makes_it_adopt_a_64() -> None:
    world = World()
    world.network("web", "none")
    assert world.do(endpoint("e1", "fd00:1::9", "fd00:1::a"))[0] == SubnetTaken(
        network="web", subnet=ip_network("fd00:1::/64")
    )
    assert world.do(endpoint("e2", "10.9.0.1"))[:2] == (
        SubnetTaken(network="web", subnet=ip_network("10.9.0.0/24")),
        SubnetAdopted(subnet=ip_network("10.9.0.0/24")),
    )
    assert len(world.show("e2").status.addresses) == 2


@pytest.mark.parametrize(
    ("addresses", "code"),
    [
        ((), "no-subnet"),
        (("11.1.1.0",), "address-reserved"),
        (("11.1.1.255",), "address-reserved"),
        (("11.1.1.1", "11.1.2.1"), "address-outside-subnet"),
        (("127.0.0.1",), "address-unusable"),
        (("224.0.0.1",), "address-unusable"),
        (("0.0.0.1",), "address-unusable"),
        (("10.0.0.9",), "subnet-overlaps"),
        (("fe80::1",), "address-unusable"),
    ],
)
def test_what_cannot_be_adopted_is_refused(world: World, addresses: tuple[str, ...], code: str) -> None:
    world.network("bare", "none")
    refusal = world.refused(endpoint("e1", *addresses, network="bare"))
    assert refusal.code == code
    if code == "no-subnet":
        assert "give the endpoint an address" in refusal.detail


def test_a_chosen_tag_gives_way_to_the_first_endpoints_only(world: World) -> None:
    assert world.do(endpoint("e1", tag=1))
    refusal = world.refused(endpoint("e2", tag=12))
    assert refusal.code == "tag-mismatch"
    assert "vlan tag 1" in refusal.detail


def test_a_tag_that_was_asked_for_gives_way_to_none() -> None:
    world = World()
    world.network("web", tag=7)
    assert world.refused(endpoint("e1", tag=12)).code == "tag-mismatch"


def test_an_endpoints_tag_is_one_that_its_network_may_have(world: World) -> None:
    world.network("db", tag=12)
    assert world.refused(endpoint("e1", tag=12)).code == "tag-in-use"
    assert world.refused(endpoint("e1", tag=10000)).code == "tag-out-of-range"
    assert world.do(endpoint("e1", tag=4094))[0] == SegmentReleased(encap="vlan", tag=1)


# --- attach and detach


def test_attach_binds_once_and_detach_unbinds(world: World) -> None:
    world.endpoint("e1")
    (bound,) = world.do(attach("e1"))
    assert isinstance(bound, EndpointBound)
    epoch = world.journal[-1].seq
    assert world.do(attach("e1")) == ()
    assert world.do(DetachEndpoint(tenant="default", name="e1", network="web", container="netns:a")) == (
        EndpointUnbound(endpoint=bound.endpoint, name="e1", host="h1", epoch=epoch),
    )
    assert world.journal[-1].subject == "np.v1.evt.default.net.web.endpoint-unbound.h1"
    assert world.do(DetachEndpoint(tenant="default", name="e1", network="web")) == ()
    assert world.show("e1").status.state == "pending"


def test_an_endpoint_bound_elsewhere_is_not_attached_nor_detached(world: World) -> None:
    world.endpoint("e1", container="netns:a")
    for elsewhere in (attach("e1", "netns:b"), attach("e1", "netns:a", "h2")):
        refusal = world.refused(elsewhere)
        assert refusal.code == "endpoint-bound"
        assert "bound to container netns:a on host h1: detach it first" in refusal.detail
    other = DetachEndpoint(tenant="default", name="e1", network="web", container="netns:b")
    assert world.refused(other).code == "endpoint-bound-elsewhere"


def test_a_move_ends_one_binding_and_begins_the_next_in_one_decision(world: World) -> None:
    world.endpoint("e1", container="netns:a")
    epoch = world.journal[-1].seq
    before = world.show("e1").status
    move = replace(attach("e1", "netns:b", "h2"), move=True)
    ended, began = world.do(move)
    assert ended == EndpointUnbound(endpoint=world.show("e1").id, name="e1", host="h1", epoch=epoch)
    assert isinstance(began, EndpointBound)
    assert (began.host, began.container, began.mac, began.is_new) == ("h2", "netns:b", before.mac, False)
    lines = [line.subject.rpartition(".")[2] for line in world.journal[-2:]]
    assert lines == ["h1", "h2"], "each host hears it on its own filter"
    status = world.show("e1").status
    assert (status.host, status.epoch, status.addresses) == ("h2", epoch + 2, before.addresses)
    assert world.do(move) == ()
    assert world.refused(replace(attach("e1", "netns:b", "h9"), move=True)).code == "unknown-host"


def test_a_move_of_what_is_bound_nowhere_is_an_attach(world: World) -> None:
    world.endpoint("e1")
    (began,) = world.do(replace(attach("e1"), move=True))
    assert isinstance(began, EndpointBound)


def test_nothing_is_bound_to_a_host_that_is_no_member(world: World) -> None:
    world.endpoint("e1")
    assert world.refused(attach("e1", host="h9")).code == "unknown-host"
    refusal = world.refused(endpoint("e2", container="netns:a", host="h9"))
    assert "members: h1, h2" in refusal.detail


def test_one_container_may_hold_several_endpoints(world: World) -> None:
    world.network("db")
    world.endpoint("e1", container="netns:a")
    world.endpoint("e2", container="netns:a")
    world.endpoint("e1", network="db", container="netns:a")
    assert [world.show(*each).status.host for each in (("e1", "web"), ("e2", "web"), ("e1", "db"))] == ["h1"] * 3


def test_without_network_the_one_match_is_meant(world: World) -> None:
    world.endpoint("e1")
    assert world.do(attach("e1", network=None))
    world.network("db")
    world.endpoint("e1", network="db")
    for ambiguous in (
        attach("e1", network=None),
        DetachEndpoint(tenant="default", name="e1"),
        DeleteEndpoint(tenant="default", name="e1"),
        GetEndpoint(tenant="default", name="e1"),
    ):
        refusal = world.refused(ambiguous)
        assert refusal.code == "ambiguous-endpoint"
        assert "(db, web)" in refusal.detail
    world.delete("e1", "db")
    assert world.do(DeleteEndpoint(tenant="default", name="e1"))


@pytest.mark.parametrize(
    ("tenant", "net", "code"),
    [
        ("default", "web", "unknown-endpoint"),
        ("default", None, "unknown-endpoint"),
        ("default", "nowhere", "unknown-network"),
        ("acme", "web", "unknown-tenant"),
        ("acme", None, "unknown-tenant"),
    ],
)
def test_what_is_not_there_is_unknown(world: World, tenant: str, net: str | None, code: str) -> None:
    for command in (
        AttachEndpoint(tenant=tenant, network=net, name="e9", container="netns:a", host="h1"),
        DetachEndpoint(tenant=tenant, network=net, name="e9"),
        DeleteEndpoint(tenant=tenant, network=net, name="e9"),
        GetEndpoint(tenant=tenant, network=net, name="e9"),
    ):
        assert world.refused(command).code == code
    if net != "web" or tenant != "default":
        creating = CreateEndpoint(tenant=tenant, network=net or "nowhere", name="e9")
        assert world.refused(creating).code in ("unknown-network", "unknown-tenant")


def test_delete_says_what_the_address_waits_for(world: World) -> None:
    world.endpoint("e1", container="netns:a")
    bound, epoch = world.bound_event("e1"), world.journal[-1].seq
    assert world.do(DeleteEndpoint(tenant="default", name="e1", network="web")) == (
        EndpointDeleted(endpoint=bound.endpoint, name="e1", addresses=bound.addresses, host="h1", epoch=epoch),
    )
    assert world.journal[-1].subject.endswith("endpoint-deleted.h1")
    world.endpoint("e2")
    (deleted,) = world.do(DeleteEndpoint(tenant="default", name="e2", network="web"))
    assert isinstance(deleted, EndpointDeleted)
    assert (deleted.host, deleted.epoch) == ("", 0)
    assert world.journal[-1].subject.endswith("endpoint-deleted._")


# --- what is shown


def test_the_state_shown_is_what_the_host_last_said_of_this_binding(world: World) -> None:
    world.endpoint("e1")
    assert world.show("e1").status.state == "pending"
    epoch = world.attach("e1")
    about = {
        "tenant": "default",
        "network": "web",
        "endpoint": world.show("e1").id,
        "name": "e1",
        "host": "h1",
    }
    assert (world.show("e1").status.state, world.show("e1").status.port) == ("pending", "")
    world.report(PortWaiting(**about, epoch=epoch, code="container-absent", reason="no container a yet"))
    assert (world.show("e1").status.state, world.show("e1").status.reason) == ("waiting", "no container a yet")
    world.report(PortFailed(**about, epoch=epoch, code="switch-refused", reason="ofport -1"))
    assert (world.show("e1").status.state, world.show("e1").status.reason) == ("failed", "ofport -1")
    world.report(PortBound(**about, epoch=epoch, device="npx", interface="eth0"))
    status = world.show("e1").status
    assert (status.state, status.port, status.device, status.interface) == ("bound", "npx", "npx", "eth0")
    assert status.seq == world.journal[-1].seq
    world.report(PortUnbound(**about, epoch=epoch))
    assert "taken the port away" in world.show("e1").status.reason
    world.detach("e1")
    epoch = world.attach("e1")
    assert world.show("e1").status.state == "pending"
    world.report(PortBound(**about, epoch=epoch, device="npx", interface="eth0"))
    world.report(PortFailed(**about, epoch=epoch - 2, code="late", reason="about an older binding"))
    assert world.show("e1").status.state == "bound"


def test_lists_go_by_tenant_network_and_name(world: World) -> None:
    world.do(CreateTenant(tenant="acme"))
    world.network("db")
    world.network("db", tenant="acme")
    for name, net in (("e2", "web"), ("e1", "web"), ("e3", "db")):
        world.endpoint(name, network=net)
    world.endpoint("e0", network="db", tenant="acme")
    assert _listed(world, "default", None) == ["db/e3", "web/e1", "web/e2"]
    assert _listed(world, "default", "web") == ["web/e1", "web/e2"]
    assert _listed(world, "fabric", None) == ["db/e0", "db/e3", "web/e1", "web/e2"]
    assert world.refused(ListEndpoints(tenant="default", network="nowhere")).code == "unknown-network"
    assert world.refused(ListEndpoints(tenant="nobody")).code == "unknown-tenant"
    world.do(DeleteEndpoint(tenant="acme", network="db", name="e0"))
    world.do(DeleteNetwork(tenant="acme", network="db"))
    assert _listed(world, "acme", None) == []


def _listed(world: World, tenant: str, net: str | None) -> list[str]:
    reply = world.decide(ListEndpoints(tenant=tenant, network=net)).reply
    assert isinstance(reply, Items)
    return [f"{view.network}/{view.name}" for view in reply.objects if isinstance(view, EndpointView)]
