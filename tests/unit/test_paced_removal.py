"""Ports leave one after the other; one that will not go holds up nobody, then or later."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence

import pytest

from host_actor.drivers.ovs_removal import PacedRemoval
from host_actor.netlink import KernelRefused
from services.runtime.errors import Unavailable

pytestmark = pytest.mark.anyio


class Links:
    """Devices that go when asked to, but for one."""

    def __init__(self, stubborn: str = "", *, is_switch_away: bool = False) -> None:
        self.removed: list[str] = []
        self._stubborn = stubborn
        self._is_switch_away = is_switch_away

    async def remove_port(self, _: str) -> bool:
        if self._is_switch_away:
            raise Unavailable("away")
        return False

    async def remove(self, devices: Sequence[str]) -> None:
        if self._stubborn in devices:
            raise KernelRefused(errno.EOPNOTSUPP, "", 0)
        self.removed += devices

    def paced(self) -> PacedRemoval:
        return PacedRemoval(self.remove_port, self.remove)


async def test_one_that_is_refused_fails_alone_and_may_be_tried_again() -> None:
    links = Links(stubborn="b")
    removal = links.paced()
    results = await asyncio.gather(*map(removal.add, "abc"), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), KernelRefused, type(None)]
    assert removal.pending == {}
    with pytest.raises(KernelRefused):
        await removal.add("b")
    await removal.add("d")
    assert links.removed == ["a", "c", "d"]
    await removal.close()


async def test_a_switch_that_is_away_fails_all_and_is_asked_again() -> None:
    links = Links(is_switch_away=True)
    removal = links.paced()
    for _ in range(2):
        results = await asyncio.gather(*map(removal.add, "ab"), return_exceptions=True)
        assert [type(result) for result in results] == [Unavailable, Unavailable]
        assert removal.pending == {}
    await removal.close()


async def test_what_leaves_a_sandbox_goes_first_when_something_comes_into_it() -> None:
    links = Links()
    removal = links.paced()
    for device, sandbox in (("a", "one"), ("b", "two"), ("c", "two"), ("d", "one")):
        removal.add(device, sandbox)
    await removal.make_room("e", "two")
    assert links.removed == ["b", "c"]
    await removal.make_room("d", "three")
    assert links.removed == ["b", "c", "d"]
    await removal.close()


async def test_closed_it_leaves_what_waits() -> None:
    links = Links()
    removal = links.paced()
    waiting = [removal.add(device) for device in "abc"]
    await removal.close()
    assert all(isinstance(gone.exception(), Unavailable) for gone in waiting)
    assert links.removed == []
