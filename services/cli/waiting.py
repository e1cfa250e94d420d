"""`--wait applied`: a change to an endpoint is done when its host says so, not when time has passed.

    follow the host's reports -> send the command -> read reports until one is about this endpoint and this epoch

The reports are followed before the command is sent, so none is missed. Should one be lost with a connection, the
endpoint's state (or, when it is to be gone, the host's list of ports) is asked for each second.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import msgspec

from messages import codec, subjects
from messages.endpoint import DeleteEndpoint, DetachEndpoint, EndpointView, GetEndpoint
from messages.host import ContainerView, FindContainer, InspectHost, PortView
from messages.port import PortBound, PortEvent, PortFailed, PortUnbound, PortWaiting
from messages.replies import Accepted, Item, Items, Refused
from messages.struct import Command

from .client import Client, Progress, wait_ran_out
from .exits import FAILED, UNREACHABLE, Ended

TICK_S = 1.0


class Outcome(NamedTuple):
    """What became of a change: the reply, the endpoint as its host reported it (none: it is gone), and as it was."""

    accepted: Accepted
    endpoint: EndpointView | None = None
    before: EndpointView | None = None


def check_container(client: Client, container: str, host: str, *, is_waited_for: bool) -> None:
    """The host knows of no reason why `container` cannot be attached. Raises: Ended (1 absent, 3 no such host)."""
    reply = client.ask_host(host, "container", FindContainer(tenant=subjects.FABRIC, container=container))
    if reply is None:
        if is_waited_for:
            raise Ended(
                UNREACHABLE,
                f"host {host!r} does not answer: start `netplugin` on it, name another with --host,"
                " or give --wait accepted to bind the endpoint for when it comes back",
            )
        return
    if isinstance(reply, Refused):
        raise Ended(FAILED, f"refused: {reply.code}: {reply.detail}")
    view = reply.object if isinstance(reply, Item) else None
    if isinstance(view, ContainerView) and view.state == "absent":
        raise Ended(
            FAILED, f"refused: {view.code or 'container-not-found'}: {view.reason or f'{container} is not there'}"
        )


def place(client: Client, command: Command, host: str, *, is_waited_for: bool) -> Outcome:
    """A create or attach with a container: accepted, and bound or waiting when it was waited for. Raises: Ended."""
    if is_waited_for:
        client.follow(subjects.port_event(command.tenant, host, "*"))
    accepted = client.command(command)
    view = accepted.object
    if not isinstance(view, EndpointView) or not is_waited_for:
        return Outcome(accepted, view if isinstance(view, EndpointView) else None)
    return Outcome(accepted, _until_placed(client, view))


def remove(client: Client, command: DetachEndpoint | DeleteEndpoint, *, is_waited_for: bool) -> Outcome:
    """A detach or delete: accepted, and the port gone when that was waited for. Raises: Ended."""
    before = _endpoint_before(client, command) if is_waited_for else None
    if before is not None and before.status.host:
        client.follow(subjects.port_event(command.tenant, before.status.host, "*"))
    accepted = client.command(command)
    view = accepted.object if isinstance(accepted.object, EndpointView) else None
    if before is not None and before.status.host and accepted.is_changed:
        _until_gone(client, before)
    return Outcome(accepted, view, before)


def _endpoint_before(client: Client, command: DetachEndpoint | DeleteEndpoint) -> EndpointView | None:
    try:
        found = client.get(GetEndpoint(tenant=command.tenant, name=command.name, network=command.network)).object
    except Ended as fault:
        if fault.status != FAILED:
            raise
        return None  # it is not there, or not the only one: the command itself will be told
    return found if isinstance(found, EndpointView) else None


def _until_placed(client: Client, view: EndpointView) -> EndpointView:
    progress = Progress()
    while True:
        if view.status.state in ("bound", "waiting"):
            return view
        if view.status.state == "failed":
            raise Ended(
                FAILED,
                f"failed: {_name(view)} on {view.status.host}: {view.status.reason}; the host goes on trying until"
                " it is detached",
            )
        report = _next_report(client, view.id, view.status.epoch)
        if report is not None:
            view = _as_reported(view, report)
            continue
        progress.say(f"{_name(view)} is accepted, host {view.status.host} has not reported yet")
        view = _endpoint_now(client, view)


def _endpoint_now(client: Client, view: EndpointView) -> EndpointView:
    if time.monotonic() >= client.deadline:
        raise wait_ran_out(client, f"host {view.status.host} did not report on {_name(view)}")
    found = client.get(GetEndpoint(tenant=view.tenant, name=view.name, network=view.network)).object
    return found if isinstance(found, EndpointView) and found.status.epoch >= view.status.epoch else view


def _as_reported(view: EndpointView, report: PortEvent) -> EndpointView:
    match report:
        case PortBound():
            made = {"port": report.device, "device": report.device, "interface": report.interface}
            changes = {"state": "bound", "reason": "", **made}
        case PortWaiting():
            changes = {"state": "waiting", "reason": report.reason}
        case PortFailed():
            changes = {"state": "failed", "reason": f"{report.code}: {report.reason}"}
        case _:
            return view  # of a binding that has ended since: the endpoint's state is asked for
    return msgspec.structs.replace(view, status=msgspec.structs.replace(view.status, **changes))


def _until_gone(client: Client, before: EndpointView) -> None:
    progress = Progress()
    while True:
        report = _next_report(client, before.id, before.status.epoch)
        if isinstance(report, PortUnbound):
            return
        if report is not None:
            continue
        progress.say(f"accepted, host {before.status.host} has not reported the port of {_name(before)} gone yet")
        if _host_has_no_port(client, before):
            return
        if time.monotonic() >= client.deadline:
            raise wait_ran_out(client, f"host {before.status.host} did not report the port of {_name(before)} gone")


def _host_has_no_port(client: Client, before: EndpointView) -> bool:
    reply = client.ask_host(before.status.host, "inspect", InspectHost(tenant=subjects.FABRIC), timeout_s=TICK_S)
    if not isinstance(reply, Items):
        return False
    ports = [port for port in reply.objects if isinstance(port, PortView)]
    return all(port.endpoint != before.id or port.epoch > before.status.epoch for port in ports)


def _next_report(client: Client, endpoint: str, epoch: int) -> PortEvent | None:
    """The next report on this endpoint of this epoch or a later one; None after a tick without one."""
    until = time.monotonic() + TICK_S
    while (message := client.next_message(until)) is not None:
        try:
            event = codec.decode_event(message.payload)
        except codec.Malformed:
            continue  # of another version: the tick asks for the state
        if isinstance(event, PortEvent) and event.endpoint == endpoint and event.epoch >= epoch:
            return event
    return None


def _name(view: EndpointView) -> str:
    return f"endpoint {view.tenant}/{view.network}/{view.name}"
