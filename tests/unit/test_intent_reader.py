"""Files of intents: the short forms, and every fault with its place."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from messages.endpoint import CreateEndpoint
from messages.network import CreateNetwork
from services.cli.exits import USAGE, Ended
from services.cli.intent import Intent, WantedEndpoint, WantedNetwork
from services.cli.intent_checks import contradictions
from services.cli.intent_reader import read_intent
from services.cli.intent_source import Document, documents


def read(tmp_path: Path, *texts: str) -> Intent:
    for number, text in enumerate(texts, 1):
        (tmp_path / f"{number}.yaml").write_text(text)
    return read_intent(documents([str(tmp_path)]))


def faults(tmp_path: Path, *texts: str) -> list[str]:
    """The lines of what is wrong, without the folder."""
    with pytest.raises(Ended) as ended:
        read(tmp_path, *texts)
    assert ended.value.status == USAGE
    return [line.removeprefix(f"{tmp_path}/") for line in ended.value.message.splitlines()]


def network(tmp_path: Path, said: str) -> WantedNetwork:
    return read(tmp_path, f"networks: {{web: {said}}}").tenants["default"].networks["web"]


def endpoints(tmp_path: Path, said: str) -> dict[str, WantedEndpoint]:
    return network(tmp_path, f"{{endpoints: {said}}}").endpoints


def places(tmp_path: Path, said: str) -> dict[str, tuple[str | None, str | None]]:
    return {name: (each.container, each.host) for name, each in endpoints(tmp_path, said).items()}


def test_a_network_is_its_subnet_or_a_map_or_nothing(tmp_path: Path) -> None:
    assert network(tmp_path, "").command == CreateNetwork(tenant="default", network="web")
    short = network(tmp_path, "10.1.1.0/24")
    assert short.command.subnets == (ip_network("10.1.1.0/24"),)
    assert short.given == {"subnets"}
    assert network(tmp_path, "none").command.subnets == "none"
    long = network(tmp_path, "{encap: vxlan, tag: 77, subnets: [10.1.1.0/24, 'fd00::/64'], gateway: 10.1.1.1}")
    assert (long.command.encap, long.command.tag, long.command.gateways) == ("vxlan", 77, (ip_address("10.1.1.1"),))
    assert long.given == {"encap", "tag", "subnets", "gateways"}


def test_endpoints_are_a_map_a_list_or_a_number(tmp_path: Path) -> None:
    assert list(endpoints(tmp_path, "{web1: , web2: }")) == ["web1", "web2"]
    assert list(endpoints(tmp_path, "[a, b]")) == ["a", "b"]
    assert list(endpoints(tmp_path, "3")) == ["web-1", "web-2", "web-3"]
    one = endpoints(tmp_path, "{web1: {address: 10.1.1.5, mac: 12:34:56:00:00:01}}")["web1"]
    assert one.command == CreateEndpoint(
        tenant="default", network="web", name="web1", addresses=(ip_address("10.1.1.5"),), mac="12:34:56:00:00:01"
    )


def test_a_place_is_short(tmp_path: Path) -> None:
    said = "{a: c1@h1, b: c2, c: 'netns:x@h2', d: {container: 17, host: h1}, e: }"
    assert places(tmp_path, said) == {
        "a": ("c1", "h1"),
        "b": ("c2", None),
        "c": ("netns:x", "h2"),
        "d": ("17", "h1"),
        "e": (None, None),
    }


def test_ranges_go_side_by_side(tmp_path: Path) -> None:
    assert places(tmp_path, '{"a[08-10]": {container: "c[1-3]", host: h1}}') == {
        "a08": ("c1", "h1"),
        "a09": ("c2", "h1"),
        "a10": ("c3", "h1"),
    }
    addressed = endpoints(tmp_path, '{"a[1-2]": {addresses: ["10.1.1.[5-6]"]}}')
    assert [each.command.addresses[0] for each in addressed.values()] == [
        ip_address("10.1.1.5"),
        ip_address("10.1.1.6"),
    ]
    assert faults(tmp_path, 'networks: {web: {endpoints: {"a[1-2]": "c[1-3]@h1"}}}')[0] == (
        "1.yaml: networks.web.endpoints.a[1-2]: 'c[1-3]' has 3 values: expected 2, as the names have"
    )


def test_documents_say_together_what_is_wanted(tmp_path: Path) -> None:
    intent = read(
        tmp_path,
        "tenants: {acme: {vlans: 10-20, networks: {web: }}}\n---\ntenants: {acme: {networks: {db: }}}",
        '{"hosts": ["h1", "h2"], "tenants": {"beta": null}}',
    )
    assert list(intent.tenants["acme"].networks) == ["web", "db"]
    assert intent.tenants["acme"].command.vlans == "10-20"
    assert "beta" in intent.tenants
    assert intent.hosts == ("h1", "h2")


def test_each_fault_has_its_place_and_what_was_expected(tmp_path: Path) -> None:
    said = """\
tenants:
  acme:
    vlan: 10-20
    networks:
      web: {subnet: 10.1.1.1/24}
      db: {tag: many, endpoints: {db1: {adress: 10.1.1.1}, "d b": }}
      Bad: 10.2.0.0/16
  fabric:
