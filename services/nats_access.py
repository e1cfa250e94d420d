"""Who may say and hear what on our own nats-server: its accounts as configuration text. Nothing is open by default.

    account EDGE: operator, hosts, viewer, daemon          account NP: ipam, and the journal (JetStream)
        np.v1.cmd.acme.network.create  ----- import, the server adds who sent it ----->  np.v1.svc.acme.network.create
        a part of $JS.API, $SRV.>      ----- import ----->
        np.v1.evt.*.port.<host>.*      ----- import ----->  the journal
        _INBOX.>, np.v1.evt.>          <---- import ------  what ordered consumers deliver

Two accounts, because the server checks the subject that a message is published to and never the one that its answer is
asked to: in one account whoever answers can be made to repeat bytes on the subject of an event or a command (tried: a
viewer's direct get wrote an event). An answer across accounts goes back to the sender's account and no further.

EDGE also sees np.v1.evt.> live, for whoever only wants to look: what the journal refuses, and answers asked to such a
subject, show there too, so whoever decides by an event takes it from an ordered consumer.

`Nats-Request-Info` is written by the server at the import with `share: true` and replaces a forged one. So that nothing
comes without it nobody may publish on np.v1.svc; the actors' own account imports its own service too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import msgspec

from messages import subjects

from .runtime import identity

EDGE = "EDGE"
NP = "NP"
SYS = "SYS"

_STREAMS = (subjects.JOURNAL_STREAM, subjects.STATE_STREAM, subjects.AUDIT_STREAM)
_SERVICES = f"{subjects.SERVICES}.>"
_COMMANDS = f"{subjects.COMMANDS}.>"
_SHOWN = ("endpoint", "network", "host")
_STATISTICS = f"{subjects.ROOT}.stat"
_DISCOVERY = "$SRV.>"
_PORT_REPORTS = f"{subjects.EVENTS}.*.port.*.*"
_PORT_STATES = f"{subjects.PORTS}.>"

# What reads a stream: asked once and answered once, or answered many times. No stream can be made, changed or emptied.
_READ_ONE = (
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    *(
        subject.format(stream)
        for stream in _STREAMS
        for subject in (
            "$JS.API.STREAM.INFO.{}",
            "$JS.API.STREAM.MSG.GET.{}",
            "$JS.API.CONSUMER.CREATE.{}",
            "$JS.API.CONSUMER.CREATE.{}.>",
            "$JS.API.CONSUMER.INFO.{}.*",
            "$JS.API.CONSUMER.DELETE.{}.*",
            "$JS.FC.{}.>",
            "$JS.ACK.{}.>",
        )
    ),
)
_READ_MANY = tuple(
    subject.format(stream)
    for stream in _STREAMS
    for subject in ("$JS.API.CONSUMER.MSG.NEXT.{}.*", "$JS.API.DIRECT.GET.{}", "$JS.API.DIRECT.GET.{}.>")
)
_READ = _READ_ONE + _READ_MANY
_READ_JOURNAL = tuple(
    subject for subject in _READ if subjects.STATE_STREAM not in subject and subjects.AUDIT_STREAM not in subject
)


class Rights(msgspec.Struct, frozen=True):
    """What one user may publish and subscribe to; everything else is refused."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    answers: bool = False  # may answer what it is asked, wherever the answer was asked to


def rights_of(user: str) -> Rights:
    """The rights of a user of `identity`. Raises: ValueError for a user that is none."""
    inbox = f"{identity.inbox_prefix(user)}.>"
    if user.startswith(identity.JOIN_PREFIX):
        return Rights((subjects.command(subjects.FABRIC, "host", "admit"),), (inbox,))
    if user.startswith(identity.HOST_PREFIX):
        return _host_rights(user.removeprefix(identity.HOST_PREFIX), inbox)
    match user:
        case (
            identity.OPERATOR
        ):  # any inbox: a stock client knows nothing of ours, and the operator may read all there is
            asks = (_COMMANDS, f"{subjects.HOSTS}.>", _DISCOVERY)
            return Rights((*asks, *_READ), ("_INBOX.>", subjects.ALL_EVENTS, f"{_STATISTICS}.>"))
        case identity.VIEWER:
            return Rights((_DISCOVERY, *_READ), (inbox, subjects.ALL_EVENTS, f"{_STATISTICS}.>"))
        case identity.DAEMON:
            return Rights((_DISCOVERY, *_READ_JOURNAL), (inbox,))
        case identity.IPAM:
            records = (subjects.EVENTS, subjects.AUDIT, subjects.RULES, subjects.SNAPSHOTS, subjects.COMMANDS)
            journal = ("$JS.API.>", "$JS.ACK.>", "$JS.FC.>", "$JS.SNAPSHOT.>")  # the last: `netctl journal restore`
            return Rights((*(f"{r}.>" for r in records), *journal), (_SERVICES, _DISCOVERY, inbox), answers=True)
    raise ValueError(f"{user!r} is no user of the bus")


