"""Which sandbox each bound endpoint belongs to, now: asks the container runtimes and listens to what they tell.

An attachment has one of these answers at any time:

    asking      nobody has answered yet, or the engine is away: what stands is left as it is
    Found       the port belongs into this sandbox
    Waiting     no port now; a start event makes it ask again
    NotFound    no port now; asked again on each full pass

One task per question in flight, in the actor's task group; at most `ASKED_AT_ONCE` of them ask an engine. Shutdown
cancels them and nothing is lost: a restarted actor asks again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import anyio
from anyio.abc import TaskGroup

from messages.endpoint import EndpointBound

from .desired import Binding
from .drivers.contract import PortSpec, Sandbox
from .runtimes.contract import Died, Found, NotFound, Resolution, Resync, RuntimeEvent, Started, Waiting
from .runtimes.reference import Reference

ASKED_AT_ONCE = 16
ENGINE_AWAY = "engine-away"
NOT_RUNNING = "container-not-running"


class Attachment:
    """One bound endpoint and what is known of its container."""

    def __init__(self, binding: Binding) -> None:
        self.binding = binding
        self.answer: Resolution | None = None
        self.is_asking = False
        self.must_ask_again = False

    @property
    def sandbox(self) -> Sandbox | None:
        """Where the port belongs, if that is known."""
        return self.answer.sandbox if isinstance(self.answer, Found) else None

    @property
    def is_open(self) -> bool:
        """Nobody can say yet whether the container lives."""
        return self.answer is None or (isinstance(self.answer, Waiting) and self.answer.code == ENGINE_AWAY)

    def spec(self) -> PortSpec | None:
        """The port as it must be, if there is a sandbox for it."""
        if self.sandbox is None:
            return None
        return port_of(self.binding.bound, self.binding.epoch, self.sandbox)


def port_of(bound: EndpointBound, epoch: int, sandbox: Sandbox) -> PortSpec:
    """The port that a binding asks for, in the sandbox that its container has now."""
    return PortSpec(
        endpoint=bound.endpoint,
        epoch=epoch,
        tenant=bound.tenant,
        network=bound.network,
        name=bound.name,
        mac=bound.mac,
        addresses=bound.addresses,
        gateways=bound.gateways,
        encap=bound.encap,
        tag=bound.tag,
        mtu_bytes=bound.mtu_bytes,
        sandbox=sandbox,
    )


class Attachments:
    """All bound endpoints of a host. `on_answer(endpoint)` is called when the answer about one of them is another."""

    def __init__(self, resolve: Callable[[str], Awaitable[Resolution]], on_answer: Callable[[str], None]) -> None:
        self._resolve = resolve
        self._on_answer = on_answer
        self._attachments: dict[str, Attachment] = {}
        self._at_once = anyio.CapacityLimiter(ASKED_AT_ONCE)
        self._tasks: TaskGroup | None = None

    def start(self, tasks: TaskGroup) -> None:
        """Questions are asked in `tasks` from now on; those that came before are asked now."""
        self._tasks = tasks
        for attachment in self:
            self._ask(attachment)

    def __iter__(self) -> Iterator[Attachment]:
        return iter(tuple(self._attachments.values()))

    def get(self, endpoint: str) -> Attachment | None:
        """The attachment of a bound endpoint."""
        return self._attachments.get(endpoint)

    def bind(self, binding: Binding) -> None:
        """The endpoint belongs to this binding from now on. The same again changes nothing."""
        before = self._attachments.get(binding.bound.endpoint)
        if before is not None and before.binding.epoch == binding.epoch:
            return
        attachment = self._attachments[binding.bound.endpoint] = Attachment(binding)
        self._ask(attachment)

    def unbind(self, endpoint: str) -> None:
        """The endpoint is bound no more."""
        self._attachments.pop(endpoint, None)

    def ask(self, endpoint: str) -> None:
        """Its container is asked for again."""
        attachment = self._attachments.get(endpoint)
        if attachment is not None:
            self._ask(attachment)

    def ask_unfound(self) -> None:
        """What no runtime knew is asked for again: no event is promised for those."""
        for attachment in self:
            if isinstance(attachment.answer, NotFound):
                self._ask(attachment)

    def handle(self, event: RuntimeEvent) -> None:
        """Take in what a runtime tells."""
        match event:
            case Died():
                for attachment in self:
                    if attachment.sandbox is not None and attachment.sandbox.key == event.sandbox_key:
                        self._settle(attachment, Waiting(NOT_RUNNING, event.reason))
            case Started():
                for attachment in self:
                    if event.answers_to(attachment.binding.bound.container):
                        self._ask(attachment)
            case Resync():
                for attachment in self:
                    if Reference.of(attachment.binding.bound.container).runtime == event.runtime:
                        self._ask(attachment)

    def lost(self, endpoint: str, sandbox_key: str, reason: str) -> None:
        """The switch found that sandbox gone before its runtime told."""
        attachment = self._attachments.get(endpoint)
        if attachment is not None and attachment.sandbox is not None and attachment.sandbox.key == sandbox_key:
            attachment.answer = Waiting(NOT_RUNNING, reason)

    def _ask(self, attachment: Attachment) -> None:
        attachment.must_ask_again = True
        if self._tasks is not None and not attachment.is_asking:
            attachment.is_asking = True
            self._tasks.start_soon(self._asking, attachment)

    async def _asking(self, attachment: Attachment) -> None:
        """Ask until no further question came meanwhile."""
        while attachment.must_ask_again:
            attachment.must_ask_again = False
            async with self._at_once:
                answer = await self._resolve(attachment.binding.bound.container)
            self._settle(attachment, answer)
        attachment.is_asking = False

    def _settle(self, attachment: Attachment, answer: Resolution) -> None:
        if isinstance(answer, Waiting) and answer.code == ENGINE_AWAY and attachment.sandbox is not None:
            return  # an engine that is away says nothing about its containers: their end is told by the kernel
        if answer == attachment.answer:
            return
        attachment.answer = answer
        endpoint = attachment.binding.bound.endpoint
        if self._attachments.get(endpoint) is attachment:
            self._on_answer(endpoint)
