"""What cannot be done, typed at the real command lines: its own message, its exit status, and nothing has changed."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from services.daemon import KERNEL_DATAPATH
from services.open_vswitch import SWITCH
from services.runtime import identity
from tests.harness import daemon
from tests.harness.daemon import Host
from tests.harness.netns import network_namespace
from tests.harness.typed import Shell
from tests.requires import needs_ovs

pytestmark = needs_ovs

REFUSED, USAGE, UNREACHABLE = 1, 2, 3
LONG = "a" * 64
NAMING = "is not valid: expected a-z 0-9 _ -"

# The line, what it says, its status. In tenant acme: web (tag 17, 12.0.0.0/24, gateway 12.0.0.254) with web1 (12.0.0.5)
# in c1, and db (tag 18) with another web1.
LINES: list[tuple[str, str, int]] = [
    ("netdcli -oper create -construct router r1", "construct 'router' is not known", USAGE),
    ("netdcli -oper rename -construct network n1", "operation 'rename' is not known", USAGE),
    ("netdcli -oper create -construct network -colour red n1", "flag provided but not defined: -colour", USAGE),
    ("netdcli -construct network n1", "operation is missing", USAGE),
    ("netdcli -oper create n1", "construct is missing", USAGE),
    ("netdcli -oper create -construct network", "id is missing: name the network after the flags", USAGE),
    ("netdcli -oper attach -construct endpoint", "id is missing: name the endpoint after the flags", USAGE),
    ("netdcli -oper create -construct network n1 n2", "more than one id: n1 n2", USAGE),
    ("netdcli -oper attach -construct network n1", "operation 'attach' is for endpoints", USAGE),
    ("netdcli -oper create -construct endpoint e1", "network is missing: give -net-id", USAGE),
    ("netdcli -oper attach -construct endpoint e1", "container is missing: give -container-id", USAGE),
    ("netdcli -oper create -construct network -tag", "flag needs an argument: -tag", USAGE),
    ("netdcli -oper create -construct network -tag abc n1", "-tag is 'abc': expected a number", USAGE),
    ("netdcli -oper create -construct network -tag 5 -tag-type gre n1", "-tag-type is 'gre'", USAGE),
    ("netdcli -oper create -construct network a.b", f"network name 'a.b' {NAMING}", USAGE),
    ("netdcli -oper create -construct network -tenant fabric n1", "tenant name 'fabric' is reserved", USAGE),
    ("netctl router create r1", "noun 'router' is not known", USAGE),
    ("netctl network rename n1", "verb 'rename' is not known", USAGE),
    ("netctl network create n1 --colour red", "unrecognized arguments: --colour red", USAGE),
    ("netctl network create", "the following arguments are required: name", USAGE),
    ("netctl endpoint create e1", "the following arguments are required: --network", USAGE),
    ("netctl network create a.b", f"network name 'a.b' {NAMING}", USAGE),
    ("netctl network create 'a*'", f"network name 'a*' {NAMING}", USAGE),
    ("netctl network create 'a>'", f"network name 'a>' {NAMING}", USAGE),
    ("netctl network create 'a b'", f"network name 'a b' {NAMING}", USAGE),
    (f"netctl network create {LONG}", "has 64 characters: expected at most 63", USAGE),
    ("netctl network create ''", "network name is empty", USAGE),
    ("netctl tenant create fabric", "tenant name 'fabric' is reserved", USAGE),
    ("netctl tenant create 'a.b'", f"tenant name 'a.b' {NAMING}", USAGE),
    (f"netctl tenant create {LONG}", "has 64 characters: expected at most 63", USAGE),
    ("netctl -t acme endpoint create 'a b' --network web", "endpoint name 'a b' has white space", USAGE),
    ("netctl -t acme endpoint create 'a*' --network web", "endpoint name 'a*' has a wildcard", USAGE),
    ("netctl -t acme endpoint create '' --network web", "endpoint name is empty", USAGE),
    ("netctl -t acme endpoint create w2 --network web --address 12.0.1.1", "address-outside-subnet: ", REFUSED),
    ("netctl -t acme endpoint create w2 --network web --address 12.0.0.5", "address-in-use: ", REFUSED),
    ("netctl -t acme endpoint create w2 --network web --address 12.0.0.256", "is not an IPv4 or IPv6 address", USAGE),
    ("netctl -t acme endpoint create w2 --network web --address 12.0.0.0", "12.0.0.0 is the network address", REFUSED),
    ("netctl -t acme endpoint create w2 --network web --address 12.0.0.255", "is the broadcast address", REFUSED),
    ("netctl -t acme endpoint create w2 --network web --address 12.0.0.254", "12.0.0.254 is the gateway", REFUSED),
    ("netctl -t acme endpoint create w2 --network web --mac 01:00:5e:00:00:01", "is a group address", USAGE),
    ("netctl -t acme endpoint create w2 --network web --tag 99", "tag-mismatch: ", REFUSED),
    ("netdcli -oper create -construct endpoint -tenant acme -net-id web -tag 12 w2", "asks for tag 12", REFUSED),
    ("netctl -t acme network create n2 --subnet 12.0.0.128/25", "subnet-overlaps: ", REFUSED),
    ("netctl -t acme network create n2 --subnet 10.0.0.1/24", "has host bits set", USAGE),
    ("netctl -t acme network create n2 --subnet 10.0.0.0/24 --gateway 10.0.1.1", "is in none of the subnets", USAGE),
    ("netctl -t acme network create n2 --tag 17", "tag-in-use: vlan tag 17", REFUSED),
    ("netctl -t acme network create n2 --tag 99", "tag-out-of-range: vlan tag 99", REFUSED),
    ("netctl network create n1 --tag 0", "VLAN tag 0 is out of range: expected 1 to 4094", USAGE),
    ("netctl network create n1 --tag 4095", "VLAN tag 4095 is out of range", USAGE),
    ("netctl network create n1 --encap vxlan --tag 16777216", "VNI 16777216 is out of range", USAGE),
    ("netctl tenant create t2 --vlans 10-5", "'10-5' is reversed: expected 5-10", USAGE),
    ("netctl tenant create t2 --vlans 0-4095", "'0-4095' is out of range", USAGE),
    ("netctl -t nobody network create n2", "unknown-tenant: tenant nobody does not exist", REFUSED),
    ("netctl -t acme endpoint create e1 --network no", "unknown-network: network no of tenant acme", REFUSED),
    ("netctl -t acme network create web --tag 19", "network-exists: ", REFUSED),
    ("netctl tenant create acme --vlans 10-21", "tenant-exists: ", REFUSED),
    ("netctl -t acme network delete web", "network-in-use: network web still has 1 endpoint (web1)", REFUSED),
    ("netctl -t acme network delete no", "unknown-network: ", REFUSED),
    ("netctl tenant delete acme", "tenant-in-use: tenant acme still has networks (db, web)", REFUSED),
    ("netctl tenant delete nobody", "unknown-tenant: ", REFUSED),
    ("netctl -t acme endpoint attach web1 --network web --container netns:c2", "endpoint-bound: ", REFUSED),
    ("netctl -t acme endpoint attach web1 --container netns:c2", "ambiguous-endpoint: ", REFUSED),
    ("netctl -t acme endpoint detach web1 --network web --container netns:c2", "endpoint-bound-elsewhere: ", REFUSED),
    ("netctl -t acme endpoint delete w9", "unknown-endpoint: ", REFUSED),
    ("netctl -t acme endpoint attach web1 --network db --container netns:no", "container-not-found: ", REFUSED),
    ("netctl -t acme endpoint attach web1 --network db --container pid:99999999", "no such process", REFUSED),
    ("netctl -t acme endpoint attach web1 --network db --container pid:abc", "'pid:abc' is not a process", USAGE),
    ("netctl -t acme endpoint attach web1 --network db --container netns:../x", "is not the name of a", USAGE),
    ("netctl -t acme endpoint attach web1 --network db --container ''", "container is empty", USAGE),
    (
        "netctl -t acme endpoint attach web1 --network db --container c1 --host h9",
        "host 'h9' does not answer",
        UNREACHABLE,
    ),
    ("netctl --server nats://127.0.0.1:1 network list", "Connection refused", UNREACHABLE),
    ("netdcli -server nats://127.0.0.1:1 -oper get -construct network web", "Connection refused", UNREACHABLE),
    ("netctl --creds /nonexistent network list", "/nonexistent cannot be read", UNREACHABLE),
    ("netctl --context nope network list", "context 'nope' is not known", USAGE),
    ("netctl network list -o xml", "invalid choice: 'xml'", USAGE),
    ("netctl network list --timeout soon", "'soon' is no time", USAGE),
    ("netctl events watch --since tomorrow", "'tomorrow' is no point", USAGE),
    ("netplugin --frobnicate", "unrecognized arguments: --frobnicate", USAGE),
    ("netplugin --actors ipam,chef", "--actors is 'chef'", USAGE),
    ("netplugin --datapath turbo", "--datapath is 'turbo'", USAGE),
    ("netplugin --host a.b", f"host name 'a.b' {NAMING}", USAGE),
    ("netplugin --bridge a-name-of-seventeen", "expected an interface name of at most 15", USAGE),
    ("netplugin --purge", "--purge goes with --clean", USAGE),
    (
        "netplugin --nats nats://127.0.0.1:9 --state-dir /run/none",
        "needs --creds FILE, an nkey seed or .creds file",
        USAGE,
    ),
    ("netplugin --nats nats://127.0.0.1:9 --creds /dev/null", "/dev/null: ", USAGE),
    ("netplugin --config /nonexistent.toml", "/nonexistent.toml: no such file", USAGE),
]
if not KERNEL_DATAPATH.exists():
    LINES.append(("netplugin --datapath system", "modprobe openvswitch", USAGE))
THE_SAME_AGAIN = [
    "netctl tenant create acme --vlans 10-20",
    "netctl -t acme network create web --subnet 12.0.0.0/24 --gateway 12.0.0.254 --tag 17",
    "netctl -t acme endpoint create web1 --network web --address 12.0.0.5 --container netns:c1",
    "netctl -t acme endpoint attach web1 --network web --container netns:c1",
]


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="np") as folder, daemon.host(Path(folder)) as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def shell(host: Host) -> Iterator[Shell]:
    shell = Shell(host)
    with network_namespace("c1"), network_namespace("c2"):
        for line in THE_SAME_AGAIN[:-1]:
            shell.type(line)
        shell.type("netctl -t acme network create db --tag 18")
        shell.type("netctl -t acme endpoint create web1 --network db")
        yield shell


async def connected(host: Host) -> Client:
    """A client with the operator's key, as `client.json` says."""
    client = json.loads((host.run_dir / "client.json").read_text())
    return await nats.connect(
        client["url"], nkeys_seed=client["nkey_seed_file"], inbox_prefix=identity.inbox_prefix(identity.OPERATOR)
    )


