"""What a host must know of others, folded from values."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_interface

import msgspec
import pytest

from host_actor.desired import Desired
from host_actor.drivers.contract import RemoteEndpoint, RemoteFlood, RemoteTunnel, RemoteVtep
from host_actor.remotes import REMOTE, TUNNEL, Remotes
from messages.endpoint import EndpointBound, EndpointDeleted, EndpointUnbound
from messages.host import HostJoined, HostRemoved
from tests.harness.host_world import bound, endpoint_id

WEB = ("acme", "web")
OWN, FAR = IPv4Address("172.30.0.1"), IPv4Address("172.30.0.2")
MAC = "02:00:00:00:00:02"
VNI = 5001


def there(number: int, host: str = "h2") -> EndpointBound:
    return msgspec.structs.replace(bound(number, host=host), encap="vxlan", tag=VNI, mtu_bytes=1450)


def joined(host: str = "h2", vtep: IPv4Address | None = FAR, mac: str | None = MAC) -> HostJoined:
    return HostJoined(host=host, driver="ovs", datapath="netdev", version="0", vtep=vtep, vtep_mac=mac)


@pytest.fixture
def remotes() -> Remotes:
    """Of host h1 with a tunnel, host h2 having joined; network web has a member here."""
    remotes = Remotes("h1")
    remotes.settle(OWN, 1500)
    remotes.fold_host(joined())
    remotes.enter(there(1, "h1"))
    remotes.take_changed()
    return remotes


def test_an_endpoint_elsewhere_is_a_way_a_branch_and_a_neighbour(remotes: Remotes) -> None:
    remotes.fold(WEB, 7, there(2))
    spec = remotes.specs[f"{REMOTE}endpoint/{endpoint_id(2)}"]
    address = ip_interface("10.9.0.3/16").ip
    assert spec == RemoteEndpoint(endpoint_id(2), 7, VNI, there(2).mac, (address,), FAR)
    assert remotes.specs[f"{REMOTE}flood/acme/web/h2"] == RemoteFlood(VNI, FAR)
    assert remotes.specs[f"{REMOTE}vtep/h2"] == RemoteVtep(FAR, MAC)
    assert remotes.specs[TUNNEL] == RemoteTunnel(OWN)
    assert len(remotes.take_changed()) == 3


def test_a_second_one_there_changes_itself_alone(remotes: Remotes) -> None:
    remotes.fold(WEB, 7, there(2))
    remotes.take_changed()
    remotes.fold(WEB, 8, there(3))
    assert list(remotes.take_changed()) == [f"{REMOTE}endpoint/{endpoint_id(3)}"]
    remotes.fold(WEB, 9, EndpointUnbound(endpoint=endpoint_id(2), name="e2", host="h2", epoch=7))
    assert list(remotes.take_changed()) == [f"{REMOTE}endpoint/{endpoint_id(2)}"]


def test_what_is_not_newer_changes_nothing(remotes: Remotes) -> None:
    remotes.fold(WEB, 7, there(2))
    remotes.take_changed()
    remotes.fold(WEB, 7, there(2, "h3"))
    remotes.fold(WEB, 6, EndpointDeleted(endpoint=endpoint_id(2), name="e2", addresses=(), host="h2", epoch=7))
    assert not remotes.take_changed()


def test_the_end_of_an_older_binding_does_not_end_the_newer(remotes: Remotes) -> None:
    remotes.fold(WEB, 7, there(2))
    remotes.fold(WEB, 9, EndpointUnbound(endpoint=endpoint_id(2), name="e2", host="h3", epoch=5))
    assert f"{REMOTE}endpoint/{endpoint_id(2)}" in remotes.specs


def test_one_that_comes_here_is_none_of_others(remotes: Remotes) -> None:
    remotes.fold(WEB, 7, there(2))
    remotes.fold(WEB, 9, there(2, "h1"))
    assert list(remotes.specs) == [TUNNEL]


def test_networks_that_are_not_open_are_not_folded(remotes: Remotes) -> None:
    remotes.fold(("acme", "db"), 7, there(2))
    assert not remotes.take_changed()


def test_closed_nothing_of_it_is_left(remotes: Remotes) -> None:
    remotes.fold(WEB, 7, there(2))
    remotes.leave(WEB)
    assert list(remotes.specs) == [TUNNEL]
    assert remotes.take_turned() == [WEB]
    assert not remotes.gaps


def test_a_host_that_has_another_address_is_reached_there(remotes: Remotes) -> None:
    remotes.fold(WEB, 7, there(2))
    moved = IPv4Address("172.30.0.9")
    remotes.fold_host(joined(vtep=moved))
    assert remotes.specs[f"{REMOTE}flood/acme/web/h2"] == RemoteFlood(VNI, moved)
    remotes.fold_host(HostRemoved(host="h2"))
    assert list(remotes.specs) == [TUNNEL]
    assert remotes.gaps["h2"].code == "host-without-vtep"


def test_gaps_are_said_and_closed(remotes: Remotes) -> None:
    remotes.settle(None)
    remotes.fold(WEB, 7, there(2))
    assert not remotes.specs
    assert remotes.gaps["h2"].code == "vtep-not-set"
    remotes.settle(OWN)
    assert not remotes.gaps
    remotes.settle(ip_address("fd30::1"))
    assert remotes.gaps["h2"].code == "vtep-family"
    remotes.settle(OWN)
    remotes.fold_host(joined(vtep=None))
    assert remotes.gaps["h2"].code == "host-without-vtep"
    remotes.fold(WEB, 9, EndpointUnbound(endpoint=endpoint_id(2), name="e2", host="h2", epoch=7))
    assert not remotes.gaps, "nobody there is missed any more"


@pytest.mark.parametrize(("underlay", "is_short"), [(1500, False), (1499, True), (0, False)])
def test_an_underlay_that_is_too_narrow_is_named(remotes: Remotes, underlay: int, is_short: bool) -> None:
    remotes.settle(OWN, underlay)
    assert ("acme/web" in remotes.gaps) == is_short
    if is_short:
        assert remotes.gaps["acme/web"].code == "underlay-mtu"


def test_what_is_known_of_others_survives_on_disk() -> None:
    desired = Desired("h1")
    desired.remotes.settle(OWN)
    desired.apply(1, "np.v1.evt.fabric.host.host-joined", joined())
    desired.apply(2, "np.v1.evt.acme.net.web.endpoint-bound.h1", there(1, "h1"))
    desired.remotes.fold(WEB, 3, there(2))
    again = Desired.load("h1", desired.dump())
    again.remotes.settle(OWN)
    assert again.remotes.specs == desired.remotes.specs
    assert again.remotes.networks == desired.remotes.networks
    assert again.hosts_seq == 1
    end = EndpointUnbound(endpoint=endpoint_id(1), name="e1", host="h1", epoch=2)
    again.apply(4, "np.v1.evt.acme.net.web.endpoint-unbound.h1", end)
    assert not again.remotes.networks, "the last member here has gone"


def test_a_vlan_network_opens_nothing() -> None:
    desired = Desired("h1")
    desired.apply(2, "np.v1.evt.acme.net.web.endpoint-bound.h1", bound(1))
    assert not desired.remotes.networks
