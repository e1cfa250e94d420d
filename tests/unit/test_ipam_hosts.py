"""Hosts that are invited, admitted, join and are removed."""

from __future__ import annotations

from ipaddress import ip_address

import msgspec
import pytest
from msgspec.structs import replace

from ipam_actor.snapshot import dump_state, load_state
from messages.addresses import decode_address
from messages.host import (
    AdmitHost,
    GetHost,
    HostAdmitted,
    HostInvited,
    HostJoined,
    HostView,
    InviteHost,
    JoinHost,
    ListHosts,
    RemoveHost,
    invitation_of,
)
from messages.replies import Item, Items
from messages.struct import Command, Event
from services.runtime.decision import Origin
from tests.ipam_world import World

TOKEN = "U" + "T" * 55
KEY = "U" + "K" * 55
OTHER_KEY = "U" + "O" * 55
MACHINE = "0123456789abcdef" * 2
OTHER_MACHINE = "fedcba9876543210" * 2
INVITED = Origin(f"join-{invitation_of(TOKEN)}")
HOUR_NS = 3600 * 10**9


def admit(host: str = "h1", key: str = KEY, machine: str = MACHINE) -> AdmitHost:
    return AdmitHost(tenant="fabric", host=host, public_key=key, machine_id=machine)


def join_with_vtep(host: str, vtep: str, mtu_bytes: int) -> JoinHost:
    mac = "02:00:00:00:00:01"
    return replace(join(host), vtep=ip_address(vtep), vtep_mac=mac, underlay_mtu_bytes=mtu_bytes)


@pytest.mark.parametrize(
    ("joining", "mtu_bytes"),
    [
        ([], 1450),
        ([("h1", "172.30.0.1", 0)], 1450),
        ([("h1", "172.30.0.1", 1500)], 1450),
        ([("h1", "172.30.0.1", 9000), ("h2", "172.30.0.2", 1600)], 1550),
        ([("h1", "172.30.0.1", 1600), ("h2", "fd30::2", 1600)], 1530),
        ([("h1", "172.30.0.1", 65535)], 9000),
    ],
)
def test_a_vxlan_network_is_as_wide_as_the_narrowest_underlay_leaves(
    joining: list[tuple[str, str, int]], mtu_bytes: int
) -> None:
    world = World()
    for each in joining:
        world.do(join_with_vtep(*each))
    world.network("web", encap="vxlan")
    world.network("db")
    assert world.show_network("web").status.mtu_bytes == mtu_bytes
    assert world.show_network("db").status.mtu_bytes == 1500


def test_what_a_host_says_of_its_underlay_is_shown_and_may_change() -> None:
    world = World()
    first, wider = join_with_vtep("h1", "172.30.0.1", 1500), join_with_vtep("h1", "172.30.0.1", 1600)
    world.do(first)
    assert world.do(first) == ()
    (joined,) = world.do(wider)
    assert isinstance(joined, HostJoined)
    assert (str(joined.vtep), joined.underlay_mtu_bytes) == ("172.30.0.1", 1600)
    world.state = load_state(dump_state(world.state))
    reply = world.decide(GetHost(tenant="fabric", host="h1")).reply
    assert isinstance(reply, Item)
    assert isinstance(reply.object, HostView)
    assert str(reply.object.spec.vtep) == "172.30.0.1"


@pytest.mark.parametrize(
    "wrong",
    [
        {"vtep": "224.0.0.1"},
        {"vtep": "::"},
        {"vtep": "127.0.0.1"},
        {"vtep_mac": "ff:ff:ff:ff:ff:ff"},
        {"underlay_mtu_bytes": 100},
    ],
)
def test_an_underlay_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    said = {"tenant": "fabric", "host": "h1", "driver": "ovs", "datapath": "netdev", "version": "0", **wrong}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"type": "join-host", **said}, JoinHost, dec_hook=decode_address)


def join(host: str = "h1") -> JoinHost:
    return JoinHost(tenant="fabric", host=host, driver="ovs", datapath="netdev", version="0")


def invited(*hosts: str) -> World:
    world = World(*hosts)
    world.do(InviteHost(tenant="fabric", public_key=TOKEN))
    return world


def does(world: World, command: Command, by: Origin) -> tuple[Event, ...]:
    world.sender = by
    return world.do(command)


