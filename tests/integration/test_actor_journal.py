"""The ipam actor and its journal: snapshots, what it cannot read, what it trips over, and the trace through a host."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgpack
import msgspec
import pytest
from anyio.abc import TaskGroup

from host_actor.actor import HostActor, Settings
from host_actor.drivers.memory import MemoryDriver, MemorySwitch
from host_actor.membership import HostFacts
from host_actor.session import session
from host_actor.state_file import StateFile
from ipam_actor.definition import IPAM
from ipam_actor.state import State
from messages import subjects
from messages.codec import encode
from messages.endpoint import CreateEndpoint, DeleteEndpoint, EndpointDeleted, EndpointView, GetEndpoint
from messages.network import CreateNetwork, GetNetwork
from messages.replies import Accepted, Item, Refused, Unavailable
from services.runtime.bus import Bus, connect
from services.runtime.clock import SystemClock
from services.runtime.identity import IPAM as IPAM_USER
from services.runtime.identity import host_user
from services.runtime.journal import COMMAND_ID_HEADER, MESSAGE_ID_HEADER, Draft
from services.runtime.journal_jetstream import JetStreamJournal
from services.runtime.journal_memory import MemorySnapshots
from tests.harness.host_world import HOST, Containers
from tests.harness.ipam import Asker, asker, held, ipam_process, journal_of, options, running_ipam
from tests.harness.nats import RunningNats

pytestmark = pytest.mark.anyio

WITHIN_S = 40.0
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
WEB = CreateNetwork(tenant="default", network="web", subnets=(ip_network("10.1.0.0/16"),))


@pytest.fixture
async def client(nats_server: RunningNats) -> AsyncIterator[Asker]:
    async with asker(nats_server) as asking:
        yield asking


@pytest.fixture
async def owner(nats_server: RunningNats) -> AsyncIterator[Bus]:
    """The bus as ipam's own user is on it."""
    async with await connect(options(nats_server, IPAM_USER)) as bus:
        yield bus


def endpoint(name: str, **wishes: Any) -> CreateEndpoint:
    return CreateEndpoint(tenant="default", network="web", name=name, **wishes)


class KeptSnapshots(MemorySnapshots):
    """Tells when one was saved, and how many."""

    def __init__(self) -> None:
        super().__init__()
        self.saved = anyio.Event()
        self.seqs: list[int] = []

    async def save(self, actor: str, seq: int, state: bytes) -> None:
        await super().save(actor, seq, state)
        self.seqs.append(seq)
        self.saved.set()


async def fill(client: Asker, count: int, first: int = 0) -> None:
    await client.ask(WEB)
    for number in range(first, first + count):
        await client.ask(endpoint(f"e{number}"), f"fill-{number}")
        if number % 3 == 0:
            await client.ask(DeleteEndpoint(tenant="default", network="web", name=f"e{number}"))


async def test_start_from_a_snapshot_and_its_tail_is_the_full_replay(nats_server: RunningNats, client: Asker) -> None:
    kept = KeptSnapshots()
    async with running_ipam(nats_server, snapshots=kept, snapshot_every=20) as actor:
        await fill(client, 40)
        with anyio.fail_after(WITHIN_S):
            await kept.saved.wait()
        await fill(client, 10, first=40)
        await actor.projection.catch_up()
        lived = held(actor)
    assert len(kept.seqs) >= 2
    found = await kept.load("ipam")
    assert found is not None
    assert found[0] < actor.projection.followed_seq, "there is a tail"
    async with running_ipam(nats_server, snapshots=MemorySnapshots()) as replayed:
        assert held(replayed) == lived
    async with running_ipam(nats_server, snapshots=kept) as restored:
        assert held(restored) == lived
        again = await client.ask(endpoint("e1"), "fill-1")
        assert isinstance(again, Accepted)
        assert again.is_repeated, "a snapshot remembers commands"
        reused = await client.ask(endpoint("e2"), "fill-1")
        assert isinstance(reused, Refused), "and what they said"
        assert reused.code == "command-id-reused"


