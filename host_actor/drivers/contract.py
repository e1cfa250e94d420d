"""What every soft switch driver takes and gives. A driver is one file here and one line in `DRIVERS`.

A driver is a reconciler of parts, not of commands: every operation says what must be there afterwards, may be delivered
twice or cut short anywhere, and ends converged when the plan made from a new observation is executed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Literal, Protocol

import msgspec


class Part(enum.StrEnum):
    """The three things a port consists of; each can be missing on its own."""

    LINK = "link"  # the veth pair, its inner end configured (address, MAC, MTU, route)
    SWITCH = "switch"  # the port's row in the switch, with endpoint id and epoch
    RULES = "rules"  # what lets its packets pass, and no others


ALL_PARTS: frozenset[Part] = frozenset(Part)


class Sandbox(msgspec.Struct, frozen=True):
    """A network namespace that a container lives in, as a runtime found it."""

    key: str  # another one for another run of the container: "docker:<id>:<pid>", "netns:<inode>:<birth>", "pid:<n>:.."
    netns_path: str  # e.g. /proc/4711/ns/net, /run/netns/blue


class PortSpec(msgspec.Struct, frozen=True):
    """One endpoint as it must be on this host."""

    endpoint: str  # opaque id, [a-z0-9]{16}
    epoch: int  # journal sequence of the event that bound it here; an older one is never applied over a newer
    tenant: str
    network: str
    name: str
    mac: str
    addresses: tuple[IPv4Interface | IPv6Interface, ...]
    gateways: tuple[IPv4Address | IPv6Address, ...]
    encap: Literal["vlan", "vxlan"]
    tag: int  # 802.1Q id (1..4094) or VNI (24 bits)
    mtu_bytes: int
    sandbox: Sandbox

    @property
    def device(self) -> str:
        """The host end's interface name, at most 15 characters: `np` and the first 12 of the endpoint id."""
        return f"np{self.endpoint[:12]}"


class RemoteEndpoint(msgspec.Struct, frozen=True):
    """An endpoint of another host: what a member of its VXLAN network here must be able to reach."""

    endpoint: str
    epoch: int
    vni: int
    mac: str
    addresses: tuple[IPv4Address | IPv6Address, ...]
    vtep: IPv4Address | IPv6Address  # of the host that it is on


class RemoteFlood(msgspec.Struct, frozen=True):
    """Broadcasts and multicasts of a network are sent to another host too, which has members of it."""

    vni: int
    vtep: IPv4Address | IPv6Address


class RemoteVtep(msgspec.Struct, frozen=True):
    """The MAC that has another host's VTEP address on the underlay, so that no packet waits for it to be asked."""

    vtep: IPv4Address | IPv6Address
    mac: str


class RemoteTunnel(msgspec.Struct, frozen=True):
    """This host's own end of all tunnels, at this address."""

    vtep: IPv4Address | IPv6Address


class RoutedNetwork(msgspec.Struct, frozen=True):
    """A network that routes: its gateways answer here, and packets to its subnets, from any routed network of the same
    tenant, are taken on to it.
    """

    tenant: str
    encap: Literal["vlan", "vxlan"]
    tag: int
    subnets: tuple[IPv4Network | IPv6Network, ...]
    gateways: tuple[IPv4Address | IPv6Address, ...]


class RoutedEndpoint(msgspec.Struct, frozen=True):
    """Which MAC the addresses of an endpoint have, for packets that are routed into its network."""

    endpoint: str
    epoch: int
    encap: Literal["vlan", "vxlan"]
    tag: int
    mac: str
    addresses: tuple[IPv4Address | IPv6Address, ...]


class RouterPeer(msgspec.Struct, frozen=True):
    """Another host routes packets into this VXLAN network: they come from its VTEP with the gateways' MAC."""

    vni: int
    vtep: IPv4Address | IPv6Address


Route = RoutedNetwork | RoutedEndpoint | RouterPeer
Remote = RemoteEndpoint | RemoteFlood | RemoteVtep | RemoteTunnel | Route


class EnsureSwitch(msgspec.Struct, frozen=True, tag="ensure-switch"):
    """The bridge exists, is secure until told otherwise, and its common rules stand."""


