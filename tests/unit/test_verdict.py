"""How a bound endpoint stands, from its container, its port and the switch's last word."""

from __future__ import annotations

import pytest

from host_actor.attachments import Attachment
from host_actor.desired import Binding, Reported
from host_actor.drivers.contract import ALL_PARTS, DropPort, Failed, ObservedPort, Part, Sandbox
from host_actor.runtimes.contract import Found, NotFound, Resolution, Waiting
from host_actor.verdict import verdict
from messages.catalog import event_name
from tests.harness.host_world import bound, endpoint_id

EPOCH = 7
FOUND = Found(Sandbox("netns:1", "/run/netns/c1"), "c1")
ABSENT = Waiting("container-absent", "there is no container 'c1' yet")
NOWHERE = NotFound("container-not-found", "there is no such process")
WHOLE = ObservedPort(endpoint_id(1), EPOCH, "np1", ALL_PARTS, "netns:1", "eth0")
OLDER = ObservedPort(endpoint_id(1), EPOCH - 1, "np1", ALL_PARTS, "netns:1", "eth0")
HALF = ObservedPort(endpoint_id(1), EPOCH, "np1", frozenset({Part.LINK}), "netns:1", "eth0")
REFUSED = Failed(DropPort("", ""), "switch-refused", "no room")
WAS_BOUND = Reported(EPOCH, "port-bound", ("np1", "eth0"))
WAS_WAITING = Reported(EPOCH, "port-waiting", ("container-not-running", "it ended"))
WAS_BOUND_BEFORE = Reported(EPOCH - 1, "port-bound", ("np1", "eth0"))


@pytest.mark.parametrize(
    ("answer", "port", "failure", "reported", "said"),
    [
        (None, None, None, None, None),
        (None, WHOLE, None, WAS_BOUND, None),
        (FOUND, None, None, None, None),
        (FOUND, WHOLE, None, None, ("port-bound", "")),
        (FOUND, HALF, None, None, None),
        (FOUND, OLDER, None, None, None),
        (FOUND, HALF, REFUSED, None, ("port-failed", "switch-refused")),
        (ABSENT, None, None, None, ("port-waiting", "container-absent")),
        (ABSENT, WHOLE, None, WAS_BOUND, None),
        (NOWHERE, None, None, None, ("port-failed", "container-not-found")),
        (NOWHERE, None, None, WAS_BOUND_BEFORE, ("port-failed", "container-not-found")),
        (NOWHERE, None, None, WAS_BOUND, ("port-waiting", "container-not-running")),
        (NOWHERE, None, None, WAS_WAITING, ("port-waiting", "container-not-running")),
    ],
)
def test_verdict(
    answer: Resolution | None,
    port: ObservedPort | None,
    failure: Failed | None,
    reported: Reported | None,
    said: tuple[str, str] | None,
) -> None:
    attachment = Attachment(Binding(bound(1), EPOCH))
    attachment.answer = answer
    report = verdict(attachment, port, failure, reported)
    if said is None:
        assert report is None
        return
    assert report is not None
    assert (event_name(report), getattr(report, "code", "")) == said
    assert (report.endpoint, report.epoch, report.host) == (endpoint_id(1), EPOCH, "h1")
