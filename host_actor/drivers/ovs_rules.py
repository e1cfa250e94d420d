"""The rules as the switch has them: the members of the broadcast groups, and what a dump of the flows tells.

The groups are remembered between changes, because only this driver writes them; a survey, or a refused bundle, reads
them again. A change is gathered in a `RuleEdit` and becomes one bundle: old flows away, groups, new flows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ..openflow import (
    BUCKET_LAST,
    Flow,
    GroupCommand,
    add_flow,
    delete_by_cookie,
    delete_flow,
    group_mod,
)
from ..openflow_client import OpenFlowClient
from .ovs_flows import (
    COMMON_OWNER,
    OUR_TABLES,
    Seal,
)

_BUCKETS_PER_MESSAGE: Final = 2000  # a message is shorter than 64 KiB


@dataclass
class Groups:
    """Which ports are in which network's broadcast group."""

    members: dict[int, set[int]] = field(default_factory=dict)  # network key -> port numbers
    key_of: dict[int, int] = field(default_factory=dict)  # port number -> network key

    def restart(self, found: Mapping[int, Iterable[int]]) -> None:
        """The groups are exactly these."""
        self.members = {key: set(ports) for key, ports in found.items()}
        self.key_of = {port: key for key, ports in self.members.items() for port in ports}


FlowsOfNetwork = Callable[[int], Sequence[Flow]]  # by the network's key; all with the network's own cookie


class RuleEdit:
    """One change of the rules, written down port by port, then told as the messages of one bundle.

    What `flows_of_network` says stands as long as the network's group does.
    """

    def __init__(self, groups: Groups, flows_of_network: FlowsOfNetwork = lambda _: ()) -> None:
        self._groups = groups
        self._flows_of_network = flows_of_network
        self._owners: dict[int, None] = {}
        self._odd: list[Flow] = []
        self._flows: list[Flow] = []
        self._joins: dict[int, int] = {}  # port number -> network key
        self._leaves: set[int] = set()

    def install(self, flows: Sequence[Flow], port: int, key: int) -> None:
        """These flows stand, and the port is in the network's group and in no other."""
        self._flows += flows
        self._joins[port] = key
        self._leaves.discard(port)

    def remove(self, owner: int) -> None:
        """No flow of this owner is left, but for those installed in the same change."""
        self._owners[owner] = None

    def leave(self, port: int) -> None:
        """The port is in no group."""
        if port not in self._joins:
            self._leaves.add(port)

    def put(self, flows: Iterable[Flow], instead_of: Iterable[Flow]) -> None:
        """These flows stand and those do not, whoever they belong to."""
        self._flows += flows
        self._odd += instead_of

    def messages(self) -> list[bytes]:
        """The bundle. The remembered groups are from now on what it makes of them: it must be sent."""
        return [
            *map(delete_by_cookie, self._owners),
            *map(delete_flow, self._odd),
            *self._group_messages(),
            *map(add_flow, self._flows),
        ]

    def _group_messages(self) -> Iterable[bytes]:
        groups = self._groups
        added: dict[int, list[int]] = {}
        for port, key in self._joins.items():
            if groups.key_of.get(port) != key:
                self._leaves.add(port)
                added.setdefault(key, []).append(port)
        for port in self._leaves:
            old = groups.key_of.pop(port, None)
            if old is None:
                continue
            groups.members[old].discard(port)
            if groups.members[old] or old in added:
                yield group_mod(GroupCommand.REMOVE_BUCKET, old, bucket=port)
            else:
                del groups.members[old]
                yield group_mod(GroupCommand.DELETE, old)
                yield from map(delete_by_cookie, {entry.cookie for entry in self._flows_of_network(old)})
        for key, ports in added.items():
            is_new = key not in groups.members
            if is_new:
                self._flows += self._flows_of_network(key)
            groups.members.setdefault(key, set()).update(ports)
            groups.key_of.update(dict.fromkeys(ports, key))
            for start in range(0, len(ports), _BUCKETS_PER_MESSAGE):
                some = ports[start : start + _BUCKETS_PER_MESSAGE]
                if is_new and start == 0:
                    yield group_mod(GroupCommand.ADD, key, some)
                else:
                    yield group_mod(GroupCommand.INSERT_BUCKET, key, some, BUCKET_LAST)


@dataclass(frozen=True, slots=True)
class Survey:
    """What a dump of our tables shows: the seal of each owner's flows. `common` is the common ones', untouched."""

    seals: Mapping[int, Seal]
    common: Seal
    networks: Mapping[int, Seal] = field(default_factory=dict)  # what each network's own flows must look like

    @property
    def is_common_whole(self) -> bool:
        """Whether the flows that stand for all ports, or for all of a network, are there, untouched."""
        are_networks_whole = all(self.seals.get(owner) == seal for owner, seal in self.networks.items())
        return self.seals.get(COMMON_OWNER) == self.common and are_networks_whole

    def strangers(self, owners: Collection[int]) -> set[int]:
        """The owners found that are none of these, no network, and not the common one."""
        return self.seals.keys() - owners - self.networks.keys() - {COMMON_OWNER}


async def survey(client: OpenFlowClient, common: Seal, networks: Mapping[int, Seal]) -> Survey:
    """The flows of our tables, counted and summed by owner while they arrive."""
    seals: dict[int, Seal] = {}

    def take(flows: Sequence[Flow]) -> None:
        for entry in flows:
            if entry.table in OUR_TABLES:
                seals[entry.cookie] = seals.get(entry.cookie, Seal()).with_flow(entry)

    await client.flows(take)
    return Survey(seals, common, networks)


async def flows_of_strangers(client: OpenFlowClient, owners: Collection[int]) -> list[Flow]:
    """The flows in our tables that belong to none of these owners and are not common ones."""
    found: list[Flow] = []
    known = {COMMON_OWNER, *owners}

    def take(flows: Sequence[Flow]) -> None:
        found.extend(entry for entry in flows if entry.table in OUR_TABLES and entry.cookie not in known)

    await client.flows(take)
    return found
