"""Where each address of a network stands, worked out with spans: a subnet of 2^64 costs what is in it, not its size."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from messages.addresses import AddressRange, Network
from messages.ipam import COUNT_MAX, SHOWN_RANGES_MAX, AddressesView, AddressSet, SubnetAddresses

from .lookup import FoundNetwork
from .pools import reserved_in
from .resting import held_on, is_over
from .spans import Span, joined, without
from .state import Pool, State, span_of, spans_of


def addresses_view(state: State, found: FoundNetwork, now_ns: int) -> AddressesView:
    """The network's addresses; what rested long enough by `now_ns` is free."""
    subnets = tuple(_subnet(state, found, subnet, now_ns) for subnet in found.record.subnets)
    return AddressesView(tenant=found.tenant, network=found.name, name=found.name, subnets=subnets)


def _subnet(state: State, found: FoundNetwork, subnet: Network, now_ns: int) -> SubnetAddresses:
    family = subnet.version
    pool = found.aggregate.pools[family]
    whole = span_of(subnet)
    gateways = found.record.gateways if subnet not in found.record.adopted else ()
    owned = sorted(pool.owners)
    used = joined(owned[bisect_left(owned, whole[0]) : bisect_right(owned, whole[1])])
    left = without([whole], used)
    reserved, left = _taken(left, joined(sorted(reserved_in(subnet, gateways))))
    resting, left = _taken(left, _resting(state, found.tenant, pool, whole, now_ns))
    excluded, left = _taken(left, spans_of(found.record.excluded, family))
    openings = found.aggregate.openings
    kept = sorted(span for (name, of), spans in openings.items() if name and of == family for span in spans)
    pooled, left = _taken(left, kept)
    free, on_request = _taken(left, openings.get(("", family), ()))
    return SubnetAddresses(
        subnet=subnet,
        used=_shown(used, family),
        reserved=_shown(reserved, family),
        resting=_shown(resting, family),
        excluded=_shown(excluded, family),
        pooled=_shown(pooled, family),
        on_request=_shown(on_request, family),
        free=_shown(free, family),
        rests_for=_waited_for(state, found.tenant, pool, whole, now_ns),
    )


def _taken(spans: list[Span], wanted: Sequence[Span]) -> tuple[list[Span], list[Span]]:
    """Those of the spans' numbers that are wanted, and the others."""
    others = without(spans, sorted(wanted))
    return without(spans, others), others


def _resting(state: State, tenant: str, pool: Pool, whole: Span, now_ns: int) -> list[Span]:
    order = pool.resting_order
    within = order[bisect_left(order, whole[0]) : bisect_right(order, whole[1])]
    return joined(each for each in within if not is_over(state, tenant, pool.resting[each], now_ns))


def _waited_for(state: State, tenant: str, pool: Pool, whole: Span, now_ns: int) -> tuple[str, ...]:
    rests = (pool.resting[each] for each in pool.resting_order if whole[0] <= each <= whole[1])
    return tuple(sorted({host for rest in rests for host in held_on(state, tenant, rest, now_ns)}))


def _shown(spans: list[Span], family: int) -> AddressSet:
    shown = tuple(AddressRange(first, last, family) for first, last in spans[:SHOWN_RANGES_MAX])
    count = sum(last - first + 1 for first, last in spans)
    return AddressSet(count=min(count, COUNT_MAX), ranges=shown, more=max(0, len(spans) - SHOWN_RANGES_MAX))
