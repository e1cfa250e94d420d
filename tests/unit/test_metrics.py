from __future__ import annotations

import time
from collections import Counter

from host_actor.drivers.contract import ALL_PARTS, Done, DropPort, Failed, Figures
from host_actor.measures import Measures, of_switch
from messages.replies import Accepted, Items, Refused, Unavailable
from services.runtime import metrics
from services.runtime.actor_metrics import ActorMeasures
from services.runtime.metrics import BOUNDS_S, Family, Histogram, Sample
from tests.harness.exposition import parse


def test_a_histogram_counts_each_time_in_its_bound_and_all_above() -> None:
    measured = Histogram()
    for took_s in (0.0, 0.0001, 0.003, 99.0):
        measured.observe(took_s)
    shown = parse(metrics.exposition([metrics.histogram("np_x_seconds", "x", measured)]))
    buckets = [shown["np_x_seconds_bucket", f'le="{bound}"'] for bound in ("0.0001", "0.0025", "0.005", "10", "+Inf")]
    assert buckets == [2, 2, 3, 3, 4]
    assert shown["np_x_seconds_count", ""] == 4
    assert shown["np_x_seconds_sum", ""] == 99.0031
    assert len([key for key in shown if key[0] == "np_x_seconds_bucket"]) == len(BOUNDS_S) + 1


def test_what_a_label_holds_is_escaped() -> None:
    family = metrics.by_label("np_x", "gauge", 'a "b"\nc\\', "path", {'C:\\x "y"\n': 1})
    text = metrics.exposition([family])
    assert '# HELP np_x a "b"\\nc\\\\\n' in text
    assert 'np_x{path="C:\\\\x \\"y\\"\\n"} 1\n' in text
    assert parse(text)["np_x", 'path="C:\\\\x \\"y\\"\\n"'] == 1


def test_the_same_family_of_two_processes_stands_together_once() -> None:
    one = [metrics.gauge("np_a", "A.", 1), metrics.gauge("np_b", "B.", 2.5)]
    other = [metrics.gauge("np_b", "B.", 3), metrics.gauge("np_a", "A.", 4)]
    shown = parse(metrics.exposition(metrics.merged({"ipam": one, "host": other}, "actor")))
    assert shown == {
        ("np_a", 'actor="ipam"'): 1,
        ("np_a", 'actor="host"'): 4,
        ("np_b", 'actor="ipam"'): 2.5,
        ("np_b", 'actor="host"'): 3,
    }


def test_this_process_has_memory_and_has_taken_time() -> None:
    shown = parse(metrics.exposition(metrics.of_this_process()))
    assert shown["process_resident_memory_bytes", ""] > 1 << 20
    assert shown["process_cpu_seconds_total", ""] > 0
    assert shown["process_open_fds", ""] >= 3


def test_an_actor_counts_answers_by_what_they_were() -> None:
    measures, now = ActorMeasures(), time.perf_counter_ns()
    measures.answered("network.create", Accepted(seq=1, object=None, is_changed=True), now)
    measures.answered("network.create", Accepted(seq=1, object=None, is_changed=False), now)
    measures.answered("network.create", Accepted(seq=1, object=None, is_changed=False, is_repeated=True), now)
    measures.answered("network.create", Refused(code="network-exists", detail="x"), now)
    measures.answered("network.create", Unavailable(code="conflict", detail="x", retry_after_s=1.0), now)
    measures.answered("network.list", Items(seq=1, objects=()), now)
    shown = parse(metrics.exposition(measures.families()))
    outcomes = Counter({key[1]: value for key, value in shown.items() if key[0] == "np_commands_total"})
    assert outcomes == {
        'command="network.create",outcome="accepted"': 1,
        'command="network.create",outcome="unchanged"': 1,
        'command="network.create",outcome="repeated"': 1,
        'command="network.create",outcome="refused"': 1,
        'command="network.create",outcome="unavailable"': 1,
        'command="network.list",outcome="answered"': 1,
    }
    assert shown["np_refusals_total", 'code="network-exists"'] == 1
    assert shown["np_command_seconds_count", 'command="network.create"'] == 5


def test_a_host_counts_operations_by_what_the_switch_said() -> None:
    measures, op = Measures(), DropPort("e1", "npe1")
    measures.executed([Done(op), Done(op), Failed(op, "switch-refused", "x")], 0.002)
    measures.repairs.update(part.value for part in ALL_PARTS)
    shown = parse(metrics.exposition(measures.families()))
    assert shown["np_operations_total", 'operation="drop-port",outcome="done"'] == 2
    assert shown["np_operations_total", 'operation="drop-port",outcome="switch-refused"'] == 1
    assert shown["np_repairs_total", 'part="rules"'] == 1
    assert shown["np_execute_seconds_count", ""] == 1


def test_a_switch_that_is_away_tells_only_that() -> None:
    assert parse(metrics.exposition(of_switch(None))) == {("np_switch_up", ""): 0}
    shown = parse(metrics.exposition(of_switch(Figures({"FORWARD": 3}, {"SOURCE": 2}, 1, 7))))
    assert shown["np_flows", 'table="forward"'] == 3
    assert shown["np_dropped_packets_total", 'table="source"'] == 2
    assert shown["np_switch_up", ""] == 1


def test_a_family_without_samples_is_still_text_that_can_be_read() -> None:
    assert parse(metrics.exposition([Family("np_none_total", "counter", "None yet.", [])])) == {}
    text = metrics.exposition([Family("np_x", "gauge", "X.", [Sample(float("inf")), Sample(1.5, {"a": "b"})])])
    assert text.splitlines()[2:] == ["np_x +Inf", 'np_x{a="b"} 1.5']
