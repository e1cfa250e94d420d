"""`netctl completion bash|zsh|fish`: a script for the shell. Names of objects are asked for as they are typed."""

from __future__ import annotations

import argparse
import importlib

from .exits import DONE
from .options import FORMATS
from .verbs import SHORT_VERBS, Session, Verb

SHELLS = ("bash", "zsh", "fish")
COMMON = "--tenant --output --timeout --server --creds --context --help"
COMMON_OF_CHANGES = (
    "--dry-run --at --wait --network --container --address --pool --exclude --range --host "
    "--subnet --gateway --encap --tag --routing"
)
NAMED_VERBS = ("show", "delete", "attach", "detach", "remove", "select", "ports")
LISTED_NOUNS = ("tenant", "network", "endpoint", "host", "context")

_BASH = """\
# netctl completion for bash: source <(netctl completion bash)
_netctl() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} last=${{COMP_WORDS[COMP_CWORD-1]}}
  local noun=${{COMP_WORDS[1]}} verb=${{COMP_WORDS[2]}} words=""
  case $last in
    -o|--output) words="{formats}" ;;
    --wait) words="accepted applied" ;;
    --network) words=$(netctl network list -o name 2>/dev/null) ;;
    --tenant|-t) words=$(netctl tenant list -o name 2>/dev/null) ;;
    --context) words=$(netctl context list -o name 2>/dev/null) ;;
    --host) words=$(netctl host list -o name 2>/dev/null) ;;
    *)
      if [ "$COMP_CWORD" -eq 1 ]; then words="{nouns}"
      elif [ "$COMP_CWORD" -eq 2 ]; then
        case $noun in
{verbs_by_noun}
        esac
      elif [ "${{word:0:1}}" = - ]; then words="{common} {common_of_changes}"
      elif [ "$COMP_CWORD" -eq 3 ]; then
        case $noun/$verb in
          {named}) words=$(netctl "$noun" list -o name 2>/dev/null) ;;
        esac
      fi ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _netctl netctl
"""

_ZSH = """\
#compdef netctl
# netctl completion for zsh: source <(netctl completion zsh)
autoload -U +X bashcompinit && bashcompinit
"""


def nouns_and_verbs() -> dict[str, list[str]]:
    """What can be typed first, and after it."""
    from .netctl import NOUNS, SHORT_NOUNS

    verbs = {noun: [verb for verb in importlib.import_module(f"services.cli.{noun}").VERBS if verb] for noun in NOUNS}
    verbs["completion"] = list(SHELLS)
    return verbs | {short: verbs[noun] for short, noun in SHORT_NOUNS.items()}


def bash() -> str:
    """The script for bash."""
    verbs = nouns_and_verbs()
    lines = "\n".join(f'          {noun}) words="{" ".join(names)}" ;;' for noun, names in verbs.items() if names)
    return _BASH.format(
        nouns=" ".join(verbs),
        verbs_by_noun=lines,
        formats=" ".join(FORMATS),
        common=COMMON,
        common_of_changes=COMMON_OF_CHANGES,
        named="|".join(
            f"{noun}/{verb}" for noun in (*LISTED_NOUNS, "net", "ep") for verb in (*NAMED_VERBS, *SHORT_VERBS)
        ),
    )


def fish() -> str:
    """The script for fish."""
    verbs = nouns_and_verbs()
    lines = ["# netctl completion for fish: netctl completion fish | source", "complete -c netctl -f"]
    lines.append(f"complete -c netctl -n '__fish_use_subcommand' -a '{' '.join(verbs)}'")
    for noun, names in verbs.items():
        if names:
            unseen = f"__fish_seen_subcommand_from {noun}; and not __fish_seen_subcommand_from {' '.join(names)}"
            lines.append(f"complete -c netctl -n '{unseen}' -a '{' '.join(names)}'")
    for noun in LISTED_NOUNS:
        seen = f"__fish_seen_subcommand_from {noun}; and __fish_seen_subcommand_from {' '.join(NAMED_VERBS)}"
        lines.append(f"complete -c netctl -n '{seen}' -a '(netctl {noun} list -o name 2>/dev/null)'")
    lines.append(f"complete -c netctl -s o -l output -x -a '{' '.join(FORMATS)}'")
    lines += [f"complete -c netctl -l {option.removeprefix('--')}" for option in COMMON.split() if option != "--output"]
    return "\n".join(lines) + "\n"


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS)


def _complete(_session: Session, chosen: argparse.Namespace) -> int:
    print({"bash": bash, "zsh": lambda: _ZSH + bash(), "fish": fish}[chosen.shell](), end="")
    return DONE


VERBS = {"": Verb("A completion script for the shell, on stdout.", _arguments, _complete)}
