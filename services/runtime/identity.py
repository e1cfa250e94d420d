"""Who is who on the bus: users, the files with their seeds, their inboxes, and whose public key is whose.

A user of nats-server is an nkey pair: the server holds the public keys, each seed is a file for its user alone.
`Nats-Request-Info` names its sender by public key: `principals` turns that into a name that means something.

    user           account   is
    operator       EDGE      the command line on this host
    host-<name>    EDGE      the host actor of that host
    join-<name>    EDGE      whoever holds a token: may ask once to be let in as a host
    viewer         EDGE      reads events and state, changes nothing
    daemon         EDGE      netplugin itself: asks who is there
    ipam           NP        the actor that decides; the journal is its account's
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

OPERATOR = "operator"
VIEWER = "viewer"
DAEMON = "daemon"
IPAM = "ipam"
DECIDING_ACTORS = frozenset({IPAM})  # they live in the journal's own account, everybody else beside it
HOST_PREFIX = "host-"
JOIN_PREFIX = "join-"
SERVER_PREFIX = "netplugin-"  # of a server's own name
SEED_SUFFIX = ".nk"
PRINCIPALS_FILE = "principals.json"


def host_user(host: str) -> str:
    """The user that a host's actor is."""
    return f"{HOST_PREFIX}{host}"


def join_user(invitation: str) -> str:
    """The user that whoever holds a token is."""
    return f"{JOIN_PREFIX}{invitation}"


def actor_user(actor: str, host: str) -> str:
    """The user that an actor process on `host` is: `ipam`, `host-blue1`."""
    return host_user(host) if actor == "host" else actor


def inbox_prefix(user: str) -> str:
    """Where answers to `user` arrive, and where it alone may listen (the operator may listen on every `_INBOX`)."""
    root = "_INBOX_NP" if user in DECIDING_ACTORS else "_INBOX"
    return f"{root}.{user}"


def seed_file(keys_dir: Path, user: str) -> Path:
    """The file with a user's nkey seed, mode 0600."""
    return keys_dir / f"{user}{SEED_SUFFIX}"


def user_of(seed: Path) -> str:
    """The user whose seed a file of `seed_file` holds; of any other credentials, the operator."""
    return seed.stem if seed.suffix == SEED_SUFFIX else OPERATOR


class Principals(Mapping[str, str]):
    """`principals` of a directory, read again when somebody is not known and the file has changed since."""

    def __init__(self, keys_dir: Path) -> None:
        self._file = keys_dir / PRINCIPALS_FILE
        self._keys_dir = keys_dir
        self._changed_ns = 0
        self._known: dict[str, str] = {}

    def __getitem__(self, public_key: str) -> str:
        if public_key not in self._known:
            self._read()
        return self._known[public_key]

    def __iter__(self) -> Iterator[str]:
        self._read()
        return iter(self._known)

    def __len__(self) -> int:
        self._read()
        return len(self._known)

    def _read(self) -> None:
        try:
            changed_ns = self._file.stat().st_mtime_ns
        except FileNotFoundError:
            return
        if changed_ns != self._changed_ns:
            self._known = principals(self._keys_dir)
            self._changed_ns = changed_ns


def principals(keys_dir: Path) -> dict[str, str]:
    """The user's name by public key, as the daemon wrote it; empty where the server is not ours."""
    file = keys_dir / PRINCIPALS_FILE
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return {}
