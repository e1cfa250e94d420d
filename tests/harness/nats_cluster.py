"""Three real nats-servers as one cluster, on three addresses of loopback, prepared as by `netplugin init`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from services import cluster
from services.runtime import identity
from services.runtime.bus import Options

from .nats import RunningNats

SERVERS = {"n1": "127.0.0.21", "n2": "127.0.0.22", "n3": "127.0.0.23"}


class RunningCluster:
    """The servers by name. Each can be killed and started again."""

    def __init__(self, directory: Path, servers: Mapping[str, str] = SERVERS, hosts: tuple[str, ...] = ()) -> None:
        self.directory = directory
        cluster.prepare(directory, servers, hosts)
        self.servers = {name: RunningNats(directory / name, (name,)) for name in servers}

    def options(self, user: str, first: str = "n1") -> Options:
        """How `user` reaches the cluster, server `first` first."""
        server = self.servers[first].server
        seed = identity.seed_file(self.directory / cluster.AUTHORITY, user)
        return Options(urls=server.urls, user=user, credentials=seed, ca=server.ca)

    def start(self, *names: str) -> None:
        """These run, or all."""
        for name in names or tuple(self.servers):
            self.servers[name].start()

    def stop(self) -> None:
        """None runs."""
        for server in self.servers.values():
            server.stop()


@contextmanager
def running_cluster(directory: Path, hosts: tuple[str, ...] = ()) -> Iterator[RunningCluster]:
    """Three servers that have ended when the context has."""
    made = RunningCluster(directory, hosts=hosts)
    try:
        made.start()
        yield made
    finally:
        made.stop()
