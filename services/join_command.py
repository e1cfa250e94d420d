"""`netplugin join`: makes this machine a host of a cluster, with a token of `netctl host token`.

The host makes its own key, which never leaves it; the one-time key of the token vouches for it, once. Run again after
anything went wrong, it goes on: the key stays, and the same machine with the same key is let in by the same token.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from messages import names, subjects
from messages.host import AdmitHost, invitation_of

from . import bus_file, cluster, nats_keys
from .cli.client import Client
from .cli.exits import FAILED, UNREACHABLE, Ended, wrong_usage
from .cli.options import duration_s
from .cli.server import Server
from .cli.wire import Rejected, Unreachable, Wire
from .runtime import identity, join_token
from .runtime.config import Config, default_host
from .runtime.join_token import JoinToken

MACHINE_ID_FILE = Path("/etc/machine-id")
TIMEOUT_S = 30.0
TOKEN_KNOWN_WITHIN_S = 5.0
RETRY_S = 0.1
OF_ANOTHER = ": it is of another cluster, or has expired long ago; make a new one (`netctl host token`)"
FROM_STDIN = "-"


def run(arguments: Sequence[str]) -> int:
    """The exit status: 0 joined, 1 refused or failed, 2 wrong usage, 3 no server could be reached."""
    given = parser().parse_args(arguments)
    try:
        _join(given)
    except Ended as end:
        sys.stderr.write(f"netplugin join: {end.message}\n")
        return end.status
    except OSError as fault:
        sys.stderr.write(f"netplugin join: {fault}\n")
        return FAILED
    sys.stdout.write(f"host {given.host} has joined: start `netplugin`\n")
    return 0


def parser() -> argparse.ArgumentParser:
    """What may stand on the command line."""
    made = argparse.ArgumentParser(
        prog="netplugin join",
        description="Makes this machine a host of a cluster. Plain `netplugin` here then runs the host's actor.",
        epilog="Exit status: 0 joined, 1 refused or failed, 2 wrong usage, 3 no server could be reached.",
        allow_abbrev=False,
    )
    made.add_argument("url", metavar="URL", nargs="?", help="of a server to ask first: tls://10.0.0.1:4222")
    made.add_argument("--token", required=True, metavar="TOKEN", help="of `netctl host token`; - reads it from stdin")
    made.add_argument("--host", metavar="NAME", default=default_host(), help="its name (first label of the host name)")
    made.add_argument("--state-dir", metavar="DIR", type=Path, default=Config.state_dir, help="(/var/lib/netplugin)")
    made.add_argument("--machine-id-file", metavar="FILE", type=Path, default=MACHINE_ID_FILE, help="(/etc/machine-id)")
    made.add_argument("--timeout", metavar="TIME", type=duration_s, default=TIMEOUT_S, help="500ms, 30s (default), 2m")
    return made


def _join(given: argparse.Namespace) -> None:
    """This machine is a host of the cluster. Raises: Ended, OSError."""
    try:
        word = sys.stdin.readline() if given.token == FROM_STDIN else given.token
        token = join_token.parse(word)
        one_time_key = nats_keys.public_key_of(token.seed.encode())
        names.check_token("host name", given.host)
        machine_id = _machine_id(given.machine_id_file)
        keys_dir = given.state_dir / "keys"
        keys_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        seed_file = identity.seed_file(keys_dir, identity.host_user(given.host))
        command = AdmitHost(
            tenant=subjects.FABRIC,
            host=given.host,
            public_key=nats_keys.public_key(seed_file),
            machine_id=machine_id,
        )
    except ValueError as fault:
        raise wrong_usage(str(fault)) from None
    urls = tuple(dict.fromkeys((*([given.url] if given.url else []), *token.urls)))
    deadline = time.monotonic() + given.timeout
    with tempfile.TemporaryDirectory() as folder:
        one_time = _server(Path(folder), token, urls, identity.join_user(invitation_of(one_time_key)))
        _ask(one_time, command, deadline)
        own = msgspec.structs.replace(
            one_time, seed_file=str(seed_file), inbox_prefix=identity.inbox_prefix(identity.host_user(given.host))
        )
        _until_let_in(own, deadline)
    if cluster.read(given.state_dir) is None:  # a server's machine knows the servers already
        bus_file.write(given.state_dir, given.host, urls, token.ca.encode(), seed_file.read_bytes())


def _machine_id(file: Path) -> str:
    """Which machine this is. Source: machine-id(5). Raises: ValueError."""
    try:
        text = file.read_text().strip().lower()
    except OSError as fault:
        raise ValueError(f"{file}: {fault.strerror}: it says which machine this is") from None
    if not text:
        raise ValueError(f"{file} is empty: it says which machine this is (systemd-machine-id-setup makes it)")
    return text


def _server(folder: Path, token: JoinToken, urls: tuple[str, ...], user: str) -> Server:
    """The servers, to be talked to as the token's one-time user."""
    ca, seed = folder / "ca.pem", folder / "token.nk"
    ca.write_text(token.ca)
    nats_keys.write(seed, token.seed.encode(), mode=0o600)
    return Server(
        urls=urls, source="the token", seed_file=str(seed), ca=str(ca), inbox_prefix=identity.inbox_prefix(user)
    )


def _ask(server: Server, command: AdmitHost, deadline: float) -> None:
    """The cluster knows this host's key. Raises: Ended."""
    client = Client(server, max(0.1, deadline - time.monotonic()), "netplugin-join")
    known_by = min(deadline, time.monotonic() + TOKEN_KNOWN_WITHIN_S)
    while True:
        try:
            client.wire.connect(client.deadline)
            client.wire.close()
            break
        except Unreachable as fault:
            raise Ended(UNREACHABLE, f"no server of the token can be reached: {fault}") from None
        except Rejected as fault:
            if time.monotonic() >= known_by:
                raise Ended(
                    FAILED, f"refused: token-unknown: the servers do not know it ({fault}){OF_ANOTHER}"
                ) from None
        time.sleep(RETRY_S)  # a token that was made just now is on its way to the servers
    try:
        client.command(command)
    finally:
        client.close()


def _until_let_in(server: Server, deadline: float) -> None:
    """Every server that can be reached lets this host in, or one of them when the time is up. Raises: Ended."""
    missing, is_in, cause = set(server.urls), False, ""
    while missing and time.monotonic() < deadline:
        for url in tuple(missing):
            wire = Wire(msgspec.structs.replace(server, urls=(url,)), "netplugin-join")
            try:
                wire.connect(deadline)
            except Unreachable as fault:  # it will know this host when it is back
                missing.discard(url)
                cause = cause or str(fault)
            except Rejected as fault:
                cause = f"{url}: {fault}"
            else:
                missing.discard(url)
                is_in = True
            finally:
                wire.close()
        if missing:
            time.sleep(RETRY_S)  # nothing tells a stranger when he is let in
    if not is_in:
        raise Ended(
            FAILED,
            f"the cluster has taken this host in, and no server lets it in yet ({cause}): is `netplugin` up to date on"
            " the servers' machines, and is this no name that `netplugin init` gave? Run this again",
        )
