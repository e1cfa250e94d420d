"""From what must be and what is to the operations between."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from host_actor.attachments import port_of
from host_actor.drivers.contract import (
    ALL_PARTS,
    DropPort,
    EnsurePort,
    EnsureSwitch,
    Observed,
    ObservedPort,
    Part,
    PortSpec,
    Sandbox,
)
from host_actor.planner import leave_unknown, plan
from tests.harness.host_world import bound, endpoint_id


def spec(number: int, epoch: int = 5, sandbox_key: str = "") -> PortSpec:
    key = sandbox_key or f"netns:{number}"
    return port_of(bound(number), epoch, Sandbox(key, f"/run/netns/c{number}"))


def port(
    number: int, epoch: int = 5, parts: frozenset[Part] = ALL_PARTS, sandbox_key: str | None = None
) -> ObservedPort:
    key = f"netns:{number}" if sandbox_key is None else sandbox_key
    return ObservedPort(endpoint_id(number), epoch, spec(number).device, parts, key, "eth0")


def observed(*ports: ObservedPort, is_ready: bool = True) -> Observed:
    return Observed(is_ready, {each.endpoint: each for each in ports})


def wanted(*specs: PortSpec) -> Mapping[str, PortSpec]:
    return {each.endpoint: each for each in specs}


def drop(number: int) -> DropPort:
    return DropPort(endpoint_id(number), spec(number).device)


def test_nothing_to_do() -> None:
    assert plan(wanted(spec(1)), observed(port(1))) == ()


def test_the_switch_comes_first() -> None:
    assert plan(wanted(spec(1)), observed(port(2), is_ready=False)) == (EnsureSwitch(), drop(2), EnsurePort(spec(1)))


def test_a_stranger_goes() -> None:
    assert plan({}, observed(port(1))) == (drop(1),)


@pytest.mark.parametrize("lost", sorted(Part))
def test_only_what_is_missing_is_made(lost: Part) -> None:
    found = observed(port(1, parts=ALL_PARTS - {lost}))
    assert plan(wanted(spec(1)), found) == (EnsurePort(spec(1), frozenset({lost})),)


@pytest.mark.parametrize("epoch", [4, 6])
def test_another_epoch_goes_before_this_one_comes(epoch: int) -> None:
    assert plan(wanted(spec(1)), observed(port(1, epoch=epoch))) == (drop(1), EnsurePort(spec(1)))


def test_another_sandbox_goes_before_this_one_comes() -> None:
    found = observed(port(1, sandbox_key="netns:of-the-run-before"))
    assert plan(wanted(spec(1)), found) == (drop(1), EnsurePort(spec(1)))


def test_a_port_that_has_lost_its_epoch_is_made_anew_and_not_dropped() -> None:
    found = observed(port(1, epoch=0, parts=frozenset({Part.LINK}), sandbox_key=""))
    assert plan(wanted(spec(1)), found) == (EnsurePort(spec(1), ALL_PARTS),)


def test_all_that_goes_goes_before_anything_comes() -> None:
    ops = plan(wanted(spec(1), spec(2, epoch=9)), observed(port(2), port(3)))
    assert ops == (drop(2), drop(3), EnsurePort(spec(1)), EnsurePort(spec(2, epoch=9)))


def test_who_is_not_sure_leaves_strangers_and_newer_epochs_alone() -> None:
    specs, found = leave_unknown(wanted(spec(1), spec(2)), observed(port(1, epoch=9), port(2, epoch=4), port(3)), {})
    assert plan(specs, found) == (drop(2), EnsurePort(spec(2)))


def test_who_is_not_sure_takes_away_what_is_known_to_have_ended() -> None:
    specs, found = leave_unknown({}, observed(port(1), port(2)), {endpoint_id(1): 5, endpoint_id(2): 4})
    assert plan(specs, found) == (drop(1),)
