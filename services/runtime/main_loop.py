"""How an actor process begins and ends: configuration, logs, one async function, SIGTERM, and exit statuses."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import structlog

from . import config, logs
from .errors import Misconfigured, Unavailable

log = structlog.get_logger()

EXIT_FAILED = 1
EXIT_USAGE = 2


def run_actor(name: str, main: Callable[[config.Config], Awaitable[None]]) -> None:
    """Run `main` until it ends, fails, or the process is told to stop (SIGTERM, SIGINT: status 0).

    What is away at the start ends the process with status 1, what is misconfigured with status 2: whoever supervises it
    starts it again. So does anything unforeseen, with its traceback in the log.
    """
    try:
        settings = config.from_environment()
    except Misconfigured as fault:
        sys.stderr.write(f"{name}: {fault}\n")
        sys.exit(EXIT_USAGE)
    logs.configure(settings.log_level, actor=name)
    try:
        anyio.run(_until_told_to_stop, main, settings, backend_options={"use_uvloop": _has_uvloop()})
    except* (Unavailable, Misconfigured) as group:
        leaves = _leaves(group)
        log.error("actor-ended", reasons=[str(leaf) for leaf in leaves])  # noqa: TRY400  (these need no traceback)
        sys.exit(EXIT_USAGE if any(isinstance(leaf, Misconfigured) for leaf in leaves) else EXIT_FAILED)


async def _until_told_to_stop(main: Callable[[config.Config], Awaitable[None]], settings: config.Config) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_watch_signals, tasks.cancel_scope)
        await main(settings)
        tasks.cancel_scope.cancel()


async def _watch_signals(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("stopping", signal=signal.Signals(number).name)
            scope.cancel()
            return


def _has_uvloop() -> bool:
    if os.environ.get("NETPLUGIN_UVLOOP", "1") == "0":
        return False
    try:
        import uvloop  # type: ignore[import-not-found,unused-ignore]  # noqa: F401, PLC0415  (an optional extra)
    except ImportError:
        return False
    return True


def _leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for each in group.exceptions:
        leaves.extend(_leaves(each) if isinstance(each, BaseExceptionGroup) else [each])
    return leaves
