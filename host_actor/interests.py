"""Follows what is decided about the networks that have members here, and about no others.

The host's own filter and a network's overlap, which one consumer may not have: so interests have followers of their
own, each of some networks. A new network is read from its beginning up to now and folded, then joins a follower, which
begins again from where it was or from there, whichever is earlier: nothing is missed, and what comes twice is known by
its sequence (`Remotes.fold`). A network that no member is left of leaves its follower.

    (nothing) --a member here--> read --> followed --the last member goes--> (nothing)

Runs inside a session with the journal, once that has been read: one task that opens and closes, one a follower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing

import anyio
import structlog
from anyio.abc import TaskGroup

from messages import subjects
from messages.codec import Malformed, decode_event
from services.runtime.journal import Journal, Recorded

from .remotes import NetworkId, OpenNetwork, Remotes

log = structlog.get_logger()

NETWORKS_MAX = 64  # of one follower: the server compares all filters of a consumer with each other


class _Follower:
    """Some networks, followed from after `position` by one consumer."""

    def __init__(self) -> None:
        self.networks: dict[NetworkId, None] = {}
        self.position = 0
        self.scope: anyio.CancelScope | None = None

    def begin_again(self) -> None:
        """Its networks are others now."""
        if self.scope is not None:
            self.scope.cancel()


class Interests:
    """Keeps `Remotes` as the journal says. `on_change()`: something of it may be another now."""

    def __init__(self, remotes: Remotes, on_change: Callable[[], None]) -> None:
        self.is_current = False  # every open network has been read, in this session or the one before
        self.delivered = 0  # events of networks that were followed
        self._remotes = remotes
        self._on_change = on_change
        self._turned = anyio.Event()
        self._followers: list[_Follower] = []
        self._follower_of: dict[NetworkId, _Follower] = {}

    def look(self) -> None:
        """Networks may have been opened or closed."""
        self._turned.set()

    async def run(self, journal: Journal, on_current: Callable[[], None]) -> None:
        """Read and follow what is open, for ever; `on_current` is called once all that is open now has been read.

        Raises: Unavailable.
        """
        self.is_current = False
        self._followers = []
        self._follower_of = {}
        self._remotes.take_turned()
        turned: Iterable[NetworkId] = list(self._remotes.networks)
        async with anyio.create_task_group() as tasks:
            while True:
                await self._turn(turned, journal, tasks)
                if not self.is_current:
                    self.is_current = True
                    on_current()
                await self._turned.wait()
                self._turned = anyio.Event()
                turned = self._remotes.take_turned()

    async def _turn(self, turned: Iterable[NetworkId], journal: Journal, tasks: TaskGroup) -> None:
        """Of these networks, what is open is followed, and what is not is not."""
        opened = []
        for network in turned:
            follower = self._follower_of.pop(network, None)
            if follower is not None:  # one that was closed and opened again is read anew, too
                del follower.networks[network]
                follower.begin_again()
            if network in self._remotes.networks:
                opened.append(network)
        for start in range(0, len(opened), NETWORKS_MAX):
            await self._open(opened[start : start + NETWORKS_MAX], journal, tasks)

    async def _open(self, networks: Sequence[NetworkId], journal: Journal, tasks: TaskGroup) -> None:
        """They have been read up to now, and are followed from there."""
        until_seq = await journal.last_seq()
        held = {network: self._remotes.networks[network] for network in networks if network in self._remotes.networks}
        for some in (
            {network: each for network, each in held.items() if each.seq},
            {network: each for network, each in held.items() if not each.seq},
        ):
            if some:
                after_seq = min(each.seq for each in some.values())
                self._fold_read(await journal.read(_filters(some), after_seq, until_seq), some, until_seq)
        self._on_change()
        for network in held.keys() & self._remotes.networks.keys():
            follower = self._follower_with_room(until_seq, tasks, journal)
            follower.networks[network] = None
            follower.position = min(follower.position, until_seq)
            self._follower_of[network] = follower
            follower.begin_again()

    def _fold_read(self, read: Sequence[Recorded], held: Mapping[NetworkId, OpenNetwork], until_seq: int) -> None:
        """What was read is folded, but not into a network that was closed meanwhile, nor into its successor."""
        still = {network for network, each in held.items() if self._remotes.networks.get(network) is each}
        for recorded in read:
            if _network_of(recorded) in still:
                self._fold(recorded)
        for network in still:
            self._remotes.has_read(network, until_seq)

    def _follower_with_room(self, until_seq: int, tasks: TaskGroup, journal: Journal) -> _Follower:
        for follower in reversed(self._followers):
            if len(follower.networks) < NETWORKS_MAX:
                return follower
        follower = _Follower()
        follower.position = until_seq
        self._followers.append(follower)
        tasks.start_soon(self._follow, follower, journal)
        return follower

    async def _follow(self, follower: _Follower, journal: Journal) -> None:
        while follower.networks:
            with anyio.CancelScope() as follower.scope:
                filters = _filters(follower.networks)
                async with aclosing(journal.follow(filters, follower.position)) as events:
                    async for recorded in events:
                        follower.position = recorded.seq
                        self.delivered += 1
                        found = self._remotes.networks.get(_network_of(recorded))
                        if found is not None and found.seq:  # 0: opened again, and not read yet
                            self._fold(recorded)
                            self._on_change()
        self._followers.remove(follower)

    def _fold(self, recorded: Recorded) -> None:
        try:
            event = decode_event(recorded.payload)
        except Malformed as fault:
            log.warning("event-unreadable", seq=recorded.seq, subject=recorded.subject, detail=fault.detail)
            return
        self._remotes.fold(_network_of(recorded), recorded.seq, event)


def _network_of(recorded: Recorded) -> NetworkId:
    tokens = recorded.subject.split(".")
    return tokens[3], tokens[5]


def _filters(networks: Iterable[NetworkId]) -> list[str]:
    return [subjects.network_aggregate(*network) for network in networks]
