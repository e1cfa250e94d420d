"""Documents to an `Intent`, or every fault in them: file, document, the path inside, what was expected."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from messages.addresses import decode_address, parse_subnet
from messages.endpoint import CreateEndpoint
from messages.names import DEFAULT_TENANT, check_container, check_tenant, check_token
from messages.network import CreateNetwork
from messages.pool import CreatePool
from messages.struct import Command
from messages.tenant import CreateTenant

from .exits import USAGE, Ended
from .intent import SHORT, Intent, WantedEndpoint, WantedNetwork, WantedTenant, keys_of, lists_of
from .intent_source import Document

TOP_KEYS = ("tenants", "networks", "hosts")
ENDPOINTS_MAX = 100_000  # of one range
FAULTS_SHOWN_MAX = 20
_RANGE = re.compile(r"\[(\d+)-(\d+)\]")
_AT = re.compile(r" - at `\$\.?(.*)`\Z")
_EXPECTED = re.compile(r"Expected `(.+?)`, got `(.+?)`")
_PLAIN = re.compile(r"[A-Za-z0-9_:-]+\Z")
_TEXT_KEYS = frozenset({"vlans", "vnis", "container", "host"})  # where a bare number is meant as text
_WORDS = {"subnets": ("auto", "none")}  # what stands instead of a list
CommandT = TypeVar("CommandT", bound=Command)


class Fault(NamedTuple):
    """Something in a file that cannot be meant."""

    where: str
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.path + ': ' if self.path else ''}{self.text}"


def read_intent(documents: Sequence[Document], tenant: str = DEFAULT_TENANT) -> Intent:
    """What the documents say together; top-level `networks` are `tenant`'s. Raises: Ended with status 2, all faults."""
    reader = _Reader(tenant)
    for document in documents:
        reader.read(document)
    if reader.faults:
        raise faulty(reader.faults)
    if not documents:
        raise Ended(USAGE, "the files say nothing: expected tenants, networks or hosts")
    return Intent(reader.tenants, tuple(reader.hosts))


def faulty(faults: Sequence[Fault]) -> Ended:
    """The end of a verb whose files have faults; nothing was done."""
    lines = [str(fault) for fault in faults[:FAULTS_SHOWN_MAX]]
    more = len(faults) - FAULTS_SHOWN_MAX
    if more > 0:
        lines.append(f"... and {more} more")
    return Ended(USAGE, "\n".join([*lines, "nothing was done"]))


