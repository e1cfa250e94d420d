"""`netctl ipam`: which addresses are used and free, pools of a network's addresses, and whether all of it is so."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from messages import subjects
from messages.endpoint import DetachEndpoint, EndpointView, ListEndpoints
from messages.host import HostView, InspectHost, ListHosts, PortView, RepairHost
from messages.ipam import COUNT_MAX, AddressesView, AddressSet, ShowIpam
from messages.pool import CreatePool, DeletePool, GetPool, ListPools, PoolView
from messages.replies import Items, Refused
from messages.tenant import ListTenants, TenantView

from . import output
from .client import Client
from .exits import DONE, FAILED, UNREACHABLE, wrong_usage
from .ipam_check import HOST_AWAY, Difference, Seen, differences, repeated
from .network import all_tenants_argument, check_network, listed_tenant
from .options import several
from .verbs import Session, Verb, message, show_changed, show_item, show_list

TITLES = ("TENANT", "NETWORK", "SUBNET", "WHAT", "COUNT", "ADDRESSES")
POOL_TITLES = ("TENANT", "NETWORK", "NAME", "RANGES", "ENDPOINTS")
CHECK_TITLES = ("WHAT", "HOST", "ABOUT", "DETAIL")
HOST_WITHIN_S = 5.0
SETS = ("used", "free", "resting", "excluded", "reserved", "pooled", "on_request")
ALWAYS_SHOWN = ("used", "free")


def rows(view: AddressesView) -> Iterator[output.Row]:
    """A network's addresses as lines of a table: one for each kind that there is any of."""
    for subnet in view.subnets:
        for what in SETS:
            addresses: AddressSet = getattr(subnet, what)
            if addresses.count or what in ALWAYS_SHOWN:
                where = (view.tenant, view.network, str(subnet.subnet))
                waits = f" (until {', '.join(subnet.rests_for)} took the ports away)" if subnet.rests_for else ""
                said = _ranges(addresses) + (waits if what == "resting" else "")
                yield (*where, what.replace("_", "-"), _count(addresses), said)


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


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repair", action="store_true", help="mend what differs, and say what was done")


def _check(session: Session, chosen: argparse.Namespace) -> int:
    """Status 0 when all agree, 1 when something differs, 3 when all agree that could be asked."""
    client = session.client
    seen = _look(client)
    found = differences(seen)
    if found:
        found = repeated(found, differences(_look(client)))
    mended: list[tuple[Difference, str]] = []
    if chosen.repair and found:
        done = _repair(client, found)
        left = set(differences(_look(client)))
        mended = [(each, done[each]) for each in found if each in done and each not in left]
        found = [each for each in found if each in left]
    _show_checked(session, seen, found, mended)
    if any(each.kind != HOST_AWAY for each in found):
        return FAILED
    return UNREACHABLE if found else DONE


def _look(client: Client) -> Seen:
    found = client.items(ListTenants(tenant=subjects.FABRIC)).objects
    tenants = [each.name for each in found if isinstance(each, TenantView)]
    # Tenant by tenant: an answer has at most what a message may hold.
    everything = [each for name in tenants for each in client.items(ListEndpoints(tenant=name)).objects]
    networks = [each for name in tenants for each in client.items(ShowIpam(tenant=name)).objects]
    hosts = client.items(ListHosts(tenant=subjects.FABRIC)).objects
    members = frozenset(host.name for host in hosts if isinstance(host, HostView))
    return Seen(
        [each for each in everything if isinstance(each, EndpointView)],
        members,
        {host: _ports_of(client, host) for host in sorted(members)},
        [each for each in networks if isinstance(each, AddressesView)],
    )


def _ports_of(client: Client, host: str) -> Sequence[PortView] | str:
    """A host's ports with what their containers have, or why it does not say."""
    question = InspectHost(tenant=subjects.FABRIC, with_addresses=True)
    reply = client.ask_host(host, "inspect", question, timeout_s=HOST_WITHIN_S)
    if isinstance(reply, Items):
        return [each for each in reply.objects if isinstance(each, PortView)]
    return f"it refuses: {reply.detail}" if isinstance(reply, Refused) else "it does not answer"


def _repair(client: Client, found: Sequence[Difference]) -> dict[Difference, str]:
    """What was done about each difference; nothing where nothing can be done from here."""
    done: dict[Difference, str] = {}
    by_host: dict[str, list[Difference]] = {}
    for each in found:
        if each.kind == "unknown-host":
            client.command(DetachEndpoint(tenant=each.tenant, network=each.network, name=each.name))
            done[each] = f"detached from {each.host}"
        elif each.host and each.kind != HOST_AWAY:
            by_host.setdefault(each.host, []).append(each)
    for host, differing in by_host.items():
        ids = sorted({each.endpoint for each in differing if each.endpoint})
        question = RepairHost(tenant=subjects.FABRIC, endpoints=tuple(ids))
        if isinstance(client.ask_host(host, "repair", question, timeout_s=HOST_WITHIN_S), Items):
            done |= dict.fromkeys(differing, f"host {host} looked again")
    return done


def _show_checked(
    session: Session, seen: Seen, found: Sequence[Difference], mended: Sequence[tuple[Difference, str]]
) -> None:
    away = sum(isinstance(ports, str) for ports in seen.ports.values())
    facts = {"is_clean": not found, "hosts": len(seen.ports), "away": away, "endpoints": len(seen.endpoints)}
    if session.output != "table":
        listed = [each._asdict() for each in found]
        repaired = [{**each._asdict(), "done": what} for each, what in mended]
        output.show_one({**facts, "differences": listed, "mended": repaired}, session.output)
        return
    rows = [(each.kind, each.host or "-", each.subject, each.detail) for each in found]
    rows += [
        (f"mended: {each.kind}", each.host or "-", each.subject, f"{each.detail}; {what}") for each, what in mended
    ]
    if rows:
        print(output.table(CHECK_TITLES, rows), end="")
    print(
        f"{len(seen.endpoints)} endpoint(s) on {len(seen.ports)} host(s) compared, {away} away: "
        f"{len(found)} difference(s){f', {len(mended)} mended' if mended else ''}"
    )


VERBS = {
    "show": Verb("addresses used, free and kept back, as ranges", _show_arguments, _show),
    "check": Verb("do the journal, the switches and the containers agree on all hosts", _check_arguments, _check),
    "pool": Verb("create, delete, show or list pools, kept for endpoints with --pool", _pool_arguments, _pool),
}
