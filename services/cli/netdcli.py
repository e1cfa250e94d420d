"""`netdcli`: the command line of 2015, to the letter, on the bus of today.

netdcli -oper create|get|delete|attach|detach -construct tenant|network|endpoint [FLAGS] ID
netdcli -cfg|-add-cfg|-del-cfg|-host-bindings-cfg FILE
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, NoReturn

import msgspec

from messages.endpoint import AttachEndpoint, CreateEndpoint, DeleteEndpoint, DetachEndpoint, GetEndpoint
from messages.names import DEFAULT_TENANT
from messages.network import CreateNetwork, DeleteNetwork, GetNetwork, NetworkView
from messages.tenant import CreateTenant, DeleteTenant

from . import endpoint, goflags, output
from .exits import DONE, INTERRUPTED, Ended, leave, wrong_usage
from .network import check_network, subnet_choice
from .network import sentence as network_sentence
from .options import DEFAULT_TIMEOUT_S, duration_s
from .tenant import checked as checked_tenant
from .verbs import Session, message, show_changed
from .waiting import remove

OPERATIONS = ("create", "get", "attach", "detach", "delete")
INTENT = "intent"
CONSTRUCTS = ("network", "endpoint", "tenant")

# What is done with a whole intent, and what its file is; in `netdcli_intent.py`.
MODES = {
    "cfg": "JSON file of all that its tenants are to have, or - for standard input",
    "add-cfg": "JSON file of what is to be there as well",
    "del-cfg": "JSON file of what is to go",
    "host-bindings-cfg": "JSON file of which host each container is on",
}
# Flag -> (the setting that it gives, what it is for).
FLAGS: dict[str, tuple[str, str]] = {
    "oper": ("oper", "operation to perform: create, get, attach, detach, delete"),
    "construct": ("construct", "what to perform it on: network, endpoint, tenant"),
    "tenant": ("tenant", "tenant that it belongs to (default: default)"),
    "tenant-id": ("tenant", "the same as -tenant"),
    "net-id": ("network", "network of an endpoint"),
    "tag": ("tag", "VLAN or VXLAN tag: of a network, or the one that the endpoint's network shall have"),
    "tag-type": ("encap", "vlan (default) or vxlan"),
    "encap": ("encap", "the same as -tag-type"),
    "subnet": ("subnet", "of a network: CIDR, auto, or none (default); of a tenant: the pool that subnets come from"),
    "alloc-subnet-len": ("subnet_length", "of a tenant: prefix length of each subnet taken from its pool"),
    "gw": ("gateway", "gateway address of a network"),
    "gateway": ("gateway", "the same as -gw"),
    "ip-address": ("address", "address of an endpoint (default: the first free one)"),
    "mac-address": ("mac", "MAC address of an endpoint (default: one is made)"),
    "container-id": ("container", "container to attach: a Docker name or id, netns:NAME, pid:N"),
    "cont-id": ("container", "the same as -container-id"),
    "attach-uuid": ("container", "the same as -container-id"),
    "host": ("host", "host that the container is on (default: this one)"),
    "host-id": ("host", "the same as -host"),
    "vlans": ("vlans", "of a tenant: VLAN tags to pick from, such as 10-100,150"),
    "vxlans": ("vnis", "of a tenant: VXLAN tags to pick from, such as 10000-10100"),
    "cfg": ("cfg", MODES["cfg"]),
    "add-cfg": ("add-cfg", MODES["add-cfg"]),
    "del-cfg": ("del-cfg", MODES["del-cfg"]),
    "host-bindings-cfg": ("host-bindings-cfg", MODES["host-bindings-cfg"]),
    "server": ("server", "address of nats-server (default: that of the daemon on this host)"),
    "creds": ("creds", "nkey seed or .creds file"),
    "timeout": ("timeout", "how long to wait, such as 30s (default)"),
    "wait": ("wait", "applied (default) or accepted"),
}
EVERYWHERE = frozenset({"oper", "construct", "tenant", "server", "creds", "timeout", "wait"})
_ATTACHED = frozenset({"network", "container", "host"})
# What each operation on each construct takes beside these.
TAKES: dict[tuple[str, str], frozenset[str]] = {
    ("create", "network"): frozenset({"tag", "encap", "subnet", "gateway"}),
    ("create", "endpoint"): frozenset({"tag", "encap", "address", "mac"}) | _ATTACHED,
    ("create", "tenant"): frozenset({"subnet", "subnet_length", "vlans", "vnis", "encap"}),
    ("get", "endpoint"): frozenset({"network"}),
    ("attach", "endpoint"): _ATTACHED,
    ("detach", "endpoint"): _ATTACHED,
    ("delete", "endpoint"): frozenset({"network"}),
    **{(operation, construct): frozenset() for operation in ("get", "delete") for construct in ("network", "tenant")},
    **{(mode, INTENT): frozenset({mode}) for mode in MODES},
}


class Request(NamedTuple):
    """What was asked for: settings by name, and the id."""

    operation: str
    construct: str
    settings: Mapping[str, str]
    id: str


def main() -> NoReturn:
    """The process has ended with the status of the operation."""
    leave(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """The exit status of one command line; its result is on stdout, its faults are on stderr."""
    try:
        request = read(arguments)
        session = _session(request)
        try:
            return PERFORM[request.operation, request.construct](session, request)
        finally:
            session.close()
    except goflags.HelpWanted:
        print(usage(), end="")
        return DONE
    except Ended as end:
        print(f"netdcli: {end.message}", file=sys.stderr)
        return end.status
    except KeyboardInterrupt:
        return INTERRUPTED


def read(arguments: Sequence[str]) -> Request:
    """What was asked for. Raises: Ended with status 2, HelpWanted."""
    try:
        flags = goflags.parse(arguments, FLAGS)
    except goflags.WrongFlags as fault:
        raise wrong_usage(f"{fault}; -help shows what is possible") from None
    settings: dict[str, str] = {}
    for flag, value in flags.values.items():
        name = FLAGS[flag][0]
        if settings.setdefault(name, value) != value:
            raise wrong_usage(f"flag -{flag} says {value!r}, another flag for the same says {settings[name]!r}")
    modes = [mode for mode in MODES if mode in settings]
    if modes:
        return _read_intent(modes, flags, settings)
    operation = _one_of(settings, "oper", "operation", OPERATIONS)
    construct = _one_of(settings, "construct", "construct", CONSTRUCTS)
    if (operation, construct) not in TAKES:
        raise wrong_usage(f"operation {operation!r} is for endpoints, not for a {construct}")
    _check_taken(flags.values, operation, construct)
    if not flags.words:
        raise wrong_usage(f"id is missing: name the {construct} after the flags")
    if len(flags.words) > 1:
        raise wrong_usage(f"more than one id: {' '.join(flags.words)}; an empty or unquoted value may be the cause")
    return Request(operation, construct, settings, flags.words[0])


def _read_intent(modes: Sequence[str], flags: goflags.Flags, settings: Mapping[str, str]) -> Request:
    """A whole intent, and what is to be done with it. Raises: Ended with status 2."""
    if len(modes) > 1:
        raise wrong_usage(f"-{modes[0]} and -{modes[1]} are both given: expected one of them")
    if flags.words:
        raise wrong_usage(
            f"more than one file: {' '.join(flags.words)}; -{modes[0]} takes one, or - for standard input"
        )
    for flag in flags.values:
        if FLAGS[flag][0] not in TAKES[modes[0], INTENT] | EVERYWHERE - {"oper", "construct"}:
            raise wrong_usage(f"flag -{flag} is not for -{modes[0]}")
    return Request(modes[0], INTENT, settings, settings[modes[0]])


def usage() -> str:
    """What -help prints."""
    lines = [f"  -{flag} value\n    \t{meaning}" for flag, (_, meaning) in FLAGS.items()]
    head = "usage: netdcli -oper OPERATION -construct CONSTRUCT [FLAGS] ID\n       netdcli -cfg FILE [FLAGS]\n\n"
    return head + "\n".join(lines) + "\n"


def _one_of(settings: Mapping[str, str], flag: str, noun: str, allowed: Sequence[str]) -> str:
    value = settings.get(flag)
    if value is None:
        raise wrong_usage(f"{noun} is missing: give -{flag} with one of {', '.join(allowed)}")
    if value not in allowed:
        raise wrong_usage(f"{noun} {value!r} is not known: expected one of {', '.join(allowed)}")
    return value


def _check_taken(values: Mapping[str, str], operation: str, construct: str) -> None:
    allowed = TAKES[operation, construct] | EVERYWHERE
    for flag in values:
        if FLAGS[flag][0] not in allowed:
            raise wrong_usage(f"flag -{flag} is not for `{operation}` of a {construct}")


def _session(request: Request) -> Session:
    settings = request.settings
    try:
        timeout_s = duration_s(settings["timeout"]) if "timeout" in settings else DEFAULT_TIMEOUT_S
    except argparse.ArgumentTypeError as fault:
        raise wrong_usage(f"-timeout: {fault}") from None
    wait = settings.get("wait", "applied")
    if wait not in ("applied", "accepted"):
        raise wrong_usage(f"-wait is {wait!r}: expected applied or accepted")
    return Session(
        argparse.Namespace(
            tenant=settings.get("tenant", DEFAULT_TENANT),
            output="table",
            timeout=timeout_s,
            server=settings.get("server"),
            creds=settings.get("creds"),
            context=None,
            wait=wait,
            at="",
            dry_run=False,
        )
    )


def _number(request: Request, name: str, flag: str) -> int | None:
    text = request.settings.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise wrong_usage(f"-{flag} is {text!r}: expected a number")
    return int(text)


def _encap(request: Request) -> str | None:
    encap = request.settings.get("encap")
    if encap not in (None, "vlan", "vxlan"):
        raise wrong_usage(f"-tag-type is {encap!r}: expected vlan or vxlan")
    return encap


def _create_tenant(session: Session, request: Request) -> int:
    _encap(request)  # a tenant may use both
    command = message(
        CreateTenant,
        tenant=request.id,
        subnet_pool=request.settings.get("subnet"),
        subnet_length=_number(request, "subnet_length", "alloc-subnet-len"),
        vlans=request.settings.get("vlans"),
        vnis=request.settings.get("vnis"),
    )
    return show_changed(session, session.client.command(command), f"tenant {request.id} created")


def _create_network(session: Session, request: Request) -> int:
    gateway = request.settings.get("gateway")
    subnet = request.settings.get("subnet")
    command = message(
        CreateNetwork,
        tenant=session.tenant,
        network=request.id,
        encap=_encap(request),
        tag=_number(request, "tag", "tag"),
        subnets=subnet_choice([subnet]) if subnet is not None else "none",
        gateways=[gateway] if gateway is not None else None,
    )
    accepted = session.client.command(command)
    view = accepted.object
    said = network_sentence(view) if isinstance(view, NetworkView) else f"network {request.id} created"
    return show_changed(session, accepted, said)


def _create_endpoint(session: Session, request: Request) -> int:
    settings = request.settings
    if "network" not in settings:
        raise wrong_usage("network is missing: give -net-id with the network that the endpoint is in")
    endpoint.check_endpoint(session.tenant, settings["network"], request.id)
    _encap(request)  # the network's decides
    container = settings.get("container")
    address = settings.get("address")
    command = message(
        CreateEndpoint,
        tenant=session.tenant,
        network=settings["network"],
        name=request.id,
        addresses=[address] if address is not None else None,
        mac=settings.get("mac"),
        tag=_number(request, "tag", "tag"),
        container=container,
        host=settings.get("host") or (session.host if container is not None else None),
    )
    return endpoint.show_outcome(session, endpoint.create(session, command), "created", request.id)


def _attach(session: Session, request: Request) -> int:
    settings = request.settings
    if "container" not in settings:
        raise wrong_usage("container is missing: give -container-id with the container to attach")
    endpoint.check_endpoint(session.tenant, settings.get("network"), request.id)
    command = message(
        AttachEndpoint,
        tenant=session.tenant,
        name=request.id,
        network=settings.get("network"),
        container=settings["container"],
        host=settings.get("host") or session.host,
    )
    return endpoint.show_outcome(session, endpoint.attach(session, command), "attached", named=request.id)


def _detach(session: Session, request: Request) -> int:
    settings = request.settings
    where = {"network": settings.get("network"), "container": settings.get("container")}
    endpoint.check_endpoint(session.tenant, where["network"], request.id, where["container"])
    command = message(DetachEndpoint, tenant=session.tenant, name=request.id, **where)
    return endpoint.show_outcome(
        session, remove(session.client, command, is_waited_for=session.waits), "detached", named=request.id
    )


def _delete_tenant(session: Session, request: Request) -> int:
    command = message(DeleteTenant, tenant=request.id)
    accepted = session.client.command(command)
    return show_changed(session, accepted, f"tenant {request.id} deleted")


def _delete_network(session: Session, request: Request) -> int:
    check_network(session.tenant, request.id)
    accepted = session.client.command(message(DeleteNetwork, tenant=session.tenant, network=request.id))
    return show_changed(session, accepted, f"network {session.tenant}/{request.id} deleted")


def _delete_endpoint(session: Session, request: Request) -> int:
    network = request.settings.get("network")
    endpoint.check_endpoint(session.tenant, network, request.id)
    return endpoint.delete(session, message(DeleteEndpoint, tenant=session.tenant, name=request.id, network=network))


def _get_tenant(session: Session, request: Request) -> int:
    query = checked_tenant(request.id)
    return _print(session.client.get(query).object)


def _get_network(session: Session, request: Request) -> int:
    check_network(session.tenant, request.id)
    return _print(session.client.get(GetNetwork(tenant=session.tenant, network=request.id)).object)


def _get_endpoint(session: Session, request: Request) -> int:
    network = request.settings.get("network")
    endpoint.check_endpoint(session.tenant, network, request.id)
    query = GetEndpoint(tenant=session.tenant, name=request.id, network=network)
    return _print(session.client.get(query).object)


def _print(view: msgspec.Struct) -> int:
    output.show_one(output.shape(view), "json")
    return DONE


def _intent(session: Session, request: Request) -> int:
    from .netdcli_intent import perform_intent

    return perform_intent(session, request.operation, request.id)


PERFORM: dict[tuple[str, str], Callable[[Session, Request], int]] = {
    ("create", "tenant"): _create_tenant,
    ("create", "network"): _create_network,
    ("create", "endpoint"): _create_endpoint,
    ("get", "tenant"): _get_tenant,
    ("get", "network"): _get_network,
    ("get", "endpoint"): _get_endpoint,
    ("attach", "endpoint"): _attach,
    ("detach", "endpoint"): _detach,
    ("delete", "tenant"): _delete_tenant,
    ("delete", "network"): _delete_network,
    ("delete", "endpoint"): _delete_endpoint,
    **{(mode, INTENT): _intent for mode in MODES},
}

if __name__ == "__main__":
    main()
