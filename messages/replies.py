"""What actors answer. Every refusal has a kebab-case code that programs can rely on and a detail for people."""

from __future__ import annotations

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


AnyReply = Accepted | Item | Items | Refused | Unavailable
