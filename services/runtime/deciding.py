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
from .errors import Misconfigured
from .identity_check import check_identity
from .journal_jetstream import JetStreamJournal
from .snapshots_jetstream import JetStreamSnapshots
from .streams import ensure_streams

log = structlog.get_logger()


async def run_deciding_actor(definition: Definition[StateT], settings: Config) -> None:
    """The actor answers commands until it is cancelled.

    Raises: Misconfigured (no server was named, or it is one where nobody can say who sends a command), Unavailable.
    """
    if settings.nats is None:
        raise Misconfigured("no nats-server was named: set NETPLUGIN_NATS_URL")
    user = identity.actor_user(definition.name, settings.host)
    credentials = settings.creds or identity.seed_file(settings.keys_dir, user)
    options = nats.Options(urls=tuple(settings.nats.split(",")), user=user, credentials=credentials)
    async with await nats.connect(options) as bus, anyio.create_task_group() as tasks:
        tasks.start_soon(bus.broken)
        clock = SystemClock()
        await ensure_streams(bus)
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
            None if settings.unverified_identity else identity.principals(settings.keys_dir),
            host=settings.host,
        )
        if settings.metrics:
            tasks.start_soon(metrics.serve, metrics.socket_of(settings.run_dir, definition.name), actor.figures)
        await actor.run(anyio.Event())
