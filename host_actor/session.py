"""One connection to the bus with the journal behind it, for as long as it lasts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from services.runtime.bus import Options, connect
from services.runtime.journal_jetstream import JetStreamJournal

from .actor import Uplink


@asynccontextmanager
async def session(options: Options) -> AsyncIterator[Uplink]:
    """A way to the journal on JetStream; the connection is closed at the end. Raises: Unavailable, Misconfigured."""
    bus = await connect(options)
    try:
        yield Uplink(JetStreamJournal(bus), bus)
    finally:
        with anyio.CancelScope(shield=True):
            await bus.close()
