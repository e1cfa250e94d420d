"""The longest stop of other traffic: `python stops.py NETNS ADDRESS` pings each millisecond until its input closes.

A stop is the time from sending one ping until it, or a later one, is answered: what the unluckiest packet waited for.
That this process itself is sometimes not running does not count, because then nothing is sent. Replies carry the
kernel's time stamps. A process of its own, so that the measuring of attaches does not disturb it.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time
from collections import deque
from pathlib import Path
from typing import IO, Final

from sandboxes import ECHO_REPLY, echo_request, enter, icmp_socket

EVERY_NS: Final = 1_000_000
IDENTIFIER: Final = 4711
SO_TIMESTAMPNS: Final = 35
LAST_WAIT_S: Final = 1.0


class Prober:
    """Sends and receives on one raw socket; both clocks are CLOCK_REALTIME, as the kernel's stamps are."""

    def __init__(self, icmp: socket.socket, target: str) -> None:
        self._icmp = icmp
        self._target = target
        self._open: deque[tuple[int, int]] = deque()  # (number, sent at) of what is not answered
        self.sent = 0
        self.answered = 0
        self.longest_ns = 0

    def run(self, stop: IO[bytes]) -> None:
        """Pings until `stop` is at its end, and then until the last one is answered or a second has passed."""
        due_ns = time.time_ns()
        is_over = False
        while not is_over:
            now_ns = time.time_ns()
            if now_ns >= due_ns:
                self._send(now_ns)
                due_ns = max(due_ns + EVERY_NS, now_ns)
            waited_for: list[socket.socket | IO[bytes]] = [self._icmp, stop]
            readable, _, _ = select.select(waited_for, [], [], max(0, due_ns - time.time_ns()) / 1e9)
            if self._icmp in readable:
                self._receive()
            is_over = stop in readable and not stop.read(1)
        until_s = time.monotonic() + LAST_WAIT_S
        while self._open and (left_s := until_s - time.monotonic()) > 0:
            if select.select([self._icmp], [], [], left_s)[0]:
                self._receive()
        if self._open:  # it never came back
            self.longest_ns = max(self.longest_ns, time.time_ns() - self._open[0][1])

    def _send(self, now_ns: int) -> None:
        self.sent += 1
        self._icmp.sendto(echo_request(IDENTIFIER, self.sent), (self._target, 0))
        self._open.append((self.sent, now_ns))

    def _receive(self) -> None:
        packet, stamps, _, _ = self._icmp.recvmsg(2048, 64)
        icmp = packet[(packet[0] & 15) * 4 :]
        if len(icmp) < 8 or icmp[0] != ECHO_REPLY or int.from_bytes(icmp[4:6], "big") != IDENTIFIER:
            return
        self.answered += 1
        seconds, nanoseconds = struct.unpack("=qq", stamps[0][2][:16])
        at_ns = seconds * 1_000_000_000 + nanoseconds
        number = int.from_bytes(icmp[6:8], "big")
        while self._open and (number - self._open[0][0]) & 0xFFFF < 0x8000:
            _, sent_ns = self._open.popleft()
            self.longest_ns = max(self.longest_ns, at_ns - sent_ns)


def main() -> None:
    """Says READY once the target answers, and what was found as a line of JSON when the input has closed."""
    enter(Path(sys.argv[1]))
    icmp = icmp_socket()
    icmp.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    prober = Prober(icmp, sys.argv[2])
    print("READY", flush=True)
    prober.run(open(0, "rb", buffering=0))  # noqa: SIM115  (its own standard input)
    found = {"longest_ms": prober.longest_ns / 1e6, "sent": prober.sent, "answered": prober.answered}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
