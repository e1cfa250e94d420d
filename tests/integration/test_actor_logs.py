"""What the ipam process writes on stderr: JSON, one fact a line, and on every line about a command its id."""

from __future__ import annotations

import anyio
import pytest

from messages.endpoint import CreateEndpoint
from messages.network import CreateNetwork, GetNetwork
from messages.replies import Accepted, Refused
from tests.harness.ipam import asker, ipam_process
from tests.harness.nats import RunningNats

pytestmark = pytest.mark.anyio

COMMAND_EVENTS = {"accepted", "answered", "refused", "put-off", "not-sent"}
WEB = CreateNetwork(tenant="default", network="web")


async def test_every_line_about_a_command_carries_its_id(nats_server: RunningNats) -> None:
    with ipam_process(nats_server, log_level="debug") as process, ipam_process(nats_server) as other:
        async with asker(nats_server) as client:
            assert isinstance(await client.ask(WEB, "made"), Accepted)
            assert isinstance(await client.ask(GetNetwork(tenant="acme", network="x"), "refused"), Refused)
            await client.send("np.v1.cmd.default.network.create", b"\xc1", {"Np-Command-Id": "garbled"})

            async def create(number: int) -> None:
                command = CreateEndpoint(tenant="default", network="web", name=f"e{number}")
                await client.ask(command, f"id-{number}")

            async with anyio.create_task_group() as tasks:
                for number in range(60):
                    tasks.start_soon(create, number)
        assert process.end() == other.end() == 0
    lines = [*process.lines, *other.lines]
    assert process.others == other.others == []
    for line in lines:
        assert line["actor"] == "ipam"
        assert {"event", "level", "timestamp"} <= line.keys()
        assert ("command_id" in line) == (line["event"] in COMMAND_EVENTS), line
    said = {line["command_id"]: line for line in lines if "command_id" in line}
    for command_id in ("refused", "garbled"):
        assert said[command_id]["event"] == "refused"
        assert said[command_id]["level"] == "info"
        assert said[command_id]["code"] in {"unknown-tenant", "undecodable"}
    at_debug = [line for line in process.lines if line["event"] == "accepted"]
    for line in at_debug:
        assert line["seq"] > 0
        assert line["ms"] > 0
        assert line["command"] in {"network.create", "endpoint.create"}
        assert line["tenant"] == "default"
    assert not [line for line in other.lines if line["event"] == "accepted"], "what was granted is in the journal"
    for line in lines:
        if line["event"] == "append-conflict":
            assert line["commands"]
