"""`netctl endpoint`: places where containers meet a network."""

from __future__ import annotations

import argparse

from messages import subjects
from messages.endpoint import (
    AttachEndpoint,
    CreateEndpoint,
    DeleteEndpoint,
    DetachEndpoint,
    EndpointView,
    GetEndpoint,
    ListEndpoints,
)
from messages.names import check_container as check_container_name
from messages.names import check_name

from . import output
from .exits import wrong_usage
from .following import watch_views
from .network import all_tenants_argument, check_network, listed_tenant
from .options import add_wait, several
from .verbs import Session, Verb, message, number, outcome_fields, show_changed, show_item, show_list
from .waiting import Outcome, check_container, place, remove

TITLES = (
    "TENANT",
    "NETWORK",
    "NAME",
    "STATE",
    "ADDRESSES",
    "TAG",
    "HOST",
    "CONTAINER",
    "INTERFACE",
    "DEVICE",
    "REASON",
)


def row(view: EndpointView) -> output.Row:
    """An endpoint as a table's line."""
    status = view.status
    addresses = output.joined(status.addresses)
    place_of = (status.host or "-", status.container or "-", status.interface or "-", status.device or "-")
    return (
        view.tenant,
        view.network,
        view.name,
        status.state,
        addresses,
        str(status.tag),
        *place_of,
        status.reason or "-",
    )


def sentence(view: EndpointView, what: str) -> str:
    """An endpoint in words: `endpoint default/web/web1 attached: 11.0.0.1/24, bound to c1 (eth0) on h1`."""
    status = view.status
    said = f"endpoint {view.tenant}/{view.network}/{view.name} {what}: {output.joined(status.addresses)}"
    if not status.container:
        return said
    if status.state == "bound":
        interface = f" ({status.interface})" if status.interface else ""
        return f"{said}, bound to {status.container}{interface} on {status.host}"
    because = f" ({status.reason})" if status.reason else ""
    if status.state == "waiting":
        return f"{said}, waiting for {status.container} on {status.host}{because}"
    return f"{said}, {status.state} on {status.host}{because}"


def create(session: Session, command: CreateEndpoint) -> Outcome:
    """The outcome of creating an endpoint. Raises: Ended."""
    if command.container is not None and command.host is not None:
        check_container(session.client, command.container, command.host, is_waited_for=session.waits)
        return place(session.client, command, command.host, is_waited_for=session.waits)
    accepted = session.client.command(command)
    return Outcome(accepted, accepted.object if isinstance(accepted.object, EndpointView) else None)


def attach(session: Session, command: AttachEndpoint) -> Outcome:
    """The outcome of attaching an endpoint. Raises: Ended."""
    check_container(session.client, command.container, command.host, is_waited_for=session.waits)
    return place(session.client, command, command.host, is_waited_for=session.waits)


def _create_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")
    parser.add_argument("--network", required=True, metavar="NETWORK")
    parser.add_argument(
        "--container", metavar="CONTAINER", help="attach it too: a Docker name or id, netns:NAME, pid:N"
    )
    parser.add_argument(
        "--address", action="append", metavar="ADDRESS", help="may be given more than once (default: the first free)"
    )
    parser.add_argument("--pool", metavar="POOL", help="of the network's: it gets one of that pool's addresses")
    parser.add_argument("--mac", metavar="MAC", help="(default: one of our own)")
    parser.add_argument("--tag", type=number, metavar="N", help="the network's, to be sure of it")
    parser.add_argument("--host", metavar="HOST", help="where the container is (default: this host)")
    add_wait(parser)


def _create(session: Session, chosen: argparse.Namespace) -> int:
    check_endpoint(session.tenant, chosen.network, chosen.name)
    command = message(
        CreateEndpoint,
        tenant=session.tenant,
        network=chosen.network,
        name=chosen.name,
        addresses=several(chosen.address) or None,
        mac=chosen.mac,
        pool=chosen.pool,
        tag=chosen.tag,
        container=chosen.container,
        host=chosen.host or (session.host if chosen.container is not None else None),
    )
    return show_outcome(session, create(session, command), "created")


def show_outcome(session: Session, outcome: Outcome, what: str, named: str = "") -> int:
    """A change to an endpoint is on stdout, as a sentence or as the endpoint itself."""
    if outcome.endpoint is None:
        return show_changed(session, outcome.accepted, f"endpoint {named} {what}", {"name": named.rpartition("/")[2]})
    accepted = outcome.accepted
    if session.output == "table":
        return show_changed(session, accepted, sentence(outcome.endpoint, what))
    fields = output.shape(outcome.endpoint)
    output.show_one({**fields, **outcome_fields(accepted)}, session.output)
    return 0


def _network_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")
    parser.add_argument("--network", metavar="NETWORK", help="needed when the tenant has more endpoints of this name")


def _attach_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?")
    parser.add_argument("--network", metavar="NETWORK", help="needed when the tenant has more endpoints of this name")
    parser.add_argument("--container", metavar="CONTAINER", help="a Docker name or id, netns:NAME, pid:N")
    parser.add_argument(
        "-f", "--file", action="append", metavar="FILE", help="many at once: YAML or JSON such as `web1: c1@h1`"
    )
    parser.add_argument("--host", metavar="HOST", help="where the container is (default: this host)")
    parser.add_argument("--move", action="store_true", help="take it away from where it is attached now")
    add_wait(parser)


