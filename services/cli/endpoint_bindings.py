"""`netctl endpoint attach -f FILE`: where endpoints that are there are put, many at once.

web1: c1@h1                 # the endpoint of this name in the tenant; its container and host
db/db1: {container: c2}     # that of network db; the host is this one
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from messages.endpoint import AttachEndpoint, EndpointView
from messages.names import check_container, check_token

from .apply import carry_out
from .exits import DONE, FAILED, USAGE, Ended
from .intent_having import ask_having
from .intent_plan import CHANGE, Having, Plan, Step
from .intent_reader import Fault, faulty, place_of, suggestion
from .intent_source import Document, documents
from .intent_waiting import wait_applied
from .verbs import Session

_KEYS = ("container", "host")


def attach_all(session: Session, files: Sequence[str], *, is_moving: bool) -> int:
    """Every endpoint that the files name is where they say, or none is. Raises: Ended."""
    places = read_bindings(documents(files), session.host)
    made = plan_attachments(places, ask_having(session.client, [session.tenant]), is_moving=is_moving)
    if made.conflicts:
        raise Ended(FAILED, "\n".join([*(f"refused: {conflict}" for conflict in made.conflicts), "nothing was done"]))
    carry_out(session, made)
    if session.waits:
        wait_applied(session.client, (change for step in made.steps for change in step.late))
    return DONE


def read_bindings(found: Sequence[Document], host: str) -> dict[str, tuple[str, str]]:
    """The container and host of each endpoint; `host` where none is said. Raises: Ended with status 2, all faults."""
    places: dict[str, tuple[str, str]] = {}
    faults: list[Fault] = []
    for document in found:
        where = str(document)
        if not isinstance(document.content, dict):
            raise Ended(USAGE, f"{where}: expected a map from endpoints to their places, such as web1: c1@h1")
        for name, said in document.content.items():
            text = f"endpoint {name} stands twice" if name in places else ""
            try:
                places[str(name)] = _place(said, host)
            except ValueError as fault:
                text = str(fault)
            if text:
                faults.append(Fault(where, str(name), text))
    if faults:
        raise faulty(faults)
    if not places:
        raise Ended(USAGE, "the files say nothing: expected endpoints and their places, such as web1: c1@h1")
    return places


def _place(said: Any, host: str) -> tuple[str, str]:
    """A container and its host. Raises: ValueError."""
    fields = place_of(said) if isinstance(said, str) else said
    if not isinstance(fields, dict) or not fields.get("container"):
        raise ValueError("expected a place such as c1@h1, or a map with container and host")
    for key in fields:
        if key not in _KEYS:
            raise ValueError(f"key {key!r} is not known: {suggestion(str(key), _KEYS)}")
    container, where = str(fields["container"]), str(fields.get("host") or host)
    check_container(container)
    check_token("host name", where)
    return container, where


def plan_attachments(places: dict[str, tuple[str, str]], having: Having, *, is_moving: bool) -> Plan:
    """What puts each endpoint into its place. One that is elsewhere stands in the way, unless it may move."""
    made = Plan()
    views = [view for each in having.endpoints.values() for view in each.values()]
    for name, (container, host) in places.items():
        found = [view for view in views if name in (view.name, f"{view.network}/{view.name}")]
        if len(found) != 1:
            networks = ", ".join(f"{view.network}/{name}" for view in found)
            made.conflicts.append(
                f"endpoint {name} is in more than one network: expected one of {networks}"
                if found
                else f"endpoint {name} is not there: create it first"
            )
        elif host not in having.hosts:
            members = ", ".join(sorted(having.hosts)) or "none yet"
            made.conflicts.append(f"endpoint {name}: host {host} is not a member: expected one of {members}")
        else:
            _put(made, found[0], container, host, is_moving=is_moving)
    return made


def _put(made: Plan, view: EndpointView, container: str, host: str, *, is_moving: bool) -> None:
    status = view.status
    if (status.container, status.host) == (container, host):
        return
    path = f"{view.tenant}/{view.network}/{view.name}"
    before = f"{status.container} on {status.host}" if status.container else "not attached"
    if status.container and not is_moving:
        made.conflicts.append(f"endpoint {path} is {before}: detach it first, or move it (--move)")
        return
    attach = AttachEndpoint(
        tenant=view.tenant,
        network=view.network,
        name=view.name,
        container=container,
        host=host,
        move=bool(status.container),
    )
    made.steps.append(Step(CHANGE, "endpoint", view.tenant, path, f"{before} -> {container} on {host}", (attach,)))
