"""The bus against a real nats-server: what it says when nobody is there, and how soon it is back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from messages import subjects
from services.runtime.bus import Bus, Handler, Message, Options, connect
from services.runtime.errors import Misconfigured, OutcomeUnknown, Unavailable
from services.runtime.identity import IPAM, OPERATOR, VIEWER
from services.runtime.nats_client import NatsClient
from tests.harness.nats import RunningNats

pytestmark = pytest.mark.anyio

COMMAND = subjects.command("acme", "network", "create")
DISCOVERY = "$SRV.PING"  # the one that several answer
SERVICE = subjects.service("network", "create")
NOWHERE = "nats://127.0.0.1:1"
AT_ONCE_S = 10.0  # far from the minutes and endless waits that it must not be


def options(server: RunningNats, user: str) -> Options:
    return Options(urls=(server.url,), user=user, credentials=server.seed_file(user))


@pytest.fixture
async def ipam(nats_server: RunningNats) -> AsyncIterator[Bus]:
    async with await connect(options(nats_server, IPAM)) as bus:
        yield bus


@pytest.fixture
async def operator(nats_server: RunningNats) -> AsyncIterator[Bus]:
    async with await connect(options(nats_server, OPERATOR)) as bus:
        yield bus


def setting(event: anyio.Event) -> Handler:
    return lambda _: event.set()


async def answer_with(
    bus: Bus, tasks: anyio.abc.TaskGroup, payload: bytes, *, subject: str = SERVICE, queue: str = ""
) -> list[Message]:
    """Every command is answered; the result grows with what came."""
    received: list[Message] = []

    def receive(message: Message) -> None:
        received.append(message)
        tasks.start_soon(bus.publish, message.reply, payload)

    await bus.subscribe(subject, receive, queue=queue)
    await bus.flush()
    return received


# -- connecting


async def test_nobody_there_is_said_at_once_with_the_url() -> None:
    started = time.monotonic()
    with pytest.raises(Unavailable, match=f"no NATS server at {NOWHERE}: .*Connect call failed"):
        await connect(Options(urls=(NOWHERE,), user=OPERATOR))
    assert time.monotonic() - started < AT_ONCE_S


async def test_one_server_of_several_is_enough(nats_server: RunningNats) -> None:
    several = Options(urls=(NOWHERE, nats_server.url), user=OPERATOR, credentials=nats_server.seed_file(OPERATOR))
    async with await connect(several) as bus:
        assert bus.where == nats_server.url


async def test_wrong_seed_is_refused_with_the_servers_words(nats_server: RunningNats, tmp_path: Path) -> None:
    seed = tmp_path / "operator.nk"
    seed.write_text("SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY")
    with pytest.raises(Unavailable, match="Authorization Violation"):
        await connect(Options(urls=(nats_server.url,), user=OPERATOR, credentials=seed))


@pytest.mark.parametrize("content", [None, "no seed"])
async def test_unreadable_seed_is_misconfigured(nats_server: RunningNats, tmp_path: Path, content: str | None) -> None:
    seed = tmp_path / "operator.nk"
    if content is not None:
        seed.write_text(content)
    with pytest.raises(Misconfigured, match=r"operator\.nk"):
        await connect(Options(urls=(nats_server.url,), user=OPERATOR, credentials=seed))


async def test_server_is_new_enough(operator: Bus) -> None:
    operator.check_server()
    assert operator.server_version.startswith("2.")


# -- asking and answering


async def test_request_is_answered(ipam: Bus, operator: Bus) -> None:
    async with anyio.create_task_group() as tasks:
        received = await answer_with(ipam, tasks, b"yes")
        answer = await operator.request(COMMAND, b"?", headers={"Np-Command-Id": "c1"})
    assert answer.payload == b"yes"
    assert (received[0].payload, received[0].headers["Np-Command-Id"]) == (b"?", "c1")
    assert '"user"' in received[0].headers["Nats-Request-Info"]


async def test_nobody_to_answer_is_said_at_once(operator: Bus) -> None:
    started = time.monotonic()
    with pytest.raises(Unavailable, match=r"nobody answers np\.v1\.cmd\.acme\.network\.create at nats://") as caught:
        await operator.request(COMMAND)
    assert not isinstance(caught.value, OutcomeUnknown)
    assert time.monotonic() - started < AT_ONCE_S


async def test_no_answer_in_time_is_an_unknown_outcome(ipam: Bus, operator: Bus) -> None:
    await ipam.subscribe(SERVICE, lambda _: None)
    await ipam.flush()
    with pytest.raises(OutcomeUnknown, match=r"no answer from np\.v1\.cmd.* within 0\.05 s"):
        await operator.request(COMMAND, timeout_s=0.05)


async def test_answer_after_its_time_disturbs_no_later_request(ipam: Bus, operator: Bus) -> None:
    held: list[Message] = []
    subscription = await ipam.subscribe(SERVICE, held.append)
    await ipam.flush()
    with pytest.raises(OutcomeUnknown):
        await operator.request(COMMAND, timeout_s=0.02)
    await subscription.close()
    async with anyio.create_task_group() as tasks:
        await answer_with(ipam, tasks, b"second")
        await ipam.publish(held[0].reply, b"first, late")
        assert (await operator.request(COMMAND)).payload == b"second"


async def test_subscription_stands_when_it_is_flushed(ipam: Bus, operator: Bus) -> None:
    """nats-py's own flush overtakes what it follows: one in thirty of these was answered by nobody."""
    for _ in range(150):
        received = anyio.Event()
        subscription = await ipam.subscribe(SERVICE, setting(received))
        await ipam.flush()
        await operator.publish(COMMAND)
        with anyio.fail_after(30):
            await received.wait()
        await subscription.close()


