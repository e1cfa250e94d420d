"""A Docker engine for tests, with an image of busybox under `ubuntu`; the demo's own (`services/demo/engine.py`)."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.demo.engine import Engine


@contextmanager
def running_engine(*tags: str) -> Iterator[Engine]:
    """An engine that answers, in a folder with a short path; nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="eng") as folder, Engine(Path(folder) / "e") as engine:
        engine.import_busybox("ubuntu", *tags)
        yield engine


def start_container(engine: Engine, name: str, *options: str) -> str:
    """The full id of a container that runs until it is removed. It has a loopback only (the engine has no bridge)."""
    return engine.docker(
        "run", "-d", "--init", "--name", name, "--hostname", name, *options, "ubuntu", "sleep", "86400"
    )


def container_pid(engine: Engine, name: str) -> int:
    """Its first process, as this host counts."""
    pid = json.loads(engine.docker("inspect", name))[0]["State"]["Pid"]
    assert isinstance(pid, int)
    return pid
