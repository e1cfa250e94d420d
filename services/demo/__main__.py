"""`make demo`: the walk of the README on real containers, each command printed with what it really says.

Runs in network and mount namespaces of its own (see `scripts/isolated`), with its own nats-server, Open vSwitch and,
where Docker is installed, its own engine. Everything it starts ends with it, and its one folder goes with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from .engine import Engine, EngineFailed
from .stage import DemoFailed, Stage

INTERRUPTED = 130  # 128 + SIGINT
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


class Kind(NamedTuple):
    """What a container is here: how one is made, how a command runs in it, and how it is referred to."""

    make: str
    inside: str
    reference: str


DOCKER = Kind("docker run -itd --name={0} --hostname={0} ubuntu /bin/bash", "docker exec {0}", "{0}")
NAMESPACE = Kind("ip netns add {0}", "ip netns exec {0} busybox", "netns:{0}")


def walk(stage: Stage, stack: ExitStack, kind: Kind) -> None:
    """The seed's walk: a network, an endpoint, a container, packets, the switch, and away again."""
    one, two = (kind.reference.format(name) for name in ("myContainer1", "myContainer2"))
    stage.say("A network, and an endpoint of it with a tag and an address of its own")
    stage.step("netdcli -oper create -construct network tenant1-net1")
    stage.step("netdcli -oper get -construct network tenant1-net1", expect='"active"')
    create = "netdcli -oper create -construct endpoint -net-id tenant1-net1"
    stage.step(f'{create} -tag 12 -ip-address="11.1.1.1" tenant1-net1-ep1', expect="11.1.1.1/24")
    stage.step("netdcli -oper get -construct network tenant1-net1", expect="11.1.1.0/24")
    stage.step("netdcli -oper get -construct endpoint tenant1-net1-ep1", expect="11.1.1.1")
    stage.say("A container, attached to the endpoint")
    terminal = None
    if kind is DOCKER:
        terminal = stage.terminal(stack, "docker run -it --name=myContainer1 --hostname=myContainer1 ubuntu /bin/bash")
        stage.say("In another terminal")
    else:
        stage.step(kind.make.format("myContainer1"))
    attach = f"netdcli -oper attach -construct endpoint -container-id {one} tenant1-net1-ep1"
    stage.step(attach, expect="bound to")
    stage.say("A second container, attached while its endpoint is created; the address is chosen")
    stage.step(kind.make.format("myContainer2"))
    stage.step(f"{create} -cont-id {two} tenant1-net1-ep2", expect="11.1.1.2/24, bound to")
    stage.say("Packets: they answer from 11.1.1.x" + (", here in the first container's terminal" if terminal else ""))
    if terminal:
        stage.type(terminal, "ip address show eth0", expect="11.1.1.1/24")
        stage.type(terminal, "ping -c 2 11.1.1.2", expect="from 11.1.1.2")
    else:
        stage.step(f"{kind.inside.format('myContainer1')} ping -c 2 11.1.1.2", expect="from 11.1.1.2")
    stage.step(f"{kind.inside.format('myContainer2')} ping -c 2 11.1.1.1", expect="from 11.1.1.1")
    stage.say("The port is on the bridge vlanBr with its tag, and is a device of this host")
    stage.step("ovs-vsctl show", expect="tag: 12")
    stage.step("ip link show", expect=" np")
    walk_of_another_tenant(stage, kind)
    walk_through_a_crash(stage, kind)
    stage.say("Detach and delete")
    stage.step(f"netdcli -oper detach -construct endpoint -container-id {one} tenant1-net1-ep1")
    stage.step("netdcli -oper delete -construct endpoint tenant1-net1-ep1")
    stage.step("netdcli -oper get -construct network tenant1-net1", expect='"endpoints": 1')
    stage.say("Is all well? And the journal of all that happened")
    stage.step("netctl status")
    stage.step("netctl events watch --since 0 --no-follow", expect="endpoint-deleted")


