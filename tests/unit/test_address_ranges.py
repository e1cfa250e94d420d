"""Ranges of addresses as they are typed, and as they stand in messages."""

from __future__ import annotations

from copy import deepcopy
from ipaddress import ip_address, ip_network

import pytest

from messages.addresses import AddressRange, decode_address, encode_address, parse_range, parse_subnet


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("10.1.1.10-10.1.1.20", "10.1.1.10-10.1.1.20"),
        ("10.1.1.10 - 10.1.1.20", "10.1.1.10-10.1.1.20"),
        ("10.1.1.10", "10.1.1.10"),
        ("10.1.1.10-10.1.1.10", "10.1.1.10"),
        ("10.1.1.16/28", "10.1.1.16-10.1.1.31"),
        ("fd00::1-fd00::ffff", "fd00::1-fd00::ffff"),
        ("fd00::/64", "fd00::-fd00::ffff:ffff:ffff:ffff"),
    ],
)
def test_a_range_is_read_and_shown(text: str, shown: str) -> None:
    found = parse_range(text)
    assert str(found) == shown == encode_address(found)
    assert decode_address(AddressRange, shown) == found == deepcopy(found)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("10.1.1.20-10.1.1.10", "it is reversed: expected 10.1.1.10-10.1.1.20"),
        ("10.1.1.1-fd00::1", "of different families"),
        ("10.1.1.1-", "does not appear to be an IPv4 or IPv6 address"),
        ("10.1.1.17/28", "has host bits set"),
        ("", "does not appear to be"),
    ],
)
def test_what_is_no_range_is_said(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_range(text)


def test_a_range_knows_what_is_in_it_and_never_changes() -> None:
    found = parse_range("10.1.1.10-10.1.1.20")
    assert ip_address("10.1.1.20") in found
    assert ip_address("10.1.1.21") not in found
    assert ip_address("::a01:10a") not in found
    assert found.overlaps(parse_range("10.1.1.20-10.1.1.30"))
    assert not found.overlaps(parse_range("10.1.1.21"))
    assert found.is_within(ip_network("10.1.1.0/24"))
    assert not found.is_within(ip_network("10.1.1.0/28"))
    assert not found.is_within(ip_network("fd00::/64"))
    with pytest.raises(AttributeError):
        found.first = 1


def test_a_subnet_may_come_with_the_range_to_choose_from() -> None:
    assert parse_subnet("10.1.1.0/24") == (ip_network("10.1.1.0/24"), None)
    assert parse_subnet("10.1.1.10-10.1.1.20/24") == (ip_network("10.1.1.0/24"), parse_range("10.1.1.10-10.1.1.20"))
    assert parse_subnet("fd00::10-fd00::20/64") == (ip_network("fd00::/64"), parse_range("fd00::10-fd00::20"))
    with pytest.raises(ValueError, match=r"ends outside 10\.1\.1\.0/24"):
        parse_subnet("10.1.1.10-10.1.2.20/24")
    with pytest.raises(ValueError, match="has no prefix length"):
        parse_subnet("10.1.1.10-10.1.2.20")