def last_seq(host: Host) -> int:
    """The journal's last sequence: all state is in the journal, so nothing else can have changed if this has not."""

    async def ask() -> int:
        client = await connected(host)
        info = await client.jetstream().stream_info("NP_JOURNAL")
        await client.close()
        return int(info.state.last_seq)

    return host.namespace.call(lambda: asyncio.run(ask()))


@pytest.mark.parametrize("line", range(len(LINES)), ids=[line for line, _, _ in LINES])
def test_each_has_its_message_and_its_status_and_changes_nothing(host: Host, shell: Shell, line: int) -> None:
    typed, said, status = LINES[line]
    before = last_seq(host)
    result = shell.ended(typed)
    assert (result.returncode, result.stdout) == (status, ""), result.stdout + result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert last_seq(host) == before


@pytest.mark.parametrize("line", THE_SAME_AGAIN)
def test_the_same_again_is_no_fault_and_no_event(host: Host, shell: Shell, line: str) -> None:
    before = last_seq(host)
    assert "(it was so already)" in shell.type(line)
    assert last_seq(host) == before


def test_the_host_itself_is_no_container(host: Host, shell: Shell) -> None:
    before = last_seq(host)
    said = shell.type(
        f"netctl -t acme endpoint attach web1 --network db --container pid:{host.pid_of_daemon}", status=REFUSED
    )
    assert "container-uses-host-network" in said
    assert last_seq(host) == before


