"""How a bound endpoint stands, as a report: a pure function of its container, its port and the switch's last word."""

from __future__ import annotations

from typing import Any

from messages.port import PortBound, PortFailed, PortWaiting

from .attachments import NOT_RUNNING, Attachment
from .desired import PortReport, Reported
from .drivers.contract import ALL_PARTS, Failed, ObservedPort
from .runtimes.contract import Found, NotFound, Waiting


def verdict(
    attachment: Attachment, port: ObservedPort | None, failure: Failed | None, reported: Reported | None
) -> PortReport | None:
    """The report that the journal should have last; None while it is on its way from one to another.

    `port` is what the switch has, `failure` what it said no to last, `reported` what the journal has.
    """
    match attachment.answer:
        case Found():
            if port is not None and port.parts == ALL_PARTS and port.epoch == attachment.binding.epoch:
                return _bound(attachment, port)
            return _failed(attachment, failure.code, failure.detail) if failure is not None else None
        case _ if port is not None:
            return None  # it goes first
        case Waiting(code, detail):
            return _waiting(attachment, code, detail)
        case NotFound(code, detail):
            if was_there(attachment, reported):
                return _waiting(attachment, NOT_RUNNING, detail)
            return _failed(attachment, code, detail)
    return None


def was_there(attachment: Attachment, reported: Reported | None) -> bool:
    """Whether this binding had a port: what is not found then has ended, rather than never been."""
    if reported is None or reported.epoch != attachment.binding.epoch:
        return False
    return reported.kind == "port-bound" or (reported.kind == "port-waiting" and reported.facts[0] == NOT_RUNNING)


def _bound(attachment: Attachment, port: ObservedPort) -> PortBound:
    return PortBound(**_about(attachment), device=port.device, interface=port.interface)


def _waiting(attachment: Attachment, code: str, reason: str) -> PortWaiting:
    return PortWaiting(**_about(attachment), code=code, reason=reason)


def _failed(attachment: Attachment, code: str, reason: str) -> PortFailed:
    return PortFailed(**_about(attachment), code=code, reason=reason)


def _about(attachment: Attachment) -> dict[str, Any]:
    """The fields of `PortStatement`: which endpoint, on which host, by which binding."""
    bound = attachment.binding.bound
    return {
        "tenant": bound.tenant,
        "network": bound.network,
        "endpoint": bound.endpoint,
        "name": bound.name,
        "host": bound.host,
        "epoch": attachment.binding.epoch,
    }
