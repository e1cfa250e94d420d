"""OpenFlow 1.5 on the wire: the matches, actions, flow-mods, groups and bundles that the switch driver uses, no others.

Everything here is pure: values in, bytes out, and back. Matches and actions are written as Python calls that read like
`ovs-ofctl` text::

    flow(table=0, priority=100, match=match(in_port=3, eth_src=mac), then=[*apply(set_field("reg0", 7)), *goto(10)])

Source: OpenFlow Switch Specification 1.5.1; Open vSwitch `meta-flow.h` for the registers and the ND extension fields.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple
from zlib import crc32

VERSION: Final = 6  # OpenFlow 1.5
HEADER: Final = struct.Struct("!BBHI")  # version, type, length, transaction id
NO_BUFFER: Final = 0xFFFFFFFF
PORT_ANY: Final = 0xFFFFFFFF
PORT_IN_PORT: Final = 0xFFFFFFF8
GROUP_ANY: Final = 0xFFFFFFFF
GROUP_ALL: Final = 0xFFFFFFFC
TABLE_ALL: Final = 0xFF
BUCKET_LAST: Final = 0xFFFFFFFE
BUCKET_ALL: Final = 0xFFFFFFFF
WHOLE_64: Final = 0xFFFFFFFFFFFFFFFF


class Type(enum.IntEnum):
    """Message types (section 7.1)."""

    HELLO = 0
    ERROR = 1
    ECHO_REQUEST = 2
    ECHO_REPLY = 3
    SET_CONFIG = 9
    PORT_STATUS = 12
    FLOW_MOD = 14
    GROUP_MOD = 15
    MULTIPART_REQUEST = 18
    MULTIPART_REPLY = 19
    BARRIER_REQUEST = 20
    BARRIER_REPLY = 21
    BUNDLE_CONTROL = 33
    BUNDLE_ADD_MESSAGE = 34


class FlowCommand(enum.IntEnum):
    ADD = 0
    DELETE = 3
    DELETE_STRICT = 4


class GroupCommand(enum.IntEnum):
    ADD = 0
    MODIFY = 1
    DELETE = 2
    INSERT_BUCKET = 3
    REMOVE_BUCKET = 5


class Multipart(enum.IntEnum):
    FLOW_DESC = 1
    TABLE_STATS = 3
    GROUP_DESC = 7
    PORT_DESC = 13
    FLOW_MONITOR = 16


class Field(enum.Enum):
    """A match field: (OXM class, field number, bytes). Declared so that what a field requires stands before it."""

    reg0 = (0x0001, 0, 4)  # a register of 32 bits
    xreg0 = (0x8001, 0, 8)  # reg0 and reg1 together: how the switch shows a match on either
    xreg1 = (0x8001, 1, 8)
    tunnel_id = (0x8000, 38, 8)  # the VNI of a packet that comes out of a tunnel, or goes into one
    tun_src = (0x0001, 31, 4)  # Open vSwitch: the outer IPv4 source
    tun_dst = (0x0001, 32, 4)
    tun_ipv6_src = (0x0001, 109, 16)
    tun_ipv6_dst = (0x0001, 110, 16)
    in_port = (0x8000, 0, 4)
    eth_dst = (0x8000, 3, 6)
    eth_src = (0x8000, 4, 6)
    eth_type = (0x8000, 5, 2)
    vlan_vid = (0x8000, 6, 2)  # 0: the frame carries no 802.1Q tag
    ip_proto = (0x8000, 10, 1)
    ip_ttl = (0x0001, 29, 1)  # Open vSwitch: the TTL or hop limit
    ipv4_src = (0x8000, 11, 4)
    ipv4_dst = (0x8000, 12, 4)
    ipv6_src = (0x8000, 26, 16)
    ipv6_dst = (0x8000, 27, 16)
    icmpv4_type = (0x8000, 19, 1)
    icmpv6_type = (0x8000, 29, 1)
    icmpv6_code = (0x8000, 30, 1)
    nd_target = (0x8000, 31, 16)
    nd_sll = (0x8000, 32, 6)
    nd_tll = (0x8000, 33, 6)
    arp_op = (0x8000, 21, 2)
    arp_spa = (0x8000, 22, 4)
    arp_tpa = (0x8000, 23, 4)
    arp_sha = (0x8000, 24, 6)
    arp_tha = (0x8000, 25, 6)
    nd_reserved = (0x1000, 1, 4)  # Open vSwitch: the flags of a neighbour advertisement
    nd_options_type = (0x1000, 2, 1)  # Open vSwitch: 1 source, 2 target link-layer address


_ORDER: Final = {field.name: index for index, field in enumerate(Field)}

Value = int | bytes | str | IPv4Address | IPv6Address
Masked = tuple[Value, Value]


def _packed(value: Value, size_bytes: int) -> bytes:
    """The value as the wire has it: a number, raw bytes, an IP address, or a MAC written with colons."""
    match value:
        case int():
            return value.to_bytes(size_bytes, "big")
        case bytes():
            packed = value
        case str():
            packed = bytes.fromhex(value.replace(":", ""))
        case _:
            packed = value.packed
    if len(packed) != size_bytes:
        raise ValueError(f"expected {size_bytes} bytes, found {len(packed)} in {value!r}")
    return packed


def _oxm(name: str, value: Value, mask: Value | None = None) -> bytes:
    oxm_class, number, size = Field[name].value
    if mask is None:
        return struct.pack("!HBB", oxm_class, number << 1, size) + _packed(value, size)
    return struct.pack("!HBB", oxm_class, number << 1 | 1, size * 2) + _packed(value, size) + _packed(mask, size)


def match(**fields: Value | Masked) -> bytes:
    """The OXM fields of a match, in the order that their prerequisites need. A pair is (value, mask)."""
    ordered = sorted(fields.items(), key=lambda item: _ORDER[item[0]])
    return b"".join(_oxm(name, *value) if isinstance(value, tuple) else _oxm(name, value) for name, value in ordered)


def _padded(body: bytes) -> bytes:
    return body + bytes(-len(body) % 8)


def _match_struct(fields: bytes) -> bytes:
    return _padded(struct.pack("!HH", 1, 4 + len(fields)) + fields)


# Actions and instructions ------------------------------------------------------------------------------------------


def output(port: int) -> bytes:
    """Send the packet out of a port (never out of the one it came in by; that takes `PORT_IN_PORT`)."""
    return struct.pack("!HHIH6x", 0, 16, port, 0)


def group(group_id: int) -> bytes:
    """Hand the packet to a group."""
    return struct.pack("!HHI", 22, 8, group_id)


def push_vlan() -> bytes:
    """Give the packet an 802.1Q tag, its fields still to be set."""
    return struct.pack("!HHH2x", 17, 8, 0x8100)


def pop_vlan() -> bytes:
    """Take the packet's outer tag off."""
    return struct.pack("!HH4x", 18, 8)


