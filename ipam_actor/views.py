"""Objects as people and programs are shown them. An endpoint's state is what was decided plus what its host last said:

no binding                          pending
bound, host no longer a member      unreachable
bound, nothing said of this epoch   pending (with that reason)
bound, host said so                 bound, waiting (with its reason) or failed (with its reason)
"""

from __future__ import annotations

from collections import Counter

from messages.endpoint import EndpointSpec, EndpointState, EndpointStatus, EndpointView
from messages.host import HostSpec, HostStatus, HostView
from messages.network import NetworkSpec, NetworkStatus, NetworkView
from messages.pool import PoolSpec, PoolStatus, PoolView
from messages.tenant import TenantSpec, TenantStatus, TenantView

from .lookup import FoundNetwork
from .records import Admission, Binding, EndpointRecord, HostRecord, Report, TenantRecord
from .state import State, TenantAggregate


def tenant_view(name: str, tenant: TenantAggregate, record: TenantRecord) -> TenantView:
    """A tenant with its pools and networks."""
    return TenantView(
        tenant=name,
        name=name,
        spec=TenantSpec(
            subnet_pool=record.subnet_pool,
            subnet_length=record.subnet_length,
            vlans=record.vlans,
            vnis=record.vnis,
            routing=record.is_routing,
        ),
        status=TenantStatus(state="active", networks=tuple(sorted(tenant.networks)), seq=tenant.seq),
    )


def network_view(network: FoundNetwork) -> NetworkView:
    """A network; its spec has no tag if nobody asked for one, and no subnets that it adopted."""
    record = network.record
    return NetworkView(
        tenant=network.tenant,
        network=network.name,
        name=network.name,
        spec=NetworkSpec(
            encap=record.encap,
            tag=None if record.is_tag_chosen else record.tag,
            subnets=tuple(subnet for subnet in record.subnets if subnet not in record.adopted),
            gateways=record.gateways,
            ranges=record.ranges,
            exclude=record.excluded,
            routing=record.is_routed,
        ),
        status=NetworkStatus(
            state="active",
            encap=record.encap,
            tag=record.tag,
            subnets=record.subnets,
            gateways=record.gateways,
            mtu_bytes=record.mtu_bytes,
            endpoints=len(network.aggregate.endpoints),
            seq=network.aggregate.seq,
        ),
    )


def pool_view(network: FoundNetwork, name: str) -> PoolView:
    """A pool of a network, and how many endpoints are of it."""
    endpoints = sum(endpoint.pool == name for endpoint in network.aggregate.endpoints.values())
    return PoolView(
        tenant=network.tenant,
        network=network.name,
        name=name,
        spec=PoolSpec(ranges=network.aggregate.kept[name]),
        status=PoolStatus(state="active", endpoints=endpoints, seq=network.aggregate.seq),
    )


def endpoint_view(state: State, network: FoundNetwork, endpoint: EndpointRecord) -> EndpointView:
    """An endpoint, where it is, and what its host made of it."""
    binding = endpoint.binding
    report = _report_of(state, network.tenant, endpoint)
    endpoint_state, reason = _state_of(state, binding, report)
    is_shown = report is not None and endpoint_state == "bound"
    device = report.device if report is not None and is_shown else ""
    return EndpointView(
        tenant=network.tenant,
        network=network.name,
        name=endpoint.name,
        id=endpoint.id,
        spec=EndpointSpec(
            addresses=endpoint.asked,
            container=binding.container if binding else "",
            host=binding.host if binding else "",
            pool=endpoint.pool,
        ),
        status=EndpointStatus(
            state=endpoint_state,
            host=binding.host if binding else "",
            container=binding.container if binding else "",
            port=device,
            device=device,
            interface=report.interface if report is not None and is_shown else "",
            addresses=endpoint.addresses,
            mac=endpoint.mac,
            tag=network.record.tag,
            encap=network.record.encap,
            epoch=binding.epoch if binding else 0,
            seq=max(endpoint.seq, report.seq) if report else endpoint.seq,
            reason=reason,
        ),
    )


def _report_of(state: State, tenant: str, endpoint: EndpointRecord) -> Report | None:
    """What the endpoint's host last said, if it is about this binding."""
    if endpoint.binding is None:
        return None
    report = state.port_report(tenant, endpoint.binding.host, endpoint.id)
    return report if report is not None and report.epoch == endpoint.binding.epoch else None


def _state_of(state: State, binding: Binding | None, report: Report | None) -> tuple[EndpointState, str]:
    if binding is None:
        return "pending", ""
    if binding.host not in state.hosts.hosts:
        return "unreachable", f"host {binding.host} is not a member of the cluster"
    if report is None:
        return "pending", f"host {binding.host} has not reported the port yet"
    if report.state == "unbound":
        return "waiting", f"host {binding.host} has taken the port away"
    return report.state, report.reason


def host_view(name: str, host: HostRecord, endpoints: int) -> HostView:
    """A host and how many endpoints are bound to it."""
    return HostView(
        host=name,
        name=name,
        spec=HostSpec(
            driver=host.driver,
            datapath=host.datapath,
            version=host.version,
            bridge=host.bridge,
            vtep=host.vtep,
            vtep_mac=host.vtep_mac,
            underlay_mtu_bytes=host.underlay_mtu_bytes,
            uplinks=host.uplinks,
        ),
        status=HostStatus(state="joined", endpoints=endpoints, seq=host.seq),
    )


def admitted_view(name: str, admission: Admission) -> HostView:
    """A host that may begin, and has not said anything of itself yet."""
    spec = HostSpec(driver="", datapath="", version="", bridge="")
    status = HostStatus(state="admitted", endpoints=0, seq=admission.seq)
    return HostView(host=name, name=name, spec=spec, status=status)


def endpoints_by_host(state: State) -> Counter[str]:
    """How many endpoints are bound to each host."""
    return Counter(
        endpoint.binding.host
        for networks in state.networks.values()
        for network in networks.values()
        for endpoint in network.endpoints.values()
        if endpoint.binding is not None
    )
