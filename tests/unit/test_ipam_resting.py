"""What was freed rests until its host has said that the port is gone, and 2 s more."""

from __future__ import annotations

from messages.endpoint import DeleteEndpoint
from messages.host import GetHost, HostJoined, HostRemoved, JoinHost, ListHosts, RemoveHost
from messages.network import DeleteNetwork
from messages.port import PortBound, PortUnbound
from messages.replies import Item, Items
from tests.ipam_world import World, endpoint, network


def rested_world() -> World:
    """`old` was bound on h1 and is deleted; its address 10.0.0.1 rests."""
    world = World("h1", "h2")
    world.network("web", "10.0.0.0/29")
    world.endpoint("old", container="netns:a")
    world.delete("old")
    return world


def test_an_address_rests_until_its_host_has_confirmed_and_then_2_s() -> None:
    world = rested_world()
    world.wait_s(1000)
    refusal = world.refused(endpoint("new", "10.0.0.1"))
    assert (refusal.code, "until host h1 has taken its port away" in refusal.detail) == ("address-resting", True)
    assert str(world.endpoint("new").status.addresses[0]) == "10.0.0.2/29"
    world.confirm_gone()
    world.wait_s(1.9)
    assert "2 s" in world.refused(endpoint("new2", "10.0.0.1")).detail
    world.wait_s(0.1)
    assert str(world.endpoint("new2").status.addresses[0]) == "10.0.0.1/29"


def test_its_own_name_may_have_it_back_at_once_with_the_same_mac() -> None:
    world = rested_world()
    mac = world.bound_event("old").mac
    back = world.endpoint("old")
    assert str(back.status.addresses[0]) == "10.0.0.1/29"
    assert back.status.mac == mac
    assert back.id != world.bound_event("old").endpoint


def test_taken_back_and_freed_again_it_still_waits_for_the_first_port() -> None:
    world = rested_world()
    world.endpoint("old")
    world.delete("old")
    assert world.refused(endpoint("new", "10.0.0.1")).code == "address-resting"
    world.rest_over()
    assert world.do(endpoint("new", "10.0.0.1"))


def test_an_endpoint_that_was_never_bound_leaves_its_address_free() -> None:
    world = World("h1")
    world.network("web", "10.0.0.0/29")
    world.endpoint("old")
    world.delete("old")
    assert str(world.endpoint("new").status.addresses[0]) == "10.0.0.1/29"


def test_a_detached_endpoint_leaves_its_address_resting_all_the_same() -> None:
    world = World("h1", "h2")
    world.network("web", "10.0.0.0/29")
    world.endpoint("old")
    world.attach("old", "h1")
    world.detach("old")
    world.attach("old", "h2")
    world.detach("old")
    deleted = world.do(DeleteEndpoint(tenant="default", name="old", network="web"))
    assert len(deleted) == 1
    assert "h1, h2" in world.refused(endpoint("new", "10.0.0.1")).detail
    world.rest_over()
    assert world.do(endpoint("new", "10.0.0.1"))


def test_a_port_that_came_back_after_it_was_gone_is_waited_for() -> None:
    world = World("h1")
    world.network("web", "10.0.0.0/29")
    world.endpoint("old")
    epoch = world.attach("old")
    bound = world.bound_event("old")
    world.detach("old")
    world.confirm_gone()
    world.report(
        PortBound(
            tenant="default",
            network="web",
            endpoint=bound.endpoint,
            name="old",
            host="h1",
            epoch=epoch,
            device="np1",
            interface="eth0",
        )
    )
    world.delete("old")
    world.wait_s(5)
    assert world.refused(endpoint("new", "10.0.0.1")).code == "address-resting"


def test_a_late_word_about_an_older_binding_ends_no_rest() -> None:
    world = World("h1")
    world.network("web", "10.0.0.0/29")
    world.endpoint("old")
    first = world.attach("old")
    world.detach("old")
    second = world.attach("old")
    world.delete("old")
    about = {"tenant": "default", "network": "web", "endpoint": world.bound_event("old").endpoint, "name": "old"}
    world.report(PortUnbound(**about, host="h1", epoch=first))
    world.wait_s(5)
    assert world.refused(endpoint("new", "10.0.0.1")).code == "address-resting"
    world.report(PortUnbound(**about, host="h1", epoch=second))
    world.wait_s(2)
    assert world.do(endpoint("new", "10.0.0.1"))