async def test_a_flush_that_took_too_long_costs_no_connection(nats_server: RunningNats, operator: Bus) -> None:
    os.kill(nats_server.pid, signal.SIGSTOP)
    try:
        await anyio.to_thread.run_sync(os.waitpid, nats_server.pid, os.WUNTRACED)  # until then it may still answer
        with pytest.raises(Unavailable):
            await operator.flush(timeout_s=0.1)
    finally:
        os.kill(nats_server.pid, signal.SIGCONT)
    await operator.flush(timeout_s=30)
    assert operator.is_connected
    assert operator.reconnections == 0


async def test_one_of_a_queue_group_is_asked(nats_server: RunningNats, ipam: Bus, operator: Bus) -> None:
    async with await connect(options(nats_server, IPAM)) as twin, anyio.create_task_group() as tasks:
        first = await answer_with(ipam, tasks, b"1", queue="ipam")
        second = await answer_with(twin, tasks, b"2", queue="ipam")
        for _ in range(20):
            await operator.request(COMMAND)
        assert len(first) + len(second) == 20


async def test_all_answers_are_collected(ipam: Bus, nats_server: RunningNats, operator: Bus) -> None:
    async with await connect(options(nats_server, IPAM)) as twin, anyio.create_task_group() as tasks:
        await answer_with(ipam, tasks, b"1", subject=DISCOVERY)
        await answer_with(twin, tasks, b"2", subject=DISCOVERY)
        answers = await operator.request_many(DISCOVERY, quiet_s=5.0, enough=lambda found: len(found) == 2)
        assert sorted(answer.payload for answer in answers) == [b"1", b"2"]
        quiet = await operator.request_many(DISCOVERY, quiet_s=0.1)
        assert len(quiet) == 2


async def test_nobody_to_answer_many_is_said(operator: Bus) -> None:
    with pytest.raises(Unavailable, match="nobody answers"):
        await operator.request_many(COMMAND)


async def test_too_large_is_said_with_the_limit(operator: Bus) -> None:
    with pytest.raises(ValueError, match=r"8388609 bytes to np\.v1\.cmd.*: the server takes 8388608 at most"):
        await operator.request(COMMAND, b"x" * (8 * 2**20 + 1))


async def test_closed_subscription_hears_nothing(ipam: Bus, operator: Bus) -> None:
    subscription = await ipam.subscribe(SERVICE, lambda _: None)
    await subscription.close()
    await subscription.close()
    await ipam.flush()
    with pytest.raises(Unavailable, match="nobody answers"):
        await operator.request(COMMAND)


# -- what nats-py says on the side


async def test_refused_permission_is_logged_with_its_subject(nats_server: RunningNats) -> None:
    async with await connect(options(nats_server, VIEWER)) as viewer:
        with capture_logs() as logs:
            await viewer.publish(subjects.tenant_event("acme", "forged"))
            await viewer.flush()
            await viewer.flush()
    refused = [entry for entry in logs if entry["event"] == "bus-permission-refused"]
    assert [(each["log_level"], each["action"], each["subject"], each["user"]) for each in refused] == [
        ("error", "publish", "np.v1.evt.acme.tenant.forged", "viewer")
    ]


