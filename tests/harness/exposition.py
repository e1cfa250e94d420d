"""A strict reader of Prometheus' text format. Source: prometheus.io, exposition formats, text format 0.0.4."""

from __future__ import annotations

import re

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\\\|\\"|\\n)*"'
_LINE = re.compile(rf"({_NAME})(?:{{({_LABEL}(?:,{_LABEL})*)}})? (\S+)")
_HELP = re.compile(rf"# HELP ({_NAME}) (?:[^\\\n]|\\\\|\\n)*")
_TYPE = re.compile(rf"# TYPE ({_NAME}) (counter|gauge|histogram)")
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}


def parse(text: str) -> dict[tuple[str, str], float]:
    """Every value by name and labels as written. Raises: AssertionError where the text is not of the format."""
    assert text.endswith("\n")
    values: dict[tuple[str, str], float] = {}
    families: set[str] = set()
    told = family = kind = ""
    for line in text.splitlines():
        if found := _HELP.fullmatch(line):
            told = found[1]
        elif found := _TYPE.fullmatch(line):
            family, kind = found[1], found[2]
            assert family == told, f"{line}: no help before it"
            assert family not in families, f"{line}: a family stands in one place"
            assert kind != "counter" or family.endswith("_total"), line
            families.add(family)
        else:
            found = _LINE.fullmatch(line)
            assert found, f"not of the format: {line!r}"
            assert found[1] in {family + suffix for suffix in _SUFFIXES[kind]}, f"{line}: not of {family}"
            key = found[1], found[2] or ""
            assert key not in values, f"{line}: twice"
            values[key] = float(found[3])
    return values
