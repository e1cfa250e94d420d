"""A host without a kernel: events as ipam records them, containers that live and die when told, a remembered switch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, ip_address, ip_interface
from pathlib import Path

import anyio

from host_actor.actor import HostActor, Settings, Uplink
from host_actor.drivers.contract import Sandbox
from host_actor.drivers.memory import MemoryDriver, MemorySwitch
from host_actor.membership import HostFacts
from host_actor.runtimes.contract import Died, Found, NotFound, Resolution, RuntimeEvent, Started, Waiting
from host_actor.runtimes.reference import Reference
from host_actor.state_file import StateFile
from messages import subjects
from messages.catalog import AnyEvent, event_name
from messages.codec import decode_event, encode
from messages.endpoint import EndpointBound, EndpointDeleted, EndpointUnbound
from messages.port import PortBound, PortFailed, PortUnbound, PortWaiting
from services.runtime.clock import SystemClock
from services.runtime.errors import Unavailable
from services.runtime.journal import Draft, Journal
from services.runtime.journal_memory import MemoryJournal

HOST = "h1"
TENANT = "acme"
NETWORK = "web"
WITHIN_S = 30.0
CALM = Settings(full_pass_every_s=3600.0, look_at_journal_every_s=3600.0, save_at_most_every_s=0.0)


def endpoint_id(number: int) -> str:
    """An endpoint's id, 16 characters, that shows its number."""
    return f"{number:012d}abcd"


def bound(number: int, container: str = "", host: str = HOST) -> EndpointBound:
    """Endpoint `number` is bound to a container, by default `netns:c<number>`."""
    return EndpointBound(
        tenant=TENANT,
        network=NETWORK,
        endpoint=endpoint_id(number),
        name=f"e{number}",
        host=host,
        container=container or f"netns:c{number}",
        addresses=(ip_interface(f"10.9.{number // 250}.{number % 250 + 1}/16"),),
        gateways=(ip_address("10.9.255.254"),),
        mac=f"02:00:00:00:{number // 256:02x}:{number % 256:02x}",
        encap="vlan",
        tag=12,
        mtu_bytes=1500,
    )


def unbound(number: int, epoch: int, host: str = HOST) -> EndpointUnbound:
    """The binding of endpoint `number` that was made at `epoch` has ended."""
    return EndpointUnbound(endpoint=endpoint_id(number), name=f"e{number}", host=host, epoch=epoch)


def deleted(number: int, epoch: int, host: str = HOST) -> EndpointDeleted:
    """Endpoint `number` is gone, while it was bound at `epoch`."""
    return EndpointDeleted(
        endpoint=endpoint_id(number), name=f"e{number}", addresses=bound(number).addresses, host=host, epoch=epoch
    )


def subject_of(event: EndpointBound | EndpointUnbound | EndpointDeleted) -> str:
    """Where ipam records it."""
    return subjects.network_event(TENANT, NETWORK, event_name(event), event.host)


async def record(journal: Journal, event: EndpointBound | EndpointUnbound | EndpointDeleted) -> int:
    """The event is in the journal; returns its sequence."""
    appended = await journal.append([Draft(subject_of(event), encode(event), {})], [])
    return appended.first_seq


def said(report: AnyEvent) -> tuple[str, str, int]:
    """A report in short: `("port-bound", "e1", 7)`."""
    assert isinstance(report, PortBound | PortWaiting | PortFailed | PortUnbound)
    return event_name(report), report.name, report.epoch


