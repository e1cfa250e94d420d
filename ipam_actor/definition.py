"""All that makes the ipam actor, for the shell to run."""

from __future__ import annotations

from messages.endpoint import AttachEndpoint, CreateEndpoint, DeleteEndpoint, DetachEndpoint
from messages.host import AdmitHost, InviteHost, JoinHost, RemoveHost
from messages.intent import ApplyIntent, Change
from messages.network import CreateNetwork, DeleteNetwork, SetNetwork
from messages.pool import CreatePool, DeletePool
from messages.struct import Command
from messages.subjects import (
    HOST_AGGREGATE,
    SEGMENT_AGGREGATE,
    network_aggregate,
    port_aggregate,
    tenant_aggregate,
)
from messages.tenant import CreateTenant, DeleteTenant, SetTenant
from services.runtime.decision import Definition

from .apply import apply
from .handlers import HANDLERS
from .lookup import find_network, find_tenant, networks_with
from .snapshot import dump_state, load_state
from .state import State

_EndpointCommand = CreateEndpoint | AttachEndpoint | DetachEndpoint | DeleteEndpoint


def writes(state: State, command: Command) -> tuple[str, ...]:
    """The aggregates that a command may write: none for a query, and for what is refused because it is not there."""
    if isinstance(command, (JoinHost, RemoveHost, InviteHost, AdmitHost)):
        return (HOST_AGGREGATE,)
    if isinstance(command, CreateTenant):
        return (tenant_aggregate(command.tenant),)
    if isinstance(command, (SetTenant, DeleteTenant)):
        return (tenant_aggregate(command.tenant),) if find_tenant(state, command.tenant) else ()
    if isinstance(command, CreateNetwork):
        return _structure(command.tenant, command.network) if find_tenant(state, command.tenant) else ()
    if isinstance(command, DeleteNetwork):
        is_there = find_network(state, command.tenant, command.network) is not None
        return _structure(command.tenant, command.network) if is_there else ()
    if isinstance(command, (SetNetwork, CreatePool, DeletePool)):
        is_there = find_network(state, command.tenant, command.network) is not None
        return (network_aggregate(command.tenant, command.network),) if is_there else ()
    if isinstance(command, (CreateEndpoint, AttachEndpoint, DetachEndpoint, DeleteEndpoint)):
        return _written_for_endpoint(state, command)
    if isinstance(command, ApplyIntent):
        return tuple({aggregate for change in command.changes for aggregate in _written_for_change(state, change)})
    return ()


def _written_for_change(state: State, change: Change) -> tuple[str, ...]:
    """What a change of an intent may write, whatever the changes before it make of the state."""
    tenant = change.tenant
    if isinstance(change, (CreateTenant, SetTenant, DeleteTenant)):
        return (tenant_aggregate(tenant),)
    if isinstance(change, (CreateNetwork, DeleteNetwork)):
        return _structure(tenant, change.network)
    if isinstance(change, (SetNetwork, CreatePool, DeletePool)):
        return (network_aggregate(tenant, change.network),)
    networks = networks_with(state, tenant, change.name) if change.network is None else [change.network]
    written = [network_aggregate(tenant, network) for network in networks] or [tenant_aggregate(tenant)]
    if isinstance(change, CreateEndpoint) and (change.addresses or change.tag is not None):
        return (*written, tenant_aggregate(tenant), SEGMENT_AGGREGATE)
    return tuple(written)


def _structure(tenant: str, network: str) -> tuple[str, ...]:
    return (tenant_aggregate(tenant), SEGMENT_AGGREGATE, network_aggregate(tenant, network))


def _written_for_endpoint(state: State, command: _EndpointCommand) -> tuple[str, ...]:
    """The network's aggregate; beside it the tenant's where a subnet is adopted, the fabric's where the tag changes."""
    network = command.network
    if network is None:
        networks = networks_with(state, command.tenant, command.name)
        network = networks[0] if len(networks) == 1 else None
    found = find_network(state, command.tenant, network) if network is not None else None
    if found is None:
        return ()
    written = [network_aggregate(found.tenant, found.name)]
    if isinstance(command, CreateEndpoint):
        families = {subnet.version for subnet in found.record.subnets}
        if any(address.version not in families for address in command.addresses):
            written.append(tenant_aggregate(found.tenant))
        if command.tag not in (None, found.record.tag):
            written.append(SEGMENT_AGGREGATE)
    return tuple(written)


def batch_key(command: Command) -> str:
    """Tenant and name of an endpoint that is changed, whatever its network; structural commands never share a batch."""
    if isinstance(command, (CreateEndpoint, AttachEndpoint, DetachEndpoint, DeleteEndpoint)):
        return f"{command.tenant}/{command.name}"
    return ""


IPAM: Definition[State] = Definition(
    name="ipam",
    follows=(
        tenant_aggregate("*"),
        network_aggregate("*", "*"),
        port_aggregate("*", "*"),
        SEGMENT_AGGREGATE,
        HOST_AGGREGATE,
    ),
    handlers=HANDLERS,
    new_state=State,
    apply=apply,
    writes=writes,
    batch_key=batch_key,
    dump_state=dump_state,
    load_state=load_state,
)
