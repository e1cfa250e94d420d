"""What can be taken as an uplink, and the settings of a card that are not addresses or routes."""

from __future__ import annotations

import array
import fcntl
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from .netlink_interface import Card

_SIOCGIWNAME: Final = 0x8B01
_SIOCETHTOOL: Final = 0x8946
_ETHTOOL: Final = {"gro": (0x2B, 0x2C, 1), "lro": (0x25, 0x26, 1 << 15)}  # get, set, the bit of what is got
_IFF_LOOPBACK: Final = 0x8
_ETHERNET: Final = 1
_ON_TOP: Final = frozenset(("vlan", "macvlan", "macvtap", "ipvlan", "ipvtap"))
_CONF: Final = Path("/proc/sys/net")
_NOT_COPIED: Final = frozenset(("stable_secret", "mtu", "mc_forwarding"))
_SEARCH_PATH: Final = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
_BEFORE_ALL_ELSE: Final = -500

log = structlog.get_logger()


def check_card(name: str, cards: Mapping[str, Card]) -> tuple[str, str] | None:
    """Why this interface cannot be an uplink, as (code, detail); None when it can.

    Codes: `uplink-unknown`, `uplink-loopback`, `uplink-not-ethernet`, `uplink-wireless`, `uplink-enslaved`,
    `uplink-has-interfaces`, `uplink-name-reserved`.
    """
    card = cards.get(name)
    if card is None:
        there = ", ".join(sorted(cards)) or "none"
        return "uplink-unknown", f"this host has no interface {name} (it has {there}): name another, or plug it in"
    if card.flags & _IFF_LOOPBACK:
        return "uplink-loopback", f"{name} leads nowhere: name the interface of a network card"
    if card.hardware != _ETHERNET:
        return "uplink-not-ethernet", f"{name} is no Ethernet interface (its kind is {card.hardware})"
    if name.startswith("np"):
        return "uplink-name-reserved", f"{name}: names that begin with np are of endpoints; rename the interface"
    if _is_wireless(name):
        return "uplink-wireless", f"{name} is wireless: an access point lets one MAC pass, not those of endpoints"
    if card.master and card.kind != "openvswitch":
        owner = next((other.name for other in cards.values() if other.index == card.master), str(card.master))
        if owner != "ovs-system":
            return "uplink-enslaved", f"{name} belongs to {owner}: name {owner} as the uplink, or take {name} out of it"
    on_top = sorted(other.name for other in cards.values() if other.below == card.index and other.kind in _ON_TOP)
    if on_top:
        return (
            "uplink-has-interfaces",
            f"{', '.join(on_top)} is made upon {name} and would hear nothing: remove it first",
        )
    return None


def _is_wireless(name: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, _SIOCGIWNAME, struct.pack("16s16x", name.encode()))
        except OSError:
            return False
    return True


def copy_settings(source: str, target: str) -> None:
    """The kernel treats packets of one interface as it does those of the other: filters, ARP, router advertisements."""
    for family in ("ipv4", "ipv6"):
        for file in sorted((_CONF / family / "conf" / source).glob("*")):
            other = _CONF / family / "conf" / target / file.name
            if file.name in _NOT_COPIED:
                continue
            with suppress(OSError):  # some are only to be read, some are not there
                value = file.read_text()
                if other.read_text() != value:
                    other.write_text(value)


# What hears the card -----------------------------------------------------------------------------------------------


def _table(interface: str) -> str:
    return f"netplugin_{interface}"


def hear_no_more(interface: str) -> None:
    """What comes in by the card goes to the switch alone; the kernel would hear all of it twice."""
    table = f"table netdev {_table(interface)}"
    chain = f'chain card {{ type filter hook ingress device "{interface}" priority {_BEFORE_ALL_ELSE}; policy drop; }}'
    said = _nft(f"{table}\ndelete {table}\n{table} {{\n{chain}\n}}\n")
    if said:
        log.warning(
            "uplink-heard-twice",
            interface=interface,
            reason=said,
            effect="what comes in for this host's own addresses is answered twice",
            remedy="install nftables, and start netplugin again",
        )


def hear_again(interface: str) -> None:
    """The kernel hears the card."""
    table = f"table netdev {_table(interface)}"
    _nft(f"{table}\ndelete {table}\n")


def _nft(rules: str) -> str:
    """What nft says is wrong; empty when it is done."""
    program = shutil.which("nft", path=_SEARCH_PATH)
    if program is None:
        return "there is no nft (package nftables)"
    ran = subprocess.run((program, "-f", "-"), input=rules, capture_output=True, text=True, check=False)
    return ran.stderr.strip()[:300] if ran.returncode else ""


# What the card does with frames before anybody sees them -----------------------------------------------------------


def switch_off_offloads(interface: str) -> dict[str, int]:
    """The card hands over frames as they came, not several joined to one that is too long to be sent on.

    Returns those that were on, for `restore_offloads`.
    """
    were_on = {}
    for name, (get, change, bit) in _ETHTOOL.items():
        value = _ethtool(interface, get)
        if value is not None and value & bit and _ethtool(interface, change, value & ~bit) is not None:
            were_on[name] = value
    return were_on


def restore_offloads(interface: str, were_on: Mapping[str, int]) -> None:
    """Those are on again."""
    for name, value in were_on.items():
        if name in _ETHTOOL:
            _ethtool(interface, _ETHTOOL[name][1], value)


def _ethtool(interface: str, command: int, value: int = 0) -> int | None:
    """The value that the kernel answered with; None when this interface does not know the command."""
    raw = array.array("B", struct.pack("=II", command, value))
    request = struct.pack("16sP16x", interface.encode(), raw.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
        except OSError:
            return None
    return int(struct.unpack("=II", raw.tobytes())[1])
