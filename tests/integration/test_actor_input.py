"""What is sent to the ipam actor that is no command, or that nobody may send: its answer, and an unchanged journal."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import anyio
import msgpack
import nats.errors
import pytest

from messages.codec import JSON, MSGPACK, SIZE_MAX_BYTES, decode_reply
from messages.endpoint import CreateEndpoint, ListEndpoints
from messages.network import CreateNetwork, GetNetwork
from messages.replies import Accepted, Items, Refused, Unavailable
from services.runtime import actor as shell
from services.runtime.errors import Unavailable as Away
from services.runtime.identity import OPERATOR
from tests.harness.ipam import Asker, asker, journal_of, running_ipam, settled
from tests.harness.nats import RunningNats

pytestmark = pytest.mark.anyio

CREATE = "np.v1.cmd.default.network.create"
SERVER_TAKES = 8 * 2**20


@pytest.fixture
async def client(nats_server: RunningNats) -> AsyncIterator[Asker]:
    async with running_ipam(nats_server), asker(nats_server) as asking:
        yield asking


async def refusal(client: Asker, subject: str, payload: bytes, **headers: str) -> Refused:
    stated = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await client.send(subject, payload, stated)
    reply = decode_reply(answer.payload, answer.headers["Content-Type"])
    assert isinstance(reply, Refused), reply
    return reply


def packed(fields: object) -> bytes:
    return bytes(msgpack.packb(fields))


BAD = {
    "no msgpack": (b"\xc1", "undecodable"),
    "cut short": (packed({"network": "web"})[:-1], "undecodable"),
    "more behind it": (packed({"network": "web"}) + b"\x00", "undecodable"),
    "no utf-8": (b"\x81\xa7network\xa1\xff", "undecodable"),
    "json without saying so": (b'{"network":"web"}', "undecodable"),
    "no map": (packed([1]), "invalid-message"),
    "another message": (packed({"type": "delete-network", "network": "web"}), "invalid-message"),
    "unknown field": (packed({"network": "web", "colour": "red"}), "invalid-message"),
    "wrong type": (packed({"network": 7}), "invalid-message"),
    "other tenant": (packed({"tenant": "acme", "network": "web"}), "invalid-message"),
    "bad name": (packed({"network": "a.b"}), "invalid-message"),
    "nothing": (b"", "invalid-message"),
    "deep": (b"\x91" * 100 + b"\xc0", "too-deep"),
    "very deep": (b"\x91" * 100_000 + b"\xc0", "too-deep"),
    "many items": (packed({"subnets": [1] * 30_000}), "too-many-items"),
    "a huge length": (b"\xdd\xff\xff\xff\xff", "undecodable"),
    "large": (packed({"network": "w" * SIZE_MAX_BYTES}), "too-large"),
    "nearly too large": (packed({"network": "w" * (SERVER_TAKES - 2048)}), "too-large"),
}


@pytest.mark.parametrize("what", BAD)
async def test_bad_payload_is_refused_with_its_reason(client: Asker, nats_server: RunningNats, what: str) -> None:
    payload, code = BAD[what]
    reply = await refusal(client, CREATE, payload)
    assert reply.code == code, reply
    assert len(reply.detail) < 1000
    assert await journal_of(nats_server) == []


@pytest.mark.parametrize(
    ("payload", "code"),
    [(b"{", "undecodable"), (b"[1]", "invalid-message"), (b"[" * 100_000, "too-deep"), (b'{"network":NaN}', "")],
)
async def test_bad_json_is_refused_in_json(client: Asker, payload: bytes, code: str) -> None:
    answer = await client.send(CREATE, payload, {"Content-Type": JSON})
    reply = json.loads(answer.payload)
    assert reply["type"] == "refused"
    assert not code or reply["code"] == code


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Content_Type": "text/yaml"}, "unsupported-content-type"),
        ({"Np_Command_Id": "x" * 65}, "invalid-command-id"),
        ({"Np_Command_Id": "a b"}, "invalid-command-id"),
        ({"Np_Min_Seq": "-1"}, "invalid-min-seq"),
        ({"Np_Min_Seq": "many"}, "invalid-min-seq"),
    ],
)
async def test_bad_header_is_refused(client: Asker, headers: dict[str, str], code: str) -> None:
    reply = await refusal(client, CREATE, packed({"network": "web"}), **headers)
    assert reply.code == code


async def test_larger_than_the_server_takes_never_leaves_the_client(client: Asker, nats_server: RunningNats) -> None:
    with pytest.raises(ValueError, match="the server takes 8388608 at most"):
        await client.send(CREATE, b"x" * (SERVER_TAKES + 1))
    stock = await nats_server.connect(OPERATOR)
    with pytest.raises(nats.errors.MaxPayloadError):
        await stock.request(CREATE, b"x" * (SERVER_TAKES + 1))
    await stock.close()
    assert isinstance(await client.ask(CreateNetwork(tenant="default", network="web")), Accepted)


@pytest.mark.parametrize("subject", ["np.v1.cmd.default.volume.create", "np.v1.cmd.default.network.paint"])
async def test_what_nobody_serves_fails_at_once(client: Asker, subject: str) -> None:
    with anyio.fail_after(10), pytest.raises(Away, match="nobody answers"):
        await client.send(subject, b"\x80")


async def test_a_reply_subject_that_is_not_the_senders_own_reaches_nobody(
    client: Asker, nats_server: RunningNats
) -> None:
    """Whoever answers publishes where the sender says: but only within the sender's account, never ours."""
    attacker = await nats_server.connect(OPERATOR)
    reflections = (
        "np.v1.evt.default.net.web.network-created._",
        "np.v1.evt.fabric.host.host-joined",
        "np.v1.svc.default.network.create",
        "np.v1.cmd.default.network.create",
        "np.v1.audit.default.x",
        "$JS.API.STREAM.DELETE.NP_JOURNAL",
        "$SRV.PING",
    )
    for reply in reflections:
        for subject in (CREATE, "np.v1.cmd.default.network.list"):
            headers = {"Content-Type": MSGPACK, "Np-Command-Id": f"reflected-{reply}"[:60]}
            await attacker.publish(subject, packed({"network": "bad.name"}), reply=reply, headers=headers)
    await settled(attacker)
    await attacker.close()
    real = await client.ask(CreateNetwork(tenant="default", network="real"), "real")
    assert isinstance(real, Accepted)
    assert {each.headers["Np-Command-Id"] for each in await journal_of(nats_server)} == {"real"}


