"""`netdcli -cfg|-add-cfg|-del-cfg|-host-bindings-cfg FILE`: whole intents as in 2015.

-cfg                what the tenants in the file are to have: what is not in it goes
-add-cfg            what is to be there as well
-del-cfg            what is to go: the endpoints named; a network without any; a tenant without networks
-host-bindings-cfg  which host each container is on
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from messages.endpoint import AttachEndpoint, EndpointView
from messages.names import DEFAULT_TENANT
from messages.network import Encap
from messages.tenant import DeleteTenant, TenantView

from .apply import carry_out
from .exits import DONE, FAILED, Ended
from .intent import Intent, WantedTenant
from .intent_having import ask_having
from .intent_plan import CHANGE, REMOVE, Having, Plan, Step, plan, removal_of_endpoint, removal_of_network
from .intent_source import documents
from .intent_waiting import wait_applied
from .legacy_intent import Binding, Legacy, read_legacy
from .verbs import Session


def perform_intent(session: Session, mode: str, file: str) -> int:
    """The file is as true as `mode` says; each step is on stdout with its journal sequence. Raises: Ended."""
    legacy = read_legacy(documents([file]), session.tenant)
    having = ask_having(session.client, None if legacy.bindings else legacy.intent.tenants)
    made = _PLANS[mode](legacy, having)
    for note in (*legacy.notes, *made.notes, *other_vteps(legacy, having)):
        print(f"netdcli: {note}", file=sys.stderr)
    if made.conflicts:
        raise Ended(FAILED, "\n".join([*(f"refused: {conflict}" for conflict in made.conflicts), "nothing was done"]))
    carry_out(session, made, at_once=1)  # one tenant after the other: tags are given out in the file's order
    if session.waits:
        wait_applied(session.client, (change for step in made.steps for change in step.late))
    print(f"done: {made.summary()}")
    return DONE


def other_vteps(legacy: Legacy, having: Having) -> list[str]:
    """What the file says of tunnels otherwise than the hosts themselves."""
    return [
        f"host {name} has VTEP {having.hosts[name] or 'none'}, not {vtep}: `netplugin --vtep` on it decides"
        for name, vtep in legacy.vteps.items()
        if name in having.hosts and str(having.hosts[name]) != vtep
    ]


def plan_desired(legacy: Legacy, having: Having) -> Plan:
    """What makes the tenants have what the file says, and nothing else."""
    return _with_bindings(plan(with_encaps(legacy.intent, having), having, is_pruning=True), legacy, having)


def plan_additions(legacy: Legacy, having: Having) -> Plan:
    """What adds what the file says."""
    return _with_bindings(plan(with_encaps(legacy.intent, having), having), legacy, having)


def plan_deletions(legacy: Legacy, having: Having) -> Plan:
    """What removes what the file says: of each branch its last, the endpoint, the empty network, the empty tenant."""
    made = Plan()
    for tenant in legacy.intent.tenants.values():
        name = tenant.command.tenant
        if name not in having.tenants:
            made.notes.append(f"tenant {name} is not there")
        elif not tenant.networks:
            _remove_tenant(made, having, having.tenants[name])
        else:
            _remove_inside(made, having, tenant)
    return made


def _remove_tenant(made: Plan, having: Having, view: TenantView) -> None:
    left = [network for tenant, network in having.networks if tenant == view.name]
    if left:
        made.conflicts.append(f"tenant {view.name} still has networks ({', '.join(left[:5])}): delete them first")
    elif view.name != DEFAULT_TENANT or view.status.seq:
        made.steps.append(
            Step(REMOVE, "tenant", view.name, view.name, "", (), (DeleteTenant(tenant=view.name),)),
        )


def _remove_inside(made: Plan, having: Having, tenant: WantedTenant) -> None:
    for network in tenant.networks.values():
        place = (tenant.command.tenant, network.command.network)
        found = having.networks.get(place)
        there = having.endpoints.get(place, {})
        if found is None:
            made.notes.append(f"network {'/'.join(place)} is not there")
            continue
        for name in network.endpoints:
            if name in there:
                made.steps.append(removal_of_endpoint(there[name]))
            else:
                made.notes.append(f"endpoint {'/'.join((*place, name))} is not there")
        if network.endpoints:
            continue
        if there:
            names = ", ".join(list(there)[:5])
            made.conflicts.append(f"network {'/'.join(place)} still has endpoints ({names}): delete them first")
        else:
            made.steps.append(removal_of_network(found))


def plan_bindings(legacy: Legacy, having: Having) -> Plan:
    """What puts every endpoint of the containers that the file names where it says."""
    made = Plan()
    for binding in legacy.bindings:
        found = [view for views in having.endpoints.values() for view in views.values() if _is_of(view, binding)]
        if not found:
            made.conflicts.append(
                f"container {binding.container} has no endpoint: expected one called NETWORK-{binding.container}"
            )
        if binding.host not in having.hosts:
            members = ", ".join(sorted(having.hosts)) or "none yet"
            made.conflicts.append(
                f"container {binding.container}: host {binding.host} is no member: expected one of {members}"
            )
        made.steps += [step for view in found if (step := _bound(view, binding)) is not None]
    return made


def _with_bindings(made: Plan, legacy: Legacy, having: Having) -> Plan:
    """`made`, and then the bindings that the same file says of endpoints that were there before."""
    if legacy.bindings:
        bound = plan_bindings(legacy, having)
        made.steps += bound.steps
        made.conflicts += bound.conflicts
    return made


def _is_of(view: EndpointView, binding: Binding) -> bool:
    is_so_called = view.name == f"{view.network}-{binding.container}"
    return is_so_called or view.status.container in (binding.container, binding.attach)


def _bound(view: EndpointView, binding: Binding) -> Step | None:
    status = view.status
    if (status.container, status.host) == (binding.attach, binding.host):
        return None
    attach = AttachEndpoint(
        tenant=view.tenant,
        network=view.network,
        name=view.name,
        container=binding.attach,
        host=binding.host,
        move=bool(status.container),
    )
    before = f"{status.container} on {status.host}" if status.container else "not attached"
    path = f"{view.tenant}/{view.network}/{view.name}"
    return Step(CHANGE, "endpoint", view.tenant, path, f"{before} -> {binding.attach} on {binding.host}", (attach,))


def with_encaps(intent: Intent, having: Having) -> Intent:
    """The intent with an encapsulation for each new network of which the file says none: its tenant's."""
    for tenant in intent.tenants.values():
        name = tenant.command.tenant
        for network, wanted in tenant.networks.items():
            if "encap" not in wanted.given and (name, network) not in having.networks:
                command = replace(wanted.command, encap=_encap_of(tenant, having))
                tenant.networks[network] = replace(wanted, command=command, given=wanted.given | {"encap"})
    return intent


def _encap_of(tenant: WantedTenant, having: Having) -> Encap:
    """What a tenant's networks are when nothing is said: what it has ranges for alone, else what all of its are."""
    found = having.tenants.get(tenant.command.tenant)
    ranges: Sequence[str | None] = (tenant.command.vlans, tenant.command.vnis)
    if not any(ranges) and found is not None:
        ranges = (found.spec.vlans, found.spec.vnis)
    if any(ranges) and not all(ranges):
        return "vlan" if ranges[0] else "vxlan"
    own = {view.status.encap for (name, _), view in having.networks.items() if name == tenant.command.tenant}
    return own.pop() if len(own) == 1 else "vlan"


_PLANS: Mapping[str, Callable[[Legacy, Having], Plan]] = {
    "cfg": plan_desired,
    "add-cfg": plan_additions,
    "del-cfg": plan_deletions,
    "host-bindings-cfg": plan_bindings,
}
