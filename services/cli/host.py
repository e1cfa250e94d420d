"""`netctl host`: the machines that endpoints can be on."""

from __future__ import annotations

import argparse

from messages import subjects
from messages.host import GetHost, HostView, InspectHost, ListHosts, PortView, RemoveHost
from messages.names import check_token
from messages.replies import Items, Refused

from . import output
from .exits import FAILED, UNREACHABLE, Ended, wrong_usage
from .verbs import Session, Verb, message, show_changed, show_item, show_list

TITLES = ("NAME", "STATE", "DRIVER", "DATAPATH", "BRIDGE", "UPLINKS", "VERSION", "ENDPOINTS")
PORT_TITLES = ("TENANT", "NETWORK", "NAME", "STATE", "DEVICE", "CONTAINER", "INTERFACE", "EPOCH", "PARTS", "REASON")


def row(view: HostView) -> output.Row:
    """A host as a table's line."""
    spec = view.spec
    said = (spec.driver, spec.datapath, spec.bridge or "-", " ".join(spec.uplinks) or "-", spec.version)
    return (view.name, view.status.state, *said, str(view.status.endpoints))


def port_row(port: PortView) -> output.Row:
    """A port as a table's line."""
    where = (port.device or "-", port.container or "-", port.interface or "-", str(port.epoch))
    return (port.tenant, port.network, port.name, port.state, *where, output.joined(port.parts), port.reason or "-")


def _name_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")


def _optional_name_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="(default: this host)")


def _no_arguments(_parser: argparse.ArgumentParser) -> None:
    pass


def _checked(name: str) -> str:
    try:
        check_token("host name", name)
    except ValueError as fault:
        raise wrong_usage(str(fault)) from None
    return name


def _list(session: Session, _chosen: argparse.Namespace) -> int:
    return show_list(session, session.client.items(ListHosts(tenant=subjects.FABRIC)).objects, TITLES, row)


def _show(session: Session, chosen: argparse.Namespace) -> int:
    name = _checked(chosen.name or session.host)
    return show_item(session, session.client.get(GetHost(tenant=subjects.FABRIC, host=name)).object)


def _remove(session: Session, chosen: argparse.Namespace) -> int:
    name = _checked(chosen.name)
    accepted = session.client.command(message(RemoveHost, tenant=subjects.FABRIC, host=name))
    return show_changed(session, accepted, f"host {name} removed", {"host": name, "name": name})


def _ports(session: Session, chosen: argparse.Namespace) -> int:
    name = _checked(chosen.name or session.host)
    reply = session.client.ask_host(name, "inspect", InspectHost(tenant=subjects.FABRIC))
    if isinstance(reply, Refused):
        raise Ended(FAILED, f"refused: {reply.code}: {reply.detail}")
    if not isinstance(reply, Items):
        raise Ended(UNREACHABLE, f"host {name!r} does not answer: start `netplugin` on it")
    return show_list(session, reply.objects, PORT_TITLES, port_row)


VERBS = {
    "list": Verb("all hosts", _no_arguments, _list),
    "show": Verb("one host", _optional_name_argument, _show),
    "ports": Verb("a host's ports as its switch really has them", _optional_name_argument, _ports),
    "remove": Verb("forget a host that holds no endpoint", _name_argument, _remove),
}
