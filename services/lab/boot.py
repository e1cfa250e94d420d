"""What a host of a lab does when it is switched on: `python -m services.lab.boot DIR HOST`, inside its namespaces.

Its switch, its address on the underlay, then `netplugin` in the place of this process. On a real machine the first two
are there before: the address is on a bridge that holds the NIC.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

from .. import open_vswitch
from ..open_vswitch import OpenVSwitch
from ..runtime.errors import Misconfigured, Unavailable
from . import layout
from .layout import LabHost
from .underlay import NIC

UPLINK_BRIDGE = "br-phy"
# The user-space data path reads the NIC beside the kernel, which must not take the same packets once more.
SHIELD = (
    f"table netdev lab {{}}; delete table netdev lab; table netdev lab {{ chain in {{ "
    f"type filter hook ingress device {NIC} priority 0; policy drop; }}; }}"
)


def main() -> None:
    """Become the host's daemon. Exit status 1, with the reason, where that cannot be."""
    directory, name = sys.argv[1:]
    host = layout.read(Path(directory)).host(name)
    try:
        asyncio.run(OpenVSwitch(host.state_dir, host.run_dir).start())
        give_address(host)
    except (Misconfigured, Unavailable) as fault:
        sys.exit(f"{name}: {fault}")
    words = daemon_command(host)
    os.execve(words[0], words, {**os.environ})  # noqa: S606  (no shell is wanted)


def give_address(host: LabHost) -> None:
    """The host's bridge holds its NIC and its address on the underlay. Raises: Unavailable. Idempotent."""
    mtu = f"mtu_request={host.lab.underlay_mtu_bytes}"
    bridge = ("--", "set", "Bridge", UPLINK_BRIDGE, "datapath_type=netdev", f"other_config:hwaddr={host.mac}")
    nic = ("--", "--may-exist", "add-port", UPLINK_BRIDGE, NIC, "--", "set", "Interface", UPLINK_BRIDGE, mtu)
    database = f"--db=unix:{host.run_dir / 'ovs' / 'db.sock'}"
    _run(open_vswitch.find_program("ovs-vsctl"), database, "--may-exist", "add-br", UPLINK_BRIDGE, *bridge, *nic)
    if nft := shutil.which("nft"):
        _run(nft, "--", SHIELD)
    _run("ip", "address", "replace", str(host.address), "dev", UPLINK_BRIDGE)
    _run("ip", "link", "set", UPLINK_BRIDGE, "up")


def daemon_command(host: LabHost) -> tuple[str, ...]:
    """How the host's daemon is started."""
    own = ("--state-dir", str(host.state_dir), "--run-dir", str(host.run_dir), "--host", host.name)
    return (
        sys.executable,
        "-P",
        "-m",
        "services.netplugin",
        *own,
        "--actors",
        ",".join(host.actors),
        "--vtep",
        str(host.address.ip),
    )


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"{Path(words[0]).name} failed with status {done.returncode}: {done.stderr.strip()}")


if __name__ == "__main__":
    main()
