"""When what was freed may be given to others: its host has said that the port is gone, and 2 s have passed since.

    in use --deleted, was bound--> resting --every hold over--> free
    in use --deleted, never bound------------------------------> free

A hold is over when its host reported `port-unbound` for that epoch or a later one of the endpoint and `REST_NS` went
by, or when the host was removed from the cluster after that epoch.
"""

from __future__ import annotations

from msgspec.structs import replace

from .records import FormerOwner, Hold, Rest
from .state import NetworkAggregate, State

REST_NS = 2_000_000_000


def is_gone(state: State, tenant: str, hold: Hold, by_ns: int) -> bool:
    """The host had said by the server's time `by_ns` that nothing is left of the port, or was removed."""
    report = state.port_report(tenant, hold.host, hold.endpoint)
    if report is not None and report.state == "unbound" and report.epoch >= hold.epoch and report.at_ns <= by_ns:
        return True
    return hold.host in state.hosts.removed and state.hosts.removed[hold.host] > hold.epoch


def is_over(state: State, tenant: str, rest: Rest, now_ns: int) -> bool:
    """What rests may be given to anybody."""
    by_ns = now_ns - REST_NS
    for hold in reversed(rest.holds):  # noqa: SIM110  (the scan of what rests calls this most; the newest hold ends last)
        if not is_gone(state, tenant, hold, by_ns):
            return False
    return True


def held_on(state: State, tenant: str, rest: Rest, now_ns: int) -> tuple[str, ...]:
    """The hosts that have not said yet that the port is gone."""
    return tuple(sorted({hold.host for hold in rest.holds if not is_gone(state, tenant, hold, now_ns)}))


def waited_for(state: State, tenant: str, holds: tuple[Hold, ...], now_ns: int) -> tuple[Hold, ...]:
    """Those of the holds that are not over."""
    by_ns = now_ns - REST_NS
    return tuple(hold for hold in holds if not is_gone(state, tenant, hold, by_ns))


def former_held_on(state: State, former: FormerOwner, now_ns: int) -> tuple[str, ...]:
    """The hosts that may still have ports which a tag's former owner had put there while it had the tag."""
    tenant, network = former.owner.tenant, former.owner.network
    aggregate = state.network(tenant, network)
    holds = aggregate.holds_before(former.until_seq) if aggregate is not None else ()
    return tuple(sorted({hold.host for hold in holds if not is_gone(state, tenant, hold, now_ns)}))


def prune(state: State) -> None:
    """What no decision can ask for any more is forgotten: rests that are over, reports of endpoints that are gone.

    To be called between events, when the state is the fold of the journal up to some point: a report is known to be of
    no use because its endpoint, which came before it, is neither there nor resting.
    """
    now_ns = max((ports.at_ns for hosts in state.ports.values() for ports in hosts.values()), default=0)
    for tenant, networks in state.networks.items():
        for name in list(networks):
            _wake(state, tenant, networks[name], now_ns)
            if _is_empty(networks[name]):
                del networks[name]
    for tenant in [each for each, networks in state.networks.items() if not networks]:
        del state.networks[tenant]
    for tenant in [each for each, aggregate in state.tenants.items() if aggregate.record is None]:
        del state.tenants[tenant]
    _forget_former_owners(state)
    _forget_reports(state)


def _wake(state: State, tenant: str, network: NetworkAggregate, now_ns: int) -> None:
    for pool in network.pools.values():
        for address, rest in list(pool.resting.items()):
            holds = waited_for(state, tenant, rest.holds, now_ns)
            if not holds:
                pool.wake(address)
            elif holds != rest.holds:
                pool.resting[address] = Rest(rest.name, holds)
    for endpoint in list(network.endpoints.values()):
        left = waited_for(state, tenant, endpoint.left, now_ns)
        if left != endpoint.left:
            network.endpoints[endpoint.name] = replace(endpoint, left=left)


def _is_empty(network: NetworkAggregate) -> bool:
    return network.record is None and not network.has_rests()


def _forget_former_owners(state: State) -> None:
    for tags in state.segments.former.values():
        for tag, former in list(tags.items()):
            aggregate = state.network(former.owner.tenant, former.owner.network)
            if aggregate is None or not any(aggregate.holds_before(former.until_seq)):
                del tags[tag]


def _forget_reports(state: State) -> None:
    for tenant, hosts in state.ports.items():
        needed: set[str] = set()
        for network in state.networks.get(tenant, {}).values():
            for endpoint in network.endpoints.values():
                needed.add(endpoint.id)
                needed.update(hold.endpoint for hold in endpoint.left)
            needed.update(hold.endpoint for rest in network.rests() for hold in rest.holds)
        for ports in hosts.values():
            for endpoint_id in [each for each in ports.reports if each not in needed]:
                del ports.reports[endpoint_id]
