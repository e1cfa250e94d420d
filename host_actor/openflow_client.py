"""An OpenFlow 1.5 connection to a bridge's management socket.

One reader (the protocol's `data_received`, on the event loop) owns the table of waiting requests; nothing else touches
it. When the connection ends, every waiting request fails with `Unavailable` and `on_lost` is called once.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import Final, cast

from services.runtime.errors import Unavailable

from . import openflow as of
from .openflow import BundleControl, Flow, Port, Type

_ERROR_BODY: Final = struct.Struct("!HH")
_PORT_REASONS: Final = ("add", "delete", "modify")
_MORE: Final = 1
_CONNECT_TIMEOUT_S: Final = 5.0
_REPLY_TIMEOUT_S: Final = 30.0

OnPort = Callable[[str, Port], None]
OnFlows = Callable[[], None]


class FlowsRefused(Exception):
    """The switch refused a message of a bundle: (error type, code) by the message's place in the bundle."""

    def __init__(self, errors: dict[int, tuple[int, int]]) -> None:
        listed = ", ".join(f"message {index}: type {kind} code {code}" for index, (kind, code) in errors.items())
        super().__init__(f"the switch refused the bundle ({listed or 'commit'})")
        self.errors = errors


class _Refused(Exception):
    def __init__(self, kind: int, code: int) -> None:
        super().__init__(f"error type {kind} code {code}")
        self.kind = kind
        self.code = code


