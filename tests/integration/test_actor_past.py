"""Commands that are only tried, and questions about how things were."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Any

import anyio
import pytest

from ipam_actor.state import State
from messages.codec import JSON
from messages.endpoint import AttachEndpoint, CreateEndpoint, DeleteEndpoint, EndpointView, GetEndpoint, ListEndpoints
from messages.host import JoinHost, ListHosts
from messages.intent import ApplyIntent
from messages.network import CreateNetwork, DeleteNetwork, GetNetwork, ListNetworks, NetworkView
from messages.replies import Accepted, AnyReply, Item, Items, Planned, Refused, Unavailable
from messages.struct import Command
from messages.tenant import CreateTenant, ListTenants
from services.runtime import past
from services.runtime.actor import Actor
from services.runtime.snapshots_jetstream import JetStreamSnapshots
from tests.harness.ipam import Asker, asker, audited, held, journal_of, running_ipam
from tests.harness.nats import RunningNats

pytestmark = pytest.mark.anyio

DRY: dict[str, str] = {"Np-Dry-Run": "1"}
WEB = CreateNetwork(tenant="default", network="web", subnets=(ip_network("10.1.0.0/16"),))


@pytest.fixture
async def ipam(nats_server: RunningNats) -> AsyncIterator[Actor[State]]:
    async with running_ipam(nats_server) as actor:
        yield actor


@pytest.fixture
async def client(nats_server: RunningNats, ipam: Actor[State]) -> AsyncIterator[Asker]:
    assert ipam.projection.followed_seq == 0
    async with asker(nats_server) as asking:
        yield asking


def endpoint(name: str, **wishes: Any) -> CreateEndpoint:
    return CreateEndpoint(tenant="default", network="web", name=name, **wishes)


def names(reply: AnyReply) -> list[str]:
    assert isinstance(reply, Items), reply
    return [view.name for view in reply.objects if not isinstance(view, int) and hasattr(view, "name")]


# -- only tried


async def test_a_command_that_is_tried_says_its_events_and_leaves_no_trace(
    client: Asker, ipam: Actor[State], nats_server: RunningNats
) -> None:
    await client.ask(CreateNetwork(tenant="default", network="web", subnets="none"))
    await client.ask(JoinHost(tenant="fabric", host="h1", driver="memory", datapath="memory", version="0"))
    await ipam.projection.catch_up()
    before, length = held(ipam), len(await journal_of(nats_server))
    wish = endpoint("e1", addresses=(ip_address("11.1.1.1"),), container="netns:a", host="h1")
    planned = await client.ask(wish, "tried", DRY)
    assert isinstance(planned, Planned)
    assert [type(each.event).__name__ for each in planned.events] == ["SubnetTaken", "SubnetAdopted", "EndpointBound"]
    assert planned.events[-1].subject == "np.v1.evt.default.net.web.endpoint-bound.h1"
    assert planned.notes == ("network web adopted subnet 11.1.1.0/24",)
    assert isinstance(planned.object, EndpointView)
    assert str(planned.object.status.addresses[0]) == "11.1.1.1/24"
    assert planned.seq == ipam.projection.followed_seq
    assert held(ipam) == before
    assert len(await journal_of(nats_server)) == length
    done = await client.ask(wish, "tried")
    assert isinstance(done, Accepted)
    assert not done.is_repeated, "the id of what was tried is free"


async def test_what_would_be_refused_is_refused_and_not_audited(client: Asker, nats_server: RunningNats) -> None:
    await client.ask(WEB)
    refused = await client.ask(endpoint("e1", addresses=(ip_address("10.2.0.1"),)), "tried", DRY)
    assert isinstance(refused, Refused)
    assert refused.code == "address-outside-subnet"
    assert await audited(nats_server) == []


async def test_what_is_true_already_would_become_nothing(client: Asker) -> None:
    await client.ask(WEB)
    planned = await client.ask(WEB, headers=DRY)
    assert isinstance(planned, Planned)
    assert planned.events == ()
    assert isinstance(planned.object, NetworkView)


async def test_a_whole_intent_is_tried_and_so_is_json(client: Asker, nats_server: RunningNats) -> None:
    intent = ApplyIntent(tenant="default", changes=(WEB, endpoint("a"), endpoint("b")))
    planned = await client.ask(intent, headers=DRY, form=JSON)
    assert isinstance(planned, Planned)
    kinds = [type(each.event).__name__ for each in planned.events]
    assert kinds.count("EndpointCreated") == 2
    assert await journal_of(nats_server) == []


@pytest.mark.parametrize("command", [CreateTenant(tenant="acme"), DeleteNetwork(tenant="default", network="web")])
async def test_whatever_changes_can_be_tried(client: Asker, nats_server: RunningNats, command: Command) -> None:
    await client.ask(WEB)
    length = len(await journal_of(nats_server))
    planned = await client.ask(command, headers=DRY)
    assert isinstance(planned, Planned)
    assert planned.events
    assert len(await journal_of(nats_server)) == length


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Np-Dry-Run": "yes"}, "invalid-dry-run"),
        ({"Np-At": "yesterday"}, "invalid-at"),
        ({"Np-At": "0"}, "invalid-at"),
        ({"Np-At": "2026-01-31T12:00:00"}, "invalid-at"),
        ({"Np-At": "1900-01-31T12:00:00Z"}, "invalid-at"),
    ],
)
async def test_headers_that_say_nothing_are_refused(client: Asker, headers: dict[str, str], code: str) -> None:
    reply = await client.ask(ListNetworks(tenant="default"), headers=headers)
    assert isinstance(reply, Refused)
    assert reply.code == code


# -- how it was


async def test_every_point_of_the_past_is_as_it_was(client: Asker, nats_server: RunningNats) -> None:
    said: list[tuple[int, AnyReply]] = []
    queries: tuple[Command, ...] = (ListNetworks(tenant="default"), ListEndpoints(tenant="default"))
    await client.ask(JoinHost(tenant="fabric", host="h1", driver="memory", datapath="memory", version="0"))
    steps: list[Command] = [WEB, endpoint("a"), endpoint("b")]
    steps += [AttachEndpoint(tenant="default", network="web", name="a", container="netns:a", host="h1")]
    steps += [DeleteEndpoint(tenant="default", network="web", name="b"), endpoint("c")]
    for step in steps:
        done = await client.ask(step)
        assert isinstance(done, Accepted), done
        said += [(done.seq, await client.ask(query)) for query in queries]
    for number, (seq, then) in enumerate(said):
        now = await client.ask(queries[number % 2], headers={"Np-At": str(seq)})
        assert now == then, seq
    assert names(await client.ask(ListEndpoints(tenant="default"), headers={"Np-At": "1"})) == []
    hosts = await client.ask(ListHosts(tenant="fabric"), headers={"Np-At": "1"})
    assert names(hosts) == ["h1"]
    assert names(await client.ask(ListTenants(tenant="fabric"), headers={"Np-At": str(said[-1][0])})) == ["default"]
    assert len(await journal_of(nats_server)) == said[-1][0], "asking leaves nothing"


async def test_a_time_is_as_good_as_a_sequence(client: Asker, nats_server: RunningNats) -> None:
    await client.ask(WEB)
    await client.ask(endpoint("a"))
    at_ns = (await journal_of(nats_server))[-1].at_ns
    moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=at_ns // 1000 + 1)
    while datetime.now(UTC) <= moment:
        await anyio.lowlevel.checkpoint()
    await client.ask(endpoint("b"))
    then = await client.ask(ListEndpoints(tenant="default"), headers={"Np-At": moment.isoformat()})
    assert names(then) == ["a"]
    before = (moment - timedelta(days=1)).isoformat()
    unknown = await client.ask(GetNetwork(tenant="default", network="web"), headers={"Np-At": before})
    assert isinstance(unknown, Refused)
    assert unknown.code == "unknown-network"


@pytest.mark.parametrize("at", ["1000000", "9999-01-01T00:00:00+00:00"])
async def test_what_is_still_to_come_is_refused(client: Asker, at: str) -> None:
    await client.ask(WEB)
    reply = await client.ask(GetNetwork(tenant="default", network="web"), headers={"Np-At": at})
    assert isinstance(reply, Refused)
    assert reply.code == "at-in-the-future"


async def test_the_past_is_not_changed(client: Asker) -> None:
    reply = await client.ask(WEB, headers={"Np-At": "1"})
    assert isinstance(reply, Refused)
    assert reply.code == "invalid-at"


async def test_a_snapshot_is_the_beginning_where_it_is_early_enough(nats_server: RunningNats) -> None:
    async with asker(nats_server) as client:
        async with running_ipam(nats_server, snapshot_every=10) as actor:
            await client.ask(WEB)
            for number in range(30):
                await client.ask(endpoint(f"e{number}"))
            await actor.projection.catch_up()
        async with running_ipam(nats_server) as actor:
            started_at = actor.projection.snapshot_seq
            assert started_at >= 10
            for seq in (started_at - 2, started_at, actor.projection.followed_seq):
                then = await client.ask(ListEndpoints(tenant="default"), headers={"Np-At": str(seq)})
                made = [each for each in await journal_of(nats_server) if each.seq <= seq]
                assert len(names(then)) == sum("endpoint-created" in each.subject for each in made)
                last = await client.ask(
                    GetEndpoint(tenant="default", network="web", name=names(then)[-1]), headers={"Np-At": str(seq)}
                )
                assert isinstance(last, Item)


class SlowSnapshots(JetStreamSnapshots):
    """Lets nobody through until it is told."""

    def __init__(self) -> None:
        self.is_open = anyio.Event()

    async def save(self, actor: str, seq: int, state: bytes) -> None:
        raise AssertionError(f"{actor} saves {len(state)} bytes at {seq}")

    async def load(self, actor: str) -> tuple[int, bytes] | None:
        assert actor == "ipam"
        self.entered = True
        await self.is_open.wait()
        return None


async def test_few_at_a_time_are_answered_and_more_are_put_off(nats_server: RunningNats) -> None:
    slow = SlowSnapshots()
    slow.is_open.set()
    replies: list[AnyReply] = []
    async with running_ipam(nats_server, snapshots=slow), asker(nats_server) as client:
        await client.ask(WEB)
        slow.is_open = anyio.Event()

        async def ask() -> None:
            replies.append(await client.ask(ListNetworks(tenant="default"), headers={"Np-At": "1"}))
            if len(replies) == 4:
                slow.is_open.set()

        async with anyio.create_task_group() as tasks:
            for _ in range(past.WAITING_MAX + 4):
                tasks.start_soon(ask)
    put_off = [each for each in replies if isinstance(each, Unavailable)]
    assert [each.code for each in put_off] == ["overloaded"] * 4
    assert len([each for each in replies if isinstance(each, Items | Refused)]) == past.WAITING_MAX
