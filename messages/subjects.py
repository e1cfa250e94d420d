"""Every subject there is. Nothing else in the project spells one.

np.v1.cmd.<tenant>.<construct>.<verb>                     commands and queries, as clients send them
np.v1.svc.<tenant>.<construct>.<verb>                     the same, as the server hands them to actors with who sent
them
np.v1.host.<host>.<verb>                                  questions to one host
np.v1.evt.<tenant>.net.<network>.<event>.<host>           a network and its endpoints; `_` for no host
np.v1.evt.<tenant>.tenant.<event>                         a tenant
np.v1.evt.<tenant>.port.<host>.<event>                    what a host made of an endpoint
np.v1.evt.fabric.segment.<event>, ...fabric.host.<event>  tags in use; hosts
np.v1.port.<host>.<tenant>.<endpoint id>                  last state of a port
np.v1.audit.<tenant>.<what>                               refusals
np.v1.snapshot.<actor>                                    an actor's newest snapshot
"""

from __future__ import annotations

from typing import NamedTuple

from .names import NO_HOST

ROOT = "np.v1"
COMMANDS = f"{ROOT}.cmd"
SERVICES = f"{ROOT}.svc"
EVENTS = f"{ROOT}.evt"
ALL_EVENTS = f"{EVENTS}.>"
AUDIT = f"{ROOT}.audit"
ALL_AUDIT = f"{AUDIT}.>"
PORTS = f"{ROOT}.port"
RULES = f"{ROOT}.rules"
SNAPSHOTS = f"{ROOT}.snapshot"
HOSTS = f"{ROOT}.host"
JOURNAL_STREAM = "NP_JOURNAL"
STATE_STREAM = "NP_STATE"
AUDIT_STREAM = "NP_AUDIT"
FABRIC = "fabric"


class CommandSubject(NamedTuple):
    """What a command's subject says: `np.v1.cmd.acme.network.create`."""

    tenant: str
    construct: str
    verb: str


def command(tenant: str, construct: str, verb: str) -> str:
    """Where a client sends a command."""
    return f"{COMMANDS}.{tenant}.{construct}.{verb}"


def service(construct: str, verb: str) -> str:
    """What an actor subscribes to for one verb of all tenants."""
    return f"{SERVICES}.*.{construct}.{verb}"


def any_tenant(construct: str, verb: str) -> str:
    """Where clients send one verb of all tenants."""
    return command("*", construct, verb)


def parse_command(subject: str) -> CommandSubject:
    """The tokens of a subject of `command` or `service`. Raises: ValueError."""
    tokens = subject.split(".")
    if len(tokens) != 6 or tokens[0] != "np" or tokens[1] != "v1" or tokens[2] not in ("cmd", "svc"):
        raise ValueError(f"subject {subject!r} is no command's: expected {COMMANDS}.<tenant>.<construct>.<verb>")
    return CommandSubject(*tokens[3:])


def host_question(host: str, verb: str) -> str:
    """Where a question to one host is sent: `inspect`, `container`."""
    return f"{HOSTS}.{host}.{verb}"


def tenant_aggregate(tenant: str) -> str:
    """All events of a tenant's own aggregate."""
    return f"{EVENTS}.{tenant}.tenant.>"


def network_aggregate(tenant: str, network: str) -> str:
    """All events of a network and its endpoints."""
    return f"{EVENTS}.{tenant}.net.{network}.>"


def port_aggregate(tenant: str, host: str) -> str:
    """All reports of a host about a tenant's ports."""
    return f"{EVENTS}.{tenant}.port.{host}.>"


SEGMENT_AGGREGATE = f"{EVENTS}.{FABRIC}.segment.>"
HOST_AGGREGATE = f"{EVENTS}.{FABRIC}.host.>"


def tenant_event(tenant: str, event: str) -> str:
    """Where an event of a tenant's aggregate is recorded."""
    return f"{EVENTS}.{tenant}.tenant.{event}"


def network_event(tenant: str, network: str, event: str, host: str = NO_HOST) -> str:
    """Where an event of a network is recorded; `host` is the one it is about."""
    return f"{EVENTS}.{tenant}.net.{network}.{event}.{host or NO_HOST}"


def port_event(tenant: str, host: str, event: str) -> str:
    """Where a host's report about an endpoint is recorded."""
    return f"{EVENTS}.{tenant}.port.{host}.{event}"


def segment_event(event: str) -> str:
    """Where an event about tags in use is recorded."""
    return f"{EVENTS}.{FABRIC}.segment.{event}"


def host_event(event: str) -> str:
    """Where an event about hosts is recorded."""
    return f"{EVENTS}.{FABRIC}.host.{event}"


def bound_to(host: str) -> str:
    """What a host follows: every event of any network that is about an endpoint on it."""
    return f"{EVENTS}.*.net.*.*.{host}"


def reported_by(host: str) -> str:
    """Every report of a host about any tenant's ports."""
    return f"{EVENTS}.*.port.{host}.*"


def port_state(host: str, tenant: str, endpoint: str) -> str:
    """Where the last state of a port stands."""
    return f"{PORTS}.{host}.{tenant}.{endpoint}"


def audit(tenant: str, what: str) -> str:
    """Where a refusal is recorded."""
    return f"{AUDIT}.{tenant}.{what}"


def snapshot(actor: str) -> str:
    """Where an actor's newest snapshot stands."""
    return f"{SNAPSHOTS}.{actor}"


def aggregate_of(subject: str) -> str:
    """The filter of the aggregate that an event's subject belongs to. Raises: ValueError for what is no event's
    subject.
    """
    tokens = subject.split(".")
    if tokens[:3] != ["np", "v1", "evt"] or len(tokens) < 6:
        raise ValueError(f"subject {subject!r} is no event's: expected {EVENTS}.<tenant>.<aggregate>...")
    depth = 6 if tokens[4] in ("net", "port") else 5
    return ".".join(tokens[:depth]) + ".>"


def host_of(subject: str) -> str:
    """The host that a network's event is about, `_` for none."""
    return subject.rsplit(".", 1)[1]
