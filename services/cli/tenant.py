"""`netctl tenant`: owners of disjoint networks."""

from __future__ import annotations

import argparse

from messages import subjects
from messages.tenant import CreateTenant, DeleteTenant, GetTenant, ListTenants, SetTenant, TenantView

from . import output
from .following import watch_views
from .options import switched
from .verbs import Session, Verb, message, number, show_changed, show_item, show_list

TITLES = ("NAME", "STATE", "SUBNET-POOL", "VLANS", "VNIS", "NETWORKS")


def row(view: TenantView) -> output.Row:
    """A tenant as a table's line."""
    pool = f"{view.spec.subnet_pool} in /{view.spec.subnet_length}"
    names = output.joined(view.status.networks)
    return (view.name, view.status.state, pool, view.spec.vlans or "all", view.spec.vnis or "all", names)


def _create_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")
    parser.add_argument("--subnet-pool", metavar="CIDR", help="what `--subnet auto` takes from (default: 11.0.0.0/8)")
    parser.add_argument("--subnet-length", type=number, metavar="BITS", help="of each subnet taken (default: 24)")
    parser.add_argument("--vlans", metavar="RANGES", help="tags to pick from, such as 10-100,150 (default: all)")
    parser.add_argument("--vnis", metavar="RANGES", help="VNIs to pick from (default: all)")
    parser.add_argument("--routing", choices=("on", "off"), help="its networks reach each other (default: off)")


def _create(session: Session, chosen: argparse.Namespace) -> int:
    command = message(
        CreateTenant,
        tenant=chosen.name,
        subnet_pool=chosen.subnet_pool,
        subnet_length=chosen.subnet_length,
        vlans=chosen.vlans,
        vnis=chosen.vnis,
        routing=switched(chosen.routing),
    )
    return show_changed(session, session.client.command(command), f"tenant {chosen.name} created")


def _set_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")
    parser.add_argument("--subnet-pool", metavar="CIDR", help="what `--subnet auto` takes from")
    parser.add_argument("--subnet-length", type=number, metavar="BITS", help="of each subnet taken")
    parser.add_argument("--vlans", metavar="all|RANGES", help="tags to pick from")
    parser.add_argument("--vnis", metavar="all|RANGES", help="VNIs to pick from")


def _set(session: Session, chosen: argparse.Namespace) -> int:
    command = message(
        SetTenant,
        tenant=chosen.name,
        subnet_pool=chosen.subnet_pool,
        subnet_length=chosen.subnet_length,
        vlans="" if chosen.vlans == "all" else chosen.vlans,
        vnis="" if chosen.vnis == "all" else chosen.vnis,
    )
    return show_changed(session, session.client.command(command), f"tenant {chosen.name} set")


def _name_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")


def _delete(session: Session, chosen: argparse.Namespace) -> int:
    command = message(DeleteTenant, tenant=chosen.name)
    accepted = session.client.command(command)
    return show_changed(
        session, accepted, f"tenant {chosen.name} deleted", {"tenant": chosen.name, "name": chosen.name}
    )


def _list(session: Session, _chosen: argparse.Namespace) -> int:
    return show_list(session, session.client.items(ListTenants(tenant=subjects.FABRIC)).objects, TITLES, row)


def _show(session: Session, chosen: argparse.Namespace) -> int:
    query = checked(chosen.name)
    return show_item(session, session.client.get(query).object)


def _watch(session: Session, _chosen: argparse.Namespace) -> int:
    followed = (subjects.tenant_event("*", "*"),)
    return watch_views(session, ListTenants(tenant=subjects.FABRIC), followed, TITLES, row)


def checked(name: str) -> GetTenant:
    """The question for a tenant. Raises: Ended with status 2 for what no tenant can be called."""
    message(DeleteTenant, tenant=name)
    return GetTenant(tenant=name)


def _no_arguments(_parser: argparse.ArgumentParser) -> None:
    pass


VERBS = {
    "create": Verb("bring a tenant into being", _create_arguments, _create, is_change=True),
    "delete": Verb("remove a tenant that has no networks left", _name_argument, _delete, is_change=True),
    "list": Verb("all tenants", _no_arguments, _list, is_read=True),
    "set": Verb("change what its networks are chosen from", _set_arguments, _set, is_change=True),
    "show": Verb("one tenant", _name_argument, _show, is_read=True),
    "watch": Verb("all tenants, and each again when it changes", _no_arguments, _watch),
}
