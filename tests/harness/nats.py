"""A real nats-server on loopback with the daemon's own configuration, for tests that talk to it themselves."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakKeyDictionary

import nats
from nats.aio.client import Client

from services import cluster
from services.nats_keys import make_keys
from services.nats_server import NatsServer
from services.runtime import identity
from services.runtime.bus import Options

START_WITHIN_S = 40.0
HOSTS = ("h1", "h2")


class RunningNats:
    """One server; `kill` and `start` again keep its port and its files."""

    def __init__(self, directory: Path, hosts: tuple[str, ...] = HOSTS) -> None:
        if cluster.read(directory) is None:
            make_keys(directory / "keys", [identity.host_user(host) for host in hosts])
        self.server = NatsServer(directory, directory / "run", hosts[0])
        self.log: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def keys_dir(self) -> Path:
        return self.server.keys_dir

    @property
    def principals(self) -> dict[str, str]:
        return identity.principals(self.keys_dir)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def seed_file(self, user: str) -> Path:
        return identity.seed_file(self.keys_dir, user)

    def options(self, user: str) -> Options:
        """How `user` gets here: this server first and, in a cluster, the others after it."""
        server = self.server
        return Options(urls=server.urls, user=user, credentials=self.seed_file(user), ca=server.ca)

    def start(self) -> None:
        invocation = self.server.invocation()
        self._process = subprocess.Popen(
            invocation.arguments, env=invocation.environment, stderr=subprocess.PIPE, text=True
        )
        ready = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self._process, ready), daemon=True)
        self._reader.start()
        assert ready.wait(START_WITHIN_S), "\n".join(self.log)
        assert self._process.poll() is None, "\n".join(self.log)

    def _read(self, process: subprocess.Popen[str], ready: threading.Event) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.log.append(line.rstrip())
            if self.server.is_ready_line(line.rstrip()):
                ready.set()
        ready.set()  # it has ended: whoever waits looks why

    def kill(self) -> None:
        """It ends at once, as by kill -9; returns when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._forget()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._forget()

    def _forget(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        assert self._reader is not None
        self._process.wait()
        self._reader.join()
        self._process.stderr.close()
        self._process = None

    async def connect(self, user: str = identity.OPERATOR, **options: object) -> Client:
        """A connection as one of the users; what the server refuses it is in `refusals(client)`."""
        refused: list[str] = []

        async def on_error(error: Exception) -> None:
            refused.append(str(error))

        defaults = {
            "nkeys_seed": str(self.seed_file(user)),
            "inbox_prefix": identity.inbox_prefix(user),
            "name": user,
            "error_cb": on_error,
        }
        client = await nats.connect(self.url, **{**defaults, **options})
        _refusals[client] = refused
        return client


_refusals: WeakKeyDictionary[Client, list[str]] = WeakKeyDictionary()


def refusals(client: Client) -> list[str]:
    """What the server has refused this client so far; it says so on the side, never to the call."""
    return _refusals[client]


@contextmanager
def running_nats(directory: Path, hosts: tuple[str, ...] = HOSTS) -> Iterator[RunningNats]:
    """A server that has ended when the context has."""
    server = RunningNats(directory, hosts)
    server.start()
    try:
        yield server
    finally:
        server.stop()
