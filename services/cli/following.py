"""`watch`: a list, and then each object again when something happened to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import msgspec

from messages.struct import Command

from . import output
from .verbs import Session

TICK_S = 5.0  # the list is asked for at least so often: with a connection, events may have been lost
SETTLE_S = 0.02  # what comes together is shown together

Views = Mapping[tuple[str, ...], msgspec.Struct]


def watch_views(
    session: Session,
    query: Command,
    followed: Sequence[str],
    titles: output.Row,
    row: Callable[[Any], output.Row],
) -> NoReturn:
    """Objects are on stdout as they are, then each that changes, until interrupted. Raises: Ended."""
    client = session.client
    for subject in followed:
        client.follow(subject)
    shown: Views = {}
    if session.output == "table":
        print(output.table(titles, ()), end="")
    while True:
        client.deadline = time.monotonic() + client.timeout_s + TICK_S
        now = {_key(view): view for view in client.items(query).objects}
        for key, view in now.items():
            if shown.get(key) != view:
                _print(session, view, titles, row)
        for key in shown.keys() - now.keys():
            _print_gone(session, key, titles)
        shown = now
        until = time.monotonic() + TICK_S
        while client.next_message(until) is not None:
            until = time.monotonic() + SETTLE_S


def _key(view: Any) -> tuple[str, ...]:
    return (getattr(view, "tenant", ""), getattr(view, "network", ""), view.name)


def _print(session: Session, view: msgspec.Struct, titles: output.Row, row: Callable[[Any], output.Row]) -> None:
    if session.output == "table":
        print(_padded(row(view), titles), flush=True)
    else:
        output.show_next(output.shape(view), session.output)


def _print_gone(session: Session, key: tuple[str, ...], titles: output.Row) -> None:
    tenant, network, name = key
    if session.output == "table":
        named = key if "NETWORK" in titles else (tenant, name) if "TENANT" in titles else (name,)
        print(_padded((*named, "deleted"), titles), flush=True)
    elif session.output != "name":
        gone = {"tenant": tenant, "network": network, "name": name, "is_deleted": True}
        output.show_next(gone, session.output)


def _padded(cells: output.Row, titles: output.Row) -> str:
    # What is still to come is not known, so the columns are as wide as what usually stands in them.
    return "  ".join(cell.ljust(max(len(title), 12)) for cell, title in zip(cells, titles, strict=False)).rstrip()
