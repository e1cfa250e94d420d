"""`netctl asyncapi`: the AsyncAPI 3 document of all messages, for any language that has a NATS client."""

from __future__ import annotations

import argparse

from . import output
from .exits import DONE
from .verbs import Session, Verb


def _arguments(_parser: argparse.ArgumentParser) -> None:
    pass


def _asyncapi(session: Session, _chosen: argparse.Namespace) -> int:
    from messages.asyncapi import document

    output.show_one(document(), "yaml" if session.output == "table" else session.output)
    return DONE


VERBS = {"": Verb("The AsyncAPI 3 document of all messages, on stdout.", _arguments, _asyncapi)}
