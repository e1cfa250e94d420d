from __future__ import annotations

import pytest

from services.runtime import config
from services.runtime.errors import Misconfigured
from services.runtime.uplinks import ALL_TAGS, Uplink, parse_uplinks


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["eth1"], (Uplink("eth1"),)),
        (["eth1,eth2"], (Uplink("eth1"), Uplink("eth2"))),
        (["eth1:10-20,30", "eth2"], (Uplink("eth1", ((10, 20), (30, 30))), Uplink("eth2"))),
        (["eth1:10,20-30,eth2:7"], (Uplink("eth1", ((10, 10), (20, 30))), Uplink("eth2", ((7, 7),)))),
        ([""], ()),
    ],
)
def test_words_are_read_and_written(texts: list[str], found: tuple[Uplink, ...]) -> None:
    assert parse_uplinks(texts) == found
    assert parse_uplinks([",".join(map(str, found))]) == found


@pytest.mark.parametrize(
    "text", ["eth1,eth1", "eth1:0", "eth1:4095", "eth1:9-3", "eth1:x", ":7", "a/b", "much-too-long-name"]
)
def test_what_cannot_be_an_uplink_is_refused_by_name(text: str) -> None:
    with pytest.raises(Misconfigured, match="--uplink"):
        config.load({"uplinks": [text]}, {}, {})


def test_a_child_is_told_the_same() -> None:
    told = config.load({"uplinks": ["eth1:10-20,30", "eth2"], "host": "h1"}, {}, {})
    assert config.load({}, told.variables(), {}) == told
    assert config.load({"host": "h1"}, {}, {"uplinks": ["eth1:10-20,30", "eth2"]}) == told


def test_tags_pass_or_do_not() -> None:
    limited = Uplink("eth1", ((10, 20),))
    assert [limited.carries(tag) for tag in (9, 10, 20, 21)] == [False, True, True, False]
    assert not Uplink("eth1", ALL_TAGS).carries(100 | 1 << 24)  # a VNI's key


def test_names_fit_and_differ() -> None:
    one, other = Uplink("enp0s31f6np1234"), Uplink("enp0s31f6np1235")
    assert len(one.bridge) == 15
    assert one.bridge != other.bridge
    assert {Uplink("eth1").bridge, Uplink("eth1").inner_patch, Uplink("eth1").outer_patch} == {
        "phy-eth1",
        "up-eth1",
        "dn-eth1",
    }
