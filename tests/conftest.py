"""Fixtures that tests of every kind share. What they start ends with them."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import structlog

from tests.harness.nats import RunningNats, running_nats
from tests.harness.netns import NetworkNamespace, network_namespace
from tests.harness.openvswitch import RunningSwitch, running_switch

pytest_plugins = ["tests.requires"]  # the marks that say what a test needs of the machine


@pytest.fixture
def anyio_backend() -> str:
    """Asynchronous tests (`@pytest.mark.anyio`) run on asyncio, as the product does."""
    return "asyncio"


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """What a test makes of the logs ends with it: the stream it wrote them to is closed afterwards."""
    yield
    if structlog.is_configured():
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
        sys.excepthook = sys.__excepthook__


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[RunningNats]:
    """A nats-server of this test's own, empty, with hosts h1 and h2."""
    with running_nats(tmp_path / "nats") as server:
        yield server


@pytest.fixture
def short_path() -> Iterator[Path]:
    """An empty folder whose path is short enough for sockets below it."""
    with tempfile.TemporaryDirectory(prefix="np") as name:
        yield Path(name)


@pytest.fixture
def netns() -> Iterator[Callable[[str], NetworkNamespace]]:
    """Makes named network namespaces that are gone after the test."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(network_namespace(name))


@pytest.fixture
def open_vswitch(short_path: Path) -> Iterator[RunningSwitch]:
    """An Open vSwitch of this test's own in the present network namespace, empty."""
    with running_switch(short_path) as switch:
        yield switch