def dec_ttl() -> bytes:
    """Take one off the TTL or hop limit; a packet that has none left goes no further."""
    return struct.pack("!HH4x", 24, 8)


def set_field(name: str, value: Value, mask: Value | None = None) -> bytes:
    """Write a field of the packet, or a register."""
    oxm = _oxm(name, value, mask)
    body = _padded(bytes(4) + oxm)
    return struct.pack("!HH", 25, len(body)) + body[4:]


def copy_field(source: str, target: str) -> bytes:
    """Copy the whole of one field over another of the same size."""
    source_class, source_number, size = Field[source].value
    target_class, target_number, target_size = Field[target].value
    ids = struct.pack("!HBBHBB", source_class, source_number << 1, size, target_class, target_number << 1, target_size)
    return struct.pack("!HHHHH2x", 28, 24, size * 8, 0, 0) + _padded(bytes(4) + ids)[4:]


def apply(*actions: bytes) -> bytes:
    """An instruction: these actions, now and in this order."""
    body = b"".join(actions)
    return struct.pack("!HH4x", 4, 8 + len(body)) + body


def goto(table: int) -> bytes:
    """An instruction: go on in another table."""
    return struct.pack("!HHB3x", 1, 8, table)


# Flows -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Flow:
    """One entry of a flow table. `match` holds OXM fields without header or padding; no `instructions` means drop."""

    table: int
    priority: int
    match: bytes
    instructions: bytes = b""
    cookie: int = 0

    @property
    def checksum(self) -> int:
        """32 bits made of all but the cookie; the same for what was sent and for what the switch shows of it."""
        head = struct.pack("!BH", self.table, self.priority)
        return crc32(self.instructions, crc32(_canonical(self.match), crc32(head)))

    def with_cookie(self, cookie: int) -> Flow:
        """The same entry with this cookie."""
        return replace(self, cookie=cookie)


