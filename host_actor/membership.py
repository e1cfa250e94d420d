"""Makes this host a member of the cluster: says what it is, until somebody who decides has taken it in."""

from __future__ import annotations

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

log = structlog.get_logger()

RETRY_MAX_S = 2.0


class HostFacts(msgspec.Struct, frozen=True):
    """What a host says of itself."""

    host: str
    driver: str
    bridge: str
    version: str


async def join(bus: Bus, facts: HostFacts, datapath: str, command_id: str) -> None:
    """The host is known, or was refused (which is logged). Tries again for as long as nobody answers."""
    command = JoinHost(
        tenant=subjects.FABRIC,
        host=facts.host,
        driver=facts.driver,
        datapath=datapath,
        version=facts.version,
        bridge=facts.bridge,
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
