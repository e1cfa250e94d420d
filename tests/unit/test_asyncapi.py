"""The AsyncAPI document: what is committed is what the types say, and a stock parser finds it valid."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from messages import asyncapi, codec
from messages.catalog import COMMANDS, EVENTS, QUESTIONS
from messages.struct import kebab
from services.cli import netctl
from tests.golden import examples
from tests.harness.node import needs_node_packages, run_node

FILE = Path(__file__).resolve().parents[2] / "docs" / "asyncapi.yaml"


def test_the_committed_document_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert netctl.run(["asyncapi"]) == 0
    assert capsys.readouterr().out == FILE.read_text(), "run `netctl asyncapi > docs/asyncapi.yaml`"


def test_every_message_is_in_it() -> None:
    document = asyncapi.document()
    assert {*COMMANDS, *QUESTIONS, *EVENTS} <= set(document["channels"])
    assert {*COMMANDS, *QUESTIONS, *EVENTS} <= set(document["operations"])
    assert yaml.safe_load(FILE.read_text()) == document


def test_where_commands_and_events_go() -> None:
    channels = asyncapi.document()["channels"]
    assert channels["create-network"]["address"] == "np.v1.cmd.{tenant}.network.create"
    assert channels["endpoint-bound"]["address"] == "np.v1.evt.{tenant}.net.{network}.endpoint-bound.{host}"
    assert channels["host-joined"]["address"] == "np.v1.evt.fabric.host.host-joined"
    assert set(channels["endpoint-bound"]["parameters"]) == {"tenant", "network", "host"}


def test_the_examples_satisfy_their_schemas() -> None:
    document = asyncapi.document()
    replies = [reply for _, reply in examples.REPLIES]
    for message in (*examples.COMMANDS, *examples.QUESTIONS, *examples.EVENTS, *replies):
        schema = {"$ref": f"#/components/schemas/{type(message).__name__}", "components": document["components"]}
        jsonschema.validate(json.loads(codec.encode(message, codec.JSON)), schema)
        assert kebab(type(message).__name__) in document["components"]["messages"]


@needs_node_packages
def test_a_stock_parser_finds_it_valid() -> None:
    result = run_node("validate.mjs", stdin=FILE.read_text())
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.startswith("3.0.0: ")
