"""`netdcli`'s flags: Go's syntax to the letter, and what was typed wrong is said before anything is sent."""

from __future__ import annotations

import shlex

import pytest

from services.cli import goflags, netdcli
from services.cli.exits import USAGE, Ended
from services.cli.goflags import HelpWanted, WrongFlags
from services.cli.netdcli import Request

KNOWN = ("oper", "ip-address", "tag")


@pytest.fixture(autouse=True)
def _without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETPLUGIN_NATS_URL", "nats://127.0.0.1:1")  # whatever is sent, fails with status 3


@pytest.mark.parametrize(
    ("line", "values", "words"),
    [
        ("-oper create x", {"oper": "create"}, ["x"]),
        ("--oper create x", {"oper": "create"}, ["x"]),
        ("-oper=create x", {"oper": "create"}, ["x"]),
        ("--oper=create x", {"oper": "create"}, ["x"]),
        ('-ip-address="11.1.1.1" x', {"ip-address": "11.1.1.1"}, ["x"]),
        ("-ip-address '11.1.1.1' x", {"ip-address": "11.1.1.1"}, ["x"]),
        ("-oper= x", {"oper": ""}, ["x"]),
        ("-oper -tag x", {"oper": "-tag"}, ["x"]),
        ("-tag=a=b", {"tag": "a=b"}, []),
        ("x -oper create", {"oper": "create"}, ["x"]),
        ("-oper a -oper b", {"oper": "b"}, []),
        ("-oper create -- -tag", {"oper": "create"}, ["-tag"]),
        ("-", {}, ["-"]),
        ("", {}, []),
    ],
)
def test_go_s_syntax(line: str, values: dict[str, str], words: list[str]) -> None:
    assert goflags.parse(shlex.split(line), KNOWN) == (values, words)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-colour red", "flag provided but not defined: -colour"),
        ("-tag", "flag needs an argument: -tag"),
        ("---tag 1", "bad flag syntax: ---tag"),
        ("-=1", "bad flag syntax: -=1"),
    ],
)
def test_what_go_refuses(line: str, said: str) -> None:
    with pytest.raises(WrongFlags, match=said):
        goflags.parse(line.split(), KNOWN)


@pytest.mark.parametrize("flag", ["-h", "-help", "--help"])
def test_help(flag: str) -> None:
    with pytest.raises(HelpWanted):
        goflags.parse([flag], KNOWN)


SEED = {
    "-oper create -construct network tenant1-net1": Request("create", "network", {}, "tenant1-net1"),
    "-oper get -construct network tenant1-net1": Request("get", "network", {}, "tenant1-net1"),
    '-oper create -construct endpoint -net-id tenant1-net1 -tag 12 -ip-address="11.1.1.1" tenant1-net1-ep1': Request(
        "create", "endpoint", {"network": "tenant1-net1", "tag": "12", "address": "11.1.1.1"}, "tenant1-net1-ep1"
    ),
    "-oper get -construct endpoint tenant1-net1-ep1": Request("get", "endpoint", {}, "tenant1-net1-ep1"),
    "-oper attach -construct endpoint -container-id myContainer1 tenant1-net1-ep1": Request(
        "attach", "endpoint", {"container": "myContainer1"}, "tenant1-net1-ep1"
    ),
    "-oper create -construct endpoint -net-id tenant1-net1 -cont-id myContainer1 tenant1-net1-ep1": Request(
        "create", "endpoint", {"network": "tenant1-net1", "container": "myContainer1"}, "tenant1-net1-ep1"
    ),
    "-oper detach -construct endpoint -container-id myContainer1 tenant1-net1-ep1": Request(
        "detach", "endpoint", {"container": "myContainer1"}, "tenant1-net1-ep1"
    ),
    "-oper delete -construct endpoint tenant1-net1-ep1": Request("delete", "endpoint", {}, "tenant1-net1-ep1"),
    "-oper create -construct tenant -subnet 11.1.0.0/16 -alloc-subnet-len 24 -vlans 11-28 -vxlans 17-20 t1": Request(
        "create",
        "tenant",
        {"subnet": "11.1.0.0/16", "subnet_length": "24", "vlans": "11-28", "vnis": "17-20"},
        "t1",
    ),
    "-oper create -construct network -tag-type vxlan -tag 17 -subnet 11.1.1.0/24 -gw 11.1.1.9 -tenant t1 n1": Request(
        "create", "network", {"encap": "vxlan", "tag": "17", "subnet": "11.1.1.0/24", "gateway": "11.1.1.9"}, "n1"
    ),
    "--oper=attach --construct=endpoint --attach-uuid=c1 --host=h2 e1": Request(
        "attach", "endpoint", {"container": "c1", "host": "h2"}, "e1"
    ),
}


@pytest.mark.parametrize("line", SEED)
def test_the_seed_s_lines_are_read_as_they_are_meant(line: str) -> None:
    read, expected = netdcli.read(shlex.split(line)), SEED[line]
    settings = {key: value for key, value in read.settings.items() if key not in ("oper", "construct", "tenant")}
    assert read._replace(settings=settings) == expected


