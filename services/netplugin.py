"""`netplugin`: the daemon in the foreground. Flags, then NETPLUGIN_* variables, then one TOML file, then defaults.

Exit status: 0 stopped as told, 1 failed or refused, 2 wrong usage or a host that lacks something.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from .runtime import config as settings
from .runtime import logs
from .runtime.config import Config
from .runtime.errors import Misconfigured, Unavailable
from .runtime.version import VERSION
from .state_lock import AlreadyRunning, StateLock

# `netplugin WORD ...` is `run` of that module, which is imported then: none pays for what the others need.
SUBCOMMANDS: Mapping[str, str] = {"init": "init_command", "join": "join_command", "lab": "lab.command"}
EXIT_FAILED = 1
EXIT_USAGE = 2

log = structlog.get_logger()


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the daemon, or cleans up after it; ends the process with an exit status."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """The exit status of one run. What went wrong is said on stderr."""
    status = 0
    words = sys.argv[1:] if arguments is None else arguments
    if words and (module := SUBCOMMANDS.get(words[0])):
        return int(importlib.import_module(f"{__package__}.{module}").run(words[1:]))
    from . import cleaning, cluster, daemon  # noqa: PLC0415  (half a second that a subcommand has no use for)

    try:
        given = vars(parser().parse_args(arguments))
        toml = settings.read_file(given["config"])
        config = settings.load(given, os.environ, toml, cluster.remembered)
        if given["purge"] and not given["clean"]:
            raise Misconfigured("--purge goes with --clean: it removes the journal and the keys")
        daemon.check_privileges(config)
        if config.nats is None:
            cluster.check_host(config.state_dir, config.host)
        logs.configure(config.log_level, process="netplugin")
        if given["clean"]:
            asyncio.run(cleaning.clean(config, is_purge=given["purge"]))
        else:
            daemon.check_means(config)
            asyncio.run(serve(config))
    except* Misconfigured as group:
        _say(group)
        status = EXIT_USAGE
    except* (Unavailable, AlreadyRunning) as group:
        _say(group)
        status = status or EXIT_FAILED
    return status


async def serve(config: Config) -> None:
    """The daemon runs until SIGTERM or SIGINT. Raises: AlreadyRunning, Misconfigured, Unavailable."""
    from .daemon import Daemon  # noqa: PLC0415  (see `run`)

    locks = [StateLock(directory) for directory in dict.fromkeys((config.state_dir, config.run_dir))]
    for lock in locks:
        lock.acquire()
    running = Daemon(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.stop)
    try:
        await running.serve()
    finally:
        for lock in locks:
            lock.release()


def parser() -> argparse.ArgumentParser:
    """What may stand on the command line."""
    made = argparse.ArgumentParser(
        prog="netplugin",
        description="The daemon: starts nats-server, Open vSwitch where none runs, and the actors; restarts what dies.",
        epilog="Every setting may also be a NETPLUGIN_ variable (NETPLUGIN_STATE_DIR) or a line of the file. "
        "`netplugin init --help` tells how several machines become one cluster.",
        allow_abbrev=False,
    )
    made.add_argument("--nats", metavar="URL,...", help="use these servers instead of starting one")
    made.add_argument("--creds", metavar="FILE", help="nkey seed or .creds file for --nats")
    made.add_argument("--ca", metavar="FILE", help="the certificate that a tls:// server's is held to, with --nats")
    made.add_argument("--replicas", metavar="N", help="how many of the --nats servers keep the journal (1)")
    made.add_argument("--actors", metavar="LIST", help="which actors to run here (ipam,host)")
    made.add_argument("--host", metavar="NAME", help="this host's name (first label of the host name)")
    made.add_argument("--state-dir", metavar="DIR", help="what must survive a boot (/var/lib/netplugin)")
    made.add_argument("--run-dir", metavar="DIR", help="sockets, pid files, client.json (/run/netplugin)")
    made.add_argument("--bridge", metavar="NAME", help="the bridge of all endpoints (vlanBr)")
    made.add_argument("--datapath", metavar="KIND", help="auto, system (kernel) or netdev (user space)")
    made.add_argument(
        "--uplink",
        metavar="IF[:TAGS]",
        dest="uplinks",
        action="append",
        help="VLAN networks leave the host by this interface, all or those with these tags (eth1:10-20,30); repeatable",
    )
    made.add_argument("--vtep", metavar="ADDRESS", help="this host's address for tunnels to others (none)")
    made.add_argument("--log-level", metavar="LEVEL", help="debug, info, warning or error (info)")
    made.add_argument(
        "--unverified-identity",
        action="store_const",
        const="true",
        help="run where the server cannot say who sends a command (with --nats)",
    )
    made.add_argument(
        "--metrics",
        metavar="[ADDRESS:]PORT",
        help="answer Prometheus at http://ADDRESS:PORT/metrics (off; a port alone is of 127.0.0.1)",
    )
    made.add_argument("--config", metavar="FILE", type=Path, help=f"the TOML file ({settings.DEFAULT_FILE})")
    made.add_argument("--clean", action="store_true", help="remove all that was made on this host, and end")
    made.add_argument("--purge", action="store_true", help="with --clean: the journal and the keys too")
    made.add_argument("--version", action="version", version=f"netplugin {VERSION}")
    return made


def _say(group: BaseExceptionGroup[Exception]) -> None:
    """Every reason of `group` is on stderr, once."""
    for text in dict.fromkeys(str(leaf) for leaf in _leaves(group)):
        sys.stderr.write(f"netplugin: {text}\n")


def _leaves(group: BaseExceptionGroup[Exception]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for each in group.exceptions:
        leaves.extend(_leaves(each) if isinstance(each, BaseExceptionGroup) else [each])
    return leaves


if __name__ == "__main__":
    main()
