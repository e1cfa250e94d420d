"""The command line's own connection, held to a real nats-server: its logins, permissions, big messages and endings."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from messages import subjects
from messages.network import ListNetworks
from services.cli.client import Client
from services.cli.exits import UNREACHABLE, Ended
from services.cli.server import Server
from services.cli.wire import Message, NoResponders, Rejected, Unreachable, Wire
from services.runtime import identity
from tests.harness.nats import RunningNats


def server_of(nats_server: RunningNats, user: str = identity.OPERATOR) -> Server:
    return Server(
        urls=(nats_server.url,),
        source="the test",
        seed_file=str(nats_server.seed_file(user)),
        inbox_prefix=identity.inbox_prefix(user),
    )


def soon() -> float:
    return time.monotonic() + 30.0


@contextmanager
def connected(nats_server: RunningNats, user: str = identity.OPERATOR) -> Iterator[Wire]:
    wire = Wire(server_of(nats_server, user), f"test-{user}")
    wire.connect(soon())
    try:
        yield wire
    finally:
        wire.close()


def next_of(wire: Wire) -> Message:
    message = wire.next_message(soon())
    assert message is not None
    return message


def test_a_host_s_report_is_heard_by_the_operator(nats_server: RunningNats) -> None:
    subject = subjects.port_event("acme", "h1", "port-bound")
    with connected(nats_server) as operator, connected(nats_server, "host-h1") as host:
        operator.subscribe(subjects.port_event("acme", "h1", "*"))
        for size in (0, 1, 70_000, 900_000):
            host.publish(subject, b"x" * size, {"Np-Test": "a: b"} if size else None)
            message = next_of(operator)
            assert (message.subject, len(message.payload)) == (subject, size)
            assert message.headers == ({"Np-Test": "a: b"} if size else {})


def test_a_question_is_answered_and_what_comes_meanwhile_is_kept(nats_server: RunningNats) -> None:
    asked = subjects.host_question("h1", "inspect")
    with connected(nats_server) as operator, connected(nats_server, "host-h1") as host:
        operator.subscribe(subjects.port_event("acme", "h1", "*"))
        host.subscribe(asked)
        heard: list[Message] = []

        def answer() -> None:
            question = next_of(host)
            heard.append(question)
            host.publish(subjects.port_event("acme", "h1", "port-bound"), b"report")
            host.publish(question.reply, b"answer", {"Content-Type": "text/plain"})

        answering = threading.Thread(target=answer)
        answering.start()
        reply = operator.request(asked, b"question", {"Np-Command-Id": "1"}, soon())
        answering.join()
        assert (reply.payload, reply.headers) == (b"answer", {"Content-Type": "text/plain"})
        assert heard[0].reply.startswith("_INBOX.operator.")
        assert next_of(operator).payload == b"report"


def test_nobody_there_is_known_at_once(nats_server: RunningNats) -> None:
    with connected(nats_server) as operator:
        for subject in (subjects.command("acme", "network", "list"), subjects.host_question("h9", "inspect")):
            with pytest.raises(NoResponders):
                operator.request(subject, b"", {"Np-Command-Id": "1"}, soon())


def test_silence_runs_into_the_deadline(nats_server: RunningNats) -> None:
    asked = subjects.host_question("h1", "inspect")
    with connected(nats_server) as operator, connected(nats_server, "host-h1") as host:
        host.subscribe(asked)
        with pytest.raises(TimeoutError):
            operator.request(asked, b"", None, time.monotonic() + 0.1)
        assert operator.next_message(time.monotonic()) is None


def test_what_is_forbidden_is_said_and_not_waited_for(nats_server: RunningNats) -> None:
    with connected(nats_server, identity.VIEWER) as viewer, pytest.raises(Rejected, match="Permissions Violation"):
        viewer.request(subjects.command("acme", "network", "create"), b"", None, soon())
    with connected(nats_server, identity.VIEWER) as viewer, pytest.raises(Rejected, match="Permissions Violation"):
        viewer.subscribe(subjects.command("acme", "network", "create"))


def test_nobody_gets_in_without_a_key(nats_server: RunningNats) -> None:
    for stranger in (
        Server(urls=(nats_server.url,), source="the test"),
        Server(urls=(nats_server.url,), source="the test", user="operator", password="guess"),
        Server(urls=(nats_server.url,), source="the test", token="guess"),
    ):
        with pytest.raises(Rejected, match="Authorization"):
            Wire(stranger, "stranger").connect(soon())


def test_the_second_address_is_tried_when_the_first_is_away(nats_server: RunningNats) -> None:
    server = msgspec.structs.replace(server_of(nats_server), urls=("nats://127.0.0.1:1", nats_server.url))
    wire = Wire(server, "test")
    wire.connect(soon())
    assert wire.server_facts["version"].startswith("2.")
    wire.close()


def test_a_server_that_is_killed_is_noticed_at_once(nats_server: RunningNats) -> None:
    with connected(nats_server) as operator:
        nats_server.kill()
        with pytest.raises(Unreachable):
            operator.next_message(soon())
        with pytest.raises(Unreachable):
            operator.request(subjects.command("acme", "network", "list"), b"", None, soon())


def test_a_client_finds_a_server_that_comes_back(nats_server: RunningNats) -> None:
    client = Client(server_of(nats_server), timeout_s=60.0)
    client.follow(subjects.port_event("acme", "h1", "*"))
    nats_server.kill()
    nats_server.start()
    assert client.next_message(time.monotonic() + 0.2) is None
    with connected(nats_server, "host-h1") as host:
        host.publish(subjects.port_event("acme", "h1", "port-bound"), b"after")
        message = client.next_message(soon())
    assert message is not None
    assert message.payload == b"after"
    client.close()


def test_without_an_actor_a_command_ends_at_once_with_what_to_do(nats_server: RunningNats) -> None:
    client = Client(server_of(nats_server), timeout_s=60.0)
    started = time.monotonic()
    with pytest.raises(Ended, match="no ipam actor is running") as end:
        client.items(ListNetworks(tenant="acme"))
    assert end.value.status == UNREACHABLE
    assert time.monotonic() - started < 30.0
    client.close()


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.2\r\n", b"INFO nonsense\r\nFOO\r\n", b"x" * 70_000, b""])
def test_what_is_no_nats_server_is_said_so(greeting: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(greeting)

        greeting_thread = threading.Thread(target=greet)
        greeting_thread.start()
        url = f"nats://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(Unreachable, match=r"no nats-server|closed the connection|connection broke"):
            Wire(Server(urls=(url,), source="the test"), "test").connect(soon())
        greeting_thread.join()
