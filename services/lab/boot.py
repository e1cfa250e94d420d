"""What a host of a lab does when it is switched on: `python -m services.lab.boot DIR HOST`, inside its namespaces.

Its NIC gets its address, as a machine's does before anything of ours starts; then this process becomes `netplugin`,
which takes the NIC for the VLAN networks.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ..runtime.errors import Misconfigured, Unavailable
from . import layout
from .layout import LabHost
from .underlay import NIC


def main() -> None:
    """Become the host's daemon. Exit status 1, with the reason, where that cannot be."""
    directory, name = sys.argv[1:]
    try:
        host = layout.read(Path(directory)).host(name)
        give_address(host)
    except (Misconfigured, Unavailable) as fault:
        sys.exit(f"{name}: {fault}")
    words = daemon_command(host)
    os.execve(words[0], words, {**os.environ})  # noqa: S606  (no shell is wanted)


def give_address(host: LabHost) -> None:
    """The host has its address on the underlay: where it was put, else on its NIC. Raises: Unavailable. Idempotent."""
    if f" {host.address} " not in _said("ip", "-o", "address", "show"):
        _said("ip", "address", "add", str(host.address), "dev", NIC)


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
        "--uplink",
        NIC,
        "--vtep",
        str(host.address.ip),
    )


def _said(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    main()