WRONG = {
    "": "operation is missing: give -oper with one of create, get",
    "-oper create x": "construct is missing: give -construct",
    "-oper explode -construct network x": "operation 'explode' is not known",
    "-oper create -construct router x": "construct 'router' is not known: expected one of network, endpoint, tenant",
    "-oper create -construct network": "id is missing: name the network after the flags",
    "-oper create -construct network a b": "more than one id: a b",
    "-oper attach -construct network x": "operation 'attach' is for endpoints",
    "-oper create -construct network -color red x": "flag provided but not defined: -color",
    "-oper create -construct network -tag": "flag needs an argument: -tag",
    "-oper get -construct network -tag 12 x": "flag -tag is not for `get` of a network",
    "-oper create -construct network -tag twelve x": "-tag is 'twelve': expected a number",
    "-oper create -construct network -tag -1 x": "-tag is '-1': expected a number",
    "-oper create -construct network -tag 0 x": "VLAN tag 0 is out of range: expected 1 to 4094",
    "-oper create -construct network -tag 4095 x": "VLAN tag 4095 is out of range",
    "-oper create -construct network -tag-type vxlan -tag 16777216 x": "VNI 16777216 is out of range",
    "-oper create -construct network -tag-type gre x": "-tag-type is 'gre': expected vlan or vxlan",
    "-oper create -construct network -subnet 11.1.1.1/24 x": "'11.1.1.1/24' is not a network without host bits",
    "-oper create -construct network -subnet 11.1.1.0/24 -gw 12.0.0.1 x": "gateway 12.0.0.1 is in none of the subnets",
    "-oper create -construct network a.b": "network name 'a.b' is not valid",
    "-oper create -construct network 'a b'": "network name 'a b' is not valid",
    "-oper create -construct network 'a*'": "network name 'a*' is not valid",
    "-oper create -construct network 'a>'": "network name 'a>' is not valid",
    "-oper create -construct network ''": "network name is empty",
    f"-oper create -construct network {'a' * 64}": "has 64 characters: expected at most 63",
    "-oper create -construct network -tenant fabric x": "tenant name 'fabric' is reserved",
    "-oper create -construct tenant fabric": "tenant name 'fabric' is reserved",
    "-oper get -construct tenant fabric": "tenant name 'fabric' is reserved",
    "-oper get -construct network a.b": "network name 'a.b' is not valid",
    "-oper delete -construct network a.b": "network name 'a.b' is not valid",
    "-oper create -construct tenant -vlans 100-10 t1": "'100-10' is reversed",
    "-oper create -construct tenant -vlans 1-5000 t1": "out of range",
    "-oper create -construct tenant -alloc-subnet-len 40 t1": "subnet length 40 is out of range",
    "-oper create -construct endpoint x": "network is missing: give -net-id",
    "-oper create -construct endpoint -net-id n1 'a b'": "endpoint name 'a b' has white space",
    "-oper create -construct endpoint -net-id n1 'a>'": "endpoint name 'a>' has a wildcard",
    "-oper create -construct endpoint -net-id n1 ''": "endpoint name is empty",
    f"-oper create -construct endpoint -net-id n1 {'a' * 254}": "has 254 characters",
    "-oper create -construct endpoint -net-id n1 -ip-address 11.1.1 x": "'11.1.1' is not an IPv4 or IPv6 address",
    "-oper create -construct endpoint -net-id n1 -ip-address '' x": "'' is not an IPv4 or IPv6 address",
    "-oper create -construct endpoint -net-id n1 -cont-id vm:7 x": "container 'vm:7' is of no known kind",
    "-oper create -construct endpoint -net-id n1 -cont-id '' x": "container is empty",
    "-oper create -construct endpoint -net-id n1 -cont-id a -container-id b x": "another flag for the same says",
    "-oper create -construct endpoint -net-id n1 -cont-id c1 -host H.1 x": "host name 'H.1' is not valid",
    "-oper attach -construct endpoint x": "container is missing: give -container-id",
    "-oper attach -construct endpoint -container-id pid:x e1": "container 'pid:x' is not a process",
    "-oper detach -construct endpoint -container-id 'a b' e1": "container 'a b' has white space",
    "-oper get -construct endpoint -timeout soon e1": "'soon' is no time",
    "-oper get -construct endpoint -wait a-bit e1": "-wait is 'a-bit': expected applied or accepted",
    "-oper get -construct endpoint -server nats://: e1": "is no address",
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_usage_has_its_own_message_and_status_2(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert netdcli.run(shlex.split(line)) == USAGE
    captured = capsys.readouterr()
    assert WRONG[line] in captured.err
    assert captured.err.startswith("netdcli: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_every_operation_that_is_possible_is_performed_by_something() -> None:
    assert set(netdcli.PERFORM) == set(netdcli.TAKES)
    for setting in set().union(*netdcli.TAKES.values()):
        assert setting in {name for name, _ in netdcli.FLAGS.values()}


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert netdcli.run(["-help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  -{flag} value" in shown for flag in netdcli.FLAGS)


def test_without_a_server_it_is_said_where_it_was_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert netdcli.run(["-oper", "get", "-construct", "network", "n1"]) == 3
    assert "cannot reach nats-server (nats://127.0.0.1:1: Connection refused)" in capsys.readouterr().err


def test_ended_carries_its_message() -> None:
    with pytest.raises(Ended, match="because") as end:
        raise Ended(1, "because")
    assert end.value.status == 1
