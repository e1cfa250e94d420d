"""Docker containers by name or id, asked of the engine's HTTP API on its unix socket.

One task, owned by the runtime from `open` to `close`, follows the engine's events: who starts or is renamed is told,
and after every new connection to the engine a `Resync`, for nobody knows what happened while it was away. It ends with
`close`; should it fail in any other way, the loop's exception handler has the reason. The end of a container is not
taken from the events but from the kernel (`ProcessEnds`): at once, exactly that run of it, and with the engine away.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from urllib.parse import quote

import msgspec
import structlog

from services.runtime.errors import Unavailable

from ..drivers.contract import Sandbox
from .contract import Died, Found, NotFound, Resolution, Resync, RuntimeEvent, Started, Waiting
from .engine_socket import EngineSocket
from .http1 import Garbled
from .kernel import ProcessEnds, identity_of, is_own_namespace

log = structlog.get_logger()

DEFAULT_HOST = "unix:///var/run/docker.sock"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,252}")
_SHORT_ID_LENGTH = 12
_RETRY_S = 1.0  # between looks for an engine that is away
_OVERLAP_S = 1.0  # events this much older than the subscription are asked for again: none falls between two streams
_FOLLOWED = quote(json.dumps({"type": ["container"], "event": ["start", "rename"]}, separators=(",", ":")))


class _State(msgspec.Struct, rename="pascal"):
    status: str
    running: bool
    pid: int
    exit_code: int = 0
    error: str = ""


class _Container(msgspec.Struct, rename="pascal"):
    """What we use of `GET /containers/{id}/json`."""

    id: str
    name: str
    state: _State


class _Subject(msgspec.Struct):
    id: str = msgspec.field(name="ID")
    attributes: dict[str, str] = msgspec.field(name="Attributes", default_factory=dict)


class _Event(msgspec.Struct, rename="pascal"):
    """What we use of a line of `GET /events`."""

    action: str
    actor: _Subject


class _Complaint(msgspec.Struct):
    message: str = ""


class Docker:
    """The engine on this host. Several of these on one engine do not disturb each other."""

    def __init__(self, host: str = DEFAULT_HOST) -> None:
        self._host = host
        scheme, _, path = host.partition("://")
        self._socket = EngineSocket(path) if scheme == "unix" and path.startswith("/") else None
        self._on_event: Callable[[RuntimeEvent], None] = lambda _: None
        self._ends = ProcessEnds(lambda key: self._on_event(Died(key, "the container ended")))
        self._following: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Docker:
        """The engine that `DOCKER_HOST` names, else the usual one."""
        return cls(environment.get("DOCKER_HOST") or DEFAULT_HOST)

    async def open(self, on_event: Callable[[RuntimeEvent], None]) -> None:
        """Events are followed from here on; an engine that is away is looked for once a second."""
        self._on_event = on_event
        if self._socket is not None:
            self._following = asyncio.create_task(self._follow(self._socket), name="docker-events")
            self._following.add_done_callback(_raise_failure)

    async def resolve(self, name: str) -> Resolution:
        """The container of this name, full id, or id cut to 12 characters or more."""
        if self._socket is None:
            return NotFound(
                "engine-unsupported",
                f"DOCKER_HOST is {self._host!r}: expected unix:///PATH, as containers are entered by their pids here",
            )
        if self._following is not None and self._following.done() and not self._following.cancelled():
            self._following.result()  # a bug that ended it is not passed over
        if not _NAME.fullmatch(name):
            return NotFound("invalid-reference", f"container {name!r}: no Docker name or id can look like this")
        try:
            status, body = await self._socket.get(f"/containers/{name}/json")
            if status == 200:
                return self._judge(name, msgspec.json.decode(body, type=_Container))
            return _refused(name, status, msgspec.json.decode(body, type=_Complaint).message)
        except Unavailable as error:
            return Waiting("engine-away", f"container {name!r}: {error.detail}")
        except msgspec.DecodeError as error:
            return Waiting(
                "engine-away", f"container {name!r}: the answer of the engine at {self._host} is none: {error}"
            )

    async def close(self) -> None:
        """Nothing is followed any more and no connection is kept."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
        if self._socket is not None:
            self._socket.close()
        self._ends.close()

    def _judge(self, name: str, container: _Container) -> Resolution:
        own_name = container.name.removeprefix("/")
        is_by_id = len(name) >= _SHORT_ID_LENGTH and container.id.startswith(name)
        if name != own_name and not is_by_id:
            # The engine takes any prefix of an id; a name that is waited for ("cafe") must never be taken for one.
            return Waiting(
                "container-absent",
                f"no container is named {name!r} (an id needs at least {_SHORT_ID_LENGTH} characters)",
            )
        state = container.state
        if not state.running or state.pid <= 0:
            return _not_running(own_name, state)
        path = f"/proc/{state.pid}/ns/net"
        identity = identity_of(path)
        if identity is not None and is_own_namespace(identity):
            return NotFound(
                "container-uses-host-network",
                f"container {own_name!r} runs with --network host: start it with --network none to attach endpoints",
            )
        key = f"docker:{container.id[:_SHORT_ID_LENGTH]}:{state.pid}"
        if identity is None or not self._ends.follow(key, state.pid):
            return Waiting(
                "container-not-running",
                f"container {own_name!r} ended a moment ago, or its process {state.pid} is not one of this host",
            )
        return Found(Sandbox(key, path), own_name)

    async def _follow(self, socket: EngineSocket) -> None:
        """Tells events for ever. What the engine sends after an end of its stream is another life of it."""
        was_here = True  # so that an engine that is away from the beginning is said once
        while True:
            since = f"{time.time() - _OVERLAP_S:.9f}"
            try:
                async with aclosing(socket.lines(f"/events?since={since}&filters={_FOLLOWED}")) as lines:
                    async for line in lines:
                        if line:
                            self._tell(line)
                        else:
                            was_here = True
                            log.info("engine-here", engine=self._host)
                            self._on_event(Resync("docker", f"the engine at {self._host} is followed from now on"))
                reason = "it ended its stream of events"
            except Unavailable as error:
                reason = error.detail
            if was_here:
                was_here = False
                log.warning("engine-away", engine=self._host, reason=reason, looked_for_every_s=_RETRY_S)
            await asyncio.sleep(_RETRY_S)

    def _tell(self, line: bytes) -> None:
        try:
            event = msgspec.json.decode(line, type=_Event)
        except msgspec.DecodeError as error:
            raise Garbled(f"expected an event, found {line[:120]!r}: {error}") from error
        name = event.actor.attributes.get("name", "").removeprefix("/")
        self._on_event(Started("docker", name, event.actor.id))


def _not_running(name: str, state: _State) -> Waiting:
    if state.status == "created":
        reason = f" ({state.error})" if state.error else ""
        return Waiting(
            "container-not-started", f"container {name!r} is created and not started{reason}: docker start {name}"
        )
    if state.status == "exited":
        found = f"stopped with exit code {state.exit_code}"
    else:
        found = f"is {state.status or 'not running'}"
    return Waiting("container-not-running", f"container {name!r} {found}: docker start {name}")


def _refused(name: str, status: int, message: str) -> Resolution:
    """What an answer other than 200 means; that several ids begin with `name` the engine tells by its text only."""
    is_ambiguous = "multiple ids found" in message.lower()
    if is_ambiguous and len(name) >= _SHORT_ID_LENGTH:
        return NotFound("ambiguous-container", f"container {name!r}: the ids of several containers begin with it")
    if is_ambiguous or status == 404:
        return Waiting("container-absent", f"there is no container {name!r} yet")
    return Waiting("engine-away", f"container {name!r}: the engine answered {status}: {message}")


def _raise_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.result()
