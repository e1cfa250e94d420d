"""Which nats-server a command line talks to and as whom.

Flags win over the environment (`NETPLUGIN_NATS_URL`, `NETPLUGIN_CREDS`), that over a context (`netctl context`), that
over `RUN_DIR/client.json`, which the daemon on this host writes. A context is a JSON file: ours in
`~/.config/netplugin/contexts`, or one that the `nats` command made in `~/.config/nats/context` (ADR-21).
"""

from __future__ import annotations

import json
import os
from typing import Any

import msgspec

from .exits import UNREACHABLE, Ended, wrong_usage

RUN_DIR = "/run/netplugin"
CLIENT_FILE = "client.json"
SELECTED = "selected"  # the file that names the chosen context


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """Where to connect and who to be."""

    urls: tuple[str, ...]
    source: str  # of the address, for error texts
    seed_file: str = ""
    creds_file: str = ""
    user: str = ""
    password: str = ""
    token: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    inbox_prefix: str = "_INBOX"
    host: str = ""  # the host that endpoints are attached on unless told
    tenant: str = ""
    monitor: str = ""  # the server's HTTP address, where it is known


def find_server(url: str | None = None, creds: str | None = None, context: str | None = None) -> Server:
    """The server to talk to. Raises: Ended (2: no such context, 3: nothing says where a server is)."""
    url = url or os.environ.get("NETPLUGIN_NATS_URL")
    creds = creds or os.environ.get("NETPLUGIN_CREDS")
    context = context or os.environ.get("NETPLUGIN_CONTEXT") or (None if url else selected_context())
    if context:
        server = _from_context(context)
    elif url:
        server = Server(
            urls=_split(url), source="--server or NETPLUGIN_NATS_URL", ca=os.environ.get("NETPLUGIN_CA", "")
        )
        if (local := _client_file_if_readable()) and url in (local[1].get("url"), *local[1].get("urls", ())):
            creds = creds or str(local[1].get("nkey_seed_file") or "")
            server = msgspec.structs.replace(server, ca=server.ca or str(local[1].get("ca_file") or ""))
    else:
        server = _from_client_file()
    if url:
        server = msgspec.structs.replace(server, urls=_split(url), source="--server or NETPLUGIN_NATS_URL")
    if creds:
        server = msgspec.structs.replace(server, **_creds_fields(creds))
    return server


def local_host(server: Server | None) -> str:
    """The host that is meant when none is named."""
    if host := os.environ.get("NETPLUGIN_HOST") or (server.host if server else ""):
        return host
    import socket

    return socket.gethostname().split(".")[0].lower()


def context_folders() -> tuple[str, str]:
    """Our own contexts, and those of the `nats` command."""
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")  # noqa: PTH111, PTH118
    return f"{config}/netplugin/contexts", f"{config}/nats/context"


def selected_context() -> str | None:
    """The context chosen by `netctl context select`."""
    try:
        with open(f"{context_folders()[0]}/{SELECTED}", encoding="utf-8") as file:  # noqa: PTH123  (pathlib costs 2 ms)
            return file.read().strip() or None
    except OSError:
        return None


def signed_login(server: Server, nonce: str) -> dict[str, Any]:
    """The fields of CONNECT that say who we are. Raises: Ended when a key file cannot be read."""
    if server.creds_file:
        jwt, seed = _read_creds(server.creds_file)
        return {"jwt": jwt, "sig": _sign(seed, nonce, server.creds_file)[1]}
    if server.seed_file:
        public, signature = _sign(_read(server.seed_file).strip(), nonce, server.seed_file)
        return {"nkey": public, "sig": signature}
    if server.user:
        return {"user": server.user, "pass": server.password}
    if server.token:
        return {"auth_token": server.token}
    return {}


def _from_context(name: str) -> Server:
    for folder in context_folders():
        path = f"{folder}/{name}.json"
        if os.path.exists(path):  # noqa: PTH110
            return read_context(path)
    raise wrong_usage(f"context {name!r} is not known: `netctl context list` shows those there are")


def read_context(path: str) -> Server:
    """The server that a context's file describes. Raises: Ended."""
    fields = _read_json(path)
    chosen: dict[str, Any] = _creds_fields(str(fields["creds"])) if fields.get("creds") else {}
    if fields.get("nkey"):
        chosen = {"seed_file": str(fields["nkey"])}
    for key in ("user", "password", "token", "ca", "cert", "key", "host", "tenant", "inbox_prefix", "monitor"):
        if fields.get(key):
            chosen[key] = str(fields[key])
    url = str(fields.get("url") or "nats://127.0.0.1:4222")
    return Server(urls=_split(url), source=path, **chosen)


