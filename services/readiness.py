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
MISMATCH = "journal-mismatch"  # the state of a host that waits for an operator: host_actor/follower.py


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
    doubts: set[str] = set()
    while missing:
        stirred.clear()
        missing -= await answering(bus, missing, host, doubts)
        if missing:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stirred.wait(), PROBE_EVERY_S)


async def answering(bus: Bus, actors: Iterable[str], host: str, doubts: set[str] | None = None) -> set[str]:
    """Those of `actors` on `host` that answer now, and can do their work.

    One that waits for an operator says so: that is logged, with what to do, unless it is among `doubts`.
    """
    said = set() if doubts is None else doubts
    found = await asyncio.gather(*(_answers(bus, actor, host, said) for actor in sorted(actors)))
    return {actor for actor in found if actor}


async def _answers(bus: Bus, actor: str, host: str, doubts: set[str]) -> str | None:
    def is_there(answers: list[Message]) -> bool:
        own = [facts for answer in answers if (facts := _facts_on(host, answer)) is not None]
        for facts in own:
            _say_doubt(host, facts, doubts)
        return any(facts.get("state") != MISMATCH for facts in own)

    try:
        answers = await bus.request_many(f"$SRV.PING.{actor}", timeout_s=ANSWER_WITHIN_S, enough=is_there)
    except Unavailable:  # nobody has subscribed yet, or the server is being started again
        return None
    return actor if is_there(answers) else None


def _facts_on(host: str, answer: Message) -> dict[str, str] | None:
    """What an actor of this host says of itself; one that does not say where it runs is taken for one. Else None."""
    try:
        facts = json.loads(answer.payload).get("metadata") or {}
    except (ValueError, AttributeError):
        return None
    return facts if isinstance(facts, dict) and str(facts.get("host") or host) == host else None


def _say_doubt(host: str, facts: dict[str, str], doubts: set[str]) -> None:
    reason = str(facts.get("reason", ""))
    if facts.get("state") != MISMATCH or reason in doubts:
        return
    doubts.add(reason)
    log.error(
        "not-ready",
        host=host,
        reason=f"{MISMATCH}: {reason}",
        effect="nothing on this host is changed, and READY is not said",
        remedy=f"restore the right journal, or, to take this one as it is: netctl journal adopt --host {host}",
    )
