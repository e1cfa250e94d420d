"""`netctl ipam check` on a cluster: what differs on any host is named and mended from another, who is away is said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from messages import subjects
from services.runtime.bus import Options, connect
from services.runtime.journal_jetstream import JetStreamJournal
from tests.harness import lab as labs
from tests.harness.address_race import ADDRESSES, CONNECTIONS, SUBNET, Race, check_full, delete, shown, too_many
from tests.harness.ipam import Asker
from tests.harness.lab import Host, Lab, until
from tests.requires import needs_ovs

pytestmark = [needs_ovs, pytest.mark.long]

REFUSED, UNREACHABLE = 1, 3
KILL_EVERY = 200


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.running_lab("--hosts", "3") as running:
        first = running["h1"]
        first.type("netctl network create web --encap vxlan --subnet 10.6.0.0/24")
        first.type("netctl ipam pool create front --network web --range 10.6.0.100-10.6.0.110")
        first.type("netctl network set web --exclude 10.6.0.200")
        for host in running.hosts:
            host.make_container(f"c{host.name}")
            create = f"netctl endpoint create e{host.name} --network web --container netns:c{host.name}"
            host.type(f"{create} --address 10.6.0.{host.plan.number}")
        yield running


def check(host: Host, flags: str = "", status: int = 0) -> Any:
    return json.loads(host.type(f"netctl ipam check {flags} -o json", status))


def about(found: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(each["kind"], each["host"], each["name"]) for each in found]


def test_three_hosts_agree(lab: Lab) -> None:
    for host in lab.hosts:
        found = check(host)
        assert (found["is_clean"], found["hosts"], found["away"], found["endpoints"]) == (True, 3, 0, 3)
    shown = lab["h3"].show("ipam show web")[0]["subnets"][0]
    assert (shown["used"]["ranges"], shown["used"]["count"]) == (["10.6.0.1-10.6.0.3"], 3)


def test_what_differs_on_two_hosts_is_mended_from_a_third(lab: Lab) -> None:
    first = lab["h1"]
    lab["h2"].type("ip -n ch2 address delete 10.6.0.2/24 dev eth0")
    lab["h3"].type("ip -n ch3 link set eth0 address 02:00:00:00:00:99")
    expected = [("endpoint-without-address", "h2", "eh2"), ("other-mac", "h3", "eh3")]
    assert about(check(first, status=REFUSED)["differences"]) == expected
    mended = check(first, "--repair")
    assert (about(mended["mended"]), mended["differences"]) == (expected, [])
    assert check(lab["h2"])["is_clean"] is True
    for other in (2, 3):
        first.type(f"ip netns exec ch1 busybox ping -c 1 -W 10 10.6.0.{other}")


def test_a_host_that_is_stopped_is_said_and_the_others_are_compared(lab: Lab) -> None:
    lab.command("stop", "h3")
    lab["h2"].type("ip -n ch2 address delete 10.6.0.2/24 dev eth0")
    found = check(lab["h1"], status=REFUSED)
    assert about(found["differences"]) == [("endpoint-without-address", "h2", "eh2"), ("host-away", "h3", "")]
    assert about(check(lab["h1"], "--repair", UNREACHABLE)["differences"]) == [("host-away", "h3", "")]
    lab.command("start", "h3")
    until(lambda: lab["h1"].ended("netctl ipam check").returncode == 0, "all three hosts agree again")


def test_a_network_is_filled_to_the_last_address_while_both_ipam_actors_are_killed(lab: Lab) -> None:
    """On three servers, the actors started again by their daemons; and it empties to what it was."""
    first = lab["h1"]
    for endpoint in first.show("endpoint list"):
        first.type(f"netctl endpoint delete {endpoint['name']}")
    first.type("netctl network delete web")
    first.type(f"netctl network create web --subnet {SUBNET}")
    before = first.show("ipam show web")
    since = first.events()[-1]["seq"]
    first.namespace.call(lambda: asyncio.run(_fill_and_empty(lab, since)))
    assert lab["h2"].show("ipam show web") == before
    until(lambda: first.ended("netctl ipam check").returncode == 0, "all hosts agree")


async def _fill_and_empty(lab: Lab, since: int) -> None:
    async def kill(kills: int) -> None:
        host = lab.hosts[kills % 2]  # the two that have an ipam actor
        await asyncio.to_thread(lambda: host.until_back("ipam", host.kill("ipam")))

    async with AsyncExitStack() as stack:
        login = _operator_of(lab["h1"])
        clients = [Asker(await stack.enter_async_context(await connect(login))) for _ in range(CONNECTIONS)]
        race = Race(clients, too_many("e"))
        await race.run(kill, KILL_EVERY)
        journal = JetStreamJournal(clients[0].bus)
        check_full(race.replies, await journal.read([subjects.ALL_EVENTS], since, await journal.last_seq()))
        full = await shown(clients[0])
        assert (full.used.count, full.free.count) == (len(ADDRESSES), 0)
        emptying = Race(clients, {f"delete-{name}": delete(name) for name in race.accepted()})
        await emptying.run(kill, KILL_EVERY)
        assert len(emptying.accepted()) == len(ADDRESSES)


def _operator_of(host: Host) -> Options:
    """How the operator reaches the cluster from this host."""
    known = json.loads((host.plan.run_dir / "client.json").read_text())
    return Options(
        urls=tuple(known["urls"]), user="operator", credentials=Path(known["nkey_seed_file"]), ca=Path(known["ca_file"])
    )
