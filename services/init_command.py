"""`netplugin init`: prepares the state directories of a cluster's servers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from . import cluster
from .runtime.errors import Misconfigured

EXIT_FAILED = 1
EXIT_USAGE = 2

EPILOG = """\
Copy DIR/<server> to /var/lib/netplugin of that server's machine, mode 0700, and start `netplugin` there. Any three are
a cluster that goes on while one of them is away; ports 4222 (clients) and 6222 (servers) must be open between them.
A cluster begins with an empty journal: it does not take over that of a server which was alone.
Each DIR/<host> likewise, or let a host join later: `netctl host token`, `netplugin join`.
Keep DIR/authority: with it `netplugin init DIR --server ...` adds servers and makes new certificates (they last ten
years).
"""


def run(arguments: Sequence[str]) -> int:
    """The exit status. What was made is said on stdout, what went wrong on stderr."""
    given = parser().parse_args(arguments)
    try:
        servers = dict(_pair(text) for text in given.server)
        if len(servers) < len(given.server):
            raise Misconfigured("a server is named twice")
        made = cluster.prepare(given.directory, servers, given.with_host)
    except Misconfigured as fault:
        sys.stderr.write(f"netplugin init: {fault}\n")
        return EXIT_USAGE
    except OSError as fault:
        sys.stderr.write(f"netplugin init: {fault}\n")
        return EXIT_FAILED
    for name, address in sorted(made.servers.items()):
        sys.stdout.write(f"{given.directory / name}: server {name} at {address}\n")
    for name in given.with_host:
        sys.stdout.write(f"{given.directory / name}: host {name}\n")
    if len(made.servers) == 2:
        sys.stdout.write("two servers: commands stop while either is away; three go on without one\n")
    return 0


def parser() -> argparse.ArgumentParser:
    """What may stand on the command line."""
    made = argparse.ArgumentParser(
        prog="netplugin init",
        description="Prepares a cluster of nats-servers: keys, certificates and a state directory for each machine.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("directory", metavar="DIR", type=Path, help="where to; what is there is kept and added to")
    made.add_argument(
        "--server", metavar="NAME=ADDRESS", action="append", required=True, help="a machine and its IP address"
    )
    made.add_argument(
        "--with-host", metavar="NAME", action="append", default=[], help="a host without a server, let in at once"
    )
    return made


def _pair(text: str) -> tuple[str, str]:
    name, equals, address = text.partition("=")
    if not equals:
        raise Misconfigured(f"--server {text!r}: expected NAME=ADDRESS, such as a=10.0.0.1")
    return name, address
