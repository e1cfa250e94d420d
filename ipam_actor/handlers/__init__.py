"""Which function decides each command: `network.create` is `CreateNetwork` is `create_network`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from messages.endpoint import (
    AttachEndpoint,
    CreateEndpoint,
    DeleteEndpoint,
    DetachEndpoint,
    GetEndpoint,
    ListEndpoints,
)
from messages.host import AdmitHost, GetHost, InviteHost, JoinHost, ListHosts, RemoveHost
from messages.intent import ApplyIntent
from messages.ipam import ShowIpam
from messages.network import CreateNetwork, DeleteNetwork, GetNetwork, ListNetworks, SetNetwork
from messages.pool import CreatePool, DeletePool, GetPool, ListPools
from messages.struct import Command
from messages.tenant import CreateTenant, DeleteTenant, GetTenant, ListTenants, SetTenant
from services.runtime.decision import Decision, Stamp

from ..state import State
from .endpoint import (
    attach_endpoint,
    create_endpoint,
    delete_endpoint,
    detach_endpoint,
    get_endpoint,
    list_endpoints,
)
from .host import admit_host, get_host, invite_host, join_host, list_hosts, remove_host
from .intent import apply_intent
from .ipam import show_ipam
from .network import create_network, delete_network, get_network, list_networks, set_network
from .pool import create_pool, delete_pool, get_pool, list_pools
from .tenant import create_tenant, delete_tenant, get_tenant, list_tenants, set_tenant

HANDLERS: Mapping[type[Command], Callable[[State, Any, Stamp], Decision]] = {
    CreateTenant: create_tenant,
    SetTenant: set_tenant,
    DeleteTenant: delete_tenant,
    GetTenant: get_tenant,
    ListTenants: list_tenants,
    CreateNetwork: create_network,
    SetNetwork: set_network,
    DeleteNetwork: delete_network,
    GetNetwork: get_network,
    ListNetworks: list_networks,
    CreatePool: create_pool,
    DeletePool: delete_pool,
    GetPool: get_pool,
    ListPools: list_pools,
    ShowIpam: show_ipam,
    CreateEndpoint: create_endpoint,
    AttachEndpoint: attach_endpoint,
    DetachEndpoint: detach_endpoint,
    DeleteEndpoint: delete_endpoint,
    GetEndpoint: get_endpoint,
    ListEndpoints: list_endpoints,
    JoinHost: join_host,
    RemoveHost: remove_host,
    InviteHost: invite_host,
    AdmitHost: admit_host,
    GetHost: get_host,
    ListHosts: list_hosts,
    ApplyIntent: apply_intent,
}
