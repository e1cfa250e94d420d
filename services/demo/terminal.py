"""A command typed at a terminal, as a person does it: `docker run -it ...` refuses to run without one."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Self


class NotShown(Exception):
    """The terminal did not show what was waited for; the text has what it showed instead."""


class Terminal:
    """One command line with a terminal of its own, from `with` to the end of the block, where it is hung up on.

    What runs in the foreground ends with it; a container goes on as Docker sees fit and is removed by name.
    """

    def __init__(self, command: str, environment: Mapping[str, str]) -> None:
        self._command = command
        self._environment = environment
        self._shown = ""

    def __enter__(self) -> Self:
        self._screen, keyboard = pty.openpty()
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {self._command}"],
            env={**os.environ, **self._environment, "TERM": "dumb"},
            stdin=keyboard,
            stdout=keyboard,
            stderr=keyboard,
            start_new_session=True,
        )
        os.close(keyboard)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._screen)
        self._process.kill()
        self._process.wait()

    def type(self, line: str) -> None:
        """`line` and Enter."""
        os.write(self._screen, f"{line}\n".encode())

    def wait_for(self, text: str, within_s: float = 30.0) -> str:
        """All that was shown until `text` was, since the last wait. Raises: `NotShown`."""
        deadline_s = time.monotonic() + within_s
        while text not in self._shown:
            if not select.select([self._screen], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
                raise NotShown(f"{self._command}: expected {text!r} in {within_s:g} s, found {self._shown!r}")
            received = b""
            with suppress(OSError):  # EIO: nobody has the other end open any more
                received = os.read(self._screen, 65536)
            if not received:
                raise NotShown(f"{self._command}: expected {text!r} before it ended, found {self._shown!r}")
            self._shown += received.decode(errors="replace")
        shown, _, self._shown = self._shown.partition(text)
        return shown + text

    def wait(self, within_s: float = 30.0) -> int:
        """The exit status of the command, once it has ended by itself."""
        return self._process.wait(within_s)
