from __future__ import annotations

from typing import Any

from services.cli.replica_checks import replica_checks
from services.cli.status import BAD, OK, POOR

S = 10**9


def facts(*replicas: dict[str, Any], leader: str = "netplugin-a", kept_by: int = 3) -> dict[str, Any]:
    return {"cluster": {"leader": leader, "replicas": list(replicas)}, "config": {"num_replicas": kept_by}}


def follower(name: str, **said: Any) -> dict[str, Any]:
    return {"name": f"netplugin-{name}", "current": True, "active": S // 2, **said}


def shown(*replicas: dict[str, Any], servers: int = 3, **settings: Any) -> dict[str, tuple[str, str, str]]:
    return {c.name: (c.state, c.facts, c.advice) for c in replica_checks(facts(*replicas, **settings), servers)}


def test_a_server_alone_has_nothing_to_say() -> None:
    assert list(replica_checks({"cluster": {"leader": "netplugin-h1"}, "config": {"num_replicas": 1}}, 1)) == []
    assert list(replica_checks({}, 1)) == []


def test_three_that_are_well() -> None:
    assert shown(follower("c"), follower("b")) == {
        "a": (OK, "leads the journal", ""),
        "b": (OK, "follows, last heard of 0.5 s ago", ""),
        "c": (OK, "follows, last heard of 0.5 s ago", ""),
    }


def test_one_that_is_away_is_bad_and_commands_go_on() -> None:
    state, said, advice = shown(follower("b"), follower("c", current=False, offline=True, active=7 * S))["c"]
    assert (state, said) == (BAD, "away, last heard of 7.0 s ago")
    assert "2 of 3 servers keep the journal, commands go on" in advice


def test_one_that_the_leader_does_not_hear_is_away() -> None:
    assert shown(follower("b", current=False, active=0))["b"][:2] == (BAD, "away, never heard of")
    assert shown(follower("b", current=False, active=9 * S))["b"][:2] == (BAD, "away, last heard of 9.0 s ago")


def test_of_two_one_that_is_away_stops_commands() -> None:
    _, _, advice = shown(follower("b", offline=True), servers=2, kept_by=2)["b"]
    assert "1 of 2 servers keep the journal, commands stop" in advice


def test_one_that_is_behind_says_by_how_much() -> None:
    state, said, _ = shown(follower("b"), follower("c", current=False, lag=40))["c"]
    assert (state, said) == (POOR, "40 entries behind, last heard of 0.5 s ago")


def test_without_a_leader_that_is_bad() -> None:
    assert shown(follower("b"), follower("c"), leader="")["-"][0] == BAD


def test_a_journal_on_fewer_servers_than_there_are_is_poor() -> None:
    found = shown(kept_by=1)
    assert found["all"][:2] == (POOR, "the journal is kept by 1 of 3 servers")
