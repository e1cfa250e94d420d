"""The underlay as the kernel has it: where the VTEP address is, how it is put back, neighbours that are not asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address, ip_interface

import pytest

from host_actor.underlay import Underlay, find_underlay, restore_address, set_neighbour
from tests.harness.netns import NetworkNamespace
from tests.requires import needs_isolation

pytestmark = needs_isolation

MAC = "02:00:00:00:00:02"


@pytest.fixture
def host(netns: Callable[[str], NetworkNamespace]) -> NetworkNamespace:
    """A namespace with one link, `eth0`."""
    namespace = netns("h1")
    namespace.run("ip", "link", "add", "eth0", "address", MAC, "mtu", "1600", "type", "veth", "peer", "name", "eth1")
    return namespace


def found(host: NetworkNamespace, vtep: str) -> Underlay | None:
    return host.call(lambda: asyncio.run(find_underlay(ip_address(vtep))))


@pytest.mark.parametrize(("vtep", "length"), [("172.30.0.1", 24), ("fd30::1", 64)])
def test_the_link_with_the_address_is_found_and_gets_it_back(host: NetworkNamespace, vtep: str, length: int) -> None:
    assert found(host, vtep) is None
    interface = ip_interface(f"{vtep}/{length}")
    for _ in range(2):  # once more changes nothing
        assert host.call(lambda: asyncio.run(restore_address("eth0", interface)))
    underlay = found(host, vtep)
    assert underlay is not None
    assert (underlay.device, underlay.mac, underlay.mtu_bytes, underlay.is_up) == ("eth0", MAC, 1600, True)
    assert underlay.interface == interface
    assert found(host, f"{vtep}9") is None


def test_an_address_is_not_given_to_a_link_that_is_not_there(host: NetworkNamespace) -> None:
    assert not host.call(lambda: asyncio.run(restore_address("eth7", ip_interface("172.30.0.1/24"))))


def make_known(index: int, neighbour: str, mac: str) -> None:
    asyncio.run(set_neighbour(index, ip_address(neighbour), mac))


@pytest.mark.parametrize("neighbour", ["172.30.0.2", "fd30::2"])
def test_a_neighbour_is_known_for_ever_and_may_be_another(host: NetworkNamespace, neighbour: str) -> None:
    host.call(lambda: asyncio.run(restore_address("eth0", ip_interface("172.30.0.1/24"))))
    underlay = found(host, "172.30.0.1")
    assert underlay is not None
    for mac in ("02:00:00:00:00:08", "02:00:00:00:00:09"):
        host.call(partial(make_known, underlay.index, neighbour, mac))
        shown = host.run("ip", "neighbour", "show", "dev", "eth0").stdout
        assert f"{neighbour} lladdr {mac} PERMANENT" in shown
