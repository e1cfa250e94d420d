"""What is beyond a host's network card: a switch, with machines on access ports, each in one VLAN or in none.

The kernel may know nothing of 802.1Q, so the switch outside is one more bridge of the Open vSwitch at hand, joined to
the card by a veth pair: `card` is what the host has, its other end is a port of the switch.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Self

from .netns import NetworkNamespace
from .openvswitch import RunningSwitch

SWITCH = "outside"


class Outside:
    """The wire that leads from `card`, the machines on it, and the card itself as the kernel's."""

    def __init__(
        self,
        switch: RunningSwitch,
        make_namespace: Callable[[str], NetworkNamespace],
        card: str = "eth9",
        *inside: NetworkNamespace,
    ) -> None:
        """The card is here, or in each of the namespaces `inside`, hosts on one wire."""
        self.card = card
        self._switch = switch
        self._make_namespace = make_namespace
        self._links: list[str] = []
        switch.run("ovs-vsctl", "--may-exist", "add-br", SWITCH, "--", "set", "bridge", SWITCH, "datapath_type=netdev")
        for host in inside or (None,):
            self._plug_in(host)

    def _plug_in(self, host: NetworkNamespace | None) -> None:
        far = f"{host.name if host else self.card}-far"
        where = ("netns", host.name) if host else ()
        self._ip("link", "add", far, "type", "veth", "peer", "name", self.card, *where)
        self._links.append(far)
        self._ip("link", "set", far, "up")
        self._here("ethtool", "-K", far, "tx", "off")
        self._here(*(host.command() if host else ()), "ip", "link", "set", self.card, "up")
        self._switch.run("ovs-vsctl", "add-port", SWITCH, far)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for link in self._links:  # now, and not when the kernel comes round to it, if it has not yet
            subprocess.run(("ip", "link", "delete", link), check=False, capture_output=True)

    def machine(self, name: str, *addresses: str, tag: int | None = None, mac: str = "") -> NetworkNamespace:
        """A machine with these addresses (`10.0.0.9/16`) on its eth0, in a VLAN or in none."""
        namespace = self._make_namespace(name)
        peer = ("peer", "name", "eth0", "netns", name)
        self._ip("link", "add", f"far-{name}", "type", "veth", *peer, *(("address", mac) if mac else ()))
        self._links.append(f"far-{name}")
        self._ip("link", "set", f"far-{name}", "up")
        namespace.run("ethtool", "-K", "eth0", "tx", "off")
        for address in addresses:
            namespace.run("ip", "address", "add", address, "dev", "eth0", *(("nodad",) if ":" in address else ()))
        namespace.run("ip", "link", "set", "eth0", "up")
        access = (f"tag={tag}",) if tag else ("vlan_mode=native-untagged", "trunks=0")
        self._switch.run("ovs-vsctl", "add-port", SWITCH, f"far-{name}", *access)
        return namespace

    def pull(self, link: str, *, back: bool = False) -> None:
        """The cable is out, or in again."""
        self._ip("link", "set", link, "up" if back else "down")

    def bridge(self, name: str, patch: str, peer: str) -> None:
        """The card is in a bridge that switches as any does, with a patch port to `peer`."""
        words = ("add-br", name, "--", "set", "bridge", name, "datapath_type=netdev")
        port = ("add-port", name, patch, "--", "set", "interface", patch, "type=patch", f"options:peer={peer}")
        self._switch.run("ovs-vsctl", *words, "--", "add-port", name, self.card, "--", *port)

    def _ip(self, *arguments: str) -> None:
        self._here("ip", *arguments)

    def _here(self, *arguments: str) -> None:
        subprocess.run(arguments, check=True, capture_output=True)


def pings(machine: NetworkNamespace, address: str) -> bool:
    """Whether the very first echo request of a machine is answered within a second."""
    return machine.run("busybox", "ping", "-c", "1", "-W", "1", address, check=False).returncode == 0


def reaches(machine: NetworkNamespace, address: str, tries: int = 30) -> bool:
    """Whether one of so many echo requests is answered, each given a second: what changes takes a moment to be seen."""
    return any(pings(machine, address) for _ in range(tries))