def refusal(world: World, command: Command, by: Origin) -> str:
    world.sender = by
    return world.refused(command).code


def states(world: World) -> dict[str, str]:
    reply = world.decide(ListHosts(tenant="fabric")).reply
    assert isinstance(reply, Items)
    return {view.name: view.status.state for view in reply.objects if isinstance(view, HostView)}


def test_an_invitation_ends_after_its_time() -> None:
    world = World()
    decision = world.decide(InviteHost(tenant="fabric", public_key=TOKEN, ttl_s=60))
    event = decision.facts[0].event
    assert isinstance(event, HostInvited)
    assert event.invitation == "tttttttttttt"
    assert event.expires_at_ns == world.now_ns + 60 * 10**9


def test_whoever_holds_the_one_time_key_is_let_in_once() -> None:
    world = invited()
    assert does(world, admit(), INVITED) == (
        HostAdmitted(host="h1", public_key=KEY, machine_id=MACHINE, invitation=invitation_of(TOKEN)),
    )
    assert states(world) == {"h1": "admitted"}
    assert does(world, admit(), INVITED) == ()
    assert refusal(world, admit("h2", OTHER_KEY, OTHER_MACHINE), INVITED) == "token-used"
    assert refusal(world, admit("h1", OTHER_KEY), INVITED) == "token-used"


def test_the_server_may_name_the_sender_by_his_key_alone() -> None:
    assert does(invited(), admit(), Origin(TOKEN))


@pytest.mark.parametrize("user", ["operator", "host-h1", "unverified", KEY, "join-nobody", "join-", ""])
def test_nobody_else_lets_a_host_in(user: str) -> None:
    assert refusal(invited(), admit(), Origin(user)) == "token-unknown"


def test_a_token_is_of_no_use_after_its_time() -> None:
    world = invited()
    world.now_ns += HOUR_NS + 1
    assert refusal(world, admit(), INVITED) == "token-expired"


def test_a_name_is_its_machine_s() -> None:
    world = invited()
    does(world, admit(), INVITED)
    world.do(InviteHost(tenant="fabric", public_key=OTHER_KEY))
    second = Origin(OTHER_KEY)
    assert refusal(world, admit(machine=OTHER_MACHINE), second) == "host-name-taken"
    assert does(world, admit(key=OTHER_KEY), second)


def test_a_name_that_a_host_has_without_a_token_is_taken() -> None:
    assert refusal(invited("h1"), admit(), INVITED) == "host-name-taken"


def test_a_removed_host_leaves_its_name() -> None:
    world = invited()
    does(world, admit(), INVITED)
    world.do(RemoveHost(tenant="fabric", host="h1"))
    assert states(world) == {}
    world.do(InviteHost(tenant="fabric", public_key=OTHER_KEY))
    assert does(world, admit(machine=OTHER_MACHINE), Origin(OTHER_KEY))


def test_a_snapshot_holds_who_was_invited_and_admitted() -> None:
    world = invited()
    does(world, admit(), INVITED)
    assert load_state(dump_state(world.state)) == world.state


def test_a_host_speaks_for_itself_alone() -> None:
    world = invited()
    does(world, admit(), INVITED)
    for user in ("host-h2", "host-"):
        assert refusal(world, join(), Origin(user)) == "another-host"
    assert refusal(world, join("h2"), Origin(KEY)) == "another-host"
    assert does(world, join(), Origin(KEY))
    assert does(world, join("h2"), Origin("host-h2"))
    reply = world.decide(GetHost(tenant="fabric", host="h1")).reply
    assert isinstance(reply, Item)
    assert states(world) == {"h1": "joined", "h2": "joined"}


@pytest.mark.parametrize("key", ["", "U", KEY.lower(), "S" + KEY[1:], KEY + "K"])
def test_a_key_that_is_none_is_malformed(key: str) -> None:
    with pytest.raises(ValueError, match="public key"):
        admit(key=key)
    with pytest.raises(ValueError, match="public key"):
        InviteHost(tenant="fabric", public_key=key)


@pytest.mark.parametrize("ttl_s", [-1, 0, 59, 31 * 24 * 3600])
def test_an_invitation_lasts_a_minute_at_least_and_a_month_at_most(ttl_s: int) -> None:
    with pytest.raises(ValueError, match="invitation of"):
        InviteHost(tenant="fabric", public_key=KEY, ttl_s=ttl_s)
