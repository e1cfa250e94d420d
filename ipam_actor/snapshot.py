"""The state as bytes and back. What events said is kept; what follows from it (who has which address) is not."""

from __future__ import annotations

import msgspec

from messages.addresses import AddressRange, Network, decode_address, encode_address
from messages.network import Encap

from .pools import reserved_in
from .records import EndpointRecord, FormerOwner, NetworkRecord, Owner, Rest, TenantRecord
from .resting import prune
from .state import (
    HostAggregate,
    NetworkAggregate,
    PortAggregate,
    SegmentAggregate,
    State,
    TenantAggregate,
)


class _Tenant(msgspec.Struct, frozen=True, array_like=True):
    seq: int
    record: TenantRecord | None
    networks: dict[str, tuple[Network, ...]]


class _Segments(msgspec.Struct, frozen=True, array_like=True):
    seq: int
    owners: dict[Encap, dict[int, Owner]]
    former: dict[Encap, dict[int, FormerOwner]]


class _Network(msgspec.Struct, frozen=True, array_like=True):
    seq: int
    record: NetworkRecord | None
    endpoints: list[EndpointRecord]
    resting: dict[int, list[tuple[str, Rest]]]  # by family; addresses as hexadecimal, for they may have 128 bits
    kept: dict[str, tuple[AddressRange, ...]] = {}


class _Snapshot(msgspec.Struct, frozen=True, array_like=True):
    tenants: dict[str, _Tenant]
    segments: _Segments
    networks: dict[str, dict[str, _Network]]
    hosts: HostAggregate
    ports: dict[str, dict[str, PortAggregate]]


_ENCODER = msgspec.msgpack.Encoder(enc_hook=encode_address)
_DECODER = msgspec.msgpack.Decoder(_Snapshot, dec_hook=decode_address)


def dump_state(state: State) -> bytes:
    """The state as bytes for `load_state`; what no decision can ask for any more is forgotten first."""
    prune(state)
    segments = state.segments
    snapshot = _Snapshot(
        {name: _Tenant(each.seq, each.record, each.networks) for name, each in state.tenants.items()},
        _Segments(segments.seq, segments.owners, segments.former),
        {
            tenant: {name: _network_out(each) for name, each in networks.items()}
            for tenant, networks in state.networks.items()
        },
        state.hosts,
        state.ports,
    )
    return _ENCODER.encode(snapshot)


def load_state(snapshot: bytes) -> State:
    """The state that `dump_state` was given. Raises: msgspec.DecodeError, msgspec.ValidationError."""
    read = _DECODER.decode(snapshot)
    networks = {
        tenant: {name: _network_in(each) for name, each in below.items()} for tenant, below in read.networks.items()
    }
    tenants = {name: _tenant_in(each) for name, each in read.tenants.items()}
    return State(tenants, _segments_in(read.segments), networks, read.hosts, read.ports)


def _tenant_in(read: _Tenant) -> TenantAggregate:
    tenant = TenantAggregate(read.seq, read.record)
    for network, subnets in read.networks.items():
        tenant.add_network(network, subnets)
    return tenant


def _segments_in(read: _Segments) -> SegmentAggregate:
    segments = SegmentAggregate(read.seq)
    for encap, tags in read.owners.items():
        for tag, owner in tags.items():
            segments.take(encap, tag, owner)
    segments.former = read.former
    return segments


def _network_out(network: NetworkAggregate) -> _Network:
    resting = {
        family: [(f"{address:x}", pool.resting[address]) for address in pool.resting_order]
        for family, pool in network.pools.items()
    }
    return _Network(network.seq, network.record, list(network.endpoints.values()), resting, network.kept)


def _network_in(read: _Network) -> NetworkAggregate:
    network = NetworkAggregate(read.seq, read.record, kept=read.kept)
    network.set_openings()
    record = read.record
    for subnet in record.subnets if record is not None else ():
        gateways = record.gateways if record is not None and subnet not in record.adopted else ()
        for address in reserved_in(subnet, gateways):
            network.pools[subnet.version].reserve(address)
    for endpoint in read.endpoints:
        network.endpoints[endpoint.name] = endpoint
        network.macs[endpoint.mac] = endpoint.name
        for interface in endpoint.addresses:
            network.pool_of(interface).take(int(interface.ip), endpoint.name)
    for family, rests in read.resting.items():
        for digits, rest in rests:
            network.pools[family].lay(int(digits, 16), rest)
    return network
