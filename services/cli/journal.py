"""`netctl journal`: as two files, taken while everything runs, and put back; and which one a host follows.

The files are those of `nats stream backup` (backup.json, stream.tar.s2). Both verbs act as ipam, whose seed is on every
server (STATE_DIR/keys/ipam.nk): it is found beside the operator's, or named by --creds. Source: ADR-2 of NATS, streams'
snapshot and restore.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import msgspec

from messages import subjects

from . import journal_adopt, journal_reader, output
from .client import Client
from .exits import DONE, FAILED, Ended
from .server import Server
from .verbs import Session, Verb
from .wire import Message, NoResponders

DESCRIPTION_FILE = "backup.json"
CONTENT_FILE = "stream.tar.s2"
CHUNK_BYTES = 128 * 1024
SILENCE_S = 30.0  # the server reads or writes its files meanwhile
API = "$JS.API.STREAM"


def _backup_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", type=Path, help="a new directory")


def _restore_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", type=Path, help="what `journal backup` wrote")
    parser.add_argument("--replace", action="store_true", help="in place of the journal that is there, which is lost")


def _backup(session: Session, chosen: argparse.Namespace) -> int:
    directory: Path = chosen.directory
    try:
        directory.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        raise Ended(FAILED, f"{directory} is there: expected a new directory") from None
    client = _as_ipam(session)
    try:
        described = _take(client, directory)
    finally:
        client.close()
    return _say(session, directory, described, "backed up to")


def _take(client: Client, directory: Path) -> dict[str, Any]:
    inbox = f"{client.server.inbox_prefix}.{os.urandom(8).hex()}"
    client.wire.subscribe(inbox)
    question = {"deliver_subject": inbox, "no_consumers": True, "chunk_size": CHUNK_BYTES}
    described = _call(client, f"SNAPSHOT.{subjects.JOURNAL_STREAM}", question)
    draft = directory / f".{CONTENT_FILE}.new"
    with draft.open("wb") as file:
        while (chunk := _next(client, inbox)).payload:
            file.write(chunk.payload)
            client.wire.publish(chunk.reply, b"")
        if chunk.status:
            raise Ended(FAILED, f"the server broke off: {chunk.status} {chunk.description}")
        file.flush()
        os.fsync(file.fileno())
    kept = {key: described[key] for key in ("config", "state")}
    (directory / DESCRIPTION_FILE).write_text(json.dumps(kept, indent=2) + "\n")
    draft.replace(directory / CONTENT_FILE)  # last: a backup that broke off has none
    return kept


def _next(client: Client, inbox: str) -> Message:
    message = client.wire.next_on(inbox, time.monotonic() + SILENCE_S)
    if message is None:
        raise Ended(FAILED, f"the server sent nothing more for {SILENCE_S:g} s: the backup is not whole")
    return message


def _restore(session: Session, chosen: argparse.Namespace) -> int:
    directory: Path = chosen.directory
    try:
        kept = json.loads((directory / DESCRIPTION_FILE).read_text())
        content = (directory / CONTENT_FILE).open("rb")
    except (OSError, ValueError) as fault:
        raise Ended(FAILED, f"{directory} holds no backup: {fault}") from None
    client = _as_ipam(session)
    try:
        with content:
            _make_room(client, is_replacing=chosen.replace)
            target = _call(client, f"RESTORE.{subjects.JOURNAL_STREAM}", kept)["deliver_subject"]
            while chunk := content.read(CHUNK_BYTES):
                _checked(client.wire.request(target, chunk, None, time.monotonic() + SILENCE_S))
            _checked(client.wire.request(target, b"", None, time.monotonic() + SILENCE_S))
    finally:
        client.close()
    return _say(session, directory, kept, "restored from")


def _make_room(client: Client, *, is_replacing: bool) -> None:
    """There is no journal, nor a snapshot of what was folded from one. Raises: Ended."""
    try:
        state = journal_reader.stream_facts(client, subjects.JOURNAL_STREAM).get("state", {})
    except Ended:
        state = None
    if state is not None:
        if not is_replacing and state.get("last_seq", 0):
            said = f"there is a journal already, up to sequence {state['last_seq']}"
            raise Ended(FAILED, f"{said}: give --replace to lose it")
        _call(client, f"DELETE.{subjects.JOURNAL_STREAM}", None)
    snapshots = {"filter": f"{subjects.SNAPSHOTS}.>"}  # one of a later moment would be taken for this journal's
    _call(client, f"PURGE.{subjects.STATE_STREAM}", snapshots)


def _as_ipam(session: Session) -> Client:
    """A client that may do with streams what it likes. Raises: Ended."""
    client = Client(_ipam_of(session.server), session.timeout_s)
    client.connect()
    return client


def _ipam_of(server: Server) -> Server:
    from services.runtime import identity

    seed = Path(server.seed_file)
    beside = identity.seed_file(seed.parent, identity.IPAM)
    if seed.name != beside.name and server.seed_file and os.access(beside, os.R_OK):
        prefix = identity.inbox_prefix(identity.IPAM)
        return msgspec.structs.replace(server, seed_file=str(beside), inbox_prefix=prefix)
    return server


def _call(client: Client, verb: str, question: dict[str, Any] | None) -> dict[str, Any]:
    """The server's answer. Raises: Ended with its words when it says no."""
    payload = json.dumps(question).encode() if question is not None else b""
    try:
        return _checked(client.wire.request(f"{API}.{verb}", payload, None, time.monotonic() + SILENCE_S))
    except (NoResponders, TimeoutError):
        raise Ended(FAILED, f"{verb.partition('.')[0].lower()}: JetStream does not answer") from None


def _checked(message: Message) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(message.payload) if message.payload else {}
    if "error" in said:
        raise Ended(FAILED, f"refused by the server: {said['error'].get('description', said['error'])}")
    return said


def _say(session: Session, directory: Path, kept: dict[str, Any], what: str) -> int:
    state = kept["state"]
    facts = {
        "directory": str(directory),
        "messages": state.get("messages", 0),
        "last_seq": state.get("last_seq", 0),
        "bytes": (directory / CONTENT_FILE).stat().st_size,
    }
    if session.output == "table":
        print(f"journal {what} {directory}: {facts['messages']} events, last seq {facts['last_seq']}")
    else:
        output.show_one(facts, session.output)
    return DONE


VERBS = {
    "adopt": journal_adopt.VERB,
    "backup": Verb("The journal as files in a new directory, taken while everything runs.", _backup_arguments, _backup),
    "restore": Verb("The journal is what a backup holds.", _restore_arguments, _restore),
}