JSON = {"Content-Type": "application/json"}
CREATE = "np.v1.cmd.default.network.create"
NESTED = b'{"type":"create-network","x":' + b"[" * 500 + b"]" * 500 + b"}"
MESSAGES: dict[str, tuple[bytes, dict[str, str], str]] = {
    "no msgpack": (b"\xc1", {}, "undecodable"),
    "no JSON": (b"{", JSON, "undecodable"),
    "another content type": (b"{}", {"Content-Type": "text/plain"}, "unsupported-content-type"),
    "unknown": (b'{"type":"make-coffee"}', JSON, "invalid-message"),
    "of another subject": (b'{"type":"delete-network","tenant":"default","network":"w"}', JSON, "invalid-message"),
    "of another tenant": (b'{"type":"create-network","tenant":"acme","network":"w"}', JSON, "invalid-message"),
    "a field too many": (b'{"tenant":"default","network":"w","x":1}', JSON, "invalid-message"),
    "a field too few": (b'{"tenant":"default"}', JSON, "invalid-message"),
    "deeply nested": (NESTED, JSON, "too-deep"),
    "oversized": (b'{"network":"' + b"a" * 300_000 + b'"}', JSON, "too-large"),
}


@pytest.mark.parametrize("what", MESSAGES)
def test_a_message_that_is_none_is_refused_and_in_the_log(host: Host, shell: Shell, what: str) -> None:
    payload, headers, code = MESSAGES[what]

    async def ask() -> bytes:
        client = await connected(host)
        answer = await client.request(CREATE, payload, headers=headers, timeout=30.0)
        await client.close()
        return answer.data

    before = last_seq(host)
    answer = host.namespace.call(lambda: asyncio.run(ask()))
    assert code.encode() in answer
    assert last_seq(host) == before
    entry = shell.show("log --last 1")[-1]
    assert (entry["outcome"], entry["code"]) == ("refused", code)
    assert entry["by"].startswith("operator")


