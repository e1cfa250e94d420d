"""The one place that knows nats-py: a connection that fails at once when it is away and is back at once when it can be.

One `Bus` is one connection. nats-py owns its reading, writing and reconnecting tasks; `Bus` owns the map of questions
that wait for an answer, which all fail the moment the connection is lost: nothing is buffered for a server that is
away. `close` ends all of it.

What nats-py 2.16 does that is wrapped here: it buffers what is published while it is away, a question outlives the
connection it was asked on, it retries its first connection for ever, its error callback prints tracebacks, refused
permissions arrive only there, and an exception of a subscriber is swallowed (here `broken` raises it).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import anyio
import msgspec
import structlog
from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription

from . import identity
from .config import Config
from .errors import Misconfigured, OutcomeUnknown, Unavailable
from .nats_client import NatsClient, credentials_of, next_server, text_of, tls_of

log = structlog.get_logger()

SERVER_VERSION_MIN = (2, 12)  # atomic batches
CONNECT_TIMEOUT_S = 2.0  # to one server
CONNECT_TIMEOUT_OF_SEVERAL_S = 1.0
ANSWER_TIMEOUT_S = 2.0
PING_INTERVAL_S = 5  # a server that hangs is noticed after two of them
PING_INTERVAL_OF_SEVERAL_S = 1
PENDING_MESSAGES_MAX = 1_000_000  # of one subscription; JetStream's flow control keeps followers far below

_REFUSED = re.compile(r"permissions violation for (publish|subscription) to \"?([^\"\s]+)", re.IGNORECASE)
_STATUS = "Status"


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach the server, or one of several that are tried in this order, and who to be there."""

    urls: tuple[str, ...]
    user: str  # a user of `identity`; also the client's name
    credentials: Path | None = None  # nkey seed, or a .creds file
    ca: Path | None = None  # whose certificates are believed; None: the system's

    @property
    def connect_timeout_s(self) -> float:
        """How long one server is waited for."""
        return CONNECT_TIMEOUT_S if len(self.urls) == 1 else CONNECT_TIMEOUT_OF_SEVERAL_S


def options_of(settings: Config, user: str) -> Options:
    """How an actor process reaches the bus as `user`. Raises: Misconfigured when no server was named."""
    if settings.nats is None:
        raise Misconfigured("no nats-server was named: set NETPLUGIN_NATS_URL")
    credentials = settings.creds or identity.seed_file(settings.keys_dir, user)
    return Options(urls=tuple(settings.nats.split(",")), user=user, credentials=credentials, ca=settings.ca)


class Message(NamedTuple):
    """What arrived. `reply` is empty where no answer is asked for."""

    subject: str
    reply: str
    payload: bytes
    headers: Mapping[str, str]

    @property
    def status(self) -> str:
        """The server's own word instead of a message: `404`, `503`; empty for a message."""
        return "" if self.payload else self.headers.get(_STATUS, "")


Handler = Callable[[Message], None]
Watcher = Callable[[bool], None]


class Subscription:
    """One subscription, until it is closed."""

    def __init__(self, subscription: NatsSubscription) -> None:
        self._subscription = subscription

    async def close(self) -> None:
        """Nothing more arrives. Closing twice, or after the bus, changes nothing."""
        try:
            await self._subscription.unsubscribe()
        except (nats_errors.BadSubscriptionError, nats_errors.ConnectionClosedError):
            return


async def connect(options: Options) -> Bus:
    """A connected bus.

    Raises: Unavailable, naming the URLs and what they said; Misconfigured for credentials that cannot be read.
    """
    bus = Bus(options)
    await bus.open()
    return bus


