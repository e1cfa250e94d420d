"""Hosts: members of the cluster, and the questions that one answers about itself (nothing here changes anything)."""

from __future__ import annotations

from .addresses import Address, Interface, Mac, check_mac
from .names import Name, Token, check_container, check_token
from .struct import Command, Event, Part, View

UNDERLAY_MTU_MIN, UNDERLAY_MTU_MAX = 576, 65535


class JoinHost(Command, frozen=True, kw_only=True, omit_defaults=True):
    """Make a host known, or what it says of itself. Sent by its host actor at every start; identical: nothing
    changes.

    `uplinks`: the interfaces by which VLAN networks leave it, with their tags where these are not all (`eth1:10-20`).
    `vtep`: where other hosts send what they tunnel to it, none for a host without tunnels. `vtep_mac` is the MAC that
    has this address, `underlay_mtu_bytes` the longest IP packet that the link there carries; 0 for unknown.
    """

    tenant: Token
    host: Token
    driver: str
    datapath: str
    version: str
    bridge: str = ""
    vtep: Address | None = None
    vtep_mac: Mac | None = None
    underlay_mtu_bytes: int = 0
    uplinks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_token("host name", self.host)
        if self.vtep is not None and (self.vtep.is_multicast or self.vtep.is_unspecified or self.vtep.is_loopback):
            raise ValueError(f"VTEP {self.vtep} cannot be sent to: expected a unicast address")
        if self.vtep_mac is not None:
            check_mac(self.vtep_mac)
        if self.underlay_mtu_bytes and not UNDERLAY_MTU_MIN <= self.underlay_mtu_bytes <= UNDERLAY_MTU_MAX:
            raise ValueError(
                f"underlay MTU {self.underlay_mtu_bytes} is out of range: "
                f"expected {UNDERLAY_MTU_MIN} to {UNDERLAY_MTU_MAX}, or 0 for unknown"
            )


class RemoveHost(Command, frozen=True, kw_only=True):
    """Forget a host that holds no endpoint."""

    tenant: Token
    host: Token


class GetHost(Command, frozen=True, kw_only=True):
    """Ask for one host."""

    tenant: Token
    host: Token


class ListHosts(Command, frozen=True, kw_only=True):
    """Ask for all hosts."""


class HostJoined(Event, frozen=True, kw_only=True, omit_defaults=True):
    """The host is a member, and says this of itself (the fields of `JoinHost`)."""

    host: str
    driver: str
    datapath: str
    version: str
    bridge: str = ""
    vtep: Address | None = None
    vtep_mac: str | None = None
    underlay_mtu_bytes: int = 0
    uplinks: tuple[str, ...] = ()


class HostRemoved(Event, frozen=True, kw_only=True):
    """The host is no member any more."""

    host: str


class InspectHost(Command, frozen=True, kw_only=True, omit_defaults=True):
    """Ask a host for its ports as they are (sent to `np.v1.host.<host>.inspect`).

    `with_addresses`: with what the containers' interfaces really have, too.
    """

    with_addresses: bool = False


class RepairHost(Command, frozen=True, kw_only=True):
    """Ask a host to look at everything again, and to put the links of these endpoints (by id) right whatever the switch
    shows (sent to `np.v1.host.<host>.repair`). Answered like `InspectHost` with addresses.
    """

    endpoints: tuple[str, ...] = ()


class FindContainer(Command, frozen=True, kw_only=True):
    """Ask a host whether a container reference can be attached now (sent to `np.v1.host.<host>.container`)."""

    container: Name

    def __post_init__(self) -> None:
        check_container(self.container)


class HostSpec(Part, frozen=True, kw_only=True, omit_defaults=True):
    """What a host said of itself when it joined (the fields of `JoinHost`)."""

    driver: str
    datapath: str
    version: str
    bridge: str
    vtep: Address | None = None
    vtep_mac: str | None = None
    underlay_mtu_bytes: int = 0
    uplinks: tuple[str, ...] = ()


class HostStatus(Part, frozen=True, kw_only=True):
    """What is known of a host."""

    state: str
    endpoints: int
    seq: int


class HostView(View, frozen=True, kw_only=True):
    """A host as shown. `host` and `name` are the same."""

    host: str
    name: str
    spec: HostSpec
    status: HostStatus


class PortView(View, frozen=True, kw_only=True):
    """A port as the host's switch has it: `parts` of `link`, `switch`, `rules` that really stand.

    `addresses` and `mac` are what the interface in the container has; none where that was not asked or cannot be seen.
    """

    tenant: str
    network: str
    name: str
    endpoint: str
    epoch: int
    device: str
    interface: str
    container: str
    parts: tuple[str, ...]
    state: str
    reason: str = ""
    addresses: tuple[Interface, ...] | None = None
    mac: str = ""


class ContainerView(View, frozen=True, kw_only=True):
    """A container reference as this host sees it now. `state`: `running`, `waiting` (may still come), `absent`
    (refused).
    """

    container: str
    host: str
    state: str
    code: str = ""
    reason: str = ""
