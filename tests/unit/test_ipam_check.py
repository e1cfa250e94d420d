"""What the journal, the switches and the containers say, compared: every kind of difference."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network
from typing import Any

import pytest
from msgspec.structs import replace

from messages.addresses import parse_range
from messages.endpoint import EndpointView
from messages.host import PortView
from messages.ipam import AddressesView, AddressSet, SubnetAddresses
from services.cli.ipam_check import HOST_AWAY, Difference, Seen, differences, repeated
from tests.golden import examples

BOUND = replace(
    examples.ENDPOINT_VIEW, status=replace(examples.ENDPOINT_VIEW.status, addresses=(ip_interface("11.1.1.1/24"),))
)
PORT = replace(examples.PORT_VIEW, addresses=(ip_interface("11.1.1.1/24"),), mac=examples.MAC)
OTHER_MAC = "02:00:00:00:00:09"
NOTHING = AddressSet(count=0)


def network(*used: str) -> AddressesView:
    ranges = tuple(map(parse_range, used))
    count = sum(each.last - each.first + 1 for each in ranges)
    subnet = SubnetAddresses(
        subnet=ip_network("11.1.1.0/24"),
        used=AddressSet(count=count, ranges=ranges),
        reserved=NOTHING,
        resting=NOTHING,
        excluded=NOTHING,
        pooled=NOTHING,
        on_request=NOTHING,
        free=NOTHING,
    )
    return AddressesView(tenant="acme", network="web", name="web", subnets=(subnet,))


def seen(
    *endpoints: EndpointView, ports: Any = (PORT,), used: tuple[str, ...] = ("11.1.1.1",), members: str = "h1"
) -> Seen:
    return Seen(endpoints, frozenset({members}), {members: ports}, (network(*used),))


def kinds(found: list[Difference]) -> list[str]:
    return [each.kind for each in found]


def endpoint(**status: Any) -> EndpointView:
    return replace(BOUND, status=replace(BOUND.status, **status))


def port(**fields: Any) -> tuple[PortView]:
    return (replace(PORT, **fields),)


def test_what_agrees_is_no_difference() -> None:
    assert differences(seen(BOUND)) == []
    assert differences(seen(BOUND, ports=port(addresses=None, mac=""))) == [], "what cannot be seen is not compared"
    waiting = endpoint(state="waiting")
    assert differences(seen(waiting, ports=port(state="waiting", addresses=None, mac=""))) == []
    assert differences(seen(endpoint(host="", container="", state="pending"), ports=())) == []


@pytest.mark.parametrize(
    ("kind", "detail", "found"),
    [
        ("no-port", "the host knows nothing of it", seen(BOUND, ports=())),
        ("no-port", "of its port stands link", seen(BOUND, ports=port(state="pending", parts=("link",)))),
        ("failed", "no such device", seen(BOUND, ports=port(state="failed", reason="no such device"))),
        ("other-epoch", "has the port of epoch 16, the journal binds it at 17", seen(BOUND, ports=port(epoch=16))),
        ("not-reported", "the host says bound, the journal has heard pending", seen(endpoint(state="pending"))),
        (
            "endpoint-without-address",
            "lacks 11.1.1.1/24 (it has none)",
            seen(BOUND, ports=port(addresses=())),
        ),
        (
            "other-address",
            "lacks 11.1.1.1/24 (it has 11.1.1.2/24)",
            seen(BOUND, ports=port(addresses=(ip_interface("11.1.1.2/24"),))),
        ),
        (
            "address-without-endpoint",
            "has 11.1.1.2/24 besides",
            seen(BOUND, ports=port(addresses=(ip_interface("11.1.1.1/24"), ip_interface("11.1.1.2/24")))),
        ),
        ("other-mac", f"has MAC {OTHER_MAC}, expected {examples.MAC}", seen(BOUND, ports=port(mac=OTHER_MAC))),
        ("unknown-host", "it is bound to h1, which is no member", seen(BOUND, ports=(), members="h2")),
        ("port-not-bound", "of an endpoint that does not exist", seen(used=())),
        ("port-not-bound", "binds the endpoint nowhere", seen(endpoint(host="", container=""))),
        ("address-without-endpoint", "11.1.1.2 counts as used", seen(BOUND, used=("11.1.1.1-11.1.1.2",))),
        ("endpoint-without-address", "11.1.1.1 does not count as used", seen(BOUND, used=())),
        (HOST_AWAY, "it does not answer: its 1 endpoint(s) were", seen(BOUND, ports="it does not answer")),
    ],
)
def test_a_difference_is_named(kind: str, detail: str, found: Seen) -> None:
    (difference,) = differences(found)
    assert difference.kind == kind
    assert detail in difference.detail


def test_an_address_that_two_have_is_named() -> None:
    other = replace(endpoint(host="", container=""), name="web2", id="other")
    (difference,) = differences(seen(BOUND, other))
    assert (difference.kind, difference.subject) == ("address-twice", "acme/web/web2")
    assert difference.detail == "11.1.1.1 is web1's, too"


def test_what_was_seen_once_only_is_not_kept() -> None:
    once = differences(seen(BOUND, ports=()))
    assert repeated(once, differences(seen(BOUND))) == []
    assert kinds(repeated(once, once)) == ["no-port"]
