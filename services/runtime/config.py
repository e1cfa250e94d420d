"""The settings of the daemon and of the actors it starts: from flags, the environment, one TOML file, or defaults."""

from __future__ import annotations

import os
import socket
import tomllib
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec

from messages import names

from .errors import Misconfigured
from .uplinks import Uplink, parse_uplinks

ENVIRONMENT_PREFIX = "NETPLUGIN_"
DEFAULT_FILE = Path("/etc/netplugin/netplugin.toml")
ACTORS = ("ipam", "host")  # in the order in which they are started
DATAPATHS = ("auto", "system", "netdev")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOOPBACK = "127.0.0.1"
INTERFACE_NAME_LENGTH_MAX = 15  # IFNAMSIZ less its NUL

# A setting's name in a flag and in TOML -> its environment variable.
VARIABLES = {
    "nats": "NETPLUGIN_NATS_URL",
    "creds": "NETPLUGIN_CREDS",
    "ca": "NETPLUGIN_CA",
    "replicas": "NETPLUGIN_REPLICAS",
    "actors": "NETPLUGIN_ACTORS",
    "host": "NETPLUGIN_HOST",
    "state_dir": "NETPLUGIN_STATE_DIR",
    "run_dir": "NETPLUGIN_RUN_DIR",
    "bridge": "NETPLUGIN_BRIDGE",
    "datapath": "NETPLUGIN_DATAPATH",
    "uplinks": "NETPLUGIN_UPLINKS",
    "vtep": "NETPLUGIN_VTEP",
    "log_level": "NETPLUGIN_LOG_LEVEL",
    "ovs_run_dir": "OVS_RUNDIR",
    "unverified_identity": "NETPLUGIN_UNVERIFIED_IDENTITY",
    "metrics": "NETPLUGIN_METRICS",
}
FLAGS = {"uplinks": "--uplink"}  # whose flag is not the setting's name
REPLICAS = ("1", "2", "3", "5")  # that a stream can have to some purpose
ABOUT_THE_BUS = frozenset({"nats", "creds", "ca"})
YES_OR_NO = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What a process of ours is told. Made by `load`, which has checked every field."""

    host: str
    nats: str | None = None  # a server that runs already, or several with commas; None: our own
    creds: Path | None = None  # nkey seed or .creds file
    ca: Path | None = None  # the certificate that the server's is held to, where it speaks TLS
    replicas: int = 1  # how many servers keep each stream
    actors: tuple[str, ...] = ACTORS
    state_dir: Path = Path("/var/lib/netplugin")
    run_dir: Path = Path("/run/netplugin")
    bridge: str = "vlanBr"
    datapath: str = "auto"
    uplinks: tuple[Uplink, ...] = ()  # by which VLAN networks leave this host
    vtep: str | None = None  # this host's address for tunnels; None: no tunnel leads here
    log_level: str = "info"
    ovs_run_dir: Path | None = None  # where an Open vSwitch has its sockets; None: found, or our own
    unverified_identity: bool = False  # run where the server cannot say who sends a command
    metrics: str = ""  # address:port where Prometheus may ask; empty: nowhere

    @property
    def keys_dir(self) -> Path:
        """Where the seeds and `principals.json` are."""
        return self.state_dir / "keys"

    def variables(self) -> dict[str, str]:
        """The same as environment variables, for a child that will `load` it again."""
        pairs = ((variable, getattr(self, key)) for key, variable in VARIABLES.items())
        return {
            name: ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            for name, value in pairs
            if value
        }


def _nothing(_state_dir: Path) -> Mapping[str, Any]:
    return {}


def load(
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    toml: Mapping[str, Any],
    remembered: Callable[[Path], Mapping[str, Any]] = _nothing,
) -> Config:
    """One checked configuration; a flag wins over the environment, that over the file, that over the default.

    `remembered`: what the state directory says of the cluster, in the words of the file; it comes before the defaults,
    and its server and credentials only where no other server is named.

    Raises: Misconfigured, naming the setting, where it was found and what was expected.
    """
    if unknown := sorted(toml.keys() - VARIABLES.keys()):
        raise Misconfigured(f"the file sets {', '.join(unknown)}: known are {', '.join(VARIABLES)}")
    chosen: dict[str, Any] = {}
    for key, variable in VARIABLES.items():
        if (flag := flags.get(key)) is not None:
            chosen[key] = _parse(key, flag, FLAGS.get(key, f"--{key.replace('_', '-')}"))
        elif environ.get(variable):
            chosen[key] = _parse(key, environ[variable], variable)
        elif key in toml:
            chosen[key] = _parse(key, toml[key], f"{key} in the file")
    is_elsewhere = "nats" in chosen
    for key, value in remembered(chosen.get("state_dir", Config.state_dir)).items():
        if key not in chosen and not (is_elsewhere and key in ABOUT_THE_BUS):
            chosen[key] = _parse(key, value, f"{key} in the state directory")
    if "host" not in chosen:
        chosen["host"] = _host(default_host(), "this host's name, for want of --host,")
    config = Config(**chosen)
    if config.creds and not config.nats:
        raise Misconfigured("--creds was given without --nats: our own server makes its own keys")
    if config.ca and not config.nats:
        raise Misconfigured("--ca was given without --nats: our own server makes its own certificates")
    if config.unverified_identity and not config.nats:
        raise Misconfigured("--unverified-identity was given without --nats: our own server says who sends a command")
    return config


def from_environment() -> Config:
    """The configuration of a process that the daemon has started. Raises: Misconfigured."""
    return load({}, os.environ, {})


def read_file(path: Path | None) -> dict[str, Any]:
    """What the TOML file says; nothing when none was named and the default one is not there. Raises: Misconfigured."""
    file = path or DEFAULT_FILE
    try:
        return tomllib.loads(file.read_text())
    except FileNotFoundError:
        if path is None:
            return {}
        raise Misconfigured(f"{file}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Misconfigured(f"{file}: {error}") from error


def default_host() -> str:
    """The name of this host on the bus: the first label of its host name, in lower case."""
    return socket.gethostname().split(".")[0].lower()


def _parse(key: str, value: object, source: str) -> object:
    """The value of one setting in its own type. Raises: Misconfigured."""
    if key == "actors":
        return _actors(value, source)
    if key == "uplinks":
        return _uplinks(value, source)
    if key == "unverified_identity":
        return YES_OR_NO[_one_of(str(value).lower(), tuple(YES_OR_NO), source)]
    if key == "replicas":
        return int(_one_of(str(value), REPLICAS, source))
    if not isinstance(value, str) or not value:
        raise Misconfigured(f"{source} is {value!r}: expected text")
    match key:
        case "state_dir" | "run_dir" | "creds" | "ca" | "ovs_run_dir":
            return Path(value).absolute()
        case "datapath":
            return _one_of(value, DATAPATHS, source)
        case "log_level":
            return _one_of(value.lower(), LOG_LEVELS, source)
    return _PARSERS[key](value, source) if key in _PARSERS else value


def _actors(value: object, source: str) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list) or not items:
        raise Misconfigured(f"{source} is {value!r}: expected some of {', '.join(ACTORS)}")
    wanted = {_one_of(str(item).strip(), ACTORS, source) for item in items}
    return tuple(actor for actor in ACTORS if actor in wanted)


def _uplinks(value: object, source: str) -> tuple[Uplink, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Misconfigured(f"{source} is {value!r}: expected interfaces, with tags such as eth1:10-20,30")
    try:
        return parse_uplinks(texts)
    except ValueError as error:
        raise Misconfigured(f"{source}: {error}") from error


def _one_of(value: str, allowed: tuple[str, ...], source: str) -> str:
    if value not in allowed:
        raise Misconfigured(f"{source} is {value!r}: expected {', '.join(allowed[:-1])} or {allowed[-1]}")
    return value


def _host(value: str, source: str) -> str:
    try:
        names.check_token("host name", value)
    except ValueError as error:
        raise Misconfigured(f"{source}: {error}") from error
    return value


def _address_and_port(value: str, source: str) -> str:
    """`ADDRESS:PORT`, `[ADDRESS]:PORT` for IPv6, or a port of loopback, as the first."""
    address, _, port = value.rpartition(":")
    try:
        ip_address(address.removeprefix("[").removesuffix("]") if address else LOOPBACK)
        is_port = port.isascii() and port.isdigit() and 0 < int(port) < 65536
    except ValueError:
        is_port = False
    if not is_port:
        raise Misconfigured(f"{source} is {value!r}: expected ADDRESS:PORT, or a port of {LOOPBACK}")
    return f"{address or LOOPBACK}:{port}"


def _bridge(value: str, source: str) -> str:
    limit = INTERFACE_NAME_LENGTH_MAX
    if len(value) > limit or value in (".", "..") or any(c == "/" or c.isspace() for c in value):
        raise Misconfigured(f"{source} is {value!r}: expected an interface name of at most {limit} characters")
    return value


def _vtep(value: str, source: str) -> str:
    try:
        address = ip_address(value)
    except ValueError as error:
        raise Misconfigured(f"{source}: {error}: expected one address of this host, such as 172.30.0.1") from error
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        raise Misconfigured(f"{source} is {value}: expected a unicast address that other hosts can send to")
    return str(address)


_PARSERS = {"host": _host, "bridge": _bridge, "metrics": _address_and_port, "vtep": _vtep}