def test_removing_the_host_ends_the_rest() -> None:
    world = rested_world()
    world.do(RemoveHost(tenant="fabric", host="h1"))
    assert world.do(endpoint("new", "10.0.0.1"))
    world.do(JoinHost(tenant="fabric", host="h1", driver="ovs", datapath="netdev", version="0"))
    assert str(world.endpoint("new2").status.addresses[0]) == "10.0.0.2/29"


def test_a_full_subnet_says_how_many_rest() -> None:
    world = rested_world()
    for number in range(5):
        world.endpoint(f"e{number}")
    refusal = world.refused(endpoint("new"))
    assert (refusal.code, "1 of them rest" in refusal.detail) == ("subnet-full", True)


def test_rests_outlive_their_network() -> None:
    world = rested_world()
    world.do(DeleteNetwork(tenant="default", network="web"))
    world.network("web", "10.0.0.0/29")
    assert str(world.endpoint("new").status.addresses[0]) == "10.0.0.2/29"
    world.rest_over()
    assert str(world.endpoint("new2").status.addresses[0]) == "10.0.0.1/29"


def test_a_gateway_may_be_where_something_rests_and_is_never_given_out() -> None:
    world = rested_world()
    world.do(DeleteNetwork(tenant="default", network="web"))
    world.network("web", "10.0.0.0/29", gateways=("10.0.0.1",))
    world.rest_over()
    assert str(world.endpoint("old").status.addresses[0]) == "10.0.0.2/29"


def test_a_tag_is_not_for_another_network_while_a_port_may_still_carry_it() -> None:
    world = rested_world()
    world.do(DeleteNetwork(tenant="default", network="web"))
    refusal = world.refused(network("db", tag=1))
    assert (refusal.code, "host h1" in refusal.detail) == ("tag-resting", True)
    world.network("db")
    assert world.show_network("db").status.tag == 2
    world.confirm_gone()
    world.network("db2", tag=1)
    assert world.show_network("db2").status.tag == 1


def test_a_tag_is_for_its_own_network_at_once() -> None:
    world = rested_world()
    world.do(DeleteNetwork(tenant="default", network="web"))
    assert world.do(network("web", tag=1))


# --- hosts


def test_a_host_joins_once_and_says_what_is_new() -> None:
    world = World("h1")
    again = JoinHost(tenant="fabric", host="h1", driver="ovs", datapath="netdev", version="0")
    assert world.do(again) == ()
    newer = JoinHost(tenant="fabric", host="h1", driver="ovs", datapath="netdev", version="1", bridge="vlanBr")
    assert world.do(newer) == (HostJoined(host="h1", driver="ovs", datapath="netdev", version="1", bridge="vlanBr"),)
    reply = world.decide(GetHost(tenant="fabric", host="h1")).reply
    assert isinstance(reply, Item)
    assert (reply.object.spec.version, reply.object.status.seq) == ("1", 2)  # type: ignore[union-attr]


def test_a_host_that_holds_endpoints_is_not_removed() -> None:
    world = World("h1", "h2")
    world.network("web")
    world.endpoint("e1", container="netns:a")
    refusal = world.refused(RemoveHost(tenant="fabric", host="h1"))
    assert (refusal.code, "default/web/e1" in refusal.detail) == ("host-in-use", True)
    hosts = world.decide(ListHosts(tenant="fabric")).reply
    assert isinstance(hosts, Items)
    assert [view.status.endpoints for view in hosts.objects] == [1, 0]  # type: ignore[union-attr]
    world.detach("e1")
    assert world.do(RemoveHost(tenant="fabric", host="h1")) == (HostRemoved(host="h1"),)
    assert world.refused(RemoveHost(tenant="fabric", host="h1")).code == "unknown-host"
    assert world.refused(GetHost(tenant="fabric", host="h1")).code == "unknown-host"


def test_an_endpoint_on_a_host_that_was_removed_meanwhile_is_unreachable() -> None:
    world = World("h1")
    world.network("web")
    world.endpoint("e1", container="netns:a")
    world.record("np.v1.evt.fabric.host.host-removed", HostRemoved(host="h1"))
    assert world.show("e1").status.state == "unreachable"
