"""`netctl diff -f FILE`: what `apply` would do. Exit status 0: nothing, 1: something, above 1: it cannot be said."""

from __future__ import annotations

import argparse

from .apply import files_argument, prune_argument, read_files, show_steps
from .exits import DONE, FAILED, USAGE, Ended
from .intent_having import ask_having
from .intent_plan import plan
from .verbs import Session, Verb

DIFFERENT = 1


def _arguments(parser: argparse.ArgumentParser) -> None:
    files_argument(parser)
    prune_argument(parser)


def _diff(session: Session, chosen: argparse.Namespace) -> int:
    intent = read_files(session, chosen.file)
    try:
        having = ask_having(session.client, intent.tenants)
    except Ended as fault:
        raise (Ended(USAGE, fault.message) if fault.status == FAILED else fault) from None
    made = plan(intent, having, is_pruning=chosen.prune)
    show_steps(made.steps, session.output)
    if session.output == "table":
        print("".join(f"! {conflict}\n" for conflict in made.conflicts), end="")
    return DIFFERENT if made.steps or made.conflicts else DONE


VERBS = {
    "": Verb("What `apply` would do. Exit status 0: nothing; 1: something; above 1: an error.", _arguments, _diff),
}
