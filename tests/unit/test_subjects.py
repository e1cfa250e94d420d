"""Subjects: one spelling of each, in one file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from messages import asyncapi, catalog, subjects
from messages.catalog import COMMANDS, EVENTS
from messages.subjects import CommandSubject

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_found_from_its_subject_and_back(name: str) -> None:
    construct, verb = catalog.construct_and_verb(name)
    assert catalog.command_type(construct, verb) == name
    subject = subjects.command("acme", construct, verb)
    assert subjects.parse_command(subject) == CommandSubject("acme", construct, verb)
    handed_on = subject.replace(".cmd.", ".svc.")
    assert subjects.parse_command(handed_on) == CommandSubject("acme", construct, verb)


@pytest.mark.parametrize(
    "subject", ["np.v1.cmd.acme.network", "np.v1.evt.acme.network.create", "np.v1.cmd.a.b.c.d", "", "np.v2.cmd.a.b.c"]
)
def test_what_is_no_command_s_subject(subject: str) -> None:
    with pytest.raises(ValueError, match="is no command's"):
        subjects.parse_command(subject)


@pytest.mark.parametrize(
    ("subject", "aggregate"),
    [
        (subjects.network_event("acme", "web", "endpoint-bound", "h1"), subjects.network_aggregate("acme", "web")),
        (subjects.network_event("acme", "web", "network-created"), subjects.network_aggregate("acme", "web")),
        (subjects.tenant_event("acme", "tenant-created"), subjects.tenant_aggregate("acme")),
        (subjects.port_event("acme", "h1", "port-bound"), subjects.port_aggregate("acme", "h1")),
        (subjects.segment_event("segment-taken"), subjects.SEGMENT_AGGREGATE),
        (subjects.host_event("host-joined"), subjects.HOST_AGGREGATE),
    ],
)
def test_every_event_belongs_to_one_aggregate(subject: str, aggregate: str) -> None:
    assert subjects.aggregate_of(subject) == aggregate


@pytest.mark.parametrize("subject", ["np.v1.cmd.acme.network.create", "np.v1.evt.acme", "np.v1.evt", ""])
def test_what_is_no_event_s_subject(subject: str) -> None:
    with pytest.raises(ValueError, match="is no event's"):
        subjects.aggregate_of(subject)


def test_the_host_of_an_event_is_its_last_token() -> None:
    assert subjects.host_of(subjects.network_event("acme", "web", "endpoint-bound", "h1")) == "h1"
    assert subjects.host_of(subjects.network_event("acme", "web", "network-created", "")) == "_"


def test_the_document_has_an_address_for_every_event() -> None:
    for name, event in EVENTS.items():
        assert re.search(rf"\.{name}(\.|$)", asyncapi.event_address(event))


def test_nobody_else_spells_a_subject() -> None:
    spelt = [
        f"{path.relative_to(ROOT)}:{number}"
        for folder in ("services", "ipam_actor", "host_actor")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"""["']np\.v1\.""", line)
    ]
    assert not spelt, spelt
