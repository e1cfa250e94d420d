"""`netctl host`: the machines that endpoints can be on."""

from __future__ import annotations

import argparse

from messages import subjects
from messages.endpoint import DetachEndpoint, EndpointView, ListEndpoints
from messages.host import GetHost, HostView, InspectHost, InviteHost, ListHosts, PortView, RemoveHost
from messages.names import check_token
from messages.replies import Accepted, Items, Refused

from . import output
from .exits import DONE, FAILED, UNREACHABLE, Ended, wrong_usage
from .following import watch_views
from .options import duration_s
from .verbs import Session, Verb, message, show_changed, show_item, show_list

TOKEN_S = 3600.0
TITLES = ("NAME", "STATE", "DRIVER", "DATAPATH", "BRIDGE", "UPLINKS", "VTEP", "VERSION", "ENDPOINTS")
PORT_TITLES = ("TENANT", "NETWORK", "NAME", "STATE", "DEVICE", "CONTAINER", "INTERFACE", "EPOCH", "PARTS", "REASON")


def row(view: HostView) -> output.Row:
    """A host as a table's line."""
    spec = view.spec
    ways = (" ".join(spec.uplinks) or "-", str(spec.vtep) if spec.vtep is not None else "-")
    said = (spec.driver, spec.datapath, spec.bridge or "-", *ways, spec.version)
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


def _watch(session: Session, _chosen: argparse.Namespace) -> int:
    followed = (subjects.host_event("*"),)
    return watch_views(session, ListHosts(tenant=subjects.FABRIC), followed, TITLES, row)


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


def _token_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ttl", type=duration_s, default=TOKEN_S, metavar="TIME", help="how long it is good (1h)")


def _token(session: Session, chosen: argparse.Namespace) -> int:
    from pathlib import Path

    from services.nats_keys import new_seed, public_key_of
    from services.runtime import join_token

    server = session.client.server
    if not server.ca or not all(url.startswith("tls://") for url in server.urls):
        raise Ended(
            FAILED,
            f"{server.urls[0]} does not speak TLS: no other machine can join here; `netplugin init --help` tells how"
            " to prepare servers that others can reach",
        )
    seed = new_seed()
    try:
        text = join_token.to_text(seed.decode(), server.urls, Path(server.ca).read_text())
    except (OSError, ValueError) as fault:
        raise Ended(FAILED, f"the certificate {server.ca} cannot be used: {fault}") from None
    ttl_s = int(chosen.ttl)
    invite = message(InviteHost, tenant=subjects.FABRIC, public_key=public_key_of(seed), ttl_s=ttl_s)
    accepted = session.client.command(invite)
    if session.output == "table":
        print(text)  # alone, for whoever hands it on
        return DONE
    output.show_one({"token": text, "ttl_s": ttl_s, "seq": accepted.seq}, session.output)
    return DONE


def _drain(session: Session, chosen: argparse.Namespace) -> int:
    """Detached one after the other: a host that is away for long must not keep what could go elsewhere."""
    name = _checked(chosen.name)
    client = session.client
    client.get(GetHost(tenant=subjects.FABRIC, host=name))
    views = client.items(ListEndpoints(tenant=subjects.FABRIC)).objects
    there = [view for view in views if isinstance(view, EndpointView) and view.status.host == name]
    accepted = Accepted(seq=0)
    for view in there:
        accepted = client.command(message(DetachEndpoint, tenant=view.tenant, network=view.network, name=view.name))
    said = f"host {name} drained: {len(there)} endpoint(s) detached, which keep their addresses"
    return show_changed(session, accepted, said, {"host": name, "name": name, "detached": len(there)})


VERBS = {
    "list": Verb("all hosts", _no_arguments, _list, is_read=True),
    "show": Verb("one host", _optional_name_argument, _show, is_read=True),
    "watch": Verb("all hosts, and each again when it changes", _no_arguments, _watch),
    "ports": Verb("a host's ports as its switch really has them", _optional_name_argument, _ports),
    "token": Verb("let one host join: prints a token for `netplugin join`", _token_arguments, _token),
    "drain": Verb("detach all endpoints of a host; they keep their addresses", _name_argument, _drain),
    "remove": Verb(
        "forget a host that holds no endpoint; its key is worth nothing then", _name_argument, _remove, is_change=True
    ),
}