def _client_file() -> tuple[str, dict[str, Any]] | None:
    """What the daemon on this host wrote, None where there is none. Raises: Ended when it may not be looked at."""
    path = f"{os.environ.get('NETPLUGIN_RUN_DIR') or RUN_DIR}/{CLIENT_FILE}"
    try:
        os.stat(path)  # noqa: PTH116
    except PermissionError:
        folder = os.path.dirname(path)  # noqa: PTH120
        raise Ended(
            UNREACHABLE,
            f"{folder} may not be entered by this user, so {CLIENT_FILE} in it cannot be looked for: run as root"
            " (sudo), or give --server and --creds",
        ) from None
    except OSError:
        return None
    return path, _read_json(path)


def _client_file_if_readable() -> tuple[str, dict[str, Any]] | None:
    """The same for somebody who has said where the server is: what may not be looked at is nothing then."""
    try:
        return _client_file()
    except Ended:
        return None


def _from_client_file() -> Server:
    found = _client_file()
    if found is None:
        folder = os.environ.get("NETPLUGIN_RUN_DIR") or RUN_DIR
        raise Ended(
            UNREACHABLE,
            f"cannot reach netplugin: {folder}/{CLIENT_FILE} is not there, so no daemon runs on this host;"
            " start `netplugin`, or say where it is with --server, NETPLUGIN_NATS_URL or `netctl context`",
        )
    path, fields = found
    chosen: dict[str, Any] = {"host": str(fields.get("host") or ""), "monitor": str(fields.get("monitor") or "")}
    if fields.get("nkey_seed_file"):
        chosen |= _creds_fields(str(fields["nkey_seed_file"]))
    if fields.get("ca_file"):
        chosen["ca"] = str(fields["ca_file"])
    urls = fields.get("urls") or [fields.get("url", "")]
    return Server(urls=_split(",".join(map(str, urls))), source=path, **chosen)


def _creds_fields(path: str) -> dict[str, str]:
    if path.endswith(".creds"):
        return {"creds_file": path}
    from pathlib import Path

    from services.runtime.identity import inbox_prefix, user_of

    return {"seed_file": path, "inbox_prefix": inbox_prefix(user_of(Path(path)))}


def _split(urls: str) -> tuple[str, ...]:
    found = tuple(url if "://" in url else f"nats://{url}" for url in (part.strip() for part in urls.split(",")) if url)
    from urllib.parse import urlsplit

    for url in found:
        try:
            is_usable = bool(urlsplit(url).hostname) and urlsplit(url).port != 0
        except ValueError:
            is_usable = False
        if not is_usable:
            raise wrong_usage(f"server {url!r} is no address: expected one such as nats://127.0.0.1:4222")
    if not found:
        raise wrong_usage("the server's address is empty: expected one such as nats://127.0.0.1:4222")
    return found


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            return file.read()
    except PermissionError:
        raise Ended(UNREACHABLE, f"{path} may not be read by this user: run as root (sudo), or give --creds") from None
    except (OSError, UnicodeDecodeError) as fault:
        raise Ended(UNREACHABLE, f"{path} cannot be read: {getattr(fault, 'strerror', None) or fault}") from None


def _read_json(path: str) -> dict[str, Any]:
    try:
        fields = json.loads(_read(path))
    except ValueError as fault:
        raise Ended(UNREACHABLE, f"{path} is no JSON: {fault}") from None
    if not isinstance(fields, dict):
        raise Ended(UNREACHABLE, f"{path} is {type(fields).__name__}: expected a JSON object")
    return fields


def _read_creds(path: str) -> tuple[str, str]:
    blocks: list[str] = []
    lines = _read(path).splitlines()
    for number, line in enumerate(lines):
        if line.startswith("-----BEGIN") and number + 1 < len(lines):
            blocks.append(lines[number + 1].strip())
    if len(blocks) < 2:
        raise Ended(UNREACHABLE, f"{path} holds no JWT and seed: expected a .creds file")
    return blocks[0], blocks[1]


def _sign(seed: str, nonce: str, path: str) -> tuple[str, str]:
    import base64

    import nkeys

    try:
        pair = nkeys.from_seed(bytearray(seed.encode()))
        signature = pair.sign(nonce.encode())
    except (nkeys.NkeysError, ValueError) as fault:
        raise Ended(UNREACHABLE, f"{path} holds no nkey seed: {fault or type(fault).__name__}") from None
    return pair.public_key.decode(), base64.urlsafe_b64encode(signature).decode().rstrip("=")
