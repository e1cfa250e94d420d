"""MAC addresses: a pure function of where an endpoint is, so that an address keeps its MAC whoever has it.

Neighbours' ARP caches stay right when an address changes hands:

    hhhhhh10 hhhhhhhh aaaaaaaa aaaaaaaa aaaaaaaa aaaaaaaa

`10` makes it locally administered and unicast (IEEE 802 section 8.4), `h` is a hash of tenant and network, `a` the IPv4
address, or a hash of the IPv6 address where there is no IPv4 one.
"""

from __future__ import annotations

from collections.abc import Container
from hashlib import blake2b

from messages.addresses import Interface

_LOCAL_UNICAST = 0b10


def mac_for(tenant: str, network: str, addresses: tuple[Interface, ...], taken: Container[str]) -> str:
    """The endpoint's MAC, none of `taken`. The next salt of the hash is tried while it is."""
    salt = 0
    while True:
        mac = _salted(tenant, network, addresses, salt)
        if mac not in taken:
            return mac
        salt += 1


def _salted(tenant: str, network: str, addresses: tuple[Interface, ...], salt: int) -> str:
    owner = _hash(f"{tenant}/{network}/{salt}".encode(), 2)
    four = next((int(each.ip) for each in addresses if each.version == 4), None)
    low = four if four is not None else _hash(b"".join(each.ip.packed for each in addresses), 4)
    first = (owner >> 8) & 0b11111100 | _LOCAL_UNICAST
    digits = f"{first << 40 | (owner & 0xFF) << 32 | low:012x}"
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


def _hash(text: bytes, size_bytes: int) -> int:
    return int.from_bytes(blake2b(text, digest_size=size_bytes).digest())
