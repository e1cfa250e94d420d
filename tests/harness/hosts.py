"""Hosts on one underlay: each a network namespace with its own Open vSwitch, the VTEP address on its `br-phy`."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, TypeVar

from services.runtime.uplinks import Uplink

from .daemon import wait_for_end
from .netns import NetworkNamespace, network_namespace, run
from .openvswitch import RunningSwitch, running_switch

UNDERLAY_MTU = 1600
BRIDGE = "ubr"
VLAN_BRIDGE = "vbr"  # between the hosts' second links
UNDERLAY = "underlay"  # the namespace of its bridge
T = TypeVar("T")


class RunningHost:
    """One host: `namespace` is where its switch is, `vtep` its address on the underlay."""

    def __init__(self, name: str, number: int, switch: RunningSwitch, *, is_ipv6: bool) -> None:
        assert switch.namespace is not None
        self.name = name
        self.switch = switch
        self.namespace: NetworkNamespace = switch.namespace
        self.vtep: IPv4Address | IPv6Address = ip_address(f"fd30::{number}" if is_ipv6 else f"172.30.0.{number}")
        self.vtep_mac = f"02:00:00:00:00:{number:02x}"

    def take_underlay(self, mtu_bytes: int) -> None:
        """The host's link to the underlay is a port of `br-phy`, which has the VTEP address."""
        bridge = ("add-br", "br-phy", "--", "set", "bridge", "br-phy", "datapath_type=netdev")
        port = ("--", "add-port", "br-phy", "eth0", "--", "set", "interface", "br-phy", f"mtu_request={mtu_bytes}")
        self.switch.run("ovs-vsctl", *bridge, f"other_config:hwaddr={self.vtep_mac}", *port)
        length = 24 if self.vtep.version == 4 else 64
        add = ("ip", "address", "add", f"{self.vtep}/{length}", "dev", "br-phy")
        self.namespace.run(*add, *(() if self.vtep.version == 4 else ("nodad",)))
        self.namespace.run("ip", "link", "set", "br-phy", "up")

    def take_uplink(self, uplink: Uplink) -> None:
        """The host's second link is an uplink, behind a bridge of its own."""
        bridge = ("add-br", uplink.bridge, "--", "set", "bridge", uplink.bridge, "datapath_type=netdev")
        patch = ("--", "set", "interface", uplink.outer_patch, "type=patch", f"options:peer={uplink.inner_patch}")
        ports = ("--", "add-port", uplink.bridge, uplink.interface, "--", "add-port", uplink.bridge, uplink.outer_patch)
        self.switch.run("ovs-vsctl", *bridge, *ports, *patch)

    def restart_switch(self) -> None:
        """ovs-vswitchd is killed, and started again once it is gone."""
        pid = self.switch.pid()
        os.kill(pid, signal.SIGKILL)
        wait_for_end(pid)
        self.switch.start()

    def known_neighbours(self) -> str:
        """What the switch knows of the underlay."""
        return self.switch.run("ovs-appctl", "tnl/neigh/show")


@contextmanager
def running_hosts(
    directory: Path, names: Sequence[str], *, mtu_bytes: int = UNDERLAY_MTU, is_ipv6: bool = False
) -> Iterator[list[RunningHost]]:
    """Hosts that have ended when the context has. At most 9, and one such group at a time in a network namespace."""
    with ExitStack() as stack:
        underlay = stack.enter_context(network_namespace(UNDERLAY))
        for bridge in (BRIDGE, VLAN_BRIDGE):
            underlay.run("ip", "link", "add", bridge, "type", "bridge")
            underlay.run("ip", "link", "set", bridge, "up", "mtu", str(mtu_bytes))
        hosts = []
        for number, name in enumerate(names, 1):
            namespace = stack.enter_context(network_namespace(name))
            _wire(underlay, BRIDGE, namespace, f"u{number}", "eth0", mtu_bytes)
            _wire(underlay, VLAN_BRIDGE, namespace, f"v{number}", "eth1", mtu_bytes)
            switch = stack.enter_context(running_switch(directory / name, namespace))
            host = RunningHost(name, number, switch, is_ipv6=is_ipv6)
            host.take_underlay(mtu_bytes)
            hosts.append(host)
        yield hosts


def _wire(
    underlay: NetworkNamespace, bridge: str, namespace: NetworkNamespace, port: str, link: str, mtu_bytes: int
) -> None:
    mtu = ("mtu", str(mtu_bytes))
    peer = ("peer", "name", link, "netns", namespace.name, *mtu)
    run("ip", "link", "add", port, "netns", underlay.name, *mtu, "type", "veth", *peer)
    underlay.run("ip", "link", "set", port, "master", bridge, "up")
    namespace.run("ip", "link", "set", link, "up")


class HostLoop:
    """An event loop in a thread of its own, inside a host's network namespace: what runs there is on that host."""

    def __init__(self, namespace: NetworkNamespace) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=lambda: namespace.call(self._loop.run_forever), daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine, run there."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=60)

    def close(self) -> None:
        """The loop has ended."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
