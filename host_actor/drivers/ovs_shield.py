"""What containers send is for the switch alone: this host's own network does not hear it.

With the data path in user space, a packet that comes in by a port's device goes to the switch's packet socket and up
the kernel's own stack as well, past every flow. The host would take it for one of its own addresses, or with forwarding
on (which Docker puts on) pass it on with whatever source it claims. One rule drops it after the switch has seen it. The
kernel's data path takes packets away from the device, and needs none of this.

Source: Open vSwitch, "Open vSwitch without Kernel Support", which asks for the same with iptables.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import Final

import structlog

TABLE: Final = "netplugin"  # of the family inet; `netplugin --clean` removes it
_SEARCH_PATH: Final = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
_BEFORE_ALL_ELSE: Final = -350  # before connection tracking and what others have in `raw`

log = structlog.get_logger()


def ruleset(device_prefix: str) -> str:
    """For `nft -f`: the table holds this rule and nothing else, however often it is read."""
    return (
        f"table inet {TABLE}\n"
        f"flush table inet {TABLE}\n"
        f"table inet {TABLE} {{\n chain from_containers {{\n"
        f"  type filter hook prerouting priority {_BEFORE_ALL_ELSE}; policy accept;\n"
        f'  iifname "{device_prefix}*" drop\n'
        f" }}\n}}\n"
    )


async def shield_host(device_prefix: str) -> None:
    """This host hears nothing from devices of this prefix; where that cannot be had, it is said."""
    program = shutil.which("nft", path=_SEARCH_PATH)
    if program is None:
        _warn("there is no nft (package nftables)")
        return
    pipe = asyncio.subprocess.PIPE
    running = await asyncio.create_subprocess_exec(program, "-f", "-", stdin=pipe, stdout=pipe, stderr=pipe)
    _, said = await running.communicate(ruleset(device_prefix).encode())
    if running.returncode:
        _warn(f"nft ended with {running.returncode}: {said.decode(errors='replace').strip()[:300]}")


def _warn(reason: str) -> None:
    log.warning(
        "host-not-shielded",
        reason=reason,
        effect="containers may reach this host's own addresses, unless rp_filter keeps them from it",
        remedy="install nftables, and start netplugin again",
    )
