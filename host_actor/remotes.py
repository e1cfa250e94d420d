"""What this host must know of others, as a pure fold: who is where in the VXLAN networks that have members here, and in
those that such a member's packets may be routed to.

A network is open as long as it has a member on this host; one that routes, also as long as its tenant has a member on
this host in any network that does: which ones there are is in `tenants`. `specs` follows from what was folded, entry by
entry: each event changes only what it is about. Whoever makes it so asks for the names that changed (`take_changed`).

What cannot be reached is in `gaps`, by what it is about: a host without tunnels keeps its own endpoints together, and
says that there is no way to the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

import msgspec

from messages.addresses import Address
from messages.catalog import AnyEvent
from messages.endpoint import EndpointBound, EndpointDeleted, EndpointUnbound
from messages.host import HostJoined, HostRemoved
from messages.network import Encap, NetworkCreated, NetworkDeleted

from .drivers.contract import (
    Remote,
    RemoteEndpoint,
    RemoteFlood,
    RemoteTunnel,
    RemoteVtep,
    RoutedEndpoint,
    RoutedNetwork,
    RouterPeer,
)
from .underlay import VXLAN_OVERHEAD_BYTES

REMOTE = "remote/"  # what the name of every spec begins with
TUNNEL = f"{REMOTE}tunnel"

NetworkId = tuple[str, str]  # tenant and network
ALL = "*"  # in place of a network: which networks the tenant has


class Elsewhere(msgspec.Struct, frozen=True):
    """An endpoint of another host (in a network that routes, of any); `epoch`: the journal sequence that put it there.

    `tag` is its network's VLAN tag or VNI.
    """

    endpoint: str
    epoch: int
    tag: int
    mac: str
    addresses: tuple[Address, ...]
    host: str


class HostUnderlay(msgspec.Struct, frozen=True):
    """What a host said of its end of the tunnels."""

    vtep: Address | None = None
    vtep_mac: str | None = None


class OpenNetwork(msgspec.Struct):
    """A network that is followed: who else is in it, as of journal sequence `seq`; 0: nobody has read that yet."""

    tenant: str
    network: str
    mtu_bytes: int
    encap: Encap = "vxlan"
    is_routed: bool = False
    seq: int = 0
    endpoints: dict[str, Elsewhere] = msgspec.field(default_factory=dict)


class TenantRoutes(msgspec.Struct):
    """The networks of a tenant that route, as of journal sequence `seq`; 0: nobody has read that yet."""

    tenant: str
    seq: int = 0
    networks: dict[str, NetworkCreated] = msgspec.field(default_factory=dict)


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
        self.tenants: dict[str, TenantRoutes] = {}
        self._members: set[NetworkId] = set()  # the networks that have members here
        self._hosts_of: dict[str, Counter[str]] = {}  # tenant -> host -> endpoints in networks that route
        self._peers: dict[str, set[str]] = {}  # tenant -> the names of its router peers

    # Asked by who makes it so --------------------------------------------------------------------------------------

    def take_changed(self) -> dict[str, None]:
        """The names of specs that are other ones, or gone, since this was asked last."""
        changed, self._changed = self._changed, {}
        return changed

    def take_turned(self) -> list[NetworkId]:
        """The networks that were opened or closed since this was asked last."""
        turned, self._turned = self._turned, {}
        return list(turned)

    def followed(self) -> list[NetworkId]:
        """All that is to be followed."""
        return [*((tenant, ALL) for tenant in self.tenants), *self.networks]

    def holding(self, network: NetworkId) -> OpenNetwork | TenantRoutes | None:
        """What is followed under this name."""
        return self.tenants.get(network[0]) if network[1] == ALL else self.networks.get(network)

    def is_known(self, bound: EndpointBound) -> bool:
        """Whether all that its packets may be for has been read: of its network, and of those it is routed to."""
        if bound.is_routed:
            routes = self.tenants.get(bound.tenant)
            names = (bound.network, *routes.networks) if routes is not None else ()
            return routes is not None and bool(routes.seq) and all(self._is_read(bound.tenant, each) for each in names)
        return bound.encap != "vxlan" or self._is_read(bound.tenant, bound.network)

    def _is_read(self, tenant: str, network: str) -> bool:
        found = self.networks.get((tenant, network))
        return found is not None and found.seq > 0

    # What changes it -----------------------------------------------------------------------------------------------

    def settle(self, vtep: IPv4Address | IPv6Address | None, underlay_mtu_bytes: int = 0) -> None:
        """This host's own end of the tunnels: none for a host without."""
        self._underlay_mtu_bytes = underlay_mtu_bytes
        if vtep != self._vtep or TUNNEL not in self.specs:
            self._vtep = vtep
            self._put(TUNNEL, RemoteTunnel(vtep) if vtep is not None else None)
            for host in self._on_host:
                self._refresh_host(host)
            self._refresh_all_peers()
        for found in self.networks.values():
            self._check_mtu(found)

    def enter(self, bound: EndpointBound) -> None:
        """The network of this binding has a member here."""
        network = (bound.tenant, bound.network)
        self._members.add(network)
        self._open(network, bound.mtu_bytes, bound.encap, is_routed=bound.is_routed)
        if bound.is_routed:
            if bound.tenant not in self.tenants:
                self.tenants[bound.tenant] = TenantRoutes(bound.tenant)
                self._turned[bound.tenant, ALL] = None
            self._refresh_peers(bound.tenant)

    def leave(self, network: NetworkId) -> None:
        """The network has no member here any more: what need not be known of it is forgotten."""
        self._members.discard(network)
        tenant = network[0]
        if tenant not in self.tenants:
            self._close(network)
            return
        if not any(each[0] == tenant and self.networks[each].is_routed for each in self._members):
            del self.tenants[tenant]
            self._turned[tenant, ALL] = None
            for each in [each for each in self.networks if each[0] == tenant]:
                self._route(each, None)
                if each not in self._members:
                    self._close(each)
        elif not self.networks[network].is_routed:
            self._close(network)
        self._refresh_peers(tenant)

    def _open(self, network: NetworkId, mtu_bytes: int, encap: Encap, *, is_routed: bool) -> None:
        if network not in self.networks:
            self.networks[network] = OpenNetwork(*network, mtu_bytes, encap, is_routed)
            self._turned[network] = None
            self._check_mtu(self.networks[network])

    def _close(self, network: NetworkId) -> None:
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
        self._refresh_all_peers()

    def fold_tenant(self, tenant: str, seq: int, event: AnyEvent) -> None:
        """Fold one event about which networks a tenant has. Idempotent, as `fold` is."""
        found = self.tenants.get(tenant)
        if found is None or seq <= found.seq:
            return
        found.seq = seq
        match event:
            case NetworkCreated(is_routed=True):
                found.networks[event.network] = event
                self._route((tenant, event.network), event)
            case NetworkDeleted():
                found.networks.pop(event.network, None)
                self._route((tenant, event.network), None)
                if (tenant, event.network) not in self._members:
                    self._close((tenant, event.network))
                self._refresh_peers(tenant)

    def _route(self, network: NetworkId, created: NetworkCreated | None) -> None:
        """Packets of the tenant are routed to this network, which is followed for that; or (none) are not."""
        route = None
        if created is not None:
            self._open(network, created.mtu_bytes, created.encap, is_routed=True)
            facts = (created.encap, created.tag, created.subnets, created.gateways)
            route = RoutedNetwork(network[0], *facts)
        self._put(f"{REMOTE}route/{_network_name(network)}", route)

    def fold(self, network: NetworkId, seq: int, event: AnyEvent) -> None:
        """Fold one event of an open network. Idempotent: what is not newer than its `seq` changes nothing."""
        found = self.networks.get(network)
        if found is None or seq <= found.seq:
            return
        found.seq = seq
        match event:
            case EndpointBound(host=self.host) if not found.is_routed:
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
        """All of the network's (or the tenant's) events up to there have been folded."""
        found = self.holding(network)
        if found is not None:
            found.seq = max(found.seq, until_seq)

    def forget(self) -> None:
        """Nothing is known any more."""
        for network in list(self._members):
            self.leave(network)
        self.hosts.clear()

    # What is kept on disk ------------------------------------------------------------------------------------------

    def restore(
        self, hosts: dict[str, HostUnderlay], tenants: Iterable[TenantRoutes], networks: Iterable[OpenNetwork]
    ) -> None:
        """All is as it was saved, of what is open because of the members that were entered before."""
        self.hosts = dict(hosts)
        for routes in tenants:
            found = self.tenants.get(routes.tenant)
            if found is not None:
                found.seq = routes.seq
                for name, created in routes.networks.items():
                    found.networks[name] = created
                    self._route((routes.tenant, name), created)
        for each in networks:
            network = (each.tenant, each.network)
            if network in self.networks:
                self.networks[network].seq = each.seq
                for endpoint, there in each.endpoints.items():
                    self._place(network, endpoint, there)
        for tenant in self.tenants:
            self._refresh_peers(tenant)

    # What follows from it ------------------------------------------------------------------------------------------

    def _place(self, network: NetworkId, endpoint: str, there: Elsewhere | None) -> None:
        """The endpoint is there, or (none) nowhere that concerns this host."""
        found = self.networks[network]
        before = found.endpoints.pop(endpoint, None)
        if there is not None:
            found.endpoints[endpoint] = there
        if found.is_routed:
            self._hop(found, endpoint, before, there)
        before, there = self._tunnelled(found, before), self._tunnelled(found, there)
        if there is not None:
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

    def _tunnelled(self, network: OpenNetwork, there: Elsewhere | None) -> Elsewhere | None:
        """`there`, if a tunnel is the way to it."""
        return there if there is not None and network.encap == "vxlan" and there.host != self.host else None

    def _hop(self, network: OpenNetwork, endpoint: str, before: Elsewhere | None, there: Elsewhere | None) -> None:
        """What is routed to the endpoint's addresses goes to its MAC; its host routes to others."""
        hop = None
        if there is not None:
            hop = RoutedEndpoint(endpoint, there.epoch, network.encap, there.tag, there.mac, there.addresses)
        self._put(f"{REMOTE}hop/{endpoint}", hop)
        hosts = self._hosts_of.setdefault(network.tenant, Counter())
        are_before = set(hosts)
        if there is not None:
            hosts[there.host] += 1
        if before is not None:
            hosts[before.host] -= 1
        for host in [host for host, count in hosts.items() if count <= 0]:
            del hosts[host]
        if set(hosts) != are_before:
            self._refresh_peers(network.tenant)

    def _refresh_all_peers(self) -> None:
        for tenant in list(self._peers):
            self._refresh_peers(tenant)

    def _refresh_peers(self, tenant: str) -> None:
        """From which other hosts packets may come that were routed into the networks with members here."""
        peers: dict[str, RouterPeer] = {}
        routes = self.tenants.get(tenant)
        for host in self._hosts_of.get(tenant, ()) if routes is not None else ():
            vtep = self._way_to(host)
            if host == self.host or vtep is None or routes is None:
                continue
            for name, created in routes.networks.items():
                if created.encap == "vxlan" and (tenant, name) in self._members:
                    peers[f"{REMOTE}peer/{tenant}/{name}/{host}"] = RouterPeer(created.tag, vtep)
        for name in self._peers.get(tenant, set()) - peers.keys():
            self._put(name, None)
        for name, peer in peers.items():
            self._put(name, peer)
        self._peers[tenant] = set(peers)
        if routes is None:
            self._peers.pop(tenant)
            self._hosts_of.pop(tenant, None)

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
            spec = RemoteEndpoint(endpoint, there.epoch, there.tag, there.mac, there.addresses, vtep)
        self._put(f"{REMOTE}endpoint/{endpoint}", spec)

    def _refresh_ways(self, host: str, networks: tuple[NetworkId, ...] | dict[NetworkId, set[str]]) -> None:
        """The branches of these networks' groups that lead to the host, its neighbour entry, and what is missing."""
        on_host = self._on_host.get(host, {})
        vtep = self._way_to(host)
        for network in networks:
            flood = None
            if vtep is not None and network in on_host:
                any_endpoint = next(iter(on_host[network]))
                flood = RemoteFlood(self.networks[network].endpoints[any_endpoint].tag, vtep)
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
        if self._vtep is None or not self._underlay_mtu_bytes or network.encap != "vxlan":
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
