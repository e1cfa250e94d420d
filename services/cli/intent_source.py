"""Files as documents: YAML or JSON, one file or a folder of them or standard input, several documents in each.

YAML 1.2's core schema, not PyYAML's 1.1: `no` is a word, `12:34:56:00:00:01` is a MAC and not a number to the base 60.
A key that stands twice is a fault.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Hashable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from .exits import wrong_usage

STANDARD_INPUT = "-"
SUFFIXES = (".yaml", ".yml", ".json")
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times faster, where it was built in


class Document(NamedTuple):
    """One document: the file it is of, its number in there from 1 (`of` how many), and what it says."""

    file: str
    number: int
    of: int
    content: Any

    def __str__(self) -> str:
        return self.file if self.of == 1 else f"{self.file}: document {self.number}"


class Loader(_Loader):  # type: ignore[misc]  # one of two classes of PyYAML, which has no types
    """YAML 1.2's core schema, and no key twice."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  (PyYAML's own form)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002  (PyYAML calls it so)
        """A map. Raises: yaml.MarkedYAMLError for a key that stands twice."""
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.MarkedYAMLError(problem="a key is a map or a list", problem_mark=key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key!r} stands twice", problem_mark=key_node.start_mark)
            seen.add(key)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})\\Z"), _first)


def documents(names: Sequence[str]) -> list[Document]:
    """Every document of these files, folders (their files in the order of their names) and `-`.

    Raises: Ended with status 2 for what is not there, cannot be read or is neither YAML nor JSON.
    """
    found: list[Document] = []
    for name in names:
        for file, text in _texts(name):
            contents = _parsed(file, text)
            numbered = enumerate(contents, 1)
            found += [Document(file, number, len(contents), each) for number, each in numbered if each is not None]
    return found


def _texts(name: str) -> Iterator[tuple[str, str]]:
    if name == STANDARD_INPUT:
        yield "standard input", sys.stdin.read()
        return
    path = Path(name)
    try:
        if not path.is_dir():
            yield name, path.read_text()
            return
        inside = sorted(each for each in path.iterdir() if each.suffix in SUFFIXES)
        for each in inside:
            yield str(each), each.read_text()
    except (OSError, UnicodeDecodeError) as fault:
        raise wrong_usage(f"{name} cannot be read: {getattr(fault, 'strerror', None) or fault}") from None
    if not inside:
        raise wrong_usage(f"{name} holds no file that ends in {', '.join(SUFFIXES)}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A map of JSON. Raises: ValueError for a key that stands twice."""
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a key stands twice")
    return mapping


def _parsed(file: str, text: str) -> list[Any]:
    """The documents in a text; None for one that says nothing. Raises: Ended."""
    if text.lstrip()[:1] in ("{", "["):
        with suppress(ValueError):  # YAML then, which has braces as well; it says where
            return [json.loads(text, object_pairs_hook=_once)]
    try:
        return list(yaml.load_all(text, Loader))
    except yaml.MarkedYAMLError as fault:
        mark = fault.problem_mark or fault.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
        raise wrong_usage(f"{file}{where}: {fault.problem or fault.context}: expected YAML or JSON") from None
    except yaml.YAMLError as fault:
        raise wrong_usage(f"{file}: {fault}: expected YAML or JSON") from None
