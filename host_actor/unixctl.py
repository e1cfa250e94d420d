"""Commands to Open vSwitch's daemons over their control sockets, as `ovs-appctl` gives them, without its process.

Source: Open vSwitch, lib/unixctl.man and lib/unixctl.c: one JSON-RPC request a command, every parameter a string.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Final

from services.runtime.errors import Unavailable

ANSWER_WITHIN_S: Final = 5.0
VSWITCHD: Final = "ovs-vswitchd"


class CommandRefused(Exception):
    """The daemon does not know the command, or said no to it; the text is its own."""


async def ask(run_dir: Path, command: str, *parameters: str, daemon: str = VSWITCHD) -> str:
    """What the daemon whose files are in `run_dir` answers. Raises: `CommandRefused`, `Unavailable`."""
    pid_file = run_dir / f"{daemon}.pid"
    try:
        pid = int(pid_file.read_text())
        async with asyncio.timeout(ANSWER_WITHIN_S):
            reply = await _exchange(run_dir / f"{daemon}.{pid}.ctl", command, parameters)
    except TimeoutError as error:
        raise Unavailable(f"{daemon} did not answer {command} within {ANSWER_WITHIN_S:g} s") from error
    except (OSError, ValueError, EOFError) as error:
        raise Unavailable(f"{daemon} of {run_dir} cannot be asked: {error}") from error
    if reply.get("error") is not None:
        raise CommandRefused(f"{command}: {str(reply['error']).strip()}")
    return str(reply.get("result", ""))


async def _exchange(socket_path: Path, command: str, parameters: tuple[str, ...]) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(str(socket_path))
    try:
        request = {"id": 0, "method": command, "params": list(parameters)}
        writer.write(json.dumps(request, separators=(",", ":")).encode())
        raw = b""
        while True:
            part = await reader.read(1 << 16)
            raw += part
            if raw.endswith(b"}"):
                try:
                    reply: dict[str, Any] = json.loads(raw)
                except json.JSONDecodeError:
                    pass  # the rest is still on its way
                else:
                    return reply
            if not part:
                raise EOFError(f"the connection ended within the answer to {command}")
    finally:
        writer.close()
