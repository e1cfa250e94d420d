"""`make cluster`: three hosts, three nats-servers, two tenants with the same addresses; commands and what they say."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEP_WITHIN_S = 120.0
INTERRUPTED = 130  # 128 + SIGINT
SUBNET = "10.1.1.0/24"
TENANTS = ("acme", "blue")
PLACES = {"web1": ("h1", "10.1.1.1"), "web2": ("h2", "10.1.1.2"), "web3": ("h3", "10.1.1.3")}
ONLY_OF_ACME = "web3"  # blue has no such endpoint: whoever of blue reaches its address has left the tenant


class WalkFailed(Exception):
    """A step did not do what the walk says it does."""


class Walk:
    """Commands as typed, in a folder for the lab, and what they say."""

    def __init__(self, folder: Path) -> None:
        self._environment = {
            **os.environ,
            "PATH": os.pathsep.join(
                (str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/sbin")
            ),
            "NETPLUGIN_LAB_DIR": str(folder),
        }

    def say(self, text: str) -> None:
        """A sentence between the commands."""
        sys.stdout.write(f"\n# {text}\n")
        sys.stdout.flush()

    def step(self, command: str, expect: str = "", status: int = 0) -> None:
        """One command, run as typed; it and what it said are shown. Raises: WalkFailed when it is not as expected."""
        sys.stdout.write(f"$ {command}\n")
        self._run(command, expect, status)

    def _run(self, command: str, expect: str, status: int) -> None:
        sys.stdout.flush()
        ran = subprocess.run(
            ("/bin/sh", "-c", command),
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=STEP_WITHIN_S,
            check=False,
        )
        sys.stdout.write(ran.stdout)
        sys.stdout.flush()
        if ran.returncode != status:
            raise WalkFailed(f"{command!r} ended with status {ran.returncode}, expected {status}")
        if expect not in ran.stdout:
            raise WalkFailed(f"{command!r} did not say {expect!r}")

    def on(self, host: str, command: str, expect: str = "", status: int = 0) -> None:
        """One command on a host of the lab, as `step` does it."""
        self.step(f"netplugin lab exec {host} {command}", expect, status)

    def until(self, host: str, command: str, expect: str) -> None:
        """One command on a host, again and again until it says what is expected; the last is shown."""
        line = f'until said=$(netplugin lab exec {host} {command}); do :; done; echo "$said"'
        sys.stdout.write(f"$ netplugin lab exec {host} {command}\n")
        self._run(line, expect, 0)


def walk(stage: Walk) -> None:
    """The cluster from its first host to its last packet. Raises: WalkFailed."""
    stage.say("Three hosts, each with its own switch and daemon; three nats-servers that are one; ipam in two copies")
    stage.step("netplugin lab up --hosts 3 --nats 3", expect="the lab is up")
    stage.on("h1", "netctl host list", expect="h3")
    for tenant in TENANTS:
        stage.say(f"The tenant {tenant}, with a network across the hosts, in {SUBNET}")
        stage.on("h1", f"netctl tenant create {tenant}")
        stage.on("h1", f"netctl -t {tenant} network create web --encap vxlan --subnet {SUBNET}")
        for name, (host, address) in PLACES.items():
            if name == ONLY_OF_ACME and tenant != TENANTS[0]:
                continue
            container = f"{tenant}-{name}"
            stage.on(host, f"ip netns add {container}")
            create = f"netctl -t {tenant} endpoint create {name} --network web"
            stage.on(host, f"{create} --address {address} --container netns:{container}", expect="bound to")
    stage.say("Inside a tenant every endpoint reaches every other, from host to host")
    stage.on("h1", "ip netns exec acme-web1 busybox ping -c 2 10.1.1.2", expect="64 bytes from 10.1.1.2")
    stage.on("h3", "ip netns exec acme-web3 busybox ping -c 2 10.1.1.1", expect="64 bytes from 10.1.1.1")
    stage.on("h2", "ip netns exec blue-web2 busybox ping -c 2 10.1.1.1", expect="64 bytes from 10.1.1.1")
    stage.say("And no other tenant: blue has the same network and no 10.1.1.3")
    nobody = "ip netns exec blue-web1 busybox ping -c 2 -W 1 10.1.1.3"
    stage.on("h1", nobody, expect="100% packet loss", status=1)
    stage.on("h2", "netctl endpoint list --all-tenants", expect="web3")
    stage.say("The power of h3 fails, and with it one nats-server of three: the others go on")
    stage.step("netplugin lab crash h3")
    stage.on("h1", "ip netns exec acme-web1 busybox ping -c 2 10.1.1.2", expect="64 bytes from 10.1.1.2")
    stage.on("h2", "netctl -t blue network create more", expect="blue/more created")
    stage.step("netplugin lab start h3", expect="h3 is ready")
    stage.say("Its container comes back, and is attached again as the journal says")
    stage.on("h3", "ip netns add acme-web3")
    stage.until("h1", "ip netns exec acme-web1 busybox ping -c 1 -W 5 10.1.1.3", expect="64 bytes from 10.1.1.3")
    stage.say("Is all well?")
    stage.until("h2", "netctl status", expect="ipam@h2")


def main() -> int:
    """The exit status of the walk: 0 when every step did what it says, and nothing is left."""
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lab") as folder:
        stage = Walk(Path(folder) / "lab")
        status = 0
        try:
            walk(stage)
        except (WalkFailed, subprocess.TimeoutExpired) as fault:
            sys.stderr.write(f"\nthe walk failed: {fault}\n")
            status = 1
        finally:
            stage.say("Down again")
            stage.step("netplugin lab down")
    if status == 0:
        stage.say(
            f"All of it is gone again: processes, namespaces, links and files ({time.monotonic() - began_s:.0f} s)"
        )
    return status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
