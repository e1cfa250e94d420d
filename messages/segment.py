"""Segments: the fabric's one table of which VLAN tags and VNIs are in use, so that none is used twice."""

from __future__ import annotations

from .network import Encap
from .struct import Event


class SegmentTaken(Event, frozen=True, kw_only=True):
    """The tag or VNI belongs to this network."""

    encap: Encap
    tag: int
    tenant: str
    network: str


class SegmentReleased(Event, frozen=True, kw_only=True):
    """The tag or VNI belongs to nobody."""

    encap: Encap
    tag: int
