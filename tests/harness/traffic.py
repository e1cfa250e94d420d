"""Traffic between network namespaces that goes on while a test does something: pings at 100/s and a stream over TCP.

Each is one thread, from `with` to the end of the block; at the end all that was sent has had its time to arrive.
"""

from __future__ import annotations

import hashlib
import itertools
import select
import socket
import struct
import threading
import time
from typing import Self

from .frames import checksum
from .netns import NetworkNamespace

EVERY_S = 0.01
SETTLE_S = 10.0  # a reply that is not there by then is lost
FLOWING_WITHIN_S = 30.0
CHUNK_BYTES = 4096
ECHO_REQUEST, ECHO_REPLY = 8, 0


class Pinging:
    """Echo requests from inside `source` to `address`, 100 a second; which of them were answered, and when."""

    def __init__(self, source: NetworkNamespace, address: str) -> None:
        self._address = address
        self._socket = source.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
        self._identity = id(self) & 0xFFFF
        self._stopping = threading.Event()
        self._flowing = threading.Event()
        self.sent_at_s: list[float] = []
        self.answered_at_s: dict[int, float] = {}
        self.answered_twice: list[int] = []
        self._answered = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._flowing.wait(FLOWING_WITHIN_S), f"no answer from {self._address}"
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._socket.close()

    @property
    def lost(self) -> list[int]:
        """The numbers of the requests that were never answered."""
        return [number for number in range(len(self.sent_at_s)) if number not in self.answered_at_s]

    def until_answered(self) -> None:
        """Return when something that is sent from now on has been answered."""
        first = len(self.sent_at_s)
        with self._answered:
            there = self._answered.wait_for(lambda: max(self.answered_at_s, default=-1) >= first, FLOWING_WITHIN_S)
        assert there, f"no answer from {self._address} any more"

    @property
    def longest_gap_s(self) -> float:
        """The longest time without an answer."""
        at_s = sorted(self.answered_at_s.values())
        return max((later - earlier for earlier, later in itertools.pairwise(at_s)), default=float("inf"))

    def _run(self) -> None:
        next_s = time.monotonic()
        while not self._stopping.is_set():
            self._send()
            next_s += EVERY_S
            self._receive_until(next_s)
        deadline_s = time.monotonic() + SETTLE_S
        while self.lost and time.monotonic() < deadline_s:
            self._receive_until(min(deadline_s, time.monotonic() + EVERY_S))

    def _send(self) -> None:
        number = len(self.sent_at_s)
        body = struct.pack("!HHI", self._identity, number & 0xFFFF, number)
        head = struct.pack("!BBH", ECHO_REQUEST, 0, 0)
        message = head[:2] + struct.pack("!H", checksum(head + body)) + body
        self.sent_at_s.append(time.monotonic())
        try:
            self._socket.sendto(message, (self._address, 0))
        except OSError:  # no way out at this moment: this one is lost
            return

    def _receive_until(self, until_s: float) -> None:
        while (left_s := until_s - time.monotonic()) > 0:
            if not select.select([self._socket], [], [], left_s)[0]:
                return
            packet = self._socket.recv(2048)
            kind, _, _, identity, _, number = struct.unpack_from("!BBHHHI", packet, (packet[0] & 15) * 4)
            if (kind, identity) == (ECHO_REPLY, self._identity):
                with self._answered:
                    if number in self.answered_at_s:
                        self.answered_twice.append(number)
                    self.answered_at_s.setdefault(number, time.monotonic())
                    self._answered.notify_all()
                self._flowing.set()


class Streaming:
    """A stream over TCP, some 400 kB/s, from inside `source` to `address` in `sink`; whether it arrived as sent."""

    def __init__(self, source: NetworkNamespace, sink: NetworkNamespace, address: str) -> None:
        self._stopping = threading.Event()
        with sink.call(lambda: socket.create_server((address, 0))) as server:
            port = server.getsockname()[1]
            self._sender = source.call(lambda: socket.create_connection((address, port), timeout=FLOWING_WITHIN_S))
            self._receiver, _ = server.accept()
        self._sent, self._received = hashlib.sha256(), hashlib.sha256()
        self._last_s = time.monotonic()
        self.longest_gap_s = 0.0
        self.received_bytes = 0
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._run_sender, self._run_receiver)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._sender.close()
        self._receiver.close()

    @property
    def is_whole(self) -> bool:
        """All that was sent has arrived, and it was something."""
        return self.received_bytes > 0 and self._sent.digest() == self._received.digest()

    def _run_sender(self) -> None:
        chunk = bytes(range(256)) * (CHUNK_BYTES // 256)
        while not self._stopping.wait(EVERY_S):
            self._sender.sendall(chunk)
            self._sent.update(chunk)
        self._sender.shutdown(socket.SHUT_WR)

    def _run_receiver(self) -> None:
        self._receiver.settimeout(FLOWING_WITHIN_S)
        while part := self._receiver.recv(1 << 16):
            now_s = time.monotonic()
            self.longest_gap_s = max(self.longest_gap_s, now_s - self._last_s)
            self._last_s = now_s
            self.received_bytes += len(part)
            self._received.update(part)
