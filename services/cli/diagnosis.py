"""What commonly goes wrong, found in facts that were gathered: each check with what to do about it. Asks nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from messages.endpoint import EndpointView
from messages.host import HostView, PortView
from messages.network import NetworkView

from .status import BAD, OK, POOR, Check

CLOCKS_APART_S = 2.0
CLOCKS_FAR_APART_S = 60.0  # beyond it, what became of an append cannot be looked up by time
TUNNEL_BYTES = {4: 50, 6: 70}  # RFC 7348: outer IP and UDP, VXLAN, inner Ethernet
DISK_POOR, DISK_BAD = 0.10, 0.05  # of it free; at less the server may find it full at any moment
DISK_ENOUGH_BYTES = 1 << 30
NAMED_SHOWN_MAX = 5


class Member(NamedTuple):
    """A host actor as it answers discovery: its host, version, `state` and the reason of a state that is not ready."""

    host: str
    version: str
    state: str
    reason: str


def clock(ahead_s: float, unsure_s: float) -> Check:
    """This machine's clock beside the server's; `unsure_s` is the time that the question took."""
    apart_s = max(0.0, abs(ahead_s) - unsure_s)
    way = "ahead of" if ahead_s > 0 else "behind"
    if apart_s <= CLOCKS_APART_S:
        return Check("clock", "server", OK, f"within {max(apart_s, unsure_s):.3f} s of the server's")
    state = BAD if apart_s > CLOCKS_FAR_APART_S else POOR
    return Check("clock", "server", state, f"{apart_s:.1f} s {way} the server's", "keep both by NTP (chronyd)")


def versions(own: str, found: Mapping[str, str]) -> Iterator[Check]:
    """Whether all actors are of one version; `found` by actor."""
    present = sorted({own, *found.values()})
    if len(present) == 1:
        yield Check("version", "all", OK, own)
        return
    newest = max(present, key=_numbers)
    for actor, version in sorted(found.items()):
        if version != newest:
            advice = f"restart it with {newest}; first the ipam actors, then the hosts"
            yield Check("version", actor, POOR, f"{version}, others are {newest}", advice)
    if own != newest:
        yield Check("version", "netctl", POOR, f"{own}, others are {newest}", f"install {newest} here too")


def members(found: Sequence[Member]) -> Iterator[Check]:
    """Hosts that answer and yet do not follow the journal, or have no switch."""
    for each in found:
        if each.state == "journal-mismatch":
            yield not_following(each.host, f"journal-mismatch: {each.reason}")
        elif each.state == "switch-away":
            advice = f"on {each.host}: is Open vSwitch running? `ovs-vsctl show`, and the log of the host actor"
            yield Check("switch", each.host, BAD, each.reason, advice)


def not_following(host: str, facts: str) -> Check:
    """A host that is there and leaves everything as it is."""
    advice = f"restore the right journal; or, if this one is to be taken as it is: netctl journal adopt --host {host}"
    return Check("journal", host, BAD, facts, advice)


def underlay(hosts: Sequence[HostView], networks: Sequence[NetworkView]) -> Iterator[Check]:
    """Whether tunnels carry the packets that networks promise, the same on every host."""
    tunnelled = [network for network in networks if network.status.encap == "vxlan"]
    known = {host.name: host.spec for host in hosts if host.spec.vtep is not None and host.spec.underlay_mtu_bytes}
    sizes = {name: spec.underlay_mtu_bytes for name, spec in known.items()}
    if len(set(sizes.values())) > 1:
        largest = max(sizes.values())
        for name, size in sorted(sizes.items()):
            if size < largest:
                advice = f"on {name}: ip link set DEVICE mtu {largest}, there and on the switch that it is plugged into"
                yield Check("mtu", name, POOR, f"the underlay carries {size} bytes here, {largest} elsewhere", advice)
    for network in tunnelled:
        for name, spec in sorted(known.items()):
            room = spec.underlay_mtu_bytes - TUNNEL_BYTES[spec.vtep.version if spec.vtep is not None else 4]
            if network.status.mtu_bytes > room:
                facts = f"its MTU is {network.status.mtu_bytes}, tunnels of {name} carry {room}"
                advice = f"raise the underlay's MTU on {name} by {network.status.mtu_bytes - room}"
                yield Check("mtu", f"{network.tenant}/{network.name}", BAD, facts, advice)
    if tunnelled and len(hosts) > 1:
        for host in hosts:
            if host.spec.vtep is None:
                facts = f"no VTEP, and there are {len(tunnelled)} VXLAN network(s)"
                advice = f"restart netplugin on {host.name} with --vtep ADDRESS, else they end at this host"
                yield Check("vtep", host.name, POOR, facts, advice)
    if sizes and len(set(sizes.values())) == 1:
        yield Check("mtu", "underlay", OK, f"{next(iter(sizes.values()))} bytes on {len(sizes)} host(s)")


def disk(directory: str, free_bytes: int, total_bytes: int) -> Check:
    """Whether the journal has room to grow."""
    share = free_bytes / total_bytes if total_bytes else 0.0
    facts = f"{free_bytes / 1e9:.1f} GB free of {total_bytes / 1e9:.1f} GB ({share:.0%})"
    if free_bytes >= DISK_ENOUGH_BYTES or share >= DISK_POOR:
        return Check("disk", directory, OK, facts)
    advice = "make space: commands are refused with journal-full when there is none, and go on by themselves after that"
    return Check("disk", directory, BAD if share < DISK_BAD else POOR, facts, advice)


def namespaces(named: Mapping[str, bool], endpoints: Sequence[EndpointView], host: str) -> Iterator[Check]:
    """Names in /run/netns that are not mounted any more, and endpoints bound to a name that is not there.

    `named`: whether each name is a namespace.
    """
    empty = sorted(name for name, is_mounted in named.items() if not is_mounted)
    if empty:
        said = ", ".join(empty[:NAMED_SHOWN_MAX]) + (" ..." if len(empty) > NAMED_SHOWN_MAX else "")
        yield Check("netns", said, POOR, f"{len(empty)} name(s) without a namespace", "ip netns delete NAME")
    for view in endpoints:
        container = view.status.container
        if view.status.host == host and container.startswith("netns:") and container[6:] not in named:
            name = f"{view.tenant}/{view.network}/{view.name}"
            advice = f"make the namespace, or `netctl -t {view.tenant} endpoint detach {view.name}`"
            yield Check("netns", name, POOR, f"bound to {container}, which is not there", advice)


def strangers(host: str, ports: Sequence[PortView]) -> Iterator[Check]:
    """Ports of a host that nothing known asks for, and ports that lack a part."""
    unknown = [port for port in ports if port.state == "unknown"]
    if unknown:
        devices = ", ".join(port.device for port in unknown[:NAMED_SHOWN_MAX])
        advice = "they are kept while the journal is in doubt; see what is said of the journal"
        yield Check("ports", host, POOR, f"{len(unknown)} that no endpoint asks for: {devices}", advice)
    for port in ports:
        if port.state == "failed":
            name = f"{port.tenant}/{port.network}/{port.name}"
            yield Check("port", name, BAD, f"on {host}: {port.reason}", _remedy(port.reason))


def _remedy(reason: str) -> str:
    """What to do about a port's code."""
    return {
        "container-gone": "start the container; its port is made by itself",
        "container-not-found": "give a container that is there: `netctl endpoint detach`, then attach",
        "container-uses-host-network": "start the container with a network of its own: this one is the host's",
        "interface-limit": "the container has too many interfaces: detach one",
        "device-missing": "look for who removed the link: it is made again by itself",
        "vtep-missing": "give the host the address of --vtep back: ip address add",
    }.get(reason.partition(":")[0], "look at the log of its host actor: it goes on trying")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isascii() and part.isdigit())
