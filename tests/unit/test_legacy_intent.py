"""The intents of 2015: both forms, any case of the keys, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from messages.intent import ApplyIntent
from services.cli.exits import USAGE, Ended
from services.cli.intent_plan import Having, Plan
from services.cli.intent_sending import parts_of
from services.cli.intent_source import documents
from services.cli.legacy_intent import Legacy, read_legacy
from services.cli.netdcli_intent import other_vteps, plan_additions, plan_bindings, plan_deletions, plan_desired
from tests.ipam_world import World
from tests.unit.test_intent_plan import having

GIVEN = Path(__file__).resolve().parents[3] / "shared" / "seed" / "intents"
NEEDS_GIVEN = pytest.mark.skipif(not GIVEN.is_dir(), reason="the original's own files are not beside this checkout")

VLANS = {
    "TENANTS": [
        {
            "name": "acme",
            "defaultNetType": "vlan",
            "SUBNETPOOL": "10.1.0.0/16",
            "AllocSubnetLen": 24,
            "Vlans": "11-28",
            "networks": [
                {
                    "Name": "red",
                    "Endpoints": [{"Container": "cA", "Host": "host1"}, {"container": "cB", "host": "host2"}],
                },
                {"Name": "blue", "PktTag": "27", "SubnetCIDR": "10.9.1.1/24", "DefaultGw": "10.9.1.1"},
            ],
        }
    ]
}
OLDER = {
    "DefaultNetType": "vxlan",
    "Vxlans": "10001-14000",
    "Networks": [
        {"Name": "infra", "PktTag": "0", "Endpoints": [{"Host": "host1", "Intf": "eth2"}]},
        {"Name": "red", "Endpoints": [{"Container": "cA", "IpAddress": "auto"}]},
    ],
}


def read(tmp_path: Path, content: Any) -> Legacy:
    file = tmp_path / "intent"
    file.write_text(content if isinstance(content, str) else json.dumps(content, indent="\t"))
    return read_legacy(documents([str(file)]), "default")


def everything(world: World) -> Having:
    return having(world, set(world.state.tenants))


def done(world: World, tmp_path: Path, plan: Callable[[Legacy, Having], Plan], content: Any) -> list[str]:
    """The steps, after they were done."""
    legacy = read(tmp_path, content)
    made = plan(legacy, everything(world))
    assert made.conflicts == []
    for queue in parts_of(made.steps):
        for part in queue:
            world.do(ApplyIntent(tenant=part.command.tenant, changes=part.command.changes))
    return [str(step) for step in made.steps]


@pytest.fixture
def world() -> World:
    return World("host1", "host2")


def test_allocations_are_the_first_free_in_the_file_s_order(world: World, tmp_path: Path) -> None:
    done(world, tmp_path, plan_desired, VLANS)
    red, blue = (world.show_network(name, "acme") for name in ("red", "blue"))
    assert (red.status.encap, red.status.tag, str(red.status.subnets[0])) == ("vlan", 11, "10.1.0.0/24")
    assert (blue.status.tag, str(blue.status.subnets[0]), str(blue.status.gateways[0])) == (
        27,
        "10.9.1.0/24",
        "10.9.1.1",
    )
    first, second = (world.show(f"red-{name}", "red", "acme") for name in ("cA", "cB"))
    assert (str(first.status.addresses[0]), first.status.container, first.status.host) == ("10.1.0.1/24", "cA", "host1")
    assert (str(second.status.addresses[0]), second.status.host) == ("10.1.0.2/24", "host2")
    assert done(world, tmp_path, plan_desired, VLANS) == []


def test_the_older_form_is_one_tenant_and_interfaces_are_no_endpoints(world: World, tmp_path: Path) -> None:
    legacy = read(tmp_path, OLDER)
    assert legacy.notes == ("network infra: eth2 of host1 is no container's: give it to `netplugin --uplink` there",)
    done(world, tmp_path, plan_desired, OLDER)
    assert (world.show_network("red").status.encap, world.show_network("red").status.tag) == ("vxlan", 10001)
    assert world.show("red-cA", "red").status.state == "pending", "its host is said later"


def test_what_is_not_in_the_desired_state_goes(world: World, tmp_path: Path) -> None:
    done(world, tmp_path, plan_desired, VLANS)
    world.network("kept")
    less = {"Tenants": [{"Name": "acme", "Networks": [{"Name": "red", "Endpoints": [{"Container": "cB"}]}]}]}
    assert done(world, tmp_path, plan_desired, less) == [
        "- network acme/blue: vlan 27, 10.9.1.0/24",
        "- endpoint acme/red/red-cA: 10.1.0.1/24, cA on host1",
    ]
    assert world.show("red-cB", "red", "acme").status.host == "host2", "what is left out stays as it is"
    assert done(world, tmp_path, plan_desired, {"Tenants": []}) == []


def test_additions_take_the_tenant_s_encapsulation(world: World, tmp_path: Path) -> None:
    done(
        world, tmp_path, plan_desired, {"Tenants": [{"Name": "t", "DefaultNetType": "vxlan", "Vxlans": "10001-10009"}]}
    )
    more = {"Tenants": [{"Name": "t", "Networks": [{"Name": "n", "Endpoints": [{"Container": "c", "Host": "host1"}]}]}]}
    assert done(world, tmp_path, plan_additions, more) == [
        "+ network t/n: encap vxlan",
        "+ endpoint t/n/n-c: c on host1",
    ]
    assert world.show_network("n", "t").status.tag == 10001


def test_deletions_are_of_what_is_last_in_each_branch(world: World, tmp_path: Path) -> None:
    done(world, tmp_path, plan_desired, VLANS)

    def without(*networks: dict[str, Any]) -> list[str]:
        return done(world, tmp_path, plan_deletions, {"Tenants": [{"Name": "acme", "Networks": list(networks)}]})

    assert without({"Name": "red", "Endpoints": [{"Container": "cA"}, {"Container": "cX"}]}) == [
        "- endpoint acme/red/red-cA: 10.1.0.1/24, cA on host1"
    ]
    assert without({"Name": "red", "Endpoints": [{"Container": "cB"}]}, {"Name": "blue"}) == [
        "- endpoint acme/red/red-cB: 10.1.0.2/24, cB on host2",
        "- network acme/blue: vlan 27, 10.9.1.0/24",
    ]
    legacy = read(tmp_path, {"Tenants": [{"Name": "acme"}, {"Name": "nobody"}]})
    made = plan_deletions(legacy, everything(world))
    assert made.conflicts == ["tenant acme still has networks (red): delete them first"]
    assert made.notes == ["tenant nobody is not there"]
    without({"Name": "red"})
    assert done(world, tmp_path, plan_deletions, {"Tenants": [{"Name": "acme"}]}) == ["- tenant acme"]
    assert done(world, tmp_path, plan_desired, VLANS), "and may come again"


def test_a_container_s_host_is_said_later(world: World, tmp_path: Path) -> None:
    done(world, tmp_path, plan_desired, OLDER)
    bindings = [{"Container": "cA", "Host": "host2", "AttachUUID": "0123abcd"}]
    assert done(world, tmp_path, plan_bindings, bindings) == [
        "~ endpoint default/red/red-cA: not attached -> 0123abcd on host2"
    ]
    assert done(world, tmp_path, plan_bindings, {"HostBindings": bindings}) == []
    moved = done(world, tmp_path, plan_bindings, [{"container": "cA", "host": "host1"}])
    assert moved == ["~ endpoint default/red/red-cA: 0123abcd on host2 -> cA on host1"]
    legacy = read(tmp_path, [{"Container": "cX", "Host": "host9"}])
    assert plan_bindings(legacy, everything(world)).conflicts == [
        "container cX has no endpoint: expected one called NETWORK-cX",
        "container cX: host host9 is no member: expected one of host1, host2",
    ]


def test_what_hosts_say_of_themselves_is_theirs_to_say(world: World, tmp_path: Path) -> None:
    legacy = read(tmp_path, {"Hosts": [{"Name": "host1", "VtepIp": "192.168.2.10"}, {"Name": "host9"}], "Tenants": []})
    assert legacy.intent.hosts == ("host1", "host9")
    assert other_vteps(legacy, everything(world)) == [
        "host host1 has VTEP none, not 192.168.2.10: `netplugin --vtep` on it decides"
    ]
    assert plan_desired(legacy, everything(world)).notes == ["host host9 is not a member yet: start `netplugin` on it"]


def test_bindings_in_the_same_file(world: World, tmp_path: Path) -> None:
    together = {**OLDER, "HostBindings": [{"Container": "cA", "Host": "host1"}]}
    assert done(world, tmp_path, plan_desired, together)[-1] == "+ endpoint default/red/red-cA: cA on host1"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"Tenants": [{"Nam": "a"}]}, "Tenants[0].Nam: key 'Nam' is not known: did you mean Name?"),
        ({"Tenants": [{"Networks": []}]}, "Tenants[0]: tenant name is empty"),
        ({"Tenants": [{"Name": "a", "DefaultNetType": "gre"}]}, "Tenants[0].DefaultNetType: expected vlan or vxlan"),
        ({"Tenants": [{"Name": "a", "Vlans": "9-1"}]}, "Tenants[0]: vlans '9-1': '9-1' is reversed"),
        ({"Tenants": [{"Name": "a", "Networks": [{"Name": "N"}]}]}, "Tenants[0].Networks[0]: network name 'N' is not"),
        ({"Networks": [{"Name": "n", "PktTag": "many"}]}, "Networks[0].PktTag: expected a number, found 'many'"),
        ({"Networks": [{"Name": "n", "SubnetCIDR": "10.0"}]}, "Networks[0]: '10.0' is not a network"),
        ({"Networks": [{"Name": "n", "Endpoints": [{"Container": "a b"}]}]}, "Networks[0].Endpoints[0].Container: "),
        ({"Networks": {}}, "Networks: expected a list"),
        ([{"Container": "c"}], "[0]: a binding needs a Container and its Host"),
    ],
)
def test_faults(tmp_path: Path, content: Any, expected: str) -> None:
    with pytest.raises(Ended) as ended:
        read(tmp_path, content)
    assert ended.value.status == USAGE
    assert ended.value.message.splitlines()[0].startswith(f"{tmp_path}/intent: {expected}")


@NEEDS_GIVEN
def test_the_original_s_own_files(tmp_path: Path) -> None:
    for name in ("one_host_vlan", "two_host_vxlan", "two_hosts_multiple_tenants"):
        world = World("host1", "host2")
        assert done(world, tmp_path, plan_desired, (GIVEN / f"{name}.json").read_text())
        orange = world.show_network("orange", "tenant-one")
        assert orange.status.tag == {"one_host_vlan": 11}.get(name, 10001)
        assert str(orange.status.subnets[0]) == "11.1.0.0/24"
        assert str(world.show("orange-myContainer1", "orange", "tenant-one").status.addresses[0]) == "11.1.0.1/24"
        if name == "two_hosts_multiple_tenants":
            purple = world.show_network("purple", "tenant-two")
            assert (purple.status.tag, purple.status.subnets) == (15001, orange.status.subnets)
            assert str(world.show("purple-myContainer2", "purple", "tenant-two").status.addresses[0]) == "11.1.0.1/24"
