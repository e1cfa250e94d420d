from __future__ import annotations

import pytest

from messages import subjects
from services import nats_access
from services.runtime import identity

USERS = ("operator", "viewer", "daemon", "ipam", "host-h1", "join-abc")


def test_nobody_may_publish_where_only_the_server_delivers() -> None:
    for user in USERS:
        assert not any(subject.startswith((subjects.SERVICES, ">")) for subject in nats_access.rights_of(user).publish)


def test_nobody_but_ipam_may_make_or_change_a_stream() -> None:
    for user in USERS:
        rights = nats_access.rights_of(user).publish
        changes = ("$JS.API.>", "$JS.API.STREAM.CREATE", "$JS.API.STREAM.UPDATE", "$JS.API.STREAM.PURGE")
        wide = [subject for subject in rights if subject.startswith(changes)]
        assert bool(wide) == (user == identity.IPAM)


def test_a_host_speaks_for_itself_alone() -> None:
    rights = nats_access.rights_of("host-h1").publish
    assert {s for s in rights if s.startswith(subjects.EVENTS)} == {"np.v1.evt.*.port.h1.*"}
    assert {s for s in rights if s.startswith(f"{subjects.PORTS}.")} == {"np.v1.port.h1.>"}


def test_a_host_asks_for_nothing_that_changes_another() -> None:
    commands = {s for s in nats_access.rights_of("host-h1").publish if s.startswith(subjects.COMMANDS)}
    assert {s.rpartition(".")[2] for s in commands} == {"get", "list", "join"}


def test_who_holds_a_token_may_ask_to_be_let_in_and_nothing_else() -> None:
    rights = nats_access.rights_of("join-abc")
    assert rights.publish == ("np.v1.cmd.fabric.host.admit",)
    assert rights.subscribe == ("_INBOX.join-abc.>",)


def test_a_user_that_is_none_has_no_rights_to_ask_for() -> None:
    with pytest.raises(ValueError, match="mallory"):
        nats_access.rights_of("mallory")


def test_every_user_is_in_one_account_and_secrets_are_in_none() -> None:
    text = nats_access.accounts({user: f"U{user.upper()}" for user in USERS})
    np, edge = text.split("EDGE {", maxsplit=1)
    assert "nkey: UIPAM" in np
    for user in USERS:
        assert text.count(f"nkey: U{user.upper()},") == 1
        assert (f"nkey: U{user.upper()}," in edge) == (user != "ipam")
    assert "share: true" in np
    assert "share: true" in edge


def test_inboxes_of_the_two_accounts_do_not_meet() -> None:
    assert identity.inbox_prefix("ipam") == "_INBOX_NP.ipam"
    assert identity.inbox_prefix(identity.host_user("h1")) == "_INBOX.host-h1"
