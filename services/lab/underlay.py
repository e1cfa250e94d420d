"""The underlay: one bridge in a namespace of its own, and a cable from it to every host's eth0.

A name that the lab has given to a namespace is also a file in DIR/names, from before the namespace stands until after
it is gone: whatever ends us, `lab down` takes away what this lab made, and nothing that another has made.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from ..runtime.errors import Misconfigured, Unavailable
from .layout import NAMED_NAMESPACES, Lab, LabHost

BRIDGE = "ubr"
NIC = "eth0"


def make_underlay(lab: Lab) -> None:
    """The underlay's namespace and bridge stand. Raises: Misconfigured when the name is taken."""
    mtu = lab.underlay_mtu_bytes
    _make_namespace(lab, lab.underlay)
    _ip(lab.underlay, "link set lo up", f"link add {BRIDGE} mtu {mtu} type bridge", f"link set {BRIDGE} up")


def remove_underlay(lab: Lab) -> None:
    """It is gone, with the cables. Idempotent."""
    _remove_namespace(lab, lab.underlay)


def plug_in(host: LabHost) -> None:
    """The host's namespace stands, with an eth0 on the underlay. Raises: Misconfigured when the name is taken."""
    _make_namespace(host.lab, host.namespace)
    mtu = host.lab.underlay_mtu_bytes
    _ip(
        host.lab.underlay,
        f"link add {host.plug} mtu {mtu} type veth peer name {NIC} mtu {mtu} netns {host.namespace}",
        f"link set {host.plug} master {BRIDGE} up",
    )
    _ip(host.namespace, "link set lo up", f"link set {NIC} address {host.mac} up")


def unplug(host: LabHost) -> None:
    """The host's cable and namespace are gone. Idempotent."""
    if _name_file(host.lab, host.lab.underlay).exists():
        words = ("ip", "-n", host.lab.underlay, "link", "delete", host.plug)
        subprocess.run(words, capture_output=True, check=False)  # left to the kernel it would be there for a while
    _remove_namespace(host.lab, host.namespace)


def _name_file(lab: Lab, name: str) -> Path:
    return lab.names_dir / name


def _make_namespace(lab: Lab, name: str) -> None:
    """A named network namespace stands that did not before. Raises: Misconfigured, Unavailable."""
    lab.names_dir.mkdir(exist_ok=True)
    _name_file(lab, name).touch()
    made = subprocess.run(("ip", "netns", "add", name), capture_output=True, text=True, check=False)
    if "File exists" in made.stderr:
        _name_file(lab, name).unlink()
        raise Misconfigured(
            f"the network namespace {name} is there already: another lab has it, or one was not taken down; "
            "end that with netplugin lab down --dir ITS-DIR, or choose another --prefix"
        )
    if made.returncode != 0:
        raise Unavailable(f"ip netns add {name}: {made.stderr.strip()}")


def _remove_namespace(lab: Lab, name: str) -> None:
    """There is no network namespace of this name if it was this lab's. Raises: Unavailable. Idempotent."""
    file = _name_file(lab, name)
    if not file.exists():
        return
    if (NAMED_NAMESPACES / name).exists():
        gone = subprocess.run(("ip", "netns", "delete", name), capture_output=True, text=True, check=False)
        if gone.returncode != 0:
            raise Unavailable(f"ip netns delete {name}: {gone.stderr.strip()}")
    file.unlink()


def _ip(namespace: str, *lines: str) -> None:
    """These have been done in `namespace`. Raises: Unavailable with the words of `ip`."""
    done = subprocess.run(
        ("ip", "-n", namespace, "-batch", "-"), input="\n".join(lines), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Unavailable(f"ip -n {namespace}: {done.stderr.strip()}")
