"""docs/operations.md says only what is there: commands parse, files and settings exist, figures have those names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from host_actor.drivers.contract import Figures
from host_actor.measures import Measures, of_switch
from services import init_command, join_command, metrics_http, netplugin
from services.cli import netctl, options
from services.runtime import metrics
from services.runtime.actor_metrics import ActorMeasures

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/operations.md").read_text()
BLOCKS = [line.strip() for line in TEXT.splitlines() if re.match(r" {4,}\S", line)]
INLINE = re.findall(r"`(netctl [^`]*|netplugin [^`]*)`", TEXT)
SOURCES = "\n".join(
    path.read_text()
    for folder in ("host_actor", "ipam_actor", "services", "messages")
    for path in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("line", [line for line in (*BLOCKS, *INLINE) if line.startswith("netctl")])
def test_what_netctl_is_told_it_knows(line: str) -> None:
    words = [word for word in shlex.split(line)[1:] if not word.startswith("-")]
    assert words[0] in netctl.NOUNS
    verbs = __import__(f"services.cli.{words[0]}", fromlist=["VERBS"]).VERBS
    verb = verbs[""] if "" in verbs else verbs[words[1]] if len(words) > 1 else None
    if verb is not None and line in BLOCKS:
        parser = options.Parser("netctl")
        verb.arguments(parser)
        options.add_common(parser)
        parser.parse_args(shlex.split(line)[2 if "" in verbs else 3 :])


@pytest.mark.parametrize("line", [line for line in (*BLOCKS, *INLINE) if line.startswith("netplugin ")])
def test_what_the_daemon_is_told_it_takes(line: str) -> None:
    words = shlex.split(line)[1:]
    if words[0] == "init":
        init_command.parser().parse_args(words[1:] if len(words) > 1 else ["DIR", "--server", "a=1"])
    elif words[0] == "join":
        join_command.parser().parse_args(words[1:])
    elif "--help" not in words:
        netplugin.parser().parse_args(words)


def test_the_files_that_it_names_are_there() -> None:
    named = set(re.findall(r"(?:packaging|requirements|tests|docs)/[\w./-]+\w", TEXT))
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


def test_the_codes_that_it_explains_are_said_somewhere() -> None:
    rows = [line.split("|")[1] for line in TEXT.partition("## When something is wrong")[2].splitlines() if "|" in line]
    codes = [code for row in rows for code in re.findall(r"`([a-z]+(?:-[a-z]+)+)`", row)]
    assert len(codes) > 10
    silent = [code for code in codes if not re.search(rf'(["`]|refused: ){code}\b', SOURCES)]
    assert not silent


def test_the_figures_that_it_names_are_told() -> None:
    told = [*ActorMeasures().families(), *Measures().families(), *of_switch(Figures()), *metrics.of_this_process()]
    told += metrics_http.of_programs({}, {})
    names = {family.name for family in told}
    for name in set(re.findall(r"\bnp_[a-z_]+\b", TEXT)):
        assert name in names or f'"{name}"' in SOURCES, name
