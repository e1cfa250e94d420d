"""A lab on paper: its hosts with their names, addresses and folders. All of it follows from what `lab.json` says.

    DIR/lab.json          how many hosts and servers, the prefix of all names
    DIR/names/            a file for each network namespace that the lab has named
    DIR/state/h1/         what survives a power cut: the journal, keys, the switch's database
    DIR/h1/               the rest of a host: init.pid    its process 1, with which everything of it ends
                                              run/        sockets, pid files, client.json
                                              ready       what its daemon says when it is ready; netplugin.log, its log

A host is a named network namespace (`ip -n np-h1 link` shows its links) with process, mount and host name namespaces of
its own, and a /run of its own: its /run/netns and /run/openvswitch are nobody else's.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path

import msgspec

from ..runtime import identity
from ..runtime.errors import Misconfigured

DEFAULT_DIR = Path("/run/netplugin-lab")
DEFAULT_PREFIX = "np"
LAB_FILE = "lab.json"
NETWORK = ipaddress.IPv4Network("172.30.0.0/24")
HOSTS_MAX = 64
SERVERS = (1, 3, 5)
UNDERLAY_MTU_BYTES = 1600  # VXLAN's 50 bytes and an endpoint's 1500 fit
PREFIX_LENGTH_MAX = 8
IPAM_COPIES = 2
NAMED_NAMESPACES = Path("/run/netns")  # iproute2's, compiled in


class Lab(msgspec.Struct, frozen=True):
    """One lab. Made by `plan` or `read`."""

    directory: Path
    host_count: int
    server_count: int
    prefix: str
    underlay_mtu_bytes: int

    @property
    def hosts(self) -> tuple[LabHost, ...]:
        """Its hosts in order."""
        return tuple(LabHost(self, number) for number in range(1, self.host_count + 1))

    @property
    def underlay(self) -> str:
        """The namespace with the bridge that all hosts are plugged into."""
        return f"{self.prefix}-underlay"

    @property
    def state_dir(self) -> Path:
        """The state directories of all hosts, and the cluster's authority."""
        return self.directory / "state"

    @property
    def operator_file(self) -> Path:
        """The seed of the user that may command; hosts with a server have it in their state."""
        return identity.seed_file(self.state_dir / "authority", identity.OPERATOR)

    @property
    def names_dir(self) -> Path:
        """A file for each namespace that is this lab's."""
        return self.directory / "names"

    @property
    def file(self) -> Path:
        """What tells of this lab."""
        return self.directory / LAB_FILE

    def host(self, name: str) -> LabHost:
        """The host of this name. Raises: Misconfigured, naming those that there are."""
        for host in self.hosts:
            if name in (host.name, host.namespace):
                return host
        raise Misconfigured(f"this lab has no host {name!r}: it has {', '.join(host.name for host in self.hosts)}")


class LabHost(msgspec.Struct, frozen=True):
    """One host of a lab."""

    lab: Lab
    number: int  # from 1

    @property
    def name(self) -> str:
        """What the cluster knows it by."""
        return f"h{self.number}"

    @property
    def namespace(self) -> str:
        """Its network namespace, by the name that `ip netns` knows."""
        return f"{self.lab.prefix}-{self.name}"

    @property
    def namespace_path(self) -> Path:
        """Where that name stands."""
        return NAMED_NAMESPACES / self.namespace

    @property
    def address(self) -> ipaddress.IPv4Interface:
        """Its address on the underlay, which is its VTEP's too."""
        return ipaddress.IPv4Interface((NETWORK[self.number], NETWORK.prefixlen))

    @property
    def mac(self) -> str:
        """The MAC of that address."""
        return f"02:4e:50:00:00:{self.number:02x}"

    @property
    def plug(self) -> str:
        """The underlay's end of its cable; the host's is eth0."""
        return f"u{self.number}"

    @property
    def directory(self) -> Path:
        """Everything of it that is a file."""
        return self.lab.directory / self.name

    @property
    def state_dir(self) -> Path:
        """The daemon's state directory."""
        return self.lab.state_dir / self.name

    @property
    def run_dir(self) -> Path:
        """The daemon's run directory."""
        return self.directory / "run"

    @property
    def init_file(self) -> Path:
        """Names its process 1."""
        return self.directory / "init.pid"

    @property
    def log_file(self) -> Path:
        """The daemon's log."""
        return self.directory / "netplugin.log"

    @property
    def ready_file(self) -> Path:
        """What the daemon prints: one line once it is ready."""
        return self.directory / "ready"

    @property
    def actors(self) -> tuple[str, ...]:
        """Which actors run there."""
        return ("ipam", "host") if self.number <= IPAM_COPIES else ("host",)

    @property
    def has_server(self) -> bool:
        """Whether a nats-server runs there."""
        return self.number <= self.lab.server_count

    def variables(self) -> dict[str, str]:
        """What a person's shell on that host has: `netctl`, `netplugin` and `ovs-vsctl` find theirs."""
        as_operator = {} if self.has_server else {"NETPLUGIN_CREDS": str(self.lab.operator_file)}
        return {
            **as_operator,
            "NETPLUGIN_STATE_DIR": str(self.state_dir),
            "NETPLUGIN_RUN_DIR": str(self.run_dir),
            "NETPLUGIN_HOST": self.name,
            "OVS_RUNDIR": str(self.run_dir / "ovs"),
        }


def plan(directory: Path, hosts: int, servers: int, prefix: str, underlay_mtu_bytes: int) -> Lab:
    """The lab that these make. Raises: Misconfigured."""
    if not 1 <= hosts <= HOSTS_MAX:
        raise Misconfigured(f"--hosts is {hosts}: expected 1 to {HOSTS_MAX}")
    if servers not in SERVERS or servers > hosts:
        raise Misconfigured(f"--nats is {servers} with {hosts} hosts: expected 1, 3 or 5, and a host for each")
    if not 1 <= len(prefix) <= PREFIX_LENGTH_MAX or not prefix.isalnum() or not prefix.isascii():
        raise Misconfigured(f"--prefix is {prefix!r}: expected 1 to {PREFIX_LENGTH_MAX} letters and digits")
    if not 1280 <= underlay_mtu_bytes <= 9000:
        raise Misconfigured(f"--mtu is {underlay_mtu_bytes}: expected 1280 to 9000 bytes")
    return Lab(directory, hosts, servers, prefix, underlay_mtu_bytes)


def write(lab: Lab) -> None:
    """`lab.json` tells of this lab, whole or not at all."""
    draft = lab.file.with_suffix(".new")
    draft.write_bytes(msgspec.json.encode(lab, enc_hook=str) + b"\n")
    draft.replace(lab.file)


def read(directory: Path) -> Lab:
    """The lab in `directory`. Raises: Misconfigured when there is none, or its file is not ours."""
    file = directory / LAB_FILE
    try:
        return msgspec.structs.replace(
            msgspec.json.decode(file.read_bytes(), type=Lab, dec_hook=lambda kind, text: kind(text)),
            directory=directory,
        )
    except FileNotFoundError:
        raise Misconfigured(f"no lab in {directory}: start one with netplugin lab up, or name its --dir") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise Misconfigured(f"{file} cannot be read: {error}") from error
