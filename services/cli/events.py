"""`netctl events watch`: the journal as it is written, or again from any point."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from messages import codec, subjects

from . import journal_reader, output
from .exits import DONE
from .journal_reader import Recorded, Start
from .network import check_network
from .verbs import Session, Verb

SUBJECT_TOKENS_OF_NETWORK = 7  # np.v1.evt.<tenant>.net.<network>.<event>.<host>
HIDDEN = frozenset({"type", "tenant", "network", "name", "endpoint"})
GOOD_EVENTS = ("-bound", "-created", "-joined")
BAD_EVENTS = ("-failed",)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--since", metavar="SEQ|TIME", help="replay from here: 17, 10m, 2026-01-31T12:00:00Z (default: only what comes)"
    )
    parser.add_argument("--network", metavar="NETWORK", help="only of networks of this name")
    follow = parser.add_mutually_exclusive_group()
    follow.add_argument("--follow", dest="follow", action="store_true", default=True, help="go on for ever (default)")
    follow.add_argument("--no-follow", dest="follow", action="store_false", help="end when all there is has been shown")


def _watch(session: Session, chosen: argparse.Namespace) -> int:
    if chosen.tenant is not None and chosen.tenant != subjects.FABRIC:
        check_network(chosen.tenant, chosen.network)
    stream, subject = subjects.JOURNAL_STREAM, journal_reader.event_filter(chosen.tenant)
    start = journal_reader.parse_since(chosen.since, datetime.now(UTC)) if chosen.since is not None else Start()
    client = session.client
    if chosen.since is None and chosen.follow:
        start = Start(seq=journal_reader.last_seq(client, stream) + 1)
    reader = journal_reader.follow if chosen.follow else journal_reader.read
    for event in described(reader(client, stream, subject, start)):
        if chosen.network is None or event["network"] == chosen.network:
            show(session, event)
    return DONE


def described(recorded: Iterator[Recorded]) -> Iterator[dict[str, Any]]:
    """Events as programs get them; those of another version too, as far as they can be read."""
    for each in recorded:
        yield describe(each)


def describe(recorded: Recorded) -> dict[str, Any]:
    """One event with where and when it stands, who caused it and which command."""
    tokens = recorded.subject.split(".")
    try:
        found = codec.unpack(recorded.payload)
        fields = found if isinstance(found, dict) else {"payload": found}
    except codec.Malformed as fault:
        fields = {"undecodable": fault.detail}
    network = tokens[5] if tokens[4:5] == ["net"] and len(tokens) > 5 else str(fields.get("network", ""))
    return {
        "seq": recorded.seq,
        "time": recorded.at,
        "subject": recorded.subject,
        "tenant": tokens[3] if len(tokens) > 3 else "",
        "network": network,
        "name": str(
            fields.get("name") or fields.get("network") or network or fields.get("host") or fields.get("tenant") or ""
        ),
        "type": str(fields.get("type", "")),
        "by": author(recorded),
        "command_id": recorded.headers.get("Np-Command-Id", ""),
        "traceparent": recorded.headers.get("traceparent", ""),
        "event": fields,
    }


def author(recorded: Recorded) -> str:
    """Who caused it, as the server said; a host's own report is by that host."""
    tokens = recorded.subject.split(".")
    if tokens[4:5] == ["port"] and len(tokens) > 5:
        return f"host-{tokens[5]}"
    return recorded.headers.get("Np-By", "")


def show(session: Session, event: Mapping[str, Any]) -> None:
    """The event is on stdout: a line for people, a JSON line, YAML or its name."""
    if session.output == "table":
        print(line(event), flush=True)
    else:
        output.show_next(event, session.output)


def line(event: Mapping[str, Any]) -> str:
    """`12  2026-01-31 12:00:00.123  endpoint-bound  default/web/web1  container=c1 host=h1  operator`."""
    kind = str(event["type"])
    colour = output.BAD if kind.endswith(BAD_EVENTS) else output.GOOD if kind.endswith(GOOD_EVENTS) else ""
    facts = " ".join(
        f"{key}={output.joined(value) if isinstance(value, list) else value}"
        for key, value in event["event"].items()
        if key not in HIDDEN and value not in ("", None, [], {})
    )
    by = f"  by {event['by']}" if event["by"] else ""
    said = f"{output.coloured(kind.ljust(17), colour)}  {object_of(event)}  {facts}{by}"
    return f"{event['seq']:>6}  {clock(event['time'])}  {said}"


def object_of(event: Mapping[str, Any]) -> str:
    """What the event is about: `default/web/web1`, `default/web`, `default`."""
    parts = [event["tenant"], event["network"], event["name"]]
    distinct = [part for index, part in enumerate(parts) if part and part not in parts[:index]]
    return "/".join(distinct)


def clock(time: str) -> str:
    """An RFC 3339 time to the millisecond, in UTC, as people read it."""
    day, _, rest = time.removesuffix("Z").partition("T")
    seconds, _, fraction = rest.partition(".")
    return f"{day} {seconds}.{fraction[:3].ljust(3, '0')}"


VERBS = {"watch": Verb("events as they happen, or again from --since", _arguments, _watch)}
