"""Seeds of the bus's users, and files that are whole or not there.

KEYS_DIR/<user>.nk           seeds, mode 0600, made once
KEYS_DIR/principals.json     user by public key
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import nkeys

from .runtime import identity


def make_keys(keys_dir: Path, users: Iterable[str]) -> dict[str, str]:
    """The public key of each user and of every other host that has a seed here; missing seeds are made."""
    keys_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    known = {file.stem for file in keys_dir.glob(f"{identity.HOST_PREFIX}*{identity.SEED_SUFFIX}")}
    public_keys = {user: public_key(identity.seed_file(keys_dir, user)) for user in sorted({*users, *known})}
    write_principals(keys_dir, public_keys)
    return public_keys


def write_principals(keys_dir: Path, public_keys: Mapping[str, str]) -> None:
    """`identity.principals` says these users, given as name -> public key."""
    names = {key: user for user, key in public_keys.items()}
    write(keys_dir / identity.PRINCIPALS_FILE, json.dumps(names, indent=2).encode(), mode=0o644)


def public_key(file: Path) -> str:
    """The public key that belongs to the seed in `file`, which is made if it is not there."""
    if not file.exists():
        write(file, new_seed(), mode=0o600)
    return public_key_of(file.read_bytes())


def new_seed() -> bytes:
    """The seed of a new user."""
    seed: bytes = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    return seed


def public_key_of(seed: bytes) -> str:
    """The public key of a seed. Raises: ValueError for what is none."""
    try:
        pair = nkeys.from_seed(bytearray(seed.strip()))
    except (nkeys.NkeysError, ValueError) as fault:
        raise ValueError(f"no nkey seed: {fault or type(fault).__name__}") from fault
    found = str(pair.public_key.decode())
    pair.wipe()
    return found


def write(file: Path, content: bytes, mode: int) -> None:
    """`file` holds `content`, whole or not at all, on disk when this returns."""
    draft = file.with_name(f".{file.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(file)