async def test_too_many_in_flight_are_put_off(client: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "IN_FLIGHT_MAX", 4)
    await client.ask(CreateNetwork(tenant="default", network="web"))
    replies: list[object] = []

    async def send(number: int) -> None:
        replies.append(await client.ask(CreateEndpoint(tenant="default", network="web", name=f"e{number}")))

    async with anyio.create_task_group() as tasks:
        for number in range(64):
            tasks.start_soon(send, number)
    put_off = [each for each in replies if isinstance(each, Unavailable)]
    assert put_off
    assert {each.code for each in put_off} == {"overloaded"}
    assert len(put_off) + sum(isinstance(each, Accepted) for each in replies) == 64


async def test_an_answer_larger_than_the_server_takes_is_a_refusal(
    client: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.ask(CreateNetwork(tenant="default", network="web"))
    everything = ListEndpoints(tenant="default")
    assert isinstance(await client.ask(everything), Items)
    monkeypatch.setattr(shell, "HEADERS_BYTES_MAX", SERVER_TAKES - 10)
    reply = await client.ask(everything)
    assert isinstance(reply, Refused)
    assert reply.code == "answer-too-large"
    monkeypatch.undo()
    assert isinstance(await client.ask(GetNetwork(tenant="default", network="none")), Refused)


async def test_a_list_of_two_thousand_endpoints_is_read(client: Asker) -> None:
    subnet = {"network": "big", "subnets": ["10.9.0.0/16"]}
    assert isinstance(decode_reply((await client.send(CREATE, packed(subnet))).payload), Accepted)

    async def create(first: int) -> None:
        for number in range(first, 2000, 64):
            await client.ask(CreateEndpoint(tenant="default", network="big", name=f"endpoint-{number}"))

    async with anyio.create_task_group() as tasks:
        for first in range(64):
            tasks.start_soon(create, first)
    for form in (MSGPACK, JSON):
        reply = await client.ask(ListEndpoints(tenant="default", network="big"), form=form)
        assert isinstance(reply, Items), reply
        assert len(reply.objects) == 2000
