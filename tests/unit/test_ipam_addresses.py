"""Which addresses are given out: ranges, exclusions, pools, subnets of any size; and how that is shown."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network

import pytest

from messages.addresses import AddressRange, parse_range
from messages.codec import JSON, encode
from messages.endpoint import CreateEndpoint
from messages.ipam import COUNT_MAX, AddressesView, ShowIpam, SubnetAddresses
from messages.network import AddressingChanged, CreateNetwork, DeleteNetwork, SetNetwork
from messages.pool import CreatePool, DeletePool, GetPool, ListPools, PoolCreated, PoolDeleted, PoolView
from messages.replies import Item, Items
from tests.ipam_world import World, endpoint, network


def ranges(*texts: str) -> tuple[AddressRange, ...]:
    return tuple(map(parse_range, texts))


def made(*subnets: str, within: tuple[str, ...] = (), exclude: tuple[str, ...] = (), gateway: str = "") -> World:
    """A world with network web."""
    world = World("h1", "h2")
    world.do(
        CreateNetwork(
            tenant="default",
            network="web",
            subnets=tuple(map(ip_network, subnets)),
            ranges=ranges(*within),
            exclude=ranges(*exclude),
            gateways=(ip_address(gateway),) if gateway else (),
        )
    )
    return world


def pool(world: World, name: str, *texts: str) -> None:
    world.do(CreatePool(tenant="default", network="web", name=name, ranges=ranges(*texts)))


def pooled(name: str, of: str, *addresses: str) -> CreateEndpoint:
    asked = tuple(map(ip_address, addresses))
    return CreateEndpoint(tenant="default", network="web", name=name, pool=of, addresses=asked)


def shown(world: World, at: int = 0) -> SubnetAddresses:
    reply = world.decide(ShowIpam(tenant="default", network="web")).reply
    assert isinstance(reply, Items)
    view = reply.objects[0]
    assert isinstance(view, AddressesView)
    return view.subnets[at]


def text(world: World, what: str, at: int = 0) -> str:
    return ", ".join(map(str, getattr(shown(world, at), what).ranges))


def addresses(world: World, name: str) -> list[str]:
    return [str(each.ip) for each in world.show(name).status.addresses]


def test_addresses_are_chosen_within_the_ranges_and_asked_for_anywhere_in_the_subnet() -> None:
    world = made("10.1.1.0/24", within=("10.1.1.10-10.1.1.11", "10.1.1.20"))
    given = [world.endpoint(name).status.addresses[0] for name in ("a", "b", "c")]
    assert list(map(str, given)) == ["10.1.1.10/24", "10.1.1.11/24", "10.1.1.20/24"]
    full = world.refused(endpoint("d"))
    assert full.code == "subnet-full"
    assert "outside the ranges 10.1.1.10-10.1.1.11, 10.1.1.20" in str(full)
    assert str(world.endpoint("e", "10.1.1.200").status.addresses[0]) == "10.1.1.200/24"
    assert text(world, "used") == "10.1.1.10-10.1.1.11, 10.1.1.20, 10.1.1.200"
    assert shown(world).free.count == 0
    assert shown(world).on_request.count == 250


def test_a_subnet_without_a_range_is_used_whole_beside_one_with() -> None:
    world = made("10.1.1.0/30", "10.1.2.0/24", within=("10.1.2.7",))
    assert [addresses(world, world.endpoint(name).name) for name in ("a", "b", "c")] == [
        ["10.1.1.1"],
        ["10.1.1.2"],
        ["10.1.2.7"],
    ]


def test_nobody_gets_what_is_excluded() -> None:
    world = made("10.1.1.0/28", exclude=("10.1.1.1-10.1.1.3", "10.1.1.5"))
    assert addresses(world, world.endpoint("a").name) == ["10.1.1.4"]
    assert addresses(world, world.endpoint("b").name) == ["10.1.1.6"]
    refused = world.refused(endpoint("c", "10.1.1.2"))
    assert (refused.code, str(refused)) == (
        "address-excluded",
        "address 10.1.1.2 is excluded from network web (10.1.1.1-10.1.1.3): choose another",
    )
    assert text(world, "excluded") == "10.1.1.1-10.1.1.3, 10.1.1.5"
    assert world.show_network().spec.exclude == ranges("10.1.1.1-10.1.1.3", "10.1.1.5")


def test_exclusions_are_changed_while_nobody_has_them() -> None:
    world = made("10.1.1.0/28", exclude=("10.1.1.1",))
    change = SetNetwork(tenant="default", network="web", exclude=ranges("10.1.1.8", "10.1.1.4-10.1.1.5"))
    assert world.do(change) == (AddressingChanged(ranges=(), excluded=ranges("10.1.1.4-10.1.1.5", "10.1.1.8")),)
    assert world.do(change) == ()
    for name in ("a", "b", "c", "d"):
        world.endpoint(name)
    assert text(world, "used") == "10.1.1.1-10.1.1.3, 10.1.1.6"
    refused = world.refused(SetNetwork(tenant="default", network="web", exclude=ranges("10.1.1.6-10.1.1.7")))
    assert refused.code == "exclusion-in-use"
    assert str(refused).startswith("10.1.1.6-10.1.1.7 cannot be excluded: d of network web has addresses of it")
    outside = world.refused(SetNetwork(tenant="default", network="web", exclude=ranges("10.1.2.1")))
    assert outside.code == "range-outside-subnet"
    assert world.do(SetNetwork(tenant="default", network="web", exclude=())) == (
        AddressingChanged(ranges=(), excluded=()),
    )
    world.do(SetNetwork(tenant="default", network="web", ranges=ranges("10.1.1.9-10.1.1.10")))
    assert addresses(world, world.endpoint("e").name) == ["10.1.1.9"]


def test_the_same_network_again_is_the_same_only_with_the_same_ranges() -> None:
    world = made("10.1.1.0/28", within=("10.1.1.8-10.1.1.10",), exclude=("10.1.1.9",))
    assert world.do(network("web", "10.1.1.0/28")) == ()
    other = CreateNetwork(
        tenant="default", network="web", subnets=(ip_network("10.1.1.0/28"),), ranges=ranges("10.1.1.7")
    )
    assert "ranges are 10.1.1.8-10.1.1.10, asked for 10.1.1.7" in str(world.refused(other))


def test_a_pool_is_for_those_who_ask_for_it() -> None:
    world = made("10.1.1.0/28")
    assert world.do(CreatePool(tenant="default", network="web", name="front", ranges=ranges("10.1.1.1-10.1.1.2"))) == (
        PoolCreated(name="front", ranges=ranges("10.1.1.1-10.1.1.2")),
    )
    assert addresses(world, world.endpoint("a").name) == ["10.1.1.3"]
    world.do(pooled("b", "front"))
    assert addresses(world, "b") == ["10.1.1.1"]
    assert world.show("b").spec.pool == "front"
    assert addresses(world, world.endpoint("c", "10.1.1.2").name) == ["10.1.1.2"]
    full = world.refused(pooled("d", "front"))
    assert (full.code, str(full)) == ("pool-full", "every address of pool front (10.1.1.1-10.1.1.2) is taken")
    outside = world.refused(pooled("d", "front", "10.1.1.9"))
    assert outside.code == "address-outside-pool"
    assert world.refused(pooled("d", "back")).code == "unknown-pool"
    assert world.refused(pooled("a", "front")).code == "endpoint-exists"
    reply = world.decide(GetPool(tenant="default", network="web", name="front")).reply
    assert isinstance(reply, Item)
    assert isinstance(reply.object, PoolView)
    assert reply.object.status.endpoints == 1


def test_a_pool_goes_when_nobody_is_of_it_and_with_its_network() -> None:
    world = made("10.1.1.0/28")
    pool(world, "front", "10.1.1.1-10.1.1.2")
    world.do(pooled("a", "front"))
    gone = DeletePool(tenant="default", network="web", name="front")
    assert str(world.refused(gone)) == "pool front still has endpoints (a): delete them first"
    world.delete("a")
    assert world.do(gone) == (PoolDeleted(name="front"),)
    assert world.refused(gone).code == "unknown-pool"
    assert addresses(world, world.endpoint("b").name) == ["10.1.1.1"]
    world.delete("b")
    pool(world, "front", "10.1.1.1-10.1.1.2")
    world.do(DeleteNetwork(tenant="default", network="web"))
    world.network("web", "10.1.1.0/28")
    reply = world.decide(ListPools(tenant="default")).reply
    assert isinstance(reply, Items)
    assert reply.objects == ()


@pytest.mark.parametrize(
    ("name", "texts", "code"),
    [
        ("front", ("10.1.1.1",), "pool-exists"),
        ("back", ("10.1.1.2-10.1.1.4",), "pool-overlaps"),
        ("back", ("10.1.1.8",), "range-excluded"),
        ("back", ("10.1.2.1",), "range-outside-subnet"),
        ("back", ("10.1.1.14-10.1.1.17",), "range-outside-subnet"),
    ],
)
def test_a_pool_that_cannot_be_is_refused(name: str, texts: tuple[str, ...], code: str) -> None:
    world = made("10.1.1.0/28", exclude=("10.1.1.7-10.1.1.9",))
    pool(world, "front", "10.1.1.1-10.1.1.3")
    assert world.refused(CreatePool(tenant="default", network="web", name=name, ranges=ranges(*texts))).code == code


def test_a_pool_and_an_exclusion_keep_apart() -> None:
    world = made("10.1.1.0/28")
    pool(world, "front", "10.1.1.1-10.1.1.3")
    refused = world.refused(SetNetwork(tenant="default", network="web", exclude=ranges("10.1.1.3-10.1.1.4")))
    assert str(refused) == "10.1.1.3-10.1.1.4 cannot be excluded: pool front has addresses of it"


def test_a_pool_of_one_family_leaves_the_other_to_the_subnet() -> None:
    world = made("10.1.1.0/28", "fd00::/64")
    pool(world, "front", "10.1.1.5")
    world.do(pooled("a", "front"))
    assert addresses(world, "a") == ["10.1.1.5", "fd00::1"]


@pytest.mark.parametrize(
    ("subnet", "first", "count"),
    [
        ("10.0.0.0/8", "10.0.0.1", (1 << 24) - 2),
        ("10.1.1.0/31", "10.1.1.0", 2),
        ("10.1.1.0/30", "10.1.1.1", 2),
        ("fd00::/127", "fd00::", 2),
        ("fd00::/126", "fd00::1", 3),
        ("fd00::/64", "fd00::1", COUNT_MAX),
        ("fd00::/48", "fd00::1", COUNT_MAX),
    ],
)
def test_the_smallest_and_the_largest_subnets(subnet: str, first: str, count: int) -> None:
    world = made(subnet)
    assert shown(world).free.count == count
    assert addresses(world, world.endpoint("a").name) == [first]
    taken = 1
    while count < 4 and taken < count:
        world.endpoint(f"b{taken}")
        taken += 1
    if count < 4:
        assert world.refused(endpoint("z")).code == "subnet-full"
        assert text(world, "free") == ""
    json.loads(encode(world.decide(ShowIpam(tenant="default")).reply, JSON))  # type: ignore[arg-type]


def test_every_address_is_shown_once_and_rests_are_over_when_they_are() -> None:
    world = made("10.1.1.0/24", exclude=("10.1.1.100-10.1.1.109",), gateway="10.1.1.254")
    pool(world, "front", "10.1.1.200-10.1.1.209")
    for number in range(6):
        world.endpoint(f"e{number}", container=f"netns:c{number}", host="h1")
    world.delete("e1")
    assert text(world, "used") == "10.1.1.1, 10.1.1.3-10.1.1.6"
    assert text(world, "resting") == "10.1.1.2"
    assert shown(world).rests_for == ("h1",)
    assert text(world, "free") == "10.1.1.7-10.1.1.99, 10.1.1.110-10.1.1.199, 10.1.1.210-10.1.1.253"
    assert text(world, "pooled") == "10.1.1.200-10.1.1.209"
    assert text(world, "reserved") == "10.1.1.0, 10.1.1.254-10.1.1.255"
    world.rest_over()
    assert text(world, "resting") == ""
    assert shown(world).rests_for == ()
    assert text(world, "free").startswith("10.1.1.2, 10.1.1.7-")
    view = shown(world)
    sets = (view.used, view.free, view.resting, view.excluded, view.reserved, view.pooled, view.on_request)
    assert sum(each.count for each in sets) == 256


def test_a_long_list_of_ranges_is_cut_and_says_so() -> None:
    world = made("10.0.0.0/16")
    first = int(ip_address("10.0.0.1"))
    for number in range(1200):
        world.endpoint(f"e{number}", str(ip_address(first + 2 * number)))
    used = shown(world).used
    assert (used.count, len(used.ranges), used.more) == (1200, 1000, 200)
