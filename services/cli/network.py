"""`netctl network`: layer-2 domains of a tenant, each with a tag on the wire and its subnets."""

from __future__ import annotations

import argparse

from messages import subjects
from messages.addresses import AddressRange, parse_subnet
from messages.names import check_tenant, check_token
from messages.network import CreateNetwork, DeleteNetwork, GetNetwork, ListNetworks, NetworkView, SetNetwork

from . import output
from .exits import wrong_usage
from .following import watch_views
from .options import several, switched
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
        "--subnet",
        action="append",
        metavar="auto|none|CIDR",
        help="several may be given (default: auto); 10.1.1.10-10.1.1.99/24 is that subnet, with these to choose from",
    )
    parser.add_argument("--exclude", action="append", metavar="RANGE", help="no endpoint gets any of 10.1.1.5-10.1.1.9")
    parser.add_argument(
        "--gateway", action="append", metavar="ADDRESS", help="the first address of the subnet, unless told"
    )
    parser.add_argument("--encap", choices=("vlan", "vxlan"), help="(default: vlan)")
    parser.add_argument("--tag", type=number, metavar="N", help="VLAN id or VNI (default: the first free one)")
    parser.add_argument(
        "--routing", choices=("on", "off"), help="reach the tenant's other routed networks (default: as the tenant)"
    )


def subnet_choice(values: list[str] | None) -> str | list[str] | None:
    """`auto`, `none` or a list of networks, as the message has it. Raises: Ended when they are mixed."""
    words = several(values)
    choices = [word for word in words if word in ("auto", "none")]
    if choices and len(words) > 1:
        raise wrong_usage(f"subnet {choices[0]} stands alone: expected auto, none, or networks such as 11.1.1.0/24")
    return choices[0] if choices else words or None


def split_subnets(choice: str | list[str] | None) -> tuple[str | list[str] | None, list[str]]:
    """Subnets as the message has them, and the ranges that were named with them. Raises: Ended."""
    if not isinstance(choice, list):
        return choice, []
    subnets: dict[str, None] = {}
    ranges: list[AddressRange] = []
    for text in choice:
        if "-" not in text:
            subnets[text] = None
            continue
        try:
            subnet, within = parse_subnet(text)
        except ValueError as fault:
            raise wrong_usage(f"subnet {text!r} is not valid: {fault}") from None
        subnets[str(subnet)] = None
        ranges += [within] if within is not None else []
    return list(subnets), [str(each) for each in ranges]


def _set_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")
    parser.add_argument(
        "--exclude", action="append", metavar="none|RANGE", help="these, and no others, are no endpoint's"
    )
    parser.add_argument(
        "--range", action="append", metavar="none|RANGE", help="addresses are chosen from these (none: from anywhere)"
    )


def range_choice(values: list[str] | None) -> list[str] | None:
    """The ranges that were typed, `none` being an empty list; None when nothing was. Raises: Ended."""
    words = several(values)
    if "none" in words and len(words) > 1:
        raise wrong_usage("none stands alone: expected none, or ranges such as 10.1.1.10-10.1.1.20")
    return [] if words == ["none"] else words or None


def _set(session: Session, chosen: argparse.Namespace) -> int:
    ranges, exclude = range_choice(chosen.range), range_choice(chosen.exclude)
    command = message(SetNetwork, tenant=session.tenant, network=chosen.name, ranges=ranges, exclude=exclude)
    accepted = session.client.command(command)
    view = accepted.object
    said = f"network {session.tenant}/{chosen.name} set"
    if isinstance(view, NetworkView):
        said += f": ranges {output.joined(view.spec.ranges)}, excluded {output.joined(view.spec.exclude)}"
    return show_changed(session, accepted, said)


def _create(session: Session, chosen: argparse.Namespace) -> int:
    subnets, ranges = split_subnets(subnet_choice(chosen.subnet))
    command = message(
        CreateNetwork,
        tenant=session.tenant,
        network=chosen.name,
        subnets=subnets,
        ranges=ranges or None,
        exclude=several(chosen.exclude) or None,
        gateways=several(chosen.gateway) or None,
        encap=chosen.encap,
        tag=chosen.tag,
        routing=switched(chosen.routing),
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
    "create": Verb(
        "bring a network into being; what is left out is picked", _create_arguments, _create, is_change=True
    ),
    "delete": Verb("remove a network that has no endpoints left", _name_argument, _delete, is_change=True),
    "list": Verb("the tenant's networks", all_tenants_argument, _list, is_read=True),
    "show": Verb("one network", _name_argument, _show, is_read=True),
    "set": Verb("change which of its addresses may be given out", _set_arguments, _set, is_change=True),
    "watch": Verb("the tenant's networks, and each again when it changes", _watch_arguments, _watch),
}
