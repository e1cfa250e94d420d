"""Other hosts in the flow table: their endpoints, and the branches of broadcast groups that lead to them. Pure values.

::

    CLASSIFY   tunnel port + VNI + VTEP + MAC of an endpoint there -> reg0 = the network's key, on to FORWARD
    ANSWER, ADVERTISE   its addresses are answered for here, as those of local endpoints are
    FORWARD    its MAC -> the tunnel, to its VTEP; its broadcasts -> the network's group

A packet that came out of the tunnel is only taken from the VTEP of the host that its source MAC is bound to: not from a
host that nobody knows, nor from the one that an endpoint has left. It never goes back into a tunnel, because the switch
sends nothing out of the port that it came in by; so of the network's group it reaches the local members alone.

Each flow of an endpoint carries a cookie that says of itself which flows there must be (`ovs_flows.py: remote_owner`).
A local port has the same matches with a higher priority: between two moments of a move, the local one is served.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from zlib import crc32

from ..openflow import Bucket, Flow, apply, flow, goto, group, match, output, set_field
from .contract import (
    Remote,
    RemoteEndpoint,
    RemoteFlood,
    RemoteTunnel,
    RemoteVtep,
    Route,
    RoutedEndpoint,
    RoutedNetwork,
    RouterPeer,
)
from .ovs_flows import (
    MULTICAST_BIT,
    OWN,
    TUNNEL_PORT,
    Seal,
    Table,
    arp_answer,
    link_local_of,
    neighbour_answer,
    network_key,
    network_match,
    remote_owner,
    seal_of,
)
from .ovs_routes import route_flows

ELSEWHERE = 90  # priority: what is known of other hosts' endpoints, below what ports here say of theirs

_IPV6_BUCKETS: Final = 0xE0000000  # above every unicast IPv4 address
_IPV6_BUCKET_BITS: Final = 0x0FFFFFFF

Vtep = IPv4Address | IPv6Address


@lru_cache(maxsize=4096)
def remote_flows(remote: RemoteEndpoint | Route) -> tuple[Flow, ...]:
    """All flows about an endpoint of another host, or for a route, with the cookie that they prove."""
    if isinstance(remote, RemoteEndpoint):
        name, epoch, flows = remote.endpoint, remote.epoch, tuple(_flows(remote))
    else:
        name, epoch, flows = repr(remote), 0, tuple(route_flows(remote))
    cookie = remote_owner(name, epoch, seal_of(flows).checksum)
    return tuple(entry.with_cookie(cookie) for entry in flows)


def owner_of_remote(remote: RemoteEndpoint | Route) -> int:
    """The cookie of its flows."""
    return remote_flows(remote)[0].cookie


def is_whole(cookie: int, seal: Seal) -> bool:
    """Whether the flows with this cookie are those that it was made of."""
    return seal.checksum == cookie & 0xFFFFFFFF


def _flows(remote: RemoteEndpoint) -> Iterable[Flow]:
    key = network_key("vxlan", remote.vni)
    network = network_match(key)
    source = "tun_src" if remote.vtep.version == 4 else "tun_ipv6_src"
    comes = match(
        in_port=TUNNEL_PORT, tunnel_id=remote.vni, eth_src=remote.mac, vlan_vid=0, **{source: remote.vtep.packed}
    )
    yield flow(Table.CLASSIFY, OWN, comes, apply(set_field("reg0", key)) + goto(Table.FORWARD))
    to_all = match(xreg0=network, in_port=TUNNEL_PORT, eth_src=remote.mac, eth_dst=MULTICAST_BIT)
    yield flow(Table.FORWARD, OWN, to_all, apply(group(key)))
    yield flow(Table.FORWARD, ELSEWHERE, match(xreg0=network, eth_dst=remote.mac), apply(*_into(remote)))
    six = []
    for address in dict.fromkeys(remote.addresses):
        if isinstance(address, IPv4Address):
            yield arp_answer(key, remote.mac, address, ELSEWHERE)
        else:
            six.append(address)
    for address in dict.fromkeys((*six, link_local_of(remote.mac))) if six else ():
        yield from neighbour_answer(key, remote.mac, address, ELSEWHERE)


def _into(remote: RemoteEndpoint | RemoteFlood) -> tuple[bytes, ...]:
    """Actions: into the tunnel, as a packet of this network, to this host."""
    target = "tun_dst" if remote.vtep.version == 4 else "tun_ipv6_dst"
    to = (set_field("tunnel_id", remote.vni), set_field(target, remote.vtep.packed))
    return (*to, output(TUNNEL_PORT))


def bucket_id_of(vtep: Vtep) -> int:
    """The id of a host's bucket in every group: its IPv4 address as a number, or one made of its IPv6 address."""
    return int(vtep) if vtep.version == 4 else _IPV6_BUCKETS | crc32(vtep.packed) & _IPV6_BUCKET_BITS


def flood_bucket(flood: RemoteFlood) -> Bucket:
    """The branch of the network's group that leads to this host."""
    return Bucket(bucket_id_of(flood.vtep), b"".join(_into(flood)))


# Marks -------------------------------------------------------------------------------------------------------------


def remote_mark(remote: Remote) -> str:
    """What the switch shows it as."""
    match remote:
        case RemoteEndpoint() | RoutedNetwork() | RoutedEndpoint() | RouterPeer():
            return endpoint_mark(owner_of_remote(remote))
        case RemoteFlood():
            return flood_mark(network_key("vxlan", remote.vni), bucket_id_of(remote.vtep))
        case RemoteVtep():
            return f"vtep/{remote.vtep}/{remote.mac}"
        case RemoteTunnel():
            return tunnel_mark(str(remote.vtep))


def endpoint_mark(cookie: int) -> str:
    """Of an endpoint's flows, by their cookie."""
    return f"endpoint/{cookie:016x}"


def flood_mark(key: int, bucket_id: int) -> str:
    """Of a host's bucket in a network's group."""
    return f"flood/{key}/{bucket_id}"


def tunnel_mark(vtep: str) -> str:
    """Of the tunnel port at this host's own address."""
    return f"tunnel/{vtep}"
