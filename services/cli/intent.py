"""What a file of intents says, as commands: tenants, their networks, their endpoints, and what was left out of each.

    tenants:
      acme:
        subnet_pool: 10.1.0.0/16
        networks:
          web: 10.1.1.0/24                      # its subnet; or a map of what `network create` takes
          db:
            encap: vxlan
            subnet: 10.1.2.10-10.1.2.99/24        # of which these are given out
            pools: {vip: 10.1.2.200-10.1.2.250}   # and these to endpoints that say `pool: vip`
            endpoints:
              db1: c1@h1                        # its container and host; or a map; or nothing
              "db[2-9]": {host: h2, container: "c[2-9]"}
    networks: {...}                             # of the tenant -t, else `default`
    hosts: [h1, h2]                             # that must be members

The keys are the fields of the commands in `messages/`; `subnet`, `gateway` and `address` are one of each.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from messages.endpoint import CreateEndpoint
from messages.network import CreateNetwork
from messages.pool import CreatePool
from messages.struct import Command
from messages.tenant import CreateTenant

SHORT = {"subnet": "subnets", "gateway": "gateways", "address": "addresses"}
INSIDE: dict[type[Command], tuple[str, ...]] = {CreateTenant: ("networks",), CreateNetwork: ("pools", "endpoints")}
NAMED_BY_PLACE = frozenset({"tenant", "network", "name"})  # what the place in the file says


def keys_of(kind: type[Command]) -> tuple[str, ...]:
    """The keys that a tenant, a network or an endpoint may have in a file, in the order of the command's fields."""
    own = [field for field in kind.__struct_fields__ if field not in NAMED_BY_PLACE]
    short = [one for one, many in SHORT.items() if many in own]
    return (*own, *short, *INSIDE.get(kind, ()))


def lists_of(kind: type[Command]) -> frozenset[str]:
    """The fields of a command that are lists: in a file, one value stands for a list of one."""
    return frozenset(name for name, said in kind.__annotations__.items() if str(said).startswith("tuple["))


class WantedEndpoint(msgspec.Struct, frozen=True):
    """An endpoint that is to be; `given`: the fields that the file says. Its container may come without its host."""

    command: CreateEndpoint
    given: frozenset[str]
    where: str
    container: str | None = None
    host: str | None = None


class WantedNetwork(msgspec.Struct, frozen=True):
    """A network that is to be, with its pools and endpoints by name in the file's order."""

    command: CreateNetwork
    given: frozenset[str]
    where: str
    endpoints: dict[str, WantedEndpoint]
    pools: dict[str, CreatePool]


class WantedTenant(msgspec.Struct):
    """A tenant that is to be, with its networks by name in the file's order. It may be said in several documents."""

    command: CreateTenant
    given: frozenset[str]
    where: str
    networks: dict[str, WantedNetwork]


class Intent(msgspec.Struct, frozen=True):
    """All that was read. `hosts`: those named as members."""

    tenants: dict[str, WantedTenant]
    hosts: tuple[str, ...] = ()

    def endpoints(self) -> Iterator[WantedEndpoint]:
        """Every endpoint, in the file's order."""
        for tenant in self.tenants.values():
            for network in tenant.networks.values():
                yield from network.endpoints.values()
