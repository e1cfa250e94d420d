"""What is there of the tenants that an intent names, asked of the actors."""

from __future__ import annotations

from collections.abc import Iterable

from messages import subjects
from messages.endpoint import EndpointView, ListEndpoints
from messages.host import HostView, ListHosts
from messages.network import ListNetworks, NetworkView
from messages.pool import ListPools, PoolView
from messages.tenant import ListTenants, TenantView

from .client import Client
from .exits import FAILED, Ended
from .intent_plan import Having


def ask_having(client: Client, names: Iterable[str] | None) -> Having:
    """What is there of these tenants, or of all. Raises: Ended."""
    listed = client.items(ListTenants(tenant=subjects.FABRIC)).objects
    tenants = {view.name: view for view in listed if isinstance(view, TenantView)}
    hosts = client.items(ListHosts(tenant=subjects.FABRIC)).objects
    pools: dict[tuple[str, str], dict[str, PoolView]] = {}
    wanted = [name for name in (tenants if names is None else dict.fromkeys(names)) if name in tenants]
    networks: dict[tuple[str, str], NetworkView] = {}
    endpoints: dict[tuple[str, str], dict[str, EndpointView]] = {}
    for name in wanted:
        for view in client.items(ListNetworks(tenant=name)).objects:
            if isinstance(view, NetworkView):
                networks[name, view.name] = view
        for endpoint in endpoints_of(client, name, [network for tenant, network in networks if tenant == name]):
            endpoints.setdefault((name, endpoint.network), {})[endpoint.name] = endpoint
        for pool in client.items(ListPools(tenant=name)).objects:
            if isinstance(pool, PoolView):
                pools.setdefault((name, pool.network), {})[pool.name] = pool
    return Having(
        tenants={name: tenants[name] for name in wanted},
        networks=networks,
        endpoints=endpoints,
        pools=pools,
        hosts={view.name: view.spec.vtep for view in hosts if isinstance(view, HostView)},
    )


def endpoints_of(client: Client, tenant: str, networks: Iterable[str]) -> list[EndpointView]:
    """A tenant's endpoints; of one network after the other where they are too many for one answer. Raises: Ended."""
    try:
        views = client.items(ListEndpoints(tenant=tenant)).objects
    except Ended as fault:
        if fault.status != FAILED or "answer-too-large" not in fault.message:
            raise
        listed = (client.items(ListEndpoints(tenant=tenant, network=network)).objects for network in networks)
        views = tuple(view for each in listed for view in each)
    return [view for view in views if isinstance(view, EndpointView)]
