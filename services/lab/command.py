"""`netplugin lab`: a cluster on one machine; every host a namespace with its own switch, daemon and files."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from .. import processes
from ..runtime.errors import Misconfigured, Unavailable
from . import layout

EXIT_FAILED = 1
EXIT_USAGE = 2
INTERRUPTED = 130  # 128 + SIGINT


def run(arguments: Sequence[str]) -> int:
    """The exit status of `netplugin lab ARGUMENTS`. What went wrong is said on stderr."""
    given = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        status: int = given.do(given)
    except Misconfigured as fault:
        return _fail(fault, EXIT_USAGE)
    except Unavailable as fault:
        return _fail(fault, EXIT_FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def parser() -> argparse.ArgumentParser:
    """What may stand behind `netplugin lab`."""
    made = argparse.ArgumentParser(prog="netplugin lab", description=__doc__, allow_abbrev=False)
    verbs = made.add_subparsers(title="verbs", metavar="VERB", required=True)

    def verb(name: str, does: str, do: object) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=does, description=does, allow_abbrev=False)
        added.add_argument(
            "--dir",
            metavar="DIR",
            type=Path,
            default=Path(os.environ.get("NETPLUGIN_LAB_DIR") or layout.DEFAULT_DIR),
            help=f"where the lab lives (NETPLUGIN_LAB_DIR, else {layout.DEFAULT_DIR})",
        )
        added.set_defaults(do=do)
        return added

    up = verb("up", "make a lab, and wait until every host is ready", _up)
    up.add_argument("--hosts", type=int, default=3, metavar="N", help="how many hosts: h1, h2, ... (3)")
    up.add_argument(
        "--nats", type=int, metavar="N", help="how many nats-servers, on the first hosts (3, or 1 with fewer hosts)"
    )
    up.add_argument("--prefix", default=layout.DEFAULT_PREFIX, help="what the namespaces' names begin with (np: np-h1)")
    up.add_argument(
        "--mtu", type=int, default=layout.UNDERLAY_MTU_BYTES, metavar="BYTES", help="of the underlay (1600)"
    )
    verb("down", "end a lab: nothing of it is left", _down)
    verb("status", "how the hosts of a lab are; exit status 1 when one is not as it should be", _status)
    inside = verb("exec", "run a command on a host: netplugin lab exec h1 netctl status", _exec)
    inside.add_argument("host", metavar="HOST")
    inside.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="a shell, when none is given")
    for name, does, do in (
        ("start", "switch hosts on, or start their daemons, and wait until they are ready", _start),
        ("stop", "end the daemons of hosts; their switches go on", _stop),
        ("crash", "cut the power of hosts: processes, links and /run are gone, what was on disk stays", _crash),
    ):
        verb(name, does, do).add_argument("host", nargs="+", metavar="HOST")
    return made


def _up(given: argparse.Namespace) -> int:
    from . import building

    began_s = time.monotonic()
    servers = given.nats if given.nats is not None else (3 if given.hosts >= 3 else 1)
    lab = layout.plan(given.dir.absolute(), given.hosts, servers, given.prefix, given.mtu)
    with building.held(lab.directory):
        try:
            building.up(lab, say)
        except BaseException:
            if not lab.file.exists():
                building.forget(lab.directory)
            raise
    say(f"the lab is up ({time.monotonic() - began_s:.1f} s): netplugin lab exec h1 netctl status")
    return 0


def _down(given: argparse.Namespace) -> int:
    from . import building

    directory = given.dir.absolute()
    if not (directory / layout.LAB_FILE).exists():
        say(f"no lab in {directory}: nothing to end")
        return 0
    began_s = time.monotonic()
    with building.held(directory):
        building.down(layout.read(directory))
        building.forget(directory)
    say(f"nothing of the lab is left ({time.monotonic() - began_s:.1f} s)")
    return 0


def _status(given: argparse.Namespace) -> int:
    from . import inspection

    lab = layout.read(given.dir.absolute())
    rows = [inspection.state_of(host) for host in lab.hosts]
    say(inspection.table(rows))
    return 0 if all(row.is_well for row in rows) else EXIT_FAILED


def _exec(given: argparse.Namespace) -> int:
    from . import namespaces, power

    host = layout.read(given.dir.absolute()).host(given.host)
    words = given.command or (os.environ.get("SHELL", "/bin/sh"),)
    environment = {**os.environ, **host.variables(), "PATH": power.search_path()}
    inside = namespaces.command_inside(power.running(host), words, Path.cwd())
    sys.stdout.flush()
    try:
        os.execvpe(inside[0], inside, environment)  # noqa: S606  (no shell is wanted: its words are the caller's)
    except FileNotFoundError:
        raise Misconfigured("no nsenter on PATH: install util-linux") from None


def _start(given: argparse.Namespace) -> int:
    from . import building, power

    lab = layout.read(given.dir.absolute())
    hosts = tuple(lab.host(name) for name in given.host)

    def start(host: layout.LabHost) -> None:
        if processes.read_pid_file(host.init_file) is None:
            power.switch_off(host)  # what a host that died otherwise has left
            power.switch_on(host)
        if processes.read_pid_file(power.daemon_file(host)) is None:
            power.start_daemon(host)

    with building.held(lab.directory):
        building.for_each(hosts, start)
        deadline_s = time.monotonic() + power.READY_WITHIN_S
        for host in hosts:
            power.until_ready(host, deadline_s)
            say(f"{host.name} is ready")
    return 0


def _stop(given: argparse.Namespace) -> int:
    from . import power

    return _do(given, power.stop_daemon)


def _crash(given: argparse.Namespace) -> int:
    from . import power

    return _do(given, power.switch_off)


def _do(given: argparse.Namespace, what: Callable[[layout.LabHost], None]) -> int:
    from . import building

    lab = layout.read(given.dir.absolute())
    with building.held(lab.directory):
        building.for_each(tuple(lab.host(name) for name in given.host), what)
    return 0


def say(text: str) -> None:
    """A line of what has been done, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _interrupt(number: int, _frame: FrameType | None) -> None:
    """A SIGTERM ends what is being done as a Ctrl-C does."""
    raise KeyboardInterrupt(number)


def _fail(fault: Exception, status: int) -> int:
    sys.stderr.write(f"netplugin lab: {fault}\n")
    return status
