"""`netctl NOUN VERB NAME`: the command line of today. Each noun is one file here, imported when it is meant."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from .client import Rehearsed
from .exits import DONE, INTERRUPTED, Ended, leave
from .options import DEFAULT_TIMEOUT_S, Parser, add_at, add_common, add_dry_run
from .verbs import SHORT_VERBS, Session, Verb, show_planned

if TYPE_CHECKING:
    from collections.abc import Mapping

# Noun -> what it is about. The file is `<noun>.py`, its verbs are in its VERBS.
NOUNS = {
    "tenant": "owners of disjoint networks, with pools of subnets and tags",
    "network": "layer-2 domains with a tag and subnets",
    "endpoint": "places where containers meet a network",
    "ipam": "which addresses are used and free, and whether that is so everywhere",
    "host": "the machines",
    "apply": "make true what files say: whole tenants at once",
    "diff": "what `apply` would do",
    "export": "what is there, as a file for `apply`",
    "events": "the journal as it is written, or again from any point",
    "journal": "its backup, putting one back, and which one a host follows",
    "log": "who did what when, refusals included",
    "status": "is everything well, and if not, what to do",
    "doctor": "what commonly goes wrong, here and in the cluster",
    "context": "which server to talk to",
    "completion": "for bash, zsh or fish",
    "decode": "msgpack on stdin as JSON on stdout",
    "asyncapi": "the description of all messages, for any language",
}
SHORT_NOUNS = {"net": "network", "ep": "endpoint"}

_EPILOG = """\
exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 unreachable, 4 the wait ran out

  netctl network create web                                        a tag and a subnet are picked
  netctl endpoint create web1 --network web --container c1         an address is picked; or netns:NAME, pid:N
  netctl endpoint list -o json
"""


def main() -> NoReturn:
    """The process has ended with the status of the verb."""
    try:
        status = run(sys.argv[1:])
    except BrokenPipeError:  # whoever read our output has had enough
        status = DONE
    leave(status)


def run(arguments: Sequence[str]) -> int:
    """The exit status of one command line; its result is on stdout, its faults are on stderr."""
    try:
        return _run(arguments)
    except Ended as end:
        if end.message:
            print(f"netctl: {end.message}", file=sys.stderr)
        return end.status
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(arguments: Sequence[str]) -> int:
    parser = _head("netctl", NOUNS, "noun", "netctl NOUN [VERB] [NAME] [OPTIONS]", _EPILOG)
    parser.add_argument("--version", action="store_true", help="print the version")
    chosen = parser.parse_args(arguments, _defaults())
    if chosen.version:
        from services.runtime.version import VERSION

        print(f"netctl {VERSION}")
        return DONE
    if chosen.noun is None:
        parser.print_help()
        return DONE
    noun = SHORT_NOUNS.get(chosen.noun, chosen.noun)
    if noun not in NOUNS:
        parser.error(f"noun {chosen.noun!r} is not known: expected one of {', '.join(NOUNS)}")
    verbs: Mapping[str, Verb] = importlib.import_module(f"services.cli.{noun}").VERBS
    prog, verb, rest = _choose_verb(noun, verbs, chosen)
    verb_parser = Parser(prog, description=verb.summary)
    verb.arguments(verb_parser)
    add_common(verb_parser)
    if verb.is_change:
        add_dry_run(verb_parser)
    if verb.is_read:
        add_at(verb_parser)
    verb_parser.parse_args(rest, chosen)
    session = Session(chosen)
    try:
        return verb.run(session, chosen)
    except Rehearsed as rehearsed:
        return show_planned(session, rehearsed.planned)
    finally:
        session.close()


def _choose_verb(noun: str, verbs: Mapping[str, Verb], chosen: argparse.Namespace) -> tuple[str, Verb, Sequence[str]]:
    if "" in verbs:  # a noun that is its own verb: `status`
        return f"netctl {noun}", verbs[""], chosen.rest
    summaries = {name: verb.summary for name, verb in verbs.items()}
    parser = _head(f"netctl {noun}", summaries, "verb", f"netctl {noun} VERB [NAME] [OPTIONS]", "")
    parser.parse_args(chosen.rest, chosen)
    if chosen.verb is None:
        parser.error(f"verb is missing: expected one of {', '.join(verbs)}")
    name = SHORT_VERBS.get(chosen.verb, chosen.verb)
    if name not in verbs:
        parser.error(f"verb {chosen.verb!r} is not known: expected one of {', '.join(verbs)}")
    return f"netctl {noun} {name}", verbs[name], chosen.rest


def _head(prog: str, choices: Mapping[str, str], word: str, usage: str, epilog: str) -> Parser:
    """Reads up to the noun or verb and leaves the rest alone."""
    width = max(len(name) for name in choices)
    listed = "\n".join(f"  {name.ljust(width)}  {summary}" for name, summary in choices.items())
    parser = Parser(prog, usage=usage, description=f"{word}s:\n{listed}", epilog=epilog)
    parser.add_argument(word, nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    add_common(parser)
    return parser


def _defaults() -> argparse.Namespace:
    return argparse.Namespace(
        tenant=None,
        output="table",
        timeout=DEFAULT_TIMEOUT_S,
        server=None,
        creds=None,
        context=None,
        wait="applied",
        at="",
        dry_run=False,
    )


if __name__ == "__main__":
    main()