class Bus:
    """A connection to NATS. Made by `connect`."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._client = NatsClient()
        self._where = ", ".join(options.urls)
        self._waiting: dict[str, asyncio.Future[Message]] = {}
        self._inbox = ""
        self._asked = 0
        self._watchers: list[Watcher] = []
        self._is_opening = True
        self._is_closing = False
        self._away_since = 0.0
        self._start_faults: list[Exception] = []
        self._start_failed = asyncio.Event()
        self._broken: asyncio.Future[NoReturn] = asyncio.get_running_loop().create_future()
        self.reconnections = 0
        self.deaf_feeds = 0  # that broke and are not open again (`journal_follow`)
        self.reopenings = 0  # of feeds that broke (`journal_follow`)

    async def open(self) -> None:
        """The connection stands. Raises: Unavailable, Misconfigured."""
        options = self._options
        try:
            credentials = credentials_of(options.credentials)
        except (OSError, ValueError) as fault:
            raise Misconfigured(f"credentials {options.credentials} for {self._where}: {fault}") from fault
        try:
            credentials |= tls_of(options.urls, options.ca)
        except (OSError, ValueError) as fault:
            raise Misconfigured(f"certificate {options.ca} for {self._where}: {fault}") from fault
        attempt = asyncio.ensure_future(self._connect(credentials))
        failed = asyncio.ensure_future(self._start_failed.wait())
        try:
            within_s = options.connect_timeout_s * len(options.urls)
            await asyncio.wait((attempt, failed), timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
            self._check_started(attempt)
        except BaseException:
            await self._give_up(attempt)
            raise
        finally:
            failed.cancel()
        self._is_opening = False
        self._inbox = self._client.new_inbox()
        await self._client.subscribe(f"{self._inbox}.*", cb=self._on_answer)

    async def _connect(self, credentials: dict[str, Any]) -> None:
        options = self._options
        try:
            await self._client.connect(
                servers=list(options.urls),
                name=options.user,
                inbox_prefix=identity.inbox_prefix(options.user),
                pending_size=0,
                dont_randomize=True,
                max_reconnect_attempts=-1,
                connect_timeout=int(options.connect_timeout_s),
                reconnect_to_server_handler=next_server,
                ping_interval=PING_INTERVAL_S if len(options.urls) == 1 else PING_INTERVAL_OF_SEVERAL_S,
                error_cb=self._on_error,
                disconnected_cb=self._on_disconnected,
                reconnected_cb=self._on_reconnected,
                closed_cb=self._on_closed,
                **credentials,
            )
        except nats_errors.Error as fault:
            raise Unavailable(f"no NATS server at {self._where}: {fault}") from fault

    async def _give_up(self, attempt: asyncio.Future[None]) -> None:
        attempt.cancel()
        self._is_closing = True
        await asyncio.gather(attempt, return_exceptions=True)
        await self._client.close()
        self._broken.cancel()

    def _check_started(self, attempt: asyncio.Future[None]) -> None:
        if attempt.done():
            attempt.result()
            return
        said = dict.fromkeys(text_of(fault) for fault in self._start_faults)
        reasons = "; ".join(said) or f"nothing within {self._options.connect_timeout_s:g} s"
        raise Unavailable(f"no NATS server at {self._where}: {reasons}")

    async def close(self) -> None:
        """The connection is closed; what waited for an answer has failed."""
        self._is_closing = True
        if not self._broken.done():
            self._broken.cancel()
        if not self._client.is_closed:
            await self._client.close()

    async def __aenter__(self) -> Bus:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def is_connected(self) -> bool:
        """The connection stands, as far as is known."""
        return self._client.is_connected

    @property
    def where(self) -> str:
        """The server's URL, or all that were given."""
        url = self._client.connected_url
        return f"{url.scheme}://{url.hostname}:{url.port}" if url is not None else self._where

    @property
    def server_version(self) -> str:
        """`2.15.1`, as the server says."""
        version = self._client.connected_server_version
        return f"{version.major}.{version.minor}.{version.patch}"

    @property
    def payload_bytes_max(self) -> int:
        """What the server takes in one message, headers included."""
        return self._client.max_payload

    def check_server(self) -> None:
        """The server is new enough. Raises: Misconfigured, naming its version."""
        found = self._client.connected_server_version
        if (found.major, found.minor) < SERVER_VERSION_MIN:
            wanted = ".".join(map(str, SERVER_VERSION_MIN))
            raise Misconfigured(
                f"nats-server at {self.where} is {self.server_version}: expected {wanted} or newer (atomic batches)"
            )

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """`watcher` is told False when the connection is lost and True when it is back; the result ends that."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    async def connected(self) -> None:
        """Return when the connection stands. Raises: Unavailable when it has ended for good."""
        if self.is_connected:
            return
        self._check_open()
        changed = asyncio.Event()
        unwatch = self.watch(lambda _: changed.set())
        try:
            await changed.wait()
        finally:
            unwatch()
        self._check_open()

    async def broken(self) -> NoReturn:
        """Never returns. The process's task group waits on it, so that a bug ends the process.

        Raises: what a subscriber raised, or Unavailable when the server ended the connection for good.
        """
        await asyncio.shield(self._broken)
        raise AssertionError("the future of a failure has no result")

    async def publish(
        self, subject: str, payload: bytes = b"", *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """The message is on its way. Raises: Unavailable (the server is away), ValueError (larger than it takes)."""
        self._check_connected()
        try:
            await self._client.publish(subject, payload, reply, dict(headers) if headers else None)
        except (nats_errors.OutboundBufferLimitError, nats_errors.ConnectionClosedError) as fault:
            raise Unavailable(self._awaytext_of()) from fault
        except nats_errors.MaxPayloadError as fault:
            raise ValueError(
                f"{len(payload)} bytes to {subject}: the server takes {self._client.max_payload} at most"
            ) from fault

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> Message:
        """The answer, whatever its status but 503.

        Raises: Unavailable (nobody is there, or no connection: nothing happened), OutcomeUnknown (asked, but no answer
        came in time or the connection was lost), ValueError (too large).
        """
        self._asked += 1
        token = str(self._asked)
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[token] = answer
        try:
            await self.publish(subject, payload, reply=f"{self._inbox}.{token}", headers=headers)
            async with asyncio.timeout(timeout_s):
                message = await answer
        except TimeoutError:
            raise OutcomeUnknown(f"no answer from {subject} within {timeout_s:g} s") from None
        finally:
            self._waiting.pop(token, None)
        if message.status == "503":
            raise Unavailable(f"nobody answers {subject} at {self.where}")
        return message

    async def request_many(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        quiet_s: float = 0.2,
        timeout_s: float = ANSWER_TIMEOUT_S,
        enough: Callable[[list[Message]], bool] | None = None,
    ) -> list[Message]:
        """All answers until none came for `quiet_s`, `enough` says so, or the time is up. Raises: Unavailable."""
        answers: list[Message] = []
        arrived = asyncio.Event()

        def keep(message: Message) -> None:
            answers.append(message)
            arrived.set()

        inbox = self.new_inbox()
        subscription = await self.subscribe(inbox, keep)
        try:
            await self.publish(subject, payload, reply=inbox)
            with anyio.move_on_after(timeout_s):
                while not (enough and enough(answers)):
                    arrived.clear()
                    with anyio.move_on_after(quiet_s if answers else timeout_s):
                        await arrived.wait()
                    if not arrived.is_set():
                        break
        finally:
            await subscription.close()
        if [answer.status for answer in answers] == ["503"]:
            raise Unavailable(f"nobody answers {subject} at {self.where}")
        return answers

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> Subscription:
        """`handler` is called with each message, in order; it does not wait (it starts a task where it must)."""
        self._check_open()

        async def deliver(msg: Msg) -> None:
            handler(Message(msg.subject, msg.reply, msg.data, msg.headers or {}))

        subscription = await self._client.subscribe(
            subject, queue=queue, cb=deliver, pending_msgs_limit=PENDING_MESSAGES_MAX, pending_bytes_limit=0
        )
        return Subscription(subscription)

    async def flush(self, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        """All that was published has reached the server. Raises: Unavailable."""
        self._check_connected()
        try:
            async with asyncio.timeout(timeout_s):
                await self._client.flush_in_order()
        except (TimeoutError, nats_errors.Error) as fault:
            raise Unavailable(f"{self._where} does not answer: {text_of(fault)}") from fault

    def new_inbox(self) -> str:
        """A subject of its own under this user's inbox prefix."""
        return self._client.new_inbox()

    # -- what nats-py calls

    async def _on_answer(self, msg: Msg) -> None:
        answer = self._waiting.get(msg.subject.rpartition(".")[2])
        if answer is not None and not answer.done():
            answer.set_result(Message(msg.subject, msg.reply, msg.data, msg.headers or {}))

    async def _on_disconnected(self) -> None:
        if self._is_opening:
            return
        self._away_since = time.monotonic()
        if not self._is_closing:
            log.warning("bus-disconnected", url=self._where)
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(OutcomeUnknown(f"the connection to {self._where} was lost before the answer came"))
        self._tell(is_connected=False)

    async def _on_reconnected(self) -> None:
        self.reconnections += 1
        log.info("bus-reconnected", url=self.where, away_s=round(time.monotonic() - self._away_since, 3))
        self._tell(is_connected=True)

    async def _on_closed(self) -> None:
        if self._is_closing or self._is_opening:
            return
        fault = Unavailable(f"{self._where} ended the connection: {self._client.last_error}")
        log.error("bus-closed", url=self._where, detail=fault.detail)
        self._break(fault)
        self._tell(is_connected=False)

    async def _on_error(self, fault: Exception) -> None:
        if self._is_opening:
            self._start_faults.append(fault)
            if len(self._start_faults) >= len(self._options.urls):
                self._start_failed.set()
        elif refused := _REFUSED.search(str(fault)):
            log.error("bus-permission-refused", action=refused[1].lower(), subject=refused[2], user=self._options.user)
        elif isinstance(fault, nats_errors.Error):
            log.warning("bus-error", detail=text_of(fault))
        elif isinstance(fault, OSError | TimeoutError):
            log.debug("bus-away", url=self._where, detail=text_of(fault))
        else:
            log.error("subscriber-failed", exc_info=fault)
            self._break(fault)

    def _break(self, fault: Exception) -> None:
        if not self._broken.done():
            self._broken.set_exception(fault)
            self._broken.exception()  # who does not wait for it has read it in the log

    def _tell(self, *, is_connected: bool) -> None:
        for watcher in tuple(self._watchers):
            watcher(is_connected)

    def _check_open(self) -> None:
        if self._client.is_closed:
            raise Unavailable(f"the connection to {self._where} is closed")

    def _check_connected(self) -> None:
        if not self._client.is_connected:
            raise Unavailable(self._awaytext_of())

    def _awaytext_of(self) -> str:
        return f"the NATS server at {self._where} is away"
