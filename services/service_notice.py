"""Tells the service manager how the daemon is, where one has started it. Source: sd_notify(3)."""

from __future__ import annotations

import os
import socket

import structlog

VARIABLE = "NOTIFY_SOCKET"
READY = "READY=1"
STOPPING = "STOPPING=1"

log = structlog.get_logger()


def notify(*facts: str) -> None:
    """The service manager has been told; nothing happens where there is none."""
    address = os.environ.get(VARIABLE, "")
    if not address:
        return
    if address.startswith("@"):  # abstract
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        try:
            manager.sendto("\n".join(facts).encode(), address)
        except OSError as fault:
            log.warning("service-manager-not-told", socket=address, detail=str(fault))