class _Reader:
    """Collects what documents say, and what is wrong with it."""

    def __init__(self, tenant: str) -> None:
        self.tenants: dict[str, WantedTenant] = {}
        self.hosts: dict[str, None] = {}
        self.faults: list[Fault] = []
        self._own_tenant = tenant
        self._where = ""

    def read(self, document: Document) -> None:
        self._where = str(document)
        content = self._map(document.content, "", TOP_KEYS)
        for name, said in self._named(content.get("tenants"), "tenants"):
            self._tenant(name, said, _join("tenants", name))
        self._hosts(content.get("hosts"))
        if "networks" in content:
            self._tenant(self._own_tenant, {"networks": content["networks"]}, "")

    # what stands where

    def _tenant(self, name: str, said: Any, path: str) -> None:
        if not self._is_right(path, check_tenant, name):
            return
        fields = self._map(said, path, keys_of(CreateTenant))
        networks = fields.pop("networks", None)
        command = self._command(CreateTenant, fields, path, tenant=name)
        if command is None:
            command = CreateTenant(tenant=name)
        given = frozenset(fields)
        before = self.tenants.get(name)
        if before is None:
            before = self.tenants[name] = WantedTenant(command, given, self._where, {})
        elif given:
            if before.given:
                self._fault(path, f"tenant {name} is described in {before.where} already: expected that once")
            before.command, before.given, before.where = command, given, self._where
        inside = _join(path, "networks")
        for network, described in self._named(networks, inside):
            self._network(before, network, described, _join(inside, network))

    def _network(self, tenant: WantedTenant, name: str, said: Any, path: str) -> None:
        if name in tenant.networks:
            self._fault(path, f"network {name} is described in {tenant.networks[name].where} already: expected it once")
            return
        fields = {"subnets": said} if isinstance(said, str) else self._map(said, path, keys_of(CreateNetwork))
        listed, pools = fields.pop("endpoints", None), fields.pop("pools", None)
        command = self._command(CreateNetwork, fields, path, tenant=tenant.command.tenant, network=name)
        if command is None:
            if not self._is_right(path, _check_network, name):
                return
            command = CreateNetwork(tenant=tenant.command.tenant, network=name)
        network = tenant.networks[name] = WantedNetwork(command, frozenset(fields), self._where, {}, {})
        for pool, ranges in self._named(pools, _join(path, "pools")):
            self._pool(network, pool, ranges, _join(_join(path, "pools"), pool))
        inside = _join(path, "endpoints")
        for endpoint, described in self._listed(listed, name, inside):
            self._endpoints(network, endpoint, described, _join(inside, endpoint))

    def _pool(self, network: WantedNetwork, name: str, said: Any, path: str) -> None:
        """A pool: its range, a list of them, or a map."""
        fields = self._map(said, path, ("ranges",)) if isinstance(said, dict) else {"ranges": said}
        place = {"tenant": network.command.tenant, "network": network.command.network, "name": name}
        command = self._command(CreatePool, fields, path, **place)
        if command is not None:
            network.pools[name] = command

    def _listed(self, listed: Any, network: str, path: str) -> Iterator[tuple[str, Any]]:
        """Endpoints as a map, a list of names, or how many of them."""
        if isinstance(listed, int) and not isinstance(listed, bool):
            if 0 < listed <= ENDPOINTS_MAX:
                yield f"{network}-[1-{listed}]", None
            else:
                self._fault(path, f"{listed} endpoints: expected 1 to {ENDPOINTS_MAX}, a list of names, or a map")
        elif isinstance(listed, list):
            for position, name in enumerate(listed):
                if isinstance(name, str):
                    yield name, None
                else:
                    self._fault(f"{path}[{position}]", f"{_shown(name)}: expected a name, as text")
        else:
            yield from self._named(listed, path)

    def _endpoints(self, network: WantedNetwork, name: str, said: Any, path: str) -> None:
        """One endpoint, or those of a range such as `web[1-9]`."""
        fields = place_of(said) if isinstance(said, str) else self._map(said, path, keys_of(CreateEndpoint))
        match = _RANGE.search(name)
        if match is None:
            self._endpoint(network, name, fields, path)
            return
        numbers = _numbers(match)
        if not 0 < len(numbers) <= ENDPOINTS_MAX:
            self._fault(path, f"{match[0]} is no range: expected the lower end first, and at most {ENDPOINTS_MAX}")
            return
        for position, number in enumerate(numbers):
            try:
                one = {key: _nth(value, position, len(numbers)) for key, value in fields.items()}
            except ValueError as fault:
                self._fault(path, str(fault))
                return
            self._endpoint(network, name.replace(match[0], number, 1), one, path)

    def _endpoint(self, network: WantedNetwork, name: str, fields: dict[str, Any], path: str) -> None:
        if name in network.endpoints:
            self._fault(path, f"endpoint {name} of network {network.command.network} stands twice: expected it once")
            return
        fields = dict(fields)
        container, host = (self._word(fields.pop(key, None), _join(path, key)) for key in ("container", "host"))
        if container is not None and not self._is_right(_join(path, "container"), check_container, container):
            return
        if host is not None and not self._is_right(_join(path, "host"), _check_host, host):
            return
        place = {"tenant": network.command.tenant, "network": network.command.network, "name": name}
        command = self._command(CreateEndpoint, fields, path, **place)
        if command is not None:
            network.endpoints[name] = WantedEndpoint(command, frozenset(fields), self._where, container, host)

    def _hosts(self, said: Any) -> None:
        names = list(said) if isinstance(said, dict) else said
        if names is None:
            return
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            self._fault("hosts", f"{_shown(said)}: expected a list of names")
            return
        for name in names:
            if self._is_right("hosts", _check_host, name):
                self.hosts[name] = None

    # how it is written

    def _command(self, kind: type[CommandT], fields: dict[str, Any], path: str, **place: str) -> CommandT | None:
        """The command that the fields make in this place, `fields` then being the command's own; None for a fault."""
        for short in [key for key in fields if key in SHORT]:
            if SHORT[short] in fields:
                self._fault(_join(path, short), f"{short} and {SHORT[short]} are both given: expected one of them")
            fields[SHORT[short]] = fields.pop(short)
        lists = lists_of(kind)
        for key, value in list(fields.items()):
            if key in lists and isinstance(value, str) and value not in _WORDS.get(key, ()):
                fields[key] = [value]
            elif key in _TEXT_KEYS and isinstance(value, int) and not isinstance(value, bool):
                fields[key] = str(value)
        if isinstance(fields.get("subnets"), list) and not self._split_subnets(fields, path):
            return None
        try:
            return msgspec.convert({**place, **fields}, kind, dec_hook=decode_address)
        except msgspec.ValidationError as fault:
            text, inner = _read_fault(fault)
            self._fault(_join(path, inner) if inner else path, text)
            return None

    def _split_subnets(self, fields: dict[str, Any], path: str) -> bool:
        """Subnets such as `10.1.1.10-10.1.1.99/24` are subnets with ranges beside them; False for a fault."""
        subnets: list[Any] = []
        for position, text in enumerate(fields["subnets"]):
            if not isinstance(text, str) or "-" not in text:
                subnets.append(text)
                continue
            try:
                subnet, within = parse_subnet(text)
            except ValueError as fault:
                self._fault(_join(path, f"subnets[{position}]"), str(fault))
                return False
            subnets.append(str(subnet))
            fields["ranges"] = [*fields.get("ranges", []), str(within)]
        fields["subnets"] = list(dict.fromkeys(subnets))
        return True

    def _map(self, said: Any, path: str, keys: Sequence[str]) -> dict[str, Any]:
        """A map with no other keys than these; what is left empty is as left out."""
        if said is None:
            return {}
        if not isinstance(said, dict):
            self._fault(path, f"{_shown(said)}: expected a map with {', '.join(keys)}")
            return {}
        for key in said:
            if key not in keys:
                self._fault(_join(path, str(key)), f"key {key!r} is not known: {suggestion(str(key), keys)}")
        return {key: value for key, value in said.items() if key in keys and value is not None}

    def _named(self, said: Any, path: str) -> Iterable[tuple[str, Any]]:
        """The entries of a map from names."""
        if said is None:
            return
        if not isinstance(said, dict):
            self._fault(path, f"{_shown(said)}: expected a map from names")
            return
        for name, described in said.items():
            if isinstance(name, str):
                yield name, described
            elif isinstance(name, int) and not isinstance(name, bool):
                yield str(name), described
            else:
                self._fault(path, f"key {name!r} is no name: expected text; quotes make it so")

    def _word(self, value: Any, path: str) -> str | None:
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        self._fault(path, f"{_shown(value)}: expected text")
        return None

    def _is_right(self, path: str, check: Any, value: str) -> bool:
        try:
            check(value)
        except ValueError as fault:
            self._fault(path, str(fault))
            return False
        return True

    def _fault(self, path: str, text: str) -> None:
        fault = Fault(self._where, path, text)
        if fault not in self.faults[-1:]:
            self.faults.append(fault)


