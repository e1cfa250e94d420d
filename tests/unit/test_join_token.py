from __future__ import annotations

import base64

import msgspec
import pytest

from services.certificates import make_authority
from services.runtime import join_token

CA = make_authority("test").certificate.decode()
URLS = ("tls://10.0.0.1:4222", "tls://[2001:db8::1]:4222")


def test_a_token_is_one_word_that_holds_all_that_a_host_needs() -> None:
    text = join_token.to_text("SUSEED", URLS, CA)
    assert text.isascii()
    assert len(text.split()) == 1
    token = join_token.parse(f" {text}\n")
    assert (token.seed, token.urls, token.ca) == ("SUSEED", URLS, CA)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no token"),
        ("np2-abc", "no token"),
        ("np1-" + "A" * join_token.LENGTH_MAX, "no token"),
        ("np1-", "damaged"),
        ("np1-é", "damaged"),
        (join_token.to_text("SU", URLS, CA)[:-5], "damaged"),
        ("np1-" + base64.urlsafe_b64encode(msgspec.msgpack.encode(["S", [], b"x"])).decode().rstrip("="), "no server"),
    ],
)
def test_what_is_no_token_is_said(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        join_token.parse(text)
