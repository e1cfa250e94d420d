"""Network namespaces for tests: made, run in, and gone when the context ends."""

from __future__ import annotations

import ctypes
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

CLONE_NEWNET = 0x40000000
T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)


def run(
    *command: str, timeout_s: float = 60.0, check: bool = True, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The program's end. Raises: `AssertionError` with what it said, when it failed and `check`."""
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if check and done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip() or "it said nothing"
        raise AssertionError(f"{' '.join(command)}: exit status {done.returncode}: {said}")
    return done


class NetworkNamespace:
    """A named network namespace with its loopback up."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = Path("/run/netns") / name

    def command(self, *arguments: str) -> tuple[str, ...]:
        """The arguments that run a program inside."""
        return ("nsenter", f"--net={self.path}", "--", *arguments)

    def run(self, *arguments: str, timeout_s: float = 60.0, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The program's end inside. Raises: `AssertionError` with what it said, when it failed and `check`."""
        return run(*self.command(*arguments), timeout_s=timeout_s, check=check)

    def call(self, function: Callable[[], T]) -> T:
        """What `function` returns when called inside, in a thread of its own; processes it starts are inside too."""

        def inside() -> T:
            with self.path.open() as handle:
                if _libc.setns(handle.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"setns {self.path}")
            return function()

        return in_thread(inside)


def in_thread(function: Callable[[], T]) -> T:
    """What `function` returns, called in a new thread: there no event loop runs, and its namespaces are its own."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(function).result()


@contextmanager
def network_namespace(name: str) -> Iterator[NetworkNamespace]:
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "set", "lo", "up")
        yield NetworkNamespace(name)
    finally:
        run("ip", "netns", "delete", name)


def links(namespace: NetworkNamespace | None = None) -> set[str]:
    """The names of all links, here or in `namespace`."""
    if namespace is not None:
        return namespace.call(links)
    return {
        line.split(":")[0].strip()
        for line in Path(f"/proc/self/task/{threading.get_native_id()}/net/dev").read_text().splitlines()[2:]
    }


def pids_in(namespace: NetworkNamespace) -> set[int]:
    """Every process that lives in `namespace`."""
    inode = namespace.path.stat().st_ino
    found = set()
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if (directory / "ns" / "net").stat().st_ino == inode:
                found.add(int(directory.name))
        except OSError:
            continue
    return found
