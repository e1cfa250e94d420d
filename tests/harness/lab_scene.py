"""Endpoints on a lab, and packets between them, for tests that break something meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .lab import Host, Lab, running_lab, until
from .netns import NetworkNamespace
from .traffic import Pinging, Streaming

SUBNET = "10.7.0.0/24"
ADDRESSES = {"far": "10.7.0.1", "near": "10.7.0.2", "next": "10.7.0.3"}
PLACES = {"far": "h1", "near": "h4", "next": "h4"}  # h4 has no nats-server


class Scene:
    """Four hosts, three nats-servers; one VXLAN network with `far` on h1, `near` and `next` on h4."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.ends: dict[str, NetworkNamespace] = {}
        lab["h2"].type(f"netctl network create web --encap vxlan --subnet {SUBNET}")
        for name, host in PLACES.items():
            self.ends[name] = self.attach(name, lab[host])

    def attach(self, name: str, host: Host, network: str = "web") -> NetworkNamespace:
        """A new container on `host`, with an endpoint of the same name."""
        made = host.make_container(name)
        address = f"--address {ADDRESSES[name]}" if name in ADDRESSES else ""
        host.type(f"netctl endpoint create {name} --network {network} {address} --container netns:{name}")
        return made

    def detach(self, name: str, host: Host) -> None:
        """The endpoint and its container are gone."""
        host.type(f"netctl endpoint delete {name}")
        host.remove_container(name)

    @contextmanager
    def traffic(self, source: str = "far", sink: str = "near") -> Iterator[tuple[Pinging, Streaming]]:
        """A ping and a stream between two endpoints while the block runs."""
        address = ADDRESSES[sink]
        with (
            Pinging(self.ends[source], address) as pings,
            Streaming(self.ends[source], self.ends[sink], address) as stream,
        ):
            yield pings, stream

    def pinging(self, source: str, sink: str) -> Pinging:
        """A ping between two endpoints, from `with` to the end of the block."""
        return Pinging(self.ends[source], ADDRESSES[sink])

    def until_forwarding(self) -> None:
        """Returns when every endpoint is answered by every other."""
        for source in self.ends:
            for address in ADDRESSES.values():
                self.until_answered(source, address)

    def until_answered(self, source: str, address: str) -> None:
        """Returns when a ping from `source` to `address` is answered."""

        def is_answered() -> bool:
            return self.ends[source].run("busybox", "ping", "-c", "1", "-W", "2", address, check=False).returncode == 0

        until(is_answered, f"{source} reaches {address}")

    def everything(self) -> dict[str, Any]:
        """All that the cluster says it has, and what every switch has."""
        first = self.lab["h1"]
        return {
            **{noun: first.show(f"{noun} list -A") for noun in ("network", "endpoint")},
            "ports": {host.name: host.show(f"host ports {host.name}") for host in self.lab.hosts},
            "flows": {host.name: host.flows() for host in self.lab.hosts},
        }


@contextmanager
def scene() -> Iterator[Scene]:
    """A scene on a lab of its own, gone after the context."""
    with running_lab("--hosts", "4", "--nats", "3") as lab:
        made = Scene(lab)
        made.until_forwarding()
        yield made
