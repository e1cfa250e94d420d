"""The flow table as values: complete, sealed, apart by network, and nothing for what an endpoint has not."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address, ip_interface

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_actor.drivers.contract import PortSpec, Sandbox
from host_actor.drivers.ovs_flows import (
    Seal,
    Table,
    common_flows,
    link_local_of,
    network_key,
    owner_of,
    port_flows,
    seal_of,
)
from host_actor.drivers.ovs_rules import Groups, RuleEdit
from host_actor.openflow import HEADER, GroupCommand, Type

PORT = PortSpec(
    endpoint="abcdefghijklmnop",
    epoch=7,
    tenant="acme",
    network="web",
    name="web1",
    mac="02:00:00:00:00:07",
    addresses=(ip_interface("10.0.0.7/24"),),
    gateways=(),
    encap="vlan",
    tag=100,
    mtu_bytes=1500,
    sandbox=Sandbox("netns:1", "/run/netns/c1"),
)
SIX = msgspec.structs.replace(PORT, addresses=(*PORT.addresses, ip_interface("fd00::7/64")))


def test_a_link_local_address_is_made_of_the_mac() -> None:
    assert link_local_of("02:00:00:00:00:07") == IPv6Address("fe80::ff:fe00:7")


@given(st.integers(1, 4094), st.integers(1, 2**24 - 1))
def test_a_tag_and_a_vni_never_give_the_same_key(tag: int, vni: int) -> None:
    assert network_key("vlan", tag) != network_key("vxlan", vni)
    assert network_key("vxlan", vni) < 1 << 25


def test_the_same_port_has_the_same_flows() -> None:
    assert port_flows(PORT, 3) == port_flows(PORT, 3)
    assert seal_of(port_flows(PORT, 3)) != seal_of(port_flows(PORT, 4))


def test_flows_say_whose_they_are() -> None:
    assert {entry.cookie for entry in port_flows(SIX, 3)} == {owner_of(SIX.endpoint, SIX.epoch)}
    assert owner_of(SIX.endpoint, 7) != owner_of(SIX.endpoint, 8)


def test_a_seal_is_broken_by_any_change_and_by_no_order() -> None:
    first, *others = flows = port_flows(SIX, 3)
    assert seal_of(reversed(flows)) == seal_of(flows)
    changed = [replace(first, priority=1), replace(first, instructions=b""), replace(first, table=9)]
    for broken in (others, [*flows, first], *([entry, *others] for entry in changed)):
        assert seal_of(broken) != seal_of(flows)


def test_no_two_flows_are_in_each_others_place() -> None:
    places = [(entry.table, entry.priority, entry.match) for entry in (*port_flows(SIX, 3), *common_flows())]
    assert len(set(places)) == len(places)


def test_without_an_ipv6_address_there_is_no_ipv6() -> None:
    six = b"\x80\x00\x0a\x02\x86\xdd"  # eth_type=0x86dd
    assert not [entry for entry in port_flows(PORT, 3) if six in entry.match]
    assert {entry.table for entry in port_flows(SIX, 3) if six in entry.match} == {
        Table.SOURCE,
        Table.ANSWER,
        Table.ADVERTISE,
    }


@pytest.mark.parametrize("changed", [{"tag": 101}, {"encap": "vxlan"}])
def test_ports_of_two_networks_share_no_place_beyond_their_own(changed: dict[str, object]) -> None:
    other = msgspec.structs.replace(SIX, endpoint="b" * 16, **changed)
    places = [{(f.table, f.priority, f.match) for f in port_flows(spec, n)} for n, spec in enumerate((SIX, other), 1)]
    assert not places[0] & places[1]


def kinds(messages: list[bytes]) -> list[tuple[int, int]]:
    """(message type, group command) of each; 0 for what is no group."""
    both = [(HEADER.unpack_from(raw)[1], int.from_bytes(raw[8:10], "big")) for raw in messages]
    return [(kind, command if kind == Type.GROUP_MOD else 0) for kind, command in both]


def change(groups: Groups, *, joins: dict[int, int], leaves: tuple[int, ...] = ()) -> list[int]:
    """The group commands of one change."""
    edit = RuleEdit(groups)
    for port, key in joins.items():
        edit.install((), port, key)
    for port in leaves:
        edit.leave(port)
    return [command for kind, command in kinds(edit.messages()) if kind == Type.GROUP_MOD]


def test_groups_grow_by_what_joins_and_go_with_the_last() -> None:
    groups = Groups()
    assert change(groups, joins={1: 100, 2: 100}) == [GroupCommand.ADD]
    assert change(groups, joins={3: 100}) == [GroupCommand.INSERT_BUCKET]
    assert change(groups, joins={3: 100}) == []
    assert change(groups, joins={3: 200}) == [GroupCommand.REMOVE_BUCKET, GroupCommand.ADD]
    assert groups.members == {100: {1, 2}, 200: {3}}
    assert change(groups, joins={}, leaves=(1, 2, 9)) == [GroupCommand.REMOVE_BUCKET, GroupCommand.DELETE]
    assert groups.members == {200: {3}}
    assert groups.key_of == {3: 200}


def test_old_flows_go_before_new_ones_come() -> None:
    edit = RuleEdit(Groups())
    edit.install(port_flows(PORT, 3), 3, 100)
    edit.remove(owner_of(PORT.endpoint, 6))
    commands = [raw[8 + 17] for raw in edit.messages() if HEADER.unpack_from(raw)[1] == Type.FLOW_MOD]
    assert commands == [3, *[0] * len(port_flows(PORT, 3))]


def test_a_seal_is_read_by_people_too() -> None:
    assert str(Seal(8, 0xABC)) == "8:00000abc"
