"""What holds after any sequence of commands and reports, decided and folded as the shell does it."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from ipaddress import ip_address, ip_interface, ip_network
from itertools import takewhile
from random import Random
from typing import Any, TypeGuard

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipam_actor.definition import IPAM
from ipam_actor.macs import mac_for
from ipam_actor.pools import reserved_in
from ipam_actor.resting import REST_NS
from ipam_actor.snapshot import dump_state, load_state
from ipam_actor.spans import Spans
from ipam_actor.state import State
from messages.addresses import Address, Network, parse_range
from messages.endpoint import (
    AttachEndpoint,
    CreateEndpoint,
    DeleteEndpoint,
    DetachEndpoint,
    EndpointBound,
    EndpointCreated,
    ListEndpoints,
)
from messages.host import HostRemoved, JoinHost, RemoveHost
from messages.network import CreateNetwork, DeleteNetwork, SetNetwork
from messages.pool import CreatePool, DeletePool
from messages.port import PortBound, PortUnbound
from messages.struct import Command
from messages.subjects import aggregate_of
from messages.tenant import CreateTenant, DeleteTenant, SetTenant
from services.runtime.decision import Rejection
from tests.ipam_world import Line, World

TENANTS = ("default", "acme")
NETWORKS = ("web", "db", "x")
NAMES = ("e1", "e2", "e3", "e4")
HOSTS = ("h1", "h2")
CONTAINERS = ("netns:a", "c1")
SUBNETS = ("10.0.0.0/30", "10.0.0.0/29", "10.0.0.8/29", "10.0.0.16/31", "fd00::/126", "fd00::/64")
ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.9", "10.0.0.16", "fd00::", "fd00::2", "11.0.0.1")
RANGES = ("10.0.0.2", "10.0.0.4-10.0.0.5", "10.0.0.9-10.0.0.10", "fd00::2-fd00::3")
POOLS = ("front", "back")
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
TAGS = (1, 2, 12, 10000)

_tenant = st.sampled_from(TENANTS)
_network = st.sampled_from(NETWORKS)
_place = st.none() | st.tuples(st.sampled_from(CONTAINERS), st.sampled_from(HOSTS))
_addresses = st.lists(st.sampled_from(ADDRESSES), max_size=2, unique=True).map(
    lambda each: tuple(map(ip_address, each))
)


def _create_network(tenant: str, network: str, encap: Any, tag: int | None, subnets: Any) -> CreateNetwork | None:
    try:
        return CreateNetwork(tenant=tenant, network=network, encap=encap, tag=tag, subnets=subnets)
    except ValueError:
        return None


def _create_endpoint(
    tenant: str, network: str, name: str, addresses: Any, mac: str | None, tag: int | None, place: Any, pool: str | None
) -> CreateEndpoint:
    container, host = place or (None, None)
    where = {"container": container, "host": host}
    return CreateEndpoint(
        tenant=tenant, network=network, name=name, addresses=addresses, mac=mac, tag=tag, pool=pool, **where
    )


_subnets = st.sampled_from(("auto", "none")) | st.lists(
    st.sampled_from(SUBNETS).map(ip_network), min_size=1, max_size=2, unique=True
).map(tuple)
_mostly_here = st.sampled_from(("default",) * 5 + ("acme",))
_mostly_web = st.sampled_from(("web",) * 4 + ("db", "x"))
_maybe_network = st.sampled_from(("web",) * 4 + ("db", "x", None))
_name = st.sampled_from(NAMES)
_container, _host = st.sampled_from(CONTAINERS), st.sampled_from(HOSTS)
_nothing = st.just(())
_pool = st.sampled_from(POOLS)
_ranges: st.SearchStrategy[Any] = st.lists(st.sampled_from(RANGES).map(parse_range), max_size=2, unique=True).map(tuple)

_structural: st.SearchStrategy[Command | None] = st.one_of(
    st.builds(CreateTenant, tenant=_tenant, vlans=st.sampled_from((None, "1-2", "1-3,12"))),
    st.builds(SetTenant, tenant=_tenant, vlans=st.sampled_from(("", "2-3", "12")), subnet_length=st.just(25)),
    st.builds(DeleteTenant, tenant=_tenant),
    st.builds(
        _create_network,
        _tenant,
        _network,
        st.sampled_from(("vlan", "vlan", "vxlan")),
        st.none() | st.sampled_from(TAGS),
        _subnets,
    ),
    st.builds(DeleteNetwork, tenant=_mostly_here, network=_network),
    st.builds(SetNetwork, tenant=_mostly_here, network=_mostly_web, ranges=_ranges, exclude=_ranges),
    st.builds(
        CreatePool,
        tenant=_mostly_here,
        network=_mostly_web,
        name=_pool,
        ranges=st.sampled_from(RANGES).map(lambda each: (parse_range(each),)),
    ),
    st.builds(DeletePool, tenant=_mostly_here, network=_mostly_web, name=_pool),
    st.builds(
        JoinHost,
        tenant=st.just("fabric"),
        host=_host,
        driver=st.just("ovs"),
        datapath=st.just("netdev"),
        version=st.sampled_from(("0", "1")),
    ),
    st.builds(RemoveHost, tenant=st.just("fabric"), host=_host),
)
_plain = st.builds(
    _create_endpoint, _mostly_here, _mostly_web, _name, _nothing, st.none(), st.none(), _place, st.none()
)
_asking = st.builds(
    _create_endpoint,
    _mostly_here,
    _mostly_web,
    _name,
    _addresses,
    st.none() | st.sampled_from(MACS),
    st.sampled_from((None, None, None, *TAGS)),
    _place,
    st.none() | _pool,
)
_attach = st.builds(
    AttachEndpoint, tenant=_mostly_here, network=_maybe_network, name=_name, container=_container, host=_host
)
_detach = st.builds(
    DetachEndpoint, tenant=_mostly_here, network=_maybe_network, name=_name, container=st.none() | _container
)
_delete = st.builds(DeleteEndpoint, tenant=_mostly_here, network=_maybe_network, name=_name)
_KINDS: tuple[st.SearchStrategy[Command | None], ...] = (
    *(_plain,) * 5,
    *(_asking,) * 3,
    *(_attach,) * 2,
    _detach,
    *(_delete,) * 3,
    *(_structural,) * 2,
)
_commands = st.sampled_from(_KINDS).flatmap(lambda kind: kind)
# What happens beside commands: time passes, hosts confirm, hosts report a port of some binding.
_beside = st.floats(0.1, 3.0) | st.just("confirm") | st.tuples(st.booleans(), st.integers(0, 9))
_step: st.SearchStrategy[Any] = st.integers(0, 4).flatmap(lambda kind: _commands if kind else _beside)
_steps = st.lists(_step, max_size=12).flatmap(
    lambda few: st.lists(_step, min_size=12, max_size=60).map(lambda many: few + many) if few else st.just(few)
)


def play(steps: list[Any], check: Callable[[World, Command, tuple[Any, ...]], None] | None = None) -> World:
    world = World(*HOSTS)
    world.do(CreateTenant(tenant="acme"))
    world.do(CreateNetwork(tenant="default", network="web", subnets=(ip_network("10.0.0.0/29"),)))
    world.do(CreateNetwork(tenant="default", network="db", subnets="none"))
    for step in steps:
        _take(world, step, check)
    return world


def _take(world: World, step: Any, check: Callable[[World, Command, tuple[Any, ...]], None] | None) -> None:
    if step is None:
        return
    if isinstance(step, float):
        world.wait_s(step)
    elif step == "confirm":
        world.confirm_gone()
    elif isinstance(step, tuple):
        _report(world, *step)
    else:
        try:
            events = world.do(step)
        except Rejection:
            return
        if check is not None:
            check(world, step, events)


def _report(world: World, is_bound: bool, which: int) -> None:
    bindings = [line for line in world.journal if isinstance(line.event, EndpointBound)]
    if which >= len(bindings):
        return
    line = bindings[which]
    bound = line.event
    assert isinstance(bound, EndpointBound)
    about: dict[str, Any] = {
        "tenant": bound.tenant,
        "network": bound.network,
        "endpoint": bound.endpoint,
        "name": bound.name,
        "host": bound.host,
        "epoch": line.seq,
    }
    world.report(PortBound(**about, device="np0", interface="eth0") if is_bound else PortUnbound(**about))


def check_invariants(world: World, *_: Any) -> None:
    state = world.state
    tags: set[tuple[str, int]] = set()
    for tenant, networks in state.networks.items():
        subnets: list[Network] = []
        for name, network in networks.items():
            if network.record is None:
                assert not network.endpoints
                continue
            record = network.record
            assert (record.encap, record.tag) not in tags, "a tag is used twice"
            tags.add((record.encap, record.tag))
            assert state.segments.owners[record.encap][record.tag].network == name
            assert state.tenants[tenant].networks[name] == record.subnets
            subnets += record.subnets
            _check_addresses(world, network)
        for position, subnet in enumerate(subnets):
            others = subnets[:position]
            assert not any(subnet.version == other.version and subnet.overlaps(other) for other in others)
    assert len(tags) == sum(map(len, state.segments.owners.values()))


def _check_addresses(world: World, network: Any) -> None:
    endpoints = network.endpoints.values()
    addresses = [interface.ip for endpoint in endpoints for interface in endpoint.addresses]
    assert len(set(addresses)) == len(addresses), "an address is given twice"
    assert len({endpoint.mac for endpoint in endpoints}) == len(endpoints), "a MAC is given twice"
    for subnet in network.record.subnets:
        reserved = set(reserved_in(subnet, network.record.gateways))
        assert not any(address in subnet and int(address) in reserved for address in addresses)
    for endpoint in endpoints:
        versions = {interface.version for interface in endpoint.addresses}
        assert versions <= {subnet.version for subnet in network.record.subnets}
        assert int(endpoint.mac[:2], 16) & 1 == 0


@given(_steps)
def test_nothing_is_given_twice_and_nothing_reserved_is_given(steps: list[Any]) -> None:
    check_invariants(play(steps, check_invariants))


@given(_steps)
def test_an_address_given_to_another_rested_first(steps: list[Any]) -> None:
    def check(world: World, command: Command, events: tuple[Any, ...]) -> None:
        del command
        for event in events:
            if _is_beginning(event):
                subject = world.journal[-1].subject.rsplit(".", 2)[0]
                for interface in event.addresses:
                    for before in _last_owners(world.journal[: -len(events)], subject, interface.ip):
                        assert before.name == event.name or _is_gone(world, before.endpoint), (
                            f"{interface} is given too soon"
                        )

    play(steps, check)


def _is_beginning(event: Any) -> TypeGuard[EndpointCreated | EndpointBound]:
    return isinstance(event, EndpointCreated) or (isinstance(event, EndpointBound) and event.is_new)


def _last_owners(journal: list[Line], network: str, address: Address) -> list[EndpointCreated | EndpointBound]:
    """The last that had the address, and those of its name that had it right before."""
    owners = [
        line.event
        for line in journal
        if line.subject.startswith(f"{network}.")
        and _is_beginning(line.event)
        and any(interface.ip == address for interface in line.event.addresses)
    ]
    return list(takewhile(lambda each: each.name == owners[-1].name, reversed(owners)))


def _is_gone(world: World, endpoint: str) -> bool:
    """Read off the journal: each host that it was on said last, 2 s ago, that the port is gone; or was removed."""
    for line in world.journal:
        if not isinstance(line.event, EndpointBound) or line.event.endpoint != endpoint:
            continue
        host, epoch = line.event.host, line.seq
        said = [
            each
            for each in world.journal
            if isinstance(each.event, (PortBound, PortUnbound))
            and (each.event.endpoint, each.event.host) == (endpoint, host)
            and each.event.epoch >= epoch
        ]
        newest = max((each for each in said), key=lambda each: (each.event.epoch, each.seq), default=None)  # type: ignore[union-attr]
        is_said = (
            newest is not None and isinstance(newest.event, PortUnbound) and newest.at_ns + REST_NS <= world.now_ns
        )
        is_removed = any(
            isinstance(each.event, HostRemoved) and each.event.host == host and each.seq > epoch
            for each in world.journal
        )
        if not is_said and not is_removed:
            return False
    return True


@given(_steps)
def test_the_same_again_changes_nothing(steps: list[Any]) -> None:
    def check(world: World, command: Command, events: tuple[Any, ...]) -> None:
        del events
        if not type(command).__name__.startswith(("Delete", "Remove")):
            assert world.do(command) == ()
        else:
            assert world.refused(command).code.startswith(("unknown-", "ambiguous-"))

    # A name in two networks: to delete the one that is left is another wish than before.
    play([step for step in steps if not (isinstance(step, DeleteEndpoint) and step.network is None)], check)


def replayed(journal: list[Line]) -> State:
    state = State()
    for line in journal:
        IPAM.apply(state, line.subject, line.event, line.seq, line.at_ns)
    return state


@given(_steps, st.randoms(use_true_random=False))
def test_the_state_is_the_fold_of_its_events_in_any_order_of_aggregates(steps: list[Any], random: Random) -> None:
    world = play(steps)
    assert replayed(world.journal) == world.state
    lanes: dict[str, list[Line]] = {}
    for line in world.journal:
        lanes.setdefault(aggregate_of(line.subject), []).append(line)
    shuffled: list[Line] = []
    while lanes:
        name = random.choice(sorted(lanes))
        shuffled.append(lanes[name].pop(0))
        if not lanes[name]:
            del lanes[name]
    assert replayed(shuffled) == world.state


@given(_steps, _steps)
def test_a_snapshot_goes_on_like_the_state_it_is_of(before: list[Any], after: list[Any]) -> None:
    world = play(before)
    loaded = deepcopy(world)
    loaded.state = load_state(dump_state(deepcopy(world.state)))
    shown = ListEndpoints(tenant="fabric")
    assert loaded.decide(shown).reply == world.decide(shown).reply
    # A host that takes back its word about a port that is long forgotten is no case of the real world.
    for step in after:
        if not isinstance(step, tuple):
            _take(world, step, None)
            _take(loaded, step, None)
    assert loaded.journal == world.journal
    assert load_state(dump_state(loaded.state)) == load_state(dump_state(world.state))


@given(_steps, _commands)
def test_putting_back_undoes(steps: list[Any], command: Command | None) -> None:
    world = play(steps)
    if command is None:
        return
    before = deepcopy(world.state)
    forks = [(aggregate, world.state.fork(aggregate)) for aggregate in IPAM.writes(world.state, command)]
    _take(world, command, None)
    for aggregate, fork in forks:
        world.state.put_back(aggregate, fork)
    assert world.state == before


@given(_steps)
def test_all_deleted_and_rested_is_as_at_the_beginning(steps: list[Any]) -> None:
    world = play(steps)
    for tenant, networks in list(world.state.networks.items()):
        for name, network in list(networks.items()):
            if network.record is None:
                continue
            for endpoint in list(network.endpoints):
                world.do(DeleteEndpoint(tenant=tenant, network=name, name=endpoint))
            world.do(DeleteNetwork(tenant=tenant, network=name))
    for tenant in [name for name, each in world.state.tenants.items() if each.record is not None]:
        world.do(DeleteTenant(tenant=tenant))
    _gone_for_good(world)
    dump_state(world.state)
    fresh = World(*HOSTS).state
    fresh.hosts = world.state.hosts
    fresh.segments.seq = world.state.segments.seq
    for ports in world.state.ports.values():
        assert not any(each.reports for each in ports.values())
    world.state.ports.clear()
    assert world.state == fresh


def _gone_for_good(world: World) -> None:
    """Every host says, last, that nothing is left of any binding, and enough time goes by."""
    for which in range(sum(isinstance(line.event, EndpointBound) for line in world.journal)):
        _report(world, False, which)
    world.wait_s(3)
    world.record("np.v1.evt.other.port.h1.port-unbound", _ANY_REPORT)


_ANY_REPORT = PortUnbound(tenant="other", network="n", endpoint="none", name="n", host="h1", epoch=1)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 4))))
def test_spans_are_a_set(steps: list[tuple[bool, int, int]]) -> None:
    spans, numbers = Spans(), set[int]()
    for is_added, first, more in steps:
        span = set(range(first, first + more + 1))
        if is_added and not span & numbers:
            spans.add(first, first + more)
            numbers |= span
        elif not is_added and span <= numbers:
            spans.remove(first, first + more)
            numbers -= span
        assert spans.overlaps(first, first + more) == bool(span & numbers)
    for number in range(50):
        assert (number in spans) == (number in numbers)
        assert spans.first_gap(number) == next(n for n in range(number, 100) if n not in numbers)
        assert spans.first_taken(number) == next((n for n in range(number, 50) if n in numbers), None)
    assert all(last + 1 < first for last, first in zip(spans.lasts, spans.firsts[1:], strict=False))


@given(st.ip_addresses(), st.sampled_from(TENANTS), st.sampled_from(NETWORKS), st.integers(0, 3))
def test_a_mac_is_a_function_of_the_address_and_never_one_that_is_taken(
    address: Address, tenant: str, network: str, taken_count: int
) -> None:
    interface = ip_interface(address)
    taken: set[str] = set()
    for _ in range(taken_count):
        taken.add(mac_for(tenant, network, (interface,), taken))
    mac = mac_for(tenant, network, (interface,), taken)
    assert mac == mac_for(tenant, network, (interface,), taken)
    assert len(taken) == taken_count
    assert mac not in taken
    assert int(mac[:2], 16) & 0b11 == 0b10
    if address.version == 4:
        assert mac[6:].replace(":", "") == f"{int(address):08x}"


@pytest.mark.long
@settings(max_examples=3000, deadline=None)
@given(_steps)
def test_long_nothing_is_given_twice(steps: list[Any]) -> None:
    check_invariants(play(steps, check_invariants))
