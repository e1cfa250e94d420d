"""`netctl status`: is everything well, and if not, what to do about it. Ends with status 1 when something is not.

server -> durability -> streams -> actors (by $SRV, with version and lag) -> hosts and their switches -> endpoints
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from messages import subjects
from messages.endpoint import EndpointView, ListEndpoints
from messages.host import HostView, InspectHost, ListHosts
from messages.replies import Items

from . import journal_reader, output
from .client import Client
from .exits import DONE, FAILED, UNREACHABLE, Ended
from .verbs import Session, Verb

TITLES = ("WHAT", "NAME", "STATE", "FACTS")
QUIET_S = 0.15  # nobody else answers after this
DISCOVERY_S = 1.0
OK, POOR, BAD = "ok", "poor", "bad"
LAG_MAX = 100  # events an actor may be behind and still be well
MONITOR_TIMEOUT_S = 2.0
SHOWN_ENDPOINTS_MAX = 20
NEEDED_ACTORS = ("ipam",)
MISMATCH = "journal-mismatch"  # a host's state while it waits for an operator: host_actor/follower.py


class Check(NamedTuple):
    """One thing that was looked at. `advice` says what to do, where something is not as it should be."""

    what: str
    name: str
    state: str
    facts: str
    advice: str = ""


def _arguments(_parser: argparse.ArgumentParser) -> None:
    pass


def _status(session: Session, _chosen: argparse.Namespace) -> int:
    return show(list(look(session.client)), session.output)


def show(checks: list[Check], form: str) -> int:
    """The checks are on stdout, and what to do; returns the exit status."""
    is_healthy = all(check.state != BAD for check in checks)
    if form == "table":
        _print(checks)
    else:
        rows = [check._asdict() for check in checks]
        if form in ("json", "yaml"):
            output.show_one({"is_healthy": is_healthy, "checks": rows}, form)
        else:
            output.show_many(rows, form)
    return DONE if is_healthy else FAILED


def look(client: Client) -> Iterator[Check]:
    """Everything there is to see from here. Raises: Ended when the server cannot be reached."""
    facts = client.wire.server_facts
    here = client.wire.where or ",".join(client.server.urls)
    yield Check("server", here, OK, f"nats-server {facts.get('version', '?')}")
    yield _durability(client)
    last_seq, checks = _streams(client)
    yield from checks
    services = discover(client)
    yield from _actors(services, last_seq)
    yield from _hosts(client, services)
    yield from _endpoints(client)


def _durability(client: Client) -> Check:
    if not client.server.monitor:
        return Check(
            "durability",
            "journal",
            POOR,
            "not known from here",
            "on the server's host, `netctl status` can ask its monitor",
        )
    import urllib.request

    try:
        with urllib.request.urlopen(f"{client.server.monitor}/jsz", timeout=MONITOR_TIMEOUT_S) as answer:  # noqa: S310
            settings = json.loads(answer.read()).get("config", {})
    except (OSError, ValueError) as fault:
        return Check("durability", "journal", POOR, f"the monitor does not answer: {fault}", "restart netplugin")
    if settings.get("sync_always"):
        return Check("durability", "journal", OK, "every write is on disk before it is acknowledged")
    return Check(
        "durability",
        "journal",
        BAD,
        "writes are acknowledged before they are on disk",
        "set `sync_interval: always` in the server's jetstream settings: a power cut loses what was acknowledged",
    )


def _streams(client: Client) -> tuple[int, list[Check]]:
    from .replica_checks import replica_checks

    last_seq, checks = 0, []
    for name in (subjects.JOURNAL_STREAM, subjects.STATE_STREAM, subjects.AUDIT_STREAM):
        try:
            facts = journal_reader.stream_facts(client, name)
        except Ended as fault:
            advice = "start `netplugin`: the ipam actor makes it"
            if len(client.server.urls) > 1:
                advice = "most servers of the cluster must run: start `netplugin` on them; the ipam actor makes it"
            checks.append(Check("stream", name, BAD, fault.message, advice))
            continue
        state, config = facts.get("state", {}), facts.get("config", {})
        if name == subjects.JOURNAL_STREAM:
            last_seq = int(state.get("last_seq", 0))
            checks += replica_checks(facts, len(client.server.urls))
        said = (
            f"{state.get('messages', 0)} messages, last seq {state.get('last_seq', 0)}, {_bytes(state.get('bytes', 0))}"
        )
        is_on_disk = config.get("storage") == "file"
        facts_said = f"{said}, {config.get('storage')}, {config.get('num_replicas')} replica(s)"
        advice = "" if is_on_disk else "its messages are lost with the server: make it anew with storage: file"
        checks.append(Check("stream", name, OK if is_on_disk else BAD, facts_said, advice))
    return last_seq, checks


def discover(client: Client) -> list[dict[str, Any]]:
    """Every actor that answers `$SRV.PING` (ADR-32), by name and host. Raises: Ended when the server stays away."""
    found = client.attempt(lambda: _answers(client), "$SRV.PING")
    return sorted(found, key=lambda each: (str(each.get("name")), metadata(each).get("host", ""), str(each.get("id"))))


def _answers(client: Client) -> list[dict[str, Any]]:
    inbox = client.wire.ask("$SRV.PING", b"")
    found: list[dict[str, Any]] = []
    end = time.monotonic() + DISCOVERY_S
    until = end
    while (message := client.wire.next_on(inbox, until)) is not None:
        if message.status == 503:
            break
        with suppress(ValueError):  # of somebody else's service that does not answer in JSON
            answer = json.loads(message.payload)
            found += [answer] if isinstance(answer, dict) else []
        until = min(end, time.monotonic() + QUIET_S)
    return found


def _actors(services: list[dict[str, Any]], last_seq: int) -> Iterator[Check]:
    for service in services:
        said = metadata(service)
        name = f"{service.get('name')}@{said['host']}" if said.get("host") else str(service.get("name"))
        version = f"version {service.get('version', '?')}"
        lag = _lag(said, last_seq) if service.get("name") in NEEDED_ACTORS else None
        if lag is None:  # a host is told only what is about it, so how far it is says nothing
            yield Check("actor", name, OK, version)
        elif lag <= LAG_MAX:
            yield Check("actor", name, OK, f"{version}, lag {lag}")
        else:
            yield Check("actor", name, POOR, f"{version}, lag {lag} events", "it is catching up; look again in a while")
    present = {service.get("name") for service in services}
    for name in NEEDED_ACTORS:
        if name not in present:
            yield Check(
                "actor",
                name,
                BAD,
                "does not answer",
                "start `netplugin` (its --actors must name it), or look at its log",
            )


def _lag(said: dict[str, str], last_seq: int) -> int | None:
    stated = said.get("seq", "")
    return max(0, last_seq - int(stated)) if stated.isascii() and stated.isdigit() else None


def _hosts(client: Client, services: list[dict[str, Any]]) -> Iterator[Check]:
    answering = {metadata(each).get("host"): metadata(each) for each in services if each.get("name") == "host"}
    try:
        views = client.items(ListHosts(tenant=subjects.FABRIC)).objects
    except Ended as fault:
        if fault.status != UNREACHABLE:
            raise
        yield Check("hosts", "-", BAD, fault.message, "without an ipam actor hosts are not known")
        return
    hosts = [view for view in views if isinstance(view, HostView)]
    for view in hosts:
        spec = view.spec
        switch = f"{spec.driver} {spec.datapath}, bridge {spec.bridge or '-'}"
        said = f"{switch}, version {spec.version}, {view.status.endpoints} endpoint(s)"
        if answering.get(view.name, {}).get("state") == MISMATCH:
            yield _mismatch(view.name, said, answering[view.name].get("reason", ""))
        elif view.name in answering:
            yield _host(client, view.name, said)
            yield from _uplinks(view.name, services)
        else:
            advice = f"start `netplugin` on it, or `netctl host remove {view.name}`; its traffic goes on meanwhile"
            yield Check("host", view.name, BAD, f"{said}; does not answer", advice)
    known = {view.name for view in hosts}
    for name, facts in answering.items():  # another journal may know of no host at all
        if name is not None and name not in known and facts.get("state") == MISMATCH:
            yield _mismatch(name, "not a member in this journal", facts.get("reason", ""))
    if not hosts and not answering:
        yield Check("host", "-", POOR, "none has joined", "start `netplugin` on the hosts that run containers")


def _mismatch(host: str, said: str, reason: str) -> Check:
    advice = f"restore the right journal; or, if this one is to be taken as it is: netctl journal adopt --host {host}"
    return Check("host", host, BAD, f"{said}; {MISMATCH}: {reason}: nothing on it is changed", advice)


def _uplinks(host: str, services: list[dict[str, Any]]) -> Iterator[Check]:
    """What the host's actor says of each of its uplinks."""
    for service in services:
        said_of = metadata(service)
        if service.get("name") != "host" or said_of.get("host") != host:
            continue
        for said in said_of.get("uplinks", "").splitlines():
            uplink, _, state = said.partition(" ")
            facts = state.strip("()")
            if facts == "taken":
                yield Check("uplink", f"{host}/{uplink}", OK, facts)
            elif facts == "no carrier":
                advice = f"plug in the cable of {uplink} on {host}, or switch on what it leads to"
                yield Check("uplink", f"{host}/{uplink}", BAD, facts, advice)
            else:
                advice = f"its VLAN networks end at {host} until that is mended, or another is named by --uplink"
                yield Check("uplink", f"{host}/{uplink}", BAD, facts, advice)


