"""Three real nats-servers as one: who is let in, and what is left when one of them is killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from messages import subjects
from messages.codec import decode_event
from messages.endpoint import CreateEndpoint, EndpointCreated
from messages.network import CreateNetwork, ListNetworks
from messages.replies import Accepted
from services import cluster
from services.cli.client import Client
from services.cli.exits import Ended
from services.cli.server import Server
from services.cli.wire import Unreachable, Wire
from services.runtime import identity, jetstream_api
from services.runtime.bus import Options, connect
from services.runtime.errors import Misconfigured, Unavailable
from services.runtime.journal_jetstream import JetStreamJournal
from services.runtime.streams import streams_ready
from tests.harness.ipam import Asker, held, running_ipam
from tests.harness.nats import RunningNats
from tests.harness.nats_cluster import RunningCluster, running_cluster

pytestmark = [pytest.mark.anyio, pytest.mark.long]

WITHIN_S = 60.0  # a leader that was killed is missed after 4 to 9 s (nats-server), on a busy machine later
WEB = CreateNetwork(tenant="default", network="web", subnets=(ip_network("10.1.0.0/16"),))


@pytest.fixture
def three(tmp_path: Path) -> Iterator[RunningCluster]:
    with running_cluster(tmp_path / "c") as running:
        yield running


def server_of(running: RunningNats, urls: tuple[str, ...] | None = None) -> Server:
    return Server(
        urls=urls or running.server.urls,
        source="the test",
        seed_file=str(running.seed_file(identity.OPERATOR)),
        ca=str(running.server.ca),
        inbox_prefix=identity.inbox_prefix(identity.OPERATOR),
    )


async def leader_of(running: RunningCluster) -> str:
    """The server that leads the journal."""
    async with await connect(running.options(identity.IPAM)) as bus:
        found = await jetstream_api.ask(bus, f"STREAM.INFO.{subjects.JOURNAL_STREAM}")
    return str(found["cluster"]["leader"]).removeprefix("netplugin-")


# -- let in, or not


async def test_only_who_holds_the_authority_to_it_and_only_over_tls(three: RunningCluster, tmp_path: Path) -> None:
    options = three.options(identity.OPERATOR)
    async with await connect(options) as bus:
        assert bus.where == "tls://127.0.0.21:4222"
    cluster.prepare(tmp_path / "other", {"n1": "127.0.0.21"})
    with pytest.raises(Unavailable, match="certificate verify failed"):
        await connect(
            Options(
                urls=options.urls[:1],
                user=options.user,
                credentials=options.credentials,
                ca=tmp_path / "other/n1/tls/ca.pem",
            )
        )
    with pytest.raises(Unavailable, match="certificate"):  # the system's authorities do not know this one
        await connect(Options(urls=options.urls[:1], user=options.user, credentials=options.credentials))


async def test_a_server_without_tls_is_not_talked_to_where_tls_was_asked_for(
    nats_server: RunningNats, tmp_path: Path
) -> None:
    cluster.prepare(tmp_path / "other", {"n1": "127.0.0.1"})
    url, ca = nats_server.url.replace("nats://", "tls://"), tmp_path / "other/n1/tls/ca.pem"
    with pytest.raises(Unavailable, match="does not speak TLS"):
        await connect(Options(urls=(url,), user="operator", credentials=nats_server.seed_file("operator"), ca=ca))
    wire = Wire(Server(urls=(url,), source="the test", ca=str(ca)), "test")
    with pytest.raises(Unreachable, match="does not speak TLS"):
        wire.connect(time.monotonic() + 5)


async def test_a_certificate_that_is_none_is_said(three: RunningCluster, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("none")
    options = three.options(identity.OPERATOR)
    with pytest.raises(Misconfigured, match="no certificate"):
        await connect(Options(urls=options.urls, user="operator", ca=tmp_path / "ca.pem"))


def test_the_command_line_takes_the_next_server_when_one_is_away(three: RunningCluster) -> None:
    server = server_of(three.servers["n1"])
    three.servers["n1"].kill()
    wire = Wire(server, "test")
    wire.connect(time.monotonic() + 10)
    try:
        assert wire.server_facts["server_name"] == "netplugin-n2"
    finally:
        wire.close()


def test_the_command_line_says_of_every_server_why_it_cannot(three: RunningCluster, tmp_path: Path) -> None:
    cluster.prepare(tmp_path / "other", {"n1": "127.0.0.21"})
    three.servers["n1"].kill()
    base = server_of(three.servers["n2"])
    server = Server(
        urls=base.urls, source="the test", seed_file=base.seed_file, ca=str(tmp_path / "other/n1/tls/ca.pem")
    )
    with pytest.raises(Ended) as ended:
        Client(server, 10.0).items(ListNetworks(tenant="default"))
    assert ended.value.status == 3
    assert "certificate verify failed" in ended.value.message
    assert "127.0.0.21:4222: Connection refused" in ended.value.message


# -- one away


async def test_streams_are_on_three_servers_and_wait_for_those_to_come(tmp_path: Path) -> None:
    servers = RunningCluster(tmp_path / "c")
    try:
        servers.start("n1")
        async with await connect(servers.options(identity.IPAM)) as bus, anyio.create_task_group() as tasks:
            tasks.start_soon(streams_ready, bus, 3)
            servers.start("n2", "n3")
            with anyio.fail_after(WITHIN_S):
                await streams_ready(bus, 3)
            info = await jetstream_api.ask(bus, f"STREAM.INFO.{subjects.JOURNAL_STREAM}")
        assert info["config"]["num_replicas"] == 3
        assert len(info["cluster"]["replicas"]) == 2
    finally:
        servers.stop()


async def test_whichever_server_is_killed_commands_go_on_and_nothing_acknowledged_is_lost(
    three: RunningCluster,
) -> None:
    """Two ipam copies on two servers; the journal's leader is killed, then the server of one of the copies."""
    one, two = three.servers["n1"], three.servers["n2"]
    async with (
        running_ipam(one) as first,
        running_ipam(two) as second,
        await connect(three.options(identity.OPERATOR, "n3")) as bus,
    ):
        client = Asker(bus)
        begun = await until_accepted(client, WEB, "web")
        with anyio.fail_after(WITHIN_S):
            for copy in (first, second):  # from then on they follow; before, a lost connection ends the process
                await copy.projection.reached(begun.seq)
        made: list[str] = []
        for victim in (await leader_of(three), "n2"):
            three.servers[victim].kill()
            for _ in range(5):
                name = f"e{len(made)}"
                await until_accepted(client, CreateEndpoint(tenant="default", network="web", name=name), name)
                made.append(name)
            three.servers[victim].start()
            await all_current(three)
        journal = JetStreamJournal(first._bus)
        recorded = [
            decode_event(each.payload)
            for each in await journal.read([subjects.network_aggregate("default", "web")], 0, await journal.last_seq())
        ]
        created = [event for event in recorded if isinstance(event, EndpointCreated)]
        assert [event.name for event in created] == made
        assert len({event.addresses for event in created}) == len(made)
        last = await journal.last_seq()
        with anyio.fail_after(WITHIN_S):
            await first.projection.reached(last)
            await second.projection.reached(last)
        assert held(first) == held(second)


