"""Plans: from what is wanted and what is there to what is done, and that doing it leaves nothing to plan."""

from __future__ import annotations

import typing
from collections.abc import Iterable

import pytest
import yaml

from ipam_actor.definition import IPAM
from messages.endpoint import CreateEndpoint, EndpointView, ListEndpoints
from messages.intent import ApplyIntent
from messages.network import CreateNetwork, ListNetworks, NetworkView
from messages.pool import CreatePool, ListPools, PoolView
from messages.replies import Items
from messages.struct import Command
from messages.tenant import CreateTenant, ListTenants, TenantView
from services.cli.intent import Intent
from services.cli.intent_plan import Having, Plan, plan
from services.cli.intent_reader import read_intent
from services.cli.intent_sending import parts_of
from services.cli.intent_source import Document, Loader
from tests.ipam_world import World


def wanted(text: str) -> Intent:
    return read_intent([Document("file", 1, 1, yaml.load(text, Loader))])


def items(world: World, query: Command) -> tuple[object, ...]:
    reply = IPAM.handlers[type(query)](world.state, query, world.stamp()).reply
    assert isinstance(reply, Items)
    return reply.objects


def having(world: World, names: Iterable[str]) -> Having:
    """What `ask_having` would be told."""
    listed = [each for each in items(world, ListTenants(tenant="fabric")) if isinstance(each, TenantView)]
    tenants = {view.name: view for view in listed if view.name in names}
    networks = [each for name in tenants for each in items(world, ListNetworks(tenant=name))]
    endpoints: dict[tuple[str, str], dict[str, EndpointView]] = {}
    pools: dict[tuple[str, str], dict[str, PoolView]] = {}
    for name in tenants:
        for pool in items(world, ListPools(tenant=name)):
            assert isinstance(pool, PoolView)
            pools.setdefault((name, pool.network), {})[pool.name] = pool
        for each in items(world, ListEndpoints(tenant=name)):
            assert isinstance(each, EndpointView)
            endpoints.setdefault((name, each.network), {})[each.name] = each
    return Having(
        tenants,
        {(view.tenant, view.name): view for view in networks if isinstance(view, NetworkView)},
        endpoints,
        pools,
        {name: record.vtep for name, record in world.state.hosts.hosts.items()},
    )


def planned(world: World, text: str, *, is_pruning: bool = False) -> Plan:
    intent = wanted(text)
    return plan(intent, having(world, intent.tenants), is_pruning=is_pruning)


def done(world: World, text: str, *, is_pruning: bool = False) -> list[str]:
    """The steps, after they were done and left nothing to plan."""
    made = planned(world, text, is_pruning=is_pruning)
    assert made.conflicts == []
    for queue in parts_of(made.steps):
        for part in queue:
            world.do(ApplyIntent(tenant=part.command.tenant, changes=part.command.changes))
    assert planned(world, text, is_pruning=is_pruning).steps == []
    return [str(step) for step in made.steps]


@pytest.fixture
def world() -> World:
    return World("h1", "h2")


def test_what_is_not_there_is_made_in_the_file_s_order(world: World) -> None:
    text = "tenants: {acme: {vlans: 5-9, networks: {web: {endpoints: {b: c1@h1, a: }}, db: 10.2.0.0/16}}}"
    assert done(world, text) == [
        "+ tenant acme: vlans 5-9",
        "+ network acme/web: all is chosen",
        "+ endpoint acme/web/b: c1 on h1",
        "+ endpoint acme/web/a",
        "+ network acme/db: subnet 10.2.0.0/16",
    ]
    assert [world.show(name, tenant="acme").status.addresses[0].compressed for name in "ba"] == [
        "11.0.0.1/24",
        "11.0.0.2/24",
    ]


def test_what_is_left_out_agrees_with_what_is_there(world: World) -> None:
    done(
        world, "networks: {web: {encap: vxlan, tag: 7, subnet: 10.1.1.0/24, gateway: 10.1.1.1, endpoints: {a: c1@h1}}}"
    )
    for text in (
        "networks: {web: }",
        "networks: {web: {endpoints: [a]}}",
        "networks: {web: {endpoints: {a: c1}}}",
        "networks: {web: {subnets: auto, tag: 7}}",
        "tenants: {default: {subnet_length: 24}}",
    ):
        assert planned(world, text).steps == [], text
        assert planned(world, text).conflicts == [], text


def test_a_tenant_s_pools_are_changed(world: World) -> None:
    done(world, "tenants: {acme: {vlans: 5-9}}")
    text = "tenants: {acme: {vlans: 5-10, subnet_pool: 10.0.0.0/8, networks: {web: }}}"
    assert done(world, text)[0] == "~ tenant acme: subnet pool 11.0.0.0/8 -> 10.0.0.0/8, vlans 5-9 -> 5-10"
    assert str(world.show_network("web", "acme").status.subnets[0]) == "10.0.0.0/24"


def test_what_cannot_be_changed_is_a_conflict(world: World) -> None:
    done(world, "tenants: {acme: {vlans: 5-9, networks: {web: {tag: 7}}}}")
    made = planned(world, "tenants: {acme: {networks: {web: {tag: 8, encap: vxlan}}}}")
    assert [each.partition(": it cannot")[0] for each in made.conflicts] == [
        "network acme/web: encap vlan -> vxlan, tag 7 -> 8",
    ]


