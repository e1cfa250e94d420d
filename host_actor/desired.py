"""What this host must have, as a pure fold of the journal: which endpoints are bound here, what is still to report.

A binding is known by its endpoint and its epoch, the journal sequence of the event that made it. What ended must be
confirmed: the addresses of a port rest until its host has said that nothing of it is left, so every ended binding stays
a `Departure` until that report is in the journal too.

What it must know of other hosts is in `remotes`: the VXLAN networks with a member here are open there.
"""

from __future__ import annotations

import msgspec

from messages.addresses import decode_address, encode_address
from messages.catalog import AnyEvent, event_name
from messages.endpoint import EndpointBound, EndpointDeleted, EndpointUnbound
from messages.host import HostJoined, HostRemoved
from messages.port import PortBound, PortEvent, PortFailed, PortUnbound, PortWaiting

from .remotes import HostUnderlay, NetworkId, OpenNetwork, Remotes, TenantRoutes

PortReport = PortBound | PortWaiting | PortFailed


class Binding(msgspec.Struct, frozen=True):
    """An endpoint that must be here; `epoch` is the journal sequence of `bound`."""

    bound: EndpointBound
    epoch: int
    trace: str = ""


class Departure(msgspec.Struct, frozen=True):
    """A binding that ended at journal sequence `ended_seq`; the journal has not heard yet that its port is gone."""

    tenant: str
    network: str
    endpoint: str
    name: str
    epoch: int
    ended_seq: int
    trace: str = ""


class Reported(msgspec.Struct, frozen=True):
    """The last that the journal has from this host about an endpoint."""

    epoch: int
    kind: str  # "port-bound", "port-waiting", "port-failed"
    facts: tuple[str, str]  # device and interface, or code and reason


class _Saved(msgspec.Struct, frozen=True):
    host: str
    created: str
    seq: int
    reports_seq: int
    bindings: list[Binding]
    departures: list[Departure]
    reported: dict[str, Reported]
    hosts_seq: int = 0
    hosts: dict[str, HostUnderlay] = {}
    networks: list[OpenNetwork] = []
    tenants: list[TenantRoutes] = []


class Unreadable(ValueError):
    """What was saved cannot be used; the text says why."""


