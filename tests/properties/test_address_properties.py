"""Ranges, exclusions and pools against a model that asks of every single address whether it may be given."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipam_actor.snapshot import dump_state, load_state
from ipam_actor.spans import joined, without
from messages.addresses import AddressRange
from messages.endpoint import CreateEndpoint, DeleteEndpoint
from messages.ipam import AddressesView, AddressSet, ShowIpam
from messages.network import CreateNetwork, SetNetwork
from messages.pool import CreatePool, DeletePool
from messages.replies import Items
from messages.struct import Command
from services.runtime.decision import Rejection
from tests.ipam_world import World

BASE = int(ip_address("10.0.0.0"))
SUBNETS = ("10.0.0.0/28", "10.0.0.16/29")
SIZE = 24
NAMES = tuple(f"e{number}" for number in range(10))
POOLS = ("front", "back")

_number = st.integers(0, SIZE - 1)
_span = st.tuples(_number, st.integers(0, 5)).map(lambda each: (each[0], min(each[0] + each[1], SIZE - 1)))


def _disjoint(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    kept: list[tuple[int, int]] = []
    for first, last in spans:
        crosses = first < 16 <= last  # no range may lie in two subnets
        if not crosses and all(last < other[0] or other[1] < first for other in kept):
            kept.append((first, last))
    return kept


_spans = st.lists(_span, max_size=3).map(_disjoint)
_some_spans = _spans.filter(bool)
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("create"), st.sampled_from(NAMES), st.none() | st.sampled_from(POOLS), st.none() | _number),
        st.tuples(st.just("delete"), st.sampled_from(NAMES)),
        st.tuples(st.just("exclude"), _spans),
        st.tuples(st.just("ranges"), _spans),
        st.tuples(st.just("pool"), st.sampled_from(POOLS), _some_spans),
        st.tuples(st.just("unpool"), st.sampled_from(POOLS)),
    ),
    min_size=10,
    max_size=40,
)


class Model:
    """What is said of every address, one by one. Numbers are offsets from 10.0.0.0."""

    def __init__(self) -> None:
        self.used: dict[int, str] = {}
        self.pool_of: dict[str, str] = {}
        self.excluded: set[int] = set()
        self.ranges: set[int] = set()
        self.pools: dict[str, set[int]] = {}
        self.reserved = {0, 15, 16, 23}

    def is_offered(self, number: int, pool: str | None) -> bool:
        """Whoever comes for this pool, or for none, may be given the number."""
        if number in self.used or number in self.excluded or number in self.reserved:
            return False
        if pool is not None:
            return number in self.pools[pool]
        if any(number in kept for kept in self.pools.values()):
            return False
        ranges_here = {each for each in self.ranges if (each < 16) == (number < 16)}
        return not ranges_here or number in ranges_here

    def create(self, name: str, pool: str | None, asked: int | None) -> int | None:
        """The number that is given, none for a refusal."""
        if pool is not None and pool not in self.pools:
            return None
        if asked is None:
            found = next((number for number in range(SIZE) if self.is_offered(number, pool)), None)
        else:
            is_barred = asked in self.used or asked in self.excluded or asked in self.reserved
            is_outside = pool is not None and asked not in self.pools[pool]
            found = None if is_barred or is_outside else asked
        if found is not None:
            self.used[found] = name
            self.pool_of[name] = pool or ""
        return found

    def sets(self) -> dict[str, list[int]]:
        """Every number, in the one set that it is shown in."""
        found: dict[str, list[int]] = {
            what: [] for what in ("used", "reserved", "excluded", "pooled", "free", "on_request")
        }
        for number in range(SIZE):
            found[self._set_of(number)].append(number)
        return found

    def _set_of(self, number: int) -> str:
        if number in self.used:
            return "used"
        if number in self.reserved:
            return "reserved"
        if number in self.excluded:
            return "excluded"
        if any(number in kept for kept in self.pools.values()):
            return "pooled"
        return "free" if self.is_offered(number, None) else "on_request"


def _ranges(spans: list[tuple[int, int]]) -> tuple[AddressRange, ...]:
    return tuple(AddressRange(BASE + first, BASE + last, 4) for first, last in spans)


def _numbers(spans: list[tuple[int, int]]) -> set[int]:
    return {number for first, last in spans for number in range(first, last + 1)}


def _do(world: World, command: Command) -> bool:
    try:
        world.do(command)
    except Rejection:
        return False
    return True


def _step(world: World, model: Model, step: Any) -> None:
    where: dict[str, Any] = {"tenant": "default", "network": "web"}
    match step:
        case ("create", name, pool, asked):
            if name in model.pool_of:
                return
            addresses = () if asked is None else (IPv4Address(BASE + asked),)
            is_done = _do(world, CreateEndpoint(**where, name=name, pool=pool, addresses=addresses))
            expected = model.create(name, pool, asked)
            assert is_done == (expected is not None)
            if expected is not None:
                assert int(world.show(name).status.addresses[0].ip) == BASE + expected
        case ("delete", name):
            assert _do(world, DeleteEndpoint(**where, name=name)) == (name in model.pool_of)
            model.used = {number: owner for number, owner in model.used.items() if owner != name}
            model.pool_of.pop(name, None)
        case ("exclude", spans):
            numbers = _numbers(spans)
            is_free = not numbers & model.used.keys() and not any(numbers & kept for kept in model.pools.values())
            assert _do(world, SetNetwork(**where, exclude=_ranges(spans))) == is_free
            model.excluded = numbers if is_free else model.excluded
        case ("ranges", spans):
            assert _do(world, SetNetwork(**where, ranges=_ranges(spans)))
            model.ranges = _numbers(spans)
        case ("pool", name, spans):
            numbers = _numbers(spans)
            is_apart = not numbers & model.excluded and not any(numbers & kept for kept in model.pools.values())
            if name in model.pools:
                return
            assert _do(world, CreatePool(**where, name=name, ranges=_ranges(spans))) == is_apart
            if is_apart:
                model.pools[name] = numbers
        case ("unpool", name):
            is_over = name in model.pools and name not in model.pool_of.values()
            assert _do(world, DeletePool(**where, name=name)) == is_over
            if is_over:
                del model.pools[name]


def _shown(world: World) -> dict[str, list[int]]:
    reply = world.decide(ShowIpam(tenant="default", network="web")).reply
    assert isinstance(reply, Items)
    (view,) = reply.objects
    assert isinstance(view, AddressesView)
    found: dict[str, list[int]] = {}
    for subnet in view.subnets:
        assert subnet.resting.count == 0, "what was never bound does not rest"
        for what in Model().sets():
            addresses: AddressSet = getattr(subnet, what)
            numbers = [n - BASE for each in addresses.ranges for n in range(each.first, each.last + 1)]
            assert len(numbers) == addresses.count
            found.setdefault(what, []).extend(numbers)
    return found


def play(steps: list[Any]) -> World:
    world, model = World(), Model()
    world.do(CreateNetwork(tenant="default", network="web", subnets=tuple(map(ip_network, SUBNETS))))
    for step in steps:
        _step(world, model, step)
        assert _shown(world) == model.sets()
    return world


@given(_steps)
def test_what_is_given_and_shown_is_what_the_model_says(steps: list[Any]) -> None:
    world = play(steps)
    assert load_state(dump_state(world.state)) == world.state


@pytest.mark.long
@settings(max_examples=5000, deadline=None)
@given(_steps)
def test_long_what_is_given_and_shown_is_what_the_model_says(steps: list[Any]) -> None:
    play(steps)


@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)))
def test_spans_without_holes_are_a_difference_of_sets(numbers: set[int], holes: set[int]) -> None:
    left = without(joined(sorted(numbers)), joined(sorted(holes)))
    assert left == joined(sorted(numbers - holes))


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5))))
def test_spans_that_touch_are_taken_as_they_come(pairs: list[tuple[int, int]]) -> None:
    spans, at = [], 0
    for gap, length in pairs:
        spans.append((at + gap, at + gap + length))
        at += gap + length + 1
    numbers = {number for first, last in spans for number in range(first, last + 1)}
    left = {number for first, last in without(spans, []) for number in range(first, last + 1)}
    assert left == numbers
    assert without(spans, spans) == []
