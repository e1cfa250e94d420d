"""`netctl apply -f FILE`: whole intents, planned, shown and done."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import output
from .exits import DONE, FAILED, Ended, wrong_usage
from .intent import Intent
from .intent_checks import contradictions
from .intent_having import ask_having
from .intent_plan import REMOVE, Plan, Step, plan
from .intent_reader import faulty, read_intent
from .intent_sending import Done, perform
from .intent_source import documents
from .intent_waiting import wait_applied
from .options import add_wait
from .verbs import Session, Verb

COLOURS = {"+": "32", "~": "33", "-": "31"}
ASKED_LINES_MAX = 100
_EPILOG = """\
  tenants:
    acme:
      subnet_pool: 10.1.0.0/16              # what may be said of a tenant, and left out
      networks:
        web: 10.1.1.0/24                    # its subnet alone, nothing, or a map
        db:
          encap: vxlan
          subnet: 10.1.2.10-10.1.2.99/24    # addresses are chosen from these
          pools: {vip: 10.1.2.200-10.1.2.250}
          endpoints:                        # a map, a list of names, or how many
            db1: c1@h1                      # container and host; netns:NAME, pid:N
            db2: {address: 10.1.2.50, mac: 02:00:00:00:00:01}
            "db[3-9]": {pool: vip, container: "c[3-9]", host: h2}
  networks: {web: }                         # of the tenant -t, else default
  hosts: [h1, h2]                           # that are to be members

A tenant's changes become true as one, or not at all; what one batch of the journal cannot hold goes as several. Run it
again to finish what was interrupted. What cannot be changed in place stands in the way of all.
"""


def files_argument(parser: argparse.ArgumentParser) -> None:
    """`parser` takes -f."""
    parser.add_argument(
        "-f",
        "--file",
        action="append",
        metavar="FILE",
        help="YAML or JSON, a folder of them, or - for standard input; may be given more than once",
    )


def prune_argument(parser: argparse.ArgumentParser) -> None:
    """`parser` takes --prune."""
    parser.add_argument(
        "--prune", action="store_true", help="remove what the tenants in the files have and the files do not say"
    )


def read_files(session: Session, names: Sequence[str] | None) -> Intent:
    """What the files say. Raises: Ended with status 2."""
    if not names:
        raise wrong_usage("file is missing: name one with -f, or - for standard input")
    intent = read_intent(documents(names), session.tenant)
    faults = list(contradictions(intent))
    if faults:
        raise faulty(faults)
    return intent


def made_plan(session: Session, intent: Intent, *, is_pruning: bool) -> Plan:
    """What is to be done; what is worth knowing is on stderr. Raises: Ended (1 for what stands in the way)."""
    made = plan(intent, ask_having(session.client, intent.tenants), is_pruning=is_pruning)
    for note in made.notes:
        print(f"netctl: {note}", file=sys.stderr)
    if made.conflicts:
        raise Ended(FAILED, "\n".join([*(f"refused: {conflict}" for conflict in made.conflicts), "nothing was done"]))
    return made


def show_steps(steps: Iterable[Step], form: str) -> None:
    """Steps are on stdout, a line each or as programs want them."""
    if form == "table":
        print("".join(f"{line(step)}\n" for step in steps), end="")
    else:
        output.show_many([fields_of(step) for step in steps], form)


def line(step: Step) -> str:
    """A step as a line, in its colour where colours are wanted."""
    return output.coloured(str(step), COLOURS[step.sign])


def fields_of(step: Step) -> Mapping[str, Any]:
    """A step as programs get it."""
    return {"change": step.sign, "construct": step.construct, "name": step.path, "detail": step.words}


def carry_out(session: Session, made: Plan, *, at_once: int | None = None) -> list[Done]:
    """The plan is done, each step on stdout with its journal sequence when it is. Raises: Ended."""
    told = _Told(len(made.steps))
    done: list[Done] = []
    limits = {} if at_once is None else {"at_once": at_once}
    try:
        for each in perform(session.client, made.steps, **limits):
            done.append(each)
            if session.output == "table":
                print(f"{line(each.step)}, seq {each.seq}")
            told.count(len(done))
    except Ended as end:
        if done:
            end.message += f"; {len(done)} of {len(made.steps)} are done and stay so: run it again for the others"
        raise
    finally:
        told.end()
        if session.output != "table":
            output.show_many([{**fields_of(each.step), "seq": each.seq} for each in done], session.output)
    return done


class _Told:
    """How far it is, on stderr while somebody is looking."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._is_shown = sys.stderr.isatty() and not sys.stdout.isatty()
        self._percent = -1

    def count(self, done: int) -> None:
        """So many are done."""
        percent = 100 * done // self._total
        if self._is_shown and percent != self._percent:
            self._percent = percent
            print(f"\r... {done} of {self._total}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """The line is left alone."""
        if self._is_shown and self._percent >= 0:
            print(file=sys.stderr)


def confirm(made: Plan, *, is_agreed: bool) -> None:
    """Whoever asked agrees to what is removed. Raises: Ended."""
    removed = [step for step in made.steps if step.sign == REMOVE]
    if not removed or is_agreed:
        return
    shown = "".join(f"{step}\n" for step in removed[:ASKED_LINES_MAX])
    more = f"... and {len(removed) - ASKED_LINES_MAX} more\n" if len(removed) > ASKED_LINES_MAX else ""
    print(shown + more, end="", file=sys.stderr)
    if not sys.stdin.isatty():
        raise Ended(FAILED, f"{len(removed)} removals need consent, and nobody can be asked here: give --yes")
    print(f"remove these {len(removed)}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Ended(FAILED, "nothing was done")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    files_argument(parser)
    prune_argument(parser)
    parser.add_argument("--yes", action="store_true", help="remove without asking")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and do nothing")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of the files, for editors")
    add_wait(parser)


def _apply(session: Session, chosen: argparse.Namespace) -> int:
    if chosen.schema:
        from .intent_schema import schema

        print(output.as_json(schema(), is_indented=True))
        return DONE
    intent = read_files(session, chosen.file)
    made = made_plan(session, intent, is_pruning=chosen.prune)
    if chosen.dry_run:
        show_steps(made.steps, session.output)
    else:
        confirm(made, is_agreed=chosen.yes)
        carry_out(session, made)
        if session.waits:
            wait_applied(session.client, (change for step in made.steps for change in step.late))
    if session.output == "table":
        print(f"{'would be' if chosen.dry_run else 'done'}: {made.summary()}")
    return DONE


VERBS = {
    "": Verb("Make true what files say: tenants, networks, endpoints. --dry-run shows the plan.", _arguments, _apply)
}
