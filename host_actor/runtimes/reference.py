"""How a person names a container: `netns:NAME`, `pid:N`, or a Docker name or id with or without `docker:` before it."""

from __future__ import annotations

import msgspec

DEFAULT_RUNTIME = "docker"


class Reference(msgspec.Struct, frozen=True):
    """Which runtime is asked, and for what. Every string is one; whether it names anything the runtime says."""

    runtime: str
    name: str

    @classmethod
    def of(cls, text: str) -> Reference:
        """The parts of `text`: what stands before the first colon is the runtime, Docker where there is none.

        Docker's own output shows names with a slash before them (`/web`): it is taken off, as the engine does.
        """
        before, colon, after = text.strip().partition(":")
        runtime, name = (before, after) if colon else (DEFAULT_RUNTIME, before)
        return cls(runtime, name.removeprefix("/") if runtime == DEFAULT_RUNTIME else name)
