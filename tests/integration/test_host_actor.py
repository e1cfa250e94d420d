"""The host actor between a real nats-server and a switch: a remembered one, then a real one with real containers."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import anyio
import pytest

from host_actor.actor import HostActor, Settings
from host_actor.drivers.contract import ALL_PARTS, Driver
from host_actor.drivers.memory import MemoryDriver, MemorySwitch
from host_actor.drivers.ovs import OvsDriver
from host_actor.membership import HostFacts
from host_actor.runtimes import runtimes_of
from host_actor.session import session
from host_actor.state_file import StateFile
from messages import subjects
from messages.codec import JSON, MSGPACK, decode_command, decode_event, decode_reply, encode
from messages.host import ContainerView, FindContainer, InspectHost, JoinHost, PortView
from messages.port import PortBound, PortEvent, PortUnbound
from messages.replies import Accepted, Item, Items
from services.runtime.bus import Bus, Message, Options, connect
from services.runtime.clock import SystemClock
from services.runtime.errors import Unavailable
from services.runtime.identity import IPAM, OPERATOR, host_user
from services.runtime.journal_jetstream import JetStreamJournal
from services.runtime.streams import ensure_streams
from tests.harness.host_world import HOST, Containers, bound, endpoint_id, record, unbound
from tests.harness.nats import RunningNats
from tests.harness.netns import NetworkNamespace
from tests.harness.openvswitch import RunningSwitch
from tests.requires import needs_ovs

pytestmark = pytest.mark.anyio

WITHIN_S = 40.0
REMOVALS = 12
SETTINGS = Settings(full_pass_every_s=1.0)


@pytest.fixture
async def ipam(nats_server: RunningNats) -> AsyncIterator[Bus]:
    """The bus as ipam is on it; the streams are there."""
    async with await connect(options(nats_server, IPAM)) as bus:
        await ensure_streams(bus)
        yield bus


def options(server: RunningNats, user: str) -> Options:
    return Options(urls=(server.url,), user=user, credentials=server.seed_file(user))


@asynccontextmanager
async def running(
    server: RunningNats, folder: Path, driver: Driver, containers: Containers | None = None
) -> AsyncIterator[HostActor]:
    """Host h1's actor, until the context ends."""

    actor = HostActor(
        HostFacts(host=HOST, driver="memory", bridge="vlanBr", version="0"),
        driver,
        containers or runtimes_of({}),
        StateFile(folder, HOST),
        SystemClock(),
        SETTINGS,
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(actor.run, lambda: session(options(server, host_user(HOST))))
        try:
            yield actor
        finally:
            tasks.cancel_scope.cancel()


class Ipam:
    """Decides, and reads what hosts report."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.journal = JetStreamJournal(bus)
        self.seen: list[PortBound | PortUnbound] = []

    async def follow(self, until: Callable[[PortBound | PortUnbound], bool]) -> None:
        """Return when a report that `until` likes has come."""
        with anyio.fail_after(WITHIN_S):
            async for recorded in self.journal.follow([subjects.reported_by(HOST)]):
                event = decode_event(recorded.payload)
                if isinstance(event, PortBound | PortUnbound) and until(event):
                    self.seen.append(event)
                    return

    async def bind(self, number: int, container: str = "") -> int:
        return await record(self.journal, bound(number, container))

    async def until_bound(self, epoch: int) -> PortBound:
        await self.follow(lambda event: isinstance(event, PortBound) and event.epoch == epoch)
        event = self.seen[-1]
        assert isinstance(event, PortBound)
        return event

    async def until_unbound(self, epoch: int) -> None:
        await self.follow(lambda event: isinstance(event, PortUnbound) and event.epoch == epoch)

    async def take_in(self, asked: list[JoinHost]) -> None:
        """Answer `host.join` from now on."""

        async def answer(message: Message) -> None:
            command = decode_command(subjects.parse_command(message.subject), message.payload)
            assert isinstance(command, JoinHost)
            asked.append(command)
            await self.bus.publish(message.reply, encode(Accepted(seq=1)), headers={"Content-Type": MSGPACK})

        async with anyio.create_task_group() as tasks:

            def receive(message: Message) -> None:
                tasks.start_soon(answer, message)

            await self.bus.subscribe(subjects.service("host", "join"), receive)
            await anyio.sleep_forever()


def living(count: int = 1) -> Containers:
    containers = Containers()
    containers.start(*(f"netns:c{number}" for number in range(1, count + 1)))
    return containers


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    with anyio.fail_after(WITHIN_S):
        while not await is_so():
            await anyio.lowlevel.checkpoint()


async def test_bound_in_the_journal_is_reported_in_the_journal_and_as_last_state(
    nats_server: RunningNats, ipam: Bus, tmp_path: Path
) -> None:
    decider = Ipam(ipam)
    switch = MemorySwitch()
    async with running(nats_server, tmp_path, MemoryDriver(switch), living()):
        epoch = await decider.bind(1)
        event = await decider.until_bound(epoch)
        assert (event.device, event.interface) == ("np000000000001", "eth0")
        assert await last_state(ipam, 1, PortBound) == event
        await record(decider.journal, unbound(1, epoch))
        await decider.until_unbound(epoch)
        await last_state(ipam, 1, PortUnbound)
        assert not switch.ports


async def last_state(bus: Bus, number: int, kind: type[PortEvent]) -> PortEvent:
    """What stands as the last state of a port, once it is of this kind."""
    subject = subjects.port_state(HOST, "acme", endpoint_id(number))
    question = json.dumps({"last_by_subj": subject}).encode()
    found: list[PortEvent] = []

    async def is_there() -> bool:
        message = await bus.request(f"$JS.API.DIRECT.GET.{subjects.STATE_STREAM}", question)
        event = None if message.status else decode_event(message.payload)
        if isinstance(event, kind):
            found.append(event)
        return bool(found)

    await until(is_there)
    return found[0]


async def test_the_host_joins_is_discovered_and_answers_questions(
    nats_server: RunningNats, ipam: Bus, tmp_path: Path
) -> None:
    decider = Ipam(ipam)
    asked: list[JoinHost] = []
    async with (
        await connect(options(nats_server, OPERATOR)) as operator,
        running(nats_server, tmp_path, MemoryDriver(), living()) as actor,
        anyio.create_task_group() as tasks,
    ):
        epoch = await decider.bind(1)
        await decider.bind(2, "nobody")
        await decider.until_bound(epoch)
        tasks.start_soon(decider.take_in, asked)

        async def is_asked() -> bool:
            return bool(asked)

        await until(is_asked)
        assert asked[0].datapath == "memory"
        assert await pinged(operator) == HOST
        assert actor.status()["state"] == "ready"
        await check_inspection(operator, epoch)
        await check_containers(operator)
        tasks.cancel_scope.cancel()


async def pinged(operator: Bus) -> str:
    """The host that answers `$SRV.PING.host`, once one does."""
    found: list[Message] = []

    async def is_answered() -> bool:
        try:
            found.extend(await operator.request_many("$SRV.PING.host", enough=lambda answers: len(answers) == 1))
        except Unavailable:
            return False
        return bool(found)

    await until(is_answered)
    return str(json.loads(found[0].payload)["metadata"]["host"])


async def check_inspection(operator: Bus, epoch: int) -> None:
    answer = await operator.request(subjects.host_question(HOST, "inspect"), encode(InspectHost(tenant="fabric")))
    reply = decode_reply(answer.payload)
    assert isinstance(reply, Items)
    views = [view for view in reply.objects if isinstance(view, PortView)]
    assert [(view.name, view.state, view.reason) for view in views] == [
        ("e1", "bound", ""),
        ("e2", "waiting", "container-absent: nobody is not there"),
    ]
    assert views[0].epoch == epoch


async def check_containers(operator: Bus) -> None:
    states = {"netns:c1": "running", "nobody": "waiting", "pid:4711": "absent"}
    for container, state in states.items():
        question = encode(FindContainer(tenant="fabric", container=container), JSON)
        answer = await operator.request(
            subjects.host_question(HOST, "container"), question, headers={"Content-Type": JSON}
        )
        reply = decode_reply(answer.payload, JSON)
        assert isinstance(reply, Item)
        assert isinstance(reply.object, ContainerView)
        assert reply.object.state == state


async def test_the_server_killed_and_back_loses_no_report(nats_server: RunningNats, ipam: Bus, tmp_path: Path) -> None:
    decider = Ipam(ipam)
    containers = living(2)
    switch = MemorySwitch()
    async with running(nats_server, tmp_path, MemoryDriver(switch), containers):
        first = await decider.bind(1)
        await decider.until_bound(first)
        second = await decider.bind(2, "late")
        await anyio.to_thread.run_sync(nats_server.kill)
        containers.start("late")

        async def is_attached() -> bool:
            return endpoint_id(2) in switch.ports

        # The binding may not have reached the host before the server was killed: then it is attached afterwards.
        await anyio.to_thread.run_sync(nats_server.start)
        await until(is_attached)
        await ipam.connected()
        await decider.until_bound(second)
        third = await decider.bind(3, "netns:c2")
        await decider.until_bound(third)


async def test_from_event_to_report_is_fast(nats_server: RunningNats, ipam: Bus, tmp_path: Path) -> None:
    """Far above what it takes, so that only a change of kind fails; the median is printed."""
    decider = Ipam(ipam)
    count = 100
    took_ms: list[float] = []
    heard = Heard(took_ms)
    async with (
        running(nats_server, tmp_path, MemoryDriver(), living(count)) as actor,
        anyio.create_task_group() as tasks,
    ):
        await until(lambda: is_current(actor))
        tasks.start_soon(heard.follow, decider.journal)
        for number in range(1, count + 1):
            await decider.bind(number)
            await heard.next()
        tasks.cancel_scope.cancel()
    print(f"event acknowledged to report delivered: median {median(took_ms):.2f} ms")
    assert median(took_ms) < 50


class Heard:
    """How long each report took, from the acknowledgement of what it is about."""

    def __init__(self, took_ms: list[float]) -> None:
        self._took_ms = took_ms
        self._since = 0.0
        self._arrived = anyio.Event()

    async def follow(self, journal: JetStreamJournal) -> None:
        async for _ in journal.follow([subjects.reported_by(HOST)]):
            self._took_ms.append((time.perf_counter() - self._since) * 1000)
            self._arrived.set()

    async def next(self) -> None:
        self._since = time.perf_counter()
        with anyio.fail_after(WITHIN_S):
            await self._arrived.wait()
        self._arrived = anyio.Event()


async def is_current(actor: HostActor) -> bool:
    return actor.follower.standing == "current"


@needs_ovs
async def test_bound_in_the_journal_is_a_ping_between_containers(
    nats_server: RunningNats,
    ipam: Bus,
    tmp_path: Path,
    open_vswitch: RunningSwitch,
    netns: Callable[[str], NetworkNamespace],
) -> None:
    decider = Ipam(ipam)
    first, second = netns("c1"), netns("c2")
    driver = OvsDriver("vlanBr", "netdev", open_vswitch.run_dir)
    async with running(nats_server, tmp_path, driver) as actor:
        epochs = [await decider.bind(1), await decider.bind(2)]
        for epoch in epochs:
            await decider.until_bound(epoch)
        await anyio.to_thread.run_sync(ping, first, "10.9.0.3")
        for _ in range(REMOVALS):
            await anyio.to_thread.run_sync(open_vswitch.run, "ovs-vsctl", "del-port", "vlanBr", "np000000000002")
            await actor.reconciler.passed()
            port = actor.reconciler.port(endpoint_id(2))
            assert port is not None
            assert port.parts == ALL_PARTS
            await anyio.to_thread.run_sync(ping, second, "10.9.0.2")  # the very first packet is answered
        await record(decider.journal, unbound(2, epochs[1]))
        await decider.until_unbound(epochs[1])
    assert "np000000000002" not in open_vswitch.run("ovs-vsctl", "list-ports", "vlanBr")
    ping(first, "10.9.0.2")


def ping(namespace: NetworkNamespace, address: str) -> None:
    namespace.run("busybox", "ping", "-c", "1", "-W", "10", address)