def flow(table: int, priority: int, match: bytes = b"", then: bytes = b"") -> Flow:
    """An entry without a cookie; `then` holds its instructions."""
    return Flow(table, priority, match, then)


def _canonical(fields: bytes) -> bytes:
    """The same fields in one order, whoever wrote them: the switch answers in an order of its own."""
    parts = []
    offset = 0
    while offset < len(fields):
        end = offset + 4 + fields[offset + 3]
        parts.append(fields[offset:end])
        offset = end
    return b"".join(sorted(parts))


def message(kind: int, body: bytes = b"", xid: int = 0) -> bytes:
    """A message with its header."""
    return HEADER.pack(VERSION, kind, HEADER.size + len(body), xid) + body


_FLOW_MOD: Final = struct.Struct("!QQBBHHHIIIHH")


def add_flow(entry: Flow) -> bytes:
    """A flow-mod that puts the entry there, over one with the same table, priority and match."""
    return _flow_mod(FlowCommand.ADD, entry, cookie_mask=0)


def delete_flow(entry: Flow) -> bytes:
    """A flow-mod that removes exactly this entry, if its cookie is still the one given."""
    return _flow_mod(FlowCommand.DELETE_STRICT, entry, cookie_mask=WHOLE_64)


def delete_by_cookie(cookie: int) -> bytes:
    """A flow-mod that removes from all tables what carries this cookie. The switch has an index for whole cookies."""
    return _flow_mod(FlowCommand.DELETE, Flow(TABLE_ALL, 0, b"", b"", cookie), cookie_mask=WHOLE_64)


def _flow_mod(command: FlowCommand, entry: Flow, cookie_mask: int) -> bytes:
    head = _FLOW_MOD.pack(
        entry.cookie, cookie_mask, entry.table, command, 0, 0, entry.priority, NO_BUFFER, PORT_ANY, GROUP_ANY, 0, 0
    )
    instructions = entry.instructions if command == FlowCommand.ADD else b""
    return message(Type.FLOW_MOD, head + _match_struct(entry.match) + instructions)


# Groups ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bucket:
    """What a group does with its own copy of a packet. `id` is unique within the group, 0 to 0xFFFFFF00."""

    id: int
    actions: bytes


def port_bucket(port: int) -> Bucket:
    """A copy goes out of the port, whose number is the bucket's id."""
    return Bucket(port, output(port))


def _bucket(bucket: Bucket) -> bytes:
    length = len(bucket.actions)
    return struct.pack("!HHI", 8 + length, length, bucket.id) + bucket.actions


def group_mod(command: GroupCommand, group_id: int, of: Iterable[Bucket] = (), bucket: int = BUCKET_ALL) -> bytes:
    """A message about an `all` group with these buckets.

    `bucket` is where INSERT_BUCKET inserts (`BUCKET_LAST`), and what REMOVE_BUCKET removes.
    """
    buckets = b"".join(map(_bucket, of))
    return message(Type.GROUP_MOD, struct.pack("!HBxIH2xI", command, 0, group_id, len(buckets), bucket) + buckets)


# Bundles -----------------------------------------------------------------------------------------------------------


class BundleControl(enum.IntEnum):
    OPEN_REQUEST = 0
    COMMIT_REQUEST = 4
    DISCARD_REQUEST = 6


ATOMIC_ORDERED: Final = 3


def bundle_control(bundle: int, control: BundleControl, xid: int) -> bytes:
    """Open, commit or discard an atomic, ordered bundle."""
    return message(Type.BUNDLE_CONTROL, struct.pack("!IHH", bundle, control, ATOMIC_ORDERED), xid)


def bundle_add(bundle: int, inner: bytes, xid: int) -> bytes:
    """The message as a member of a bundle. Outer and inner transaction ids are the same, as the protocol wants."""
    numbered = inner[:4] + struct.pack("!I", xid) + inner[8:]
    return message(Type.BUNDLE_ADD_MESSAGE, struct.pack("!I2xH", bundle, ATOMIC_ORDERED) + numbered, xid)


# What the switch answers -------------------------------------------------------------------------------------------