class EnsurePort(msgspec.Struct, frozen=True, tag="ensure-port"):
    """The named parts of a port stand as `port` says; other parts of it are right already."""

    port: PortSpec
    parts: frozenset[Part] = ALL_PARTS


class DropPort(msgspec.Struct, frozen=True, tag="drop-port"):
    """Nothing of this port is left. Success when there was nothing."""

    endpoint: str
    device: str


class EnsureRemote(msgspec.Struct, frozen=True, tag="ensure-remote"):
    """What is said of another host holds, in place of what was said of the same MAC or address before."""

    remote: Remote


class DropRemote(msgspec.Struct, frozen=True, tag="drop-remote"):
    """What `observe` shows under this mark holds no more. Success when it did not."""

    mark: str


Op = EnsureSwitch | EnsurePort | DropPort | EnsureRemote | DropRemote


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The operation's state holds; for a port, it forwards. `interface` is its name inside the container."""

    op: Op
    interface: str = ""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The switch or the kernel said no to this one operation; the others went on.

    `code` is kebab-case: `container-gone`, `device-missing`, `switch-refused`, `interface-limit`.
    """

    op: Op
    code: str
    detail: str


Outcome = Done | Failed


class ObservedPort(msgspec.Struct, frozen=True):
    """What the switch and the kernel say about one port, whoever put it there."""

    endpoint: str
    epoch: int
    device: str
    parts: frozenset[Part]
    sandbox_key: str = ""
    interface: str = ""  # its name inside the container


class Observed(msgspec.Struct, frozen=True):
    """All of the switch that is ours: whether its common part stands, and each port by endpoint id.

    `remotes` is what it holds of other hosts, by the driver's own marks (`Driver.mark_of`), and whether it is whole.
    """

    is_switch_ready: bool
    ports: Mapping[str, ObservedPort]
    remotes: Mapping[str, bool] = {}


class Capabilities(msgspec.Struct, frozen=True):
    """What this driver can enforce on this host. What is not here is refused when asked for, never left open."""

    vlan: bool = False
    vxlan: bool = False  # tunnels to other hosts
    anti_spoofing: bool = False
    ipv6: bool = False
    datapath: str = ""  # "system", "netdev", "memory": for people


class Figures(msgspec.Struct, frozen=True):
    """What a switch counts, by table where it has tables. Any count may begin again at nothing."""

    flows: Mapping[str, int] = {}
    dropped_packets: Mapping[str, int] = {}  # that no entry allowed
    bundles: int = 0  # of rule changes, each taken as one
    flow_messages: int = 0  # changes within them


class Driver(Protocol):
    """A soft switch. All methods are coroutines of one event loop; executions that overlap have no port in common."""

    @property
    def capabilities(self) -> Capabilities:
        """What this driver can enforce here; its data path is known once it is open."""
        ...

    def mark_of(self, remote: Remote) -> str:
        """Under what `observe` shows this: anything else said of the same endpoint or host has another mark."""
        ...

    async def open(self, on_change: Callable[[str], None]) -> None:
        """Connect. `on_change(reason)` is called whenever something of ours changed that this driver did not do itself
        (a port row or a device removed by hand, the switch restarted): the caller then observes and plans again.

        Raises: `services.runtime.errors.Unavailable` when the switch is away.
        """
        ...

    async def observe(self) -> Observed:
        """All ports that are ours with the parts that are really there. Raises: `Unavailable`."""
        ...

    async def execute(self, ops: Sequence[Op]) -> Sequence[Outcome]:
        """Make each operation's state true, in order where it matters, batched where it does not.

        What is said of other hosts changes at one moment, together with the rules of the ports.
        Returns one outcome per op, in the order given. Raises: `Unavailable` when the switch went away; anything may
        then be half done, and a new observation says what.
        """
        ...

    async def figures(self) -> Figures:
        """What the switch has counted so far. May be asked while operations are executed. Raises: `Unavailable`."""
        ...

    async def close(self) -> None:
        """Let go of the switch. Nothing that forwards is touched."""
        ...
