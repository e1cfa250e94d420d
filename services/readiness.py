"""Whether the actors answer: the daemon is ready when each of them says so itself, by `$SRV.PING` (ADR-32)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterable

import structlog

from .runtime.bus import Bus, Message, Options, connect
from .runtime.errors import Unavailable

log = structlog.get_logger()

PROBE_EVERY_S = 0.1  # at the latest; a line from any actor is a reason to ask sooner
ANSWER_WITHIN_S = 0.5
CONNECT_EVERY_S = 0.5


async def until_ready(options: Options, actors: Iterable[str], host: str, stirred: asyncio.Event) -> None:
    """What `until_all_answer` says, over a connection of its own; a server that is away is waited for."""
    is_said = False
    while True:
        try:
            async with await connect(options) as bus:
                return await until_all_answer(bus, actors, host, stirred)
        except Unavailable as error:
            if not is_said:
                log.warning("server-away", detail=error.detail, asked_again_every_s=CONNECT_EVERY_S)
            is_said = True
            await asyncio.sleep(CONNECT_EVERY_S)


async def until_all_answer(bus: Bus, actors: Iterable[str], host: str, stirred: asyncio.Event) -> None:
    """Returns when each of `actors` has answered for `host`; `stirred` is set when any of them has printed a line."""
    missing = set(actors)
    while missing:
        stirred.clear()
        missing -= await answering(bus, missing, host)
        if missing:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stirred.wait(), PROBE_EVERY_S)


async def answering(bus: Bus, actors: Iterable[str], host: str) -> set[str]:
    """Those of `actors` on `host` that answer now."""
    found = await asyncio.gather(*(_answers(bus, actor, host) for actor in sorted(actors)))
    return {actor for actor in found if actor}


async def _answers(bus: Bus, actor: str, host: str) -> str | None:
    def is_there(answers: list[Message]) -> bool:
        return any(_is_on(host, answer) for answer in answers)

    try:
        answers = await bus.request_many(f"$SRV.PING.{actor}", timeout_s=ANSWER_WITHIN_S, enough=is_there)
    except Unavailable:  # nobody has subscribed yet, or the server is being started again
        return None
    return actor if is_there(answers) else None


def _is_on(host: str, answer: Message) -> bool:
    """Whether an answer comes from this host; one that does not say where it runs is taken for it."""
    try:
        metadata = json.loads(answer.payload).get("metadata") or {}
    except (ValueError, AttributeError):
        return False
    return str(metadata.get("host") or host) == host
