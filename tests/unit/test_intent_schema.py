"""The JSON Schema for editors: what is committed is what the commands say, and it takes what the reader takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from messages.endpoint import CreateEndpoint
from messages.network import CreateNetwork
from messages.tenant import CreateTenant
from services.cli import netctl
from services.cli.exits import Ended
from services.cli.intent import keys_of
from services.cli.intent_reader import read_intent
from services.cli.intent_schema import schema
from services.cli.intent_source import Document, Loader

FILE = Path(__file__).resolve().parents[2] / "docs" / "intent.schema.json"


def test_the_committed_schema_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert netctl.run(["apply", "--schema"]) == 0
    assert capsys.readouterr().out == FILE.read_text(), "run `netctl apply --schema > docs/intent.schema.json`"
    jsonschema.Draft202012Validator.check_schema(json.loads(FILE.read_text()))


def test_it_knows_every_key_that_the_reader_knows() -> None:
    objects = {name: each["anyOf"][-1]["properties"] for name, each in schema()["$defs"].items()}
    for name, kind in (("tenant", CreateTenant), ("network", CreateNetwork), ("endpoint", CreateEndpoint)):
        assert set(objects[name]) == set(keys_of(kind))


def is_valid(content: Any) -> bool:
    return jsonschema.Draft202012Validator(schema()).is_valid(content)


def is_read(content: Any) -> bool:
    try:
        read_intent([Document("file", 1, 1, content)])
    except Ended:
        return False
    return True


def test_the_example_of_the_help_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        netctl.run(["apply", "--help"])
    example = capsys.readouterr().out.partition("\n  tenants:")[2].partition("\n\n")[0]
    content = yaml.load(f"  tenants:{example}", Loader)
    assert list(content["tenants"]["acme"]["networks"]["db"]["endpoints"]) == ["db1", "db2", "db[3-9]"]
    assert is_read(content)
    assert is_valid(content)


@pytest.mark.parametrize(
    "text",
    [
        "tenants: {acme: {subnet_pool: 10.0.0.0/8, vlans: 10-20, networks: {web: }}}",
        "networks: {web: 10.1.1.0/24, db: {subnets: [10.1.2.0/24, 'fd00::/64'], gateways: 10.1.2.1, tag: 5}}",
        "networks: {web: {subnet: none, encap: vxlan, endpoints: 5}, a: {endpoints: [x, y]}}",
        "networks: {web: {subnets: auto, endpoints: {a: , b: c1@h1, 'c[1-3]': {address: 10.1.1.5}}}}",
        "networks: {web: {subnet: 10.1.1.0/24, pools: {vip: 10.1.1.9, b: [10.1.1.10-10.1.1.20]}}}",
        "hosts: [h1, h2]",
    ],
)
def test_what_is_read_is_valid(text: str) -> None:
    content = yaml.load(text, Loader)
    assert is_read(content)
    assert is_valid(content)


@pytest.mark.parametrize(
    "text",
    [
        "tenant: {acme: }",
        "networks: {web: {encap: gre}}",
        "networks: {web: {tag: many}}",
        "networks: {web: {endpoints: {a: {adress: 10.1.1.5}}}}",
        "networks: [web]",
        "networks: {Web: }",
        "hosts: h1",
    ],
)
def test_what_is_not_valid_is_not_read(text: str) -> None:
    content = yaml.load(text, Loader)
    assert not is_read(content)
    assert not is_valid(content)
