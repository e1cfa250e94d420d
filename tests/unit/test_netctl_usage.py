"""What is typed wrong ends with status 2 and one line that says what was expected; nothing is sent."""

from __future__ import annotations

import argparse
import importlib
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from services.cli import completion, netctl
from services.cli.exits import DONE, UNREACHABLE, USAGE
from services.cli.options import duration_s, several

WRONG = {
    "fly": "noun 'fly' is not known: expected one of tenant, network, endpoint",
    "network": "verb is missing: expected one of create, delete, list",
    "network paint web": "verb 'paint' is not known: expected one of create, delete, list",
    "net create": "the following arguments are required: name",
    "net create web --colour red": "unrecognized arguments: --colour red",
    "net create web extra": "unrecognized arguments: extra",
    "net list -o xml": "invalid choice: 'xml' (choose from",
    "-o xml net list": "invalid choice: 'xml'",
    "net list --timeout soon": "'soon' is no time: expected one such as 500ms, 30s, 2m",
    "net list --timeout 0": "'0' is no time",
    "net create a.b": "network name 'a.b' is not valid",
    "net create 'a*'": "network name 'a*' is not valid",
    "net create 'a>'": "network name 'a>' is not valid",
    "net create 'a b'": "network name 'a b' is not valid",
    "net create ''": "network name is empty",
    f"net create {'a' * 64}": "has 64 characters: expected at most 63",
    "-t fabric net create web": "tenant name 'fabric' is reserved",
    "net create web -t a.b": "tenant name 'a.b' is not valid",
    "net create web --tag 0": "VLAN tag 0 is out of range: expected 1 to 4094",
    "net create web --tag 4095": "VLAN tag 4095 is out of range",
    "net create web --tag twelve": "'twelve' is no number",
    "net create web --encap vxlan --tag 16777216": "VNI 16777216 is out of range",
    "net create web --encap gre": "invalid choice: 'gre'",
    "net create web --subnet 11.1.1.1/24": "'11.1.1.1/24' is not a network without host bits",
    "net create web --subnet auto --subnet 11.1.1.0/24": "subnet auto stands alone",
    "net create web --subnet 11.1.0.0/16,11.1.1.0/24": "subnets 11.1.0.0/16 and 11.1.1.0/24 overlap",
    "net create web --subnet 11.1.1.0/24 --gateway 12.0.0.1": "gateway 12.0.0.1 is in none of the subnets",
    "net create web --gateway nonsense": "'nonsense' is not an IPv4 or IPv6 address",
    "net create web --subnet 11.1.1.9-11.1.1.5/24": "it is reversed: expected 11.1.1.5-11.1.1.9",
    "net create web --subnet 11.1.1.9-11.1.2.5/24": "ends outside 11.1.1.0/24, the subnet that it begins in",
    "net create web --subnet 11.1.1.9-11.1.1.12": "has no prefix length",
    "net create web --exclude 11.1.1.9": "range 11.1.1.9 is in none of the subnets: none are given (auto)",
    "net create web --subnet 11.1.1.0/24 --exclude 11.1.2.0/24": "is in none of the subnets: 11.1.1.0/24",
    "net create web --subnet 11.1.1.0/24 --exclude 11.1.1.1-11.1.1.5,11.1.1.5": "and 11.1.1.5 overlap",
    "net create web --subnet 11.1.1.0/24 --exclude 11.1.1.x": "'11.1.1.x' is not a range of addresses such as",
    "net set web": "nothing to change: give ranges or exclude",
    "net set web --exclude none,11.1.1.1": "none stands alone",
    "ipam pool create front": "pool create: the pool's name and --network are needed",
    "ipam pool create front --network web": "a pool needs addresses",
    "ipam pool create a.b --network web --range 11.1.1.1": "pool name 'a.b' is not valid",
    "ipam pool paint": "invalid choice: 'paint'",
    "ipam show a.b": "network name 'a.b' is not valid",
    "net show a.b": "network name 'a.b' is not valid",
    "net rm a.b": "network name 'a.b' is not valid",
    "tenant create fabric": "tenant name 'fabric' is reserved",
    "tenant create a.b": "tenant name 'a.b' is not valid",
    "tenant show fabric": "tenant name 'fabric' is reserved",
    "tenant rm ''": "tenant name is empty",
    "tenant set acme": "nothing to change: give subnet_pool, subnet_length, vlans or vnis",
    "tenant set acme --vlans 5-1": "'5-1' is reversed",
    "tenant set fabric --vlans all": "tenant name 'fabric' is reserved",
    "tenant create acme --vlans 5-1": "'5-1' is reversed",
    "tenant create acme --subnet-length 40": "subnet length 40 is out of range",
    "ep create web1": "the following arguments are required: --network",
    "ep create 'a b' --network web": "endpoint name 'a b' has white space",
    "ep create 'a>' --network web": "endpoint name 'a>' has a wildcard",
    "ep create '' --network web": "endpoint name is empty",
    "ep create web1 --network a.b": "network name 'a.b' is not valid",
    "ep create web1 --network web --address 11.1.1": "'11.1.1' is not an IPv4 or IPv6 address",
    "ep create web1 --network web --address 11.1.1.1,11.1.1.1": "an address is given twice",
    "ep create web1 --network web --mac 2:0:0:0:0:1": "MAC '2:0:0:0:0:1' is not valid",
    "ep create web1 --network web --container vm:7": "container 'vm:7' is of no known kind",
    "ep create web1 --network web --container c1 --host H.1": "host name 'H.1' is not valid",
    "ep attach web1": "name or container is missing: expected NAME --container",
    "ep attach web1 --container pid:0": "container 'pid:0' is not a process",
    "ep detach web1 --container netns:a/b": "is not the name of a namespace",
    "ep attach web1 --container c1 --wait forever": "invalid choice: 'forever'",
    "ep list --network a.b": "network name 'a.b' is not valid",
    "ep show 'a b'": "endpoint name 'a b' has white space",
    "host show a.b": "host name 'a.b' is not valid",
    "host remove ''": "host name is empty",
    "events watch --since yesterday": "since 'yesterday' is no point: expected a sequence, 10m",
    "events watch -t a.b": "tenant name 'a.b' is not valid",
    "log --since yesterday": "since 'yesterday' is no point",
    "log --last many": "'many' is no number",
    "completion tcsh": "invalid choice: 'tcsh'",
    "net list --context nowhere": "context 'nowhere' is not known",
    "context create ../x --server nats://h:1": "context name '../x' is not valid",
    "context create x": "the server's address is missing",
    "context create x --server nats://h:port": "is no address",
}


