"""Makes this host a member of the cluster: says what it is, until somebody who decides has taken it in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address

import anyio
import msgspec
import structlog

from messages import subjects
from messages.codec import MSGPACK, Malformed, decode_reply, encode
from messages.host import JoinHost
from messages.replies import Accepted, Refused
from services.runtime.bus import Bus
from services.runtime.errors import Unavailable
from services.runtime.journal import COMMAND_ID_HEADER

from .back_off import delay_s
from .underlay import Underlay

log = structlog.get_logger()

RETRY_MAX_S = 2.0
LOOK_EVERY_S = 5.0
UNDERLAY_WITHIN_S = 3.0  # a switch that was started again has its address back by then
LOOK_AGAIN_S = 0.1

LookAtUnderlay = Callable[[IPv4Address | IPv6Address], Awaitable[Underlay | None]]


class HostFacts(msgspec.Struct, frozen=True):
    """What a host says of itself."""

    host: str
    driver: str
    bridge: str
    version: str
    vtep: IPv4Address | IPv6Address | None = None
    uplinks: tuple[str, ...] = ()


async def keep_joined(
    bus: Bus,
    facts: HostFacts,
    datapath: str,
    look: LookAtUnderlay,
    new_id: Callable[[], str],
    on_joined: Callable[[Underlay | None], None],
) -> None:
    """The host is known with its end of the tunnels, and again whenever that is another; `on_joined` each time.

    An address that goes away for a moment is not unsaid: others would give up their way here. Ends at once for a host
    without a VTEP.
    """
    underlay = await _first_look(facts, look)
    await join(bus, facts, datapath, underlay, new_id())
    on_joined(underlay)
    while facts.vtep is not None:
        await anyio.sleep(LOOK_EVERY_S)
        found = await look(facts.vtep)
        if found is not None and _said(found) != _said(underlay):
            underlay = found
            await join(bus, facts, datapath, underlay, new_id())
            on_joined(underlay)


async def _first_look(facts: HostFacts, look: LookAtUnderlay) -> Underlay | None:
    if facts.vtep is None:
        return None
    with anyio.move_on_after(UNDERLAY_WITHIN_S):
        while True:
            underlay = await look(facts.vtep)
            if underlay is not None:
                return underlay
            await anyio.sleep(LOOK_AGAIN_S)
    log.warning("vtep-missing", vtep=str(facts.vtep), effect="no other host finds this one", remedy="add the address")
    return None


def _said(underlay: Underlay | None) -> tuple[str, int] | None:
    return (underlay.mac, underlay.mtu_bytes) if underlay is not None else None


async def join(bus: Bus, facts: HostFacts, datapath: str, underlay: Underlay | None, command_id: str) -> None:
    """The host is known, or was refused (which is logged). Tries again for as long as nobody answers."""
    command = JoinHost(
        tenant=subjects.FABRIC,
        host=facts.host,
        driver=facts.driver,
        datapath=datapath,
        version=facts.version,
        bridge=facts.bridge,
        vtep=facts.vtep if underlay is not None else None,
        vtep_mac=underlay.mac if underlay is not None else None,
        underlay_mtu_bytes=underlay.mtu_bytes if underlay is not None else 0,
        uplinks=facts.uplinks,
    )
    headers = {"Content-Type": MSGPACK, COMMAND_ID_HEADER: command_id}
    attempts = 0
    while True:
        try:
            answer = await bus.request(
                subjects.command(subjects.FABRIC, "host", "join"), encode(command), headers=headers
            )
            reply = decode_reply(answer.payload)
        except (Unavailable, Malformed) as fault:
            detail = str(fault)
        else:
            if isinstance(reply, Accepted):
                log.info("host-joined", host=facts.host, seq=reply.seq)
                return
            if isinstance(reply, Refused):
                log.error("host-refused", host=facts.host, code=reply.code, detail=reply.detail)
                return
            detail = str(reply)
        if not attempts:
            log.info("host-not-joined-yet", host=facts.host, detail=detail)
        attempts += 1
        await anyio.sleep(delay_s(attempts, max_s=RETRY_MAX_S))
