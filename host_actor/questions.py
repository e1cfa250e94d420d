"""What a host answers about itself: its ports as they are, and whether a container can be attached. Changes nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

import anyio
import structlog
from anyio.abc import TaskGroup

from messages import subjects
from messages.codec import JSON, MSGPACK, Malformed, decode_question, encode
from messages.host import AdoptJournal, ContainerView, FindContainer, InspectHost, PortView, RepairHost
from messages.replies import Accepted, AnyReply, Item, Items, Refused, Unavailable
from services.runtime import errors
from services.runtime.bus import Bus, Message
from services.runtime.discovery import EndpointStats

from .attachments import Attachment, Attachments
from .desired import Desired
from .drivers.contract import ALL_PARTS, ObservedPort
from .follower import Follower, Standing
from .interiors import Interior, Place, look_inside
from .reconciler import Reconciler
from .runtimes.contract import Found, NotFound, Resolution, Waiting

log = structlog.get_logger()

LOOK_WITHIN_S = 2.0

VERBS = {"inspect": "inspect-host", "repair": "repair-host", "adopt": "adopt-journal", "container": "find-container"}


class Questions:
    """Answers for one host."""

    def __init__(
        self,
        desired: Desired,
        attachments: Attachments,
        reconciler: Reconciler,
        resolve: Callable[[str], Awaitable[Resolution]],
        follower: Follower,
    ) -> None:
        self._desired = desired
        self._attachments = attachments
        self._reconciler = reconciler
        self._resolve = resolve
        self._follower = follower
        self.stats: Mapping[str, EndpointStats] = {
            verb: EndpointStats(verb, subjects.host_question(desired.host, verb), "") for verb in VERBS
        }

    async def start(self, bus: Bus, tasks: TaskGroup) -> None:
        """Questions are answered from now on, each in a task of `tasks`. Raises: Unavailable."""
        for verb, stats in self.stats.items():
            await bus.subscribe(stats.subject, self._receiver(verb, bus, tasks))

    def _receiver(self, verb: str, bus: Bus, tasks: TaskGroup) -> Callable[[Message], None]:
        def receive(message: Message) -> None:
            tasks.start_soon(self._respond, verb, bus, message)

        return receive

    async def _respond(self, verb: str, bus: Bus, message: Message) -> None:
        started_ns = time.perf_counter_ns()
        content_type = message.headers.get("Content-Type", MSGPACK)
        reply = await self.answer(verb, message.payload, content_type)
        self.stats[verb].count(started_ns, reply.code if isinstance(reply, Refused | Unavailable) else "")
        if not message.reply:
            return
        form = JSON if content_type == JSON else MSGPACK
        try:
            await bus.publish(message.reply, encode(reply, form), headers={"Content-Type": form})
        except errors.Unavailable as fault:
            log.info("answer-lost", verb=verb, detail=fault.detail)

    async def answer(self, verb: str, payload: bytes, content_type: str = MSGPACK) -> AnyReply:
        """The reply to a question.

        Refuses: what `decode_question` raises, `journal-not-in-question`. Unavailable: ``switch-away``.
        """
        try:
            question = decode_question(payload, VERBS[verb], content_type)
        except Malformed as fault:
            return Refused(code=fault.code, detail=fault.detail)
        if isinstance(question, RepairHost):
            self._reconciler.doubt(question.endpoints)
            return await self._inspect(with_addresses=True)
        if isinstance(question, AdoptJournal):
            return self._adopt()
        if isinstance(question, InspectHost):
            return await self._inspect(with_addresses=question.with_addresses)
        assert isinstance(question, FindContainer)
        return Item(seq=self._desired.seq, object=await self._find(question.container))

    def _adopt(self) -> AnyReply:
        """The journal is taken as it is, where that is in question."""
        reason = self._follower.reason
        if self._follower.standing is not Standing.MISMATCH:
            detail = f"host {self._desired.host} follows the journal that it knows: there is nothing to adopt"
            return Refused(code="journal-not-in-question", detail=detail)
        log.warning("journal-adoption-asked", reason=reason)
        self._follower.adopt()
        return Accepted(seq=self._desired.seq, notes=(reason,))

    async def _find(self, container: str) -> ContainerView:
        host = self._desired.host
        match await self._resolve(container):
            case Found():
                return ContainerView(container=container, host=host, state="running")
            case Waiting(code, detail):
                return ContainerView(container=container, host=host, state="waiting", code=code, reason=detail)
            case NotFound(code, detail):
                return ContainerView(container=container, host=host, state="absent", code=code, reason=detail)

    def states(self) -> Counter[str]:
        """How many ports are in which state, as they are believed to be."""
        ports = self._reconciler.port
        return Counter(self._state(each, ports(each.binding.bound.endpoint))[0] for each in self._attachments)

    async def _inspect(self, *, with_addresses: bool) -> AnyReply:
        """Every port as a new observation shows it, those that are not there yet too."""
        with anyio.move_on_after(LOOK_WITHIN_S) as scope:
            await self._reconciler.passed()
        if scope.cancelled_caught:
            detail = f"host {self._desired.host}: {self._reconciler.trouble or 'the switch is busy'}"
            return Unavailable(code="switch-away", detail=detail, retry_after_s=1.0)
        ports = {port.endpoint: port for port in self._reconciler.ports}
        inside = await self._look_inside(ports) if with_addresses else {}
        views = [
            self._view(each, ports.pop(each.binding.bound.endpoint, None), inside.get(each.binding.bound.endpoint))
            for each in self._attachments
        ]
        views += [_stranger(port) for port in ports.values()]
        views.sort(key=lambda view: (view.tenant, view.network, view.name, view.endpoint))
        return Items(seq=self._desired.seq, objects=tuple(views))

    async def _look_inside(self, ports: Mapping[str, ObservedPort]) -> dict[str, Interior]:
        places: dict[str, Place] = {}
        for attachment in self._attachments:
            port = ports.get(attachment.binding.bound.endpoint)
            if port is not None and port.interface and attachment.sandbox is not None:
                places[port.endpoint] = Place(attachment.sandbox.netns_path, port.interface)
        return await anyio.to_thread.run_sync(look_inside, places) if places else {}

    def _view(self, attachment: Attachment, port: ObservedPort | None, inside: Interior | None) -> PortView:
        bound = attachment.binding.bound
        state, reason = self._state(attachment, port)
        return PortView(
            tenant=bound.tenant,
            network=bound.network,
            name=bound.name,
            endpoint=bound.endpoint,
            epoch=attachment.binding.epoch,
            device=port.device if port else "",
            interface=port.interface if port else "",
            container=bound.container,
            parts=tuple(sorted(port.parts)) if port else (),
            state=state,
            reason=reason,
            addresses=inside.addresses if inside is not None else None,
            mac=inside.mac if inside is not None else "",
        )

    def _state(self, attachment: Attachment, port: ObservedPort | None) -> tuple[str, str]:
        failure = self._reconciler.failure(attachment.binding.bound.endpoint)
        match attachment.answer:
            case _ if port is not None and port.parts == ALL_PARTS and port.epoch == attachment.binding.epoch:
                return "bound", ""
            case Waiting(code, detail):
                return "waiting", f"{code}: {detail}"
            case NotFound(code, detail):
                return "failed", f"{code}: {detail}"
        if failure is not None:
            return "failed", f"{failure.code}: {failure.detail}"
        return "pending", ""


def _stranger(port: ObservedPort) -> PortView:
    """A port that nothing known here asks for; it stands only while the journal is not sure."""
    return PortView(
        tenant="",
        network="",
        name="",
        endpoint=port.endpoint,
        epoch=port.epoch,
        device=port.device,
        interface=port.interface,
        container="",
        parts=tuple(sorted(port.parts)),
        state="unknown",
        reason="no binding of it is known here",
    )