class OpenFlowClient(asyncio.Protocol):
    """One connection. Made by `connect`, unusable after `on_lost`."""

    def __init__(self, on_port: OnPort, on_flows: OnFlows, on_lost: Callable[[], None]) -> None:
        self._on_port = on_port
        self._on_flows = on_flows
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._xid = 0
        self._bundle = 0
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._on_part: dict[int, Callable[[bytes], None]] = {}
        self._errors: dict[int, tuple[int, int]] = {}  # of messages nobody waits for singly, by xid
        self.ports: dict[str, int] = {}  # every port of the bridge, number by name; kept current
        self._said_hello = asyncio.get_running_loop().create_future()

    @classmethod
    async def connect(
        cls, path: str, on_port: OnPort, on_flows: OnFlows, on_lost: Callable[[], None]
    ) -> OpenFlowClient:
        """A connection that has said hello. Raises: `Unavailable` when nobody listens.

        `on_port(reason, port)` gets port events; `on_flows()` is called when somebody else changed flows.
        """
        loop = asyncio.get_running_loop()
        client = cls(on_port, on_flows, on_lost)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await loop.create_unix_connection(lambda: client, path)
                client._send(of.message(Type.HELLO, struct.pack("!HHI", 1, 8, 1 << of.VERSION)))
                await client._said_hello
                # Without a miss_send_len the switch sends a service connection no port events.
                client._send(of.message(Type.SET_CONFIG, struct.pack("!HH", 0, 128)))
                await client._ask_parts(of.port_desc_request(), client._list_ports)
                await client._ask_parts(of.flow_monitor_request(), lambda _: None)
        except (OSError, TimeoutError, _Refused) as error:
            client.close()
            raise Unavailable(f"no OpenFlow switch at {path}: {str(error) or 'no answer'}") from error
        except BaseException:
            client.close()
            raise
        return client

    def close(self) -> None:
        """End the connection without calling `on_lost`."""
        self._on_lost = lambda: None
        if self._transport is not None:
            self._transport.close()

    # Requests ------------------------------------------------------------------------------------------------------

    async def barrier(self) -> None:
        """Everything sent before has been done by the switch."""
        await self._ask(Type.BARRIER_REQUEST)

    async def bundle(self, messages: Sequence[bytes]) -> None:
        """All the messages have taken effect, in their order and at one moment; or none has.

        A malformed message is refused when it is added, but the commit of the others would still succeed: errors are
        collected up to a barrier before anything is committed.

        Raises: `FlowsRefused` when the switch refused one of them, `Unavailable` when the connection ended.
        """
        if not messages:
            return
        self._bundle += 1
        bundle = self._bundle
        opening = self._next_xid()
        opened = self._expect(opening)
        first = self._xid + 1
        out = [of.bundle_control(bundle, BundleControl.OPEN_REQUEST, opening)]
        out += [of.bundle_add(bundle, inner, self._next_xid()) for inner in messages]
        fence = self._next_xid()
        added = self._expect(fence)
        self._send(b"".join([*out, of.message(Type.BARRIER_REQUEST, b"", fence)]))
        try:
            await self._until(opened)
            await self._until(added)
            refused = self._take_errors(first, len(messages))
            if refused:
                await self._bundle_control(bundle, BundleControl.DISCARD_REQUEST)
                raise FlowsRefused(refused)
            await self._bundle_control(bundle, BundleControl.COMMIT_REQUEST)
        except _Refused as refusal:
            errors = self._take_errors(first, len(messages)) or {-1: (refusal.kind, refusal.code)}
            raise FlowsRefused(errors) from refusal

    async def flows(self, on_flows: Callable[[Sequence[Flow]], None], cookie: int | None = None) -> None:
        """`on_flows` has got all flows of the bridge, or those with this cookie, some at a time."""
        await self._ask_parts(of.flow_desc_request(cookie), lambda part: on_flows(of.parse_flow_desc(part)))

    async def groups(self) -> dict[int, frozenset[int]]:
        """The bucket ids of every group of the bridge."""
        found: dict[int, frozenset[int]] = {}
        await self._ask_parts(of.group_desc_request(), lambda part: found.update(of.parse_group_desc(part)))
        return found

    async def tables(self) -> dict[int, of.TableStats]:
        """What each table of the bridge holds and has counted."""
        found: dict[int, of.TableStats] = {}
        await self._ask_parts(of.table_stats_request(), lambda part: found.update(of.parse_table_stats(part)))
        return found

    def _list_ports(self, part: bytes) -> None:
        self.ports.update({port.name: port.number for port in of.parse_port_desc(part)})

    async def _bundle_control(self, bundle: int, control: BundleControl) -> None:
        xid = self._next_xid()
        done = self._expect(xid)
        self._send(of.bundle_control(bundle, control, xid))
        await self._until(done)

    def _take_errors(self, first_xid: int, count: int) -> dict[int, tuple[int, int]]:
        """Errors of the messages of a bundle by their place in it."""
        found = {xid - first_xid: error for xid, error in self._errors.items() if 0 <= xid - first_xid < count}
        self._errors.clear()
        return found

    async def _ask(self, kind: Type, body: bytes = b"") -> bytes:
        xid = self._next_xid()
        reply = self._expect(xid)
        self._send(of.message(kind, body, xid))
        return await self._until(reply)

    async def _ask_parts(self, body: bytes, on_part: Callable[[bytes], None]) -> None:
        """Each part of the answer has been given to `on_part` by the reader, in its place among all received."""
        xid = self._next_xid()
        self._on_part[xid] = on_part
        reply = self._expect(xid)
        self._send(of.message(Type.MULTIPART_REQUEST, body, xid))
        try:
            await self._until(reply)
        finally:
            del self._on_part[xid]
            self._waiting.pop(xid, None)

    async def _until(self, reply: asyncio.Future[bytes]) -> bytes:
        try:
            async with asyncio.timeout(_REPLY_TIMEOUT_S):
                return await reply
        except TimeoutError as error:
            raise Unavailable(f"the switch did not answer within {_REPLY_TIMEOUT_S:g} s") from error

    def _next_xid(self) -> int:
        self._xid = self._xid % 0x7FFFFFFF + 1
        return self._xid

    def _expect(self, xid: int) -> asyncio.Future[bytes]:
        if self._transport is None or self._transport.is_closing():
            raise Unavailable("the connection to the switch has ended")
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[xid] = reply
        return reply

    def _send(self, raw: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            raise Unavailable("the connection to the switch has ended")
        self._transport.write(raw)

    # asyncio.Protocol ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio.Protocol)
        lost = Unavailable("the connection to the switch has ended")
        for reply in [self._said_hello, *self._waiting.values()]:
            if not reply.done():
                reply.set_exception(lost)
                reply.exception()  # whoever waits still gets it; nobody waiting is no error
        self._waiting.clear()
        on_lost, self._on_lost = self._on_lost, lambda: None
        on_lost()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        offset = 0
        while len(self._buffer) - offset >= of.HEADER.size:
            _version, kind, length, xid = of.HEADER.unpack_from(self._buffer, offset)
            if len(self._buffer) - offset < length:
                break
            self._received(kind, xid, bytes(self._buffer[offset + of.HEADER.size : offset + length]))
            offset += length
        del self._buffer[:offset]

    def _received(self, kind: int, xid: int, body: bytes) -> None:
        if kind == Type.ECHO_REQUEST:
            self._send(of.message(Type.ECHO_REPLY, body, xid))
        elif kind == Type.HELLO:
            if not self._said_hello.done():
                self._said_hello.set_result(None)
        elif kind == Type.PORT_STATUS:
            self._port_changed(_PORT_REASONS[body[0]], of.parse_port(body, 8)[0])
        elif kind == Type.ERROR:
            self._refused(xid, *_ERROR_BODY.unpack_from(body))
        elif kind == Type.MULTIPART_REPLY and xid == 0:
            if of.is_changed_by_others(body[8:]):
                self._on_flows()
        elif kind == Type.MULTIPART_REPLY:
            self._part(xid, body)
        elif (reply := self._waiting.pop(xid, None)) and not reply.done():
            reply.set_result(body)

    def _refused(self, xid: int, kind: int, code: int) -> None:
        reply = self._waiting.pop(xid, None)
        if reply is None:
            self._errors[xid] = (kind, code)
        elif not reply.done():
            reply.set_exception(_Refused(kind, code))

    def _port_changed(self, reason: str, port: Port) -> None:
        if reason != "delete":
            self.ports[port.name] = port.number
        elif self.ports.get(port.name) == port.number:
            del self.ports[port.name]
        self._on_port(reason, port)

    def _part(self, xid: int, body: bytes) -> None:
        if (on_part := self._on_part.get(xid)) is None:
            return
        on_part(body[8:])
        if struct.unpack_from("!H", body, 2)[0] & _MORE:
            return
        if (reply := self._waiting.pop(xid, None)) and not reply.done():
            reply.set_result(b"")
