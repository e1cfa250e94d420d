"""Hosts: members of the cluster, and the questions that one answers about itself (nothing here changes anything)."""

from __future__ import annotations

import re

from .addresses import Address, Interface, Mac, check_mac
from .names import Name, Token, check_container, check_token
from .struct import Command, Event, Part, View

UNDERLAY_MTU_MIN, UNDERLAY_MTU_MAX = 576, 65535


INVITATION_S_MIN = 60
INVITATION_S_MAX = 30 * 24 * 3600
INVITATION_LENGTH = 12

_is_public_key = re.compile(r"U[A-Z2-7]{55}").fullmatch
_is_machine_id = re.compile(r"[0-9a-f]{32}").fullmatch


def check_public_key(text: str) -> None:
    """Raises: ValueError for what is no nkey of a user. Source: NATS ADR-14."""
    if not _is_public_key(text):
        raise ValueError(f"public key {text[:64]!r}: expected U and 55 letters or digits of base 32")


def invitation_of(public_key: str) -> str:
    """The name of the invitation with this one-time key; part of its user's name on the bus."""
    return public_key[-INVITATION_LENGTH:].lower()


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


class InviteHost(Command, frozen=True, kw_only=True):
    """Let one host join within `ttl_s` seconds: whoever signs with the one-time key may send `AdmitHost`, once."""

    tenant: Token
    public_key: str
    ttl_s: int = 3600

    def __post_init__(self) -> None:
        check_public_key(self.public_key)
        if not INVITATION_S_MIN <= self.ttl_s <= INVITATION_S_MAX:
            raise ValueError(f"an invitation of {self.ttl_s} s: expected {INVITATION_S_MIN} to {INVITATION_S_MAX}")


class AdmitHost(Command, frozen=True, kw_only=True):
    """Let a host in with a key of its own. Sent by `netplugin join` as the one-time user that its token holds."""

    tenant: Token
    host: Token
    public_key: str
    machine_id: str

    def __post_init__(self) -> None:
        check_token("host name", self.host)
        check_public_key(self.public_key)
        if not _is_machine_id(self.machine_id):
            raise ValueError(f"machine id {self.machine_id[:64]!r}: expected 32 hexadecimal digits (machine-id(5))")


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


class HostInvited(Event, frozen=True, kw_only=True):
    """A host may join with this one-time key until then (nanoseconds of Unix time, the deciding actor's clock)."""

    invitation: str
    public_key: str
    expires_at_ns: int


class HostAdmitted(Event, frozen=True, kw_only=True):
    """Whoever signs with this key is the host of that name: its machine, by /etc/machine-id. The invitation is used."""

    host: str
    public_key: str
    machine_id: str
    invitation: str


class HostRemoved(Event, frozen=True, kw_only=True):
    """The host is no member any more; the key it was admitted with is worth nothing."""

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


class AdoptJournal(Command, frozen=True, kw_only=True):
    """Tell a host to take the journal as it is, though it is not the one that made its ports (sent to
    `np.v1.host.<host>.adopt`): what this journal does not know is removed there. Answered with `Accepted`.
    """


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
