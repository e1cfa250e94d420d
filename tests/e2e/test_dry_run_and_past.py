"""What would be, and what was: `--dry-run` and `--at`, as a person types them; tenants and hosts watched."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import daemon
from tests.harness.daemon import Host
from tests.harness.netns import network_namespace
from tests.harness.typed import Shell
from tests.requires import needs_ovs

pytestmark = needs_ovs


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="np") as folder, daemon.host(Path(folder)) as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def shell(host: Host) -> Shell:
    return Shell(host)


def last_seq(shell: Shell) -> int:
    return int(shell.events()[-1]["seq"])


def test_what_is_tried_is_shown_and_not_done(shell: Shell) -> None:
    with network_namespace("c1"):
        shell.type("netctl network create web --subnet 12.0.0.0/24")
        before = last_seq(shell)
        said = shell.type("netctl endpoint create e1 --network web --container netns:c1 --dry-run")
        assert "nothing was done" in said
        assert "endpoint-bound" in said
        fields = json.loads(shell.type("netctl network create db --dry-run -o json"))
        assert fields["is_dry_run"] is True
        assert {each["event"]["type"] for each in fields["events"]} >= {"network-created", "segment-taken"}
        assert fields["object"]["name"] == "db"
        for line in ("network delete web", "tenant create acme", "network create web --subnet 12.0.0.0/24"):
            shell.type(f"netctl {line} --dry-run")
        assert "it is so already" in shell.type("netctl network create web --subnet 12.0.0.0/24 --dry-run")
        assert last_seq(shell) == before
        shell.type("netctl endpoint create e1 --network web --container netns:c1")
        for line in ("detach e1", "delete e1"):
            assert "nothing was done" in shell.type(f"netctl endpoint {line} --dry-run")
        assert shell.show("endpoint show e1")["status"]["state"] == "bound"
        shell.type("netctl endpoint delete e1")


def test_the_past_is_shown_as_it_was(host: Host, shell: Shell) -> None:
    shell.type("netctl network create old --subnet 13.0.0.0/24")
    then = last_seq(shell)
    was = shell.show("network show old")
    shell.type("netctl network delete old")
    assert "old" not in shell.type("netctl network list -o name")
    assert "old" in shell.type(f"netctl network list --at {then} -o name")
    assert shell.show(f"network show old --at {then}") == was
    for noun in ("tenant", "host", "endpoint"):
        shell.type(f"netctl {noun} list --at {then}")
    assert shell.type("netctl network list --at 1d -o name").split() == []
    future = host.netctl("network", "list", "--at", "99999", check=False)
    assert (future.returncode, "at-in-the-future" in future.stderr) == (1, True)
    wrong = host.netctl("network", "list", "--at", "soon", check=False)
    assert (wrong.returncode, "is no point" in wrong.stderr) == (2, True)


def test_tenants_and_hosts_are_watched(host: Host, shell: Shell) -> None:
    for noun, key in (("tenant", "seen"), ("host", "h1")):
        command = host.namespace.command(sys.executable, "-m", "services.cli.netctl", noun, "watch", "-o", "jsonl")
        watching = subprocess.Popen(command, env=host.environment, stdout=subprocess.PIPE, text=True)
        with watching:
            assert watching.stdout is not None
            lines = (json.loads(line) for line in watching.stdout)
            assert next(lines)["name"] in ("default", "h1")
            if noun == "tenant":
                shell.type(f"netctl tenant create {key}")
                assert next(each for each in lines if each["name"] == key)["status"]["state"] == "active"
                shell.type(f"netctl tenant delete {key}")
                assert next(each for each in lines if each.get("is_deleted"))["name"] == key
            watching.kill()