def _host_rights(host: str, inbox: str) -> Rights:
    asks = (
        *(f"{subjects.COMMANDS}.*.{what}.{verb}" for what in _SHOWN for verb in ("get", "list")),
        f"{subjects.COMMANDS}.*.host.join",
        "$SRV.PING.*",
    )
    reports = (subjects.port_event("*", host, "*"), f"{subjects.PORTS}.{host}.>", f"{_STATISTICS}.{host}")
    hears = (f"{subjects.HOSTS}.{host}.>", _DISCOVERY, inbox)
    return Rights((*asks, *reports, *_READ), hears, answers=True)


def accounts(public_keys: Mapping[str, str]) -> str:
    """The `accounts` of a server's configuration for these users (name -> nkey public key). Raises: ValueError."""
    deciding = sorted(user for user in public_keys if user in identity.DECIDING_ACTORS)
    others = sorted(public_keys.keys() - set(deciding))
    offers = [
        *(_export("service", subject) for subject in (*_READ_ONE, _PORT_REPORTS, _PORT_STATES)),
        *(_export("service", subject, "response_type: stream") for subject in (*_READ_MANY, _DISCOVERY)),
        *(_export("stream", subject) for subject in ("_INBOX.>", subjects.ALL_EVENTS)),
    ]
    takes = [
        *(_import("service", subject) for subject in (*_READ, _PORT_REPORTS, _PORT_STATES, _DISCOVERY)),
        *(_import("stream", subject) for subject in ("_INBOX.>", subjects.ALL_EVENTS)),
    ]
    command_export = f"{{ service: {json.dumps(_SERVICES)}, accounts: [{NP}, {EDGE}] }}"
    service = f"service: {{ account: {NP}, subject: {json.dumps(_SERVICES)} }}"
    command_import = f"{{ {service}, to: {json.dumps(_COMMANDS)}, share: true }}"
    return _block(
        "accounts",
        [
            f"{SYS} {{}}",
            _account(
                NP, "jetstream: enabled", [command_export, *offers], [command_import], _users(deciding, public_keys)
            ),
            _account(EDGE, "", [], [command_import, *takes], _users(others, public_keys)),
        ],
    )


def _users(users: Iterable[str], public_keys: Mapping[str, str]) -> list[str]:
    return [_user(public_keys[user], rights_of(user)) for user in users]


def _user(public_key: str, rights: Rights) -> str:
    answers = ', allow_responses: { max: 64, expires: "2m" }' if rights.answers else ""
    publish, subscribe = json.dumps(rights.publish), json.dumps(rights.subscribe)
    permissions = f"publish: {{ allow: {publish} }}, subscribe: {{ allow: {subscribe} }}{answers}"
    return f"{{ nkey: {public_key}, permissions: {{ {permissions} }} }}"


def _export(kind: str, subject: str, option: str = "") -> str:
    return f"{{ {kind}: {json.dumps(subject)}, accounts: [{EDGE}]{', ' if option else ''}{option} }}"


def _import(kind: str, subject: str) -> str:
    return f"{{ {kind}: {{ account: {NP}, subject: {json.dumps(subject)} }} }}"


def _account(name: str, settings: str, exports: list[str], imports: list[str], users: list[str]) -> str:
    parts = [settings, _list("exports", exports), _list("imports", imports), _list("users", users)]
    return _block(name, [part for part in parts if part])


def _list(name: str, items: list[str]) -> str:
    return f"{name}: [\n{_indent(items)}\n]" if items else ""


def _block(name: str, items: list[str]) -> str:
    return f"{name} {{\n{_indent(items)}\n}}"


def _indent(items: list[str]) -> str:
    return "\n".join(f"  {line}" for item in items for line in item.splitlines())
