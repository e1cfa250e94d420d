"""What the journal, the switches and the containers of all hosts say of addresses, side by side: pure comparison.

What differs while it is being changed is no difference: `netctl ipam check` looks twice and keeps what it saw twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from messages.endpoint import EndpointView
from messages.host import PortView
from messages.ipam import AddressesView

HOST_AWAY = "host-away"
COMPARED_MAX = 1 << 20  # addresses of a network that are compared one by one

Key = tuple[str, str]  # tenant, network
Number = tuple[int, int]  # family, address


class Difference(NamedTuple):
    """One thing that is not as the journal says. `endpoint` is an id, for what a host is asked to mend."""

    kind: str
    host: str
    tenant: str
    network: str
    name: str
    detail: str
    endpoint: str = ""

    @property
    def subject(self) -> str:
        """What it is about, as people name it."""
        return "/".join(part for part in (self.tenant, self.network, self.name) if part) or self.endpoint or "-"


class Seen(NamedTuple):
    """All that was asked: `ports` by host, a text for a host that did not answer."""

    endpoints: Sequence[EndpointView]
    members: frozenset[str]
    ports: Mapping[str, Sequence[PortView] | str]
    networks: Sequence[AddressesView]


def differences(seen: Seen) -> list[Difference]:
    """Everything that differs, each thing once, by host and name."""
    found = [*_of_addresses(seen), *_of_hosts(seen)]
    by_id = {each.id: each for each in seen.endpoints}
    for endpoint in seen.endpoints:
        found += _of_endpoint(seen, endpoint)
    for host, ports in seen.ports.items():
        for port in ports if not isinstance(ports, str) else ():
            found += _of_stranger(host, port, by_id.get(port.endpoint))
    return sorted(set(found))


def _of_hosts(seen: Seen) -> Iterator[Difference]:
    bound = Counter(endpoint.status.host for endpoint in seen.endpoints)
    for host, ports in seen.ports.items():
        if isinstance(ports, str):
            yield Difference(HOST_AWAY, host, "", "", "", f"{ports}: its {bound[host]} endpoint(s) were not compared")


def _of_endpoint(seen: Seen, endpoint: EndpointView) -> Iterator[Difference]:
    status = endpoint.status
    about = (status.host, endpoint.tenant, endpoint.network, endpoint.name)
    if not status.addresses:
        yield Difference("endpoint-without-address", *about, "the journal gives it no address", endpoint.id)
    if not status.host:
        return
    if status.host not in seen.members:
        yield Difference("unknown-host", *about, f"it is bound to {status.host}, which is no member", endpoint.id)
        return
    ports = seen.ports[status.host]
    if isinstance(ports, str):
        return
    port = next((each for each in ports if each.endpoint == endpoint.id), None)
    if port is None:
        yield Difference("no-port", *about, "it is bound there, and the host knows nothing of it", endpoint.id)
    else:
        yield from _of_port(endpoint, port)


def _of_port(endpoint: EndpointView, port: PortView) -> Iterator[Difference]:
    status = endpoint.status
    about = (status.host, endpoint.tenant, endpoint.network, endpoint.name)
    if port.epoch != status.epoch:
        detail = f"the host has the port of epoch {port.epoch}, the journal binds it at {status.epoch}"
        yield Difference("other-epoch", *about, detail, endpoint.id)
        return
    if port.state == "failed":
        yield Difference("failed", *about, port.reason, endpoint.id)
    elif port.state == "pending":
        parts = ", ".join(port.parts) or "nothing"
        yield Difference("no-port", *about, f"of its port stands {parts}; {port.reason or 'no reason is known'}")
    elif port.state != status.state:
        detail = f"the host says {port.state}, the journal has heard {status.state}"
        yield Difference("not-reported", *about, detail, endpoint.id)
    if port.addresses is None:
        return
    missing = [each for each in status.addresses if each not in port.addresses]
    others = [each for each in port.addresses if each not in status.addresses]
    where = f"{port.interface or 'the interface'} in {port.container}"
    if missing:
        has = ", ".join(map(str, port.addresses)) or "none"
        detail = f"{where} lacks {', '.join(map(str, missing))} (it has {has})"
        yield Difference("other-address" if others else "endpoint-without-address", *about, detail, endpoint.id)
    elif others:
        detail = f"{where} has {', '.join(map(str, others))} besides, which the journal gives to nobody there"
        yield Difference("address-without-endpoint", *about, detail, endpoint.id)
    if port.mac and port.mac != status.mac:
        yield Difference("other-mac", *about, f"{where} has MAC {port.mac}, expected {status.mac}", endpoint.id)


def _of_stranger(host: str, port: PortView, endpoint: EndpointView | None) -> Iterator[Difference]:
    """A port of an endpoint that the journal does not bind to this host."""
    if endpoint is not None and endpoint.status.host == host:
        return
    about = (host, port.tenant, port.network, port.name)
    device = f" (device {port.device})" if port.device else ""
    if endpoint is None:
        detail = f"the host has a port{device} of an endpoint that does not exist"
    elif endpoint.status.host:
        detail = f"the host has a port{device}, the journal binds the endpoint to {endpoint.status.host}"
    else:
        detail = f"the host has a port{device}, the journal binds the endpoint nowhere"
    yield Difference("port-not-bound", *about, detail, port.endpoint)


def _of_addresses(seen: Seen) -> Iterator[Difference]:
    """Addresses that ipam counts as used without an endpoint that has them, the reverse, and any that two have."""
    owners: dict[Key, dict[Number, str]] = {}
    for endpoint in seen.endpoints:
        key = (endpoint.tenant, endpoint.network)
        having = owners.setdefault(key, {})
        for interface in endpoint.status.addresses:
            number: Number = (interface.version, int(interface.ip))
            if number in having:
                detail = f"{interface.ip} is {having[number]}'s, too"
                yield Difference("address-twice", "", *key, endpoint.name, detail, endpoint.id)
            having[number] = endpoint.name
    for network in seen.networks:
        key = (network.tenant, network.network)
        having = owners.get(key, {})
        used = _used(network)
        if used is None:
            continue
        for each in sorted(used - having.keys()):
            detail = f"{_address(each)} counts as used, and no endpoint has it"
            yield Difference("address-without-endpoint", "", *key, "", detail)
        for each in sorted(having.keys() - used):
            detail = f"{_address(each)} does not count as used"
            yield Difference("endpoint-without-address", "", *key, having[each], detail)


def _used(network: AddressesView) -> set[Number] | None:
    """The network's used addresses, none when they are too many to be named one by one."""
    if any(subnet.used.more or subnet.used.count > COMPARED_MAX for subnet in network.subnets):
        return None
    ranges = (each for subnet in network.subnets for each in subnet.used.ranges)
    return {(each.version, number) for each in ranges for number in range(each.first, each.last + 1)}


def _address(number: Number) -> str:
    return str(IPv4Address(number[1]) if number[0] == 4 else IPv6Address(number[1]))


def repeated(first: Iterable[Difference], second: Iterable[Difference]) -> list[Difference]:
    """What was seen at both looks."""
    again = set(second)
    return [each for each in first if each in again]
