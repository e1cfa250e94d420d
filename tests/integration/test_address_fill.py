"""A /22 filled to the last address by 64 racing clients while its two ipam actors are killed, and emptied again."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from messages import subjects
from messages.catalog import event_name
from messages.codec import decode_event, encode
from messages.endpoint import EndpointDeleted
from messages.host import JoinHost
from messages.port import PortUnbound
from messages.replies import Accepted, Refused
from services.runtime import identity
from services.runtime.bus import connect
from services.runtime.journal import BATCH_MAX, MESSAGE_ID_HEADER, Draft
from services.runtime.journal_jetstream import JetStreamJournal
from tests.harness.address_race import (
    ADDRESSES,
    CONNECTIONS,
    WEB,
    WITHIN_S,
    Race,
    check_full,
    create,
    delete,
    shown,
    too_many,
    until,
)
from tests.harness.ipam import IpamProcess, asker, held, ipam_process, journal_of, options, running_ipam
from tests.harness.nats import RunningNats

pytestmark = [pytest.mark.anyio, pytest.mark.long]

CONTAINER = "netns:c1"
JOIN = JoinHost(tenant="fabric", host="h1", driver="ovs", datapath="netdev", version="0")


def killer(*victims: IpamProcess) -> Callable[[int], Awaitable[None]]:
    """Kills one after the other, and starts it again; each once the other answers."""
    starts = dict.fromkeys(victims, 1)

    async def kill(kills: int) -> None:
        for each, times in starts.items():
            await anyio.to_thread.run_sync(each.wait_for, "actor-ready", times)
        victim = victims[kills % len(victims)]
        await anyio.to_thread.run_sync(victim.end, signal.SIGKILL)
        starts[victim] += 1
        victim.start()

    return kill


async def report_gone(server: RunningNats, since: int) -> None:
    """The host reports the port of every endpoint that was deleted after `since` gone."""
    events = [decode_event(each.payload) for each in await journal_of(server) if each.seq > since]
    await report(server, [_gone(each.endpoint, each.epoch) for each in events if isinstance(each, EndpointDeleted)])


def _gone(endpoint: str, epoch: int) -> PortUnbound:
    return PortUnbound(tenant="default", network="web", host="h1", endpoint=endpoint, name="gone", epoch=epoch)


async def report(server: RunningNats, events: Sequence[PortUnbound]) -> None:
    async with await connect(options(server, identity.IPAM)) as bus:
        journal = JetStreamJournal(bus)
        subject = subjects.port_event("default", "h1", event_name(PortUnbound))
        drafts = [Draft(subject, encode(each), {MESSAGE_ID_HEADER: f"{each.endpoint}.{each.epoch}"}) for each in events]
        for at in range(0, len(drafts), BATCH_MAX):
            await journal.append(drafts[at : at + BATCH_MAX], [])


async def state_of(server: RunningNats) -> Any:
    """What is folded from the whole journal by now, without the sequences of what was last written where."""
    async with running_ipam(server) as actor:
        tenants, segments, networks, hosts, ports, *_ = held(actor)
        tenants = {name: each[1:] for name, each in tenants.items()}
        networks = {tenant: {name: each[1:] for name, each in below.items()} for tenant, below in networks.items()}
        reports = [each for below in ports.values() for aggregate in below.values() for each in aggregate["reports"]]
        return tenants, segments[1:], networks, hosts["hosts"], reports


async def fill_and_empty(server: RunningNats, kill_every: int, rounds: int) -> None:
    with ipam_process(server) as one, ipam_process(server) as two:
        kill = killer(one, two)
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(asker(server)) for _ in range(CONNECTIONS)]
            await until(clients[0], JOIN, "join")
            await until(clients[0], WEB, "web")
            before, state_before = await shown(clients[0]), await state_of(server)
            for number in range(rounds):
                began = (await journal_of(server))[-1].seq
                race = Race(clients, too_many(f"e{number}", CONTAINER))
                await race.run(kill, kill_every)
                check_full(race.replies, [each for each in await journal_of(server) if each.seq > began])
                full = await shown(clients[0])
                assert (full.used.count, full.free.count) == (len(ADDRESSES), 0)
                assert list(map(str, full.used.ranges)) == ["10.1.4.1-10.1.7.254"]

                emptying = Race(clients, {f"delete-{name}": delete(name) for name in race.accepted()})
                await emptying.run(kill, kill_every)
                assert all(isinstance(reply, Accepted) for reply in emptying.replies.values())
                rests = await shown(clients[0])
                assert (rests.resting.count, rests.used.count, rests.free.count) == (len(ADDRESSES), 0, 0)
                early = await until(clients[0], create("early", CONTAINER), f"early{number}")
                assert isinstance(early, Refused)
                assert "1022 of them rest" in early.detail

                await report_gone(server, began)
                with anyio.fail_after(WITHIN_S):
                    while (now := await shown(clients[0])).resting.count:
                        pass  # the time goes by in the asking
                assert now == before
            await report(server, [_gone("nobody", 1)])  # in the journal's own time, too, all rests are over now
            assert await state_of(server) == state_before


async def test_full_to_the_last_address_and_empty_again_with_either_actor_killed(nats_server: RunningNats) -> None:
    await fill_and_empty(nats_server, kill_every=180, rounds=1)


@pytest.mark.long
async def test_long_full_and_empty_again_and_again(nats_server: RunningNats) -> None:
    await fill_and_empty(nats_server, kill_every=60, rounds=5)
