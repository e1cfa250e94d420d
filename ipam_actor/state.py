"""What ipam knows, kept by aggregate: events of different aggregates may be applied in any order.

Values are frozen and each aggregate is a few dicts of them, so that a fork is a handful of shallow copies.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from messages.addresses import Address, AddressRange, Network
from messages.network import Encap

from .records import (
    Admission,
    EndpointRecord,
    FormerOwner,
    Hold,
    HostRecord,
    Invitation,
    NetworkRecord,
    Owner,
    Report,
    Rest,
    TenantRecord,
)
from .spans import Span, Spans, without

_Subnets = tuple[Network, ...]


def span_of(subnet: Network) -> tuple[int, int]:
    """The first and the last address of a subnet as numbers."""
    return int(subnet.network_address), int(subnet.broadcast_address)


class TenantAggregate(msgspec.Struct):
    """A tenant and the subnets of its networks. `taken`: their addresses, by family (4, 6)."""

    seq: int = 0
    record: TenantRecord | None = None
    networks: dict[str, _Subnets] = msgspec.field(default_factory=dict)
    taken: dict[int, Spans] = msgspec.field(default_factory=lambda: {4: Spans(), 6: Spans()})

    def fork(self) -> TenantAggregate:
        """A copy to be changed on its own."""
        taken = {family: spans.copy() for family, spans in self.taken.items()}
        return TenantAggregate(self.seq, self.record, self.networks.copy(), taken)

    def add_network(self, name: str, subnets: Iterable[Network]) -> None:
        """The network is there, with these subnets beside those that it has."""
        self.networks[name] = (*self.networks.get(name, ()), *subnets)
        for subnet in subnets:
            self.taken[subnet.version].add(*span_of(subnet))

    def remove_network(self, name: str) -> None:
        """The network is gone, its subnets are free."""
        for subnet in self.networks.pop(name):
            self.taken[subnet.version].remove(*span_of(subnet))


class SegmentAggregate(msgspec.Struct):
    """The tags in use in the whole fabric, by encapsulation. `former`: who had a free tag last."""

    seq: int = 0
    owners: dict[Encap, dict[int, Owner]] = msgspec.field(default_factory=lambda: {"vlan": {}, "vxlan": {}})
    former: dict[Encap, dict[int, FormerOwner]] = msgspec.field(default_factory=lambda: {"vlan": {}, "vxlan": {}})
    taken: dict[Encap, Spans] = msgspec.field(default_factory=lambda: {"vlan": Spans(), "vxlan": Spans()})

    def fork(self) -> SegmentAggregate:
        """A copy to be changed on its own."""
        owners = {encap: tags.copy() for encap, tags in self.owners.items()}
        former = {encap: tags.copy() for encap, tags in self.former.items()}
        return SegmentAggregate(self.seq, owners, former, {encap: spans.copy() for encap, spans in self.taken.items()})

    def take(self, encap: Encap, tag: int, owner: Owner) -> None:
        """The tag is `owner`'s."""
        assert tag not in self.owners[encap], f"{encap} tag {tag} is taken twice"
        self.owners[encap][tag] = owner
        self.former[encap].pop(tag, None)
        self.taken[encap].add(tag, tag)

    def release(self, encap: Encap, tag: int, seq: int) -> None:
        """The tag is nobody's since the event of this sequence."""
        self.former[encap][tag] = FormerOwner(self.owners[encap].pop(tag), seq)
        self.taken[encap].remove(tag, tag)


