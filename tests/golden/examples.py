"""One example of every message, with every field set: what the golden bytes were made from."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import msgspec

from messages import endpoint, host, intent, ipam, network, pool, port, replies, segment, tenant
from messages.addresses import AddressRange, parse_range

ADDRESS = ip_address("11.1.1.1")
INTERFACES = (ip_interface("11.1.1.1/24"), ip_interface("fd00:1::1/64"))
SUBNETS = (ip_network("11.1.1.0/24"), ip_network("fd00:1::/64"))
GATEWAYS = (ip_address("11.1.1.254"), ip_address("fd00:1::fe"))
RANGES = (parse_range("11.1.1.10-11.1.1.20"), parse_range("fd00:1::a"))
MAC = "02:00:00:00:00:01"
ID = "abcdefghijklmnop"
PUBLIC_KEY = "U" + "A" * 55
MACHINE_ID = "0123456789abcdef" * 2
PORT: dict[str, Any] = {"tenant": "acme", "network": "web", "endpoint": ID, "name": "web1", "host": "h1", "epoch": 17}

TENANT_VIEW = tenant.TenantView(
    tenant="acme",
    name="acme",
    spec=tenant.TenantSpec(subnet_pool=ip_network("11.0.0.0/8"), subnet_length=24, vlans="10-100,150", vnis=""),
    status=tenant.TenantStatus(state="active", networks=("web",), seq=3),
)
NETWORK_VIEW = network.NetworkView(
    tenant="acme",
    network="web",
    name="web",
    spec=network.NetworkSpec(encap="vlan", tag=12, subnets=SUBNETS, gateways=GATEWAYS),
    status=network.NetworkStatus(
        state="active", encap="vlan", tag=12, subnets=SUBNETS, gateways=GATEWAYS, mtu_bytes=1500, endpoints=1, seq=5
    ),
)
ENDPOINT_VIEW = endpoint.EndpointView(
    tenant="acme",
    network="web",
    name="web1",
    id=ID,
    spec=endpoint.EndpointSpec(addresses=(ADDRESS,), container="c1", host="h1"),
    status=endpoint.EndpointStatus(
        state="bound",
        host="h1",
        container="c1",
        port="np0123456789ab",
        device="np0123456789ab",
        interface="eth0",
        addresses=INTERFACES,
        mac=MAC,
        tag=12,
        encap="vlan",
        epoch=17,
        seq=18,
        reason="",
    ),
)
POOL_VIEW = pool.PoolView(
    tenant="acme",
    network="web",
    name="front",
    spec=pool.PoolSpec(ranges=RANGES),
    status=pool.PoolStatus(state="active", endpoints=2, seq=9),
)


def _set(count: int, *ranges: AddressRange, more: int = 0) -> ipam.AddressSet:
    return ipam.AddressSet(count=count, ranges=ranges, more=more)


ADDRESSES_VIEW = ipam.AddressesView(
    tenant="acme",
    network="web",
    name="web",
    subnets=(
        ipam.SubnetAddresses(
            subnet=SUBNETS[1],
            used=_set(1, RANGES[1], more=3),
            reserved=_set(1, parse_range("fd00:1::")),
            resting=_set(0),
            excluded=_set(0),
            pooled=_set(0),
            on_request=_set(0),
            free=_set(ipam.COUNT_MAX, parse_range("fd00:1::b-fd00:1::ffff:ffff:ffff:ffff")),
        ),
    ),
)
HOST_VIEW = host.HostView(
    host="h1",
    name="h1",
    spec=host.HostSpec(driver="ovs", datapath="netdev", version="0.1.0", bridge="vlanBr"),
    status=host.HostStatus(state="joined", endpoints=1, seq=2),
)
PORT_VIEW = host.PortView(
    tenant="acme",
    network="web",
    name="web1",
    endpoint=ID,
    epoch=17,
    device="np0123456789ab",
    interface="eth0",
    container="c1",
    parts=("link", "switch", "rules"),
    state="bound",
)
CONTAINER_VIEW = host.ContainerView(container="c1", host="h1", state="waiting", code="container-absent", reason="no c1")

COMMANDS: tuple[msgspec.Struct, ...] = (
    tenant.CreateTenant(
        tenant="acme", subnet_pool=ip_network("11.0.0.0/8"), subnet_length=24, vlans="10-100,150", vnis="10000-20000"
    ),
    tenant.SetTenant(
        tenant="acme", subnet_pool=ip_network("12.0.0.0/8"), subnet_length=24, vlans="10-100,150", vnis=""
    ),
    tenant.DeleteTenant(tenant="acme"),
    tenant.GetTenant(tenant="acme"),
    tenant.ListTenants(tenant="fabric"),
    network.CreateNetwork(tenant="acme", network="web", encap="vlan", tag=12, subnets=SUBNETS, gateways=GATEWAYS),
    network.SetNetwork(tenant="acme", network="web", ranges=RANGES[:1], exclude=RANGES[1:]),
    network.DeleteNetwork(tenant="acme", network="web"),
    network.GetNetwork(tenant="acme", network="web"),
    network.ListNetworks(tenant="acme"),
    pool.CreatePool(tenant="acme", network="web", name="front", ranges=RANGES),
    pool.DeletePool(tenant="acme", network="web", name="front"),
    pool.GetPool(tenant="acme", network="web", name="front"),
    pool.ListPools(tenant="acme", network="web"),
    ipam.ShowIpam(tenant="acme", network="web"),
    endpoint.CreateEndpoint(
        tenant="acme", network="web", name="web1", addresses=(ADDRESS,), mac=MAC, tag=12, container="c1", host="h1"
    ),
    endpoint.AttachEndpoint(tenant="acme", name="web1", container="netns:c1", host="h1", network="web"),
    endpoint.DetachEndpoint(tenant="acme", name="web1", network="web", container="pid:17"),
    endpoint.DeleteEndpoint(tenant="acme", name="web1", network="web"),
    endpoint.GetEndpoint(tenant="acme", name="web1", network="web"),
    endpoint.ListEndpoints(tenant="acme", network="web"),
    host.JoinHost(tenant="fabric", host="h1", driver="ovs", datapath="netdev", version="0.1.0", bridge="vlanBr"),
    host.RemoveHost(tenant="fabric", host="h1"),
    host.InviteHost(tenant="fabric", public_key=PUBLIC_KEY, ttl_s=600),
    host.AdmitHost(tenant="fabric", host="h1", public_key=PUBLIC_KEY, machine_id=MACHINE_ID),
    host.GetHost(tenant="fabric", host="h1"),
    host.ListHosts(tenant="fabric"),
    intent.ApplyIntent(
        tenant="acme",
        changes=(
            tenant.CreateTenant(tenant="acme"),
            network.CreateNetwork(tenant="acme", network="web"),
            endpoint.CreateEndpoint(tenant="acme", network="web", name="web1"),
            endpoint.DeleteEndpoint(tenant="acme", network="web", name="web0"),
        ),
    ),
)
QUESTIONS: tuple[msgspec.Struct, ...] = (
    host.InspectHost(tenant="fabric"),
    host.RepairHost(tenant="fabric", endpoints=(ID,)),
    host.AdoptJournal(tenant="fabric"),
    host.FindContainer(tenant="fabric", container="c1"),
)
NEW_AND_BOUND = endpoint.EndpointBound(
    tenant="acme",
    network="web",
    endpoint=ID,
    name="web1",
    host="h1",
    container="c1",
    addresses=INTERFACES,
    gateways=GATEWAYS,
    mac=MAC,
    encap="vlan",
    tag=12,
    mtu_bytes=1500,
    is_new=True,
    asked=(ADDRESS,),
)

EVENTS: tuple[msgspec.Struct, ...] = (
    tenant.TenantCreated(
        tenant="acme", subnet_pool=ip_network("11.0.0.0/8"), subnet_length=24, vlans="10-100,150", vnis="10000-20000"
    ),
    tenant.TenantChanged(subnet_pool=ip_network("12.0.0.0/8"), subnet_length=24, vlans="10-100,150", vnis=""),
    tenant.TenantDeleted(tenant="acme"),
    tenant.NetworkAdded(network="web", subnets=SUBNETS),
    tenant.SubnetTaken(network="web", subnet=SUBNETS[0]),
    tenant.NetworkRemoved(network="web"),
    network.NetworkCreated(
        tenant="acme",
        network="web",
        encap="vxlan",
        tag=10012,
        is_tag_chosen=True,
        subnets=SUBNETS,
        gateways=GATEWAYS,
        mtu_bytes=1450,
    ),
    network.SubnetAdopted(subnet=SUBNETS[0]),
    network.NetworkRetagged(tag=12),
    network.AddressingChanged(ranges=RANGES[:1], excluded=RANGES[1:]),
    network.NetworkDeleted(tenant="acme", network="web"),
    pool.PoolCreated(name="front", ranges=RANGES),
    pool.PoolDeleted(name="front"),
    endpoint.EndpointCreated(endpoint=ID, name="web1", addresses=INTERFACES, mac=MAC, asked=(ADDRESS,)),
    endpoint.EndpointBound(
        tenant="acme",
        network="web",
        endpoint=ID,
        name="web1",
        host="h1",
        container="c1",
        addresses=INTERFACES,
        gateways=GATEWAYS,
        mac=MAC,
        encap="vlan",
        tag=12,
        mtu_bytes=1500,
    ),
    endpoint.EndpointUnbound(endpoint=ID, name="web1", host="h1", epoch=17),
    endpoint.EndpointDeleted(endpoint=ID, name="web1", addresses=INTERFACES, host="h1", epoch=17),
    port.PortBound(**PORT, device="np0123456789ab", interface="eth0"),
    port.PortWaiting(**PORT, code="container-absent", reason="no container c1"),
    port.PortFailed(**PORT, code="switch-refused", reason="no such device"),
    port.PortUnbound(**PORT),
    segment.SegmentTaken(encap="vlan", tag=12, tenant="acme", network="web"),
    segment.SegmentReleased(encap="vlan", tag=12),
    host.HostJoined(host="h1", driver="ovs", datapath="netdev", version="0.1.0", bridge="vlanBr"),
    host.HostRemoved(host="h1"),
    host.HostInvited(invitation="abcdefghijkl", public_key=PUBLIC_KEY, expires_at_ns=1_800_000_000_000_000_000),
    host.HostAdmitted(host="h1", public_key=PUBLIC_KEY, machine_id=MACHINE_ID, invitation="abcdefghijkl"),
)
REPLIES: tuple[tuple[str, msgspec.Struct], ...] = (
    ("accepted", replies.Accepted(seq=18, object=ENDPOINT_VIEW)),
    ("accepted-gone", replies.Accepted(seq=19, is_changed=False, is_repeated=True)),
    ("accepted-intent", replies.Accepted(seq=23, object=intent.IntentView(tenant="acme", seqs=(20, 0, 22, 23)))),
    (
        "planned",
        replies.Planned(
            seq=19,
            object=ENDPOINT_VIEW,
            events=(
                replies.PlannedEvent(
                    subject="np.v1.evt.acme.net.web.endpoint-unbound.h1",
                    event=endpoint.EndpointUnbound(endpoint=ID, name="web1", host="h1", epoch=17),
                ),
            ),
            notes=("network web adopted subnet 11.1.1.0/24",),
        ),
    ),
    ("item-tenant", replies.Item(seq=20, object=TENANT_VIEW)),
    ("item-network", replies.Item(seq=20, object=NETWORK_VIEW)),
    ("item-pool", replies.Item(seq=20, object=POOL_VIEW)),
    ("items-addresses", replies.Items(seq=20, objects=(ADDRESSES_VIEW,))),
    ("item-host", replies.Item(seq=20, object=HOST_VIEW)),
    ("item-container", replies.Item(seq=20, object=CONTAINER_VIEW)),
    ("items-port", replies.Items(seq=20, objects=(PORT_VIEW,))),
    ("refused", replies.Refused(code="subnet-overlaps", detail="11.1.1.0/24 overlaps 11.1.0.0/16 of network db")),
    (
        "unavailable",
        replies.Unavailable(code="journal-full", detail="no space", retry_after_s=1.5, is_outcome_unknown=True),
    ),
)
