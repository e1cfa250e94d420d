"""`--wait applied` for many endpoints: until every host has said what it made of those that were placed on it.

    follow the hosts' reports -> ask how the endpoints are now -> read reports until none is open

What was reported before the reports were followed is in the answer; should one be lost, the endpoints are asked for
again each second.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from messages import codec, subjects
from messages.endpoint import AttachEndpoint, CreateEndpoint, EndpointView, ListEndpoints
from messages.intent import Change
from messages.port import PortBound, PortFailed, PortWaiting

from .client import Client, Progress
from .exits import FAILED, WAIT_RAN_OUT, Ended
from .wire import Message

TICK_S = 1.0
SHOWN_MAX = 5

_Place = tuple[str, str, str]  # tenant, network, endpoint


def wait_applied(client: Client, changes: Iterable[Change]) -> None:
    """Every endpoint that these changes placed is bound, or waits for its container. Raises: Ended (1 failed, 4)."""
    placed = {
        (change.tenant, change.network or "", change.name)
        for change in changes
        if isinstance(change, (CreateEndpoint, AttachEndpoint)) and change.container is not None
    }
    if not placed:
        return
    networks = sorted({(tenant, network) for tenant, network, _ in placed})
    for tenant in sorted({tenant for tenant, _, _ in placed}):
        client.follow(subjects.port_event(tenant, "*", "*"))
    client.deadline = time.monotonic() + client.timeout_s
    progress = Progress()
    pending = _pending(client, networks, placed)
    while pending:
        message = client.next_message(time.monotonic() + TICK_S)
        if message is not None:
            _hear(message, pending)
            continue
        if time.monotonic() >= client.deadline:
            raise Ended(
                WAIT_RAN_OUT, f"{_listed(pending)} not reported within {client.timeout_s:g} s; all stays accepted"
            )
        progress.say(f"all is accepted, {len(pending)} endpoints are not reported yet")
        pending = _pending(client, networks, placed)


def _pending(client: Client, networks: Iterable[tuple[str, str]], placed: set[_Place]) -> dict[str, EndpointView]:
    """Those of which their host has said nothing yet, by id. Raises: Ended (1) for one that failed."""
    pending: dict[str, EndpointView] = {}
    for tenant, network in networks:
        for view in client.items(ListEndpoints(tenant=tenant, network=network)).objects:
            if not isinstance(view, EndpointView) or (view.tenant, view.network, view.name) not in placed:
                continue
            if view.status.state == "failed":
                raise _failed(view, view.status.reason)
            if view.status.host and view.status.state not in ("bound", "waiting"):
                pending[view.id] = view
    return pending


def _hear(message: Message, pending: dict[str, EndpointView]) -> None:
    """One report less is waited for, if this is one. Raises: Ended (1) when it says that it failed."""
    try:
        event = codec.decode_event(message.payload)
    except codec.Malformed:
        return  # of another version: the endpoints are asked for
    if not isinstance(event, (PortBound, PortWaiting, PortFailed)):
        return
    view = pending.get(event.endpoint)
    if view is None or event.epoch < view.status.epoch:
        return
    if isinstance(event, PortFailed):
        raise _failed(view, f"{event.code}: {event.reason}")
    del pending[event.endpoint]


def _failed(view: EndpointView, reason: str) -> Ended:
    name = f"{view.tenant}/{view.network}/{view.name}"
    return Ended(FAILED, f"failed: endpoint {name} on {view.status.host}: {reason}; the host goes on trying")


def _listed(pending: dict[str, EndpointView]) -> str:
    names = [f"{view.tenant}/{view.network}/{view.name}" for view in pending.values()]
    more = len(names) - SHOWN_MAX
    verb = "was" if len(names) == 1 else "were"
    return f"{', '.join(names[:SHOWN_MAX])}{f' and {more} more' if more > 0 else ''} {verb}"
