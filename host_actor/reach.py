"""What the switch has of other hosts beside what it must have: the belief, the questions to the planner, the answers.

The reconciler owns one, and asks it in each round for what changed, in a full pass for everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from .drivers.contract import Done, Driver, DropRemote, EnsureRemote, Failed, Remote, RemoteVtep
from .remotes import Remotes

log = structlog.get_logger()


class Reach:
    """`again_later(name)` and `succeeded(name)` are what is to be tried again, and what need not be."""

    def __init__(
        self,
        remotes: Remotes,
        driver: Driver,
        again_later: Callable[[str], None],
        succeeded: Callable[[str], None],
    ) -> None:
        self.failures: dict[str, Failed] = {}  # by name
        self.repaired = 0  # in this round: what had been there before
        self._remotes = remotes
        self._driver = driver
        self._again_later = again_later
        self._succeeded = succeeded
        self._believed: dict[str, bool] = {}  # mark -> is whole
        self._asked: dict[str, tuple[Remote, str]] = {}  # name -> the spec that was asked for last, and its mark
        self._name_of: dict[str, str] = {}  # mark -> name
        self._applied: set[str] = set()  # marks that were there at some time
        self._dirty: dict[str, None] = {}

    def touch(self, name: str) -> None:
        """It is looked at in the next round."""
        self._dirty[name] = None

    def observed(self, found: Mapping[str, bool]) -> None:
        """This is what the switch has."""
        self._believed = dict(found)
        self._applied |= {mark for mark, is_whole in found.items() if is_whole}  # an earlier life of ours made it

    def question(self, *, is_full: bool, is_sure: bool) -> tuple[dict[str, Remote], dict[str, bool]]:
        """What must be there, and what is believed to be: of all that changed, or of everything.

        Who is not sure to know all leaves alone what he does not know.
        """
        self.repaired = 0
        names = self._dirty | self._remotes.take_changed()
        if is_full:
            names |= dict.fromkeys((*self._remotes.specs, *self._asked))
        self._dirty = names
        wanted: dict[str, Remote] = {}
        concerned: list[str] = []
        for name in names:
            before = self._asked.get(name)
            if before is not None and self._name_of.get(before[1]) == name:
                concerned.append(before[1])
            spec = self._remotes.specs.get(name)
            if spec is not None:
                mark = before[1] if before is not None and before[0] == spec else self._driver.mark_of(spec)
                wanted[mark] = spec
                concerned.append(mark)
                self._asked[name] = (spec, mark)
                self._name_of[mark] = name
        if is_full and is_sure:
            return wanted, dict(self._believed)
        return wanted, {mark: self._believed[mark] for mark in concerned if mark in self._believed}

    def answered(self) -> None:
        """The operations that followed from the last question have been executed."""
        for name in self._dirty:
            if name not in self._remotes.specs and (before := self._asked.get(name)) is not None:
                if before[1] not in self._believed:
                    del self._asked[name]
                    self._name_of.pop(before[1], None)
                self._applied.discard(before[1])
                self.failures.pop(name, None)
                self._succeeded(name)
        self._dirty = {}

    def absorb(self, outcome: Done | Failed) -> None:
        """The belief moves on by what the driver answered."""
        match outcome:
            case Done(op=EnsureRemote() as op):
                mark = self._driver.mark_of(op.remote)
                # The switch forgets neighbours by itself: to tell it again is no repair.
                self.repaired += mark in self._applied and not isinstance(op.remote, RemoteVtep)
                self._believed[mark] = True
                self._applied.add(mark)
                name = self._name_of.get(mark, mark)
                if self.failures.pop(name, None) is not None:
                    log.info("way-found", name=name)
                self._succeeded(name)
            case Done(op=DropRemote() as op):
                self._believed.pop(op.mark, None)
                self._applied.discard(op.mark)
            case Failed(op=EnsureRemote() as op):
                mark = self._driver.mark_of(op.remote)
                if mark in self._believed:
                    self._believed[mark] = False
                self._fail(self._name_of.get(mark, mark), outcome)
            case Failed(op=DropRemote() as op):
                self._fail(self._name_of.get(op.mark, op.mark), outcome)

    def _fail(self, name: str, failure: Failed) -> None:
        before = self.failures.get(name)
        if before is None or (before.code, before.detail) != (failure.code, failure.detail):
            log.warning("way-refused", name=name, code=failure.code, detail=failure.detail)
        self.failures[name] = failure
        self._again_later(name)