---
networks: {web: {gateway: 10.9.9.9, subnet: 10.1.1.0/24}}
"""
    expected = (
        "1.yaml: document 1: tenants.acme.vlan: key 'vlan' is not known: did you mean vlans?",
        "1.yaml: document 1: tenants.acme.networks.web.subnets[0]: '10.1.1.1/24' is not a network without host bits",
        "1.yaml: document 1: tenants.acme.networks.db.tag: expected int | null, found str",
        "1.yaml: document 1: tenants.acme.networks.db.endpoints.db1.adress: key 'adress' is not known: did you mean ad",
        "1.yaml: document 1: tenants.acme.networks.db.endpoints.\"d b\": endpoint name 'd b' has white space",
        "1.yaml: document 1: tenants.acme.networks.Bad: network name 'Bad' is not valid: expected a-z 0-9 _ -",
        "1.yaml: document 1: tenants.fabric: tenant name 'fabric' is reserved for what belongs to no tenant",
        "1.yaml: document 2: networks.web: gateway 10.9.9.9 is in none of the subnets 10.1.1.0/24",
        "nothing was done",
    )
    for found, beginning in zip(faults(tmp_path, said), expected, strict=True):
        assert found.startswith(beginning)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("networks: {a: , a: }", "1.yaml:1:17: key 'a' stands twice: expected YAML or JSON"),
        ("networks: [", "1.yaml:"),
        ("tenant: {a: }", "1.yaml: tenant: key 'tenant' is not known: did you mean tenants?"),
        ("networks: [web]", "1.yaml: networks: a list: expected a map from names"),
        ("[1]", "1.yaml: a list: expected a map with tenants, networks, hosts"),
        ("networks: {true: }", "1.yaml: networks: key True is no name: expected text; quotes make it so"),
        ("networks: {web: {endpoints: 0}}", "1.yaml: networks.web.endpoints: 0 endpoints: expected 1 to 100000"),
        (
            "networks: {web: {endpoints: [1]}}",
            "1.yaml: networks.web.endpoints[0]: 1 is a number: expected a name, as text",
        ),
        (
            "networks: {web: {endpoints: {a: {container: 'x:y', host: h}}}}",
            "1.yaml: networks.web.endpoints.a.container: ",
        ),
        ("networks: {web: {endpoints: {a: c@H}}}", "1.yaml: networks.web.endpoints.a.host: host name 'H' is not valid"),
        (
            "networks: {web: {subnet: 10.0.0.0/8, subnets: []}}",
            "1.yaml: networks.web.subnet: subnet and subnets are both",
        ),
        ("hosts: h1", "1.yaml: hosts: 'h1': expected a list of names"),
        ("tenants: {a: {vlans: 9-1}}", "1.yaml: tenants.a: vlans '9-1': '9-1' is reversed: expected 1-9"),
    ],
)
def test_faults(tmp_path: Path, said: str, expected: str) -> None:
    assert faults(tmp_path, said)[0].startswith(expected)


def test_the_same_network_twice_is_a_fault(tmp_path: Path) -> None:
    assert faults(tmp_path, "networks: {web: }", "tenants: {default: {networks: {web: }}}")[0] == (
        f"2.yaml: tenants.default.networks.web: network web is described in {tmp_path}/1.yaml already: expected it once"
    )


def test_words_are_words(tmp_path: Path) -> None:
    """Not YAML 1.1: `no` and `on` are names."""
    assert list(endpoints(tmp_path, "{no: , on: , 1: }")) == ["no", "on", "1"]


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(Ended, match=r"nowhere cannot be read: No such file or directory"):
        documents([str(tmp_path / "nowhere")])
    with pytest.raises(Ended, match=r"holds no file that ends in \.yaml, \.yml, \.json"):
        documents([str(tmp_path)])
    with pytest.raises(Ended, match=r"the files say nothing"):
        read_intent([])
    assert str(Document("a.yaml", 2, 3, None)) == "a.yaml: document 2"


def test_what_cannot_be_true_together(tmp_path: Path) -> None:
    intent = read(
        tmp_path,
        """\
tenants:
  acme:
    networks:
      a:
        subnet: 10.1.0.0/16
        tag: 5
        endpoints: {x: {address: 10.1.0.9}, y: {address: 10.1.0.9}, z: {address: 10.2.0.1}}
      b: {subnet: 10.1.1.0/24, tag: 5, encap: vxlan}
  beta: {networks: {a: {subnet: 10.1.0.0/16, tag: 5, endpoints: {"e[1-2]": {mac: 02:00:00:00:00:01}}}}}
""",
    )
    place, another = f"{tmp_path}/1.yaml: tenants", "choose another, or none"
    assert [str(fault) for fault in contradictions(intent)] == [
        f"{place}.acme.networks.b.subnets: 10.1.1.0/24 overlaps 10.1.0.0/16 of tenants.acme.networks.a: choose another",
        f"{place}.acme.networks.a.endpoints.y: address 10.1.0.9 is that of endpoint x as well: {another}",
        f"{place}.acme.networks.a.endpoints.z: address 10.2.0.1 is outside of 10.1.0.0/16: expected one of these",
        f"{place}.beta.networks.a.endpoints.e2: MAC 02:00:00:00:00:01 is that of endpoint e1 as well: {another}",
        f"{place}.beta.networks.a.tag: vlan tag 5 is that of tenants.acme.networks.a as well: a tag is one network's",
    ]
