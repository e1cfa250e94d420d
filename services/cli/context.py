"""`netctl context`: which server to talk to, by name. Those of the `nats` command (ADR-21) can be used too."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from . import output
from .exits import DONE, FAILED, Ended, wrong_usage
from .server import SELECTED, context_folders, read_context, selected_context
from .verbs import Session, Verb

TITLES = ("", "NAME", "SERVER", "AS", "FROM")


def _folders() -> tuple[Path, Path]:
    ours, natscli = context_folders()
    return Path(ours), Path(natscli)


def _name_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")


def _create_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")
    parser.add_argument("--url", metavar="URL", help="same as --server")
    parser.add_argument("--nkey", metavar="FILE", help="an nkey seed (a .creds file is given with --creds)")
    parser.add_argument("--ca", metavar="FILE", help="whom to trust with TLS")
    parser.add_argument("--host", metavar="HOST", help="where endpoints are attached unless told")
    parser.add_argument("--select", action="store_true", help="use it from now on")


def _create(session: Session, chosen: argparse.Namespace) -> int:
    name = _checked(chosen.name)
    url = chosen.url or chosen.server
    if not url:
        raise wrong_usage("the server's address is missing: give --server nats://HOST:4222")
    fields: dict[str, Any] = {"url": url}
    if chosen.creds:
        fields["creds" if chosen.creds.endswith(".creds") else "nkey"] = str(Path(chosen.creds).absolute())
    for key, value in (("nkey", chosen.nkey), ("ca", chosen.ca)):
        if value:
            fields[key] = str(Path(value).absolute())
    fields |= {key: value for key, value in (("host", chosen.host), ("tenant", chosen.tenant)) if value}
    folder = _folders()[0]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.json"
    file.write_text(json.dumps(fields, indent=2) + "\n")
    read_context(str(file))  # an address that is none is said now
    if chosen.select:
        (folder / SELECTED).write_text(name)
    return _say(session, {"name": name, **fields}, f"context {name} is in {file}")


def _select(session: Session, chosen: argparse.Namespace) -> int:
    name = _checked(chosen.name)
    _file_of(name)
    folder = _folders()[0]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SELECTED).write_text(name)
    return _say(session, {"name": name}, f"context {name} is used from now on")


def _unselect(session: Session, _chosen: argparse.Namespace) -> int:
    (_folders()[0] / SELECTED).unlink(missing_ok=True)
    return _say(session, {"name": ""}, "no context is used: the daemon on this host is meant")


def _delete(session: Session, chosen: argparse.Namespace) -> int:
    name = _checked(chosen.name)
    file = _folders()[0] / f"{name}.json"
    if not file.exists():
        raise Ended(FAILED, f"context {name!r} is not one of ours: {file} is not there")
    file.unlink()
    if selected_context() == name:
        (_folders()[0] / SELECTED).unlink(missing_ok=True)
    return _say(session, {"name": name}, f"context {name} deleted")


def _list(session: Session, _chosen: argparse.Namespace) -> int:
    found: list[dict[str, Any]] = []
    for folder in _folders():
        known = {entry["name"] for entry in found}
        found += [_entry(file) for file in sorted(folder.glob("*.json")) if file.stem not in known]
    if session.output != "table":
        output.show_many(found, session.output)
        return DONE
    rows = [("*" if e["is_selected"] else "", e["name"], e["url"], e["as"] or "-", e["file"]) for e in found]
    print(output.table(TITLES, rows), end="")
    return DONE


def _show(session: Session, chosen: argparse.Namespace) -> int:
    name = chosen.name or selected_context()
    if not name:
        raise Ended(FAILED, "no context is selected: the daemon on this host is meant")
    entry = _entry(_file_of(_checked(name)))
    if session.output != "table":
        output.show_one(entry, session.output)
    else:
        print("".join(f"{key.ljust(11)}  {value if value != '' else '-'}\n" for key, value in entry.items()), end="")
    return DONE


def _entry(file: Path) -> dict[str, Any]:
    server = read_context(str(file))
    who = server.creds_file or server.seed_file or server.user or ("a token" if server.token else "")
    name = file.stem
    is_selected = selected_context() == name
    return {"name": name, "url": ",".join(server.urls), "as": who, "file": str(file), "is_selected": is_selected}


def _file_of(name: str) -> Path:
    for folder in _folders():
        if (file := folder / f"{name}.json").exists():
            return file
    raise Ended(FAILED, f"context {name!r} is not known: `netctl context list` shows those there are")


def _checked(name: str) -> str:
    if not name or name.startswith(".") or os.sep in name or not name.isprintable():
        raise wrong_usage(f"context name {name!r} is not valid: expected one that can be a file's")
    return name


def _say(session: Session, fields: dict[str, Any], sentence: str) -> int:
    if session.output == "table":
        print(sentence)
    else:
        output.show_one(fields, session.output)
    return DONE


def _optional_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="(default: the selected one)")


def _no_arguments(_parser: argparse.ArgumentParser) -> None:
    pass


VERBS = {
    "create": Verb("write down a server under a name", _create_arguments, _create),
    "list": Verb("ours, and those of the `nats` command", _no_arguments, _list),
    "show": Verb("one context", _optional_name, _show),
    "select": Verb("use a context from now on", _name_argument, _select),
    "unselect": Verb("use the daemon on this host again", _no_arguments, _unselect),
    "delete": Verb("forget one of ours", _name_argument, _delete),
}
