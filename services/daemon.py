"""The daemon at work: nats-server, Open vSwitch and the actors, in this order; ready when every actor answers.

    serve ---- Supervisor: nats-server, ipam, host           children; they end with us
          |--- OpenVSwitch.keep                              detached; outlives us
          `--- _restart_when_disk_has_space                  JetStream does not recover from a full disk by itself

SIGTERM: `stop` is set, the tasks are cancelled, the children end in the reverse order, and traffic goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import structlog

from . import admissions, child_logs, metrics_http, nats_server, open_vswitch, readiness, service_notice
from .admissions import Admissions
from .metrics_http import MetricsServer
from .nats_server import NatsServer
from .open_vswitch import OpenVSwitch
from .runtime import bus as nats_bus
from .runtime import identity
from .runtime.config import Config
from .runtime.errors import Misconfigured
from .runtime.metrics import Family
from .runtime.nats_client import credentials_of, tls_of
from .supervisor import Invocation, Program, Supervisor

CLIENT_FILE = "client.json"
PIDS_DIR = "pids"
DISK_FREE_ENOUGH_BYTES = 64 << 20
DISK_LOOK_EVERY_S = 1.0
KERNEL_DATAPATH = Path("/sys/module/openvswitch")
SOURCE_DIR = Path(__file__).resolve().parent.parent  # where our packages are, installed or not

log = structlog.get_logger()


class Daemon:
    """One run of the daemon, from `serve` until `stop`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stop = asyncio.Event()
        self._stirred = asyncio.Event()
        self._disk_was_full = asyncio.Event()
        self._server: NatsServer | None = None

    def stop(self) -> None:
        """`serve` returns soon."""
        self._stop.set()

    async def serve(self) -> None:
        """Everything runs until `stop`. Raises: Misconfigured, Unavailable when it cannot begin."""
        working = asyncio.create_task(self._work(), name="work")
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
            service_notice.notify(service_notice.STOPPING)
            if working.done():
                await working
        finally:
            stopping.cancel()
            working.cancel()
            await asyncio.wait((working, stopping))
        if not working.cancelled() and (error := working.exception()):
            raise error
        log.info("stopped", pid=os.getpid())

    async def _work(self) -> None:
        config = self._config
        async with (
            Supervisor(config.run_dir / PIDS_DIR, child_logs.show) as supervisor,
            self._figures(supervisor),
            asyncio.TaskGroup() as tasks,
        ):
            if config.nats is None:
                server = await self._start_server(supervisor)
                if server.cluster:
                    tasks.create_task(self._let_hosts_in(supervisor, server), name="let hosts in")
                tasks.create_task(self._restart_when_disk_has_space(supervisor), name="watch disk")
            if "host" in config.actors:
                config = await self._with_switch(config, tasks)
            self._write_client_file()
            for actor in config.actors:
                supervisor.start(self._actor(actor, config))
            await self._until_ready()
            self._say_ready()
            await asyncio.Event().wait()  # until cancelled

    async def _start_server(self, supervisor: Supervisor) -> NatsServer:
        config = self._config
        self._server = NatsServer(config.state_dir, config.run_dir, config.host)
        member = self._server.cluster
        nats_server.find_binary()
        program = self._server.program()
        supervisor.start(Program(program.name, program.prepare, program.is_ready_line, self._watch_server_line))
        await supervisor.until_ready(nats_server.NAME)
        version = await self._server.check()
        facts = {"servers": sorted(member.servers), "replicas": member.replicas} if member else {}
        durability = "fsync on every write"
        log.info("nats-server-ready", url=self._server.url, version=version, durability=durability, **facts)
        return self._server

    async def _let_hosts_in(self, supervisor: Supervisor, server: NatsServer) -> None:
        """Whoever joins is let in by our server, and whoever is removed no more. Never returns."""
        credentials = identity.seed_file(self._config.keys_dir, identity.DAEMON)
        options = nats_bus.Options(urls=server.urls, user=identity.DAEMON, credentials=credentials, ca=server.ca)

        def changed(known: Admissions) -> None:
            if server.let_in(known):
                supervisor.signal(nats_server.NAME, signal.SIGHUP)
                log.info("users-changed", hosts=sorted(known.admitted), invitations=len(known.invited))

        await admissions.follow(options, changed)

    async def _with_switch(self, config: Config, tasks: asyncio.TaskGroup) -> Config:
        """The configuration with the run directory of an Open vSwitch that serves."""
        found = open_vswitch.find_running(config.ovs_run_dir)
        ours = OpenVSwitch(config.state_dir, config.run_dir)
        if found is None or found == ours.run_dir.resolve():
            await ours.start()
            tasks.create_task(ours.keep(), name="keep open vswitch")
            found = ours.run_dir
        log.info("open-vswitch-ready", run_dir=str(found), ours=found == ours.run_dir)
        return msgspec.structs.replace(config, ovs_run_dir=found)

    def _figures(self, supervisor: Supervisor) -> contextlib.AbstractAsyncContextManager[object]:
        """Answers Prometheus, where that was asked for."""
        config = self._config
        if not config.metrics:
            return contextlib.nullcontext()
        switch = OpenVSwitch(config.state_dir, config.run_dir)

        def children() -> list[Family]:
            processes = {program: switch.running(program) for program in (open_vswitch.DATABASE, open_vswitch.SWITCH)}
            pids = {program: process.pid if process else None for program, process in processes.items()}
            if self._server is not None:
                pids[nats_server.NAME] = supervisor.pid(nats_server.NAME)
            return metrics_http.of_programs(supervisor.starts(), pids)

        return MetricsServer(config.metrics, config.run_dir, config.actors, children, config.host)

    def _actor(self, actor: str, config: Config) -> Program:
        """An actor as a program to keep running; its server and credentials are known when it starts."""
        user = identity.actor_user(actor, config.host)
        credentials = config.creds or identity.seed_file(config.keys_dir, user)
        settings = msgspec.structs.replace(
            config,
            nats=",".join(self._urls),
            creds=credentials,
            ca=self._ca,
            replicas=self._server.replicas if self._server else config.replicas,
        )
        path = os.pathsep.join(filter(None, (str(SOURCE_DIR), os.environ.get("PYTHONPATH", ""))))
        environment = {**os.environ, **settings.variables(), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}

        async def prepare() -> Invocation:
            return Invocation((sys.executable, "-P", "-m", f"{actor}_actor"), environment)

        return Program(actor, prepare, on_line=lambda _: self._stirred.set())

    @property
    def _urls(self) -> tuple[str, ...]:
        if self._config.nats is not None:
            return tuple(self._config.nats.split(","))
        return self._server.urls if self._server else ()

    @property
    def _ca(self) -> Path | None:
        return self._server.ca if self._server else self._config.ca

    @property
    def _operator_credentials(self) -> Path:
        return self._config.creds or identity.seed_file(self._config.keys_dir, identity.OPERATOR)

    def _write_client_file(self) -> None:
        """Clients on this host find the server and who they are."""
        content: dict[str, Any] = {
            "url": self._urls[0],
            "urls": self._urls,
            "nkey_seed_file": str(self._operator_credentials),
            "host": self._config.host,
        }
        if self._ca is not None:
            content["ca_file"] = str(self._ca)
        if self._server is not None:
            content["monitor"] = self._server.monitor_url
        draft = self._config.run_dir / f".{CLIENT_FILE}.new"
        draft.write_text(json.dumps(content) + "\n")
        draft.replace(self._config.run_dir / CLIENT_FILE)

    async def _until_ready(self) -> None:
        config = self._config
        credentials = config.creds or identity.seed_file(config.keys_dir, identity.DAEMON)
        user = identity.DAEMON if config.creds is None else identity.user_of(config.creds)
        options = nats_bus.Options(urls=self._urls, user=user, credentials=credentials, ca=self._ca)
        await readiness.until_ready(options, config.actors, config.host, self._stirred)

    def _say_ready(self) -> None:
        facts = {"host": self._config.host, "nats": ",".join(self._urls), "pid": os.getpid()}
        sys.stdout.write(f"READY {json.dumps(facts)}\n")
        sys.stdout.flush()
        service_notice.notify(service_notice.READY, f"STATUS=host {self._config.host}, bus at {facts['nats']}")
        log.info("ready", **facts)

    def _watch_server_line(self, line: str) -> None:
        if nats_server.FULL_DISK in line:
            self._disk_was_full.set()

    async def _restart_when_disk_has_space(self, supervisor: Supervisor) -> None:
        """After a write failed for want of space the server fails for ever: it is restarted once there is some."""
        directory = self._config.state_dir
        while True:
            await self._disk_was_full.wait()
            log.error(
                "journal-full", directory=str(directory), advice="make space: commands are refused until there is"
            )
            while not _has_space(directory):  # noqa: ASYNC110  (nothing tells when a disk has space again)
                await asyncio.sleep(DISK_LOOK_EVERY_S)
            await supervisor.restart(nats_server.NAME, reason="its disk was full and has space again")
            self._disk_was_full.clear()


