"""`netctl ipam`: which addresses are used and free, pools of a network's addresses, and whether all of it is so."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from messages.ipam import COUNT_MAX, AddressesView, AddressSet, ShowIpam
from messages.pool import CreatePool, DeletePool, GetPool, ListPools, PoolView

from . import output
from .exits import wrong_usage
from .network import all_tenants_argument, check_network, listed_tenant
from .options import several
from .verbs import Session, Verb, message, show_changed, show_item, show_list

TITLES = ("TENANT", "NETWORK", "SUBNET", "WHAT", "COUNT", "ADDRESSES")
POOL_TITLES = ("TENANT", "NETWORK", "NAME", "RANGES", "ENDPOINTS")
SETS = ("used", "free", "resting", "excluded", "reserved", "pooled", "on_request")
ALWAYS_SHOWN = ("used", "free")


def rows(view: AddressesView) -> Iterator[output.Row]:
    """A network's addresses as lines of a table: one for each kind that there is any of."""
    for subnet in view.subnets:
        for what in SETS:
            addresses: AddressSet = getattr(subnet, what)
            if addresses.count or what in ALWAYS_SHOWN:
                where = (view.tenant, view.network, str(subnet.subnet))
                yield (*where, what.replace("_", "-"), _count(addresses), _ranges(addresses))


def _count(addresses: AddressSet) -> str:
    return str(addresses.count) if addresses.count < COUNT_MAX else "> 2^53"


def _ranges(addresses: AddressSet) -> str:
    said = ", ".join(map(str, addresses.ranges)) or "-"
    return f"{said}, and {addresses.more} more ranges" if addresses.more else said


def _show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", nargs="?", help="(default: all of the tenant's)")
    all_tenants_argument(parser)


def _show(session: Session, chosen: argparse.Namespace) -> int:
    check_network(session.tenant, chosen.network)
    query = ShowIpam(tenant=listed_tenant(session, is_all=chosen.all_tenants), network=chosen.network)
    views = [view for view in session.client.items(query).objects if isinstance(view, AddressesView)]
    if session.output == "table":
        print(output.table(TITLES, [row for view in views for row in rows(view)]), end="")
    else:
        output.show_many([output.shape(view) for view in views], session.output)
    return 0


def pool_row(view: PoolView) -> output.Row:
    """A pool as a table's line."""
    return (view.tenant, view.network, view.name, output.joined(view.spec.ranges), str(view.status.endpoints))


def _pool_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("create", "delete", "show", "list"))
    parser.add_argument("name", nargs="?")
    parser.add_argument("--network", metavar="NETWORK", help="whose addresses")
    parser.add_argument("--range", action="append", metavar="RANGE", help="10.1.1.100-10.1.1.120; several may be given")


def _pool(session: Session, chosen: argparse.Namespace) -> int:
    check_network(session.tenant, chosen.network)
    if chosen.action == "list":
        query = ListPools(tenant=session.tenant, network=chosen.network)
        return show_list(session, session.client.items(query).objects, POOL_TITLES, pool_row)
    if chosen.name is None or chosen.network is None:
        raise wrong_usage(f"pool {chosen.action}: the pool's name and --network are needed")
    where = {"tenant": session.tenant, "network": chosen.network, "name": chosen.name}
    named = "/".join(where.values())
    if chosen.action == "show":
        question = message(GetPool, **where)
        return show_item(session, session.client.get(question).object)
    if chosen.action == "delete":
        gone = message(DeletePool, **where)
        return show_changed(session, session.client.command(gone), f"pool {named} deleted", where)
    ranges = several(chosen.range)
    made = message(CreatePool, **where, ranges=ranges)
    return show_changed(session, session.client.command(made), f"pool {named} created: {', '.join(ranges)}")


VERBS = {
    "show": Verb("addresses used, free and kept back, as ranges", _show_arguments, _show),
    "pool": Verb("create, delete, show or list pools, kept for endpoints with --pool", _pool_arguments, _pool),
}
