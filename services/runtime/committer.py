"""Decide, append with the expected sequence, apply, answer: one command at a time per aggregate, in batches where
they queue.

Each lane (the commands that write the same aggregates) has one worker, which ends when its queue is empty. While an
append waits for its acknowledgement the lane's commands collect; a queue of `BATCH_FROM` and more goes as one atomic
batch. A conflict means that another copy of the actor was first: what it wrote is applied and everything is decided
again, a bounded number of times.

No answer rests on less than what the journal held when the command came: an append proves that for what it writes, and
what comes to no append (refused, or true already) is decided again once all of that has been followed.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate, islice
from typing import Generic

import msgspec
import structlog
from anyio.abc import TaskGroup

from messages.catalog import COMMANDS, construct_and_verb, event_name
from messages.codec import MSGPACK, encode
from messages.intent import IntentView
from messages.replies import Accepted, AnyReply, AnyView, Item, Planned, PlannedEvent, Refused, Unavailable
from messages.struct import Command, kebab
from messages.subjects import FABRIC, aggregate_of

from . import errors
from .actor_metrics import ActorMeasures
from .clock import rfc3339
from .command_digest import DIGEST_HEADER, digest_of
from .decision import Decision, Definition, Rejection, Stamp, StateT
from .envelope import TRACE_HEADER
from .journal import BY_HEADER, COMMAND_ID_HEADER, MESSAGE_ID_HEADER, Draft, Expectation, Journal, Recorded
from .logs import COMMAND_FACTS
from .projection import Projection
from .turns import Turns

log = structlog.get_logger()

ATTEMPTS_MAX = 12
BATCH_ATTEMPTS = 2  # then one command at a time
BATCH_FROM = 8  # commands waiting; below it, singles are faster than one batch
BATCH_COMMANDS_MAX = 64
DECIDE_WITHIN_S = 10.0
RETRY_AFTER_S = 0.5
HEAR_WITHIN_S = 1.5  # then its sender asks again, maybe another copy
QUERIES = frozenset({"get", "list"})  # verbs

Lane = tuple[str, ...]


class Request(msgspec.Struct):
    """One command on its way through a lane. `reply` is done when it is answered, or nobody waits any more."""

    command: Command
    stamp: Stamp
    trace: str
    reply: asyncio.Future[AnyReply]
    is_confirmed: bool = False  # the state holds all that the journal did when the command came
    is_in_doubt: bool = False  # an append of it may have been recorded

    def answer(self, reply: AnyReply) -> None:
        """The command has its answer; the first one stands."""
        if not self.reply.done():
            self.reply.set_result(reply)

    def put_off(self, fault: errors.Unavailable) -> None:
        """The command is answered with when to try again."""
        code = _CODES.get(type(fault), "unavailable")
        self.answer(
            Unavailable(
                code=code, detail=fault.detail, retry_after_s=fault.retry_after_s, is_outcome_unknown=self.is_in_doubt
            )
        )


_CODES: dict[type[errors.Unavailable], str] = {errors.JournalFull: "journal-full", errors.Conflict: "conflict"}


class _Decided(msgspec.Struct):
    request: Request
    decision: Decision
    drafts: list[Draft]


class Committer(Generic[StateT]):
    """The writing half of an actor. `tasks` owns the lanes' workers.

    `is_deaf` says whether the journal is not being followed just now (its server has gone): then a question waits until
    what is shown is not older than the question.
    """

    def __init__(
        self,
        definition: Definition[StateT],
        projection: Projection[StateT],
        journal: Journal,
        tasks: TaskGroup,
        measures: ActorMeasures | None = None,
        is_deaf: Callable[[], bool] = lambda: False,
    ) -> None:
        self._is_deaf = is_deaf
        self._definition = definition
        self._projection = projection
        self._journal = journal
        self._tasks = tasks
        self._measures = measures or ActorMeasures()
        self._lanes: dict[Lane, deque[Request]] = {}
        self._turns = Turns()
        self._queries = {kind for kind in definition.handlers if _verb(kind) in QUERIES}

    @property
    def is_idle(self) -> bool:
        """No command is in any lane; then nothing is kept of the lanes that were."""
        return not self._lanes and not len(self._turns)

    async def submit(self, command: Command, stamp: Stamp, trace: str = "") -> AnyReply:
        """The answer to a command, after the append that it comes to is acknowledged."""
        request = Request(command, stamp, trace, asyncio.get_running_loop().create_future())
        lane = self._lane(command)
        is_in_vain = not lane and type(command) not in self._queries
        try:
            if is_in_vain or self._projection.seen(stamp.command_id):
                await self._projection.catch_up(*_place_of(command))  # maybe only a part of it has been followed
                request.is_confirmed = True
                lane = self._lane(command)
            elif not lane and self._is_deaf():
                await self._hear(command)
        except errors.Unavailable as fault:
            request.put_off(fault)
        else:
            self._enter(lane, request)
        return await request.reply

    async def _hear(self, question: Command) -> None:
        """All that the journal held at the call has been applied. Raises: Unavailable."""
        place = ("*", None) if question.tenant == FABRIC else _place_of(question)
        try:
            async with asyncio.timeout(HEAR_WITHIN_S):
                await self._projection.catch_up(*place)
        except TimeoutError:
            raise errors.Unavailable("this copy cannot follow the journal just now", RETRY_AFTER_S) from None

    def is_query(self, command: Command) -> bool:
        """Whether it asks and changes nothing."""
        return type(command) in self._queries

    async def plan(self, command: Command, stamp: Stamp) -> AnyReply:
        """What a command would become now. Nothing is appended, and its id is not remembered."""
        place = _place_of(command)
        try:
            await self._projection.catch_up(*place)
            self._projection.check_readable(self._lane(command), *place)
            decision = self._definition.handlers[type(command)](self._projection.state, command, stamp)
        except Rejection as rejection:
            return Refused(code=rejection.code, detail=rejection.detail)
        except errors.Unavailable as fault:
            return Unavailable(code="unavailable", detail=fault.detail, retry_after_s=fault.retry_after_s)
        if decision.reply is not None:
            return decision.reply
        events = tuple(PlannedEvent(subject=fact.subject, event=fact.event) for fact in decision.facts)  # type: ignore[arg-type]
        forks: dict[str, object] = {}
        try:
            self._suppose(stamp, decision, forks)
            shown = self._show(decision.show, stamp)
        finally:
            for aggregate, copy in forks.items():
                self._projection.state.put_back(aggregate, copy)
        return Planned(seq=self._projection.followed_seq, object=shown, events=events, notes=decision.notes)

    def _lane(self, command: Command) -> Lane:
        return tuple(sorted(self._definition.writes(self._projection.state, command)))

    def _enter(self, lane: Lane, request: Request) -> None:
        if not lane:
            self._answer_now(request)
        elif lane in self._lanes:
            self._lanes[lane].append(request)
        else:
            self._lanes[lane] = deque((request,))
            self._tasks.start_soon(self._work, lane)

    def _answer_now(self, request: Request) -> None:
        """Answer a query, or a command about what is not there."""
        try:
            decision = self._decide(request, ())
        except errors.Unavailable as fault:
            request.put_off(fault)
            return
        assert decision.reply is not None, f"{type(request.command).__name__} writes nothing and answers nothing"
        request.answer(decision.reply)

    def _decide(self, request: Request, lane: Lane) -> Decision:
        """What a request comes to in the present state. Raises: Unavailable, Conflict."""
        command, stamp = request.command, request.stamp
        if type(command) not in self._queries and (seq := self._projection.seen(stamp.command_id)):
            if self._projection.is_other(stamp.command_id, digest_of(command)):
                return Decision(reply=_reused(stamp.command_id))
            shown = self._show(shown_by(command), stamp)
            return Decision(reply=Accepted(seq=seq, object=shown, is_changed=False, is_repeated=True))
        self._projection.check_readable(lane, *_place_of(command))
        started_ns = time.perf_counter_ns()
        try:
            return self._definition.handlers[type(command)](self._projection.state, command, stamp)
        except Rejection as rejection:
            return Decision(reply=Refused(code=rejection.code, detail=rejection.detail))
        finally:
            self._measures.decide_s.observe((time.perf_counter_ns() - started_ns) / 1e9)

    async def _work(self, lane: Lane) -> None:
        """Everything in the lane is answered, and the lane is gone."""
        structlog.contextvars.unbind_contextvars(*COMMAND_FACTS)  # who opened the lane is nothing to the others
        queue = self._lanes[lane]
        while queue:
            async with self._turns.of(lane):
                await self._commit_within(self._take(queue), lane)
        del self._lanes[lane]

    def _take(self, queue: deque[Request]) -> list[Request]:
        batch = [queue.popleft()]
        key = self._definition.batch_key(batch[0].command)
        if not key or len(queue) + 1 < BATCH_FROM:
            return batch
        keys = {key}
        while queue and len(batch) < BATCH_COMMANDS_MAX:
            key = self._definition.batch_key(queue[0].command)
            if not key or key in keys:
                break
            keys.add(key)
            batch.append(queue.popleft())
        return batch

    async def _commit_within(self, batch: list[Request], lane: Lane) -> None:
        try:
            async with asyncio.timeout(DECIDE_WITHIN_S):
                await self._commit_again(batch, lane)
        except TimeoutError:
            for request in batch:
                request.is_in_doubt = True
                request.put_off(errors.Unavailable(f"not decided within {DECIDE_WITHIN_S:g} s"))

    async def _commit_again(self, batch: list[Request], lane: Lane) -> None:
        still_open = batch
        for attempt in range(ATTEMPTS_MAX):
            groups = [still_open] if attempt < BATCH_ATTEMPTS else [[request] for request in still_open]
            for group in groups:
                await self._try(group, lane, attempt)
            still_open = [request for request in still_open if not request.reply.done()]
            if not still_open:
                return
            try:
                await self._projection.catch_up(*_place_of(still_open[0].command))
            except errors.Unavailable as fault:
                log.warning("journal-away", detail=fault.detail, commands=_ids(still_open))
            else:
                for request in still_open:
                    request.is_confirmed = True
        for request in still_open:
            request.put_off(errors.Conflict(f"{ATTEMPTS_MAX} attempts lost to other writers", RETRY_AFTER_S))

    async def _try(self, requests: list[Request], lane: Lane, attempt: int) -> None:
        """Commit; what is to be decided again is left without an answer."""
        try:
            await self._commit(requests, lane)
        except errors.Conflict as fault:
            self._measures.appends["conflict"] += 1
            log.info("append-conflict", aggregates=lane, attempt=attempt, detail=fault.detail, commands=_ids(requests))
        except errors.OutcomeUnknown as fault:
            self._measures.appends["unknown"] += 1
            for request in requests:
                request.is_in_doubt = True
            log.warning(
                "append-outcome-unknown", aggregates=lane, attempt=attempt, detail=fault.detail, commands=_ids(requests)
            )
        except errors.Unavailable as fault:
            self._measures.appends["unavailable"] += 1
            for request in requests:
                request.put_off(fault)

    async def _commit(self, requests: list[Request], lane: Lane) -> None:
        """Decide for all and append as one. Raises: what `Journal.append` does; then nothing of it is in the state."""
        decided = self._decide_all(requests, lane)
        drafts = [draft for each in decided for draft in each.drafts]
        if drafts:
            aggregates = dict.fromkeys(aggregate_of(draft.subject) for draft in drafts)
            expectations = [Expectation(each, self._projection.version(each)) for each in aggregates]
            await self._append(decided, drafts, expectations)
        for each in decided:
            if each.drafts or each.request.is_confirmed or isinstance(each.decision.reply, Accepted):
                self._answer(each)

    async def _append(self, decided: list[_Decided], drafts: list[Draft], expectations: list[Expectation]) -> None:
        """All drafts are recorded and in the state. Raises: what `Journal.append` does."""
        events = [fact.event for each in decided for fact in each.decision.facts]
        for draft, event in zip(drafts, events, strict=True):
            self._projection.own(draft, event)
        try:
            started_ns = time.perf_counter_ns()
            appended = await self._journal.append(drafts, expectations)
            self._measures.append_s.observe((time.perf_counter_ns() - started_ns) / 1e9)
            if appended.is_repeated:
                await self._projection.reached(appended.first_seq)
                raise errors.Conflict("recorded before, by another copy of this actor")
            stamped = [(draft, each.request.stamp.at_ns) for each in decided for draft in each.drafts]
            for seq, (draft, at_ns) in enumerate(stamped, appended.first_seq):
                self._projection.absorb(Recorded(seq, draft.subject, draft.payload, draft.headers, at_ns))
            self._measures.appends["recorded"] += 1
            self._measures.events += len(drafts)
        finally:
            for draft in drafts:
                self._projection.disown(draft)

    def _decide_all(self, requests: list[Request], lane: Lane) -> list[_Decided]:
        """Each request decided on the state that the ones before it would leave; the state is left as it was.

        Raises: Unavailable; Conflict, when a handler sees that only a part of somebody else's batch has been followed.
        """
        decided: list[_Decided] = []
        forks: dict[str, object] = {}
        try:
            for request in requests:
                decision = self._decide(request, lane)
                decided.append(_Decided(request, decision, _drafts(request, decision, self._definition.name)))
                if len(requests) > 1:
                    self._suppose(request.stamp, decision, forks)
        finally:
            for aggregate, copy in forks.items():
                self._projection.state.put_back(aggregate, copy)
        return decided

    def _suppose(self, stamp: Stamp, decision: Decision, forks: dict[str, object]) -> None:
        """The state as it would be after this decision; what it was before is in `forks`."""
        state = self._projection.state
        for fact in decision.facts:
            aggregate = aggregate_of(fact.subject)
            if aggregate not in forks:
                forks[aggregate] = state.fork(aggregate)
            seq = self._projection.followed_seq + 1
            self._definition.apply(state, fact.subject, fact.event, seq, stamp.at_ns)

    def _answer(self, decided: _Decided) -> None:
        request, decision = decided.request, decided.decision
        if decision.reply is not None:
            request.answer(decision.reply)
            return
        seq = self._projection.seen(request.stamp.command_id) or self._projection.followed_seq
        shown = self._show(decision.show, request.stamp)
        if decision.parts:
            shown = IntentView(tenant=request.command.tenant, seqs=_seqs_of(decision, seq))
        request.answer(Accepted(seq=seq, object=shown, is_changed=bool(decision.facts), notes=decision.notes))

    def _show(self, query: Command | None, stamp: Stamp) -> AnyView | None:
        if query is None:
            return None
        try:
            decision = self._definition.handlers[type(query)](self._projection.state, query, stamp)
        except Rejection:
            return None
        return decision.reply.object if isinstance(decision.reply, Item) else None


def _reused(command_id: str) -> Refused:
    detail = (
        f"{COMMAND_ID_HEADER} {command_id} was another command's within the hour: give each command an id of its own"
    )
    return Refused(code="command-id-reused", detail=detail)


def shown_by(command: Command) -> Command | None:
    """The query for the object that a command is about: `CreateNetwork` gives `GetNetwork`."""
    construct, _ = construct_and_verb(kebab(type(command).__name__))
    kind = COMMANDS.get(f"get-{construct}")
    if kind is None:
        return None
    return kind(**{name: getattr(command, name) for name in kind.__struct_fields__ if hasattr(command, name)})


def _seqs_of(decision: Decision, last_seq: int) -> tuple[int, ...]:
    """The sequence of the last fact of each part, 0 for a part without."""
    ends = accumulate(decision.parts, initial=last_seq - len(decision.facts))
    return tuple(end if count else 0 for count, end in zip(decision.parts, islice(ends, 1, None), strict=True))


def _verb(kind: type[Command]) -> str:
    return construct_and_verb(kebab(kind.__name__))[1]


def _place_of(command: Command) -> tuple[str, str | None]:
    """The tenant and the network that a command names."""
    return command.tenant, getattr(command, "network", None)


def _ids(requests: Sequence[Request]) -> list[str]:
    return [request.stamp.command_id for request in requests]


def _drafts(request: Request, decision: Decision, actor: str) -> list[Draft]:
    stamp = request.stamp
    drafts = []
    for index, fact in enumerate(decision.facts):
        message_id = f"{stamp.command_id}.{index}"
        headers = {
            MESSAGE_ID_HEADER: message_id,
            COMMAND_ID_HEADER: stamp.command_id,
            BY_HEADER: str(stamp.by),
            "Content-Type": MSGPACK,
            "ce-id": message_id,
            "ce-type": f"io.np.v1.{event_name(fact.event)}",
            "ce-source": f"/np/{actor}",
            "ce-specversion": "1.0",
            "ce-time": rfc3339(stamp.at_ns),
        }
        if index == 0:
            headers[DIGEST_HEADER] = digest_of(request.command)
        if request.trace:
            headers[TRACE_HEADER] = request.trace
        drafts.append(Draft(fact.subject, encode(fact.event), headers))
    return drafts