def test_ranges_and_pools(world: World) -> None:
    ranged = """\
networks:
  web: {subnet: 10.1.1.10-10.1.1.20/24, pools: {vip: 10.1.1.30-10.1.1.40}, endpoints: {a: {pool: vip}, b: }}
"""
    assert done(world, ranged) == [
        "+ network default/web: subnet 10.1.1.0/24, range 10.1.1.10-10.1.1.20",
        "+ pool default/web/vip: range 10.1.1.30-10.1.1.40",
        "+ endpoint default/web/a: pool vip",
        "+ endpoint default/web/b",
    ]
    assert (world.address_of("a"), world.address_of("b")) == ("10.1.1.30/24", "10.1.1.10/24")
    wider = "networks: {web: {subnet: 10.1.1.10-10.1.1.25/24, exclude: 10.1.1.15, endpoints: [b]}}"
    assert done(world, wider, is_pruning=True) == [
        "- endpoint default/web/a: 10.1.1.30/24",
        "- pool default/web/vip: 10.1.1.30-10.1.1.40",
        "~ network default/web: range 10.1.1.10-10.1.1.20 -> 10.1.1.10-10.1.1.25, exclude none -> 10.1.1.15",
    ]


def test_what_a_network_may_be_can_be_seen(world: World) -> None:
    """Every field that a file may have stands in what is shown; else a difference would never be found."""
    for command, view in (
        (CreateTenant, TenantView),
        (CreateNetwork, NetworkView),
        (CreateEndpoint, EndpointView),
        (CreatePool, PoolView),
    ):
        shown = {"tenant", "network", "name"}
        for part in ("spec", "status"):
            shown |= set(typing.get_type_hints(view)[part].__struct_fields__)
        assert set(command.__struct_fields__) <= shown, command


def test_an_endpoint_is_attached_late_and_moves(world: World) -> None:
    done(world, "networks: {web: {endpoints: [a]}}")
    assert done(world, "networks: {web: {endpoints: {a: c1@h1}}}") == [
        "~ endpoint default/web/a: not attached -> c1 on h1"
    ]
    assert done(world, "networks: {web: {endpoints: {a: c1@h2}}}") == ["~ endpoint default/web/a: c1 on h1 -> c1 on h2"]


def test_an_endpoint_is_made_anew_where_it_is(world: World) -> None:
    done(world, "networks: {web: {subnet: 10.1.1.0/24, endpoints: {a: c1@h1}}}")
    assert done(world, "networks: {web: {endpoints: {a: {address: 10.1.1.7}}}}") == [
        "~ endpoint default/web/a: address 10.1.1.1 -> 10.1.1.7 (made anew)"
    ]
    assert world.show("a").status.container == "c1"


def test_pruning_frees_first_and_stays_inside_the_named_tenants(world: World) -> None:
    done(world, "tenants: {acme: {networks: {a: 10.1.0.0/16, b: {endpoints: [x, y]}}}, beta: {networks: {a: }}}")
    text = "tenants: {acme: {networks: {c: 10.1.0.0/16, b: {endpoints: [y]}}}}"
    assert done(world, text, is_pruning=True) == [
        "- network acme/a: vlan 1, 10.1.0.0/16",
        "- endpoint acme/b/x: 11.0.0.1/24",
        "+ network acme/c: subnet 10.1.0.0/16",
    ]
    assert world.show_network("a", "beta").name == "a"


def test_the_host_is_the_only_one_or_is_asked_for(world: World) -> None:
    text = "{hosts: [h1, h9], networks: {web: {endpoints: {a: c1, b: c2@h9}}}}"
    made = planned(world, text)
    assert made.conflicts == [
        "endpoint default/web/a: the host of container c1 is not said: expected one of h1, h2",
        "endpoint default/web/b: host h9 is not a member: expected one of h1, h2",
    ]
    assert made.notes == ["host h9 is not a member yet: start `netplugin` on it"]
    assert done(World("h1"), "networks: {web: {endpoints: {a: c1}}}")[-1] == "+ endpoint default/web/a: c1 on h1"


def test_the_default_tenant_has_its_pools_until_its_first_use(world: World) -> None:
    assert done(world, "tenants: {default: {subnet_pool: 10.0.0.0/8}}") == ["+ tenant default: subnet pool 10.0.0.0/8"]
    assert done(world, "tenants: {default: {subnet_pool: 12.0.0.0/8}}")[0].startswith(
        "~ tenant default: subnet pool 10"
    )


def test_a_tenant_is_one_command_while_it_fits(world: World) -> None:
    made = planned(world, "tenants: {acme: {networks: {web: {endpoints: 900}}}, beta: }")
    assert [len(queue) for queue in parts_of(made.steps)] == [1, 1]
    many = planned(world, "tenants: {acme: {networks: {web: {subnet: 10.0.0.0/8, endpoints: 3000}}}}")
    (queue,) = parts_of(many.steps)
    assert [len(part.command.changes) for part in queue] == [997, 1000, 1000, 5]


def test_tenants_that_free_something_go_first(world: World) -> None:
    done(world, "tenants: {acme: {networks: {a: {tag: 5}}}, beta: {networks: {a: {tag: 6}}}}")
    text = "tenants: {acme: {networks: {b: {tag: 6}, a: }}, beta: {networks: {}}}"
    assert done(world, text, is_pruning=True) == ["- network beta/a: vlan 6, 11.0.0.0/24", "+ network acme/b: tag 6"]
