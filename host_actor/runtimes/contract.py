"""What every container runtime takes and gives. A runtime is one file here and one line in `RUNTIMES`.

A runtime answers two questions: which network namespace is meant by a reference, now; and when does that answer change.
It never holds a namespace open (that would keep a dead container's network alive): it hands out paths.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from ..drivers.contract import Sandbox
from .reference import Reference


class Found(msgspec.Struct, frozen=True, tag="found"):
    """The container lives: its network namespace can be entered at this moment. `name` is its name for people."""

    sandbox: Sandbox
    name: str


class Waiting(msgspec.Struct, frozen=True, tag="waiting"):
    """Nothing to attach to yet; a `Started` or a `Resync` says when to ask again. The endpoint waits, with this reason.

    `code`: ``container-absent`` (no container by this name), ``container-not-started`` (created, never started),
    ``container-not-running`` (stopped, dead, or between two starts), ``engine-away`` (the engine does not answer).
    """

    code: str
    detail: str


class NotFound(msgspec.Struct, frozen=True, tag="not-found"):
    """The reference names nothing that an endpoint can be put into; asking again is up to the caller.

    `code`: ``container-not-found`` (no such named namespace or process), ``invalid-reference``,
    ``ambiguous-container``, ``container-uses-host-network`` (its namespace is the host's own), ``engine-unsupported``
    (see `DOCKER_HOST`).
    """

    code: str
    detail: str


Resolution = Found | Waiting | NotFound


class Started(msgspec.Struct, frozen=True, tag="started"):
    """A container answers to these identities from now on (started, or renamed): who waits for one asks again."""

    runtime: str
    name: str
    id: str = ""  # the engine's full id; empty where a runtime has names only

    def answers_to(self, reference: str) -> bool:
        """Whether `reference`, as a person wrote it, may mean this container. Never wrongly no."""
        asked = Reference.of(reference)
        if asked.runtime != self.runtime:
            return False
        return asked.name == self.name or bool(asked.name and self.id.startswith(asked.name))


class Died(msgspec.Struct, frozen=True, tag="died"):
    """The network namespace that was handed out under this key is gone, or going: its port has no other end."""

    sandbox_key: str
    reason: str


class Resync(msgspec.Struct, frozen=True, tag="resync"):
    """Events of this runtime may have been missed: ask again for every reference of it, waited for or attached."""

    runtime: str
    reason: str


RuntimeEvent = Started | Died | Resync


class Runtime(Protocol):
    """A kind of container. All methods belong to one event loop."""

    async def open(self, on_event: Callable[[RuntimeEvent], None]) -> None:
        """Events are followed from here on, also while the engine is away; returns without waiting for it.

        `on_event` is called from the event loop and must not block. `Died` comes once for each key handed out by
        `resolve` since; the others may come again for the same fact.
        """
        ...

    async def resolve(self, name: str) -> Resolution:
        """What `name` (the reference without its prefix) is now. At most one call to an engine, bounded in time."""
        ...

    async def close(self) -> None:
        """Nothing is followed any more and nothing is held. Containers are not touched."""
        ...