class Containers:
    """Containers by reference; they start and die when told."""

    def __init__(self) -> None:
        self._runs: dict[str, int] = {}  # reference -> which run of it lives
        self._count = 0
        self._on_event: Callable[[RuntimeEvent], None] = lambda _: None
        self.answers: dict[str, Resolution] = {}  # instead of what would be true
        self.asked = 0

    def start(self, *references: str) -> None:
        """They live from now on, each in a new sandbox."""
        for reference in references:
            self._count += 1
            self._runs[reference] = self._count
            asked = Reference.of(reference)
            self._on_event(Started(asked.runtime, asked.name))

    def die(self, reference: str) -> None:
        """It lives no more."""
        run = self._runs.pop(reference)
        self._on_event(Died(f"{reference}:{run}", "it was told to die"))

    def tell(self, event: RuntimeEvent) -> None:
        """A runtime says so."""
        self._on_event(event)

    def key(self, reference: str) -> str:
        """The sandbox that it lives in now."""
        return f"{reference}:{self._runs[reference]}"

    async def open(self, on_event: Callable[[RuntimeEvent], None]) -> None:
        """See `Runtime.open`."""
        self._on_event = on_event

    async def resolve(self, reference: str) -> Resolution:
        """See `Runtime.resolve`."""
        self.asked += 1
        if reference in self.answers:
            return self.answers[reference]
        if reference in self._runs:
            return Found(Sandbox(self.key(reference), f"/run/{reference}"), reference)
        if reference.startswith("pid:"):
            return NotFound("container-not-found", f"{reference} is not there")
        return Waiting("container-absent", f"{reference} is not there")

    async def close(self) -> None:
        """See `Runtime.close`."""
        self._on_event = lambda _: None


class HostWorld:
    """What outlives a host actor: journal, switch, containers and its folder; and actors on them, one after another."""

    def __init__(
        self, folder: Path, host: str = HOST, journal: MemoryJournal | None = None, vtep: IPv4Address | None = None
    ) -> None:
        self.folder = folder
        self.vtep = vtep
        self.host = host
        self.journal = journal or MemoryJournal()
        self.switch = MemorySwitch()
        self.containers = Containers()
        self.is_journal_away = False
        self.actor = self.new_actor()
        self._said: list[tuple[str, str, int]] = []  # of the journal's first `_read` events
        self._read = 0

    @property
    def actor_state(self) -> Path:
        """The file that the actor keeps its state in."""
        return StateFile(self.folder, self.host).path

    def new_actor(self) -> HostActor:
        """An actor that starts from what is on the disk."""
        return HostActor(
            HostFacts(host=self.host, driver="memory", bridge="vlanBr", version="0", vtep=self.vtep),
            MemoryDriver(self.switch),
            self.containers,
            StateFile(self.folder, self.host),
            SystemClock(),
            CALM,
        )

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Uplink]:
        """A session with the journal. Raises: Unavailable."""
        if self.is_journal_away:
            raise Unavailable("the journal is away", 0.01)
        yield Uplink(self.journal)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[HostActor]:
        """An actor runs; at the end it is stopped, as by SIGTERM."""
        self.actor = self.new_actor()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.actor.run, self.connect)
            try:
                yield self.actor
            finally:
                tasks.cancel_scope.cancel()

    async def bind(self, number: int, container: str = "") -> int:
        """Endpoint `number` is bound here; returns its epoch."""
        return await record(self.journal, bound(number, container, self.host))

    async def unbind(self, number: int, epoch: int) -> int:
        """That binding has ended."""
        return await record(self.journal, unbound(number, epoch, self.host))

    def reports(self) -> list[tuple[str, str, int]]:
        """All reports in short, oldest first."""
        recorded = self.journal.events[self._read :]
        self._read += len(recorded)
        self._said += [said(decode_event(each.payload)) for each in recorded if ".port." in each.subject]
        return self._said

    async def until(self, is_so: Callable[[], bool], what: str) -> None:
        """Return when it is so; looked at whenever the journal or a round of the actor has moved on.

        Raises: AssertionError when it is not within 10 s.
        """
        with anyio.move_on_after(WITHIN_S):
            while not is_so():
                await anyio.lowlevel.checkpoint()
            return
        raise AssertionError(f"not within {WITHIN_S:g} s: {what}; reports {self.reports()}, ports {self.switch.ports}")

    async def until_reported(self, *wanted: tuple[str, str, int]) -> None:
        """Return when exactly these reports, in any order, are in the journal."""
        await self.until(lambda: len(self.reports()) >= len(wanted), f"{len(wanted)} reports {wanted}")
        assert sorted(self.reports()) == sorted(wanted)
