"""Which messages there are, by the name that stands in their `type`. The code of `network.create` is found from here
by name alone.
"""

from __future__ import annotations

from .endpoint import (
    AttachEndpoint,
    CreateEndpoint,
    DeleteEndpoint,
    DetachEndpoint,
    EndpointBound,
    EndpointCreated,
    EndpointDeleted,
    EndpointUnbound,
    GetEndpoint,
    ListEndpoints,
)
from .host import (
    AdmitHost,
    AdoptJournal,
    FindContainer,
    GetHost,
    HostAdmitted,
    HostInvited,
    HostJoined,
    HostRemoved,
    InspectHost,
    InviteHost,
    JoinHost,
    ListHosts,
    RemoveHost,
    RepairHost,
)
from .intent import ApplyIntent
from .ipam import ShowIpam
from .network import (
    AddressingChanged,
    CreateNetwork,
    DeleteNetwork,
    GetNetwork,
    ListNetworks,
    NetworkCreated,
    NetworkDeleted,
    NetworkRetagged,
    SetNetwork,
    SubnetAdopted,
)
from .pool import CreatePool, DeletePool, GetPool, ListPools, PoolCreated, PoolDeleted
from .port import PortBound, PortFailed, PortUnbound, PortWaiting
from .segment import SegmentReleased, SegmentTaken
from .struct import Command, Event, kebab
from .tenant import (
    CreateTenant,
    DeleteTenant,
    GetTenant,
    ListTenants,
    NetworkAdded,
    NetworkRemoved,
    SetTenant,
    SubnetTaken,
    TenantChanged,
    TenantCreated,
    TenantDeleted,
)

IpamCommand = (
    CreateTenant
    | SetTenant
    | DeleteTenant
    | GetTenant
    | ListTenants
    | CreateNetwork
    | SetNetwork
    | DeleteNetwork
    | GetNetwork
    | ListNetworks
    | CreatePool
    | DeletePool
    | GetPool
    | ListPools
    | ShowIpam
    | CreateEndpoint
    | AttachEndpoint
    | DetachEndpoint
    | DeleteEndpoint
    | GetEndpoint
    | ListEndpoints
    | JoinHost
    | RemoveHost
    | InviteHost
    | AdmitHost
    | GetHost
    | ListHosts
    | ApplyIntent
)
HostQuestion = InspectHost | RepairHost | AdoptJournal | FindContainer
AnyEvent = (
    TenantCreated
    | TenantChanged
    | TenantDeleted
    | NetworkAdded
    | SubnetTaken
    | NetworkRemoved
    | NetworkCreated
    | SubnetAdopted
    | NetworkRetagged
    | AddressingChanged
    | NetworkDeleted
    | PoolCreated
    | PoolDeleted
    | EndpointCreated
    | EndpointBound
    | EndpointUnbound
    | EndpointDeleted
    | PortBound
    | PortWaiting
    | PortFailed
    | PortUnbound
    | SegmentTaken
    | SegmentReleased
    | HostJoined
    | HostRemoved
    | HostInvited
    | HostAdmitted
)

COMMANDS: dict[str, type[Command]] = {kebab(kind.__name__): kind for kind in IpamCommand.__args__}
QUESTIONS: dict[str, type[Command]] = {kebab(kind.__name__): kind for kind in HostQuestion.__args__}
EVENTS: dict[str, type[Event]] = {kebab(kind.__name__): kind for kind in AnyEvent.__args__}


def command_type(construct: str, verb: str) -> str:
    """The `type` of what is sent to `...<construct>.<verb>`: `network`, `list` gives `list-networks`."""
    return f"{verb}-{construct}{'s' if verb == 'list' else ''}"


def construct_and_verb(command_type_name: str) -> tuple[str, str]:
    """The reverse of `command_type`: `list-networks` gives `network`, `list`."""
    verb, _, construct = command_type_name.partition("-")
    return (construct.removesuffix("s") if verb == "list" else construct), verb


def event_name(event: Event | type[Event]) -> str:
    """The `type` of an event, which is also the token in its subject."""
    kind = event if isinstance(event, type) else type(event)
    return kebab(kind.__name__)
