"""The actor's pieces fit: names, coverage, locks, forks, snapshots."""

from __future__ import annotations

import re
from copy import deepcopy

import pytest

from ipam_actor import handlers
from ipam_actor.definition import IPAM, batch_key, writes
from ipam_actor.snapshot import dump_state, load_state
from ipam_actor.spans import Spans
from ipam_actor.state import State
from messages.catalog import IpamCommand
from messages.endpoint import AttachEndpoint, DeleteEndpoint
from messages.network import DeleteNetwork
from messages.subjects import (
    HOST_AGGREGATE,
    SEGMENT_AGGREGATE,
    network_aggregate,
    port_aggregate,
    tenant_aggregate,
)
from messages.tenant import NetworkAdded
from services.runtime.errors import Conflict
from tests.ipam_world import World, endpoint, network


def test_handlers_cover_the_commands_and_are_found_by_name() -> None:
    assert set(handlers.HANDLERS) == set(IpamCommand.__args__)
    for command, handler in handlers.HANDLERS.items():
        assert handler.__name__ == re.sub(r"(?<!^)(?=[A-Z])", "_", command.__name__).lower()


def test_what_may_be_written_is_named_before() -> None:
    world = World("h1")
    assert writes(world.state, network("web")) == (
        tenant_aggregate("default"),
        SEGMENT_AGGREGATE,
        network_aggregate("default", "web"),
    )
    assert writes(world.state, network("web", tenant="acme")) == ()
    assert writes(world.state, endpoint("e1")) == ()
    world.network("web", "none")
    net = network_aggregate("default", "web")
    assert writes(world.state, endpoint("e1")) == (net,)
    assert writes(world.state, endpoint("e1", "10.0.0.1")) == (net, tenant_aggregate("default"))
    assert writes(world.state, endpoint("e1", tag=12)) == (net, SEGMENT_AGGREGATE)
    assert writes(world.state, DeleteEndpoint(tenant="default", name="e1")) == ()
    world.endpoint("e1", "10.0.0.1")
    assert writes(world.state, DeleteEndpoint(tenant="default", name="e1")) == (net,)
    assert writes(world.state, DeleteNetwork(tenant="default", network="gone")) == ()


def test_an_endpoint_never_shares_a_batch_with_itself() -> None:
    given = AttachEndpoint(tenant="default", network="web", name="e1", container="netns:a", host="h1")
    found = AttachEndpoint(tenant="default", name="e1", container="netns:a", host="h1")
    assert batch_key(given) == batch_key(found) == batch_key(endpoint("e1"))
    assert batch_key(endpoint("e2")) != batch_key(given)
    assert batch_key(network("web")) == ""


def full_world() -> World:
    world = World("h1", "h2")
    world.network("web", "10.0.0.0/24", "fd00::/64", gateways=("10.0.0.1",))
    world.network("bare", "none", tag=40)
    for number in range(5):
        world.endpoint(f"e{number}")
        world.attach(f"e{number}", "h2")
    world.endpoint("e1", "fd01::1", network="bare")
    world.delete("e1")
    world.confirm_gone()
    world.detach("e2")
    return world


@pytest.mark.parametrize(
    "aggregate",
    [
        tenant_aggregate("default"),
        tenant_aggregate("new"),
        network_aggregate("default", "web"),
        network_aggregate("new", "web"),
        SEGMENT_AGGREGATE,
        HOST_AGGREGATE,
        port_aggregate("default", "h2"),
        port_aggregate("new", "h2"),
    ],
)
def test_a_fork_is_put_back(aggregate: str) -> None:
    world = full_world()
    before = deepcopy(world.state)
    fork = world.state.fork(aggregate)
    world.state.put_back(aggregate, None if fork is None else world.state.fork(aggregate))
    assert world.state == before


def test_what_is_tried_on_a_state_is_undone_by_putting_back() -> None:
    world = full_world()
    before = deepcopy(world.state)
    aggregates = (network_aggregate("default", "web"), tenant_aggregate("default"), SEGMENT_AGGREGATE)
    forks = [(aggregate, world.state.fork(aggregate)) for aggregate in aggregates]
    world.endpoint("e7")
    world.attach("e7")
    world.delete("e3")
    for aggregate, fork in forks:
        world.state.put_back(aggregate, fork)
    assert world.state == before


def test_a_snapshot_is_the_state() -> None:
    world = full_world()
    read = load_state(dump_state(world.state))
    assert read == world.state
    assert dump_state(read) == dump_state(world.state)
    assert load_state(dump_state(State())) == State()


def test_a_snapshot_keeps_what_still_matters_and_forgets_the_rest() -> None:
    world = full_world()
    reports = world.state.ports["default"]["h2"].reports
    dump_state(world.state)
    assert len(reports) == 1, "the address of e1 rests: the report of its port is needed"
    assert world.state.networks["default"]["web"].has_rests()
    world.wait_s(3)
    world.confirm_gone()
    dump_state(world.state)
    assert not world.state.networks["default"]["web"].has_rests()
    assert [report.name for report in reports.values()] == ["e2"]


def test_half_of_a_batch_is_decided_on_again() -> None:
    world = World()
    world.network("web")
    world.record("np.v1.evt.default.tenant.network-added", NetworkAdded(network="db", subnets=()))
    with pytest.raises(Conflict, match="db has been followed in part"):
        world.decide(network("db"))


def test_the_follower_sees_its_aggregates_only() -> None:
    assert IPAM.follows == (
        "np.v1.evt.*.tenant.>",
        "np.v1.evt.*.net.*.>",
        "np.v1.evt.*.port.*.>",
        "np.v1.evt.fabric.segment.>",
        "np.v1.evt.fabric.host.>",
    )


def test_spans_join_and_part() -> None:
    spans = Spans()
    for first, last in ((5, 6), (1, 2), (9, 9), (3, 4), (7, 8)):
        spans.add(first, last)
    assert (spans.firsts, spans.lasts) == ([1], [9])
    spans.remove(4, 5)
    assert (spans.firsts, spans.lasts) == ([1, 6], [3, 9])
    assert [spans.first_gap(number) for number in (0, 1, 4, 6)] == [0, 4, 4, 10]
    assert [spans.first_taken(number) for number in (0, 4, 7, 10)] == [1, 6, 7, None]
    with pytest.raises(AssertionError):
        spans.add(3, 4)
    with pytest.raises(AssertionError):
        spans.remove(3, 6)