def flow_desc_request(cookie: int | None = None) -> bytes:
    """The body of a request for all flows, or for those with this cookie."""
    asked = (0, 0) if cookie is None else (cookie, WHOLE_64)
    fixed = struct.pack("!HH4xB3xII4xQQ", Multipart.FLOW_DESC, 0, TABLE_ALL, PORT_ANY, GROUP_ANY, *asked)
    return fixed + _match_struct(b"")


def group_desc_request() -> bytes:
    """The body of a request for all groups."""
    return struct.pack("!HH4xI4x", Multipart.GROUP_DESC, 0, GROUP_ALL)


def port_desc_request() -> bytes:
    """The body of a request for all ports."""
    return struct.pack("!HH4xI4x", Multipart.PORT_DESC, 0, PORT_ANY)


def table_stats_request() -> bytes:
    """The body of a request for what each table counts."""
    return struct.pack("!HH4x", Multipart.TABLE_STATS, 0)


class FlowEvent(enum.IntEnum):
    """What a flow monitor tells."""

    ADDED = 1
    REMOVED = 2
    MODIFIED = 3


def flow_monitor_request() -> bytes:
    """The body of a request for every change of a flow from now on; one's own are told by a mere number."""
    added_removed_modified = 0x2 | 0x4 | 0x8
    fixed = struct.pack(
        "!HH4xIIIHBB", Multipart.FLOW_MONITOR, 0, 1, PORT_ANY, GROUP_ANY, added_removed_modified, TABLE_ALL, 0
    )
    return fixed + _match_struct(b"")


def is_changed_by_others(body: bytes) -> bool:
    """Whether a flow monitor reply, its multipart header cut off, tells a change that was not one's own."""
    offset = 0
    while offset < len(body):
        length, event = struct.unpack_from("!HH", body, offset)
        if event in (FlowEvent.ADDED, FlowEvent.REMOVED, FlowEvent.MODIFIED):
            return True
        offset += length
    return False


_FLOW_DESC: Final = struct.Struct("!H2xBxHHHHHQ")


def parse_flow_desc(body: bytes) -> list[Flow]:
    """The entries of one flow description reply, its multipart header cut off."""
    flows = []
    offset = 0
    while offset < len(body):
        length, table, priority, _idle, _hard, _flags, _importance, cookie = _FLOW_DESC.unpack_from(body, offset)
        at = offset + _FLOW_DESC.size
        match_length = struct.unpack_from("!H", body, at + 2)[0]
        fields = body[at + 4 : at + match_length]
        at += (match_length + 7) & ~7
        stats_length = struct.unpack_from("!H", body, at + 2)[0]
        at += (stats_length + 7) & ~7
        flows.append(Flow(table, priority, fields, body[at : offset + length], cookie))
        offset += length
    return flows


_TABLE_STATS: Final = struct.Struct("!B3xIQQ")


class TableStats(NamedTuple):
    """What one table holds and has counted."""

    entries: int
    looked_up: int  # packets
    matched: int


def parse_table_stats(body: bytes) -> dict[int, TableStats]:
    """Each table's counts, from table stats replies with their headers cut off."""
    return {table: TableStats(*counts) for table, *counts in _TABLE_STATS.iter_unpack(body)}


def parse_group_desc(body: bytes) -> dict[int, frozenset[int]]:
    """Each group's buckets by id, from one group description reply."""
    groups = {}
    offset = 0
    while offset < len(body):
        length, group_id, buckets_length = struct.unpack_from("!H2xIH", body, offset)
        at = offset + 16
        end = at + buckets_length
        buckets = set()
        while at < end:
            bucket_length, bucket_id = struct.unpack_from("!H2xI", body, at)
            buckets.add(bucket_id)
            at += bucket_length
        groups[group_id] = frozenset(buckets)
        offset += length
    return groups


@dataclass(frozen=True, slots=True)
class Port:
    """A port as the switch describes it."""

    number: int
    name: str


def parse_port(body: bytes, offset: int = 0) -> tuple[Port, int]:
    """The port described at this offset and the offset after it."""
    number, length = struct.unpack_from("!IH", body, offset)
    name = body[offset + 16 : offset + 32].split(b"\0", 1)[0].decode()
    return Port(number, name), offset + length


def parse_port_desc(body: bytes) -> list[Port]:
    """The ports of one port description reply."""
    ports = []
    offset = 0
    while offset < len(body):
        port, offset = parse_port(body, offset)
        ports.append(port)
    return ports
