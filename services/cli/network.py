"""`netctl network`: layer-2 domains of a tenant, each with a tag on the wire and its subnets."""

from __future__ import annotations

import argparse

from messages import subjects
from messages.names import check_tenant, check_token
from messages.network import CreateNetwork, DeleteNetwork, GetNetwork, ListNetworks, NetworkView

from . import output
from .exits import wrong_usage
from .following import watch_views
from .options import several
from .verbs import Session, Verb, message, number, show_changed, show_item, show_list

TITLES = ("TENANT", "NAME", "STATE", "ENCAP", "TAG", "SUBNETS", "GATEWAYS", "MTU", "ENDPOINTS")


def row(view: NetworkView) -> output.Row:
    """A network as a table's line."""
    status = view.status
    wire = (status.encap, str(status.tag), output.joined(status.subnets), output.joined(status.gateways))
    return (view.tenant, view.name, status.state, *wire, str(status.mtu_bytes), str(status.endpoints))


def sentence(view: NetworkView) -> str:
    """A network in words: `network default/web created: vlan 1, subnet 11.0.0.0/24`."""
    subnets = f"subnet {output.joined(view.status.subnets)}" if view.status.subnets else "no subnet yet"
    gateways = f", gateway {output.joined(view.status.gateways)}" if view.status.gateways else ""
    return f"network {view.tenant}/{view.name} created: {view.status.encap} {view.status.tag}, {subnets}{gateways}"


def _create_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")
    parser.add_argument(
        "--subnet", action="append", metavar="auto|none|CIDR", help="may be given more than once (default: auto)"
    )
    parser.add_argument(
        "--gateway", action="append", metavar="ADDRESS", help="the first address of the subnet, unless told"
    )
    parser.add_argument("--encap", choices=("vlan", "vxlan"), help="(default: vlan)")
    parser.add_argument("--tag", type=number, metavar="N", help="VLAN id or VNI (default: the first free one)")


def subnet_choice(values: list[str] | None) -> str | list[str] | None:
    """`auto`, `none` or a list of networks, as the message has it. Raises: Ended when they are mixed."""
    words = several(values)
    choices = [word for word in words if word in ("auto", "none")]
    if choices and len(words) > 1:
        raise wrong_usage(f"subnet {choices[0]} stands alone: expected auto, none, or networks such as 11.1.1.0/24")
    return choices[0] if choices else words or None


def _create(session: Session, chosen: argparse.Namespace) -> int:
    command = message(
        CreateNetwork,
        tenant=session.tenant,
        network=chosen.name,
        subnets=subnet_choice(chosen.subnet),
        gateways=several(chosen.gateway) or None,
        encap=chosen.encap,
        tag=chosen.tag,
    )
    accepted = session.client.command(command)
    view = accepted.object
    said = sentence(view) if isinstance(view, NetworkView) else f"network {command.tenant}/{command.network} created"
    return show_changed(session, accepted, said)


def _name_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")


def _delete(session: Session, chosen: argparse.Namespace) -> int:
    check_network(session.tenant, chosen.name)
    accepted = session.client.command(message(DeleteNetwork, tenant=session.tenant, network=chosen.name))
    gone = {"tenant": session.tenant, "network": chosen.name, "name": chosen.name}
    return show_changed(session, accepted, f"network {session.tenant}/{chosen.name} deleted", gone)


def all_tenants_argument(parser: argparse.ArgumentParser) -> None:
    """`parser` takes --all-tenants."""
    parser.add_argument("-A", "--all-tenants", action="store_true", help="of all tenants")


def listed_tenant(session: Session, *, is_all: bool) -> str:
    """The tenant token of a list: one tenant's, or `fabric` for all. Raises: Ended."""
    if is_all:
        return subjects.FABRIC
    check_network(session.tenant, None)
    return session.tenant


def _list(session: Session, chosen: argparse.Namespace) -> int:
    query = ListNetworks(tenant=listed_tenant(session, is_all=chosen.all_tenants))
    return show_list(session, session.client.items(query).objects, TITLES, row)


def _show(session: Session, chosen: argparse.Namespace) -> int:
    check_network(session.tenant, chosen.name)
    return show_item(session, session.client.get(GetNetwork(tenant=session.tenant, network=chosen.name)).object)


def check_network(tenant: str, network: str | None) -> None:
    """These can be names. Raises: Ended with status 2."""
    try:
        check_tenant(tenant)
        if network is not None:
            check_token("network name", network)
    except ValueError as fault:
        raise wrong_usage(str(fault)) from None


def _watch_arguments(parser: argparse.ArgumentParser) -> None:
    all_tenants_argument(parser)


def _watch(session: Session, chosen: argparse.Namespace) -> int:
    tenant = listed_tenant(session, is_all=chosen.all_tenants)
    subject = subjects.network_event("*" if chosen.all_tenants else tenant, "*", "*", "*")
    return watch_views(session, ListNetworks(tenant=tenant), (subject,), TITLES, row)


VERBS = {
    "create": Verb("bring a network into being; what is left out is picked", _create_arguments, _create),
    "delete": Verb("remove a network that has no endpoints left", _name_argument, _delete),
    "list": Verb("the tenant's networks", all_tenants_argument, _list),
    "show": Verb("one network", _name_argument, _show),
    "watch": Verb("the tenant's networks, and each again when it changes", _watch_arguments, _watch),
}
