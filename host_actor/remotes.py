"""What this host must know of others, as a pure fold: who is where in the VXLAN networks that have members here.

A network is open as long as it has a member on this host. `specs` follows from what was folded, entry by entry: each
event changes only what it is about. Whoever makes it so asks for the names that changed (`take_changed`).

What cannot be reached is in `gaps`, by what it is about: a host without tunnels keeps its own endpoints together, and
says that there is no way to the others.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import msgspec

from messages.addresses import Address
from messages.catalog import AnyEvent
from messages.endpoint import EndpointBound, EndpointDeleted, EndpointUnbound
from messages.host import HostJoined, HostRemoved

from .drivers.contract import Remote, RemoteEndpoint, RemoteFlood, RemoteTunnel, RemoteVtep
from .underlay import VXLAN_OVERHEAD_BYTES

REMOTE = "remote/"  # what the name of every spec begins with
TUNNEL = f"{REMOTE}tunnel"

NetworkId = tuple[str, str]  # tenant and network


class Elsewhere(msgspec.Struct, frozen=True):
    """An endpoint of another host; `epoch` is the journal sequence that put it there."""

    endpoint: str
    epoch: int
    vni: int
    mac: str
    addresses: tuple[Address, ...]
    host: str


class HostUnderlay(msgspec.Struct, frozen=True):
    """What a host said of its end of the tunnels."""

    vtep: Address | None = None
    vtep_mac: str | None = None


class OpenNetwork(msgspec.Struct):
    """A network with members here: who else is in it, as of journal sequence `seq`; 0: nobody has read that yet."""

    tenant: str
    network: str
    mtu_bytes: int
    seq: int = 0
    endpoints: dict[str, Elsewhere] = msgspec.field(default_factory=dict)


class Gap(msgspec.Struct, frozen=True):
    """Why something cannot be reached. `code`: `vtep-not-set`, `host-without-vtep`, `vtep-family`, `underlay-mtu`."""

    code: str
    detail: str


class Remotes:
    """The fold. `host` is this one, whose end of the tunnels is told by `settle`."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.hosts: dict[str, HostUnderlay] = {}
        self.networks: dict[NetworkId, OpenNetwork] = {}
        self.specs: dict[str, Remote] = {}
        self.gaps: dict[str, Gap] = {}
        self._vtep: IPv4Address | IPv6Address | None = None
        self._underlay_mtu_bytes = 0
        self._on_host: dict[str, dict[NetworkId, set[str]]] = {}  # host -> network -> endpoints of it there
        self._changed: dict[str, None] = {}
        self._turned: dict[NetworkId, None] = {}

    # Asked by who makes it so --------------------------------------------------------------------------------------

    def take_changed(self) -> dict[str, None]:
        """The names of specs that are other ones, or gone, since this was asked last."""
        changed, self._changed = self._changed, {}
        return changed

    def take_turned(self) -> list[NetworkId]:
        """The networks that were opened or closed since this was asked last."""
        turned, self._turned = self._turned, {}
        return list(turned)

    # What changes it -----------------------------------------------------------------------------------------------

    def settle(self, vtep: IPv4Address | IPv6Address | None, underlay_mtu_bytes: int = 0) -> None:
        """This host's own end of the tunnels: none for a host without."""
        self._underlay_mtu_bytes = underlay_mtu_bytes
        if vtep != self._vtep or TUNNEL not in self.specs:
            self._vtep = vtep
            self._put(TUNNEL, RemoteTunnel(vtep) if vtep is not None else None)
            for host in self._on_host:
                self._refresh_host(host)
        for found in self.networks.values():
            self._check_mtu(found)

    def open(self, network: NetworkId, mtu_bytes: int) -> None:
        """The network has a member here."""
        if network not in self.networks:
            self.networks[network] = OpenNetwork(*network, mtu_bytes)
            self._turned[network] = None
            self._check_mtu(self.networks[network])

    def close(self, network: NetworkId) -> None:
        """The network has no member here any more: what was known of it is forgotten."""
        found = self.networks.get(network)
        if found is not None:
            for endpoint in list(found.endpoints):
                self._place(network, endpoint, None)
            del self.networks[network]
            self.gaps.pop(_network_name(network), None)
            self._turned[network] = None

    def fold_host(self, event: HostJoined | HostRemoved) -> None:
        """A host said where its end of the tunnels is, or is no member any more."""
        if isinstance(event, HostRemoved):
            self.hosts.pop(event.host, None)
        else:
            self.hosts[event.host] = HostUnderlay(event.vtep, event.vtep_mac)
        self._refresh_host(event.host)

    def fold(self, network: NetworkId, seq: int, event: AnyEvent) -> None:
        """Fold one event of an open network. Idempotent: what is not newer than its `seq` changes nothing."""
        found = self.networks.get(network)
        if found is None or seq <= found.seq:
            return
        found.seq = seq
        match event:
            case EndpointBound(host=self.host):
                self._place(network, event.endpoint, None)
            case EndpointBound():
                addresses = tuple(interface.ip for interface in event.addresses)
                there = Elsewhere(event.endpoint, seq, event.tag, event.mac, addresses, event.host)
                self._place(network, event.endpoint, there)
            case EndpointUnbound() | EndpointDeleted():
                before = found.endpoints.get(event.endpoint)
                if before is not None and before.epoch <= event.epoch:
                    self._place(network, event.endpoint, None)

    def has_read(self, network: NetworkId, until_seq: int) -> None:
        """All of the network's events up to there have been folded."""
        found = self.networks.get(network)
        if found is not None:
            found.seq = max(found.seq, until_seq)

    def forget(self) -> None:
        """Nothing is known any more."""
        for network in list(self.networks):
            self.close(network)
        self.hosts.clear()

    # What is kept on disk ------------------------------------------------------------------------------------------

    def restore(self, hosts: dict[str, HostUnderlay], networks: list[OpenNetwork]) -> None:
        """All is as it was saved."""
        self.hosts = dict(hosts)
        for each in networks:
            network = (each.tenant, each.network)
            self.open(network, each.mtu_bytes)
            self.networks[network].seq = each.seq
            for endpoint, there in each.endpoints.items():
                self._place(network, endpoint, there)

    # What follows from it ------------------------------------------------------------------------------------------

    def _place(self, network: NetworkId, endpoint: str, there: Elsewhere | None) -> None:
        """The endpoint is there, or (none) nowhere that concerns this host."""
        endpoints = self.networks[network].endpoints
        before = endpoints.pop(endpoint, None)
        if there is not None:
            endpoints[endpoint] = there
            self._on_host.setdefault(there.host, {}).setdefault(network, set()).add(endpoint)
        if before is not None and (there is None or there.host != before.host):
            on_host = self._on_host[before.host]
            on_host[network].discard(endpoint)
            if not on_host[network]:
                del on_host[network]
            if not on_host:
                del self._on_host[before.host]
        self._refresh_endpoint(endpoint, there)
        for host in {each.host for each in (before, there) if each is not None}:
            self._refresh_ways(host, (network,))

    def _refresh_host(self, host: str) -> None:
        networks = self._on_host.get(host, {})
        for network, endpoints in networks.items():
            for endpoint in endpoints:
                self._refresh_endpoint(endpoint, self.networks[network].endpoints[endpoint])
        self._refresh_ways(host, networks)

    def _refresh_endpoint(self, endpoint: str, there: Elsewhere | None) -> None:
        vtep = self._way_to(there.host) if there is not None else None
        spec = None
        if there is not None and vtep is not None:
            spec = RemoteEndpoint(endpoint, there.epoch, there.vni, there.mac, there.addresses, vtep)
        self._put(f"{REMOTE}endpoint/{endpoint}", spec)

    def _refresh_ways(self, host: str, networks: tuple[NetworkId, ...] | dict[NetworkId, set[str]]) -> None:
        """The branches of these networks' groups that lead to the host, its neighbour entry, and what is missing."""
        on_host = self._on_host.get(host, {})
        vtep = self._way_to(host)
        for network in networks:
            flood = None
            if vtep is not None and network in on_host:
                any_endpoint = next(iter(on_host[network]))
                flood = RemoteFlood(self.networks[network].endpoints[any_endpoint].vni, vtep)
            self._put(f"{REMOTE}flood/{network[0]}/{network[1]}/{host}", flood)
        mac = self.hosts[host].vtep_mac if host in self.hosts else None
        is_met = vtep is not None and mac is not None and bool(on_host)
        self._put(f"{REMOTE}vtep/{host}", RemoteVtep(vtep, mac) if is_met and vtep and mac else None)
        gap = self._gap(host) if on_host else None
        if gap is None:
            self.gaps.pop(host, None)
        else:
            self.gaps[host] = gap

    def _way_to(self, host: str) -> IPv4Address | IPv6Address | None:
        there = self.hosts.get(host)
        if self._vtep is None or there is None or there.vtep is None or there.vtep.version != self._vtep.version:
            return None
        return there.vtep

    def _gap(self, host: str) -> Gap | None:
        """Why there is no way to a host, though it has members of a network of ours."""
        there = self.hosts.get(host)
        if self._vtep is None:
            return Gap("vtep-not-set", f"no way to endpoints on {host}: this host has no VTEP address (--vtep)")
        if there is None or there.vtep is None:
            return Gap("host-without-vtep", f"no way to endpoints on {host}: that host has no VTEP address (--vtep)")
        if there.vtep.version != self._vtep.version:
            families = f"its VTEP is {there.vtep}, this host's is {self._vtep}"
            return Gap("vtep-family", f"no way to endpoints on {host}: {families}")
        return None

    def _check_mtu(self, network: OpenNetwork) -> None:
        """Packets of a network that are too long for the underlay vanish without a word: that is said instead."""
        name = _network_name((network.tenant, network.network))
        self.gaps.pop(name, None)
        if self._vtep is None or not self._underlay_mtu_bytes:
            return
        needed = network.mtu_bytes + VXLAN_OVERHEAD_BYTES[self._vtep.version]
        if needed > self._underlay_mtu_bytes:
            self.gaps[name] = Gap(
                "underlay-mtu",
                f"packets of network {name} may have {network.mtu_bytes} bytes, and take {needed} on the underlay, "
                f"which carries {self._underlay_mtu_bytes}: raise the MTU there, or create the network anew",
            )

    def _put(self, name: str, spec: Remote | None) -> None:
        if self.specs.get(name) == spec:
            return
        if spec is None:
            del self.specs[name]
        else:
            self.specs[name] = spec
        self._changed[name] = None


def _network_name(network: NetworkId) -> str:
    return "/".join(network)