def _attach(session: Session, chosen: argparse.Namespace) -> int:
    if chosen.file:
        if any((chosen.name, chosen.network, chosen.container, chosen.host)):
            raise wrong_usage(
                "--file says which endpoints go where: expected no name, network, container or host beside it"
            )
        from .endpoint_bindings import attach_all

        return attach_all(session, chosen.file, is_moving=chosen.move)
    if chosen.name is None or chosen.container is None:
        raise wrong_usage("name or container is missing: expected NAME --container CONTAINER, or --file FILE")
    check_endpoint(session.tenant, chosen.network, chosen.name)
    where = {"network": chosen.network, "container": chosen.container, "host": chosen.host or session.host}
    command = message(AttachEndpoint, tenant=session.tenant, name=chosen.name, move=chosen.move, **where)
    outcome = attach(session, command)
    return show_outcome(session, outcome, "attached", named=_named(session, chosen))


def _detach_arguments(parser: argparse.ArgumentParser) -> None:
    _network_argument(parser)
    parser.add_argument("--container", metavar="CONTAINER", help="only if it is bound to this one")
    add_wait(parser)


def _detach(session: Session, chosen: argparse.Namespace) -> int:
    check_endpoint(session.tenant, chosen.network, chosen.name, chosen.container)
    where = {"network": chosen.network, "container": chosen.container}
    outcome = remove(
        session.client,
        message(DetachEndpoint, tenant=session.tenant, name=chosen.name, **where),
        is_waited_for=session.waits,
    )
    return show_outcome(session, outcome, "detached", named=_named(session, chosen))


def _delete_arguments(parser: argparse.ArgumentParser) -> None:
    _network_argument(parser)
    add_wait(parser)


def _delete(session: Session, chosen: argparse.Namespace) -> int:
    check_endpoint(session.tenant, chosen.network, chosen.name)
    command = message(DeleteEndpoint, tenant=session.tenant, name=chosen.name, network=chosen.network)
    return delete(session, command)


def delete(session: Session, command: DeleteEndpoint) -> int:
    """The endpoint is gone, and that is on stdout. Raises: Ended."""
    outcome = remove(session.client, command, is_waited_for=session.waits)
    network = outcome.before.network if outcome.before is not None else command.network or ""
    gone = {"tenant": command.tenant, "network": network, "name": command.name}
    name = "/".join(part for part in gone.values() if part)
    return show_changed(session, outcome.accepted, f"endpoint {name} deleted", gone)


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--network", metavar="NETWORK", help="only of this network")
    all_tenants_argument(parser)


def _query(session: Session, chosen: argparse.Namespace) -> ListEndpoints:
    tenant = listed_tenant(session, is_all=chosen.all_tenants)
    if chosen.network is not None and not chosen.all_tenants:
        check_network(tenant, chosen.network)
    return ListEndpoints(tenant=tenant, network=chosen.network)


def _list(session: Session, chosen: argparse.Namespace) -> int:
    query = _query(session, chosen)
    return show_list(session, session.client.items(query).objects, TITLES, row)


def _show(session: Session, chosen: argparse.Namespace) -> int:
    check_endpoint(session.tenant, chosen.network, chosen.name)
    query = GetEndpoint(tenant=session.tenant, name=chosen.name, network=chosen.network)
    return show_item(session, session.client.get(query).object)


def _watch(session: Session, chosen: argparse.Namespace) -> int:
    tenant = "*" if chosen.all_tenants else session.tenant
    decided = subjects.network_event(tenant, chosen.network or "*", "*", "*")
    return watch_views(session, _query(session, chosen), (decided, subjects.port_event(tenant, "*", "*")), TITLES, row)


def check_endpoint(tenant: str, network: str | None, name: str, container: str | None = None) -> None:
    """These can be names. Raises: Ended with status 2."""
    check_network(tenant, network)
    try:
        check_name("endpoint name", name)
        if container is not None:
            check_container_name(container)
    except ValueError as fault:
        raise wrong_usage(str(fault)) from None


def _named(session: Session, chosen: argparse.Namespace) -> str:
    return "/".join(part for part in (session.tenant, chosen.network, chosen.name) if part)


VERBS = {
    "create": Verb(
        "reserve an address and, with --container, put it there", _create_arguments, _create, is_change=True
    ),
    "attach": Verb("put an endpoint into a container", _attach_arguments, _attach, is_change=True),
    "detach": Verb("take it out again; it keeps its address", _detach_arguments, _detach, is_change=True),
    "delete": Verb("detach and remove it", _delete_arguments, _delete, is_change=True),
    "list": Verb("the tenant's endpoints", _list_arguments, _list, is_read=True),
    "show": Verb("one endpoint", _network_argument, _show, is_read=True),
    "watch": Verb("the tenant's endpoints, and each again when it changes", _list_arguments, _watch),
}
