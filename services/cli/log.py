"""`netctl log`: who did what when, refusals included."""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from messages import codec, subjects

from . import events, journal_reader, output
from .exits import DONE
from .journal_reader import Recorded, Start
from .network import check_network
from .verbs import Session, Verb, number

TITLES = ("SEQ", "TIME (UTC)", "BY", "WHAT", "OUTCOME", "COMMAND")
ACTORS_OWN = "-"


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", metavar="SEQ|TIME", help="17, 10m, 2026-01-31T12:00:00Z (default: the beginning)")
    parser.add_argument("--last", type=number, metavar="N", help="only the last N")
    parser.add_argument("--refused", action="store_true", help="only refusals")


def _log(session: Session, chosen: argparse.Namespace) -> int:
    if chosen.tenant is not None and chosen.tenant != subjects.FABRIC:
        check_network(chosen.tenant, None)
    since = journal_reader.parse_since(chosen.since, datetime.now(UTC)) if chosen.since else Start()
    done = [] if chosen.refused else list(_done(session, chosen.tenant, since))
    refusals = list(_refusals(session, chosen.tenant, since))
    if done and not since.time and since.seq > 1:  # refusals have sequences of their own: they begin at the same time
        refusals = [entry for entry in refusals if entry["time"] >= done[0]["time"]]
    entries = list(heapq.merge(done, refusals, key=lambda entry: str(entry["time"])))
    if chosen.last is not None:
        entries = entries[-chosen.last :] if chosen.last else []
    if session.output == "table":
        print(output.table(TITLES, [_row(entry) for entry in entries]), end="")
    else:
        output.show_many(entries, session.output)
    return DONE


def _done(session: Session, tenant: str | None, since: Start) -> Iterator[dict[str, Any]]:
    subject = journal_reader.event_filter(tenant)
    return by_command(journal_reader.read(session.client, subjects.JOURNAL_STREAM, subject, since))


def by_command(recorded: Iterable[Recorded]) -> Iterator[dict[str, Any]]:
    """One entry for all that one command brought about; what hosts report stands for itself."""
    entry: dict[str, Any] | None = None
    for each in recorded:
        event = events.describe(each)
        if entry is not None and event["command_id"] and event["command_id"] == entry["command_id"]:
            entry["what"].append(f"{event['type']} {events.object_of(event)}")
            entry["seq"] = event["seq"]
            continue
        if entry is not None:
            yield entry
        entry = {
            "seq": event["seq"],
            "time": event["time"],
            "by": event["by"],
            "what": [f"{event['type']} {events.object_of(event)}"],
            "outcome": "done",
            "code": "",
            "detail": str(event["event"].get("reason", "")),
            "command_id": event["command_id"],
        }
    if entry is not None:
        yield entry


def _refusals(session: Session, tenant: str | None, since: Start) -> Iterator[dict[str, Any]]:
    subject = f"{subjects.AUDIT}.{tenant}.>" if tenant else subjects.ALL_AUDIT
    start = since if since.time else Start()
    for each in journal_reader.read(session.client, subjects.AUDIT_STREAM, subject, start):
        yield refusal(each)


def refusal(recorded: Recorded) -> dict[str, Any]:
    """A refused command as an entry of the log."""
    tokens = recorded.subject.split(".")
    try:
        found = codec.unpack(recorded.payload)
        fields = found if isinstance(found, dict) else {}
    except codec.Malformed as fault:
        fields = {"code": "undecodable", "detail": fault.detail}
    what = recorded.headers.get("Np-Command") or ".".join(tokens[4:])
    return {
        "seq": None,
        "time": recorded.at,
        "by": recorded.headers.get("Np-By", ""),
        "what": [f"{what} {tokens[3] if len(tokens) > 3 else ''}".strip()],
        "outcome": "refused",
        "code": str(fields.get("code", "")),
        "detail": str(fields.get("detail", "")),
        "command_id": recorded.headers.get("Np-Command-Id", ""),
    }


def _row(entry: dict[str, Any]) -> output.Row:
    said = ": ".join(part for part in (entry["outcome"], entry["code"], entry["detail"]) if part)
    seq = "-" if entry["seq"] is None else str(entry["seq"])
    return (
        seq,
        events.clock(entry["time"]),
        entry["by"] or ACTORS_OWN,
        _summary(entry["what"]),
        said,
        entry["command_id"] or "-",
    )


def _summary(what: list[str]) -> str:
    """The last that a command brought about is what it was for; how much else there was is told."""
    return what[-1] if len(what) == 1 else f"{what[-1]} (+{len(what) - 1})"


VERBS = {"": Verb("Who did what when, refusals included.", _arguments, _log)}