def walk_of_another_tenant(stage: Stage, kind: Kind) -> None:
    """A second tenant uses the same addresses; nothing of one reaches the other."""
    stage.say("Another tenant with the same addresses: disjoint, although it has 11.1.1.1 and 11.1.1.2 too")
    stage.step("netctl tenant create blue")
    stage.step("netctl -t blue network create web --subnet 11.1.1.0/24")
    for number in (1, 2):
        name = f"blue{number}"
        stage.step(kind.make.format(name))
        reference = kind.reference.format(name)
        stage.step(f"netctl -t blue endpoint create web{number} --network web --container {reference}")
    stage.step(f"{kind.inside.format('blue1')} ping -c 1 11.1.1.2", expect="from 11.1.1.2")
    if kind is DOCKER:
        stage.say("A container may come later: its endpoint waits, and is bound when it starts")
        stage.step("netctl -t blue endpoint create web3 --network web --container blue3", expect="waiting for blue3")
        with stage.until("netctl -t blue endpoint watch --network web", expect=r"web3 .*\bbound\b"):
            stage.step(kind.make.format("blue3"))
    else:
        stage.step(kind.make.format("blue3"))
        stage.step("netctl -t blue endpoint create web3 --network web --container netns:blue3")
    stage.say("11.1.1.3 is there for blue, and for nobody else")
    stage.step(f"{kind.inside.format('blue1')} ping -c 1 11.1.1.3", expect="from 11.1.1.3")
    stage.step(f"{kind.inside.format('myContainer1')} ping -c 1 -W 1 11.1.1.3", expect="100% packet loss", status=1)
    stage.step("netctl endpoint list --all-tenants", expect="web3")


def walk_through_a_crash(stage: Stage, kind: Kind) -> None:
    """All of it is killed while packets flow, and started again: not one is lost, and everything is as it was."""
    stage.say("Killing it hurts nobody: no packet is lost while all but the switch is killed and started again")
    with stage.meanwhile(
        f"{kind.inside.format('myContainer1')} ping -q -c 30 -i 0.1 11.1.1.2", expect=" 0% packet loss"
    ):
        stage.kill_daemon()
        stage.start_daemon()
    stage.step("netctl endpoint list --all-tenants", expect="tenant1-net1-ep1")


def containers(stage: Stage, stack: ExitStack) -> Kind:
    """What the walk takes for containers: those of an engine that ends when `stack` unwinds, or named namespaces."""
    try:
        engine = stack.enter_context(Engine(stage.folder / "engine"))
        engine.import_busybox("ubuntu:latest")
    except EngineFailed as reason:
        stage.say(f"Named network namespaces are the containers, for there is no Docker engine: {reason}")
        return NAMESPACE
    stage.environment |= engine.environment
    with suppress(OSError):  # Docker warns without it; in a network namespace of our own it changes nothing for others
        if os.environ.get("NETPLUGIN_ISOLATED"):
            FORWARDING.write_text("1\n")
    return DOCKER


def main() -> int:
    """Run the walk. Returns the exit status: 0 when every step did what it says."""
    build = Path(os.environ.get("NETPLUGIN_BUILD_DIR", "build"))
    build.mkdir(exist_ok=True)
    began_s = time.monotonic()
    with ExitStack() as stack:
        # Unix sockets have paths of at most 107 characters, so the folder's own is kept short.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="demo-", dir=build.resolve())))
        stage = Stage(folder)
        try:
            kind = containers(stage, stack)
            stack.callback(stage.end)
            stage.say("The daemon, in the background, with its own nats-server and Open vSwitch")
            stage.start_daemon()
            walk(stage, stack, kind)
        except (DemoFailed, subprocess.TimeoutExpired) as fault:
            print(f"\ndemo failed: {fault}\nThe end of the log:\n{stage.end_of_log()}", file=sys.stderr)
            return 1
    stage.say(
        f"All of it is gone again: processes, namespaces, links, bridge and files ({time.monotonic() - began_s:.0f} s)"
    )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
