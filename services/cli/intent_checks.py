"""What files say that can never be true together, found before anything is asked or done."""

from __future__ import annotations

from collections.abc import Iterator

from messages.addresses import Network

from .intent import Intent, WantedNetwork, WantedTenant
from .intent_reader import Fault


def contradictions(intent: Intent) -> Iterator[Fault]:
    """Every tag, subnet, address and MAC that is wanted twice, and every address outside of the subnets named."""
    tags: dict[tuple[str, int], str] = {}
    for tenant in intent.tenants.values():
        yield from _overlaps(tenant)
        for network in tenant.networks.values():
            path = _path(network)
            yield from _twice_in(network, path)
            tag = network.command.tag
            if tag is None:
                continue
            other = tags.setdefault((network.command.encap, tag), path)
            if other != path:
                text = f"{network.command.encap} tag {tag} is that of {other} as well: a tag is one network's"
                yield Fault(network.where, f"{path}.tag", text)


def _overlaps(tenant: WantedTenant) -> Iterator[Fault]:
    seen: list[tuple[Network, str]] = []
    for network in tenant.networks.values():
        subnets = () if isinstance(network.command.subnets, str) else network.command.subnets
        for subnet in subnets:
            for other, path in seen:
                if other.version == subnet.version and other.overlaps(subnet):
                    text = f"{subnet} overlaps {other} of {path}: choose another"
                    yield Fault(network.where, f"{_path(network)}.subnets", text)
        seen += [(subnet, _path(network)) for subnet in subnets]


def _twice_in(network: WantedNetwork, path: str) -> Iterator[Fault]:
    """What two endpoints of a network cannot both have, and what none of them can."""
    owners: dict[object, str] = {}
    subnets = () if isinstance(network.command.subnets, str) else network.command.subnets
    for name, endpoint in network.endpoints.items():
        wanted: list[tuple[str, object]] = [(f"address {address}", address) for address in endpoint.command.addresses]
        if endpoint.command.mac is not None:
            wanted.append((f"MAC {endpoint.command.mac}", endpoint.command.mac))
        for noun, value in wanted:
            other = owners.setdefault(value, name)
            if other != name:
                text = f"{noun} is that of endpoint {other} as well: choose another, or none"
                yield Fault(endpoint.where, f"{path}.endpoints.{name}", text)
        families = {subnet.version for subnet in subnets}
        for address in endpoint.command.addresses:
            if address.version in families and not any(address in subnet for subnet in subnets):
                text = f"address {address} is outside of {', '.join(map(str, subnets))}: expected one of these"
                yield Fault(endpoint.where, f"{path}.endpoints.{name}", text)


def _path(network: WantedNetwork) -> str:
    return f"tenants.{network.command.tenant}.networks.{network.command.network}"
