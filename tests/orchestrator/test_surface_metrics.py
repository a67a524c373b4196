"""Metrics: the promised names and labels, values that follow from the log, and counters that survive a restart."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from prometheus_client.registry import CollectorRegistry

import statemachines
from orchestrator.metrics import BUCKETS_S, PLAUSIBLE, Live, Projection, registry_of
from statemachines.entries import Sealed
from statemachines.folding import fold
from statemachines.states import (
    ClusterState,
    EndpointStatus,
    FailoverStatus,
    Kind,
    MetadataStatus,
    Outcome,
    new_state,
)
from tests.orchestrator.surface import chained, entry, told_log

PROMISED = {
    "dcsup_failovers_total": {"cluster", "kind", "trigger", "outcome"},
    "dcsup_failover_duration_seconds": {"cluster", "kind"},
    "dcsup_failover_phase_duration_seconds": {"cluster", "kind", "phase"},
    "dcsup_failover_in_progress": {"cluster"},
    "dcsup_last_failover_timestamp_seconds": {"cluster"},
    "dcsup_schedule_resume_total": {"cluster", "service", "outcome"},
    "dcsup_schedules": {"cluster", "service", "state"},
    "dcsup_service_state": {"cluster", "service", "state"},
    "dcsup_node_state": {"cluster", "node", "state"},
    "dcsup_state_age_seconds": {"cluster", "service"},
    "dcsup_command_duration_seconds": {"cluster", "service", "verb", "outcome"},
    "dcsup_commands_outside_rq_total": {"cluster", "node", "service"},
    "dcsup_watch_polls_total": {"cluster", "node", "service"},
    "dcsup_watch_last_success_timestamp_seconds": {"cluster", "node", "service"},
    "dcsup_decisions_skipped_total": {"cluster", "reason"},
    "dcsup_events_total": {"cluster"},
    "dcsup_events_quarantined_total": {"cluster"},
    "dcsup_inbox_lag_seconds": {"cluster"},
    "dcsup_leader": {"cluster"},
    "dcsup_node_up": {"cluster", "node"},
    "dcsup_outbox_facts": {"cluster", "node"},
    "dcsup_clock_skew_seconds": {"cluster", "node"},
    "dcsup_moves_total": {"cluster", "outcome"},
    "dcsup_maintenance": {"cluster", "reason"},
    "dcsup_endpoint_up": {"cluster", "endpoint"},
    "dcsup_endpoint_outage_seconds": {"cluster", "endpoint"},
    "dcsup_metadata_held": {"cluster", "node"},
}
"""DESIGN: the names that stay."""

WATCH = {"services": {"server": {"polls": 7, "errors": 1, "last_success_wall": 1.5e9}}}
TRIGGERS_SOURCE = "".join(path.read_text() for path in Path(statemachines.__file__).parent.glob("*.py"))
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def projected(log: Iterable[Sealed]) -> Projection:
    projection = Projection("demo")
    for sealed in log:
        projection.apply(sealed)
    return projection


def state_of(log: Iterable[Sealed]) -> ClusterState:
    state = new_state("demo")
    for sealed in log:
        fold(state, sealed)
    return state


def registry(projection: Projection, state: ClusterState | None = None, **live: Any) -> CollectorRegistry:
    given: dict[str, Any] = {"leads": True, "now_ms": 0.0, **live}
    shown = Live(state or new_state("demo"), projection, **given)
    return registry_of(lambda: {"demo": shown}, threading.Lock())


def samples(source: CollectorRegistry) -> Samples:
    families = parse(generate_latest(source).decode())
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset({"cluster": "demo", **labels}.items())))


def everything() -> CollectorRegistry:
    """All metrics have a value here."""
    log = told_log()
    more: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "DecisionSkipped": ({"reason": "paused"}, {}),
        "CommandStarted": ({"by": "script", "service": "server"}, {"node": "node1"}),
    }
    projection = projected(log)
    for number, (kind, (data, fields)) in enumerate(more.items(), 1):
        late = entry(100_000 + number, kind, data, **fields)
        projection.apply(chained([late])[0])
    projection.apply(outage(200_000, False))
    projection.apply(outage(200_007, True))
    state = state_of(log)
    state.services["server"].state = "recovering"
    state.endpoints["web"] = EndpointStatus(up=True, since_ms=1.0)
    state.metadata["node1"] = MetadataStatus(service="running", port="open", at_ms=1.0, held=True)
    alive: dict[str, Any] = {"node1": {"outbox": 3, "skew_s": -0.25}, "node2": None}
    return registry(
        projection, state, now_ms=state.services["server"].since_ms + 5000, inbox_lag_s=0.5, alive=alive, watch={"node1": WATCH}
    )


def outage(number: int, up: bool, name: str = "web", **more: Any) -> Sealed:
    """An endpoint changes `number` s after the beginning, and is told of it half a second later."""
    late = entry(number, "EndpointChanged", {"endpoint": name, "up": up}, cause=None, source="leader", **more)
    late.evidence = {"inbox": "_leader", "inbox_id": late.id, "at_ms": late.ms - 500.0}
    return chained([late])[0]


def test_names_and_labels_are_the_promised_ones() -> None:
    """Every metric of DESIGN's table is there, with exactly its labels, and nothing else (in both formats)."""
    text, open_text = generate_latest(everything()).decode(), openmetrics(everything()).decode()  # type: ignore[no-untyped-call]
    for families in (parse(text), parse_openmetrics(open_text)):  # type: ignore[no-untyped-call]
        found: dict[str, set[str]] = {}
        for family in families:
            assert family.documentation, family.name
            for sample in family.samples:
                name = re.sub(r"_(bucket|sum|count)$", "", sample.name)
                if not name.endswith("_created"):
                    found.setdefault(name, set()).update(set(sample.labels) - {"le"})
        assert found == PROMISED


