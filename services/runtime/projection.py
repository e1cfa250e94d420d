"""An actor's state as the fold of the journal, kept current by one follower.

The follower owns `state`; own events are also applied as soon as their append is acknowledged. Each aggregate remembers
the last sequence applied to it, so an event that arrives both ways is applied once, in its aggregate's order. An event
that this version cannot read blocks its aggregate: nothing after it is applied, nothing is decided on it, and no
snapshot is made that an upgraded actor would start from.

Tasks: the follower (`run`), and at times one that writes a snapshot. Shutdown cancels both: the journal has everything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Generic

import anyio
import msgspec
import structlog
from anyio.abc import TaskGroup

from messages import codec, subjects

from .command_digest import DIGEST_HEADER
from .decision import Definition, StateT
from .errors import Unavailable
from .journal import COMMAND_ID_HEADER, MESSAGE_ID_HEADER, Draft, Identity, Journal, Recorded, Snapshots

log = structlog.get_logger()

SEEN_FOR_NS = 3600 * 10**9
SNAPSHOT_EVERY = 20_000  # events
UPGRADE_RETRY_AFTER_S = 60.0


class _Snapshot(msgspec.Struct, frozen=True):
    created: str
    state: bytes
    versions: dict[str, int]
    seen: list[tuple[str, int, int]]
    digests: dict[str, str] = {}


class Projection(Generic[StateT]):
    """State, the version of each aggregate, and which commands it comes from."""

    def __init__(
        self,
        definition: Definition[StateT],
        journal: Journal,
        snapshots: Snapshots | None = None,
        *,
        snapshot_every: int = SNAPSHOT_EVERY,
    ) -> None:
        self.state: StateT = definition.new_state()
        self.followed_seq = 0
        self._definition = definition
        self._journal = journal
        self._snapshots = snapshots
        self._snapshot_every = snapshot_every
        self._created = ""
        self._versions: dict[str, int] = {}
        self._seen: dict[str, int] = {}
        self._digests: dict[str, str] = {}
        self._seen_order: deque[tuple[int, str]] = deque()
        self._blocked: dict[str, str] = {}
        self._own: dict[str, tuple[bytes, Any]] = {}  # message id -> payload and event of what is being appended
        self._waiting: list[tuple[int, anyio.Event]] = []
        self._snapshot_seq = 0
        self._is_saving = False

    @property
    def waiting(self) -> int:
        """How many wait for a sequence to be reached."""
        return len(self._waiting)

    @property
    def blocked(self) -> int:
        """How many aggregates hold an event that this version cannot read."""
        return len(self._blocked)

    @property
    def snapshot_seq(self) -> int:
        """The sequence of the last snapshot that was loaded or begun; 0 for none."""
        return self._snapshot_seq

    def version(self, aggregate: str) -> int:
        """The sequence of the last event applied to an aggregate; 0 for none."""
        return self._versions.get(aggregate, 0)

    def seen(self, command_id: str) -> int:
        """The last sequence that a command became, within the last hour; 0 for one not seen."""
        return self._seen.get(command_id, 0)

    def is_other(self, command_id: str, digest: str) -> bool:
        """Whether what was seen under this id said something else; False where that is not known any more."""
        return self._digests.get(command_id, digest) != digest

    def check_readable(self, aggregates: Sequence[str], tenant: str, network: str | None) -> None:
        """Nothing unknown has been recorded in these aggregates, nor in the tenant's or the network's own.

        Raises: Unavailable, naming what this version does not know.
        """
        if not self._blocked:
            return
        concerned = [*aggregates, subjects.tenant_aggregate(tenant)]
        if network is not None:
            concerned.append(subjects.network_aggregate(tenant, network))
        for aggregate in concerned:
            reason = self._blocked.get(aggregate)
            if reason is not None:
                detail = f"{aggregate} holds what this version cannot read ({reason}): upgrade this actor"
                raise Unavailable(detail, UPGRADE_RETRY_AFTER_S)

    def own(self, draft: Draft, event: Any) -> None:
        """`event` is about to be recorded as `draft`: it need not be read from it again. `disown` it afterwards."""
        self._own[draft.headers[MESSAGE_ID_HEADER]] = draft.payload, event

    def disown(self, draft: Draft) -> None:
        """The append of `draft` is over."""
        self._own.pop(draft.headers[MESSAGE_ID_HEADER], None)

    def absorb(self, recorded: Recorded) -> None:
        """Apply one recorded event, once."""
        aggregate = subjects.aggregate_of(recorded.subject)
        if recorded.seq <= self._versions.get(aggregate, 0):
            return
        if aggregate not in self._blocked:
            self._apply(aggregate, recorded)
        self._versions[aggregate] = recorded.seq
        command_id = recorded.headers.get(COMMAND_ID_HEADER, "")
        if command_id:
            self._remember(command_id, recorded.seq, recorded.at_ns, recorded.headers.get(DIGEST_HEADER, ""))

    def _apply(self, aggregate: str, recorded: Recorded) -> None:
        payload, event = self._own.get(recorded.headers.get(MESSAGE_ID_HEADER, ""), (b"", None))
        try:
            known = event if payload == recorded.payload else codec.decode_event(recorded.payload)
        except codec.Malformed as fault:
            self._block(aggregate, recorded, fault)
        else:
            self._definition.apply(self.state, recorded.subject, known, recorded.seq, recorded.at_ns)

    def _block(self, aggregate: str, recorded: Recorded, fault: codec.Malformed) -> None:
        log.error("event-unreadable", seq=recorded.seq, subject=recorded.subject, code=fault.code, detail=fault.detail)
        self._blocked[aggregate] = f"sequence {recorded.seq}: {fault.detail}"

    def _remember(self, command_id: str, seq: int, at_ns: int, digest: str) -> None:
        if command_id not in self._seen:
            self._seen_order.append((at_ns, command_id))
        self._seen[command_id] = seq
        if digest:
            self._digests[command_id] = digest
        while self._seen_order and self._seen_order[0][0] < at_ns - SEEN_FOR_NS:
            _, old_id = self._seen_order.popleft()
            self._seen.pop(old_id, None)
            self._digests.pop(old_id, None)

    def follow_to(self, seq: int) -> None:
        """The follower has delivered everything up to `seq`: wake who waits for it."""
        self.followed_seq = max(self.followed_seq, seq)
        for wanted, event in self._waiting:
            if wanted <= self.followed_seq:
                event.set()

    async def reached(self, seq: int) -> None:
        """Return when the follower has delivered everything up to `seq`."""
        if seq <= self.followed_seq:
            return
        waiter = (seq, anyio.Event())
        self._waiting.append(waiter)
        try:
            await waiter[1].wait()
        finally:
            self._waiting.remove(waiter)

    async def catch_up(self, tenant: str = "*", network: str | None = None) -> None:
        """Return when all that the journal held of a tenant and a network at the call has been applied; of all, when
        none is named (which costs the server more the more there are). Raises: Unavailable.
        """
        filters = [_narrowed(followed, tenant, network or "*") for followed in self._definition.follows]
        await self.reached(await self._end(filters))

    async def _end(self, filters: Sequence[str]) -> int:
        """The sequence of the last event that one of the filters matches."""
        ends: list[int] = []

        async def ask(followed: str) -> None:
            ends.append(await self._journal.last_seq(followed))

        try:
            async with anyio.create_task_group() as tasks:
                for followed in filters:
                    tasks.start_soon(ask, followed)
        except* Unavailable as group:
            raise _first(group) from None
        return max(ends, default=0)

    async def run(self, *, current: anyio.Event) -> None:
        """Load the newest snapshot, replay what came after it, set `current`, and follow for ever.

        Raises: Unavailable at the start.
        """
        identity = await self._journal.identity()
        self._created = identity.created
        await self._load(identity)
        end = await self._end(self._definition.follows)
        if self.followed_seq >= end:
            current.set()
        async with anyio.create_task_group() as tasks:
            async for recorded in self._journal.follow(self._definition.follows, self.followed_seq):
                self.absorb(recorded)
                self.follow_to(recorded.seq)
                if recorded.seq >= end:
                    current.set()
                    self._save_if_due(tasks)

    async def _load(self, identity: Identity) -> None:
        found = await self._snapshots.load(self._definition.name) if self._snapshots else None
        if found is not None:
            self.restore(*found, identity)

    def restore(self, seq: int, packed: bytes, identity: Identity) -> None:
        """The state is that of a snapshot, if it can be read and is of this journal; else it is left as it was."""
        try:
            snapshot = msgspec.msgpack.decode(packed, type=_Snapshot)
            state = self._definition.load_state(snapshot.state)
        except (msgspec.DecodeError, msgspec.ValidationError) as fault:
            log.warning("snapshot-unreadable", seq=seq, detail=str(fault))
            return
        if snapshot.created != identity.created or seq > identity.last_seq:
            log.warning("snapshot-of-another-journal", seq=seq, last_seq=identity.last_seq)
            return
        self.state = state
        self._versions = snapshot.versions
        for command_id, at_seq, at_ns in snapshot.seen:
            self._remember(command_id, at_seq, at_ns, snapshot.digests.get(command_id, ""))
        self._snapshot_seq = seq
        self.followed_seq = seq
        log.info("snapshot-loaded", seq=seq)

    def _save_if_due(self, tasks: TaskGroup) -> None:
        """A snapshot is on its way when enough has happened since the last. The follower does not wait for it."""
        is_due = self.followed_seq - self._snapshot_seq >= self._snapshot_every
        if is_due and self._snapshots is not None and not self._is_saving and not self._blocked:
            self._is_saving = True
            self._snapshot_seq = self.followed_seq
            tasks.start_soon(self._save, self._snapshots, self.followed_seq, self._dump())

    def _dump(self) -> bytes:
        seen = [(command_id, self._seen[command_id], at_ns) for at_ns, command_id in self._seen_order]
        state = self._definition.dump_state(self.state)
        return msgspec.msgpack.encode(_Snapshot(self._created, state, self._versions, seen, self._digests))

    async def _save(self, snapshots: Snapshots, seq: int, packed: bytes) -> None:
        try:
            await snapshots.save(self._definition.name, seq, packed)
        except Unavailable as fault:
            log.warning("snapshot-not-saved", seq=seq, detail=fault.detail)
        else:
            log.info("snapshot-saved", seq=seq)
        finally:
            self._is_saving = False


def _narrowed(followed: str, tenant: str, network: str) -> str:
    """Of what a filter matches, the part that is a tenant's and a network's, or nobody's own."""
    tokens = followed.split(".")
    if tokens[3] == "*":
        tokens[3] = tenant
    if tokens[4] == "net" and tokens[5] == "*":
        tokens[5] = network
    return ".".join(tokens)


def _first(group: BaseExceptionGroup[Unavailable]) -> Unavailable:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
