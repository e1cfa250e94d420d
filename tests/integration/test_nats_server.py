"""What our nats-server grants, refuses and says about senders: asked of a real one with the generated configuration."""

from __future__ import annotations

import asyncio
import json
import stat
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.js.api import StreamConfig

from messages import subjects
from services.runtime import identity
from tests.harness.nats import RunningNats, refusals

pytestmark = pytest.mark.anyio

CREATE = "np.v1.cmd.acme.network.create"
DELETE = "np.v1.cmd.acme.network.delete"
ASKED = "np.v1.cmd.acme.endpoint.get"  # what a host may ask
CREATED = "np.v1.evt.acme.net.web.created._"


class EchoActor:
    """Answers every command `ok`, as user ipam, and remembers what it was asked."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.seen: list[Msg] = []

    async def start(self) -> None:
        await self.client.subscribe(f"{subjects.SERVICES}.>", queue="ipam", cb=self._answer)
        await self.client.flush()

    async def _answer(self, message: Msg) -> None:
        self.seen.append(message)
        if message.reply:
            await self.client.publish(message.reply, b"ok")

    def sender(self) -> dict[str, Any]:
        """What the server says about who sent the last command."""
        headers = self.seen[-1].headers or {}
        facts: dict[str, Any] = json.loads(headers["Nats-Request-Info"])
        return facts


async def with_streams(client: Client) -> None:
    js = client.jetstream()
    await js.add_stream(StreamConfig(name=subjects.JOURNAL_STREAM, subjects=[subjects.ALL_EVENTS], allow_direct=True))
    await js.add_stream(StreamConfig(name=subjects.STATE_STREAM, subjects=[f"{subjects.PORTS}.>"], allow_direct=True))


async def settled(*clients: Client) -> None:
    """Returns when all that `clients` have sent was routed and all that was sent to them has arrived."""
    for _ in range(3):
        for client in clients:
            await client.flush()


async def stored(client: Client) -> int:
    streams = (subjects.JOURNAL_STREAM, subjects.STATE_STREAM)
    return sum([(await client.jetstream().stream_info(stream)).state.messages for stream in streams])


async def test_the_server_says_who_sent_a_command_and_replaces_what_is_forged(nats_server: RunningNats) -> None:
    ipam, operator = await nats_server.connect(identity.IPAM), await nats_server.connect()
    actor = EchoActor(ipam)
    await actor.start()
    forged = {"Nats-Request-Info": json.dumps({"acc": "NP", "user": "UEVIL"}), "X-Own": "kept"}
    answer = await operator.request(CREATE, b"x", headers=forged)
    assert answer.data == b"ok"
    assert actor.seen[-1].subject == "np.v1.svc.acme.network.create"
    assert (actor.seen[-1].headers or {})["X-Own"] == "kept"
    assert actor.sender()["acc"] == "EDGE"
    assert nats_server.principals[actor.sender()["user"]] == identity.OPERATOR
    await operator.close()
    await ipam.close()


async def test_a_header_forged_twice_or_without_a_reply_is_replaced_too(nats_server: RunningNats) -> None:
    ipam, host = await nats_server.connect(identity.IPAM), await nats_server.connect("host-h1")
    actor = EchoActor(ipam)
    await actor.start()
    lines = b'NATS/1.0\r\nNats-Request-Info: {"user":"E1"}\r\nNats-Request-Info: {"user":"E2"}\r\n\r\n'
    await host._send_command(b"HPUB %s %d %d\r\n%s\r\n" % (ASKED.encode(), len(lines), len(lines) + 1, lines + b"x"))
    await settled(host, ipam)
    assert nats_server.principals[actor.sender()["user"]] == "host-h1"
    await host.close()
    await ipam.close()


async def test_an_actor_s_own_commands_are_vouched_for_like_any_other(nats_server: RunningNats) -> None:
    ipam = await nats_server.connect(identity.IPAM)
    actor = EchoActor(ipam)
    await actor.start()
    assert (await ipam.request(CREATE, b"x", headers={"Nats-Request-Info": "forged"})).data == b"ok"
    assert nats_server.principals[actor.sender()["user"]] == identity.IPAM
    await ipam.close()


async def test_a_command_that_nobody_answers_fails_at_once(nats_server: RunningNats) -> None:
    operator = await nats_server.connect()
    for subject in (CREATE, "np.v1.host.h1.inspect"):
        with pytest.raises(NoRespondersError):
            await operator.request(subject, b"", timeout=30)
    await operator.close()


async def test_a_client_that_knows_nothing_of_ours_is_answered_as_operator(nats_server: RunningNats) -> None:
    ipam, operator = await nats_server.connect(identity.IPAM), await nats_server.connect(inbox_prefix="_INBOX")
    await EchoActor(ipam).start()
    assert (await operator.request(CREATE, b"x")).data == b"ok"
    await operator.close()
    await ipam.close()


async def test_nobody_gets_in_without_a_key(nats_server: RunningNats) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", nats_server.server.ports.client)
    assert (await reader.readline()).startswith(b"INFO ")
    writer.write(b'CONNECT {"verbose": false}\r\nPING\r\n')
    assert (await reader.readline()).strip() == b"-ERR 'Authorization Violation'"
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        ("operator", CREATED),
        ("operator", "np.v1.svc.acme.network.create"),
        ("operator", "$JS.API.STREAM.DELETE.NP_JOURNAL"),
        ("operator", "$JS.API.STREAM.PURGE.NP_JOURNAL"),
        ("operator", "np.v1.audit.acme.network-create"),
        ("ipam", "np.v1.svc.acme.network.create"),
        ("host-h1", CREATE),
        ("host-h1", CREATED),
        *(("host-h1", f"np.v1.cmd.acme.endpoint.{verb}") for verb in ("create", "attach", "bind", "detach", "delete")),
        *(("host-h1", f"np.v1.cmd.fabric.host.{verb}") for verb in ("invite", "admit", "remove", "drain")),
        ("host-h1", "np.v1.evt.acme.port.h2.bound"),
        ("host-h1", "np.v1.port.h2.acme.e1"),
        ("host-h1", "np.v1.host.h2.inspect"),
        ("host-h1", "np.v1.rules.acme.web"),
        ("viewer", CREATE),
        ("viewer", "np.v1.evt.acme.port.h1.bound"),
        ("viewer", "np.v1.host.h1.inspect"),
        ("daemon", CREATE),
        ("daemon", "$JS.API.CONSUMER.CREATE.NP_AUDIT.x"),
        ("daemon", "$JS.API.STREAM.CREATE.NP_JOURNAL"),
    ],
)
async def test_publishing_what_is_not_one_s_own_is_refused(nats_server: RunningNats, user: str, subject: str) -> None:
    client = await nats_server.connect(user)
    await client.publish(subject, b"x")
    await settled(client)
    assert subject.lower() in str(refusals(client)).lower()
    await client.close()


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        ("viewer", "_INBOX.operator.>"),
        ("viewer", "_INBOX.>"),
        ("host-h1", "_INBOX.host-h2.>"),
        ("host-h1", "np.v1.host.h2.>"),
        ("host-h1", "np.v1.cmd.>"),
        ("operator", "np.v1.svc.>"),
        ("operator", "_INBOX_NP.>"),
        ("ipam", "_INBOX.>"),
    ],
)
async def test_listening_where_others_are_spoken_to_is_refused(
    nats_server: RunningNats, user: str, subject: str
) -> None:
    client = await nats_server.connect(user)
    await client.subscribe(subject)
    await settled(client)
    assert subject.lower() in str(refusals(client)).lower()
    await client.close()


async def test_a_host_reports_its_own_ports_into_the_journal(nats_server: RunningNats) -> None:
    ipam, host = await nats_server.connect(identity.IPAM), await nats_server.connect("host-h1")
    await with_streams(ipam)
    report = await host.jetstream().publish("np.v1.evt.acme.port.h1.bound", b"1", headers={"Nats-Msg-Id": "m1"})
    assert (report.stream, report.seq) == (subjects.JOURNAL_STREAM, 1)
    again = await host.jetstream().publish("np.v1.evt.acme.port.h1.bound", b"1", headers={"Nats-Msg-Id": "m1"})
    assert again.duplicate
    assert (await host.jetstream().publish("np.v1.port.h1.acme.e1", b"up")).stream == subjects.STATE_STREAM
    await host.close()
    await ipam.close()


@pytest.mark.parametrize("user", ["operator", "viewer", "host-h1", "ipam"])
async def test_the_journal_is_read_in_order_and_live_with_flow_control(nats_server: RunningNats, user: str) -> None:
    ipam, reader = await nats_server.connect(identity.IPAM), await nats_server.connect(user)
    await with_streams(ipam)
    count, payload = 600, b"x" * 20_000  # far more than one window of flow control
    for _ in range(count):
        await ipam.publish(CREATED, payload)
    await settled(ipam)
    subscription = await reader.jetstream().subscribe(
        subjects.ALL_EVENTS, stream=subjects.JOURNAL_STREAM, ordered_consumer=True, idle_heartbeat=1.0
    )
    read = [(await subscription.next_msg(10)).metadata.sequence.stream for _ in range(count)]
    assert read == list(range(1, count + 1))
    await ipam.jetstream().publish(CREATED, b"live")
    assert (await subscription.next_msg(10)).data == b"live"
    last = await reader.jetstream().get_last_msg(subjects.JOURNAL_STREAM, CREATED, direct=True)
    assert last.seq == count + 1
    await reader.close()
    await ipam.close()


@pytest.mark.parametrize(
    "target",
    [CREATED, "np.v1.evt.acme.port.h2.bound", "np.v1.port.h2.acme.e", "np.v1.svc.acme.network.delete", DELETE],
)
async def test_no_answer_can_be_made_to_land_where_its_asker_may_not_publish(
    nats_server: RunningNats, target: str
) -> None:
    ipam, host = await nats_server.connect(identity.IPAM), await nats_server.connect("host-h1")
    viewer = await nats_server.connect(identity.VIEWER)
    await with_streams(ipam)
    actor = EchoActor(ipam)
    await actor.start()
    await ipam.jetstream().publish(CREATED, b"{}")
    before = await stored(ipam)
    await host.publish(ASKED, b"x", reply=target)
    await viewer.publish("$JS.API.DIRECT.GET.NP_JOURNAL", b'{"seq": 1}', reply=target)
    await host.publish("$JS.API.STREAM.INFO.NP_JOURNAL", b"", reply=target)
    await settled(host, viewer, ipam)
    assert [message.subject for message in actor.seen] == ["np.v1.svc.acme.endpoint.get"]
    assert await stored(ipam) == before
    for client in (host, viewer, ipam):
        await client.close()


@pytest.mark.parametrize("group", [None, "ipam"])
@pytest.mark.parametrize(
    "target", ["np.v1.svc.acme.network.delete", DELETE, "np.v1.port.h2.acme.e", "np.v1.host.h2.inspect"]
)
async def test_no_consumer_can_be_made_to_deliver_events_as_commands(
    nats_server: RunningNats, target: str, group: str | None
) -> None:
    ipam, viewer = await nats_server.connect(identity.IPAM), await nats_server.connect(identity.VIEWER)
    await with_streams(ipam)
    actor = EchoActor(ipam)
    await actor.start()
    await ipam.jetstream().publish(CREATED, b"{}")
    before = await stored(ipam)
    config = {"name": "evil", "deliver_subject": target, "ack_policy": "none", "deliver_policy": "all"}
    if group:
        config["deliver_group"] = group
    request = json.dumps({"stream_name": subjects.JOURNAL_STREAM, "config": config}).encode()
    await viewer.request(f"$JS.API.CONSUMER.CREATE.{subjects.JOURNAL_STREAM}.evil", request)
    await settled(viewer, ipam)
    assert actor.seen == []
    assert await stored(ipam) == before
    await viewer.close()
    await ipam.close()


@pytest.mark.parametrize("user", ["operator", "viewer"])
async def test_who_only_wants_to_look_sees_events_live_with_nothing_but_a_subscription(
    nats_server: RunningNats, user: str
) -> None:
    ipam, reader = await nats_server.connect(identity.IPAM), await nats_server.connect(user)
    host = await nats_server.connect("host-h1")
    await with_streams(ipam)
    subscription = await reader.subscribe("np.v1.evt.acme.>")
    await reader.flush()
    await ipam.jetstream().publish(CREATED, b"1")
    await host.jetstream().publish("np.v1.evt.acme.port.h1.bound", b"2")
    assert {(await subscription.next_msg(5)).data for _ in range(2)} == {b"1", b"2"}
    for client in (host, reader, ipam):
        await client.close()


async def test_discovery_reaches_actors_of_both_accounts(nats_server: RunningNats) -> None:
    ipam, host = await nats_server.connect(identity.IPAM), await nats_server.connect("host-h1")
    daemon = await nats_server.connect(identity.DAEMON)
    for client, name in ((ipam, b"ipam"), (host, b"host")):

        async def answer(message: Msg, client: Client = client, name: bytes = name) -> None:
            await client.publish(message.reply, name)

        await client.subscribe("$SRV.PING", cb=answer)
        await settled(client)
    inbox = daemon.new_inbox()
    answers = await daemon.subscribe(inbox)
    await daemon.publish("$SRV.PING", b"", reply=inbox)
    assert {(await answers.next_msg(5)).data for _ in range(2)} == {b"ipam", b"host"}
    for client in (daemon, host, ipam):
        await client.close()


async def test_a_kill_and_a_start_keep_keys_port_and_what_was_acknowledged(nats_server: RunningNats) -> None:
    ipam = await nats_server.connect(identity.IPAM, reconnect_time_wait=0.05, max_reconnect_attempts=-1)
    await with_streams(ipam)
    for _ in range(20):
        await ipam.jetstream().publish(CREATED, b"x")
    url = nats_server.url
    await asyncio.to_thread(nats_server.kill)
    await asyncio.to_thread(nats_server.start)
    assert nats_server.url == url
    second = await nats_server.connect(identity.IPAM)
    assert await stored(second) == 20
    assert (await nats_server.server.check()).startswith("2.")
    await second.close()
    await ipam.close()


async def test_seeds_are_for_their_user_alone(nats_server: RunningNats) -> None:
    files = list(nats_server.keys_dir.glob("*.nk"))
    assert {file.stem for file in files} == {"operator", "viewer", "daemon", "ipam", "host-h1", "host-h2"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    configuration = (nats_server.server.run_dir / "nats-server.conf").read_text()
    assert not any(file.read_text().strip() in configuration for file in files)
