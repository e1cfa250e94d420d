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
    Bucket,
    Flow,
    GroupCommand,
    add_flow,
    delete_by_cookie,
    delete_flow,
    group_mod,
    port_bucket,
)
from ..openflow_client import OpenFlowClient
from .ovs_flows import (
    COMMON_OWNER,
    OUR_TABLES,
    Seal,
    is_remote_owner,
)

SHARED_BUCKETS: Final = 0xFE00  # bucket ids from here on are no endpoint's: they may be in many groups (uplinks, hosts)
_BUCKETS_BYTES_MAX: Final = 60_000  # a message is shorter than 64 KiB


@dataclass
class Groups:
    """Which buckets are in which network's broadcast group: a port's has the port's number as its id."""

    members: dict[int, set[int]] = field(default_factory=dict)  # network key -> bucket ids
    key_of: dict[int, int] = field(default_factory=dict)  # port number -> network key

    def restart(self, found: Mapping[int, Iterable[int]]) -> None:
        """The groups are exactly these."""
        self.members = {key: set(buckets) for key, buckets in found.items()}
        self.key_of = {each: key for key, buckets in self.members.items() for each in buckets if each < SHARED_BUCKETS}


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
        self._shared: dict[tuple[int, int], Bucket | None] = {}  # network key and bucket id; None: not there
        self._keys: dict[int, None] = {}  # groups that are there, with whatever is in them

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

    def need_group(self, key: int) -> None:
        """The network has a group, be it an empty one: flows may refer to it."""
        self._keys[key] = None

    def flood(self, key: int, bucket: Bucket) -> None:
        """The bucket is in the network's group; its id is one of `SHARED_BUCKETS` and always does the same."""
        self._shared[key, bucket.id] = bucket

    def unflood(self, key: int, bucket_id: int) -> None:
        """No bucket of this id is in the network's group."""
        self._shared[key, bucket_id] = None

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
        added: dict[int, list[Bucket]] = {key: [] for key in self._keys if key not in groups.members}
        removed = self._change_ports(added)
        for (key, bucket_id), bucket in self._shared.items():
            is_there = bucket_id in groups.members.get(key, ())
            if bucket is None and is_there:
                removed.append((key, bucket_id))
            elif bucket is not None and not is_there:
                added.setdefault(key, []).append(bucket)
        for key, bucket_id in removed:
            groups.members[key].discard(bucket_id)
            if groups.members[key] or key in added or key in self._keys:
                yield group_mod(GroupCommand.REMOVE_BUCKET, key, bucket=bucket_id)
            else:
                del groups.members[key]
                yield group_mod(GroupCommand.DELETE, key)
                yield from map(delete_by_cookie, {entry.cookie for entry in self._flows_of_network(key)})
        for key, buckets in added.items():
            is_new = key not in groups.members
            if is_new:
                self._flows += self._flows_of_network(key)
            groups.members.setdefault(key, set()).update(bucket.id for bucket in buckets)
            for number, some in enumerate(_split(buckets)):
                if is_new and number == 0:
                    yield group_mod(GroupCommand.ADD, key, some)
                else:
                    yield group_mod(GroupCommand.INSERT_BUCKET, key, some, BUCKET_LAST)

    def _change_ports(self, added: dict[int, list[Bucket]]) -> list[tuple[int, int]]:
        """Which port is in which group from now on; returns (network key, bucket id) of those that leave one."""
        groups = self._groups
        removed = []
        for port, key in self._joins.items():
            if groups.key_of.get(port) != key:
                self._leaves.add(port)
                added.setdefault(key, []).append(port_bucket(port))
        for port in self._leaves:
            old = groups.key_of.pop(port, None)
            if old is not None:
                removed.append((old, port))
        groups.key_of.update(self._joins)
        return removed


def _split(buckets: Sequence[Bucket]) -> Iterable[list[Bucket]]:
    """As many together as a message holds; one empty list for none."""
    some: list[Bucket] = []
    size = 0
    for bucket in buckets:
        if size + len(bucket.actions) + 8 > _BUCKETS_BYTES_MAX:
            yield some
            some, size = [], 0
        some.append(bucket)
        size += len(bucket.actions) + 8
    yield some


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
        """The owners found that are none of these, no network, not the common one, nor an endpoint of another host."""
        unknown = self.seals.keys() - owners - self.networks.keys() - {COMMON_OWNER}
        return {owner for owner in unknown if not is_remote_owner(owner)}

    def remotes(self, owners: Collection[int]) -> dict[int, Seal]:
        """The seals of endpoints of other hosts, which are none of these owners."""
        return {owner: seal for owner, seal in self.seals.items() if is_remote_owner(owner) and owner not in owners}


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
    """The flows in our tables that belong to none of these owners and are no common ones, nor of another host."""
    found: list[Flow] = []
    known = {COMMON_OWNER, *owners}

    def is_strange(entry: Flow) -> bool:
        return entry.table in OUR_TABLES and entry.cookie not in known and not is_remote_owner(entry.cookie)

    def take(flows: Sequence[Flow]) -> None:
        found.extend(filter(is_strange, flows))

    await client.flows(take)
    return found
