"""A real host actor on each of several hosts (`hosts.py`), one nats-server and one ipam actor for all, and netctl.

A host's namespace has no way to loopback here, so a relay brings its own port 4222 to the server.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from services.runtime import identity

from .hosts import RunningHost, running_hosts
from .ipam import ipam_process
from .nats import RunningNats, running_nats

RELAY_PORT = 4222
WITHIN_S = 60.0
LOOK_EVERY_S = 0.02


class Relay:
    """What connects to loopback in a host's namespace is connected to the server in this one."""

    def __init__(self, host: RunningHost, port: int) -> None:
        self._port = port
        self._listener = host.namespace.call(lambda: socket.create_server(("127.0.0.1", RELAY_PORT)))
        self._open: list[socket.socket] = []
        self._is_cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, is_cut: bool) -> None:
        """Nothing passes any more; or it may again."""
        self._is_cut = is_cut
        if is_cut:
            self._end_all()

    def close(self) -> None:
        """Nothing is accepted any more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._end_all()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._is_cut:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                near.close()
                continue
            self._open += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(one, other), daemon=True).start()

    def _end_all(self) -> None:
        ending, self._open = self._open, []
        for each in ending:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


class ActorHost:
    """One host with its actor as a process of its own."""

    def __init__(self, host: RunningHost, server: RunningNats, directory: Path, *, has_vtep: bool = True) -> None:
        self.host = host
        self.name = host.name
        self.state_dir = directory / "state"
        self.state_dir.mkdir(parents=True)
        self.relay = Relay(host, int(server.url.rpartition(":")[2]))
        self._environment = {
            **os.environ,
            "NETPLUGIN_NATS_URL": f"nats://127.0.0.1:{RELAY_PORT}",
            "NETPLUGIN_CREDS": str(server.seed_file(identity.host_user(host.name))),
            "NETPLUGIN_HOST": host.name,
            "NETPLUGIN_STATE_DIR": str(self.state_dir),
            "NETPLUGIN_RUN_DIR": str(directory / "run"),
            "OVS_RUNDIR": str(host.switch.run_dir),
            **({"NETPLUGIN_VTEP": str(host.vtep)} if has_vtep else {}),
        }
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._facts: list[dict[str, Any]] = []
        self._logged = threading.Condition()

    def start(self, ready: str = "actor-ready") -> None:
        """The actor has said this."""
        before = len(self._facts)
        command = self.host.namespace.command(sys.executable, "-m", "host_actor")
        self._process = subprocess.Popen(
            command, env=self._environment, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )
        self._reader = threading.Thread(target=self._read, args=(self._process.stderr,), daemon=True)
        self._reader.start()
        self.until_logged(ready, before)

    def _read(self, stream: IO[str]) -> None:
        with stream:
            self._read_lines(stream)

    def _read_lines(self, stream: IO[str]) -> None:
        for line in stream:
            with self._logged:
                self._facts.append(json.loads(line) if line.startswith("{") else {"event": "", "line": line})
                self._logged.notify_all()

    def logged(self, event: str, since: int = 0) -> list[dict[str, Any]]:
        """The facts of this name in the log so far."""
        return [fact for fact in self._facts[since:] if fact.get("event") == event]

    def until_logged(self, event: str, since: int = 0) -> dict[str, Any]:
        """The first fact of this name, from that one on; waits for it."""
        with self._logged:
            there = self._logged.wait_for(lambda: bool(self.logged(event, since)), WITHIN_S)
            assert there, f"{self.name} said no {event}: {self._facts[-20:]}"
            return self.logged(event, since)[0]

    def until_saved(self, words: str) -> None:
        """Return when these are in the state on disk, which follows behind everything else."""
        file = self.state_dir / "host" / f"host-{self.name}.state"
        pause = threading.Event()
        deadline = time.monotonic() + WITHIN_S
        while not file.exists() or words not in file.read_text():
            assert time.monotonic() < deadline, f"{words} is not in {file}"
            pause.wait(LOOK_EVERY_S)

    def kill(self) -> None:
        """The actor ends at once, as by kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """The actor has ended as it is told to by SIGTERM."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(WITHIN_S)
            assert self._reader is not None
            self._reader.join()
            self._process = None


class Cluster:
    """All of it."""

    def __init__(self, hosts: list[ActorHost], server: RunningNats) -> None:
        self.hosts = hosts
        self._environment = {
            **os.environ,
            "NETPLUGIN_NATS_URL": server.url,
            "NETPLUGIN_CREDS": str(server.seed_file(identity.OPERATOR)),
        }

    def netctl(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`netctl` as its operator."""
        command = (sys.executable, "-m", "services.cli.netctl", *words)
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=WITHIN_S, check=False
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done

    def attach(self, name: str, network: str, container: str, host: str, *flags: str, tenant: str = "default") -> str:
        """An endpoint is created in a container; its first address."""
        words = ("endpoint", "create", name, "--network", network, "--container", f"netns:{container}")
        shown = self.netctl("-t", tenant, "-o", "json", *words, "--host", host, *flags)
        return str(json.loads(shown.stdout)["status"]["addresses"][0]).partition("/")[0]


@contextmanager
def running_cluster(
    directory: Path, names: Sequence[str], *, without_vtep: Sequence[str] = (), mtu_bytes: int = 1600
) -> Iterator[Cluster]:
    """Hosts that have joined, on one underlay."""
    with ExitStack() as stack:
        server = stack.enter_context(running_nats(directory / "nats", tuple(names)))
        stack.enter_context(ipam_process(server))
        hosts = []
        for host in stack.enter_context(running_hosts(directory, names, mtu_bytes=mtu_bytes)):
            actor = ActorHost(host, server, directory / f"{host.name}-actor", has_vtep=host.name not in without_vtep)
            stack.callback(actor.relay.close)
            stack.callback(actor.stop)
            actor.start()
            hosts.append(actor)
        yield Cluster(hosts, server)
