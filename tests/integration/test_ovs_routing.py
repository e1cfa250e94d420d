"""What the Open vSwitch driver routes between networks, asked of real packets between network namespaces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address, ip_interface, ip_network
from typing import Literal

import pytest
from msgspec.structs import replace

from host_actor.drivers.contract import (
    DropRemote,
    EnsureRemote,
    PortSpec,
    RoutedEndpoint,
    RoutedNetwork,
)
from host_actor.drivers.ovs import OvsDriver
from host_actor.drivers.ovs_remotes import remote_flows
from host_actor.planner import plan
from tests.harness.netns import NetworkNamespace
from tests.harness.openvswitch import RunningSwitch
from tests.harness.ovs_world import OvsWorld, attached, done, mac_of
from tests.requires import needs_ovs, needs_tool

pytestmark = [pytest.mark.anyio, needs_ovs, needs_tool("busybox")]

Encap = Literal["vlan", "vxlan"]


@pytest.fixture
def world(open_vswitch: RunningSwitch, netns: Callable[[str], NetworkNamespace]) -> OvsWorld:
    return OvsWorld(open_vswitch, netns)


@pytest.fixture
async def driver(world: OvsWorld) -> AsyncIterator[OvsDriver]:
    async with world.driver() as opened:
        yield opened


def member(world: OvsWorld, number: int, subnet: int, encap: Encap = "vlan") -> PortSpec:
    """Endpoint `number` of the network whose subnets are 10.<subnet>.0.0/24 and fd00:<subnet>::/64."""
    return replace(
        world.spec(number, tag=100 * subnet if encap == "vlan" else 5000 + subnet, encap=encap),
        mac=mac_of(number),
        addresses=(ip_interface(f"10.{subnet}.0.{number + 1}/24"), ip_interface(f"fd00:{subnet}::{number + 1:x}/64")),
        gateways=(ip_address(f"10.{subnet}.0.1"), ip_address(f"fd00:{subnet}::1")),
    )


def network_of(spec: PortSpec, tenant: str = "acme") -> RoutedNetwork:
    subnets = tuple(ip_network(address.network) for address in spec.addresses)
    return RoutedNetwork(tenant, spec.encap, spec.tag, subnets, spec.gateways)


def endpoint_of(spec: PortSpec) -> RoutedEndpoint:
    addresses = tuple(address.ip for address in spec.addresses)
    return RoutedEndpoint(spec.endpoint, spec.epoch, spec.encap, spec.tag, spec.mac, addresses)


async def routed(driver: OvsDriver, *specs: PortSpec, tenant: str = "acme") -> None:
    await done(
        driver, *(EnsureRemote(route) for spec in specs for route in (network_of(spec, tenant), endpoint_of(spec)))
    )


def pinged(world: OvsWorld, number: int, address: str) -> str:
    """What `ping` says of one packet from a container."""
    ran = world.container(number).run("busybox", "ping", "-c", "1", "-W", "5", address, check=False)
    return ran.stdout


async def test_networks_of_a_tenant_reach_each_other_through_their_gateways(world: OvsWorld, driver: OvsDriver) -> None:
    web, db = member(world, 1, 1), member(world, 2, 2, "vxlan")
    await attached(driver, web, db)
    assert not world.pings(1, "10.2.0.3")
    await routed(driver, web, db)
    for number, address in ((1, "10.2.0.3"), (2, "10.1.0.2"), (1, "fd00:2::3"), (2, "fd00:1::2")):
        assert "ttl=63" in pinged(world, number, address), address


async def test_every_gateway_of_the_tenant_answers(world: OvsWorld, driver: OvsDriver) -> None:
    web, db = member(world, 1, 1), member(world, 2, 2)
    await attached(driver, web, db)
    await routed(driver, web, db)
    for address in ("10.1.0.1", "10.2.0.1", "fd00:1::1", "fd00:2::1"):
        assert "ttl=64" in pinged(world, 1, address), address


async def test_no_other_tenant_and_no_network_that_does_not_route_is_reached(
    world: OvsWorld, driver: OvsDriver
) -> None:
    web, db, theirs, alone = member(world, 1, 1), member(world, 2, 2), member(world, 3, 3), member(world, 4, 4)
    await attached(driver, web, db, theirs, alone)
    await routed(driver, web, db)
    await routed(driver, theirs, tenant="other")
    assert world.pings(1, "10.2.0.3")
    for address in ("10.3.0.4", "10.4.0.5", "10.3.0.1", "10.2.0.99"):
        assert not world.pings(1, address), address
    for number in (3, 4):
        assert not world.pings(number, "10.1.0.2")


async def test_two_tenants_route_the_same_subnets_apart(world: OvsWorld, driver: OvsDriver) -> None:
    ours = [member(world, 1, 1), member(world, 2, 2)]
    theirs = [
        replace(member(world, 3, 1), tag=901, mac=ours[0].mac, addresses=ours[0].addresses),
        replace(member(world, 4, 2), tag=902, mac=ours[1].mac, addresses=ours[1].addresses),
    ]
    await attached(driver, *ours, *theirs)
    await routed(driver, *ours)
    await routed(driver, *theirs, tenant="other")
    assert world.pings(1, "10.2.0.3")
    assert world.pings(3, "10.2.0.3")
    await done(driver, DropRemote(driver.mark_of(endpoint_of(theirs[1]))))
    assert world.pings(1, "10.2.0.3")
    assert not world.pings(3, "10.2.0.3")


async def test_a_route_whose_flow_was_removed_by_hand_is_put_back(world: OvsWorld, driver: OvsDriver) -> None:
    web, db = member(world, 1, 1), member(world, 2, 2)
    await attached(driver, web, db)
    await routed(driver, web, db)
    wanted = {driver.mark_of(route): route for spec in (web, db) for route in (network_of(spec), endpoint_of(spec))}
    specs = {spec.endpoint: spec for spec in (web, db)}
    assert plan(specs, await driver.observe(), wanted) == ()
    world.switch.run("ovs-ofctl", "-O", "OpenFlow15", "del-flows", "vlanBr", "table=32,ip,nw_dst=10.2.0.3")
    ops = plan(specs, await driver.observe(), wanted)
    assert ops == (EnsureRemote(endpoint_of(db)),)
    await done(driver, *ops)
    assert plan(specs, await driver.observe(), wanted) == ()
    assert world.pings(1, "10.2.0.3")


def test_the_number_of_flows_is_that_of_networks_and_addresses() -> None:
    """Networks are not joined in pairs: each costs the same however many there are."""
    spec = RoutedNetwork("acme", "vxlan", 5001, (ip_network("10.1.0.0/24"),), (ip_address("10.1.0.1"),))
    assert len(remote_flows(spec)) == 4
