"""Who is let in by a server: those it was prepared with, less the removed, and those who joined since."""

from __future__ import annotations

from pathlib import Path

import pytest

from messages.codec import encode
from messages.host import HostAdmitted, HostInvited, HostJoined, HostRemoved
from messages.struct import Event
from services import admissions
from services.admissions import INVITATION_KNOWN_FOR_NS, Admissions
from services.runtime.errors import Misconfigured
from services.runtime.journal import Recorded

GIVEN = {"operator": "UOP", "host-a": "UA"}


def folded(*events: Event) -> Admissions:
    known = Admissions()
    for seq, event in enumerate(events, 1):
        known.apply(Recorded(seq, "np.v1.evt.fabric.host.x", encode(event), {}, 0))
    return known


def admitted(host: str, key: str) -> HostAdmitted:
    return HostAdmitted(host=host, public_key=key, machine_id="m", invitation="i")


def test_who_joined_is_let_in_beside_those_that_were_given() -> None:
    known = folded(admitted("d", "UD"), HostJoined(host="d", driver="ovs", datapath="netdev", version="1"))
    assert known.users(GIVEN, 0) == {**GIVEN, "host-d": "UD"}


def test_the_newest_key_of_a_host_is_the_one() -> None:
    assert folded(admitted("d", "UD"), admitted("d", "UE")).users({}, 0) == {"host-d": "UE"}


def test_a_removed_host_is_let_in_no_more_whoever_gave_its_key() -> None:
    known = folded(admitted("d", "UD"), HostRemoved(host="d"), HostRemoved(host="a"))
    assert known.users(GIVEN, 0) == {"operator": "UOP"}


def test_a_removed_host_that_joins_again_has_its_new_key() -> None:
    assert folded(HostRemoved(host="a"), admitted("a", "UN")).users(GIVEN, 0) == {"operator": "UOP", "host-a": "UN"}


def test_nobody_takes_the_name_of_a_host_that_was_given() -> None:
    assert folded(admitted("a", "UN")).users(GIVEN, 0) == GIVEN


def test_a_token_is_known_until_a_day_after_its_end() -> None:
    known = folded(HostInvited(invitation="abc", public_key="UT", expires_at_ns=5))
    assert known.users({}, INVITATION_KNOWN_FOR_NS + 4) == {"join-abc": "UT"}
    assert known.users({}, INVITATION_KNOWN_FOR_NS + 5) == {}


def test_an_event_of_a_newer_version_changes_nothing() -> None:
    known = Admissions()
    known.apply(Recorded(1, "np.v1.evt.fabric.host.blessed", b"\x81\xa4type\xabhost-blessed", {}, 0))
    assert known == Admissions()


def test_what_was_known_is_known_again(tmp_path: Path) -> None:
    invited = HostInvited(invitation="i", public_key="U", expires_at_ns=5)
    known = folded(admitted("d", "UD"), HostRemoved(host="a"), invited)
    admissions.save(tmp_path, known)
    assert admissions.load(tmp_path) == known


def test_a_file_that_is_damaged_is_named(tmp_path: Path) -> None:
    assert admissions.load(tmp_path) == Admissions()
    (tmp_path / admissions.FILE).write_text("{")
    with pytest.raises(Misconfigured, match=r"admitted\.json"):
        admissions.load(tmp_path)