def test_states_are_one_series_each() -> None:
    """One 0/1 series per state, exactly one of them 1."""
    found = samples(everything())
    for name, label, of, count in (("dcsup_service_state", "service", "agent", 7), ("dcsup_node_state", "node", "node1", 6)):
        values = [number for (metric, labels), number in found.items() if metric == name and (label, of) in labels]
        assert sorted(values) == [0.0] * (count - 1) + [1.0]
    assert value(found, "dcsup_service_state", service="server", state="recovering") == 1
    assert value(found, "dcsup_state_age_seconds", service="server") == 5
    assert value(found, "dcsup_state_age_seconds", service="agent") is None


def test_values_follow_from_the_log() -> None:
    """A failure and a move, counted once each at their ends and apart, with their phases; the schedules by outcome."""
    found, log = samples(everything()), told_log()
    failure, move = state_of(log).failovers
    labels = {"trigger": "node", "outcome": "completed"}
    assert value(found, "dcsup_failovers_total", kind="failure", **labels) == 1
    assert value(found, "dcsup_failovers_total", kind="move", trigger="stop-hook", outcome="completed") == 1
    assert value(found, "dcsup_failover_duration_seconds_sum", kind="failure") == failure.total_s
    assert value(found, "dcsup_failover_duration_seconds_count", kind="move") == 1
    for phase, duration_s in move.phases.items():
        assert value(found, "dcsup_failover_phase_duration_seconds_sum", kind="move", phase=phase) == duration_s
    assert value(found, "dcsup_failover_phase_duration_seconds_count", kind="failure", phase="stop") is None
    outcomes = [verdict.outcome for sealed in log if sealed.entry.type == "ScheduleJudged" for verdict in _verdicts(sealed)]
    for outcome in ("resumed", "auto_started", "missed", "unexpected", "unknown"):
        assert value(found, "dcsup_schedule_resume_total", service="server", outcome=outcome) == outcomes.count(outcome)
    assert outcomes.count("missed") >= 1
    assert value(found, "dcsup_events_total") == len(log) + 4
    assert value(found, "dcsup_command_duration_seconds_count", service="server", verb="recover", outcome="ok") == 3


def _verdicts(sealed: Sealed) -> Any:
    from statemachines.states import Judgement

    return Judgement.model_validate(sealed.entry.data["judgement"]).schedules


