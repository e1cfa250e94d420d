"""What a host folds from the journal: bindings by epoch, what it owes, and what survives on its disk."""

from __future__ import annotations

import pytest

from host_actor.desired import Desired, Unreadable
from messages import subjects
from messages.catalog import event_name
from messages.endpoint import EndpointBound, EndpointDeleted, EndpointUnbound
from messages.port import PortBound, PortUnbound, PortWaiting
from tests.harness.host_world import HOST, NETWORK, TENANT, bound, deleted, endpoint_id, subject_of, unbound


def fold(desired: Desired, *events: tuple[int, EndpointBound | EndpointUnbound | EndpointDeleted]) -> list[str | None]:
    return [desired.apply(seq, subject_of(event), event) for seq, event in events]


def port_bound(number: int, epoch: int) -> PortBound:
    return PortBound(
        tenant=TENANT,
        network=NETWORK,
        endpoint=endpoint_id(number),
        name=f"e{number}",
        host=HOST,
        epoch=epoch,
        device="np1",
        interface="eth0",
    )


def port_unbound(number: int, epoch: int) -> PortUnbound:
    return PortUnbound(
        tenant=TENANT, network=NETWORK, endpoint=endpoint_id(number), name=f"e{number}", host=HOST, epoch=epoch
    )


def report(desired: Desired, seq: int, event: PortBound | PortUnbound) -> None:
    desired.apply(seq, subjects.port_event(TENANT, HOST, event_name(event)), event)


def test_bound_here_is_desired_with_its_sequence_as_epoch() -> None:
    desired = Desired(HOST)
    assert fold(desired, (7, bound(1))) == [endpoint_id(1)]
    assert desired.bindings[endpoint_id(1)].epoch == 7
    assert desired.seq == 7


def test_bound_elsewhere_is_not() -> None:
    desired = Desired(HOST)
    assert fold(desired, (7, bound(1, host="h2"))) == [None]
    assert not desired.bindings


def test_unbound_removes_the_binding_and_is_owed_a_confirmation() -> None:
    desired = Desired(HOST)
    fold(desired, (7, bound(1)), (8, unbound(1, 7)))
    assert not desired.bindings
    (departure,) = desired.owed(endpoint_id(1))
    assert (departure.tenant, departure.network, departure.epoch, departure.ended_seq) == (TENANT, NETWORK, 7, 8)


def test_deleted_while_bound_is_the_same_as_unbound() -> None:
    desired = Desired(HOST)
    fold(desired, (7, bound(1)), (8, deleted(1, 7)))
    assert not desired.bindings
    assert [departure.epoch for departure in desired.owed(endpoint_id(1))] == [7]


def test_deleted_and_bound_nowhere_is_nothing_to_a_host() -> None:
    desired = Desired(HOST)
    fold(desired, (8, deleted(1, 0)))
    assert not desired.departures


def test_an_end_of_an_older_binding_leaves_the_newer_one() -> None:
    desired = Desired(HOST)
    fold(desired, (7, bound(1)), (8, unbound(1, 7)), (9, bound(1)), (10, deleted(1, 7)))
    assert desired.bindings[endpoint_id(1)].epoch == 9
    assert [departure.ended_seq for departure in desired.owed(endpoint_id(1))] == [10]


def test_what_was_folded_before_changes_nothing() -> None:
    desired = Desired(HOST)
    fold(desired, (7, bound(1)), (8, unbound(1, 7)))
    assert fold(desired, (7, bound(1)), (8, unbound(1, 7))) == [None, None]
    assert not desired.bindings


def test_confirmed_is_owed_no_more() -> None:
    desired = Desired(HOST)
    fold(desired, (7, bound(1)), (8, unbound(1, 7)))
    report(desired, 9, port_unbound(1, 7))
    assert not desired.departures


def test_an_end_after_its_confirmation_is_owed_again() -> None:
    """The endpoint was unbound, confirmed, and then deleted by somebody who had not seen the confirmation yet."""
    desired = Desired(HOST)
    fold(desired, (7, bound(1)), (8, unbound(1, 7)))
    report(desired, 9, port_unbound(1, 7))
    fold(desired, (10, deleted(1, 7)))
    desired.confirm(endpoint_id(1), 7, 9)
    assert [departure.ended_seq for departure in desired.owed(endpoint_id(1))] == [10]


def test_own_reports_are_remembered_for_the_present_binding_only() -> None:
    desired = Desired(HOST)
    fold(desired, (7, bound(1)))
    report(desired, 8, port_bound(1, 7))
    assert desired.reported[endpoint_id(1)].kind == "port-bound"
    fold(desired, (9, unbound(1, 7)), (10, bound(1)))
    assert endpoint_id(1) not in desired.reported
    report(desired, 11, port_bound(1, 7))
    assert endpoint_id(1) not in desired.reported


def test_dump_and_load_give_the_same() -> None:
    desired = Desired(HOST)
    desired.created = "2026-11-23T20:00:00Z"
    fold(desired, (7, bound(1)), (8, bound(2)), (9, unbound(1, 7)))
    waiting = PortWaiting(
        tenant=TENANT,
        network=NETWORK,
        endpoint=endpoint_id(2),
        name="e2",
        host=HOST,
        epoch=8,
        code="container-absent",
        reason="no container 'c2'",
    )
    desired.note(waiting)
    loaded = Desired.load(HOST, desired.dump())
    for field in ("created", "seq", "reports_seq", "bindings", "departures", "reported"):
        assert getattr(loaded, field) == getattr(desired, field), field


@pytest.mark.parametrize("saved", [b"", b"{", b"[]", b'{"host": 1}', b"\xff\xfe"])
def test_what_cannot_be_read_is_said(saved: bytes) -> None:
    with pytest.raises(Unreadable):
        Desired.load(HOST, saved)


def test_another_hosts_state_is_not_taken() -> None:
    with pytest.raises(Unreadable, match="it belongs to host 'h2': expected 'h1'"):
        Desired.load(HOST, Desired("h2").dump())