async def test_snapshot_in_jetstream_is_used_by_the_next_process(nats_server: RunningNats, client: Asker) -> None:
    async with running_ipam(nats_server, snapshot_every=20) as actor:
        await fill(client, 40)
        await actor.projection.catch_up()
        lived = held(actor)
    with ipam_process(nats_server) as process:
        (loaded,) = process.said("snapshot-loaded")
        assert loaded["seq"] >= 20
        assert isinstance(await client.ask(endpoint("more")), Accepted)
    async with running_ipam(nats_server, snapshots=MemorySnapshots()) as replayed:
        assert held(replayed) != lived


@pytest.mark.parametrize("what", ["another journal", "newer than the journal", "unreadable", "of another shape"])
async def test_snapshot_that_does_not_fit_is_left(nats_server: RunningNats, client: Asker, what: str) -> None:
    kept = KeptSnapshots()
    async with running_ipam(nats_server, snapshots=kept, snapshot_every=5) as actor:
        await fill(client, 10)
        with anyio.fail_after(WITHIN_S):
            await kept.saved.wait()
        await actor.projection.catch_up()
        lived = held(actor)
    found = await kept.load("ipam")
    assert found is not None
    seq, packed = found
    fields = msgpack.unpackb(packed)
    match what:
        case "another journal":
            fields["created"] = "2001-01-01T00:00:00Z"
        case "newer than the journal":
            seq = 1_000_000
        case "unreadable":
            fields["state"] = fields["state"][:-3]
        case _:
            fields["state"] = msgpack.packb({"tenants": 7})
    spoilt = MemorySnapshots()
    await spoilt.save("ipam", seq, msgpack.packb(fields))
    async with running_ipam(nats_server, snapshots=spoilt) as actor:
        assert held(actor) == lived


async def append(owner: Bus, subject: str, payload: bytes, message_id: str) -> int:
    headers = {MESSAGE_ID_HEADER: message_id, COMMAND_ID_HEADER: message_id}
    return (await JetStreamJournal(owner).append([Draft(subject, payload, headers)], [])).first_seq


async def test_an_event_it_does_not_know_stops_it_from_deciding_on_that_aggregate_alone(
    nats_server: RunningNats, client: Asker, owner: Bus
) -> None:
    kept = KeptSnapshots()
    async with running_ipam(nats_server, snapshots=kept, snapshot_every=3) as actor:
        await client.ask(WEB)
        with anyio.fail_after(WITHIN_S):
            await kept.saved.wait()
        await client.ask(CreateNetwork(tenant="default", network="other"))
        unknown = subjects.network_event("default", "web", "network-painted")
        seq = await append(owner, unknown, bytes(msgpack.packb({"type": "network-painted"})), "painted")
        await actor.projection.reached(seq)
        for command in (endpoint("a"), GetNetwork(tenant="default", network="web"), WEB):
            reply = await client.ask(command)
            assert isinstance(reply, Unavailable), f"{command}: {reply}"
            assert "network-painted" in reply.detail
            assert f"sequence {seq}" in reply.detail
        for number in range(8):
            other = CreateEndpoint(tenant="default", network="other", name=f"e{number}")
            assert isinstance(await client.ask(other), Accepted), "the others go on"
        assert max(kept.seqs) < seq, "no snapshot hides it from an actor that knows more"
    async with running_ipam(nats_server, snapshots=kept):
        assert isinstance(await client.ask(endpoint("a")), Unavailable), "after a restart too"


async def test_what_follows_an_unreadable_event_is_not_applied(
    nats_server: RunningNats, client: Asker, owner: Bus
) -> None:
    """The network's own creation is of another version: what is recorded after it rests on it."""
    async with running_ipam(nats_server) as actor:
        created = subjects.network_event("default", "web", "network-created")
        await append(owner, created, b"\xc1", "broken")
        gone = EndpointDeleted(endpoint="a" * 16, name="a", addresses=())
        seq = await append(owner, subjects.network_event("default", "web", "endpoint-deleted"), encode(gone), "after")
        await actor.projection.reached(seq)
        assert isinstance(await client.ask(endpoint("a")), Unavailable)
        assert isinstance(await client.ask(GetEndpoint(tenant="default", network="web", name="a")), Unavailable)
        assert isinstance(await client.ask(GetNetwork(tenant="default", network="other")), Refused)