async def test_whichever_server_hangs_commands_go_on(three: RunningCluster) -> None:
    """A server that is stopped in its tracks answers nobody, and its connections stand."""
    async with (
        running_ipam(three.servers["n1"]) as first,
        running_ipam(three.servers["n2"]) as second,
        await connect(three.options(identity.OPERATOR, "n3")) as bus,
    ):
        client = Asker(bus)
        begun = await until_accepted(client, WEB, "web")
        with anyio.fail_after(WITHIN_S):
            for copy in (first, second):
                await copy.projection.reached(begun.seq)
        for number, victim in enumerate((await leader_of(three), "n3")):
            os.kill(three.servers[victim].pid, signal.SIGSTOP)
            try:
                name = f"e{number}"
                await until_accepted(client, CreateEndpoint(tenant="default", network="web", name=name), name)
            finally:
                os.kill(three.servers[victim].pid, signal.SIGCONT)
            await all_current(three)


async def until_accepted(client: Asker, command: object, command_id: str) -> Accepted:
    with anyio.fail_after(WITHIN_S):
        while True:
            reply = await client.until_answered(command, command_id)  # type: ignore[arg-type]
            if isinstance(reply, Accepted):
                return reply


async def all_current(running: RunningCluster) -> None:
    """Returns when all three servers keep the journal, none behind."""
    with anyio.fail_after(WITHIN_S):
        async with await connect(running.options(identity.IPAM)) as bus:
            while True:
                try:
                    found = (await jetstream_api.ask(bus, f"STREAM.INFO.{subjects.JOURNAL_STREAM}"))["cluster"]
                except Unavailable:
                    await bus.connected()
                    await checkpoint()
                    continue
                if found.get("leader") and all(each["current"] for each in found["replicas"]):
                    return
                await checkpoint()