def _host(client: Client, name: str, said: str) -> Check:
    reply = client.ask_host(name, "inspect", InspectHost(tenant=subjects.FABRIC))
    if not isinstance(reply, Items):
        return Check(
            "host",
            name,
            BAD,
            f"{said}; its switch cannot be seen",
            "look at the host actor's log and at `ovs-vsctl show`",
        )
    return Check("host", name, OK, f"{said}, {len(reply.objects)} port(s)")


def _endpoints(client: Client) -> Iterator[Check]:
    try:
        views = client.items(ListEndpoints(tenant=subjects.FABRIC)).objects
    except Ended as fault:
        if fault.status != UNREACHABLE:
            raise
        return
    endpoints = [view for view in views if isinstance(view, EndpointView)]
    counts: dict[str, int] = {}
    for view in endpoints:
        counts[view.status.state] = counts.get(view.status.state, 0) + 1
    said = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    yield Check("endpoints", "all", OK, said or "none")
    unwell = [view for view in endpoints if view.status.container and view.status.state != "bound"]
    for view in unwell[:SHOWN_ENDPOINTS_MAX]:
        yield _endpoint(view)
    if len(unwell) > SHOWN_ENDPOINTS_MAX:
        yield Check(
            "endpoints",
            "more",
            POOR,
            f"{len(unwell) - SHOWN_ENDPOINTS_MAX} more are not bound",
            "`netctl endpoint list -A`",
        )


