"""Follows what is decided about the networks that have members here, or that those are routed to, and about no others.

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
from messages.catalog import event_name
from messages.codec import Malformed, decode_event
from messages.network import NetworkCreated, NetworkDeleted
from services.runtime.journal import Journal, Recorded

from .remotes import ALL, NetworkId, OpenNetwork, Remotes, TenantRoutes

log = structlog.get_logger()

_WHICH_NETWORKS = (event_name(NetworkCreated), event_name(NetworkDeleted))
NETWORKS_MAX = 64  # of one follower: the server compares all filters of a consumer with each other


class _Follower:
    """Some networks (or of some tenants, which they have), followed from after `position` by one consumer."""

    def __init__(self, *, is_of_tenants: bool) -> None:
        self.is_of_tenants = is_of_tenants
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
        turned: Iterable[NetworkId] = self._remotes.followed()
        async with anyio.create_task_group() as tasks:
            while True:
                await self._turn(turned, journal, tasks)
                turned = self._remotes.take_turned()
                if turned:
                    continue  # a tenant's networks
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
            if self._remotes.holding(network) is not None:
                opened.append(network)
        for is_of_tenants in (True, False):  # their filters overlap, which one consumer may not have
            alike = [network for network in opened if (network[1] == ALL) == is_of_tenants]
            for start in range(0, len(alike), NETWORKS_MAX):
                await self._open(alike[start : start + NETWORKS_MAX], journal, tasks)

    async def _open(self, networks: Sequence[NetworkId], journal: Journal, tasks: TaskGroup) -> None:
        """They have been read up to now, and are followed from there."""
        until_seq = await journal.last_seq()
        held = {network: each for network in networks if (each := self._remotes.holding(network)) is not None}
        for some in (
            {network: each for network, each in held.items() if each.seq},
            {network: each for network, each in held.items() if not each.seq},
        ):
            if some:
                after_seq = min(each.seq for each in some.values())
                self._fold_read(await journal.read(_filters(some), after_seq, until_seq), some, until_seq)
        self._on_change()
        for network in [network for network in held if self._remotes.holding(network) is not None]:
            follower = self._follower_with_room(until_seq, tasks, journal, is_of_tenants=network[1] == ALL)
            follower.networks[network] = None
            follower.position = min(follower.position, until_seq)
            self._follower_of[network] = follower
            follower.begin_again()

    def _fold_read(
        self, read: Sequence[Recorded], held: Mapping[NetworkId, OpenNetwork | TenantRoutes], until_seq: int
    ) -> None:
        """What was read is folded, but not into a network that was closed meanwhile, nor into its successor."""
        still = {network for network, each in held.items() if self._remotes.holding(network) is each}
        for recorded in read:
            for network in _networks_of(recorded):
                if network in still:
                    self._fold(network, recorded)
        for network in still:
            self._remotes.has_read(network, until_seq)

    def _follower_with_room(
        self, until_seq: int, tasks: TaskGroup, journal: Journal, *, is_of_tenants: bool
    ) -> _Follower:
        for follower in reversed(self._followers):
            if follower.is_of_tenants == is_of_tenants and len(follower.networks) < NETWORKS_MAX:
                return follower
        follower = _Follower(is_of_tenants=is_of_tenants)
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
                        for network in _networks_of(recorded):
                            found = self._remotes.holding(network)
                            # 0: opened again, and not read yet
                            if network in follower.networks and found is not None and found.seq:
                                self._fold(network, recorded)
                                self._on_change()
        self._followers.remove(follower)

    def _fold(self, network: NetworkId, recorded: Recorded) -> None:
        try:
            event = decode_event(recorded.payload)
        except Malformed as fault:
            log.warning("event-unreadable", seq=recorded.seq, subject=recorded.subject, detail=fault.detail)
            return
        if network[1] == ALL:
            self._remotes.fold_tenant(network[0], recorded.seq, event)
        else:
            self._remotes.fold(network, recorded.seq, event)


def _networks_of(recorded: Recorded) -> tuple[NetworkId, NetworkId]:
    """Under which names an event may be followed: its network's, and its tenant's."""
    tokens = recorded.subject.split(".")
    return (tokens[3], tokens[5]), (tokens[3], ALL)


def _filters(networks: Iterable[NetworkId]) -> list[str]:
    return [each for tenant, network in networks for each in _filters_of(tenant, network)]


def _filters_of(tenant: str, network: str) -> tuple[str, ...]:
    if network == ALL:
        return tuple(subjects.network_event(tenant, "*", event, "*") for event in _WHICH_NETWORKS)
    return (subjects.network_aggregate(tenant, network),)
