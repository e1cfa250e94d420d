"""What a command says, in 16 characters: so that an id that was used for another command is told from a repeat."""

from __future__ import annotations

from functools import cache
from hashlib import blake2b

import msgspec

from messages.addresses import encode_address
from messages.struct import Command

DIGEST_HEADER = "Np-Command-Digest"
_BYTES = 8


def digest_of(command: Command) -> str:
    """The same for the same wish, however it was encoded, and by versions that know of more fields than it uses."""
    values = ((name, default, getattr(command, name)) for name, default in _defaults(type(command)))
    said = [(name, value) for name, default, value in values if value != default]
    packed = msgspec.msgpack.encode((type(command).__name__, said), enc_hook=encode_address)
    return blake2b(packed, digest_size=_BYTES).hexdigest()


@cache
def _defaults(kind: type[Command]) -> tuple[tuple[str, object], ...]:
    """Each field with its default; one that must be given has none that any value equals."""
    return tuple((field.name, field.default) for field in msgspec.structs.fields(kind))
