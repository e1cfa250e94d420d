"""What a noun's file is made of: its verbs, and the session that they run in."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import msgspec

from messages import codec
from messages.addresses import decode_address
from messages.catalog import event_name
from messages.names import DEFAULT_TENANT
from messages.replies import Accepted, Planned
from messages.struct import Command

from . import output
from .client import Client
from .exits import DONE, Ended, wrong_usage
from .server import Server, find_server, local_host

SHORT_VERBS = {"ls": "list", "rm": "delete", "get": "show"}

CommandT = TypeVar("CommandT", bound=Command)


class Session:
    """One run of a verb: what was said everywhere, and the client, which connects when it is first used."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self._chosen = chosen
        self._server: Server | None = None
        self._client: Client | None = None

    @property
    def server(self) -> Server:
        """Which server. Raises: Ended."""
        if self._server is None:
            self._server = find_server(self._chosen.server, self._chosen.creds, self._chosen.context)
        return self._server

    @property
    def client(self) -> Client:
        """The connection, open. Raises: Ended."""
        if self._client is None:
            self._client = Client(self.server, self._chosen.timeout)
            self._client.at = self._chosen.at or ""
            self._client.is_dry_run = self._chosen.dry_run
            self._client.connect()
        return self._client

    @property
    def tenant(self) -> str:
        """Whose: -t, else the context's, else `default`."""
        if self._chosen.tenant is not None:
            return str(self._chosen.tenant)
        with suppress(
            Ended
        ):  # no server is known: that is said when it is needed, after what is wrong in what was typed
            return self.server.tenant or DEFAULT_TENANT
        return DEFAULT_TENANT

    @property
    def named_tenant(self) -> str | None:
        """The tenant of -t, none when it was not given."""
        return None if self._chosen.tenant is None else str(self._chosen.tenant)

    @property
    def host(self) -> str:
        """The host that is meant when none is named."""
        with suppress(Ended):  # as above
            return local_host(self.server)
        return local_host(None)

    @property
    def timeout_s(self) -> float:
        """How long an answer is waited for."""
        return float(self._chosen.timeout)

    @property
    def output(self) -> str:
        """table, json, jsonl, yaml or name."""
        return str(self._chosen.output)

    @property
    def waits(self) -> bool:
        """--wait applied."""
        return bool(self._chosen.wait == "applied")

    def close(self) -> None:
        """The connection is closed."""
        if self._client is not None:
            self._client.close()


class Verb(NamedTuple):
    """One verb: what it does in a line, its own arguments, and how it is done; returns an exit status.

    `is_change`: it sends one command, which can be tried (--dry-run); `is_read`: it can be asked of the past (--at).
    """

    summary: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Session, argparse.Namespace], int]
    is_change: bool = False
    is_read: bool = False


def message(kind: type[CommandT], **fields: Any) -> CommandT:
    """A command of what was typed; None means left out. Raises: Ended with status 2, naming what can never be right."""
    given = {key: value for key, value in fields.items() if value is not None}
    try:
        return msgspec.convert(given, kind, dec_hook=decode_address)
    except msgspec.ValidationError as fault:
        raise wrong_usage(_without_path(str(fault))) from None


def _without_path(text: str) -> str:
    return text.partition(" - at `$")[0]


def number(text: str) -> int:
    """A whole number, for argparse. Raises: argparse.ArgumentTypeError."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return int(text)


def show_changed(session: Session, accepted: Accepted, sentence: str, gone: Mapping[str, Any] | None = None) -> int:
    """A change is on stdout with its journal sequence: a sentence, or the object (of what is gone, its name)."""
    if session.output == "table":
        again = "" if accepted.is_changed and not accepted.is_repeated else " (it was so already)"
        notes = "".join(f"; {note}" for note in accepted.notes)
        print(f"{sentence}{notes}, seq {accepted.seq}{again}")
        return DONE
    fields = output.shape(accepted.object) if accepted.object is not None else dict(gone or {})
    output.show_one({**fields, **outcome_fields(accepted)}, session.output)
    return DONE


def outcome_fields(accepted: Accepted) -> Mapping[str, Any]:
    """What a program is told of a change beside the object: its sequence, whether it changed anything, what else."""
    notes = {"notes": accepted.notes} if accepted.notes else {}
    return {"seq": accepted.seq, "is_changed": accepted.is_changed, **notes}


def show_planned(session: Session, planned: Planned) -> int:
    """What a command would become is on stdout: a line for each event, or all of it for programs."""
    if session.output != "table":
        fields: dict[str, Any] = codec.to_builtins(planned)
        output.show_one({**fields, "is_dry_run": True}, session.output)
        return DONE
    if not planned.events:
        print(f"nothing would change: it is so already, seq {planned.seq}")
        return DONE
    print(f"nothing was done; on the state of seq {planned.seq} these would be recorded:")
    rows = [(event_name(each.event), each.subject) for each in planned.events]
    print(output.table(("EVENT", "SUBJECT"), rows), end="")
    print("".join(f"{note}\n" for note in planned.notes), end="")
    return DONE


def show_list(
    session: Session, views: Sequence[msgspec.Struct], titles: output.Row, row: Callable[[Any], output.Row]
) -> int:
    """Views are on stdout, as a table with these columns or as programs want them."""
    if session.output == "table":
        print(output.table(titles, [row(view) for view in views]), end="")
    else:
        output.show_many([output.shape(view) for view in views], session.output)
    return DONE


def show_item(session: Session, view: msgspec.Struct) -> int:
    """One view is on stdout, as a block of `field: value` lines or as programs want it."""
    fields = output.shape(view)
    if session.output != "table":
        output.show_one(fields, session.output)
        return DONE
    lines = list(_lines(fields, ""))
    width = max(len(key) for key, _ in lines)
    print("".join(f"{key.ljust(width)}  {value}\n" for key, value in lines), end="")
    return DONE


def _lines(fields: Mapping[str, Any], prefix: str) -> Sequence[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for key, value in fields.items():
        if isinstance(value, dict):
            lines += _lines(value, f"{prefix}{key}.")
        else:
            text = output.joined(value) if isinstance(value, (list, tuple)) else str(value)
            lines.append((f"{prefix}{key}", text if text and value is not None else "-"))
    return lines