async def test_an_event_that_cannot_be_ends_the_process_with_its_reason(
    nats_server: RunningNats, client: Asker, owner: Bus
) -> None:
    with ipam_process(nats_server) as process:
        await client.ask(WEB)
        gone = EndpointDeleted(endpoint="a" * 16, name="never", addresses=())
        await append(owner, subjects.network_event("default", "web", "endpoint-deleted"), encode(gone), "never")
        assert await anyio.to_thread.run_sync(process.wait) == 1
    (failed,) = process.said("process-failed")
    assert failed["level"] == "critical"
    assert "KeyError" in failed["exception"]
    assert process.others == []


async def test_a_bug_in_a_handler_ends_the_actor_and_the_repeat_is_answered_by_the_next(
    nats_server: RunningNats, client: Asker
) -> None:
    def stumble(state: State, command: CreateEndpoint, stamp: object) -> object:
        raise ZeroDivisionError(command.name)

    broken = msgspec.structs.replace(IPAM, handlers={**IPAM.handlers, CreateEndpoint: stumble})
    replies: list[object] = []
    is_answered = anyio.Event()

    async def send() -> None:
        replies.append(await client.until_answered(endpoint("a"), "a", timeout_s=0.5))
        is_answered.set()

    async def run_until_it_breaks(tasks: TaskGroup) -> None:
        async with running_ipam(nats_server, definition=broken):
            await client.ask(WEB)
            tasks.start_soon(send)
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        with pytest.raises(ExceptionGroup) as group:
            await run_until_it_breaks(tasks)
        assert group.group_contains(ZeroDivisionError)
        async with running_ipam(nats_server):
            await is_answered.wait()
    assert isinstance(replies[0], Accepted)


async def test_the_trace_of_a_command_goes_through_to_what_the_host_reports(
    nats_server: RunningNats, client: Asker, tmp_path: Path
) -> None:
    containers = Containers()
    containers.start("netns:c1")
    host = HostActor(
        HostFacts(host=HOST, driver="memory", bridge="vlanBr", version="0"),
        MemoryDriver(MemorySwitch()),
        containers,
        StateFile(tmp_path / "host", HOST),
        SystemClock(),
        Settings(full_pass_every_s=1.0),
    )
    async with running_ipam(nats_server), anyio.create_task_group() as tasks:
        await client.ask(WEB)
        tasks.start_soon(host.run, lambda: session(options(nats_server, host_user(HOST))))
        attach = endpoint("a", host=HOST, container="netns:c1")

        async def is_accepted() -> bool:
            return isinstance(await client.ask(attach, "attach", headers={"traceparent": TRACE}), Accepted)

        async def is_bound() -> bool:
            reply = await client.ask(GetEndpoint(tenant="default", network="web", name="a"))
            return (
                isinstance(reply, Item)
                and isinstance(reply.object, EndpointView)
                and reply.object.status.state == "bound"
            )

        await until(is_accepted)
        await until(is_bound)
        await client.ask(
            DeleteEndpoint(tenant="default", network="web", name="a"), headers={"traceparent": TRACE[:-2] + "00"}
        )
        traces: Mapping[str, str] = {}
        with anyio.fail_after(WITHIN_S):
            while not any(".port-unbound" in subject for subject in traces):
                events = await journal_of(nats_server)
                traces = {each.subject: each.headers.get("traceparent", "") for each in events}
        tasks.cancel_scope.cancel()
    assert traces["np.v1.evt.default.net.web.endpoint-bound.h1"] == TRACE
    assert traces["np.v1.evt.default.port.h1.port-bound"] == TRACE
    assert traces["np.v1.evt.default.port.h1.port-unbound"] == TRACE[:-2] + "00"


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    with anyio.fail_after(WITHIN_S):
        while not await is_so():
            await anyio.lowlevel.checkpoint()
