"""`netctl export`: what is there, as a file that `netctl apply` finds nothing to do for, and makes again elsewhere."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from messages import codec
from messages.endpoint import CreateEndpoint, EndpointView
from messages.network import CreateNetwork, NetworkView
from messages.pool import PoolView
from messages.struct import Command
from messages.tenant import CreateTenant, TenantView

from .exits import DONE, FAILED, Ended, wrong_usage
from .intent import NAMED_BY_PLACE, SHORT
from .intent_having import ask_having
from .intent_plan import Having
from .verbs import Session, Verb

_SHORT_OF = {many: one for one, many in SHORT.items()}


def exported(having: Having, *, with_hosts: bool) -> dict[str, Any]:
    """The file that says all of this, as maps and lists: the same for the same, whatever the order it came to be in."""
    tenants = {
        name: _tenant(view, having)
        for name, view in sorted(having.tenants.items())
        if view.status.seq or view.status.networks
    }
    hosts = {"hosts": sorted(having.hosts)} if with_hosts and having.hosts else {}
    return {**hosts, "tenants": tenants}


def _tenant(view: TenantView, having: Having) -> dict[str, Any]:
    said = _said(CreateTenant, codec.to_builtins(view.spec), {})
    networks = {
        name: _network(each, having) for (tenant, name), each in sorted(having.networks.items()) if tenant == view.name
    }
    return {**said, **({"networks": networks} if networks else {})}


def _network(view: NetworkView, having: Having) -> dict[str, Any]:
    spec = codec.to_builtins(view.spec)
    status = codec.to_builtins(view.status)
    said = _said(CreateNetwork, {**spec, **{key: status[key] for key in spec if key in status}}, {"subnets": "none"})
    place = (view.tenant, view.name)
    pools = {name: _pool(each) for name, each in sorted(having.pools.get(place, {}).items())}
    endpoints = {name: _endpoint(each) for name, each in having.endpoints.get(place, {}).items()}
    return {
        **said,
        **({"pools": pools} if pools else {}),
        **({"endpoints": dict(sorted(endpoints.items()))} if endpoints else {}),
    }


def _pool(view: PoolView) -> list[str]:
    return [str(each) for each in view.spec.ranges]


def _endpoint(view: EndpointView) -> dict[str, Any]:
    status = view.status
    now = {
        "addresses": [str(each.ip) for each in status.addresses],
        "mac": status.mac,
        "container": status.container,
        "host": status.host,
    }
    return _said(CreateEndpoint, {**codec.to_builtins(view.spec), **now}, {})


def _said(kind: type[Command], now: Mapping[str, Any], words: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a command that are other than when left out; `words` stand for what is empty."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(kind)}
    said: dict[str, Any] = {}
    for field in kind.__struct_fields__:
        value = now.get(field)
        if field in NAMED_BY_PLACE or value is None:
            continue
        if not value and field in words:
            said[field] = words[field]
        elif value not in ("", []) and value != defaults[field]:
            is_one = field in _SHORT_OF and isinstance(value, list) and len(value) == 1
            said[_SHORT_OF[field] if is_one else field] = value[0] if is_one else value
    return said


def show_document(document: Mapping[str, Any], form: str) -> None:
    """The document is on stdout: YAML unless JSON was asked for."""
    if form in ("json", "jsonl"):
        from . import output

        print(output.as_json(document, is_indented=form == "json"))
        return
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # ten times faster, where it was built in
    yaml.dump(document, sys.stdout, dumper, sort_keys=False, default_flow_style=None, allow_unicode=True, width=160)


def _arguments(_parser: argparse.ArgumentParser) -> None:
    pass


def _export(session: Session, _chosen: argparse.Namespace) -> int:
    if session.output == "name":
        raise wrong_usage("output name is no file: expected yaml (default) or json")
    tenant = session.named_tenant
    having = ask_having(session.client, None if tenant is None else [tenant])
    if tenant is not None and not having.tenants:
        raise Ended(FAILED, f"refused: unknown-tenant: tenant {tenant} does not exist")
    show_document(exported(having, with_hosts=tenant is None), session.output)
    return DONE


VERBS = {"": Verb("What is there, as a file for `apply`: all tenants, or the one of -t.", _arguments, _export)}
