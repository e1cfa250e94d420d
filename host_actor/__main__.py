"""The host actor as a process: `python -m host_actor`, told what to do by its environment (`services.runtime.config`).

`NETPLUGIN_DRIVER` names another switch than Open vSwitch (`drivers/__init__.py: DRIVERS`).
"""

from __future__ import annotations

import os
import resource
from ipaddress import ip_address

import anyio

from services.runtime import bus as nats
from services.runtime import identity, metrics
from services.runtime.clock import SystemClock
from services.runtime.config import Config
from services.runtime.errors import Misconfigured
from services.runtime.main_loop import run_actor
from services.runtime.version import VERSION

from .actor import HostActor
from .drivers import DRIVERS
from .membership import HostFacts
from .runtimes import runtimes_of
from .session import session
from .state_file import StateFile
from .uplink import DEFAULT_RUN_DIR, Place
from .uplink_keeper import UplinkKeeper

DEFAULT_DRIVER = "ovs"


def raise_file_limit() -> None:
    """As many files as the system allows: one is open for each attached container (its end is waited for)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def uplinks_of(settings: Config, driver: str) -> UplinkKeeper:
    """What keeps the uplinks taken that were asked for, on the switch of this driver. Raises: Misconfigured."""
    if settings.uplinks and driver != DEFAULT_DRIVER:
        raise Misconfigured(f"--uplink needs Open vSwitch, and NETPLUGIN_DRIVER is {driver!r}")
    database = (settings.ovs_run_dir or DEFAULT_RUN_DIR) / "db.sock"
    return UplinkKeeper(settings.uplinks, Place(settings.state_dir, database, settings.bridge, settings.datapath))


async def run_host(settings: Config) -> None:
    """The host is what the journal says, until this is cancelled. Raises: Misconfigured."""
    raise_file_limit()
    name = os.environ.get("NETPLUGIN_DRIVER", DEFAULT_DRIVER)
    if name not in DRIVERS:
        raise Misconfigured(f"NETPLUGIN_DRIVER is {name!r}: expected one of {', '.join(DRIVERS)}")
    options = nats.options_of(settings, identity.actor_user("host", settings.host))

    actor = HostActor(
        HostFacts(
            host=settings.host,
            driver=name,
            bridge=settings.bridge,
            version=VERSION,
            vtep=ip_address(settings.vtep) if settings.vtep is not None else None,
            uplinks=tuple(map(str, settings.uplinks)),
        ),
        DRIVERS[name](settings),
        runtimes_of(os.environ),
        StateFile(settings.state_dir / "host", settings.host),
        SystemClock(),
        uplinks=uplinks_of(settings, name),
    )
    async with anyio.create_task_group() as tasks:
        if settings.metrics:
            tasks.start_soon(metrics.serve, metrics.socket_of(settings.run_dir, "host"), actor.figures)
        await actor.run(lambda: session(options))
        tasks.cancel_scope.cancel()


def main() -> None:
    """Run this host's actor until told to stop; what forwards goes on without it."""
    run_actor("host", run_host)


if __name__ == "__main__":
    main()
