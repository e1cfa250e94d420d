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

_Main = Callable[[config.Config, anyio.Event], Awaitable[None]]

EXIT_FAILED = 1
DRAIN_WITHIN_S = 4.0  # before whoever asked it to end makes it
EXIT_USAGE = 2


def run_actor(name: str, main: Callable[[config.Config], Awaitable[None]]) -> None:
    """Run `main` until it ends, fails, or the process is told to stop (SIGTERM, SIGINT: status 0), which cancels it.

    What is away at the start ends the process with status 1, what is misconfigured with status 2: whoever supervises it
    starts it again. So does anything unforeseen, with its traceback in the log.
    """
    _run(name, lambda settings, _stop: main(settings), drain_within_s=0.0)


def run_draining_actor(name: str, main: Callable[[config.Config, anyio.Event], Awaitable[None]]) -> None:
    """The same, but told to stop `main` finds its event set, has some seconds to finish, and then is cancelled."""
    _run(name, main, drain_within_s=DRAIN_WITHIN_S)


def _run(name: str, main: _Main, *, drain_within_s: float) -> None:
    try:
        settings = config.from_environment()
    except Misconfigured as fault:
        sys.stderr.write(f"{name}: {fault}\n")
        sys.exit(EXIT_USAGE)
    logs.configure(settings.log_level, actor=name)
    try:
        anyio.run(_until_told_to_stop, main, settings, drain_within_s, backend_options={"use_uvloop": _has_uvloop()})
    except* (Unavailable, Misconfigured) as group:
        leaves = _leaves(group)
        log.error("actor-ended", reasons=[str(leaf) for leaf in leaves])  # noqa: TRY400  (these need no traceback)
        sys.exit(EXIT_USAGE if any(isinstance(leaf, Misconfigured) for leaf in leaves) else EXIT_FAILED)


async def _until_told_to_stop(main: _Main, settings: config.Config, drain_within_s: float) -> None:
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_watch_signals, tasks.cancel_scope, stop, drain_within_s)
        await main(settings, stop)
        tasks.cancel_scope.cancel()


async def _watch_signals(scope: anyio.CancelScope, stop: anyio.Event, drain_within_s: float) -> None:
    """Told once, there is some time to finish; told again, there is none."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("stopping", signal=signal.Signals(number).name)
            if stop.is_set() or not drain_within_s:
                scope.cancel()
                return
            stop.set()
            scope.deadline = anyio.current_time() + drain_within_s


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