def test_signs_of_life() -> None:
    """What comes from the nodes' liveness keys; a node whose key ran out is down and says nothing more."""
    found = samples(everything())
    assert value(found, "dcsup_node_up", node="node1") == 1
    assert value(found, "dcsup_node_up", node="node2") == 0
    assert value(found, "dcsup_outbox_facts", node="node1") == 3
    assert value(found, "dcsup_clock_skew_seconds", node="node1") == -0.25
    assert value(found, "dcsup_outbox_facts", node="node2") is None
    assert value(found, "dcsup_watch_polls_total", node="node1", service="server") == 7
    assert value(found, "dcsup_watch_last_success_timestamp_seconds", node="node1", service="server") == 1.5e9
    odd = {"node1": {"services": {"server": None, "agent": {"polls": "many"}}, "outbox": "x"}}
    samples(registry(Projection("demo"), alive=odd, watch=odd))


def ended(number: int, **record: Any) -> Sealed:
    status = FailoverStatus(id=f"f{number}", kind="failure", trigger="poll", outcome="completed").model_dump(mode="json")
    return chained([entry(number, "FailoverEnded", {"failover": {**status, **record}})])[0]


def test_cleared_symptoms_enter_no_duration() -> None:
    """Kind none is counted, and is neither a duration nor the last failover."""
    found = samples(registry(projected([ended(1, kind="none", outcome="cleared", total_s=9.0, phases={"detect": 9.0})])))
    assert value(found, "dcsup_failovers_total", kind="none", trigger="poll", outcome="cleared") == 1
    assert value(found, "dcsup_last_failover_timestamp_seconds") is None
    assert not [name for name, _labels in found if "duration" in name]


def test_a_failover_that_did_not_happen_yet_is_a_zero() -> None:
    """The first one of its kind is an increase from 0, which `increase()` sees; few enough series, and only words that there are."""
    found = samples(registry(projected([ended(1)])))
    counts = {labels: count for (name, labels), count in found.items() if name == "dcsup_failovers_total"}
    assert len(counts) == 40
    assert sorted(counts.values()) == [0.0] * 39 + [1.0]
    for kind, triggers, outcomes in PLAUSIBLE:
        assert kind in get_args(Kind)
        assert set(outcomes) <= set(get_args(Outcome))
        for trigger in triggers:
            assert f'"{trigger}"' in TRIGGERS_SOURCE, trigger


def test_moves_are_counted_by_what_became_of_them() -> None:
    """Of a requested one its failover's outcome; what the manager refused and what nothing came of; another move is none."""
    log = [ended(1, kind="move", requested_by="x"), ended(2, kind="move", requested_by="x", outcome="failed"), ended(3, kind="move")]
    log += [chained([entry(n, kind, {"request": "r"})])[0] for n, kind in ((4, "MoveFailed"), (5, "MoveExpired"))]
    found = samples(registry(projected(log)))
    outcomes = {outcome: value(found, "dcsup_moves_total", outcome=outcome) for outcome in ("completed", "failed", "refused", "expired")}
    assert outcomes == dict.fromkeys(outcomes, 1.0)
    assert value(found, "dcsup_moves_total", outcome="superseded") == 0


def test_outages_of_endpoints_are_measured_on_their_own_times() -> None:
    """From the first word of it to the end; told again by the next leader it does not begin anew; one that goes on is not counted."""
    log = [
        outage(1, True),
        outage(10, False),
        outage(12, False),
        outage(14, True),
        outage(15, True),
        outage(20, False),
        outage(20, False, "b"),
    ]
    projection = projected(log)
    found = samples(registry(projection))
    assert value(found, "dcsup_endpoint_outage_seconds_count", endpoint="web") == 1
    assert value(found, "dcsup_endpoint_outage_seconds_sum", endpoint="web") == 4.0
    again = Projection("demo")
    again.load(json.loads(json.dumps(projection.dump())))
    again.apply(outage(27, True))
    assert value(samples(registry(again)), "dcsup_endpoint_outage_seconds_sum", endpoint="web") == 11.0
    settings = {"settings": {"endpoints": [{"name": "web"}]}}
    again.apply(chained([entry(28, "ConfigurationChanged", settings)])[0])
    again.apply(outage(29, True, "b"))
    assert value(samples(registry(again)), "dcsup_endpoint_outage_seconds_count", endpoint="b") is None


