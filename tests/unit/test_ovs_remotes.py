"""The flows about other hosts as values, and the groups with branches that lead to them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import msgspec
import pytest

from host_actor.drivers.contract import RemoteEndpoint, RemoteFlood, RemoteTunnel, RemoteVtep
from host_actor.drivers.ovs_flows import TUNNEL_PORT, Table, is_remote_owner, owner_of, port_flows, seal_of
from host_actor.drivers.ovs_remotes import (
    flood_bucket,
    is_whole,
    owner_of_remote,
    remote_flows,
    remote_mark,
)
from host_actor.drivers.ovs_rules import Groups, RuleEdit, Survey
from host_actor.openflow import GroupCommand
from tests.unit.test_ovs_flows import SIX, kinds

FAR = ip_address("172.30.0.2")
THERE = RemoteEndpoint("a" * 16, 7, 5001, "02:00:00:00:00:07", (ip_address("10.0.0.7"), ip_address("fd00::7")), FAR)
KEY = 5001 | 1 << 24
FLOOD = RemoteFlood(5001, FAR)


@pytest.mark.parametrize(
    "changed",
    [
        {"epoch": 8},
        {"endpoint": "b" * 16},
        {"vni": 5002},
        {"mac": "02:00:00:00:00:08"},
        {"addresses": (ip_address("10.0.0.8"),)},
        {"vtep": ip_address("172.30.0.3")},
        {"vtep": ip_address("fd30::2")},
    ],
)
def test_whatever_is_other_has_another_mark(changed: dict[str, object]) -> None:
    assert remote_mark(msgspec.structs.replace(THERE, **changed)) != remote_mark(THERE)


def test_no_two_kinds_have_one_mark() -> None:
    marks = [remote_mark(each) for each in (THERE, FLOOD, RemoteVtep(FAR, "02:00:00:00:00:02"), RemoteTunnel(FAR))]
    assert len(set(marks)) == 4


def test_flows_say_for_themselves_whether_they_are_complete() -> None:
    flows = remote_flows(THERE)
    cookie = owner_of_remote(THERE)
    assert {entry.cookie for entry in flows} == {cookie}
    assert is_remote_owner(cookie)
    assert is_whole(cookie, seal_of(reversed(flows)))
    assert not is_whole(cookie, seal_of(flows[1:]))
    assert not is_whole(cookie, seal_of((replace(flows[0], priority=1), *flows[1:])))


def test_a_port_here_is_never_in_the_way_of_one_elsewhere() -> None:
    near = msgspec.structs.replace(SIX, encap="vxlan", tag=5001)
    places = [{(f.table, f.priority, f.match) for f in flows} for flows in (port_flows(near, 3), remote_flows(THERE))]
    assert not places[0] & places[1]


def test_a_few_flows_are_all_of_an_endpoint() -> None:
    four = msgspec.structs.replace(THERE, addresses=THERE.addresses[:1])
    tables = sorted(entry.table for entry in remote_flows(four))
    assert tables == [Table.CLASSIFY, Table.ANSWER, Table.FORWARD, Table.FORWARD]


def test_a_survey_tells_other_hosts_from_strangers() -> None:
    cookie = owner_of_remote(THERE)
    survey = Survey({cookie: seal_of(remote_flows(THERE)), 4711: seal_of(())}, seal_of(()))
    assert survey.strangers(()) == {4711}
    assert set(survey.remotes(())) == {cookie}
    assert not survey.remotes({cookie}), "a port of ours that happens to have such a cookie"


def commands(edit: RuleEdit) -> list[int]:
    return [command for kind, command in kinds(edit.messages()) if kind == 15]


def test_a_network_may_have_members_elsewhere_alone() -> None:
    groups = Groups()
    edit = RuleEdit(groups)
    edit.need_group(KEY)
    assert commands(edit) == [GroupCommand.ADD]
    edit = RuleEdit(groups)
    edit.need_group(KEY)
    edit.flood(KEY, flood_bucket(FLOOD))
    assert commands(edit) == [GroupCommand.INSERT_BUCKET]
    edit = RuleEdit(groups)
    edit.flood(KEY, flood_bucket(FLOOD))
    edit.install((), 3, KEY)
    assert commands(edit) == [GroupCommand.INSERT_BUCKET]
    assert groups.members == {KEY: {int(FAR), 3}}
    assert groups.key_of == {3: KEY}
    edit = RuleEdit(groups)
    edit.leave(3)
    assert commands(edit) == [GroupCommand.REMOVE_BUCKET]
    edit = RuleEdit(groups)
    edit.unflood(KEY, int(FAR))
    edit.unflood(KEY, 4711)
    assert commands(edit) == [GroupCommand.DELETE]
    assert not groups.members


def test_a_host_may_be_in_many_groups() -> None:
    groups = Groups()
    groups.restart({KEY: [int(FAR), 3], KEY + 1: [int(FAR)]})
    assert groups.key_of == {3: KEY}
    assert TUNNEL_PORT not in groups.key_of


def test_buckets_of_hosts_are_no_ports() -> None:
    for vtep in ("1.0.0.1", "223.255.255.254", "fd30::1", "2001:db8::1"):
        assert 0x10000 < flood_bucket(RemoteFlood(5001, ip_address(vtep))).id < 0xFFFFFF00
    assert owner_of(THERE.endpoint, THERE.epoch) != owner_of_remote(THERE)
