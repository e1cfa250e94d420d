"""What `netctl host token` prints and `netplugin join` reads: all that a new host needs to be let in, in one word.

    np1-<base64url of [seed of the one-time user, the servers' URLs, their authority's certificate as DER]>

It is a secret until it is used or expires. It holds the certificate, so a host trusts no server on first sight.
"""

from __future__ import annotations

import base64
import binascii
import ssl

import msgspec

PREFIX = "np1-"
LENGTH_MAX = 16_384


class JoinToken(msgspec.Struct, frozen=True, array_like=True):
    """A token's content."""

    seed: str
    urls: tuple[str, ...]
    ca_der: bytes

    @property
    def ca(self) -> str:
        """The authority's certificate as PEM."""
        return ssl.DER_cert_to_PEM_cert(self.ca_der)


def to_text(seed: str, urls: tuple[str, ...], ca_pem: str) -> str:
    """The token as one word. Raises: ValueError when `ca_pem` is no certificate."""
    content = msgspec.msgpack.encode(JoinToken(seed, urls, ssl.PEM_cert_to_DER_cert(ca_pem.strip())))
    return PREFIX + base64.urlsafe_b64encode(content).decode().rstrip("=")


def parse(text: str) -> JoinToken:
    """A token's content. Raises: ValueError, which says what is wrong with it."""
    word = text.strip()
    if not word.startswith(PREFIX) or len(word) > LENGTH_MAX:
        raise ValueError(f"this is no token: expected {PREFIX}..., as `netctl host token` prints it")
    body = word.removeprefix(PREFIX)
    try:
        content = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        token = msgspec.msgpack.decode(content, type=JoinToken)
    except (binascii.Error, msgspec.DecodeError, msgspec.ValidationError, ValueError) as fault:
        raise ValueError("the token is damaged: copy all of it, it is one word") from fault
    if not token.urls or not token.ca_der:
        raise ValueError("the token names no server: make a new one")
    return token
