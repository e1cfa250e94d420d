"""Three real `netplugin`, each with its nats-server and an ipam copy, in one network namespace: one machine each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services import cluster

from .daemon import Host
from .nats_cluster import SERVERS
from .netns import NetworkNamespace, network_namespace


class Machine(Host):
    """A machine whose state directory `netplugin init` or `join` made."""

    def __init__(self, namespace: NetworkNamespace, name: str, directory: Path, state_dir: Path, *flags: str) -> None:
        super().__init__(namespace, directory / name, "ipam", *flags)
        self.name = name
        self.state_dir = state_dir

    def command(self, *flags: str) -> tuple[str, ...]:
        """How the daemon is started: what its state directory says is not said again."""
        own = ("--state-dir", str(self.state_dir), "--run-dir", str(self.run_dir))
        return self.namespace.command(*self.program("services.netplugin"), *own, *self.flags, *flags)


class Daemons:
    """The daemons by name, and whatever machine joins them."""

    def __init__(self, namespace: NetworkNamespace, directory: Path) -> None:
        self.namespace = namespace
        self.directory = directory
        cluster.prepare(directory, SERVERS)
        self.machines: dict[str, Machine] = {
            name: Machine(namespace, name, directory / "run", directory / name, "--actors", "ipam") for name in SERVERS
        }

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    def start(self) -> None:
        """All serve: none is ready before most are."""
        for machine in self.machines.values():
            machine.launch()
        for machine in self.machines.values():
            machine.until_ready()

    def machine(self, name: str) -> Machine:
        """One more machine, that nothing has been done on."""
        made = Machine(self.namespace, name, self.directory / "run", self.directory / f"joined-{name}")
        self.machines[name] = made
        return made

    def end(self) -> None:
        for machine in self.machines.values():
            machine.end()


@contextmanager
def running_daemons(directory: Path, name: str = "np3") -> Iterator[Daemons]:
    """Three daemons that serve; nothing of them or of who joined them is left after the context."""
    with network_namespace(name) as namespace:
        made = Daemons(namespace, directory)
        try:
            made.start()
            yield made
        finally:
            made.end()
