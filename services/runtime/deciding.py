"""A deciding actor in its process: connection, streams, proof of identity, and the shell around its definition."""

from __future__ import annotations

import anyio
import structlog

from . import bus as nats
from . import identity, metrics
from .actor import Actor
from .clock import SystemClock
from .config import Config
from .decision import Definition, StateT
from .identity_check import check_identity
from .journal_jetstream import JetStreamJournal
from .snapshots_jetstream import JetStreamSnapshots
from .streams import streams_ready

log = structlog.get_logger()


async def run_deciding_actor(definition: Definition[StateT], settings: Config, stop: anyio.Event) -> None:
    """The actor answers commands until `stop` is set and what it had accepted is answered, or it is cancelled.

    Raises: Misconfigured (no server was named, or it is one where nobody can say who sends a command), Unavailable.
    """
    options = nats.options_of(settings, identity.actor_user(definition.name, settings.host))
    async with await nats.connect(options) as bus, anyio.create_task_group() as tasks:
        tasks.start_soon(bus.broken)
        clock = SystemClock()
        await streams_ready(bus, settings.replicas)
        if settings.unverified_identity:
            log.warning("identity-unverified", detail="nobody can say who sends a command: all is by `unverified`")
        else:
            await check_identity(bus, clock.entropy().hex())
        actor = Actor(
            definition,
            bus,
            JetStreamJournal(bus),
            JetStreamSnapshots(bus),
            clock,
            None if settings.unverified_identity else identity.Principals(settings.keys_dir),
            host=settings.host,
        )
        if settings.metrics:
            tasks.start_soon(metrics.serve, metrics.socket_of(settings.run_dir, definition.name), actor.figures)
        tasks.start_soon(_stop_when, stop, actor)
        await actor.run(anyio.Event())
        tasks.cancel_scope.cancel()


async def _stop_when(stop: anyio.Event, actor: Actor[StateT]) -> None:
    await stop.wait()
    actor.stop()
