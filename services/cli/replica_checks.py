"""How the servers of a cluster keep the journal: which one leads, which is behind or away, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from services.runtime.identity import SERVER_PREFIX

from .status import BAD, OK, POOR, Check

SILENT_S = 5.0  # followers answer their leader once a second
REPLICAS_WANTED = 3
_NS = 10**9


def replica_checks(facts: Mapping[str, Any], servers: int) -> Iterator[Check]:
    """A line for each server that keeps the stream that `facts` describes; none for a server that is alone.

    `servers`: how many the client knows of.
    """
    cluster = facts.get("cluster") or {}
    replicas: list[Mapping[str, Any]] = sorted(cluster.get("replicas") or (), key=lambda each: str(each.get("name")))
    kept_by = int(facts.get("config", {}).get("num_replicas", 1))
    if servers < 2 and not replicas:
        return
    leader = str(cluster.get("leader") or "")
    if leader:
        yield Check("server", _name(leader), OK, "leads the journal")
    else:
        yield Check("server", "-", BAD, "nobody leads the journal", "most servers must run: start `netplugin` on them")
    away = sum(1 for each in replicas if _is_away(each))
    for each in replicas:
        yield _replica(each, left=kept_by - away, kept_by=kept_by)
    wanted = min(REPLICAS_WANTED, servers)
    if kept_by < wanted:
        yield Check(
            "server",
            "all",
            POOR,
            f"the journal is kept by {kept_by} of {servers} servers",
            f"the ipam actor spreads it to {wanted} when it starts and all of them run: restart `netplugin` on one",
        )


def _replica(replica: Mapping[str, Any], left: int, kept_by: int) -> Check:
    name = _name(str(replica.get("name")))
    heard_s = int(replica.get("active", 0)) / _NS
    seen = f"last heard of {heard_s:.1f} s ago" if heard_s else "never heard of"
    if _is_away(replica):
        goes_on = "commands go on" if left > kept_by // 2 else "commands stop until it is back"
        advice = f"start `netplugin` on it: {left} of {kept_by} servers keep the journal, {goes_on}"
        return Check("server", name, BAD, f"away, {seen}", advice)
    if not replica.get("current"):
        behind = f"{replica.get('lag', 0)} entries behind, {seen}"
        return Check(
            "server", name, POOR, behind, "it is catching up; if that does not end, look at its disk and its log"
        )
    return Check("server", name, OK, f"follows, {seen}")


def _is_away(replica: Mapping[str, Any]) -> bool:
    """Whether a server is away: said to be, or its leader has heard nothing of it (a new leader: nothing ever)."""
    heard_s = int(replica.get("active", 0)) / _NS
    return bool(replica.get("offline")) or (not replica.get("current") and (not heard_s or heard_s > SILENT_S))


def _name(server: str) -> str:
    return server.removeprefix(SERVER_PREFIX)