class Pool(msgspec.Struct):
    """The addresses of one family of a network, as numbers: whose they are, which rest, which nobody may have.

    `taken` holds all three kinds; `resting_order` the keys of `resting`, ascending.
    """

    taken: Spans = msgspec.field(default_factory=Spans)
    owners: dict[int, str] = msgspec.field(default_factory=dict)
    resting: dict[int, Rest] = msgspec.field(default_factory=dict)
    resting_order: list[int] = msgspec.field(default_factory=list)

    def fork(self) -> Pool:
        """A copy to be changed on its own."""
        return Pool(self.taken.copy(), self.owners.copy(), self.resting.copy(), self.resting_order.copy())

    def reserve(self, address: int) -> None:
        """Nobody may have this address."""
        self._stir(address)
        self.taken.add(address, address)

    def take(self, address: int, name: str) -> Rest | None:
        """The address is the endpoint's of this name; returns the rest that it had."""
        rest = self._stir(address)
        self.taken.add(address, address)
        self.owners[address] = name
        return rest

    def release(self, address: int, rest: Rest | None) -> None:
        """The address is nobody's; with `rest`, it is not yet for everybody."""
        self.taken.remove(address, address)
        self.owners.pop(address, None)
        if rest is not None:
            self.lay(address, rest)

    def lay(self, address: int, rest: Rest) -> None:
        """The free address rests."""
        self.taken.add(address, address)
        self.resting[address] = rest
        insort(self.resting_order, address)

    def wake(self, address: int) -> None:
        """The address does not rest any more: it is free."""
        self._stir(address)

    def _stir(self, address: int) -> Rest | None:
        rest = self.resting.pop(address, None)
        if rest is not None:
            del self.resting_order[bisect_left(self.resting_order, address)]
            self.taken.remove(address, address)
        return rest


class NetworkAggregate(msgspec.Struct):
    """A network and its endpoints. What rests outlives the network, for the next one of its name.

    `kept`: the ranges of each named pool. `openings`: where addresses are chosen from, by pool ("" for none) and
    family, in the order of subnets; it follows from the record and from `kept`.
    """

    seq: int = 0
    record: NetworkRecord | None = None
    endpoints: dict[str, EndpointRecord] = msgspec.field(default_factory=dict)
    macs: dict[str, str] = msgspec.field(default_factory=dict)
    pools: dict[int, Pool] = msgspec.field(default_factory=lambda: {4: Pool(), 6: Pool()})
    kept: dict[str, tuple[AddressRange, ...]] = msgspec.field(default_factory=dict)
    openings: dict[tuple[str, int], tuple[Span, ...]] = msgspec.field(default_factory=dict)

    def fork(self) -> NetworkAggregate:
        """A copy to be changed on its own."""
        pools = {family: pool.fork() for family, pool in self.pools.items()}
        own = (self.endpoints.copy(), self.macs.copy(), pools, self.kept.copy())
        return NetworkAggregate(self.seq, self.record, *own, self.openings)

    def set_openings(self) -> None:
        """`openings` is what follows from the record and from `kept`; to be called when either has changed."""
        self.openings = _openings(self.record, self.kept) if self.record is not None else {}

    def pool_of(self, address: Address) -> Pool:
        """The pool of an address's family."""
        return self.pools[address.version]

    def rests(self) -> Iterator[Rest]:
        """Every rest of the network, past ones of its name included."""
        for pool in self.pools.values():
            yield from pool.resting.values()

    def holds_before(self, seq: int) -> Iterator[Hold]:
        """Every hold of a binding made before that journal sequence, of what rests and of who has it back."""
        for rest in self.rests():
            yield from (hold for hold in rest.holds if hold.epoch < seq)
        for endpoint in self.endpoints.values():
            yield from (hold for hold in endpoint.left if hold.epoch < seq)

    def has_rests(self) -> bool:
        """Something of the network, or of past ones of its name, rests."""
        return any(pool.resting for pool in self.pools.values())


def _openings(
    record: NetworkRecord, kept: Mapping[str, tuple[AddressRange, ...]]
) -> dict[tuple[str, int], tuple[Span, ...]]:
    found: dict[tuple[str, int], tuple[Span, ...]] = {}
    for family in (4, 6):
        subnets = [subnet for subnet in record.subnets if subnet.version == family]
        excluded = spans_of(record.excluded, family)
        pools = {name: spans_of(ranges, family) for name, ranges in kept.items()}
        closed = sorted([*excluded, *(span for spans in pools.values() for span in spans)])
        for subnet in subnets:
            ranges = [each for each in record.ranges if each.is_within(subnet)]
            chosen_from = spans_of(ranges, family) if ranges else [span_of(subnet)]
            found["", family] = (*found.get(("", family), ()), *without(chosen_from, closed))
        found |= {(name, family): tuple(without(spans, excluded)) for name, spans in pools.items() if spans}
    return found


def spans_of(ranges: Iterable[AddressRange], family: int) -> list[Span]:
    """The ranges of a family as ascending spans of numbers."""
    return sorted((each.first, each.last) for each in ranges if each.version == family)


