"""A command's digest tells another command under the same id from a repeat, whatever encoded it."""

from __future__ import annotations

from ipaddress import ip_network

import msgspec
import pytest

from messages.codec import JSON, MSGPACK, decode_command, encode
from messages.network import CreateNetwork
from messages.struct import Command
from messages.subjects import CommandSubject
from services.runtime.command_digest import digest_of
from services.runtime.projection import _Snapshot
from tests.golden import examples

WEB = CreateNetwork(tenant="acme", network="web", subnets=(ip_network("10.0.0.0/24"),))


@pytest.mark.parametrize("command", examples.COMMANDS, ids=lambda command: type(command).__name__)
def test_every_command_has_one_that_is_its_own(command: Command) -> None:
    assert len(digest_of(command)) == 16
    others = [each for each in examples.COMMANDS if isinstance(each, Command) and each != command]
    assert digest_of(command) not in {digest_of(each) for each in others}


def test_it_is_the_same_however_the_command_came() -> None:
    subject = CommandSubject("acme", "network", "create")
    for form in (JSON, MSGPACK):
        command = decode_command(subject, encode(WEB, form), form)
        assert isinstance(command, CreateNetwork)
        assert digest_of(command) == digest_of(WEB)


def test_a_field_that_says_nothing_counts_for_nothing() -> None:
    """So that a version with one field more takes what was sent to the one before for the same."""

    class CreateNetworkAsBefore(Command, frozen=True, kw_only=True):
        network: str

    class CreateNetworkAsNow(CreateNetworkAsBefore, frozen=True, kw_only=True):
        colour: str = ""

    CreateNetworkAsNow.__name__ = CreateNetworkAsBefore.__name__
    before = digest_of(CreateNetworkAsBefore(tenant="acme", network="web"))
    assert digest_of(CreateNetworkAsNow(tenant="acme", network="web")) == before
    assert digest_of(CreateNetworkAsNow(tenant="acme", network="web", colour="red")) != before


def test_a_snapshot_of_before_there_were_digests_is_read() -> None:
    old = {"created": "now", "state": b"", "versions": {"np.v1.evt.acme.tenant.*": 3}, "seen": [["id", 3, 4]]}
    read = msgspec.msgpack.decode(msgspec.msgpack.encode(old), type=_Snapshot)
    assert read.seen == [("id", 3, 4)]
    assert read.digests == {}
