"""From what is wanted and what is there to what is to be done: pure, and in an order in which every step is valid.

    unbind and remove what goes -> tenants, networks, endpoints as the files have them

What a file leaves out agrees with whatever is there. What cannot be changed in place is a conflict: nothing is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from messages import codec
from messages.addresses import Address
from messages.endpoint import (
    AttachEndpoint,
    CreateEndpoint,
    DeleteEndpoint,
    EndpointView,
)
from messages.intent import Change
from messages.names import DEFAULT_TENANT
from messages.network import CreateNetwork, DeleteNetwork, NetworkView, SetNetwork
from messages.pool import CreatePool, DeletePool, PoolView
from messages.ranges import VNIS, parse_ranges
from messages.struct import Command
from messages.tenant import CreateTenant, SetTenant, TenantView

from .intent import NAMED_BY_PLACE, Intent, WantedEndpoint, WantedNetwork, WantedTenant

AnyWanted = TenantView | NetworkView | PoolView | EndpointView
ADD, CHANGE, REMOVE = "+", "~", "-"


class Having(msgspec.Struct, frozen=True):
    """What is there of the tenants that an intent names. Networks by tenant and name; endpoints and pools by these, and
    their names. `hosts`: the members, each with its VTEP.
    """

    tenants: Mapping[str, TenantView]
    networks: Mapping[tuple[str, str], NetworkView]
    endpoints: Mapping[tuple[str, str], Mapping[str, EndpointView]]
    pools: Mapping[tuple[str, str], Mapping[str, PoolView]]
    hosts: Mapping[str, Address | None]


class Step(msgspec.Struct, frozen=True):
    """One line of a plan: what is done to what, in words, and the changes that do it.

    `early`: those that come before anything is made, so that what they free can be had.
    """

    sign: str
    construct: str
    tenant: str
    path: str
    words: str
    late: tuple[Change, ...] = ()
    early: tuple[Change, ...] = ()

    def __str__(self) -> str:
        return f"{self.sign} {self.construct} {self.path}{': ' if self.words else ''}{self.words}"


class Plan(msgspec.Struct):
    """Steps in their order; what stands in the way of them; what is worth knowing."""

    steps: list[Step] = msgspec.field(default_factory=list)
    conflicts: list[str] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)

    def count(self, sign: str) -> int:
        """How many steps have this sign."""
        return sum(step.sign == sign for step in self.steps)

    def summary(self) -> str:
        """How many there are of each kind, in words."""
        return f"{self.count(ADD)} to add, {self.count(CHANGE)} to change, {self.count(REMOVE)} to remove"


def plan(intent: Intent, having: Having, *, is_pruning: bool = False) -> Plan:
    """What makes `having` what is wanted; with `is_pruning`, what the named tenants have beside it goes."""
    planner = _Planner(having)
    for host in intent.hosts:
        if host not in having.hosts:
            planner.plan.notes.append(f"host {host} is not a member yet: start `netplugin` on it")
    if is_pruning:
        for tenant in intent.tenants.values():
            planner.prune(tenant)
    for tenant in intent.tenants.values():
        planner.tenant(tenant)
    return planner.plan


class _Planner:
    def __init__(self, having: Having) -> None:
        self.plan = Plan()
        self._having = having

    def prune(self, wanted: WantedTenant) -> None:
        """What the tenant has and the files do not say goes."""
        name = wanted.command.tenant
        for (tenant, network), view in self._having.networks.items():
            if tenant != name:
                continue
            kept = wanted.networks.get(network)
            for endpoint, found in self._having.endpoints.get((tenant, network), {}).items():
                if kept is None or endpoint not in kept.endpoints:
                    self.plan.steps.append(removal_of_endpoint(found))
            if kept is None:
                self.plan.steps.append(removal_of_network(view))
                continue
            for pool, there in self._having.pools.get((tenant, network), {}).items():
                if pool not in kept.pools:
                    self.plan.steps.append(removal_of_pool(there))

    def tenant(self, wanted: WantedTenant) -> None:
        """The tenant is there, with its networks."""
        command = wanted.command
        found = self._having.tenants.get(command.tenant)
        is_used = found is not None and (found.status.seq > 0 or command.tenant != DEFAULT_TENANT)
        differing = _differing(command, wanted.given, found) if found is not None else {}
        if found is None or (differing and not is_used):
            self._add("tenant", command.tenant, (command.tenant,), _words(command, wanted.given), command)
        elif differing:
            self._set("tenant", command.tenant, command, differing)
        for network in wanted.networks.values():
            self.network(network)

    def network(self, wanted: WantedNetwork) -> None:
        """The network is there, with its endpoints."""
        command = wanted.command
        place = (command.tenant, command.network)
        found = self._having.networks.get(place)
        if found is None:
            self._add("network", command.tenant, place, _words(command, wanted.given) or "all is chosen", command)
        elif differing := _differing(command, wanted.given, found):
            self._set("network", "/".join(place), command, differing)
        pools = self._having.pools.get(place, {})
        for pool in wanted.pools.values():
            self.pool(pool, pools.get(pool.name))
        there = self._having.endpoints.get(place, {})
        for name, endpoint in wanted.endpoints.items():
            self.endpoint(endpoint, there.get(name))

    def pool(self, wanted: CreatePool, found: PoolView | None) -> None:
        """The pool is there."""
        path = (wanted.tenant, wanted.network, wanted.name)
        if found is None:
            self._add("pool", wanted.tenant, path, _words(wanted, frozenset({"ranges"})), wanted)
        elif differing := _differing(wanted, frozenset({"ranges"}), found):
            self._conflict(f"pool {'/'.join(path)}", list(differing.values()))

    def _set(self, what: str, path: str, command: CreateTenant | CreateNetwork, differing: Mapping[str, str]) -> None:
        """What can be changed of a tenant or a network is changed; the rest stands in the way."""
        kind = SetTenant if isinstance(command, CreateTenant) else SetNetwork
        fixed = [words for field, words in differing.items() if field not in kind.__struct_fields__]
        if fixed:
            self._conflict(f"{what} {path}", fixed)
            return
        place = {key: getattr(command, key) for key in ("tenant", "network") if key in kind.__struct_fields__}
        change = kind(**place, **{field: getattr(command, field) for field in differing})
        self.plan.steps.append(Step(CHANGE, what, command.tenant, path, ", ".join(differing.values()), (change,)))

    def endpoint(self, wanted: WantedEndpoint, found: EndpointView | None) -> None:
        """The endpoint is there, and where it is said to be."""
        command = wanted.command
        path = (command.tenant, command.network, command.name)
        host = self._host_for(wanted, found)
        if wanted.container is not None and host is None:
            return
        placed = replace(command, container=wanted.container, host=host) if wanted.container is not None else command
        if found is None:
            self._add("endpoint", command.tenant, path, _words_of_endpoint(placed, wanted.given), placed)
        elif differing := _differing(command, wanted.given, found):
            self._anew(placed, found, list(differing.values()))
        elif wanted.container is not None and host is not None:
            self._move(wanted, found, host)

    def _host_for(self, wanted: WantedEndpoint, found: EndpointView | None) -> str | None:
        """The host of the container: as said, as it is, or the only one. None is a conflict, or no container."""
        if wanted.container is None:
            return None
        where = f"endpoint {_path_of(wanted.command)}"
        members = sorted(self._having.hosts)
        host = wanted.host
        if host is None and found is not None and found.status.container == wanted.container:
            return found.status.host
        if host is None and len(members) == 1:
            return members[0]
        known = ", ".join(members) or "none yet"
        if host is None:
            self.plan.conflicts.append(
                f"{where}: the host of container {wanted.container} is not said: expected one of {known}"
            )
        elif host not in self._having.hosts and (found is None or found.status.host != host):
            self.plan.conflicts.append(f"{where}: host {host} is not a member: expected one of {known}")
            return None
        return host

    def _move(self, wanted: WantedEndpoint, found: EndpointView, host: str) -> None:
        status = found.status
        if (status.container, status.host) == (wanted.container, host):
            return
        command = wanted.command
        attach = AttachEndpoint(
            tenant=command.tenant,
            network=command.network,
            name=command.name,
            container=wanted.container or "",
            host=host,
            move=bool(status.container),
        )
        before = f"{status.container} on {status.host}" if status.container else "not attached"
        words = f"{before} -> {wanted.container} on {host}"
        self.plan.steps.append(Step(CHANGE, "endpoint", command.tenant, _path_of(command), words, (attach,)))

    def _anew(self, placed: CreateEndpoint, found: EndpointView, differing: Sequence[str]) -> None:
        """What cannot be changed of an endpoint is made anew under its name, where it is if nothing else is said."""
        status = found.status
        if placed.container is None and status.container:
            placed = replace(placed, container=status.container, host=status.host)
        delete = DeleteEndpoint(tenant=placed.tenant, network=placed.network, name=placed.name)
        path = _path_of(placed)
        words = f"{', '.join(differing)} (made anew)"
        self.plan.steps.append(Step(CHANGE, "endpoint", placed.tenant, path, words, (placed,), (delete,)))

    def _add(self, construct: str, tenant: str, path: Sequence[str], words: str, change: Change) -> None:
        self.plan.steps.append(Step(ADD, construct, tenant, "/".join(path), words, (change,)))

    def _conflict(self, what: str, differing: Sequence[str]) -> None:
        self.plan.conflicts.append(
            f"{what}: {', '.join(differing)}: it cannot be changed while it is there; delete it first, or say what is"
        )


def removal_of_endpoint(view: EndpointView) -> Step:
    """The step that removes an endpoint."""
    addresses = ", ".join(str(each) for each in view.status.addresses)
    place = f", {view.status.container} on {view.status.host}" if view.status.container else ""
    path = f"{view.tenant}/{view.network}/{view.name}"
    delete = DeleteEndpoint(tenant=view.tenant, network=view.network, name=view.name)
    return Step(REMOVE, "endpoint", view.tenant, path, addresses + place, (), (delete,))


def removal_of_pool(view: PoolView) -> Step:
    """The step that removes a pool, once its endpoints are removed."""
    words = ", ".join(map(str, view.spec.ranges))
    delete = DeletePool(tenant=view.tenant, network=view.network, name=view.name)
    return Step(REMOVE, "pool", view.tenant, f"{view.tenant}/{view.network}/{view.name}", words, (), (delete,))


def removal_of_network(view: NetworkView) -> Step:
    """The step that removes a network, once its endpoints are removed."""
    words = f"{view.status.encap} {view.status.tag}, {', '.join(map(str, view.status.subnets)) or 'no subnet'}"
    delete = DeleteNetwork(tenant=view.tenant, network=view.network)
    return Step(REMOVE, "network", view.tenant, f"{view.tenant}/{view.network}", words, (), (delete,))


def _differing(command: Command, given: frozenset[str], found: AnyWanted) -> dict[str, str]:
    """What the file says otherwise than it is, in words by field: `tag 5 -> 7`."""
    asked = codec.to_builtins(command)
    spec, status = codec.to_builtins(found.spec), codec.to_builtins(found.status)
    return {
        field: f"{_noun(field)} {_text(_is(field, spec, status))} -> {_text(asked[field])}"
        for field in command.__struct_fields__
        if field in given and not _agrees(field, asked[field], spec, status)
    }


def _is(field: str, spec: Mapping[str, Any], status: Mapping[str, Any]) -> Any:
    """What stands for a field of a command in what is there."""
    found = status[field] if field in status else spec.get(field)
    return [each.partition("/")[0] for each in found or ()] if field == "addresses" else found


def _agrees(field: str, asked: Any, spec: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """What is asked for is so already."""
    found = _is(field, spec, status)
    if field == "subnets":
        if isinstance(asked, str):
            return bool(found) if asked == "auto" else not spec["subnets"]
        return set(asked) in (set(found), set(spec["subnets"]))
    if field == "addresses":
        return set(asked) <= set(found)
    if field in ("vlans", "vnis"):
        return _same_ranges(asked, found)
    if isinstance(asked, (list, tuple)):
        return sorted(map(str, asked)) == sorted(map(str, found or ()))
    return bool(asked == found)


def _same_ranges(asked: str, found: str) -> bool:
    return parse_ranges(asked, "tags", VNIS) == (parse_ranges(found, "tags", VNIS) if found else ())


def _words(command: Command, given: frozenset[str]) -> str:
    """What is asked for, as it is said: `subnet 10.1.1.0/24, tag 5`."""
    asked = codec.to_builtins(command)
    return ", ".join(f"{_noun(field)} {_text(asked[field])}" for field in _fields(command) if field in given)


def _words_of_endpoint(command: CreateEndpoint, given: frozenset[str]) -> str:
    place = f"{command.container} on {command.host}" if command.container is not None else ""
    return ", ".join(filter(None, (_words(command, given), place)))


def _path_of(command: CreateEndpoint) -> str:
    return f"{command.tenant}/{command.network}/{command.name}"


def _fields(command: Command) -> Iterator[str]:
    return (field for field in command.__struct_fields__ if field not in NAMED_BY_PLACE)


def _noun(field: str) -> str:
    return {"subnets": "subnet", "gateways": "gateway", "addresses": "address", "ranges": "range"}.get(
        field, field.replace("_", " ")
    )


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "none"
    return "none" if value in (None, "") else str(value)
