"""The peers: CNI's `bridge` with `host-local` as a runtime calls them, and Docker's own bridge driver.

Both live in a network namespace of their own, so that their links do not make the measured switch look at its ports.
Each is called as cheaply as it can be: CNI's plug-in is executed directly, Docker is asked over its socket, without the
start of a command line client.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import os
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any, Final

from figures import Timeline
from sandboxes import Sandbox, call_inside, enter, look_into

from services.demo.engine import Engine, EngineFailed

CNI_FOLDERS: Final = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
CNI_NAME: Final = "benchcni"
CNI_SUBNET: Final = "10.203.0.0/16"
DOCKER_NETWORK: Final = "bench"
DOCKER_HOME: Final = "home"
DOCKER_SUBNET: Final = "10.204.0.0/16"
DOCKER_GATEWAY: Final = "10.204.0.1"
AT_ONCE: Final = 16


class NoPeer(Exception):
    """It cannot be measured on this machine; the text says why."""


class Cni:
    """ADD until the gateway, which is the bridge itself, answers."""

    name = "cni"

    def __init__(self, place: Sandbox, folder: Path) -> None:
        self._numbers = itertools.count(1)
        self._folder = folder
        self._threads = ThreadPoolExecutor(AT_ONCE, initializer=partial(enter, place.path))
        self._plugins = next((found for found in CNI_FOLDERS if (found / "bridge").exists()), None)
        self._filled: list[tuple[str, Sandbox]] = []

    async def open(self) -> None:
        """Raises: NoPeer."""
        if self._plugins is None or not (self._plugins / "host-local").exists():
            self._threads.shutdown()
            raise NoPeer("no CNI plug-ins: the Debian package is containernetworking-plugins")
        self._folder.mkdir()

    async def close(self) -> None:
        for container, sandbox in self._filled:
            await self._call("DEL", container, sandbox)
        self._threads.shutdown()

    async def fill(self, sandboxes: list[Sandbox]) -> None:
        """An attachment is in each of these."""
        for sandbox in sandboxes:
            container = f"filled{next(self._numbers)}"
            await self._call("ADD", container, sandbox)
            self._filled.append((container, sandbox))

    async def attach(self, sandbox: Sandbox) -> tuple[tuple[str, Sandbox], Timeline]:
        container = f"c{next(self._numbers)}"
        line = Timeline(time.perf_counter())
        result = await self._call("ADD", container, sandbox)
        line.bound_s = time.perf_counter()
        line.pinged_s = await asyncio.to_thread(sandbox.ping, result["ips"][0]["gateway"])
        return (container, sandbox), line

    async def detach(self, attached: tuple[str, Sandbox]) -> None:
        await self._call("DEL", *attached)

    async def _call(self, command: str, container: str, sandbox: Sandbox) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._call_here, command, container, sandbox)

    def _call_here(self, command: str, container: str, sandbox: Sandbox) -> dict[str, Any]:
        assert self._plugins is not None
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": str(sandbox.path),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self._plugins),
            "PATH": os.environ.get("PATH", os.defpath),
        }
        done = subprocess.run(
            [self._plugins / "bridge"], input=self._config, env=environment, capture_output=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"CNI {command} of {container}: {done.stdout.decode()} {done.stderr.decode()}")
        answer: dict[str, Any] = json.loads(done.stdout or b"{}")
        for address in answer.get("ips", ()):
            address.setdefault("gateway", str(IPv4Interface(address["address"]).network[1]))
        return answer

    @property
    def _config(self) -> bytes:
        leases = {"type": "host-local", "subnet": CNI_SUBNET, "dataDir": str(self._folder)}
        bridge = {"type": "bridge", "bridge": CNI_NAME, "isGateway": True, "ipMasq": False, "ipam": leases}
        return json.dumps({"cniVersion": "0.4.0", "name": CNI_NAME, **bridge}).encode()


class Docker:
    """Connecting a running container to one more network, until that network's gateway answers."""

    name = "docker"

    def __init__(self, place: Sandbox, folder: Path) -> None:
        self._place = place
        self._folder = folder
        self._engine: Engine | None = None
        self._threads = ThreadPoolExecutor(AT_ONCE)
        self._filled: list[tuple[str, Sandbox]] = []
        self.containers: list[tuple[str, Sandbox]] = []

    async def open(self, filled: int, spare: int) -> None:
        """`filled` containers are connected, `spare` ones are not yet. Raises: NoPeer."""
        await self._in_thread(self._start, filled, spare)

    def _start(self, filled: int, spare: int) -> None:
        try:
            self._engine = call_inside(self._place.path, self._started)
            engine = self._engine
            engine.import_busybox()
            for network, subnet in ((DOCKER_HOME, "10.205.0.0/16"), (DOCKER_NETWORK, DOCKER_SUBNET)):
                engine.docker("network", "create", f"--subnet={subnet}", network)
            names = [f"bench{number}" for number in range(filled + spare)]
            list(self._threads.map(self._run, names))
            pids = engine.docker("inspect", "--format={{.State.Pid}}", *names).split()
        except EngineFailed as fault:
            raise NoPeer(f"no engine: {fault}") from fault
        sandboxes = [look_into(Path(f"/proc/{pid}/ns/net")) for pid in pids]
        found = list(zip(names, sandboxes, strict=True))
        self._filled, self.containers = found[:filled], found[filled:]
        for name, _ in self._filled:
            self._ask("connect", name)

    def _started(self) -> Engine:
        engine = Engine(self._folder)
        try:
            engine.start()
        except BaseException:
            engine.remove()
            raise
        return engine

    def _run(self, name: str) -> None:
        assert self._engine is not None
        self._engine.docker(
            "run", "-d", f"--name={name}", f"--network={DOCKER_HOME}", "netplugin-demo", "sleep", "9999"
        )

    async def close(self) -> None:
        """Nothing of the engine is left."""
        for _, sandbox in (*self._filled, *self.containers):
            sandbox.close()
        if self._engine is not None:
            await self._in_thread(self._engine.remove)
        self._threads.shutdown()

    async def attach(self, container: tuple[str, Sandbox]) -> tuple[str, Timeline]:
        name, sandbox = container
        line = Timeline(time.perf_counter())
        await self._in_thread(self._ask, "connect", name)
        line.bound_s = time.perf_counter()
        line.pinged_s = await asyncio.to_thread(sandbox.ping, DOCKER_GATEWAY)
        return name, line

    async def detach(self, name: str) -> None:
        await self._in_thread(self._ask, "disconnect", name)

    async def _in_thread(self, function: Any, *arguments: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    def _ask(self, verb: str, container: str) -> None:
        assert self._engine is not None
        connection = _UnixConnection(self._engine.socket)
        try:
            body = json.dumps({"Container": container})
            headers = {"Content-Type": "application/json"}
            connection.request("POST", f"/networks/{DOCKER_NETWORK}/{verb}", body, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise RuntimeError(f"docker {verb} {container}: {answer.status} {text}")


class _UnixConnection(http.client.HTTPConnection):
    """HTTP to a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("engine")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))
