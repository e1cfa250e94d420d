"""The ipam actor told to stop, ids used again for another command, and what a reply says beside what was asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import ip_address
from typing import Any, cast

import anyio
import msgspec
import pytest

from ipam_actor.state import State
from messages.codec import JSON, MSGPACK
from messages.endpoint import AttachEndpoint, CreateEndpoint, DeleteEndpoint
from messages.host import JoinHost
from messages.intent import ApplyIntent
from messages.network import CreateNetwork, ListNetworks
from messages.replies import Accepted, Items, Refused, Unavailable
from messages.struct import Command
from messages.tenant import CreateTenant
from services.runtime.actor import Actor
from services.runtime.journal import Journal
from tests.harness.ipam import Asker, asker, audited, journal_of, running_ipam
from tests.harness.nats import RunningNats
from tests.integration.test_actor import SlowJournal

pytestmark = pytest.mark.anyio

WITHIN_S = 40.0
BARE = CreateNetwork(tenant="default", network="web", subnets="none")


@pytest.fixture
async def client(nats_server: RunningNats) -> AsyncIterator[Asker]:
    async with asker(nats_server) as asking:
        yield asking


# -- told to stop


async def test_what_was_accepted_is_answered_and_what_comes_then_is_put_off(
    nats_server: RunningNats, client: Asker
) -> None:
    slow: list[SlowJournal] = []

    def wrap(journal: Journal) -> Journal:
        slow.append(SlowJournal(journal))
        return cast("Journal", slow[0])

    replies: list[object] = []

    async def send() -> None:
        replies.append(await client.ask(BARE))

    async with running_ipam(nats_server, wrap=wrap) as actor, anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        with anyio.fail_after(WITHIN_S):
            await slow[0].appending.wait()
            actor.stop()
            late = await client.ask(ListNetworks(tenant="default"))
            slow[0].is_open.set()
            while not replies:
                await anyio.lowlevel.checkpoint()
    assert isinstance(late, Unavailable)
    assert (late.code, late.is_outcome_unknown) == ("stopping", False)
    assert late.retry_after_s > 0
    (accepted,) = replies
    assert isinstance(accepted, Accepted)
    assert accepted.is_changed


async def test_a_copy_that_stops_leaves_the_work_to_the_other(nats_server: RunningNats, client: Asker) -> None:
    async with running_ipam(nats_server) as first, running_ipam(nats_server):
        await client.ask(BARE)
        first.stop()
        for number in range(50):
            made = await client.until_answered(
                CreateNetwork(tenant="default", network=f"n{number}", subnets="none"), f"{number}"
            )
            assert isinstance(made, Accepted)
        listed = await client.ask(ListNetworks(tenant="default"))
    assert isinstance(listed, Items)
    assert len(listed.objects) == 51


# -- an id used again


OTHERS: dict[str, Command] = {
    "another name": CreateNetwork(tenant="default", network="other", subnets="none"),
    "another wish": CreateNetwork(tenant="default", network="web", subnets="none", tag=7),
    "another verb": DeleteEndpoint(tenant="default", network="web", name="e1"),
    "another tenant": CreateTenant(tenant="acme"),
}


@pytest.mark.parametrize("other", OTHERS)
async def test_an_id_of_another_command_is_refused_and_changes_nothing(
    nats_server: RunningNats, client: Asker, other: str
) -> None:
    async with running_ipam(nats_server):
        first = await client.ask(BARE, "same")
        assert isinstance(first, Accepted)
        before = len(await journal_of(nats_server))
        reused = await client.ask(OTHERS[other], "same")
        assert isinstance(reused, Refused)
        assert reused.code == "command-id-reused"
        assert "same" in reused.detail
        assert len(await journal_of(nats_server)) == before
        assert len(await audited(nats_server)) == 1
        again = await client.ask(BARE, "same")
        assert isinstance(again, Accepted)
        assert again.is_repeated


async def test_the_same_command_in_another_encoding_and_at_another_copy_is_a_repeat(
    nats_server: RunningNats, client: Asker
) -> None:
    async with running_ipam(nats_server):
        await client.ask(BARE, "same")
    async with running_ipam(nats_server):
        for form in (JSON, MSGPACK):
            again = await client.ask(BARE, "same", form=form)
            assert isinstance(again, Accepted)
            assert again.is_repeated
        reused = await client.ask(OTHERS["another name"], "same")
        assert isinstance(reused, Refused)


# -- what else became true


async def test_a_reply_says_what_else_changed(nats_server: RunningNats, client: Asker) -> None:
    async with running_ipam(nats_server) as actor:
        await joined(actor, client)
        made = await client.ask(BARE)
        assert isinstance(made, Accepted)
        assert made.notes == ()
        tag = made.object.status.tag  # type: ignore[union-attr]
        first = CreateEndpoint(
            tenant="default", network="web", name="e1", addresses=(ip_address("11.1.1.1"),), tag=tag + 1
        )
        created = await client.ask(first)
        assert isinstance(created, Accepted)
        assert created.notes == (
            "network web adopted subnet 11.1.1.0/24",
            f"network web has vlan tag {tag + 1} now, instead of {tag}",
        )
        second = await client.ask(CreateEndpoint(tenant="default", network="web", name="e2"))
        assert isinstance(second, Accepted)
        assert second.notes == ()
        place: dict[str, Any] = {"tenant": "default", "network": "web", "name": "e1", "host": "h1"}
        assert (await client.ask(AttachEndpoint(**place, container="netns:a"))).notes == ()  # type: ignore[union-attr]
        moved = await client.ask(AttachEndpoint(**place, container="netns:b", move=True))
        assert isinstance(moved, Accepted)
        assert moved.notes == ("endpoint e1 was taken from container netns:a on host h1",)
        whole = await client.ask(
            ApplyIntent(tenant="default", changes=(replaced(BARE, "db"), replaced(first, "db", tag=None)))
        )
        assert isinstance(whole, Refused), "11.1.1.0/24 is taken: nothing is adopted, and nothing said"


def replaced(command: Any, network: str, **changes: object) -> Any:
    return msgspec.structs.replace(command, network=network, **changes)


async def joined(actor: Actor[State], client: Asker) -> None:
    """Host h1 is a member."""
    reply = await client.ask(JoinHost(tenant="fabric", host="h1", driver="memory", datapath="memory", version="0"))
    assert isinstance(reply, Accepted), reply
    await actor.projection.catch_up()
