"""The ipam actor on nats-servers that are not ours: who sends a command can be said, or it does not run."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from messages.codec import decode_reply
from messages.network import CreateNetwork
from messages.replies import Accepted, Refused
from services.nats_keys import make_keys
from services.nats_server import LOOPBACK, choose_ports, find_binary
from services.runtime.bus import Options, connect
from services.runtime.identity import IPAM as IPAM_USER
from services.runtime.identity import OPERATOR
from services.runtime.identity_check import check_identity
from services.runtime.journal import BY_HEADER
from services.runtime.journal_jetstream import JetStreamJournal
from tests.harness.ipam import Asker, ipam_process_at
from tests.harness.nats import RunningNats

pytestmark = pytest.mark.anyio

FORGED = json.dumps({"user": "mallory", "host": "6.6.6.6"})
WEB = CreateNetwork(tenant="default", network="web")


def account(share: str) -> str:
    """One account without passwords that imports its own commands."""
    return f"""
no_auth_user: anybody
accounts {{ A {{
  jetstream: enabled
  users: [{{ user: anybody, password: x }}]
  exports: [{{ service: "np.v1.svc.>" }}]
  imports: [{{ service: {{ account: A, subject: "np.v1.svc.>" }}, to: "np.v1.cmd.>", share: {share} }}]
}} }}
"""


class Foreign:
    """A nats-server that somebody else has configured."""

    def __init__(self, folder: Path, configuration: str) -> None:
        folder.mkdir()
        self.keys_dir = folder / "keys"
        make_keys(self.keys_dir, [IPAM_USER, OPERATOR])
        port = choose_ports().client
        self.url = f"nats://{LOOPBACK}:{port}"
        file = folder / "nats.conf"
        file.write_text(f'listen: "{LOOPBACK}:{port}"\njetstream {{ store_dir: "{folder}/js" }}\n{configuration}')
        self.process = subprocess.Popen([find_binary(), "--config", str(file)], stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        lines = []
        for line in self.process.stderr:
            lines.append(line)
            if line.rstrip().endswith("Server is ready"):
                return
        raise AssertionError("".join(lines))

    def stop(self) -> None:
        assert self.process.stderr is not None
        self.process.terminate()
        self.process.wait()
        self.process.stderr.close()


@contextmanager
def foreign_server(folder: Path, configuration: str) -> Iterator[Foreign]:
    server = Foreign(folder / "foreign", configuration)
    try:
        yield server
    finally:
        server.stop()


CONFIGURATIONS = {
    "plain": ("", "does not hand np.v1.cmd.> to np.v1.svc.>"),
    "not shared": (account("false"), "names only the account of who sends a command ('A')"),
}


@pytest.mark.parametrize("what", CONFIGURATIONS)
async def test_where_nobody_can_say_who_sends_a_command_it_does_not_run(tmp_path: Path, what: str) -> None:
    configuration, reason = CONFIGURATIONS[what]
    with foreign_server(tmp_path, configuration) as server:
        with ipam_process_at(server.url, server.keys_dir) as process:
            assert await anyio.to_thread.run_sync(process.wait) == 2
        (ended,) = process.said("actor-ended")
        assert reason in ended["reasons"][0]
        assert "--unverified-identity" in ended["reasons"][0]
        assert not process.said("actor-ready")


@pytest.mark.parametrize("what", CONFIGURATIONS)
async def test_told_so_it_runs_and_all_is_by_unverified(tmp_path: Path, what: str) -> None:
    configuration, _ = CONFIGURATIONS[what]
    with (
        foreign_server(tmp_path, configuration) as server,
        ipam_process_at(server.url, server.keys_dir, unverified_identity="true") as process,
    ):
        process.wait_for("actor-ready")
        assert process.said("identity-unverified")[0]["level"] == "warning"
        async with await connect(Options(urls=(server.url,), user=OPERATOR)) as bus:
            reply = await Asker(bus).ask(WEB, "w", {"Nats-Request-Info": FORGED})
            assert isinstance(reply, Accepted)
            journal = JetStreamJournal(bus)
            events = await journal.read(["np.v1.evt.>"], 0, await journal.last_seq())
        assert {each.headers[BY_HEADER] for each in events} == {"unverified"}


async def test_where_the_server_says_it_the_sender_is_the_servers_user(tmp_path: Path) -> None:
    with (
        foreign_server(tmp_path, account("true")) as server,
        ipam_process_at(server.url, server.keys_dir) as process,
    ):
        process.wait_for("actor-ready")
        async with await connect(Options(urls=(server.url,), user=OPERATOR)) as bus:
            assert isinstance(await Asker(bus).ask(WEB, "w", {"Nats-Request-Info": FORGED}), Accepted)
            journal = JetStreamJournal(bus)
            events = await journal.read(["np.v1.evt.>"], 0, await journal.last_seq())
            assert {each.headers[BY_HEADER] for each in events} == {"anybody@127.0.0.1"}
            answer = await bus.request("np.v1.svc.default.network.create", b"\x81\xa7network\xa5other")
            reply = decode_reply(answer.payload)
            assert isinstance(reply, Refused), "what came by no import has no sender"
            assert reply.code == "unidentified"


async def test_our_own_server_proves_it(nats_server: RunningNats) -> None:
    options = Options(urls=(nats_server.url,), user=IPAM_USER, credentials=nats_server.seed_file(IPAM_USER))
    async with await connect(options) as bus:
        await check_identity(bus, "abc")
