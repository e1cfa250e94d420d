"""The ipam actor in its real shell on a real nats-server: commands, repeats, who sent them, what is refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from ipaddress import ip_network
from typing import cast

import anyio
import pytest

from ipam_actor.state import State
from messages.codec import JSON, decode_event, decode_reply
from messages.endpoint import CreateEndpoint, DeleteEndpoint, GetEndpoint
from messages.network import CreateNetwork, DeleteNetwork, GetNetwork, NetworkCreated, NetworkView
from messages.replies import Accepted, Item, Refused, Unavailable
from services.runtime import actor as shell
from services.runtime.actor import Actor
from services.runtime.identity import OPERATOR
from services.runtime.journal import BY_HEADER, COMMAND_ID_HEADER, Appended, Draft, Expectation, Journal, Recorded
from tests.harness.ipam import Asker, asker, audited, journal_of, running_ipam, settled
from tests.harness.nats import RunningNats, refusals

pytestmark = pytest.mark.anyio

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
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


def endpoint(name: str, **wishes: object) -> CreateEndpoint:
    return CreateEndpoint(tenant="default", network="web", name=name, **wishes)  # type: ignore[arg-type]


def of_command(events: Sequence[Recorded], command_id: str) -> list[Recorded]:
    return [each for each in events if each.headers.get(COMMAND_ID_HEADER) == command_id]


async def test_reply_comes_after_the_append_and_names_its_sequence(client: Asker, nats_server: RunningNats) -> None:
    reply = await client.ask(WEB, "first", headers={"traceparent": TRACE})
    assert isinstance(reply, Accepted)
    assert isinstance(reply.object, NetworkView)
    assert reply.is_changed
    assert not reply.is_repeated
    assert reply.object.status.subnets == (ip_network("10.1.0.0/16"),)
    recorded = of_command(await journal_of(nats_server), "first")
    assert recorded[-1].seq == reply.seq
    assert isinstance(decode_event(recorded[-1].payload), NetworkCreated)
    for index, each in enumerate(recorded):
        headers = each.headers
        assert headers[BY_HEADER] == "operator@127.0.0.1"
        assert headers["traceparent"] == TRACE
        assert headers["Nats-Msg-Id"] == headers["ce-id"] == f"first.{index}"
        assert headers["ce-source"] == "/np/ipam"
        assert headers["ce-type"] == f"io.np.v1.{each.subject.split('.')[-2 if '.net.' in each.subject else -1]}"


async def test_json_is_answered_in_kind(client: Asker) -> None:
    reply = await client.ask(WEB, form=JSON)
    assert isinstance(reply, Accepted)
    answer = await client.send(
        "np.v1.cmd.default.endpoint.create", b'{"network":"web","name":"a"}', {"Content-Type": JSON}
    )
    assert json.loads(answer.payload)["object"]["status"]["addresses"] == ["10.1.0.1/16"]
    refused = await client.send("np.v1.cmd.default.network.get", b'{"network":"none"}', {"Content-Type": JSON})
    assert json.loads(refused.payload)["code"] == "unknown-network"


async def test_command_is_idempotent_by_its_id(client: Asker, nats_server: RunningNats) -> None:
    await client.ask(WEB)
    first = await client.ask(endpoint("a"), "same")
    again = await client.ask(endpoint("a"), "same")
    assert isinstance(first, Accepted)
    assert isinstance(again, Accepted)
    assert again.is_repeated
    assert not again.is_changed
    assert (again.seq, again.object) == (first.seq, first.object)
    await client.ask(DeleteEndpoint(tenant="default", network="web", name="a"), "gone")
    late = await client.ask(endpoint("a"), "same")
    assert isinstance(late, Accepted)
    assert late.is_repeated, "what was done once is not done again"
    assert late.object is None
    gone = await client.ask(DeleteEndpoint(tenant="default", network="web", name="a"), "gone")
    assert isinstance(gone, Accepted)
    assert gone.is_repeated
    events = await journal_of(nats_server)
    assert len(of_command(events, "same")) == len(of_command(events, "gone")) == 1


async def test_repeat_after_a_restart_and_at_another_copy(nats_server: RunningNats) -> None:
    async with asker(nats_server) as client:
        async with running_ipam(nats_server):
            created = await client.ask(WEB, "w")
            first = await client.ask(endpoint("a"), "a")
        async with running_ipam(nats_server):
            again = await client.ask(endpoint("a"), "a")
            network = await client.ask(WEB, "w")
    assert isinstance(first, Accepted)
    assert isinstance(again, Accepted)
    assert isinstance(network, Accepted)
    assert isinstance(created, Accepted)
    assert (again.is_repeated, again.seq, again.object) == (True, first.seq, first.object)
    assert (network.is_repeated, network.seq) == (True, created.seq)


class SlowJournal:
    """Holds appends back until they are let go."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.is_open = anyio.Event()
        self.appending = anyio.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self._journal, name)

    async def append(self, drafts: Sequence[Draft], expectations: Sequence[Expectation]) -> Appended:
        self.appending.set()
        await self.is_open.wait()
        return await self._journal.append(drafts, expectations)


