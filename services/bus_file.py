"""STATE_DIR/bus.json: where a host without a nats-server of its own finds the cluster's, and as whom.

`netplugin join` and `netplugin init` write it; plain `netplugin` there then runs the host's actor with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from . import nats_keys
from .runtime import identity
from .runtime.errors import Misconfigured

FILE = "bus.json"
CA_PATH = "tls/ca.pem"


class BusFile(msgspec.Struct, frozen=True, kw_only=True):
    """The servers and the host's name; its seed and the authority's certificate stand beside it."""

    host: str
    urls: tuple[str, ...]


def write(state_dir: Path, host: str, urls: Sequence[str], ca: bytes, seed: bytes) -> None:
    """`settings` finds the servers, the certificate and the seed; bus.json comes last.

    Which server is asked first follows from the host's name, so that hosts spread over them.
    """
    at = sum(host.encode()) % len(urls)
    for folder in (state_dir, state_dir / "tls", state_dir / "keys"):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    nats_keys.write(state_dir / CA_PATH, ca, mode=0o644)
    nats_keys.write(identity.seed_file(state_dir / "keys", identity.host_user(host)), seed, mode=0o600)
    content = msgspec.json.format(msgspec.json.encode(BusFile(host=host, urls=(*urls[at:], *urls[:at]))))
    nats_keys.write(state_dir / FILE, content, mode=0o644)


def settings(state_dir: Path) -> dict[str, Any]:
    """The daemon's settings that follow from it, in the words of the TOML file; none without it.

    Raises: Misconfigured.
    """
    file = state_dir / FILE
    try:
        found = msgspec.json.decode(file.read_bytes(), type=BusFile)
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as fault:
        raise Misconfigured(f"{file}: {fault}: expected what `netplugin join` wrote") from fault
    seed = identity.seed_file(state_dir / "keys", identity.host_user(found.host))
    return {
        "nats": ",".join(found.urls),
        "creds": str(seed),
        "ca": str(state_dir / CA_PATH),
        "actors": ["host"],
        "host": found.host,
    }
