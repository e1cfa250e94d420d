"""The frozen values that the state is made of."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Literal

from msgspec import Struct

from messages.addresses import Address, AddressRange, Interface, Network
from messages.network import Encap
from messages.tenant import SUBNET_LENGTH, SUBNET_POOL

HOLDS_MAX = 8


class TenantRecord(Struct, frozen=True):
    """What a tenant may draw from. Empty ranges mean all that the fabric has."""

    subnet_pool: Network
    subnet_length: int
    vlans: str = ""
    vnis: str = ""
    is_routing: bool = False


DEFAULT_TENANT_RECORD = TenantRecord(ip_network(SUBNET_POOL), SUBNET_LENGTH)


class NetworkRecord(Struct, frozen=True):
    """A network as it is. `subnets` are those it was created with, then those it adopted.

    Addresses are chosen within `ranges` in a subnet that has some; those of `excluded` are nobody's.
    """

    encap: Encap
    tag: int
    is_tag_chosen: bool
    subnets: tuple[Network, ...]
    adopted: tuple[Network, ...]
    gateways: tuple[Address, ...]
    mtu_bytes: int
    ranges: tuple[AddressRange, ...] = ()
    excluded: tuple[AddressRange, ...] = ()
    is_routed: bool = False


class Binding(Struct, frozen=True):
    """Where an endpoint is; `epoch` is the journal sequence that put it there."""

    host: str
    container: str
    epoch: int


class Hold(Struct, frozen=True):
    """A host may still have a port with an address that was taken from it: of this endpoint id, made for this epoch."""

    endpoint: str
    host: str
    epoch: int


class EndpointRecord(Struct, frozen=True, omit_defaults=True):
    """An endpoint as it is. `left`: the bindings that it, or the last of its name with its addresses, had before."""

    id: str
    name: str
    addresses: tuple[Interface, ...]
    asked: tuple[Address, ...]
    mac: str
    seq: int
    binding: Binding | None = None
    left: tuple[Hold, ...] = ()
    pool: str = ""


class Rest(Struct, frozen=True):
    """A freed address is not for others than `name` until every hold is over (`resting.py`)."""

    name: str
    holds: tuple[Hold, ...]


class Owner(Struct, frozen=True):
    """The network that has a tag."""

    tenant: str
    network: str


class FormerOwner(Struct, frozen=True):
    """The network that was the last to have a tag, until the event of this journal sequence."""

    owner: Owner
    until_seq: int


class HostRecord(Struct, frozen=True):
    """What a host said of itself when it joined, and the journal sequence of that."""

    driver: str
    datapath: str
    version: str
    bridge: str
    seq: int
    vtep: Address | None = None
    vtep_mac: str | None = None
    underlay_mtu_bytes: int = 0
    uplinks: tuple[str, ...] = ()


class Admission(Struct, frozen=True):
    """The key that a host signs with, its machine, and the journal sequence of that."""

    public_key: str
    machine_id: str
    seq: int


class Invitation(Struct, frozen=True):
    """A one-time key with which a host may join. `used_by`: the host that did, empty before."""

    public_key: str
    expires_at_ns: int
    used_by: str = ""


ReportState = Literal["bound", "waiting", "failed", "unbound"]


class Report(Struct, frozen=True):
    """The last that a host said of an endpoint's port; `at_ns` is the server's time of it."""

    state: ReportState
    network: str
    name: str
    epoch: int
    seq: int
    at_ns: int
    device: str = ""
    interface: str = ""
    reason: str = ""


def add_hold(holds: tuple[Hold, ...], hold: Hold) -> tuple[Hold, ...]:
    """`holds` with `hold`, which replaces an older one of the same endpoint and host; the newest `HOLDS_MAX`."""
    others = tuple(each for each in holds if (each.endpoint, each.host) != (hold.endpoint, hold.host))
    return (*others, hold)[-HOLDS_MAX:]
