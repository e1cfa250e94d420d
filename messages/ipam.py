"""Address management as a whole: which addresses of a network are used, free, resting or kept back, as ranges."""

from __future__ import annotations

from .addresses import AddressRange, Network
from .names import Token
from .struct import Command, Part, View

SHOWN_RANGES_MAX = 1000
COUNT_MAX = (1 << 53) - 1  # the largest whole number that every JSON reader holds exactly (RFC 8259 section 6)


class ShowIpam(Command, frozen=True, kw_only=True):
    """Ask for the addresses of a network, of all of a tenant's, or with the tenant token `fabric` of all there are."""

    tenant: Token
    network: Token | None = None


class AddressSet(Part, frozen=True, kw_only=True):
    """Addresses as ascending ranges; `more` is how many ranges there are beyond the 1000 that are shown.

    `count` is that of addresses, at most 9007199254740991.
    """

    count: int
    ranges: tuple[AddressRange, ...] = ()
    more: int = 0


class SubnetAddresses(Part, frozen=True, kw_only=True):
    """Every address of a subnet, in exactly one set.

    `used` by endpoints; `reserved` for the subnet itself and its gateway; `resting` after an endpoint; `excluded`;
    `pooled`: free, kept for a pool; `on_request`: free, outside the ranges to choose from; `free` for whoever comes.
    `rests_for`: the hosts that have not said yet that the ports are gone which had resting addresses.
    """

    subnet: Network
    used: AddressSet
    reserved: AddressSet
    resting: AddressSet
    excluded: AddressSet
    pooled: AddressSet
    on_request: AddressSet
    free: AddressSet
    rests_for: tuple[str, ...] = ()


class AddressesView(View, frozen=True, kw_only=True):
    """A network's addresses as shown. `network` and `name` are the same."""

    tenant: str
    network: str
    name: str
    subnets: tuple[SubnetAddresses, ...]
