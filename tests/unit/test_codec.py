"""Bytes to messages: what does not fit is named with its path, and nothing large or deep is ever built."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_interface, ip_network

import msgpack
import msgspec
import pytest

from messages import addresses, codec
from messages.codec import JSON, Malformed, UnknownEvent
from messages.endpoint import CreateEndpoint
from messages.host import FindContainer
from messages.network import CreateNetwork
from messages.replies import Accepted, Refused
from messages.subjects import CommandSubject

CREATE_NETWORK = CommandSubject("acme", "network", "create")
CREATE_ENDPOINT = CommandSubject("acme", "endpoint", "create")


def packed(value: object) -> bytes:
    return bytes(msgpack.packb(value))


def code_of(payload: bytes, subject: CommandSubject = CREATE_NETWORK, content_type: str = codec.MSGPACK) -> str:
    with pytest.raises(Malformed) as fault:
        codec.decode_command(subject, payload, content_type)
    return fault.value.code


def detail_of(fields: object, subject: CommandSubject = CREATE_NETWORK) -> str:
    with pytest.raises(Malformed) as fault:
        codec.decode_command(subject, packed(fields))
    assert fault.value.code == "invalid-message"
    return fault.value.detail


def test_the_subject_says_tenant_and_type() -> None:
    command = codec.decode_command(CREATE_NETWORK, packed({"network": "web"}))
    assert command == CreateNetwork(tenant="acme", network="web")


def test_json_is_the_same_message() -> None:
    payload = json.dumps({"network": "web", "subnets": ["11.1.1.0/24"], "gateways": ["11.1.1.1"]}).encode()
    expected = CreateNetwork(
        tenant="acme", network="web", subnets=(ip_network("11.1.1.0/24"),), gateways=(ip_address("11.1.1.1"),)
    )
    assert codec.decode_command(CREATE_NETWORK, payload, JSON) == expected


def test_a_message_in_json_is_answered_in_json() -> None:
    reply = Accepted(seq=7)
    assert json.loads(codec.encode(reply, JSON))["seq"] == 7
    assert codec.decode_reply(codec.encode(reply, JSON), JSON) == reply


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\xc1", "undecodable"),
        (b"\x81\xa1a", "undecodable"),
        (packed({"network": "web"}) + b"\x00", "undecodable"),
        (packed({1: 2}), "undecodable"),
        (b"\x81\xa7network\xa1\xff", "undecodable"),
        (packed([1, 2]), "invalid-message"),
        (packed("text"), "invalid-message"),
        (b"\x00" * (codec.SIZE_MAX_BYTES + 1), "too-large"),
        (b"\x91" * 10_000 + b"\x00", "too-deep"),
        (b"\x91" * codec.DEPTH_MAX + b"\x91\x00", "too-deep"),
        (packed([0] * (codec.ITEMS_MAX + 1)), "too-many-items"),
        (packed([[0] * 10_000, [0] * 10_000]), "too-many-items"),
        (b"\xdd\xff\xff\xff\xff", "undecodable"),
        (b"\xdf\xff\xff\xff\xff", "undecodable"),
        (b"\xc6\xff\xff\xff\xff", "undecodable"),
    ],
)
def test_what_is_no_message_is_refused(payload: bytes, code: str) -> None:
    assert code_of(payload) == code


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"{", "undecodable"),
        (b"\xff\xfe", "undecodable"),
        (b"[" * 100_000, "too-deep"),
        (b"[" * 17 + b"]" * 17, "too-deep"),
        (b'"text"', "invalid-message"),
        (b'{"network": "web", "tag": NaN}', "invalid-message"),
    ],
)
def test_what_is_no_json_message_is_refused(payload: bytes, code: str) -> None:
    assert code_of(payload, content_type=JSON) == code


def test_another_content_type_is_refused() -> None:
    assert code_of(packed({"network": "web"}), content_type="text/xml") == "unsupported-content-type"


def test_an_unknown_verb_is_refused_with_those_that_are_known() -> None:
    assert code_of(b"\x80", CommandSubject("acme", "network", "explode")) == "unknown-message"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "missing required field `network`"),
        ({"network": "web", "colour": "red"}, "unknown field `colour`"),
        ({"network": 7}, "`$.network`"),
        ({"network": "web", "tag": "12"}, "`$.tag`"),
        ({"network": "web", "subnets": ["11.1.1.1/24"]}, "has host bits set"),
        ({"network": "web", "subnets": ["11.1.1.0/24", "nonsense"]}, "`$.subnets[1]`"),
        ({"network": "web", "tenant": "other"}, "was sent to the subject of tenant 'acme'"),
        ({"network": "web", "type": "delete-network"}, "was sent to the subject of 'create-network'"),
    ],
)
def test_a_fault_is_named_with_its_path(fields: dict[str, object], said: str) -> None:
    assert said in detail_of(fields)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.b", "'a.b' is not valid"),
        ("a*", "is not valid"),
        (">", "is not valid"),
        ("a b", "is not valid"),
        ("", "is empty"),
        ("a" * 64, "has 64 characters: expected at most 63"),
        ("Web", "is not valid"),
        ("-web", "is not valid"),
        ("web\n", "is not valid"),
    ],
)
def test_names_of_networks(name: str, said: str) -> None:
    assert said in detail_of({"network": name})


def test_nobody_is_called_fabric() -> None:
    with pytest.raises(Malformed, match="reserved"):
        codec.decode_command(CommandSubject("fabric", "network", "create"), packed({"network": "web"}))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tag": 0}, "VLAN tag 0 is out of range: expected 1 to 4094"),
        ({"tag": 4095}, "VLAN tag 4095 is out of range"),
        ({"tag": 1 << 24, "encap": "vxlan"}, "VNI 16777216 is out of range: expected 1 to 16777215"),
        ({"encap": "gre"}, "Invalid enum value 'gre'"),
        ({"subnets": "some"}, "`$.subnets`"),
        ({"subnets": ["11.0.0.0/24", "11.0.0.128/25"]}, "overlap"),
        ({"subnets": ["224.0.0.0/24"]}, "unicast"),
        ({"subnets": ["11.0.0.0/32"]}, "no usable length"),
        ({"subnets": ["11.0.0.0/24"], "gateways": ["12.0.0.1"]}, "is in none of the subnets"),
        ({"subnets": "none", "gateways": ["12.0.0.1"]}, "needs a subnet"),
        ({"gateways": ["11.0.0.1", "11.0.0.2"]}, "more than one gateway of a family"),
    ],
)
def test_what_no_network_can_be(fields: dict[str, object], said: str) -> None:
    assert said in detail_of({"network": "web", **fields})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"addresses": ["11.1.1"]}, "is not an IPv4 or IPv6 address"),
        ({"addresses": ["11.1.1.1", "11.1.1.1"]}, "given twice"),
        ({"mac": "2:0:0:0:0:1"}, "MAC '2:0:0:0:0:1' is not valid"),
        ({"mac": "03:00:00:00:00:01"}, "group address"),
        ({"container": "c1"}, "is given without its host"),
        ({"container": "vm:7", "host": "h1"}, "is of no known kind"),
        ({"container": "pid:0", "host": "h1"}, "is not a process"),
        ({"container": "netns:../x", "host": "h1"}, "is not the name of a namespace"),
        ({"name": "a b"}, "white space"),
        ({"name": "a>b"}, "wildcard"),
        ({"name": "x" * 254}, "has 254 characters"),
    ],
)
def test_what_no_endpoint_can_be(fields: dict[str, object], said: str) -> None:
    assert said in detail_of({"network": "web", "name": "web1", **fields}, CREATE_ENDPOINT)


def test_an_endpoint_keeps_its_case() -> None:
    command = codec.decode_command(CREATE_ENDPOINT, packed({"network": "web", "name": "Web-1.A"}))
    assert isinstance(command, CreateEndpoint)
    assert command.name == "Web-1.A"


def test_an_empty_question_is_complete_but_for_its_own_fields() -> None:
    assert codec.decode_question(packed({"container": "c1"}), "find-container") == FindContainer(
        tenant="fabric", container="c1"
    )
    with pytest.raises(Malformed, match="container"):
        codec.decode_question(b"", "find-container")


def test_an_event_of_another_version_is_told_apart_from_what_is_no_event() -> None:
    with pytest.raises(UnknownEvent, match="'network-painted' is not known"):
        codec.decode_event(packed({"type": "network-painted"}))
    for payload in (packed({}), packed([1]), b"\xc1"):
        with pytest.raises(Malformed):
            codec.decode_event(payload)


def test_a_reply_that_is_none_is_said_so() -> None:
    with pytest.raises(Malformed, match="reply"):
        codec.decode_reply(packed({"type": "cheers"}))
    assert codec.decode_reply(codec.encode(Refused(code="x", detail="y"))) == Refused(code="x", detail="y")


def test_only_messages_are_encoded() -> None:
    class Odd(msgspec.Struct):
        value: object

    with pytest.raises(TypeError, match="cannot stand in a message"):
        codec.encode(Odd(value=object()))


def test_addresses_of_one_subnet_share_it_in_memory() -> None:
    one, other = (addresses.decode_address(addresses.Interface, f"10.1.0.{last}/16") for last in (1, 2))
    assert one.network is other.network
    assert (str(one), str(other)) == ("10.1.0.1/16", "10.1.0.2/16")
    assert one == ip_interface("10.1.0.1/16")