class Desired:
    """The folded state of one host, of the journal that was made at `created`.

    `seq` is how far it has read what was decided about this host, `reports_seq` how far it knows the host's own
    reports: one whose acknowledgement never came is found by reading on from there; `hosts_seq`, how far what is said
    of all hosts.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self.created = ""
        self.seq = 0
        self.reports_seq = 0
        self.bindings: dict[str, Binding] = {}
        self.departures: dict[str, dict[int, Departure]] = {}  # by endpoint, then epoch
        self.reported: dict[str, Reported] = {}
        self.hosts_seq = 0
        self.remotes = Remotes(host)
        self._members: dict[NetworkId, set[str]] = {}  # of networks that others must be known of

    def apply(self, seq: int, subject: str, event: AnyEvent, trace: str = "") -> str | None:
        """Fold one recorded event; returns the endpoint whose port may have to change.

        Idempotent: what is not newer than `seq` (`reports_seq`, for a report) was folded before and changes nothing.
        """
        if isinstance(event, PortBound | PortWaiting | PortFailed | PortUnbound):
            if seq > self.reports_seq and event.host == self.host:
                self.reports_seq = seq
                self._hear(seq, event)
            return None
        if isinstance(event, HostJoined | HostRemoved):
            if seq > self.hosts_seq:
                self.hosts_seq = seq
                self.remotes.fold_host(event)
            return None
        if seq <= self.seq:
            return None
        self.seq = seq
        match event:
            case EndpointBound(host=self.host):
                self.bindings[event.endpoint] = Binding(event, seq, trace)
                self._enter(event)
                return event.endpoint
            case EndpointUnbound(host=self.host) | EndpointDeleted(host=self.host):
                return self._end(seq, subject, event, trace)
        return None  # about others, or of a kind that a host has no use for

    def _hear(self, seq: int, event: PortEvent) -> None:
        if isinstance(event, PortUnbound):
            self.confirm(event.endpoint, event.epoch, seq)
        else:
            self.note(event)

    def _end(self, seq: int, subject: str, event: EndpointUnbound | EndpointDeleted, trace: str) -> str | None:
        """The binding of that epoch has ended, not one that came after it."""
        if not event.epoch:
            return None
        tokens = subject.split(".")
        departure = Departure(tokens[3], tokens[5], event.endpoint, event.name, event.epoch, seq, trace)
        self.departures.setdefault(event.endpoint, {})[event.epoch] = departure
        binding = self.bindings.get(event.endpoint)
        if binding is not None and binding.epoch <= event.epoch:
            del self.bindings[event.endpoint]
            self.reported.pop(event.endpoint, None)
            self._leave(binding.bound)
        return event.endpoint

    def _enter(self, bound: EndpointBound) -> None:
        if bound.encap == "vxlan" or bound.is_routed:
            self._members.setdefault((bound.tenant, bound.network), set()).add(bound.endpoint)
            self.remotes.enter(bound)

    def _leave(self, bound: EndpointBound) -> None:
        network = (bound.tenant, bound.network)
        members = self._members.get(network)
        if members is not None:
            members.discard(bound.endpoint)
            if not members:
                del self._members[network]
                self.remotes.leave(network)

    def confirm(self, endpoint: str, epoch: int, at_seq: int) -> None:
        """The journal has heard, at `at_seq`, that nothing is left of that binding's port."""
        owed = self.departures.get(endpoint, {})
        if epoch in owed and owed[epoch].ended_seq < at_seq:
            del owed[epoch]
            if not owed:
                del self.departures[endpoint]

    def note(self, event: PortReport) -> None:
        """The journal has this report of ours. One about a binding that has ended since is of no interest."""
        binding = self.bindings.get(event.endpoint)
        if binding is None or binding.epoch != event.epoch:
            return
        self.reported[event.endpoint] = Reported(event.epoch, event_name(event), facts_of(event))

    def owed(self, endpoint: str) -> tuple[Departure, ...]:
        """The departures of an endpoint that the journal has not heard of, oldest first."""
        return tuple(departure for _, departure in sorted(self.departures.get(endpoint, {}).items()))

    def forget(self, created: str) -> None:
        """Nothing is known any more: what follows is folded from the beginning of the journal made at `created`."""
        self.created = created
        self.seq = 0
        self.reports_seq = 0
        self.bindings.clear()
        self.departures.clear()
        self.reported.clear()
        self.hosts_seq = 0
        self._members.clear()
        self.remotes.forget()

    def dump(self) -> bytes:
        """All of it as JSON, for `load`."""
        saved = _Saved(
            self.host,
            self.created,
            self.seq,
            self.reports_seq,
            list(self.bindings.values()),
            [departure for owed in self.departures.values() for departure in owed.values()],
            self.reported,
            self.hosts_seq,
            self.remotes.hosts,
            list(self.remotes.networks.values()),
            list(self.remotes.tenants.values()),
        )
        return msgspec.json.encode(saved, enc_hook=encode_address)

    @classmethod
    def load(cls, host: str, saved_bytes: bytes) -> Desired:
        """What `dump` had written for this host. Raises: Unreadable."""
        try:
            saved = msgspec.json.decode(saved_bytes, type=_Saved, dec_hook=decode_address)
        except (msgspec.DecodeError, UnicodeDecodeError) as fault:
            raise Unreadable(str(fault)) from None
        if saved.host != host:
            raise Unreadable(f"it belongs to host {saved.host!r}: expected {host!r}")
        desired = cls(host)
        desired.created = saved.created
        desired.seq = saved.seq
        desired.reports_seq = saved.reports_seq
        desired.bindings = {binding.bound.endpoint: binding for binding in saved.bindings}
        for each in saved.departures:
            desired.departures.setdefault(each.endpoint, {})[each.epoch] = each
        desired.reported = saved.reported
        desired.hosts_seq = saved.hosts_seq
        for binding in desired.bindings.values():
            desired._enter(binding.bound)
        desired.remotes.restore(saved.hosts, saved.tenants, saved.networks)
        return desired


def facts_of(event: PortReport) -> tuple[str, str]:
    """What distinguishes two reports of the same kind: device and interface, or code and reason."""
    if isinstance(event, PortBound):
        return event.device, event.interface
    return event.code, event.reason