async def test_exception_of_a_subscriber_breaks_the_bus(ipam: Bus, operator: Bus) -> None:
    def fail(_: Message) -> None:
        raise KeyError("a bug")

    await ipam.subscribe(SERVICE, fail)
    await ipam.flush()
    with capture_logs() as logs:
        await operator.publish(COMMAND)
        with anyio.fail_after(30), pytest.raises(KeyError, match="a bug"):
            await ipam.broken()
    assert [entry["event"] for entry in logs] == ["subscriber-failed"]


# -- a server that goes away


async def test_waiting_requests_fail_when_the_connection_is_lost(
    nats_server: RunningNats, ipam: Bus, operator: Bus
) -> None:
    received = anyio.Event()
    await ipam.subscribe(SERVICE, setting(received))
    await ipam.flush()

    async def kill_when_asked() -> None:
        await received.wait()
        await anyio.to_thread.run_sync(nats_server.kill)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kill_when_asked)
        with anyio.fail_after(30), pytest.raises(OutcomeUnknown, match="was lost before the answer came"):
            await operator.request(COMMAND, timeout_s=60)
    started = time.monotonic()
    for ask in (operator.request, operator.publish):
        with pytest.raises(Unavailable, match=f"the NATS server at {nats_server.url} is away"):
            await ask(COMMAND)
    assert time.monotonic() - started < AT_ONCE_S


async def test_subscriptions_and_requests_go_on_after_a_restart(
    nats_server: RunningNats, ipam: Bus, operator: Bus
) -> None:
    told: list[bool] = []
    unwatch = operator.watch(told.append)
    async with anyio.create_task_group() as tasks:
        received = await answer_with(ipam, tasks, b"yes")
        for _ in range(3):
            await anyio.to_thread.run_sync(nats_server.kill)
            await anyio.to_thread.run_sync(nats_server.start)
            with anyio.fail_after(30):
                await ipam.connected()
                await operator.connected()
                assert (await operator.request(COMMAND)).payload == b"yes"
    assert len(received) == 3
    assert told == [False, True] * 3
    unwatch()


async def test_nothing_said_while_away_is_said_later(nats_server: RunningNats, ipam: Bus, operator: Bus) -> None:
    lost = anyio.Event()
    operator.watch(lambda _: lost.set())
    await anyio.to_thread.run_sync(nats_server.kill)
    await lost.wait()
    with pytest.raises(Unavailable):
        await operator.publish(COMMAND, b"stale")
    await anyio.to_thread.run_sync(nats_server.start)
    with anyio.fail_after(30):
        await ipam.connected()
        await operator.connected()
        async with anyio.create_task_group() as tasks:
            received = await answer_with(ipam, tasks, b"yes")
            await operator.request(COMMAND, b"fresh")
    assert [message.payload for message in received] == [b"fresh"]


async def test_closed_bus_says_so(nats_server: RunningNats) -> None:
    bus = await connect(options(nats_server, OPERATOR))
    await bus.close()
    await bus.close()
    for ask in (bus.request, bus.publish):
        with pytest.raises(Unavailable):
            await ask(COMMAND)
    with pytest.raises(Unavailable, match="is closed"):
        await bus.connected()


# -- headers


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"A: 1\r\nB:2\r\n\r\n", {"A": "1", "B": "2"}),
        (b"A: x: y \r\n", {"A": "x: y"}),
        (b"A : 1\r\n B: 2\r\n\tC: 3\r\nD\t: 4\r\n", {}),
        (b"A: 1\nB: 2\r\n", {"A": "1\nB: 2"}),
        (b"a: 1\r\nA: 2\r\nA: 3\r\n", {"a": "1", "A": "3"}),
        (b"\xc3\xa4: 1\r\nA: \xc3\xa4\xff\r\nno colon\r\n: 1\r\n", {"A": "ä�"}),
    ],
    ids=["plain", "colon-in-value", "space-in-name", "bare-newline", "case-and-repetition", "not-ascii"],
)
def test_header_names_are_tokens_and_lines_end_as_the_server_ends_them(raw: bytes, expected: dict[str, str]) -> None:
    assert NatsClient._parse_header_lines(raw) == expected
