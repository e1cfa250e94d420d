"""Ethernet frames sent and received raw inside network namespaces: what no well-behaved kernel would send."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address

from .netns import NetworkNamespace

ETH_P_ALL = 3
BROADCAST = "ff:ff:ff:ff:ff:ff"
WITHIN_S = 30.0


def packed(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def checksum(raw: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(raw) % 2:
        raw += b"\0"
    total: int = sum(struct.unpack(f"!{len(raw) // 2}H", raw))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(to: str, source: str, kind: int, payload: bytes, tag: int | None = None) -> bytes:
    dot1q = b"" if tag is None else struct.pack("!HH", 0x8100, tag)
    return packed(to) + packed(source) + dot1q + struct.pack("!H", kind) + payload


def vxlan(source: str, to: str, vni: int, inner: bytes) -> bytes:
    """An IPv4 packet that carries a frame of a VXLAN network (RFC 7348 section 5)."""
    return udp4(source, to, struct.pack("!II", 0x08000000, vni << 8) + inner, port=4789)


def udp4(source: str, to: str, text: bytes, port: int = 9) -> bytes:
    """An IPv4 packet with a UDP datagram from port 9."""
    datagram = struct.pack("!HHHH", 9, port, 8 + len(text), 0) + text
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 0, 0, 64, 17, 0)
    head += IPv4Address(source).packed + IPv4Address(to).packed
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + datagram


def arp(operation: int, sender: tuple[str, str], target: tuple[str, str]) -> bytes:
    """An ARP packet; sender and target are (MAC, address)."""
    return (
        struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
        + packed(sender[0])
        + IPv4Address(sender[1]).packed
        + packed(target[0])
        + IPv4Address(target[1]).packed
    )


def icmp6(source: str, to: str, kind: int, body: bytes) -> bytes:
    """An IPv6 packet with an ICMPv6 message."""
    addresses = IPv6Address(source).packed + IPv6Address(to).packed
    message = struct.pack("!BBH", kind, 0, 0) + body
    pseudo = addresses + struct.pack("!II", len(message), 58)
    message = message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]
    return struct.pack("!IHBB", 6 << 28, len(message), 58, 255) + addresses + message


def advertisement(source: str, target: str, mac: str) -> bytes:
    """A neighbour advertisement, not asked for, that `target` is at `mac` (RFC 4861)."""
    body = struct.pack("!I", 0x20000000) + IPv6Address(target).packed + b"\x02\x01" + packed(mac)
    return icmp6(source, "ff02::1", 136, body)


class Wire:
    """A raw socket on one interface of a namespace; it hears what comes from the network, not what it sent."""

    def __init__(self, namespace: NetworkNamespace, interface: str = "eth0") -> None:
        self._socket = namespace.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)))
        self._socket.bind((interface, ETH_P_ALL))
        self._socket.settimeout(WITHIN_S)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, frame: bytes) -> None:
        self._socket.send(frame)

    def heard_until(self, marker: bytes) -> list[bytes]:
        """Every frame heard up to the one that holds `marker`, that one included. Raises: TimeoutError."""
        heard: list[bytes] = []
        while not heard or marker not in heard[-1]:
            frame, address = self._socket.recvfrom(1 << 16)
            if address[2] != socket.PACKET_OUTGOING:
                heard.append(frame)
        return heard
