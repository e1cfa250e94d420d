"""IP and MAC addresses as they stand in messages: text on the wire, `ipaddress` objects in the code."""

from __future__ import annotations

import re
from abc import ABC
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
from typing import TYPE_CHECKING, Annotated, Any

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


def encode_address(value: Any) -> str:
    """An address object as text; the `enc_hook` of the codec."""
    if isinstance(value, (IPv4Address, IPv6Address, IPv4Network, IPv6Network, IPv4Interface, IPv6Interface)):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot stand in a message")


_PARSERS: dict[Any, tuple[Any, str]] = {
    Address: (ip_address, "an IPv4 or IPv6 address"),
    Interface: (ip_interface, "an address with its prefix length, such as 11.1.1.1/24"),
    Network: (ip_network, "a network without host bits, such as 11.1.1.0/24"),
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
