"""`intent.apply`: many changes as one, all or nothing, and the state untouched while they are decided."""

from __future__ import annotations

from copy import deepcopy
from ipaddress import ip_address, ip_network

import pytest

from ipam_actor.definition import IPAM
from messages.endpoint import AttachEndpoint, DeleteEndpoint, DetachEndpoint, EndpointBound, EndpointCreated
from messages.intent import ApplyIntent, Change
from messages.network import DeleteNetwork, NetworkCreated
from messages.subjects import SEGMENT_AGGREGATE, aggregate_of, tenant_aggregate
from messages.tenant import CreateTenant, DeleteTenant
from services.runtime.errors import Conflict
from tests.ipam_world import World, endpoint, network


def intent(*changes: Change, tenant: str = "acme") -> ApplyIntent:
    return ApplyIntent(tenant=tenant, changes=changes)


@pytest.fixture
def world() -> World:
    return World("h1", "h2")


WHOLE = intent(
    CreateTenant(tenant="acme", subnet_pool=ip_network("10.1.0.0/16")),
    network("web", tenant="acme"),
    network("db", tenant="acme", encap="vxlan"),
    endpoint("web1", tenant="acme", container="c1"),
    endpoint("web2", tenant="acme"),
    endpoint("db1", tenant="acme", network="db"),
)


def test_a_whole_tenant_is_one_decision(world: World) -> None:
    events = world.do(WHOLE)
    assert [event.subnets for event in events if isinstance(event, NetworkCreated)] == [
        (ip_network("10.1.0.0/24"),),
        (ip_network("10.1.1.0/24"),),
    ]
    assert world.show("web1", tenant="acme").status.host == "h1"
    assert [str(world.show(n, tenant="acme").status.addresses[0]) for n in ("web1", "web2")] == [
        "10.1.0.1/24",
        "10.1.0.2/24",
    ]
    ids = {event.endpoint for event in events if isinstance(event, EndpointCreated | EndpointBound)}
    assert len(ids) == 3


def test_each_change_has_its_count_of_facts_and_the_state_is_as_it_was(world: World) -> None:
    before = deepcopy(world.state)
    decision = world.decide(WHOLE)
    assert decision.parts == (1, 3, 3, 1, 1, 1)
    assert sum(decision.parts) == len(decision.facts)
    assert world.state == before


def test_what_is_true_already_comes_to_nothing(world: World) -> None:
    world.do(WHOLE)
    assert world.decide(WHOLE).parts == (0,) * 6


def test_one_refusal_refuses_all_and_names_the_change(world: World) -> None:
    command = intent(*WHOLE.changes, endpoint("web3", "10.9.9.9", tenant="acme"))
    rejection = world.refused(command)
    assert rejection.code == "address-outside-subnet"
    assert "change 7 of 7 (create-endpoint acme/web/web3)" in rejection.detail
    assert "nothing was done" in rejection.detail


def test_a_tenant_goes_with_all_that_is_in_it(world: World) -> None:
    world.do(WHOLE)
    world.do(
        intent(
            *(DeleteEndpoint(tenant="acme", name=name) for name in ("web1", "web2", "db1")),
            DeleteNetwork(tenant="acme", network="web"),
            DeleteNetwork(tenant="acme", network="db"),
            DeleteTenant(tenant="acme"),
        )
    )
    assert world.state.tenants["acme"].record is None


def test_an_endpoint_moves_and_its_epoch_is_the_real_one(world: World) -> None:
    world.do(WHOLE)
    epoch = world.show("web1", tenant="acme").status.epoch
    moved = intent(
        DetachEndpoint(tenant="acme", name="web1", network="web"),
        AttachEndpoint(tenant="acme", name="web1", network="web", container="c1", host="h2"),
    )
    unbound, bound = world.do(moved)
    assert (unbound.epoch, bound.host) == (epoch, "h2")  # type: ignore[attr-defined]
    assert world.show("web1", tenant="acme").status.epoch == world.journal[-1].seq


def test_an_endpoint_that_is_made_anew_keeps_its_name_and_may_keep_its_address(world: World) -> None:
    world.do(WHOLE)
    again = endpoint("web1", "10.1.0.1", tenant="acme", mac="02:00:00:00:00:99", container="c1")
    world.do(intent(DeleteEndpoint(tenant="acme", name="web1", network="web"), again))
    status = world.show("web1", tenant="acme").status
    assert (status.mac, status.addresses[0].ip) == ("02:00:00:00:00:99", ip_address("10.1.0.1"))


def test_what_was_bound_by_the_same_intent_cannot_be_unbound_by_it(world: World) -> None:
    """Its epoch is the sequence that is not known before it is recorded."""
    command = intent(*WHOLE.changes, DetachEndpoint(tenant="acme", name="web1", network="web"))
    assert world.refused(command).code == "changed-twice"


def test_it_fits_into_one_batch_or_is_refused(world: World) -> None:
    many = tuple(endpoint(f"e{number}", tenant="acme") for number in range(998))
    world.do(intent(CreateTenant(tenant="acme"), network("web", "10.0.0.0/16", tenant="acme")))
    world.do(intent(*many))
    more = intent(*(network(f"n{number}", tenant="acme") for number in range(334)))
    assert world.refused(more).code == "too-many-events"


def test_changes_are_of_one_tenant_and_there_is_one_at_least() -> None:
    with pytest.raises(ValueError, match=r"change 1 is of tenant 'beta': expected 'acme'"):
        intent(network("web", tenant="beta"))
    with pytest.raises(ValueError, match=r"0 changes: expected 1 to 1000"):
        intent()


def test_what_is_followed_in_part_is_decided_again(world: World) -> None:
    """Another copy's batch arrives event by event: between two of them, its network is half gone, or half retagged."""
    world.do(WHOLE)
    gone = intent(DeleteNetwork(tenant="acme", network="empty"))
    world.do(intent(network("empty", tenant="acme", tag=77)))
    for aggregate in (tenant_aggregate("acme"), SEGMENT_AGGREGATE):
        kept = world.state.fork(aggregate)
        for fact in world.decide(gone).facts:
            if aggregate_of(fact.subject) == aggregate:
                IPAM.apply(world.state, fact.subject, fact.event, len(world.journal) + 1, world.now_ns)
        with pytest.raises(Conflict):
            world.decide(gone)
        world.state.put_back(aggregate, kept)
    assert world.decide(gone).parts == (3,)
