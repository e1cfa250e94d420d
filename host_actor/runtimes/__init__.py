"""The kinds of container that endpoints can be put into: one file and one line in `RUNTIMES` each."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .contract import Runtime
from .dispatch import Runtimes
from .docker import Docker
from .named_namespaces import NamedNamespaces
from .processes import Processes

# prefix of a reference -> the runtime, made from the environment of the process
RUNTIMES: dict[str, Callable[[Mapping[str, str]], Runtime]] = {
    "docker": Docker.of,
    "netns": lambda _: NamedNamespaces(),
    "pid": lambda _: Processes(),
}


def runtimes_of(environment: Mapping[str, str]) -> Runtimes:
    """All of `RUNTIMES`, made and not yet open."""
    return Runtimes({prefix: make(environment) for prefix, make in RUNTIMES.items()})
