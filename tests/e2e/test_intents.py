"""A whole intent on a real host: from the file to packets, and away again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness import daemon
from tests.harness.daemon import Host
from tests.harness.netns import NetworkNamespace, network_namespace
from tests.requires import needs_ovs

pytestmark = needs_ovs

TWO_TENANTS = """\
tenants:
  acme:
    networks: {web: {subnet: 10.1.1.0/24, endpoints: {a: "netns:c1", b: "netns:c2", later: }}}
  beta:
    networks: {web: {subnet: 10.1.1.0/24, endpoints: {a: "netns:c3@h1"}}}
"""
LEGACY = {
    "Tenants": [
        {
            "Name": "old",
            "DefaultNetType": "vlan",
            "SubnetPool": "10.2.0.0/16",
            "Vlans": "100-109",
            "Networks": [{"Name": "red", "Endpoints": [{"Container": "netns:c1"}, {"Container": "netns:c2"}]}],
        }
    ]
}


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="np") as folder, daemon.host(Path(folder)) as made:
        made.start()
        yield made


@pytest.fixture
def containers() -> Iterator[dict[str, NetworkNamespace]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(network_namespace(name)) for name in ("c1", "c2", "c3", "c4")}


def pings(source: NetworkNamespace, address: str) -> bool:
    return source.run("busybox", "ping", "-c", "1", "-W", "5", address, check=False).returncode == 0


def test_from_a_file_to_packets(host: Host, containers: dict[str, NetworkNamespace], tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(TWO_TENANTS)
    said = host.netctl("apply", "-f", str(file)).stdout
    assert "+ endpoint acme/web/a: netns:c1 on h1, seq " in said
    assert said.endswith("done: 8 to add, 0 to change, 0 to remove\n")
    states = json.loads(host.netctl("endpoint", "list", "-A", "-o", "json").stdout)
    assert {(each["tenant"], each["name"]): each["status"]["state"] for each in states} == {
        ("acme", "a"): "bound",
        ("acme", "b"): "bound",
        ("acme", "later"): "pending",
        ("beta", "a"): "bound",
    }
    assert pings(containers["c1"], "10.1.1.2")
    assert (
        not containers["c3"].run("busybox", "ping", "-c", "1", "-W", "1", "10.1.1.2", check=False).stdout.count("ttl=")
    )

    (tmp_path / "places").write_text("later: netns:c4\n")
    assert (
        "not attached -> netns:c4 on h1"
        in host.netctl("endpoint", "attach", "-t", "acme", "-f", str(tmp_path / "places")).stdout
    )
    assert pings(containers["c4"], "10.1.1.1")
    assert host.netctl("diff", "-f", str(file)).stdout == ""
    everything = tmp_path / "everything.yaml"
    everything.write_text(host.netctl("export").stdout)
    assert host.netctl("diff", "--prune", "-f", str(everything)).stdout == ""

    file.write_text("tenants: {acme: , beta: }\n")
    said = host.netctl("apply", "--prune", "--yes", "-f", str(file)).stdout
    assert said.endswith("done: 0 to add, 0 to change, 6 to remove\n")
    assert host.netctl("endpoint", "list", "-A", "-o", "name").stdout == ""


def test_an_intent_of_2015(host: Host, containers: dict[str, NetworkNamespace], tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    file.write_text(json.dumps(LEGACY))
    host.netdcli("-cfg", str(file))
    bindings = tmp_path / "bindings.json"
    bindings.write_text(json.dumps([{"Container": f"netns:{name}", "Host": "h1"} for name in ("c1", "c2")]))
    assert "not attached -> netns:c1 on h1" in host.netdcli("-host-bindings-cfg", str(bindings)).stdout
    assert pings(containers["c1"], "10.2.0.2")
    shown = json.loads(host.netctl("endpoint", "list", "-t", "old", "-o", "json").stdout)
    assert [(each["name"], each["status"]["tag"]) for each in shown] == [("red-netns:c1", 100), ("red-netns:c2", 100)]
    file.write_text(json.dumps({"Tenants": [{"Name": "old"}]}))
    assert "- network old/red: vlan 100, 10.2.0.0/24, seq " in host.netdcli("-cfg", str(file)).stdout
    host.netdcli("-del-cfg", str(file))
    assert "old" not in host.netctl("tenant", "list", "-o", "name").stdout.split()
