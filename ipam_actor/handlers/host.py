"""`host.invite`, `admit`, `join`, `remove`, `get`, `list`."""

from __future__ import annotations

from messages.host import (
    AdmitHost,
    GetHost,
    HostAdmitted,
    HostInvited,
    HostJoined,
    HostRemoved,
    HostView,
    InviteHost,
    JoinHost,
    ListHosts,
    RemoveHost,
    invitation_of,
)
from messages.replies import Item, Items
from services.runtime import identity
from services.runtime.decision import Decision, Rejection, Stamp

from .. import facts
from ..lookup import some_of
from ..records import HostRecord, Invitation
from ..state import State
from ..views import admitted_view, endpoints_by_host, host_view

_SAID = (  # of a host by itself
    "driver",
    "datapath",
    "version",
    "bridge",
    "vtep",
    "vtep_mac",
    "underlay_mtu_bytes",
    "uplinks",
)


def invite_host(state: State, command: InviteHost, stamp: Stamp) -> Decision:
    """One host may join with this key until `ttl_s` from now. The same key again: nothing changes."""
    invitation = invitation_of(command.public_key)
    if invitation in state.hosts.invitations:
        return Decision()
    expires_at_ns = stamp.at_ns + command.ttl_s * 10**9
    event = HostInvited(invitation=invitation, public_key=command.public_key, expires_at_ns=expires_at_ns)
    return Decision((facts.of_hosts(event),))


def admit_host(state: State, command: AdmitHost, stamp: Stamp) -> Decision:
    """The host of that name is whoever signs with its key. Asked again by the same machine: nothing changes.

    The invitation is that of the sender, who has shown the server that he holds its one-time key.
    Refuses: `token-unknown`, `token-used`, `token-expired`, `host-name-taken`.
    """
    name, invitation = _invitation_of(state, stamp)
    show = GetHost(tenant=command.tenant, host=command.host)
    found = state.hosts.admitted.get(command.host)
    is_same = found is not None and (found.public_key, found.machine_id) == (command.public_key, command.machine_id)
    if is_same and invitation.used_by == command.host:
        return Decision((), show)
    if invitation.used_by:
        raise Rejection("token-used", f"host {invitation.used_by} has joined with this token: make one for each host")
    if stamp.at_ns > invitation.expires_at_ns:
        late_s = (stamp.at_ns - invitation.expires_at_ns) // 10**9
        raise Rejection("token-expired", f"the token was good until {late_s} s ago: make a new one")
    is_known = found is not None or command.host in state.hosts.hosts
    if is_known and (found is None or found.machine_id != command.machine_id):
        raise Rejection(
            "host-name-taken",
            f"{command.host} is another machine: join under another name (--host), or remove that host first",
        )
    event = HostAdmitted(
        host=command.host, public_key=command.public_key, machine_id=command.machine_id, invitation=name
    )
    return Decision((facts.of_hosts(event),), show)


def _invitation_of(state: State, stamp: Stamp) -> tuple[str, Invitation]:
    """The invitation of the sender, whom the server names, or gives the public key of. Refuses: `token-unknown`."""
    user = stamp.by.user
    name = user.removeprefix(identity.JOIN_PREFIX) if user.startswith(identity.JOIN_PREFIX) else invitation_of(user)
    found = state.hosts.invitations.get(name)
    if found is None or user not in (found.public_key, identity.join_user(name)):
        raise Rejection("token-unknown", f"{user} was not invited: make a token (`netctl host token`)")
    return name, found


def join_host(state: State, command: JoinHost, stamp: Stamp) -> Decision:
    """The host is a member and says this of itself. Identical: nothing changes; other: the newest stands.

    Refuses: `another-host`, what a host says of another one.
    """
    if stamp.by.user not in (identity.host_user(command.host), _key_of(state, command.host)) and _is_host(state, stamp):
        raise Rejection("another-host", f"{stamp.by.user} cannot speak for host {command.host}")
    show = GetHost(tenant=command.tenant, host=command.host)
    found = state.hosts.hosts.get(command.host)
    said = {name: getattr(command, name) for name in _SAID}
    if found is not None and all(getattr(found, name) == value for name, value in said.items()):
        return Decision((), show)
    return Decision((facts.of_hosts(HostJoined(host=command.host, **said)),), show)


def remove_host(state: State, command: RemoveHost, _stamp: Stamp) -> Decision:
    """Forget a host that holds no endpoint; what rested because of it, rests no longer.

    Refuses: `unknown-host`, `host-in-use`.
    """
    if command.host not in state.hosts.admitted:
        require_host(state, command.host)
    bound = sorted(
        f"{tenant}/{network}/{endpoint.name}"
        for tenant, networks in state.networks.items()
        for network, aggregate in networks.items()
        for endpoint in aggregate.endpoints.values()
        if endpoint.binding is not None and endpoint.binding.host == command.host
    )
    if bound:
        raise Rejection(
            "host-in-use", f"host {command.host} still holds endpoints ({some_of(bound)}): detach or delete them first"
        )
    return Decision((facts.of_hosts(HostRemoved(host=command.host)),))


def get_host(state: State, command: GetHost, _stamp: Stamp) -> Decision:
    """One host. Refuses: `unknown-host`."""
    views = _views(state)
    if command.host not in views:
        require_host(state, command.host)
    return Decision(reply=Item(seq=state.hosts.seq, object=views[command.host]))


def list_hosts(state: State, _command: ListHosts, _stamp: Stamp) -> Decision:
    """All hosts in the order of their names."""
    views = _views(state)
    return Decision(reply=Items(seq=state.hosts.seq, objects=tuple(views[name] for name in sorted(views))))


def _views(state: State) -> dict[str, HostView]:
    """Every host that has begun, and those that were let in and have not."""
    endpoints = endpoints_by_host(state)
    admitted = {name: admitted_view(name, admission) for name, admission in state.hosts.admitted.items()}
    return admitted | {name: host_view(name, host, endpoints[name]) for name, host in state.hosts.hosts.items()}


def _key_of(state: State, host: str) -> str:
    """The public key that a host was admitted with; empty for one that was not."""
    admission = state.hosts.admitted.get(host)
    return admission.public_key if admission else ""


def _is_host(state: State, stamp: Stamp) -> bool:
    """Whether a host sent this."""
    user = stamp.by.user
    keys = {each.public_key for each in state.hosts.admitted.values()}
    return user.startswith(identity.HOST_PREFIX) or user in keys


def require_host(state: State, host: str) -> HostRecord:
    """A host that is a member. Refuses: `unknown-host`."""
    found = state.hosts.hosts.get(host)
    if found is None:
        members = some_of(sorted(state.hosts.hosts)) or "none yet"
        raise Rejection("unknown-host", f"host {host} is not a member of the cluster (members: {members})")
    return found
