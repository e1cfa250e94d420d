"""Whatever is there and whatever is wanted: what a plan does leaves nothing to plan, and nobody sees a half of it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from messages.intent import ApplyIntent
from services.cli.export import exported
from services.cli.intent_checks import contradictions
from services.cli.intent_plan import Having, plan
from services.cli.intent_reader import read_intent
from services.cli.intent_sending import parts_of
from services.cli.intent_source import Document
from services.runtime.decision import Rejection
from tests.ipam_world import World
from tests.unit.test_intent_plan import having

NAMES = st.sampled_from(["a", "b", "c"])
HOSTS = ("h1", "h2")
PLACES = st.one_of(
    st.none(),
    st.builds("{}@{}".format, st.sampled_from(["c1", "c2"]), st.sampled_from(HOSTS)),
    st.fixed_dictionaries({}, optional={"mac": st.sampled_from(["02:00:00:00:00:01", "02:00:00:00:00:02"])}),
)
NETWORKS = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {},
        optional={
            "encap": st.sampled_from(["vlan", "vxlan"]),
            "tag": st.integers(1, 4),
            "endpoints": st.dictionaries(NAMES, PLACES, max_size=3),
            "exclude": st.just("10.1.0.200"),
            "subnet": st.sampled_from(["10.1.0.0/24", "10.2.0.0/24", "none"]),
        },
    ).filter(lambda said: "exclude" not in said or said.get("subnet") == "10.1.0.0/24"),
)
TENANTS = st.fixed_dictionaries(
    {}, optional={"vlans": st.sampled_from(["1-9", "1-20"]), "networks": st.dictionaries(NAMES, NETWORKS, max_size=3)}
)
FILES = st.dictionaries(st.sampled_from(["acme", "beta"]), TENANTS, min_size=1).map(
    lambda tenants: {"tenants": tenants}
)


def carried_out(world: World, content: Any, *, is_pruning: bool) -> bool:
    """The file is true, and that was checked; False where something stood in the way."""
    intent = read_intent([Document("file", 1, 1, content)])
    if list(contradictions(intent)):
        return False
    made = plan(intent, having(world, intent.tenants), is_pruning=is_pruning)
    if made.conflicts:
        return False
    for queue in parts_of(made.steps):
        for part in queue:
            before = deepcopy(world.state)
            command = ApplyIntent(tenant=part.command.tenant, changes=part.command.changes)
            try:
                world.do(command)
            except Rejection:
                assert world.state == before
                return False
    again = plan(intent, having(world, intent.tenants), is_pruning=is_pruning)
    assert (again.steps, again.conflicts) == ([], [])
    return True


@given(FILES, FILES, st.booleans())
def test_what_a_plan_does_leaves_nothing_to_plan(first: Any, second: Any, is_pruning: bool) -> None:
    world = World(*HOSTS)
    carried_out(world, first, is_pruning=False)
    carried_out(world, second, is_pruning=is_pruning)


@given(FILES)
def test_an_intent_is_what_its_changes_are_one_by_one(content: Any) -> None:
    together, apart = World(*HOSTS), World(*HOSTS)
    intent = read_intent([Document("file", 1, 1, content)])
    made = plan(intent, having(together, intent.tenants))
    try:
        for queue in parts_of(made.steps):
            for part in queue:
                together.do(part.command)
                for change in part.command.changes:
                    apart.do(change)
    except Rejection:
        return
    assert shown(together) == shown(apart)


def shown(world: World) -> Any:
    return exported(everything(world), with_hosts=True)


def everything(world: World) -> Having:
    return having(world, set(world.state.tenants))


@given(FILES)
def test_an_export_makes_the_same_elsewhere(content: Any) -> None:
    world, elsewhere = World(*HOSTS), World(*HOSTS)
    carried_out(world, content, is_pruning=False)
    document = shown(world)
    if document["tenants"]:
        assert carried_out(world, document, is_pruning=True)
        assert carried_out(elsewhere, document, is_pruning=False)
    assert shown(elsewhere) == document