def test_maintenance_and_what_stands_beside_the_services() -> None:
    """0 or 1 for each reason; an address or a metadata DB of which nothing was seen has no value at all."""
    found = samples(everything())
    assert value(found, "dcsup_maintenance", reason="paused") == value(found, "dcsup_maintenance", reason="suspended") == 0
    assert (value(found, "dcsup_endpoint_up", endpoint="web"), value(found, "dcsup_metadata_held", node="node1")) == (1, 1)
    assert value(found, "dcsup_metadata_held", node="node2") is None
    state = new_state("demo")
    state.suspended, state.paused_since_ms, state.endpoints = True, 1, {"web": EndpointStatus(up=False, since_ms=1.0)}
    found = samples(registry(Projection("demo"), state))
    assert value(found, "dcsup_maintenance", reason="paused") == value(found, "dcsup_maintenance", reason="suspended") == 1
    assert value(found, "dcsup_endpoint_up", endpoint="web") == 0


def test_a_record_that_is_completed_later_is_counted_once() -> None:
    """A late fact may end the same failover's record again."""
    found = samples(registry(projected([ended(1, id="f"), ended(2, id="f")])))
    assert value(found, "dcsup_failovers_total", kind="failure", trigger="poll", outcome="completed") == 1


@pytest.mark.parametrize("cut", [0, 1, 50, 100])
def test_counters_go_on_after_a_restart(cut: int) -> None:
    """Dumped anywhere, read back through JSON, folded on (even with an overlap): the same exposition, byte for byte."""
    log = told_log()
    before = projected(log[:cut])
    after = Projection("demo")
    after.load(json.loads(json.dumps(before.dump())))
    for sealed in log[max(0, cut - 5) :]:
        after.apply(sealed)
    assert generate_latest(registry(after)) == generate_latest(registry(projected(log)))


def test_a_dump_of_another_version_is_refused() -> None:
    """Other buckets, or no dump at all: an error, so that the log is folded from its beginning; what stood there stays."""
    projection = projected(told_log())
    whole = projection.dump()
    for blob in ({**whole, "bounds": [1, 2]}, {}, None, {**whole, "counts": [["nonsense", [], 1, 1]]}):
        with pytest.raises((ValueError, KeyError, TypeError)):
            projection.load(blob)
        assert projection.dump() == whole


def test_histograms_reach_from_half_a_second_to_half_an_hour() -> None:
    """Cumulative buckets whose last one is the count, as Prometheus wants them."""
    assert (BUCKETS_S[0], BUCKETS_S[-1]) == (0.5, 1800)
    durations = [0.5, 0.51, 1800, 1801]
    found = samples(registry(projected([ended(n, total_s=value_s) for n, value_s in enumerate(durations, 1)])))
    buckets = {dict(labels)["le"]: count for (name, labels), count in found.items() if name.endswith("_seconds_bucket")}
    assert (buckets["0.5"], buckets["1.0"], buckets["1800.0"], buckets["+Inf"]) == (1, 2, 3, 4)
    assert list(buckets.values()) == sorted(buckets.values())


def test_a_newer_log_does_no_harm() -> None:
    """Unknown types, and known ones with less in them, count as events and no more."""
    kinds = ("FromTheFuture", "FailoverEnded", "ScheduleJudged", "CommandStarted", "CommandEnded", "DecisionSkipped")
    log = chained([entry(n, kind, {}) for n, kind in enumerate(kinds, 1)])
    assert value(samples(registry(projected(log))), "dcsup_events_total") == len(log)


def test_an_orchestrator_that_does_not_lead_says_only_that() -> None:
    """Two orchestrators are scraped; the numbers come from the one that leads."""
    found = samples(registry(projected([]), state_of(told_log()), leads=False))
    assert {name for name, _labels in found} == {"dcsup_leader"}
    assert value(found, "dcsup_leader") == 0


def test_metrics_are_documented_in_the_design_of_their_names() -> None:
    """The module's own tables and the promise do not drift apart: every name is spelt in the module."""
    import orchestrator.metrics

    source = Path(orchestrator.metrics.__file__).read_text()
    assert all(f'"{name.removesuffix("_total")}"' in source for name in PROMISED)
