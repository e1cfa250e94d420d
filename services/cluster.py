"""Several nats-servers of ours as one: what `netplugin init` prepares, and what it makes of a server's configuration.

    DIR/authority/          the certificate authority and every seed; it stays where it was made, in safe keeping
    DIR/<server>/           the state directory of a server's machine, to be copied there:
        cluster.json            who the servers are, and everybody's public keys
        tls/                    the authority's certificate; the server's own, and its key
        keys/                   seeds: those that every server has, and that of its own host
    DIR/<host>/             that of a host without a server: bus.json, tls/ca.pem, keys/host-<host>.nk

All that leaves a server is TLS: clients hold it to the authority and show an nkey, servers hold each other to it.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from messages import names

from . import bus_file, certificates, nats_keys
from .certificates import Pair
from .runtime import identity
from .runtime.errors import Misconfigured

FILE = "cluster.json"
AUTHORITY = "authority"
TLS_DIR = "tls"
CA_FILE = "ca.pem"
CA_KEY_FILE = "ca.key"
CERTIFICATE_FILE = "server.pem"
KEY_FILE = "server.key"
NAME = "netplugin"
REPLICAS_MAX = 3
SHARED_USERS = (identity.OPERATOR, identity.VIEWER, identity.DAEMON, identity.IPAM)
PING_EVERY_S = 2  # a server or a client that hangs is cut off after two of them
_TLS_TIMEOUT_S = 5  # for the handshake, on a busy machine


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """The servers of one cluster, as one of them knows it."""

    server: str  # which of them this is
    servers: dict[str, str]  # name -> IP address
    users: dict[str, str]  # name -> public key
    name: str = NAME
    client_port: int = 4222
    route_port: int = 6222

    @property
    def address(self) -> str:
        """Where this server listens."""
        return self.servers[self.server]

    @property
    def listen(self) -> str:
        """The same with the port, for clients."""
        return _host_port(self.address, self.client_port)

    @property
    def replicas(self) -> int:
        """How many servers keep each stream."""
        return min(REPLICAS_MAX, len(self.servers))

    @property
    def urls(self) -> tuple[str, ...]:
        """Where clients find the servers: this one first, then the others in turn."""
        order = sorted(self.servers)
        at = order.index(self.server)
        return tuple(self._url("tls", self.servers[name], self.client_port) for name in (*order[at:], *order[:at]))

    def settings(self, state_dir: Path) -> list[str]:
        """The lines of the server's configuration that make it a member."""
        own, others = self.address, [self.servers[name] for name in sorted(self.servers) if name != self.server]
        routes = [self._url("tls", address, self.route_port) for address in others]
        tls = state_dir / TLS_DIR
        certificate = (
            f"cert_file: {json.dumps(str(tls / CERTIFICATE_FILE))}, key_file: {json.dumps(str(tls / KEY_FILE))}"
        )
        mutual = f"{certificate}, ca_file: {json.dumps(str(tls / CA_FILE))}, verify: true"
        ping = f'ping_interval: "{PING_EVERY_S}s"'
        own_lines = [f"tls {{ {certificate}, timeout: {_TLS_TIMEOUT_S} }}", ping]
        if not routes:  # JetStream refuses to be a cluster of one
            return own_lines
        return [
            *own_lines,
            "cluster {",
            f"  name: {json.dumps(self.name)}",
            f"  listen: {json.dumps(_host_port(own, self.route_port))}",
            f"  routes: {json.dumps(routes)}",
            f"  tls {{ {mutual}, timeout: {_TLS_TIMEOUT_S} }}",
            f"  no_advertise: true, {ping}",
            "}",
        ]

    def _url(self, scheme: str, address: str, port: int) -> str:
        return f"{scheme}://{_host_port(address, port)}"


def read(state_dir: Path) -> Cluster | None:
    """The cluster that a state directory belongs to; None for a server of its own. Raises: Misconfigured."""
    file = state_dir / FILE
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Cluster)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as fault:
        raise Misconfigured(f"{file}: {fault}: expected what `netplugin init` wrote") from fault
    if found.server not in found.servers:
        raise Misconfigured(f"{file}: server {found.server!r} is none of {', '.join(sorted(found.servers))}")
    return found


