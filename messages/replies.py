"""What actors answer. Every refusal has a kebab-case code that programs can rely on and a detail for people."""

from __future__ import annotations

import msgspec

from .catalog import AnyEvent
from .endpoint import EndpointView
from .host import ContainerView, HostView, PortView
from .intent import IntentView
from .ipam import AddressesView
from .network import NetworkView
from .pool import PoolView
from .struct import Reply
from .tenant import TenantView

AnyView = (
    TenantView
    | NetworkView
    | PoolView
    | AddressesView
    | EndpointView
    | HostView
    | PortView
    | ContainerView
    | IntentView
)


class Accepted(Reply, frozen=True, kw_only=True):
    """The command became true at journal sequence `seq`; `object` as it is now, none if it is gone.

    `notes` says what else changed with it, a sentence each (`network web adopted subnet 11.1.1.0/24`).
    `is_changed` is false when it was true already; `is_repeated` when this command id had been answered before.
    """

    seq: int
    object: AnyView | None = None
    is_changed: bool = True
    is_repeated: bool = False
    notes: tuple[str, ...] = ()


class PlannedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event that would be recorded, and the subject it would be recorded on."""

    subject: str
    event: AnyEvent


class Planned(Reply, frozen=True, kw_only=True):
    """What a command sent with `Np-Dry-Run: 1` would become, decided on the state of journal sequence `seq`.

    Nothing was recorded, and its id is not remembered.

    `object` is as it would be; no events mean that it is true already. Ids in the events are made anew each time.
    """

    seq: int
    object: AnyView | None = None
    events: tuple[PlannedEvent, ...] = ()
    notes: tuple[str, ...] = ()


class Item(Reply, frozen=True, kw_only=True):
    """The one object that was asked for, as of journal sequence `seq`."""

    seq: int
    object: AnyView


class Items(Reply, frozen=True, kw_only=True):
    """All objects that were asked for, in the order of their names, as of journal sequence `seq`."""

    seq: int
    objects: tuple[AnyView, ...]


class Refused(Reply, frozen=True, kw_only=True):
    """The domain says no; nothing changed. Sending the same again is no use until something else has changed."""

    code: str
    detail: str


class Unavailable(Reply, frozen=True, kw_only=True):
    """Not now: what is needed to decide is away. Nothing changed, or (`is_outcome_unknown`) nobody can say yet."""

    code: str
    detail: str
    retry_after_s: float
    is_outcome_unknown: bool = False


AnyReply = Accepted | Planned | Item | Items | Refused | Unavailable
