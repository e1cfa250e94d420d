"""The intents of 2015, as `netdcli -cfg` and its sisters take them: JSON, whatever the case of its keys.

    {"Hosts": [...], "Tenants": [{"Name", "DefaultNetType", "SubnetPool", "AllocSubnetLen", "Vlans", "Vxlans",
     "Networks": [{"Name", "PktTagType", "PktTag", "SubnetCIDR", "DefaultGw",
      "Endpoints": [{"Container", "Host", "IpAddress", "AttachUUID"}]}]}], "HostBindings": [{"Container", "Host"}]}

The older form has no `Tenants`: what stands at the top is the one tenant. Endpoints are called `<network>-<container>`.
An endpoint without a container is a host's own interface; those are uplinks here, and are only spoken of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_network
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from messages.addresses import decode_address
from messages.endpoint import CreateEndpoint
from messages.names import check_container, check_token
from messages.network import CreateNetwork
from messages.struct import Command
from messages.tenant import CreateTenant

from .exits import USAGE, Ended
from .intent import Intent, WantedEndpoint, WantedNetwork, WantedTenant
from .intent_reader import Fault, faulty, suggestion
from .intent_source import Document

_TENANT = ("Name", "DefaultNetType", "SubnetPool", "AllocSubnetLen", "Vlans", "Vxlans", "Networks")
_NETWORK = ("Name", "PktTagType", "PktTag", "SubnetCIDR", "DefaultGw", "Gateway", "Endpoints")
_ENDPOINT = ("Container", "Host", "IpAddress", "AttachUUID", "Intf")
_HOST = ("Name", "Intf", "VtepIp", "NetId")
_TOP = ("Tenants", "Hosts", "InfraNetworks", "HostBindings")
_AUTO = ("", "auto")
CommandT = TypeVar("CommandT", bound=Command)


class Binding(NamedTuple):
    """Where the container of an endpoint is; `attach`: what to attach, when that is called otherwise."""

    container: str
    host: str
    attach: str


class Legacy(msgspec.Struct, frozen=True):
    """What such a file says. `bindings`: of containers whose endpoints it does not say. `notes`: what of it means
    nothing here, and what to do instead. `vteps`: what it says of hosts, which say it of themselves.
    """

    intent: Intent
    bindings: tuple[Binding, ...]
    notes: tuple[str, ...]
    vteps: dict[str, str]


def read_legacy(documents: Sequence[Document], tenant: str) -> Legacy:
    """What the documents say; `tenant` is that of the older form without a name. Raises: Ended, with all faults."""
    reader = _Reader(tenant)
    for document in documents:
        reader.read(document)
    if reader.faults:
        raise faulty(reader.faults)
    if not documents:
        raise Ended(USAGE, "the file says nothing: expected Tenants, or HostBindings")
    intent = Intent(reader.tenants, tuple(reader.hosts))
    return Legacy(intent, tuple(_others(reader.bindings, intent)), tuple(reader.notes), reader.vteps)


def _others(bindings: Sequence[Binding], intent: Intent) -> Iterator[Binding]:
    """The bindings that are of no endpoint of the intent; its own endpoints then have theirs."""
    networks = [network for tenant in intent.tenants.values() for network in tenant.networks.values()]
    for binding in bindings:
        is_own = False
        for network in networks:
            name = f"{network.command.network}-{binding.container}"
            if (endpoint := network.endpoints.get(name)) is not None:
                network.endpoints[name] = replace(endpoint, container=binding.attach, host=binding.host)
                is_own = True
        if not is_own:
            yield binding


class _Reader:
    def __init__(self, tenant: str) -> None:
        self.tenants: dict[str, WantedTenant] = {}
        self.hosts: dict[str, None] = {}
        self.bindings: list[Binding] = []
        self.notes: list[str] = []
        self.vteps: dict[str, str] = {}
        self.faults: list[Fault] = []
        self._own_tenant = tenant
        self._where = ""

    def read(self, document: Document) -> None:
        """All that one document says."""
        self._where = str(document)
        content = document.content
        if isinstance(content, list):  # of bindings
            self._bindings(content, "")
            return
        is_older = isinstance(content, dict) and "tenants" not in map(str.lower, content)
        top = self._fields(content, "", (*_TOP, *_TENANT) if is_older else _TOP)
        for position, said in enumerate(self._list(top, "Hosts", "")):
            host = self._fields(said, f"Hosts[{position}]", _HOST)
            if name := self._text(host, "Name", f"Hosts[{position}]"):
                self.hosts[name] = None
                if vtep := self._text(host, "VtepIp", f"Hosts[{position}]"):
                    self.vteps[name] = vtep
        for position, said in enumerate(self._list(top, "Tenants", "")):
            path = f"Tenants[{position}]"
            self._tenant(self._fields(said, path, _TENANT), path)
        if is_older and top.keys() & {*_TENANT}:
            self._tenant({"Name": self._own_tenant, **{key: top[key] for key in _TENANT if key in top}}, "")
        if self._list(top, "InfraNetworks", ""):
            self.notes.append("InfraNetworks are the hosts' own: give their interfaces to `netplugin --uplink`")
        self._bindings(self._list(top, "HostBindings", ""), "HostBindings")

    def _tenant(self, said: Mapping[str, Any], path: str) -> None:
        name = self._text(said, "Name", path)
        if name in self.tenants:
            self._fault(_at(path, "Name"), f"tenant {name} stands twice: expected it once")
            return
        fields = {
            "subnet_pool": _as_network(self._text(said, "SubnetPool", path)),
            "subnet_length": self._number(said, "AllocSubnetLen", path),
            "vlans": self._text(said, "Vlans", path) or None,
            "vnis": self._text(said, "Vxlans", path) or None,
        }
        command = self._command(CreateTenant, fields, path, tenant=name)
        default = self._encap(said, "DefaultNetType", path)
        if command is None:
            return
        tenant = self.tenants[name] = WantedTenant(command, _given(fields), self._where, {})
        for position, each in enumerate(self._list(said, "Networks", path)):
            inside = _at(path, f"Networks[{position}]")
            self._network(tenant, self._fields(each, inside, _NETWORK), default, inside)

    def _network(self, tenant: WantedTenant, said: Mapping[str, Any], default: str | None, path: str) -> None:
        name = self._text(said, "Name", path)
        listed = [
            (self._fields(each, _at(path, f"Endpoints[{position}]"), _ENDPOINT), _at(path, f"Endpoints[{position}]"))
            for position, each in enumerate(self._list(said, "Endpoints", path))
        ]
        if listed and all(not each.get("Container") for each, _ in listed):
            self._speak_of_interfaces(name, [each for each, _ in listed])
            return
        if name in tenant.networks:
            self._fault(_at(path, "Name"), f"network {name} stands twice: expected it once")
            return
        subnet = _as_network(self._text(said, "SubnetCIDR", path))
        gateways = [each for key in ("DefaultGw", "Gateway") if (each := self._text(said, key, path))]
        fields = {
            "encap": self._encap(said, "PktTagType", path) or default,
            "tag": self._number(said, "PktTag", path),
            "subnets": [subnet] if subnet else None,
            "gateways": gateways or None,
        }
        place = {"tenant": tenant.command.tenant, "network": name}
        command = self._command(CreateNetwork, fields, path, **place)
        if command is None:
            return
        network = tenant.networks[name] = WantedNetwork(command, _given(fields), self._where, {}, {})
        for described, inside in listed:
            self._endpoint(network, described, inside)

    def _endpoint(self, network: WantedNetwork, said: Mapping[str, Any], path: str) -> None:
        container = self._text(said, "Container", path)
        if not container:
            self._speak_of_interfaces(network.command.network, [said])
            return
        name = f"{network.command.network}-{container}"
        if name in network.endpoints:
            self._fault(
                path, f"container {container} stands twice in network {network.command.network}: once is enough"
            )
            return
        address, host = self._text(said, "IpAddress", path), self._text(said, "Host", path)
        attach = self._text(said, "AttachUUID", path) or container
        if not (self._is_right(_at(path, "Container"), check_container, attach) and self._is_host(host, path)):
            return
        fields = {"addresses": [address] if address not in _AUTO else None}
        place = {"tenant": network.command.tenant, "network": network.command.network, "name": name}
        command = self._command(CreateEndpoint, fields, path, **place)
        if command is not None:
            where = (attach, host) if host else (None, None)
            network.endpoints[name] = WantedEndpoint(command, _given(fields), self._where, *where)

    def _bindings(self, listed: Sequence[Any], path: str) -> None:
        for position, said in enumerate(listed):
            inside = f"{path}[{position}]"
            fields = self._fields(said, inside, _ENDPOINT)
            container, host = self._text(fields, "Container", inside), self._text(fields, "Host", inside)
            if not container or not host:
                self._fault(inside, "a binding needs a Container and its Host")
                continue
            attach = self._text(fields, "AttachUUID", inside) or container
            if self._is_right(_at(inside, "Container"), check_container, attach) and self._is_host(host, inside):
                self.bindings.append(Binding(container, host, attach))

    def _speak_of_interfaces(self, network: str, said: Sequence[Mapping[str, Any]]) -> None:
        for each in said:
            interface, host = each.get("Intf") or "an interface", each.get("Host") or "a host"
            self.notes.append(
                f"network {network}: {interface} of {host} is no container's: give it to `netplugin --uplink` there"
            )

    # how it is written

    def _fields(self, said: Any, path: str, known: Sequence[str]) -> dict[str, Any]:
        """The keys of a map as they are spelt here, whatever their case."""
        if not isinstance(said, dict):
            self._fault(path, f"expected a map with {', '.join(known)}")
            return {}
        spelt = {name.lower(): name for name in known}
        fields: dict[str, Any] = {}
        for key, value in said.items():
            name = spelt.get(str(key).lower())
            if name is None:
                self._fault(_at(path, str(key)), f"key {key!r} is not known: {suggestion(str(key), known)}")
            elif name in fields:
                self._fault(_at(path, str(key)), f"key {name} stands twice: expected it once")
            else:
                fields[name] = value
        return fields

    def _list(self, fields: Mapping[str, Any], key: str, path: str) -> list[Any]:
        found = fields.get(key)
        if found is None or isinstance(found, list):
            return found or []
        self._fault(_at(path, key), "expected a list")
        return []

    def _text(self, fields: Mapping[str, Any], key: str, path: str) -> str:
        found = fields.get(key)
        if found is None:
            return ""
        if not isinstance(found, str):
            self._fault(_at(path, key), f"expected text, found {found!r}")
            return ""
        return found.strip()

    def _number(self, fields: Mapping[str, Any], key: str, path: str) -> int | None:
        """A number, or its digits as text; none for `auto`, for nothing, and for 0, which is no tag."""
        found = fields.get(key)
        if isinstance(found, str):
            text = found.strip()
            if text.lower() in _AUTO:
                return None
            found = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else found
        if found is not None and (not isinstance(found, int) or isinstance(found, bool)):
            self._fault(_at(path, key), f"expected a number, found {found!r}")
            return None
        return found or None

    def _encap(self, fields: Mapping[str, Any], key: str, path: str) -> str | None:
        found = self._text(fields, key, path).lower()
        if found not in ("", "vlan", "vxlan"):
            self._fault(_at(path, key), f"expected vlan or vxlan, found {found!r}")
            return None
        return found or None

    def _command(self, kind: type[CommandT], fields: Mapping[str, Any], path: str, **place: str) -> CommandT | None:
        said = {key: value for key, value in fields.items() if value is not None}
        try:
            return msgspec.convert({**place, **said}, kind, dec_hook=decode_address)
        except msgspec.ValidationError as fault:
            self._fault(path, str(fault).partition(" - at `$")[0])
            return None

    def _is_host(self, host: str, path: str) -> bool:
        return not host or self._is_right(_at(path, "Host"), lambda name: check_token("host name", name), host)

    def _is_right(self, path: str, check: Any, value: str) -> bool:
        try:
            check(value)
        except ValueError as fault:
            self._fault(path, str(fault))
            return False
        return True

    def _fault(self, path: str, text: str) -> None:
        self.faults.append(Fault(self._where, path, text))


def _given(fields: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(key for key, value in fields.items() if value is not None)


def _as_network(text: str) -> str | None:
    """A subnet without the host bits that such files may have; what is no subnet is left for its fault."""
    try:
        return str(ip_network(text, strict=False)) if text else None
    except ValueError:
        return text


def _at(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
