"""`netctl journal adopt`: which journal a host follows, where that is in question."""

from __future__ import annotations

import argparse

from messages import subjects
from messages.host import AdoptJournal
from messages.names import check_token
from messages.replies import Accepted, Refused

from .exits import FAILED, UNREACHABLE, Ended, wrong_usage
from .verbs import Session, Verb, show_changed


def _adopt_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", metavar="HOST", help="(default: this host)")


def _adopt(session: Session, chosen: argparse.Namespace) -> int:
    host = chosen.host or session.host
    try:
        check_token("host name", host)
    except ValueError as fault:
        raise wrong_usage(str(fault)) from None
    reply = session.client.ask_host(host, "adopt", AdoptJournal(tenant=subjects.FABRIC))
    if isinstance(reply, Refused):
        raise Ended(FAILED, f"refused: {reply.code}: {reply.detail}")
    if not isinstance(reply, Accepted):
        raise Ended(UNREACHABLE, f"host {host!r} does not answer: start `netplugin` on it")
    said = f"host {host} takes the journal as it is and removes what that does not know"
    return show_changed(session, reply, said, {"host": host, "name": host})


VERB = Verb("let a host take this journal for its own, though it followed another", _adopt_arguments, _adopt)