def test_who_did_it_cannot_be_forged(host: Host, shell: Shell) -> None:
    forged = json.dumps({"user": "root", "acc": "NP", "name": "root"})

    async def ask() -> None:
        client = await connected(host)
        for number, name in enumerate(("Nats-Request-Info", "nats-request-info")):
            payload = json.dumps({"type": "create-tenant", "tenant": f"forged{number}"}).encode()
            subject = f"np.v1.cmd.forged{number}.tenant.create"
            answer = await client.request(subject, payload, headers={**JSON, name: forged}, timeout=30.0)
            assert json.loads(answer.data)["type"] == "accepted", answer.data
        await client.close()

    since = last_seq(host)
    host.namespace.call(lambda: asyncio.run(ask()))
    authors = {event["by"] for event in shell.events(since + 1)}
    assert len(authors) == 1
    assert authors.pop().startswith("operator@")
    for number in (0, 1):
        shell.type(f"netctl tenant delete forged{number}")


REFLECTORS = (
    "np.v1.evt.acme.net.web.network-created._",
    "np.v1.svc.acme.network.delete",
    "np.v1.cmd.acme.network.delete",
    "$JS.API.STREAM.DELETE.NP_JOURNAL",
    "_INBOX.host-h1.stolen",
)


def test_a_reply_subject_that_is_not_the_sender_s_makes_nobody_a_reflector(host: Host, shell: Shell) -> None:
    async def ask() -> None:
        client = await connected(host)
        for reply in REFLECTORS:
            await client.publish("np.v1.cmd.acme.network.list", b'{"tenant":"acme"}', reply=reply, headers=JSON)
            await client.publish("np.v1.cmd.acme.network.delete", b'{"network":"none"}', reply=reply, headers=JSON)
        # What comes after them is answered after them.
        await client.request("np.v1.cmd.acme.network.list", b'{"tenant":"acme"}', headers=JSON, timeout=30.0)
        await client.close()

    before, networks = last_seq(host), shell.show("network list -A")
    host.namespace.call(lambda: asyncio.run(ask()))
    assert last_seq(host) == before
    assert shell.show("network list -A") == networks


def test_a_server_that_dies_in_the_middle_loses_no_command_and_does_none_twice(host: Host, shell: Shell) -> None:
    since = last_seq(host)
    for number in range(3):
        typed = shell.start(f"netctl -t acme network create dying{number}")
        with typed:
            host.kill("nats-server")
            said, _ = typed.communicate(timeout=60)
        assert typed.returncode in (0, UNREACHABLE), said
        host.until_back("nats-server")
        host.until_answering()
        shell.type(f"netctl -t acme network create dying{number}")
    created = [event["network"] for event in shell.events(since + 1) if event["type"] == "network-created"]
    assert created == ["dying0", "dying1", "dying2"]
    for network in created:
        shell.type(f"netctl -t acme network delete {network}")


def test_a_server_that_is_away_is_said_with_what_to_do(host: Host, shell: Shell) -> None:
    host.stop()
    said = shell.type("netctl network list", status=UNREACHABLE)
    assert "start `netplugin`" in said
    assert "Traceback" not in said
    host.start()
    shell.type("netctl network list")


def test_a_switch_that_dies_in_the_middle_is_waited_for(host: Host, shell: Shell) -> None:
    with ExitStack() as stack:
        stack.enter_context(network_namespace("c5"))
        shell.type("netctl -t acme network create dying")
        typed = stack.enter_context(
            shell.start("netctl -t acme endpoint create d1 --network dying --container netns:c5")
        )
        host.kill(SWITCH)
        said, _ = typed.communicate(timeout=60)
        assert (typed.returncode, "bound to netns:c5 (eth0)" in said) == (0, True), said
        host.until_back(SWITCH)
        shell.type("netctl -t acme endpoint delete d1")
        shell.type("netctl -t acme network delete dying")


def test_somebody_who_may_not_read_the_key_is_told_so(host: Host, shell: Shell) -> None:
    folder = host.run_dir.parent.parent
    os.chmod(folder, 0o755)  # noqa: PTH101
    said = shell.type("setpriv --reuid=65534 --regid=65534 --clear-groups netctl network list", status=UNREACHABLE)
    assert "operator.nk" in said
    assert "run as root (sudo)" in said
