"""A container with several interfaces: what is asked of each of its addresses is answered through its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address, ip_interface

import msgspec
import pytest

from host_actor.drivers.contract import DropPort, EnsurePort, Part, PortSpec
from host_actor.drivers.ovs import OvsDriver
from tests.harness.netns import NetworkNamespace
from tests.harness.openvswitch import RunningSwitch
from tests.harness.ovs_world import OvsWorld, attached, done
from tests.requires import needs_ovs, needs_tool

pytestmark = [pytest.mark.anyio, needs_ovs, needs_tool("busybox")]


@pytest.fixture
def world(open_vswitch: RunningSwitch, netns: Callable[[str], NetworkNamespace]) -> OvsWorld:
    return OvsWorld(open_vswitch, netns)


@pytest.fixture
async def driver(world: OvsWorld) -> AsyncIterator[OvsDriver]:
    async with world.driver() as opened:
        yield opened


def rules(world: OvsWorld, container: int) -> list[str]:
    """The addresses that have a rule in this container."""
    said = [world.container(container).run("ip", family, "rule", "show", "pref", "30000").stdout for family in FAMILIES]
    return sorted(line.split()[2] for part in said for line in part.splitlines())


FAMILIES = ("-4", "-6")


async def dropped(driver: OvsDriver, spec: PortSpec) -> None:
    await done(driver, DropPort(spec.endpoint, spec.device))


async def test_two_endpoints_of_one_network_in_one_container_answer_each(world: OvsWorld, driver: OvsDriver) -> None:
    one, two = world.spec(1), world.spec(2, container=1)
    assert await attached(driver, one, two, world.spec(3)) == ["eth0", "eth1", "eth0"]
    for address in ("10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"):
        assert world.pings(3, address), address
    assert world.pings(1, "10.0.0.3")
    assert rules(world, 1) == ["10.0.0.2", "fd00::2"]
    assert rules(world, 3) == []


async def test_the_first_made_whole_again_is_no_longer_the_first_and_answers_too(
    world: OvsWorld, driver: OvsDriver
) -> None:
    one, two = world.spec(1), world.spec(2, container=1)
    await attached(driver, one, two, world.spec(3))
    for way in ("down", "up"):
        world.container(1).run("ip", "link", "set", "eth0", way)  # its routes are now behind the second's, or gone
    await done(driver, EnsurePort(one, frozenset({Part.LINK})))
    for address in ("10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"):
        assert world.pings(3, address), address
    assert rules(world, 1) == ["10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"]


async def test_rules_go_with_their_port_also_when_the_host_actor_was_started_again(
    world: OvsWorld, driver: OvsDriver
) -> None:
    one, two, three = world.spec(1), world.spec(2, container=1), world.spec(3, container=1)
    await attached(driver, one, two, three, world.spec(4))
    assert rules(world, 1) == ["10.0.0.2", "10.0.0.3", "fd00::2", "fd00::3"]
    await dropped(driver, two)
    assert rules(world, 1) == ["10.0.0.3", "fd00::3"]
    async with world.driver() as another:
        await dropped(another, three)
    assert rules(world, 1) == []
    assert world.pings(4, "10.0.0.1")


async def test_rules_of_a_link_that_somebody_deleted_go_when_the_next_is_made(
    world: OvsWorld, driver: OvsDriver
) -> None:
    one, two, three = world.spec(1), world.spec(2, container=1), world.spec(3, container=1)
    await attached(driver, one, two)
    world.container(1).run("ip", "link", "delete", "eth1")
    assert rules(world, 1) == ["10.0.0.2", "fd00::2"]
    await attached(driver, three)
    assert rules(world, 1) == ["10.0.0.3", "fd00::3"]
    assert world.container(1).run("ip", "-4", "rule", "show").stdout.count("lookup main") == 1


async def test_an_endpoint_with_another_address_has_no_rule_for_the_old_one(world: OvsWorld, driver: OvsDriver) -> None:
    one, two = world.spec(1), world.spec(2, container=1)
    await attached(driver, one, two)
    newer = msgspec.structs.replace(two, epoch=8, addresses=(ip_interface("10.0.0.9/16"),))
    await attached(driver, newer)
    assert rules(world, 1) == ["10.0.0.9"]


async def test_networks_in_one_container_answer_each_through_its_own_gateway(
    world: OvsWorld, driver: OvsDriver
) -> None:
    """The router is a container with the gateway's address on the second network, and a far one behind it."""
    first = world.spec(1)
    second = elsewhere(world.spec(2, container=1, tag=200), "10.1.0.2/16", "fd01::2/64")
    router = msgspec.structs.replace(
        elsewhere(world.spec(3, tag=200, gateway=None), "10.1.255.254/16", "fd01::fe/64", FAR_IPV4, FAR_IPV6),
        gateways=(),
    )
    await attached(driver, first, second, router)
    inside = world.container(1)
    assert "default via 10.0.255.254 dev eth0" in inside.run("ip", "route").stdout  # as before: the first's
    for far, address in ((FAR_IPV4, "10.1.0.2"), (FAR_IPV6, "fd01::2")):
        source = far.split("/")[0]
        ran = world.container(3).run("busybox", "ping", "-c", "1", "-W", "5", "-I", source, address, check=False)
        assert ran.returncode == 0, ran.stdout
    await dropped(driver, second)
    assert rules(world, 1) == []


FAR_IPV4, FAR_IPV6 = "192.0.2.1/32", "2001:db8::1/128"


def elsewhere(spec: PortSpec, *addresses: str) -> PortSpec:
    """The endpoint on the second network, 10.1.0.0/16 and fd01::/64."""
    gateways = (ip_address("10.1.255.254"), ip_address("fd01::fe"))
    return msgspec.structs.replace(spec, addresses=tuple(map(ip_interface, addresses)), gateways=gateways)