def check_host(state_dir: Path, host: str) -> None:
    """The state directory is not that of a server on another machine than `host`. Raises: Misconfigured."""
    member = read(state_dir)
    if member and member.server != host:
        raise Misconfigured(
            f"this is host {host}, and {state_dir} that of server {member.server}: "
            f"give --host {member.server}, or another --state-dir"
        )


def remembered(state_dir: Path) -> dict[str, Any]:
    """The daemon's settings that follow from what `prepare` wrote, in the words of the TOML file.

    None where it may not be looked at: who lacks that right is told so when the daemon begins. Raises: Misconfigured.
    """
    if not os.access(state_dir, os.X_OK):
        return {}
    member = read(state_dir)
    return bus_file.settings(state_dir) if member is None else {"host": member.server}


def prepare(directory: Path, servers: Mapping[str, str], hosts: Sequence[str] = ()) -> Cluster:
    """`directory` holds a state directory for each server (name -> IP address) and each further host.

    Called again, it adds: keys and the authority are kept, certificates are made anew, servers that were there stay.
    Raises: Misconfigured for a name or an address that cannot be, or two servers at one address.
    """
    authority_dir = directory / AUTHORITY
    known = _read_known(authority_dir)
    merged = {**known.servers, **servers}
    _check(merged, hosts)
    authority_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = _authority(authority_dir)
    users = (*SHARED_USERS, *(identity.host_user(name) for name in (*merged, *hosts)))
    made = nats_keys.make_keys(authority_dir, users)
    cluster = Cluster(server=min(merged), servers=merged, users=made)
    nats_keys.write(authority_dir / FILE, msgspec.json.encode(cluster), mode=0o600)
    for name, address in merged.items():
        own = msgspec.structs.replace(cluster, server=name)
        _write_server(directory / name, own, certificates.make_certificate(authority, name, address), authority_dir)
    for name in hosts:
        if name not in merged:
            ca = authority.certificate
            seed = identity.seed_file(authority_dir, identity.host_user(name)).read_bytes()
            bus_file.write(directory / name, name, cluster.urls, ca, seed)
    return cluster


def _read_known(authority_dir: Path) -> Cluster:
    return read(authority_dir) or Cluster(server="", servers={}, users={})


def _check(servers: Mapping[str, str], hosts: Sequence[str]) -> None:
    if not servers:
        raise Misconfigured("a cluster needs a server: give --server NAME=ADDRESS, best three of them")
    for name in (*servers, *hosts):
        try:
            names.check_token("server name" if name in servers else "host name", name)
        except ValueError as fault:
            raise Misconfigured(str(fault)) from fault
        if name == AUTHORITY:
            raise Misconfigured(f"{AUTHORITY!r} is the directory of the keys: choose another name")
    for name, address in servers.items():
        try:
            ipaddress.ip_address(address)
        except ValueError as fault:
            raise Misconfigured(f"server {name}: {address!r} is no IP address") from fault
    if len(set(servers.values())) < len(servers):
        raise Misconfigured("two servers have one address: each listens on its own")


def _authority(authority_dir: Path) -> Pair:
    key, certificate = authority_dir / CA_KEY_FILE, authority_dir / CA_FILE
    if not certificate.exists():
        made = certificates.make_authority(f"{NAME} authority")
        nats_keys.write(key, made.key, mode=0o600)
        nats_keys.write(certificate, made.certificate, mode=0o644)
    return Pair(key.read_bytes(), certificate.read_bytes())


def _write_server(state_dir: Path, cluster: Cluster, pair: Pair, authority_dir: Path) -> None:
    """The state directory of a server; `cluster.json` comes last, so that it is there only when all is."""
    tls, keys = state_dir / TLS_DIR, state_dir / "keys"
    for folder in (state_dir, tls, keys):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    nats_keys.write(tls / CA_FILE, (authority_dir / CA_FILE).read_bytes(), mode=0o644)
    nats_keys.write(tls / CERTIFICATE_FILE, pair.certificate, mode=0o644)
    nats_keys.write(tls / KEY_FILE, pair.key, mode=0o600)
    for user in (*SHARED_USERS, identity.host_user(cluster.server)):
        seed = identity.seed_file(authority_dir, user).read_bytes()
        nats_keys.write(identity.seed_file(keys, user), seed, mode=0o600)
    nats_keys.write_principals(keys, cluster.users)
    nats_keys.write(state_dir / FILE, msgspec.json.format(msgspec.json.encode(cluster)), mode=0o644)


def _host_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
