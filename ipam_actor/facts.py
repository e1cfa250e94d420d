"""Events with the subjects that they are recorded on."""

from __future__ import annotations

from messages.catalog import event_name
from messages.names import NO_HOST
from messages.struct import Event
from messages.subjects import host_event, network_event, segment_event, tenant_event
from services.runtime.decision import Fact


def of_tenant(tenant: str, event: Event) -> Fact:
    """An event of a tenant's own aggregate."""
    return Fact(tenant_event(tenant, event_name(event)), event)


def of_network(tenant: str, network: str, event: Event, host: str = NO_HOST) -> Fact:
    """An event of a network or one of its endpoints; `host` is the one that it is about."""
    return Fact(network_event(tenant, network, event_name(event), host), event)


def of_segments(event: Event) -> Fact:
    """An event about the fabric's tags."""
    return Fact(segment_event(event_name(event)), event)


def of_hosts(event: Event) -> Fact:
    """An event about the members of the cluster."""
    return Fact(host_event(event_name(event)), event)