class HostAggregate(msgspec.Struct):
    """The members of the cluster. `removed`: the journal sequence of each host's last removal.

    `admitted`: by name, those that joined with a token; `invitations`: the tokens, by the names of their keys.
    """

    seq: int = 0
    hosts: dict[str, HostRecord] = msgspec.field(default_factory=dict)
    removed: dict[str, int] = msgspec.field(default_factory=dict)
    admitted: dict[str, Admission] = msgspec.field(default_factory=dict)
    invitations: dict[str, Invitation] = msgspec.field(default_factory=dict)

    def fork(self) -> HostAggregate:
        """A copy to be changed on its own."""
        return HostAggregate(
            self.seq, self.hosts.copy(), self.removed.copy(), self.admitted.copy(), self.invitations.copy()
        )


class PortAggregate(msgspec.Struct):
    """What one host last said of each endpoint of one tenant, by endpoint id."""

    seq: int = 0
    at_ns: int = 0
    reports: dict[str, Report] = msgspec.field(default_factory=dict)

    def fork(self) -> PortAggregate:
        """A copy to be changed on its own."""
        return PortAggregate(self.seq, self.at_ns, self.reports.copy())


Aggregate = TenantAggregate | SegmentAggregate | NetworkAggregate | HostAggregate | PortAggregate


class State(msgspec.Struct):
    """All aggregates: tenants by name, networks by tenant and name, ports by tenant and host."""

    tenants: dict[str, TenantAggregate] = msgspec.field(default_factory=dict)
    segments: SegmentAggregate = msgspec.field(default_factory=SegmentAggregate)
    networks: dict[str, dict[str, NetworkAggregate]] = msgspec.field(default_factory=dict)
    hosts: HostAggregate = msgspec.field(default_factory=HostAggregate)
    ports: dict[str, dict[str, PortAggregate]] = msgspec.field(default_factory=dict)

    def network(self, tenant: str, network: str) -> NetworkAggregate | None:
        """A network's aggregate, also of one that is gone; none for one that never was."""
        return self.networks.get(tenant, {}).get(network)

    def newest_seq(self, tenant: str) -> int:
        """At least the sequence of every event that a change of this tenant may be decided on."""
        networks = (network.seq for network in self.networks.get(tenant, {}).values())
        own = self.tenants.get(tenant)
        return max(self.segments.seq, self.hosts.seq, own.seq if own is not None else 0, *networks, 0)

    def port_report(self, tenant: str, host: str, endpoint: str) -> Report | None:
        """The last that the host said of the endpoint."""
        hosts = self.ports.get(tenant)
        aggregate = hosts.get(host) if hosts is not None else None
        return aggregate.reports.get(endpoint) if aggregate is not None else None

    def fork(self, aggregate: str) -> Any:
        """A copy of what belongs to one aggregate, none for one without events; for `put_back`."""
        kind, tenant, name = _parts(aggregate)
        found: Aggregate | None
        match kind:
            case "segment":
                found = self.segments
            case "host":
                found = self.hosts
            case "tenant":
                found = self.tenants.get(tenant)
            case "net":
                found = self.network(tenant, name)
            case _:
                found = self.ports.get(tenant, {}).get(name)
        return found.fork() if found is not None else None

    def put_back(self, aggregate: str, copy: Any) -> None:
        """That aggregate is again what `fork` copied."""
        kind, tenant, name = _parts(aggregate)
        match kind:
            case "segment":
                self.segments = copy
            case "host":
                self.hosts = copy
            case "tenant":
                _put(self.tenants, tenant, copy)
            case "net":
                _put_below(self.networks, tenant, name, copy)
            case _:
                _put_below(self.ports, tenant, name, copy)


def _parts(aggregate: str) -> tuple[str, str, str]:
    """The kind, the tenant and the name (if any) in an aggregate's filter."""
    tokens = aggregate.split(".")
    assert tokens[4] in ("tenant", "segment", "host", "net", "port"), f"aggregate {aggregate!r} is not known to ipam"
    return tokens[4], tokens[3], tokens[5]


def _put(holder: dict[str, Any], key: str, copy: Any) -> None:
    if copy is None:
        holder.pop(key, None)
    else:
        holder[key] = copy


def _put_below(holder: dict[str, dict[str, Any]], tenant: str, name: str, copy: Any) -> None:
    below = holder.setdefault(tenant, {})
    _put(below, name, copy)
    if not below:
        del holder[tenant]
