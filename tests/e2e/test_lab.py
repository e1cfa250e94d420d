"""A cluster on one machine: it comes up, its hosts are hosts, and nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.lab import layout
from tests.harness import lab as labs
from tests.harness.lab import Lab, command, mounts, until, words
from tests.harness.netns import links
from tests.requires import needs_ovs

pytestmark = [needs_ovs, pytest.mark.long]

SUBNET = "10.5.0.0/24"
OTHER = ("--prefix", "other")  # names beside those of the lab that the whole file shares


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.running_lab("--hosts", "3") as running:
        yield running


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where a lab may be made, at a path short enough for sockets; nothing is left of one after the test."""
    with tempfile.TemporaryDirectory(prefix="lab") as name:
        before = traces()
        yield Path(name) / "l"
        assert command(Path(name) / "l", "down").returncode == 0
        assert traces() == before
        assert list(Path(name).iterdir()) == []


def traces() -> tuple[set[str], list[str], list[str]]:
    """What a lab could leave: links, named namespaces, mounts."""
    folder = layout.NAMED_NAMESPACES
    named = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    return links(), named, mounts()


def processes_of(directory: Path) -> list[str]:
    """The command lines of all processes that speak of a lab's folder, but for ours."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(directory) in line and int(entry.name) != os.getpid():
            found.append(line)
    return found


def test_every_host_is_ready_and_the_whole_cluster_well(lab: Lab) -> None:
    assert lab.command("status").count(" ready ") == 3
    for host in lab.hosts:
        assert host.type("hostname").strip() == host.name
        assert [row["name"] for row in host.show("host list")] == ["h1", "h2", "h3"]
        said = host.type("netctl status")
        assert said.count("3 replica(s)") == 3
        assert {"ipam@h1", "ipam@h2", "host@h1", "host@h2", "host@h3"} <= set(said.split())


def test_a_host_has_its_own_switch_address_and_namespaces(lab: Lab) -> None:
    first, second = lab["h1"], lab["h2"]
    first.make_container("only-here")
    assert "only-here" not in second.type("ip netns")
    assert "only-here" in first.type("ip netns")
    for host in (first, second):
        assert host.type("ip -br address show phy-eth0").split()[2].split("/")[0] == str(host.plan.address.ip)
        assert "Bridge vlanBr" in host.type("env -u OVS_RUNDIR ovs-vsctl show")
    first.type("busybox ping -c 1 -W 10 172.30.0.3")
    first.remove_container("only-here")


@pytest.mark.parametrize("encap", ["vlan", "vxlan"])
def test_a_network_goes_from_host_to_host(lab: Lab, encap: str) -> None:
    lab["h1"].type(f"netctl network create {encap} --encap {encap} --subnet 10.6.0.0/24")
    for host in lab.hosts[1:]:
        host.make_container(encap)
        address = f"--address 10.6.0.{host.plan.number}"
        host.type(f"netctl endpoint create {encap}{host.name} --network {encap} {address} --container netns:{encap}")
    ping = f"ip netns exec {encap} busybox ping -c 1 -W 5 10.6.0.2"
    until(lambda: lab["h3"].ended(ping).returncode == 0, "h3 reaches h2")
    for host in lab.hosts[1:]:
        host.type(f"netctl endpoint delete {encap}{host.name}")
        host.remove_container(encap)
    lab["h1"].type(f"netctl network delete {encap}")


def test_tenants_with_the_same_addresses_do_not_meet_on_any_host(lab: Lab) -> None:
    for tenant in ("red", "blue"):
        lab["h1"].type(f"netctl tenant create {tenant}")
        lab["h2"].type(f"netctl -t {tenant} network create web --subnet {SUBNET}")
    for host in lab.hosts:
        number = 10 * host.plan.number
        for tenant, last in (("red", number), ("red", number + 1), ("blue", number), ("blue", number + 2)):
            name = f"{tenant}{last}"
            host.make_container(name)
            address = f"--address 10.5.0.{last}"
            host.type(f"netctl -t {tenant} endpoint create {name} --network web {address} --container netns:{name}")
    for host in lab.hosts:
        number = 10 * host.plan.number
        host.type(f"ip netns exec red{number} busybox ping -c 1 -W 10 10.5.0.{number + 1}")
        host.type(f"ip netns exec blue{number} busybox ping -c 1 -W 10 10.5.0.{number + 2}")
        host.type(f"ip netns exec red{number} busybox ping -c 1 -W 1 10.5.0.{number + 2}", status=1)
        host.type(f"ip netns exec blue{number} busybox ping -c 1 -W 1 10.5.0.{number + 1}", status=1)
    assert len(lab["h3"].show("endpoint list -A")) == 12
    for host in lab.hosts:
        for path in host.type("ip netns list").split():
            if path.startswith(("red", "blue")):
                host.remove_container(path)
    for tenant in ("red", "blue"):
        for endpoint in lab["h1"].show(f"-t {tenant} endpoint list"):
            lab["h1"].type(f"netctl -t {tenant} endpoint delete {endpoint['name']}")


def test_exec_gives_back_what_the_command_gave(lab: Lab) -> None:
    ended = command(lab.directory, "exec", "h2", "sh", "-c", "echo $NETPLUGIN_HOST; pwd; exit 7")
    assert (ended.returncode, ended.stdout) == (7, f"h2\n{Path.cwd()}\n")
    assert command(lab.directory, "exec", "h2", "netctl", "host", "list").stdout.count("joined") == 3
    assert "it has h1, h2, h3" in command(lab.directory, "exec", "h9", "true").stderr


def test_a_second_lab_in_its_place_or_with_its_names_is_refused(lab: Lab) -> None:
    again = command(lab.directory, "up")
    assert again.returncode == 2
    assert f"there is a lab in {lab.directory} already" in again.stderr
    with tempfile.TemporaryDirectory(prefix="lab") as other:
        taken = command(Path(other) / "l", "up")
        assert (taken.returncode, "namespace np-underlay is there already" in taken.stderr) == (2, True)
        assert list(Path(other).iterdir()) == []
    assert command(lab.directory, "status").returncode == 0


def test_a_host_is_stopped_started_crashed_and_started(lab: Lab) -> None:
    host = lab["h3"]
    lab.command("stop", "h3")
    assert "not as it should be" in lab.command("status", status=1)
    assert host.type("ovs-vsctl br-exists vlanBr") == ""  # its switch goes on
    lab.command("start", "h3")
    host.make_container("lost")
    lab.command("crash", "h3")
    assert " off" in lab.command("status", status=1)
    assert "h3 is off: switch it on with netplugin lab start h3" in lab.command("exec", "h3", "true", status=2)
    assert "3 joined" not in lab["h1"].type("netctl host list")
    lab.command("start", "h3")
    assert "lost" not in host.type("ip netns")
    lab.until_well()


def test_nothing_is_left_of_one(folder: Path) -> None:
    made = command(folder, "up", "--hosts", "1", *OTHER)
    assert made.returncode == 0, made.stderr
    assert command(folder, "exec", "h1", "ip", "netns", "add", "c1").returncode == 0
    assert command(folder, "exec", "h1", "sh", "-c", "exec setsid sleep 1000 >/dev/null 2>&1 &").returncode == 0
    ended = command(folder, "down")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert processes_of(folder) == []
    assert not folder.exists()
    assert "nothing to end" in command(folder, "down").stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("at", ["lab.json", "h2/init.pid", "h1/netplugin.log"])
def test_one_that_was_cut_short_leaves_nothing(folder: Path, number: signal.Signals, at: str) -> None:
    with subprocess.Popen(
        words(folder, "up", "--nats", "1", *OTHER), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as making:
        until(lambda: (folder / at).exists() or making.poll() is not None, f"{at} is there")
        assert making.poll() is None
        making.send_signal(number)
        said, _ = making.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert command(folder, "status").returncode == 1
        assert "already" in command(folder, "up").stderr
        assert command(folder, "down").returncode == 0
    else:
        assert (making.returncode, "Traceback" in said) == (130, False), said
    assert processes_of(folder) == []
    assert not folder.exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--hosts", "0"), "--hosts is 0: expected 1 to 64"),
        (("--hosts", "2", "--nats", "3"), "--nats is 3 with 2 hosts: expected 1, 3 or 5, and a host for each"),
        (("--prefix", "a-b"), "--prefix is 'a-b': expected 1 to 8 letters and digits"),
        (("--mtu", "100"), "--mtu is 100: expected 1280 to 9000 bytes"),
    ],
)
def test_what_cannot_be_is_refused(folder: Path, flags: tuple[str, ...], says: str) -> None:
    refused = command(folder, "up", *flags)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert says in refused.stderr


def test_too_little_room_is_said_before_anything_is_made(folder: Path) -> None:
    place = folder.parent / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", place], check=True)
    try:
        refused = command(place / "l", "up")
        assert refused.returncode == 2
        assert "free: another --dir" in refused.stderr
        assert list(place.iterdir()) == []
    finally:
        subprocess.run(["umount", place], check=True)
        place.rmdir()


def test_without_open_vswitch_it_says_what_to_install(folder: Path) -> None:
    hidden = 'mount --bind /dev/null "$(readlink -f "$(command -v ovs-vswitchd)")" && exec "$@"'
    shell = ("unshare", "--mount", "sh", "-c", hidden, "sh", *words(folder, "up"))
    refused = subprocess.run(shell, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert "ovs-vswitchd is not installed" in refused.stderr


@pytest.mark.long
def test_nine_hosts_fit(folder: Path) -> None:
    made = command(folder, "up", "--hosts", "9", *OTHER, timeout_s=240)
    assert made.returncode == 0, made.stdout + made.stderr
    print(made.stdout)
    assert command(folder, "status").stdout.count(" ready ") == 9
    listed = command(folder, "exec", "h9", "netctl", "host", "list").stdout
    assert listed.count("joined") == 9, listed
    created = command(folder, "exec", "h9", "netctl", "network", "create", "web")
    assert created.returncode == 0, created.stderr