@pytest.mark.parametrize("copies", [1, 2])
async def test_copies_of_a_command_in_flight_become_one(nats_server: RunningNats, copies: int) -> None:
    """A command sent 32 times before the first is decided: all to one actor, or spread over two."""
    slow: list[SlowJournal] = []
    replies: list[object] = []

    def wrap(journal: Journal) -> Journal:
        slow.append(SlowJournal(journal))
        return cast("Journal", slow[-1])

    async def send(client: Asker) -> None:
        replies.append(await client.ask(endpoint("a"), "same"))

    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(asker(nats_server))
        async with running_ipam(nats_server):
            await client.ask(WEB)
        for _ in range(copies):
            await stack.enter_async_context(running_ipam(nats_server, wrap=wrap))
        async with anyio.create_task_group() as senders:
            for _ in range(32):
                senders.start_soon(send, client)
            for each in slow:
                await each.appending.wait()
            for each in slow:
                each.is_open.set()
    assert all(isinstance(each, Accepted) for each in replies), replies
    assert len({each.seq for each in replies if isinstance(each, Accepted)}) == 1
    assert sum(not each.is_repeated for each in replies if isinstance(each, Accepted)) == 1
    assert len(of_command(await journal_of(nats_server), "same")) == 1


async def test_a_reader_sees_its_own_write_at_any_copy(nats_server: RunningNats) -> None:
    async with running_ipam(nats_server), running_ipam(nats_server), asker(nats_server) as client:
        await client.ask(WEB)
        for number in range(60):
            written = await client.ask(endpoint(f"e{number}"))
            assert isinstance(written, Accepted)
            query = GetEndpoint(tenant="default", network="web", name=f"e{number}")
            read = await client.ask(query, headers={"Np-Min-Seq": str(written.seq)})
            assert isinstance(read, Item), f"{number}: {read}"
            assert read.object == written.object


async def test_no_command_is_decided_on_less_than_what_was_acknowledged(nats_server: RunningNats) -> None:
    """Create, delete, create again, use: each step at whichever copy takes it, with nothing said of sequences."""
    async with running_ipam(nats_server), running_ipam(nats_server), asker(nats_server) as client:
        for number in range(25):
            network = f"n{number}"
            assert isinstance(await client.ask(CreateNetwork(tenant="default", network=network)), Accepted)
            create = CreateEndpoint(tenant="default", network=network, name="a")
            for step in range(3):
                made = await client.ask(create)
                assert isinstance(made, Accepted), f"{number}.{step}: {made}"
                assert made.is_changed
                gone = await client.ask(DeleteEndpoint(tenant="default", network=network, name="a"))
                assert isinstance(gone, Accepted), f"{number}.{step}: {gone}"
            deleted = await client.ask(DeleteNetwork(tenant="default", network=network))
            assert isinstance(deleted, Accepted), deleted
            assert deleted.is_changed


async def test_a_copy_that_is_behind_says_so(client: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "READ_WITHIN_S", 0.05)
    await client.ask(WEB)
    reply = await client.ask(GetNetwork(tenant="default", network="web"), headers={"Np-Min-Seq": "1000000"})
    assert isinstance(reply, Unavailable)
    assert reply.code == "behind"
    assert "1000000" in reply.detail
    assert reply.retry_after_s > 0


async def test_refusals_are_audited_with_who_and_what(client: Asker, nats_server: RunningNats) -> None:
    reply = await client.ask(GetNetwork(tenant="acme", network="web"), "audited")
    assert reply == Refused(code="unknown-tenant", detail="tenant acme does not exist: create it first")
    await client.ask(WEB)
    host = await asking_as(nats_server, "host-h1", GetEndpoint(tenant="default", network="web", name="x"))
    assert host == "unknown-endpoint"
    records = await audited(nats_server)
    assert [each.subject for each in records] == ["np.v1.audit.acme.network-get", "np.v1.audit.default.endpoint-get"]
    first, second = (each.headers or {} for each in records)
    assert (first[BY_HEADER], first[COMMAND_ID_HEADER]) == ("operator@127.0.0.1", "audited")
    assert second[BY_HEADER] == "host-h1@127.0.0.1"
    assert decode_reply(records[0].data or b"") == reply


async def asking_as(server: RunningNats, user: str, query: GetEndpoint) -> str:
    async with asker(server, user) as client:
        reply = await client.ask(query)
    return reply.code if isinstance(reply, Refused) else repr(reply)


async def test_by_is_the_servers_own_word(client: Asker, nats_server: RunningNats) -> None:
    forged = '{"user":"mallory","acc":"SYS","host":"6.6.6.6"}'
    names = {"Nats-Request-Info": forged, "nats-request-info": forged, "Np-By": "mallory"}
    for number, (name, value) in enumerate(names.items()):
        await client.ask(CreateNetwork(tenant="default", network=f"n{number}"), f"f{number}", {name: value})
    events = await journal_of(nats_server)
    assert {each.headers[BY_HEADER] for each in events} == {"operator@127.0.0.1"}
    assert not any("mallory" in str(each.headers) for each in events)


async def test_what_came_by_no_import_is_refused(client: Asker, nats_server: RunningNats) -> None:
    """On the actors' own subjects only somebody of their account could publish: no user of ours has that right."""
    operator = await nats_server.connect(OPERATOR)
    await operator.publish("np.v1.svc.default.network.create", b"\x81\xa7network\xa3web")
    await settled(operator)
    assert "np.v1.svc.default.network.create" in refusals(operator)[0]
    await operator.close()
    assert await journal_of(nats_server) == []
