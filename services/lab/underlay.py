"""The underlay: one bridge in a namespace of its own, and a cable from it to every host's eth0."""

from __future__ import annotations

import subprocess

from ..runtime.errors import Misconfigured, Unavailable
from .layout import Lab, LabHost

BRIDGE = "ubr"
NIC = "eth0"


def make_underlay(lab: Lab) -> None:
    """The underlay's namespace and bridge stand. Raises: Misconfigured when the name is taken."""
    make_namespace(lab.underlay)
    _ip(
        lab.underlay,
        "link set lo up",
        f"link add {BRIDGE} mtu {lab.underlay_mtu_bytes} type bridge",
        f"link set {BRIDGE} up",
    )


def plug_in(host: LabHost) -> None:
    """The host's namespace stands, with an eth0 on the underlay. Raises: Misconfigured when the name is taken."""
    make_namespace(host.namespace)
    mtu = host.lab.underlay_mtu_bytes
    _ip(
        host.lab.underlay,
        f"link add {host.plug} mtu {mtu} type veth peer name {NIC} mtu {mtu} netns {host.namespace}",
        f"link set {host.plug} master {BRIDGE} up",
    )
    _ip(host.namespace, "link set lo up", f"link set {NIC} up")


def make_namespace(name: str) -> None:
    """A named network namespace stands that did not before. Raises: Misconfigured, Unavailable."""
    made = subprocess.run(("ip", "netns", "add", name), capture_output=True, text=True, check=False)
    if "File exists" in made.stderr:
        raise Misconfigured(
            f"the network namespace {name} is there already: another lab has it, or one was not taken down; "
            "end that with netplugin lab down --dir ITS-DIR, or choose another --prefix"
        )
    if made.returncode != 0:
        raise Unavailable(f"ip netns add {name}: {made.stderr.strip()}")


def remove_namespace(name: str) -> None:
    """There is no network namespace of this name, and its links are gone with the last process in it. Idempotent."""
    gone = subprocess.run(("ip", "netns", "delete", name), capture_output=True, text=True, check=False)
    if gone.returncode != 0 and "No such file" not in gone.stderr:
        raise Unavailable(f"ip netns delete {name}: {gone.stderr.strip()}")


def _ip(namespace: str, *lines: str) -> None:
    """These have been done in `namespace`. Raises: Unavailable with the words of `ip`."""
    done = subprocess.run(
        ("ip", "-n", namespace, "-batch", "-"), input="\n".join(lines), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Unavailable(f"ip -n {namespace}: {done.stderr.strip()}")
