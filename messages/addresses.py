"""IP and MAC addresses as they stand in messages: text on the wire, `ipaddress` objects in the code."""

from __future__ import annotations

import re
from abc import ABC
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from msgspec import Meta

if TYPE_CHECKING:
    Address = IPv4Address | IPv6Address
    Interface = IPv4Interface | IPv6Interface
    Network = IPv4Network | IPv6Network
else:
    # msgspec allows one custom type in a union, so each family pair is one type to it.
    class Address(ABC):  # noqa: B024  (a name for isinstance, nothing to implement)
        """An IPv4 or IPv6 address."""

    class Interface(ABC):  # noqa: B024  (as above)
        """An IPv4 or IPv6 address with its prefix length."""

    class Network(ABC):  # noqa: B024  (as above)
        """An IPv4 or IPv6 network; no host bits may be set."""

    for _family in (IPv4Address, IPv6Address):
        Address.register(_family)
    for _family in (IPv4Interface, IPv6Interface):
        Interface.register(_family)
    for _family in (IPv4Network, IPv6Network):
        Network.register(_family)


class AddressRange:
    """Consecutive addresses of one family, both ends included; on the wire `10.1.1.10-10.1.1.20`, or one address alone.

    Immutable. `first` and `last` are numbers, `version` is 4 or 6.
    """

    __slots__ = ("first", "last", "version")

    first: int
    last: int
    version: int

    def __init__(self, first: int, last: int, version: int) -> None:
        object.__setattr__(self, "first", first)
        object.__setattr__(self, "last", last)
        object.__setattr__(self, "version", version)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"an address range never changes: {name}")

    def __reduce__(self) -> tuple[Any, ...]:
        return AddressRange, (self.first, self.last, self.version)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AddressRange) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __contains__(self, address: Address) -> bool:
        return address.version == self.version and self.first <= int(address) <= self.last

    def __str__(self) -> str:
        kind = IPv4Address if self.version == 4 else IPv6Address
        return str(kind(self.first)) if self.first == self.last else f"{kind(self.first)}-{kind(self.last)}"

    def __repr__(self) -> str:
        return f"AddressRange({self})"

    def _key(self) -> tuple[int, int, int]:
        return self.version, self.first, self.last

    def overlaps(self, other: AddressRange) -> bool:
        """Some address is in both."""
        return self.version == other.version and self.first <= other.last and other.first <= self.last

    def is_within(self, subnet: Network) -> bool:
        """Every address is one of the subnet."""
        return (
            subnet.version == self.version
            and int(subnet.network_address) <= self.first
            and self.last <= int(subnet.broadcast_address)
        )


def parse_range(text: str) -> AddressRange:
    """`10.1.1.10-10.1.1.20`, `10.1.1.10` or `10.1.1.16/28` as a range. Raises: ValueError."""
    if "/" in text:
        network = ip_network(text)
        return AddressRange(int(network.network_address), int(network.broadcast_address), network.version)
    low, dash, high = text.partition("-")
    first = ip_address(low.strip())
    last = ip_address(high.strip()) if dash else first
    if first.version != last.version:
        raise ValueError(f"{first} and {last} are of different families")
    if int(first) > int(last):
        raise ValueError(f"it is reversed: expected {last}-{first}")
    return AddressRange(int(first), int(last), first.version)


def parse_subnet(text: str) -> tuple[Network, AddressRange | None]:
    """`10.1.1.0/24` as a subnet; `10.1.1.10-10.1.1.20/24` as a subnet and the range that addresses are chosen from.

    Raises: ValueError.
    """
    if "-" not in text:
        return ip_network(text), None
    ends, slash, length = text.rpartition("/")
    if not slash:
        raise ValueError(f"{text!r} has no prefix length: expected a range such as 10.1.1.10-10.1.1.20/24")
    within = parse_range(ends)
    low = IPv4Address(within.first) if within.version == 4 else IPv6Address(within.first)
    subnet: Network = ip_network(f"{low}/{length}", strict=False)
    if not within.is_within(subnet):
        raise ValueError(f"{text!r} ends outside {subnet}, the subnet that it begins in")
    return subnet, within


Mac = Annotated[str, Meta(extra_json_schema={"pattern": "^[0-9a-f]{2}(:[0-9a-f]{2}){5}$"})]

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")


def check_mac(value: str) -> None:
    """`value` can be an endpoint's MAC: lower case, colons, unicast. Raises: ValueError."""
    if not _MAC.match(value):
        raise ValueError(
            f"MAC {value!r} is not valid: expected six pairs of 0-9a-f with colons, such as 02:00:00:00:00:01"
        )
    if int(value[:2], 16) & 1:
        raise ValueError(f"MAC {value!r} is a group address: expected one with an even first byte")
    if value == "00:00:00:00:00:00":
        raise ValueError("MAC 00:00:00:00:00:00 is nobody's address")


_WRITTEN = (IPv4Address, IPv6Address, IPv4Network, IPv6Network, IPv4Interface, IPv6Interface, AddressRange)


def encode_address(value: Any) -> str:
    """An address object as text; the `enc_hook` of the codec."""
    if isinstance(value, _WRITTEN):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot stand in a message")


InterfaceT = TypeVar("InterfaceT", bound="IPv4Interface | IPv6Interface")


@lru_cache(maxsize=8192)
def _one(network: Any) -> Any:
    return network


def shared(interface: InterfaceT) -> InterfaceT:
    """The same, with the one object for its network: each that is made brings another, half of what it takes."""
    interface.network = _one(interface.network)
    return interface


def _parse_interface(text: str) -> Interface:
    return shared(ip_interface(text))


_PARSERS: dict[Any, tuple[Any, str]] = {
    Address: (ip_address, "an IPv4 or IPv6 address"),
    Interface: (_parse_interface, "an address with its prefix length, such as 11.1.1.1/24"),
    Network: (ip_network, "a network without host bits, such as 11.1.1.0/24"),
    AddressRange: (parse_range, "a range of addresses such as 11.1.1.10-11.1.1.20"),
}


def decode_address(kind: Any, value: Any) -> Any:
    """Text as the address object that `kind` asks for; the `dec_hook` of the codec. Raises: ValueError."""
    parse, expected = _PARSERS[kind]
    if not isinstance(value, str):
        raise ValueError(f"expected {expected} as text, found {type(value).__name__}")  # noqa: TRY004  (msgspec names the path of a ValueError)
    try:
        return parse(value)
    except ValueError as fault:
        raise ValueError(f"{value!r} is not {expected}: {fault}") from None


def address_schema(kind: Any) -> dict[str, Any]:
    """The JSON Schema of an address type; the `schema_hook` of the AsyncAPI document."""
    _, expected = _PARSERS[kind]
    return {"type": "string", "description": expected}
