"""Whatever bytes arrive, they are a message or named as what is wrong with them; what is encoded is decoded again."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from messages import codec, names, ranges
from messages.codec import JSON, MSGPACK, Malformed
from messages.endpoint import CreateEndpoint
from messages.network import CreateNetwork
from messages.replies import Refused
from messages.subjects import CommandSubject

TOKENS = st.from_regex(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?", fullmatch=True).filter(
    lambda token: token != names.RESERVED_TENANT
)
NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="*>:"),
    min_size=1,
    max_size=names.NAME_LENGTH_MAX,
).filter(str.isprintable)
CONTENT_TYPES = st.sampled_from((MSGPACK, JSON))
ADDRESSES = st.one_of(st.integers(0, 2**32 - 1).map(IPv4Address), st.integers(0, 2**128 - 1).map(IPv6Address))
SUBNETS = st.builds(
    lambda number, length: IPv4Network((number >> (32 - length) << (32 - length), length)),
    st.integers(0x0B000000, 0x7EFFFFFF),
    st.integers(8, 31),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(), st.binary()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
)
SUBJECTS = st.sampled_from([CommandSubject("acme", "network", "create"), CommandSubject("acme", "endpoint", "create")])


@given(tenant=TOKENS, network=TOKENS, subnet=SUBNETS, tag=st.integers(1, 4094), content_type=CONTENT_TYPES)
def test_a_network_comes_back_as_it_was_sent(
    tenant: str, network: str, subnet: IPv4Network, tag: int, content_type: str
) -> None:
    command = CreateNetwork(tenant=tenant, network=network, subnets=(subnet,), tag=tag)
    subject = CommandSubject(tenant, "network", "create")
    assert codec.decode_command(subject, codec.encode(command, content_type), content_type) == command


@given(
    network=TOKENS,
    name=NAMES,
    addresses=st.lists(ADDRESSES, unique=True, max_size=16),
    content_type=CONTENT_TYPES,
)
def test_an_endpoint_comes_back_as_it_was_sent(
    network: str, name: str, addresses: list[IPv4Address | IPv6Address], content_type: str
) -> None:
    command = CreateEndpoint(tenant="acme", network=network, name=name, addresses=tuple(addresses))
    subject = CommandSubject("acme", "endpoint", "create")
    assert codec.decode_command(subject, codec.encode(command, content_type), content_type) == command


@given(payload=st.binary(max_size=2000), subject=SUBJECTS, content_type=CONTENT_TYPES)
def test_any_bytes_are_a_message_or_malformed(payload: bytes, subject: CommandSubject, content_type: str) -> None:
    with contextlib.suppress(Malformed):
        codec.decode_command(subject, payload, content_type)
    with contextlib.suppress(Malformed):
        codec.decode_reply(payload, content_type)
    with contextlib.suppress(Malformed):
        codec.decode_event(payload)


@given(fields=st.dictionaries(st.sampled_from(["network", "name", "tag", "subnets", "addresses", "x"]), VALUES))
def test_any_map_is_a_message_or_malformed(fields: dict[str, Any]) -> None:
    payload = msgspec.msgpack.encode(fields)
    for construct in ("network", "endpoint"):
        with contextlib.suppress(Malformed):
            codec.decode_command(CommandSubject("acme", construct, "create"), payload)


@given(code=st.text(), detail=st.text(), content_type=CONTENT_TYPES)
def test_any_text_can_be_answered(code: str, detail: str, content_type: str) -> None:
    reply = Refused(code=code, detail=detail)
    assert codec.decode_reply(codec.encode(reply, content_type), content_type) == reply


@given(st.lists(st.tuples(st.integers(1, 4094), st.integers(0, 50)), min_size=1))
def test_ranges_read_back_what_they_format(pairs: list[tuple[int, int]]) -> None:
    text = ",".join(f"{first}-{min(4094, first + more)}" for first, more in pairs)
    parsed = ranges.parse_ranges(text, "vlans", ranges.VLANS)
    assert ranges.parse_ranges(ranges.format_ranges(parsed), "vlans", ranges.VLANS) == parsed
    wanted = {number for first, more in pairs for number in range(first, min(4094, first + more) + 1)}
    assert {number for first, last in parsed for number in range(first, last + 1)} == wanted