def _has_space(directory: Path) -> bool:
    """Whether the disk of `directory` has enough free for the journal to go on: 5 %, or 64 MiB if that is less."""
    usage = shutil.disk_usage(directory)
    return usage.free >= min(DISK_FREE_ENOUGH_BYTES, usage.total // 20)


def check_privileges(config: Config) -> None:
    """We may do what the actors need. Raises: Misconfigured."""
    if "host" in config.actors and os.geteuid() != 0:
        raise Misconfigured(
            "netplugin makes links and bridges: run it as root (sudo netplugin), or with --actors ipam alone"
        )


def check_means(config: Config) -> None:
    """What the configuration asks for can be had, as far as can be told before anything is started.

    Raises: Misconfigured.
    """
    if "host" in config.actors and config.datapath == "system" and not KERNEL_DATAPATH.exists():
        raise Misconfigured(
            "--datapath system is Open vSwitch in the kernel, whose module is not loaded: modprobe openvswitch, "
            "or give --datapath netdev (in user space) or auto"
        )
    if config.nats is not None:
        credentials = config.creds or identity.seed_file(config.keys_dir, identity.DAEMON)
        try:
            credentials_of(credentials)
        except (OSError, ValueError) as fault:
            reason = fault.strerror if isinstance(fault, OSError) else str(fault)
            raise Misconfigured(
                f"--nats {config.nats} needs --creds FILE, an nkey seed or .creds file: {credentials}: {reason}"
            ) from fault
        try:
            tls_of(tuple(config.nats.split(",")), config.ca)
        except (OSError, ValueError) as fault:
            raise Misconfigured(
                f"--ca {config.ca} is to hold the certificate that servers are held to: {fault}"
            ) from fault