def _check_network(name: str) -> None:
    check_token("network name", name)


def _check_host(name: str) -> None:
    check_token("host name", name)


def place_of(text: str) -> dict[str, str]:
    """`c1@h1` as a container and its host; `c1` as a container."""
    container, at, host = text.rpartition("@")
    return {"container": container, "host": host} if at else {"container": text}


def _numbers(match: re.Match[str]) -> list[str]:
    """The numbers of a range, as wide as its first: `[08-10]` is 08, 09, 10."""
    first, last = int(match[1]), int(match[2])
    if last - first >= ENDPOINTS_MAX:
        return []
    return [str(number).zfill(len(match[1])) for number in range(first, last + 1)]


def _nth(value: Any, position: int, count: int) -> Any:
    """What the endpoint at `position` of a range has where the range has `value`. Raises: ValueError."""
    if isinstance(value, list):
        return [_nth(each, position, count) for each in value]
    match = _RANGE.search(value) if isinstance(value, str) else None
    if match is None:
        return value
    numbers = _numbers(match)
    if len(numbers) != count:
        raise ValueError(f"{value!r} has {len(numbers)} values: expected {count}, as the names have")
    return value.replace(match[0], numbers[position], 1)


def _join(path: str, key: str) -> str:
    part = key if key.startswith("[") or _PLAIN.match(key.partition("[")[0]) else f'"{key}"'
    if not path or part.startswith("["):
        return path + part
    return f"{path}.{part}"


def _read_fault(fault: msgspec.ValidationError) -> tuple[str, str]:
    """What msgspec found, in our words, and the path that it names."""
    text = str(fault)
    at = _AT.search(text)
    inner = at[1] if at else ""
    return _EXPECTED.sub(r"expected \1, found \2", text[: at.start()] if at else text), inner


def suggestion(key: str, keys: Sequence[str]) -> str:
    """What an unknown key may have been meant to be."""
    folded = {each.lower(): each for each in keys}
    near = difflib.get_close_matches(key.lower().replace("-", "_"), folded, 1, 0.6)
    return f"did you mean {folded[near[0]]}?" if near else f"expected one of {', '.join(keys)}"


def _shown(value: Any) -> str:
    """What was found, in words."""
    if isinstance(value, (dict, list)):
        return "a map" if isinstance(value, dict) else "a list"
    kind = "a truth value" if isinstance(value, bool) else "" if isinstance(value, str) else "a number"
    return f"{value!r} is {kind}" if kind else repr(value)