@pytest.fixture(autouse=True)
def _without_a_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("NETPLUGIN_RUN_DIR", str(tmp_path))
    for name in ("NETPLUGIN_NATS_URL", "NETPLUGIN_CREDS", "NETPLUGIN_CONTEXT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("line", WRONG)
def test_wrong_usage_has_its_own_message_and_status_2(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert netctl.run(shlex.split(line)) == USAGE
    captured = capsys.readouterr()
    assert WRONG[line] in captured.err
    assert captured.err.startswith("netctl: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_without_a_daemon_it_is_said_what_to_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert netctl.run(["network", "list"]) == UNREACHABLE
    said = capsys.readouterr().err
    assert f"{tmp_path}/client.json is not there" in said
    assert "start `netplugin`" in said


def test_a_server_that_is_away_is_said_with_its_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert netctl.run(["net", "ls", "--server", "nats://user:secret@127.0.0.1:1"]) == UNREACHABLE
    said = capsys.readouterr().err
    assert "cannot reach nats-server (nats://127.0.0.1:1: Connection refused)" in said
    assert "secret" not in said


@pytest.mark.parametrize(
    "line", ["", "--help", "-h", "network --help", "net create --help", "status --help", "ep attach -h", "--version"]
)
def test_help_is_no_fault(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = netctl.run(shlex.split(line))
    except SystemExit as end:  # argparse ends by itself after --help
        status = int(end.code or 0)
    assert status == DONE
    assert "netctl" in capsys.readouterr().out


def test_every_noun_is_a_file_of_its_name_with_verbs() -> None:
    for noun in netctl.NOUNS:
        verbs = importlib.import_module(f"services.cli.{noun}").VERBS
        assert verbs, noun
        assert all(verb.summary for verb in verbs.values()), noun


def test_the_issue_s_nouns_and_verbs_are_there() -> None:
    nouns = ["tenant", "network", "endpoint", "host", "events", "log", "status", "context", "completion", "decode"]
    assert set(nouns) <= set(netctl.NOUNS)
    for noun in ("tenant", "network", "endpoint"):
        assert {"create", "delete", "list", "show"} <= set(importlib.import_module(f"services.cli.{noun}").VERBS)


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completion_names_every_noun(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert netctl.run(["completion", shell]) == DONE
    script = capsys.readouterr().out
    assert all(noun in script for noun in netctl.NOUNS)
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_completion_in_bash_completes(capsys: pytest.CaptureFixture[str]) -> None:
    netctl.run(["completion", "bash"])
    typed = 'COMP_WORDS=(netctl network cr) COMP_CWORD=2; _netctl; echo "${COMPREPLY[@]}"'
    script = capsys.readouterr().out + typed
    assert subprocess.run(["bash"], input=script, text=True, check=True, capture_output=True).stdout == "create\n"


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("30", 30), ("2m", 120), ("1.5s", 1.5), ("1h", 3600)])
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1", "1d", "0ms", "1 s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        duration_s(text)


def test_an_option_may_be_repeated_or_listed() -> None:
    assert several(["a,b", "c", " d , "]) == ["a", "b", "c", "d"]
    assert several(None) == []


def test_a_verb_imports_neither_asyncio_nor_a_framework() -> None:
    """The budget of a verb is 80 ms; asyncio and nats-py alone would take 75 of them."""
    program = (
        "import sys; from services.cli import netctl;"
        "netctl.run(['net', 'ls', '--server', 'nats://127.0.0.1:1']);"
        "print(*{'asyncio', 'nats', 'typer', 'rich', 'click', 'yaml', 'ssl', 'anyio', 'structlog'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