def _endpoint(view: EndpointView) -> Check:
    status = view.status
    name = f"{view.tenant}/{view.network}/{view.name}"
    facts = f"{status.state} for {status.container} on {status.host}{f': {status.reason}' if status.reason else ''}"
    advice = {
        "waiting": f"start {status.container} on {status.host}, or `netctl endpoint detach {view.name}`",
        "failed": f"look at the log of the host actor on {status.host}; it goes on trying",
        "unreachable": f"start `netplugin` on {status.host}",
    }.get(status.state, f"wait for {status.host} to report")
    return Check("endpoint", name, BAD if status.state in ("failed", "unreachable") else POOR, facts, advice)


def metadata(service: dict[str, Any]) -> dict[str, str]:
    """What a service says of itself beside its name."""
    found = service.get("metadata")
    return found if isinstance(found, dict) else {}


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def _print(checks: list[Check]) -> None:
    print(output.table(TITLES, [check[:4] for check in checks]), end="")
    advised = [check for check in checks if check.advice]
    if advised:
        print("\nwhat to do:")
    for check in advised:
        print(f"  {check.what} {check.name}: {check.advice}")


VERBS = {
    "": Verb(
        "Is everything well, and if not, what to do about it. Exit status 1: something is not.", _arguments, _status
    )
}
