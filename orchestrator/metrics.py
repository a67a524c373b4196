"""Metrics: what Prometheus reads, and why the numbers survive a restart.

Counters and histograms are not counted by this process: they are a projection of the log (`Projection`), folded along with it and dumped
into the snapshot. An orchestrator that starts, or takes over from another one, goes on where the log stands, so that a rate or a
quantile over a failover is not lost with the process that saw it. What is true only at this moment (states, signs of life, lag) is
asked for at each scrape (`Live`).

Names and labels are promises (DESIGN.md, "Names that stay"); base units; one 0/1 series per state, for a state as a label of
another metric would multiply series at each change. Unknown entry types only count as events: an older dcsup must read a newer log.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import product
from typing import Any, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from statemachines.entries import Entry, Sealed, id_key
from statemachines.states import NODE_STATES, SERVICE_STATES, ClusterState, Outcome, ScheduleOutcome

Labels = tuple[str, ...]

BUCKETS_S = (0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 450, 600, 900, 1800)
"""Upper bounds of the duration histograms, seconds: from half a second to half an hour."""

TRANSIENT = frozenset({"starting", "failing-over", "recovering", "stopping"})
"""Service states that are meant to pass: only these have an age to alert on."""

UNDER_WAY = frozenset({"acting", "starting", "resuming"})
"""Failover states after the manager acted; a suspicion alone is none of them."""

MOVE_OUTCOMES = (*(outcome for outcome in get_args(Outcome) if outcome != "cleared"), "refused", "expired")
"""What became of a move that an operator asked for: as its failover ended, or the manager refused, or nothing came of it in time."""

PLAUSIBLE: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("failure", ("poll", "watch", "node", "alert", "stop-hook", "start-hook", "cluster-view"), ("completed", "failed", "superseded")),
    ("move", ("stop-hook", "start-hook", "cluster-view"), ("completed", "failed")),
    ("move", ("stop-hook",), ("superseded",)),
    ("restart", ("poll", "watch", "stop-hook"), ("completed", "failed")),
    ("shutdown", ("stop-hook",), ("completed", "failed")),
    ("none", ("poll", "watch", "node", "alert"), ("cleared",)),
)
"""Kind, triggers, outcomes of failovers that can be expected: 40 series a cluster, which begin at 0. All combinations would be 140, most
of which never happen; one that is not here begins with its first failover."""

_REMEMBERED = 100
"""Failovers whose end was counted: a late fact completes a record and must not count it again."""


@dataclass(frozen=True)
class _Family:
    name: str
    help: str
    labels: Labels


# --- the projection -------------------------------------------------------------------------------------------------------------------

COUNTERS = {
    family.name: family
    for family in (
        _Family("dcsup_failovers", "Failovers that ended; kind none: a symptom that passed.", ("kind", "trigger", "outcome")),
        _Family("dcsup_moves", "Moves that an operator asked for with `dcsup move`, by what became of them.", ("outcome",)),
        _Family("dcsup_schedule_resume", "Schedules judged after a start, by what became of them.", ("service", "outcome")),
        _Family("dcsup_commands_outside_rq", "Commands that the scripts' plain sequence ran itself.", ("node", "service")),
        _Family("dcsup_decisions_skipped", "Decisions that were not acted on, by reason.", ("reason",)),
        _Family("dcsup_events", "Entries of the log: accepted facts and decisions.", ()),
        _Family("dcsup_events_quarantined", "Facts that could not be understood and were put aside.", ()),
    )
}
HISTOGRAMS = {
    family.name: family
    for family in (
        _Family("dcsup_failover_duration_seconds", "From the first symptom to the last schedule judged, in seconds.", ("kind",)),
        _Family("dcsup_failover_phase_duration_seconds", "One phase of a failover, in seconds.", ("kind", "phase")),
        _Family(
            "dcsup_command_duration_seconds",
            "One command that ran, on its node's own clock, in seconds.",
            ("service", "verb", "outcome"),
        ),
        _Family(
            "dcsup_endpoint_outage_seconds",
            "How long an address took no connections, as clients saw it, in seconds; counted when it takes them again.",
            ("endpoint",),
        ),
    )
}


@dataclass
class _Count:
    value: float
    since_s: float
    """When the series began, s since the epoch."""


@dataclass
class _Distribution:
    since_s: float
    sum_s: float = 0.0
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    """Not cumulative; the last one is beyond every bound."""

    def observe(self, value_s: float) -> None:
        self.sum_s += value_s
        self.counts[bisect_left(BUCKETS_S, value_s)] += 1

    def cumulative(self) -> list[tuple[str, float]]:
        total, buckets = 0, []
        for bound, count in zip((*map(float, BUCKETS_S), float("inf")), self.counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound == float("inf") else str(bound), float(total)))
        return buckets


class Projection:
    """The counters and histograms of one cluster, folded along with its log (orchestrator/ports.py: Projection)."""

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster
        self.last_id = "0-0"
        self.counts: dict[str, dict[Labels, _Count]] = {name: {} for name in COUNTERS}
        self.distributions: dict[str, dict[Labels, _Distribution]] = {name: {} for name in HISTOGRAMS}
        self.last_failover_s: float | None = None
        self.ended: list[str] = []
        self.down_ms: dict[str, float] = {}
        """Endpoint -> since when it is down."""

    def apply(self, sealed: Sealed) -> None:
        """Count one entry; one that was counted before (an overlap of snapshot and log) is not counted again."""
        entry = sealed.entry
        if id_key(entry.id) <= id_key(self.last_id):
            return
        self.last_id = entry.id
        self._count("dcsup_events", (), entry)
        if (note := _NOTES.get(entry.type)) is not None:
            note(self, entry)

    def dump(self) -> dict[str, Any]:
        """All it knows, as JSON values."""
        return {
            "last_id": self.last_id,
            "last_failover_s": self.last_failover_s,
            "ended": self.ended,
            "down_ms": self.down_ms,
            "bounds": list(BUCKETS_S),
            "counts": [[name, list(labels), one.value, one.since_s] for name, labels, one in _flat(self.counts)],
            "distributions": [[name, list(labels), one.since_s, one.sum_s, one.counts] for name, labels, one in _flat(self.distributions)],
        }

    def load(self, blob: Any) -> None:
        """Become what was dumped.

        Raises:
            ValueError, KeyError, TypeError: it is no such dump, or was made with other buckets; then the log is folded from its beginning.
        """
        if blob["bounds"] != list(BUCKETS_S):
            raise ValueError("the buckets are others now")
        fresh = Projection(self.cluster)
        fresh.last_id, fresh.last_failover_s, fresh.ended = str(blob["last_id"]), blob["last_failover_s"], list(blob["ended"])
        fresh.down_ms = dict(blob["down_ms"])
        for name, labels, value, since_s in blob["counts"]:
            fresh.counts[name][tuple(labels)] = _Count(value, since_s)
        for name, labels, since_s, sum_s, counts in blob["distributions"]:
            fresh.distributions[name][tuple(labels)] = _Distribution(since_s, sum_s, list(counts))
        self.__dict__.update(fresh.__dict__)

    def _count(self, name: str, labels: Labels, entry: Entry, by: float = 1) -> None:
        self.counts[name].setdefault(labels, _Count(0, entry.ms / 1000)).value += by

    def _observe(self, name: str, labels: Labels, value_s: float, entry: Entry) -> None:
        self.distributions[name].setdefault(labels, _Distribution(entry.ms / 1000)).observe(max(0.0, value_s))

    # --- what single entries mean

    def _failover_ended(self, entry: Entry) -> None:
        record = _dict(entry.data.get("failover"))
        if record.get("id") in self.ended:
            return
        self.ended = [*self.ended, str(record.get("id"))][-_REMEMBERED:]
        kind = str(record.get("kind"))
        self._count("dcsup_failovers", (kind, str(record.get("trigger")), str(record.get("outcome"))), entry)
        if kind == "none":
            return
        if record.get("requested_by") is not None:
            self._count("dcsup_moves", (str(record.get("outcome")),), entry)
        self.last_failover_s = entry.ms / 1000
        if (total_s := record.get("total_s")) is not None:
            self._observe("dcsup_failover_duration_seconds", (kind,), float(total_s), entry)
        for phase, value_s in _dict(record.get("phases")).items():
            self._observe("dcsup_failover_phase_duration_seconds", (kind, phase), float(value_s), entry)

    def _move_failed(self, entry: Entry) -> None:
        self._count("dcsup_moves", ("refused",), entry)

    def _move_expired(self, entry: Entry) -> None:
        self._count("dcsup_moves", ("expired",), entry)

    def _endpoint_changed(self, entry: Entry) -> None:
        """A leader that begins anew may tell again what is known; an outage begins with the first word of it."""
        name, at_ms = str(entry.data.get("endpoint")), float((entry.evidence or {}).get("at_ms", entry.ms))
        if not entry.data.get("up"):
            self.down_ms.setdefault(name, at_ms)
        elif (down_ms := self.down_ms.pop(name, None)) is not None:
            self._observe("dcsup_endpoint_outage_seconds", (name,), (at_ms - down_ms) / 1000, entry)

    def _configuration_changed(self, entry: Entry) -> None:
        """An endpoint that is configured no more does not come up any more."""
        endpoints = _dict(entry.data.get("settings")).get("endpoints", ())
        names = {_dict(one).get("name") for one in endpoints}
        self.down_ms = {name: down_ms for name, down_ms in self.down_ms.items() if name in names}

    def _schedules_judged(self, entry: Entry) -> None:
        judgement = _dict(entry.data.get("judgement"))
        for verdict in judgement.get("schedules", []):
            self._count("dcsup_schedule_resume", (str(judgement.get("service")), str(verdict.get("outcome"))), entry)

    def _command_started(self, entry: Entry) -> None:
        if entry.data.get("by") == "script":
            self._count("dcsup_commands_outside_rq", (str(entry.node), str(entry.data.get("service"))), entry)

    def _command_ended(self, entry: Entry) -> None:
        duration_s = entry.data.get("duration_s")
        if duration_s is not None and entry.data.get("ran", True):
            labels = tuple(str(entry.data.get(key)) for key in ("service", "verb", "result"))
            self._observe("dcsup_command_duration_seconds", labels, float(duration_s), entry)

    def _decision_skipped(self, entry: Entry) -> None:
        self._count("dcsup_decisions_skipped", (str(entry.data.get("reason")),), entry)

    def _fact_quarantined(self, entry: Entry) -> None:
        self._count("dcsup_events_quarantined", (), entry)


_NOTES: dict[str, Callable[[Projection, Entry], None]] = {
    "FailoverEnded": Projection._failover_ended,
    "MoveFailed": Projection._move_failed,
    "MoveExpired": Projection._move_expired,
    "EndpointChanged": Projection._endpoint_changed,
    "ConfigurationChanged": Projection._configuration_changed,
    "ScheduleJudged": Projection._schedules_judged,
    "CommandStarted": Projection._command_started,
    "CommandEnded": Projection._command_ended,
    "DecisionSkipped": Projection._decision_skipped,
    "FactQuarantined": Projection._fact_quarantined,
}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _flat(families: Mapping[str, Mapping[Labels, Any]]) -> Iterator[tuple[str, Labels, Any]]:
    for name, series in families.items():
        for labels, one in series.items():
            yield name, labels, one


# --- what is true now -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Live:
    """What an orchestrator knows of one cluster at the moment of a scrape. Taking it must not wait for Redis."""

    state: ClusterState
    projection: Projection
    leads: bool
    """This process leads the cluster."""
    now_ms: float
    """Now on Redis's time line, as well as known."""
    inbox_lag_s: float | None = None
    """Age of the oldest fact that is handed in and not in the log yet; 0 when there is none, None when unknown."""
    alive: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    """Node -> value of its liveness key (boot, outbox, skew_s, ...); None: the key ran out."""
    watch: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    """Node -> value of its watch key: {"services": {name: {"polls", "errors", "last_success_wall"}}}."""


_NOW = {
    family.name: family
    for family in (
        _Family("dcsup_failover_in_progress", "1 from the moment the cluster manager acts until the failover ended.", ()),
        _Family("dcsup_last_failover_timestamp_seconds", "When the last failover ended, s since the epoch.", ()),
        _Family("dcsup_schedules", "Schedules as the probe saw them last, by state.", ("service", "state")),
        _Family("dcsup_service_state", "1 for the state that the service is in, 0 for the others.", ("service", "state")),
        _Family("dcsup_node_state", "1 for the state that the node is in, 0 for the others.", ("node", "state")),
        _Family("dcsup_state_age_seconds", "How long a service has been in a state that is meant to pass, in seconds.", ("service",)),
        _Family("dcsup_watch_last_success_timestamp_seconds", "Last healthy poll, node's clock, s since the epoch.", ("node", "service")),
        _Family("dcsup_inbox_lag_seconds", "Age of the oldest fact handed in that is not in the log yet, in seconds.", ()),
        _Family("dcsup_leader", "1 where this orchestrator leads the cluster.", ()),
        _Family("dcsup_node_up", "1 while the node's worker shows signs of life.", ("node",)),
        _Family("dcsup_outbox_facts", "Facts on the node's disk that are not durably in the log yet.", ("node",)),
        _Family("dcsup_clock_skew_seconds", "The node's wall clock less Redis's, in seconds.", ("node",)),
        _Family("dcsup_maintenance", "1 while the cluster is in maintenance for this reason: nobody is to be woken up.", ("reason",)),
        _Family("dcsup_endpoint_up", "1 while an address takes connections, as clients see it.", ("endpoint",)),
        _Family("dcsup_metadata_held", "1 where the metadata DB still runs though the group was taken from the node.", ("node",)),
    )
}
_POLLS = _Family("dcsup_watch_polls", "Polls of the service's status command since the node's watch began.", ("node", "service"))

Value = tuple[str, Labels, float]

FLOAT_BITS_MAX = 1000
"""A whole number of more bits may be too large for a float; a node may send one of thousands of digits."""


def _values(live: Live) -> Iterator[Value]:
    """Every gauge of one cluster."""
    state = live.state
    yield "dcsup_leader", (), live.leads
    if not live.leads:
        return  # whoever leads it tells the rest
    yield "dcsup_failover_in_progress", (), state.failover is not None and state.failover.state in UNDER_WAY
    if live.projection.last_failover_s is not None:
        yield "dcsup_last_failover_timestamp_seconds", (), live.projection.last_failover_s
    if live.inbox_lag_s is not None:
        yield "dcsup_inbox_lag_seconds", (), live.inbox_lag_s
    yield from _service_values(live)
    yield from _schedule_values(state)
    yield from _site_values(state)
    for node, status in state.nodes.items():
        yield from _one_of("dcsup_node_state", node, status.state, NODE_STATES)
    for node in sorted({*state.nodes, *live.alive}):
        yield from _node_values(node, live.alive.get(node))
    for node, value in live.watch.items():
        yield from _watch_values(node, value, state.services)


def _one_of(name: str, of: str, state: str, states: Iterable[str]) -> Iterator[Value]:
    for one in states:
        yield name, (of, one), one == state


def _service_values(live: Live) -> Iterator[Value]:
    for service, status in live.state.services.items():
        yield from _one_of("dcsup_service_state", service, status.state, SERVICE_STATES)
        if status.state in TRANSIENT:
            yield "dcsup_state_age_seconds", (service,), max(0.0, live.now_ms - status.since_ms) / 1000


def _schedule_values(state: ClusterState) -> Iterator[Value]:
    for service, status in state.schedules.items():
        if status.latest is not None:
            for wanted in ("started", "stopped"):
                number = sum(schedule.state == wanted for schedule in status.latest.schedules)
                yield "dcsup_schedules", (service, wanted), number


def _site_values(state: ClusterState) -> Iterator[Value]:
    """Maintenance, and what is seen of addresses and metadata DB. What was never seen has no value: silence is not health."""
    yield "dcsup_maintenance", ("paused",), state.paused_since_ms is not None
    yield "dcsup_maintenance", ("suspended",), state.suspended
    for name, endpoint in state.endpoints.items():
        yield "dcsup_endpoint_up", (name,), endpoint.up
    for node, metadata in state.metadata.items():
        yield "dcsup_metadata_held", (node,), metadata.held


def _node_values(node: str, alive: Mapping[str, Any] | None) -> Iterator[Value]:
    yield "dcsup_node_up", (node,), alive is not None
    if alive is not None:
        yield from _number("dcsup_outbox_facts", (node,), alive.get("outbox"))
        yield from _number("dcsup_clock_skew_seconds", (node,), alive.get("skew_s"))


def _watch_values(node: str, value: Mapping[str, Any] | None, services: Iterable[str]) -> Iterator[Value]:
    """Of the cluster's services: a node could name any others, with any text as a label."""
    told = _dict(_dict(value).get("services"))
    for service in services:
        counters = told.get(service)
        yield from _number("dcsup_watch_polls", (node, service), _dict(counters).get("polls"))
        yield from _number("dcsup_watch_last_success_timestamp_seconds", (node, service), _dict(counters).get("last_success_wall"))


def _number(name: str, labels: Labels, value: Any) -> Iterator[Value]:
    """A value that came from a node, if it is a number at all, and one that fits."""
    if isinstance(value, (int, float)) and not (isinstance(value, int) and value.bit_length() > FLOAT_BITS_MAX):
        yield name, labels, float(value)


# --- Prometheus -----------------------------------------------------------------------------------------------------------------------


class LogCollector(Collector):
    """All metrics of the clusters that `live` tells about, computed anew at each scrape.

    A scrape comes from a thread of the web server: it takes `lock`, under which states and projections are changed.
    """

    def __init__(self, live: Callable[[], Mapping[str, Live]], lock: AbstractContextManager[Any]) -> None:
        self.live = live
        self.lock = lock

    def describe(self) -> list[Metric]:
        """Nothing: registering must not ask for values yet."""
        return []

    def collect(self) -> list[Metric]:
        with self.lock:
            clusters = dict(sorted(self.live().items()))
            counters = [_counter(family, clusters) for family in COUNTERS.values()]
            histograms = [_histogram(family, clusters) for family in HISTOGRAMS.values()]
            return [*counters, *histograms, *_gauges(clusters)]


def registry_of(live: Callable[[], Mapping[str, Live]], lock: AbstractContextManager[Any]) -> CollectorRegistry:
    """A registry with these metrics alone; `live` is called at each scrape, from the server's threads, under `lock`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(LogCollector(live, lock))
    return registry


def _zeros(state: ClusterState) -> Iterator[tuple[str, Labels]]:
    """Series that begin at 0: the first event of a counter that was not there before is invisible to `increase()`, and alerts use it."""
    yield "dcsup_events_quarantined", ()
    yield from (("dcsup_moves", (outcome,)) for outcome in MOVE_OUTCOMES)
    for kind, triggers, outcomes in PLAUSIBLE:
        yield from (("dcsup_failovers", (kind, trigger, outcome)) for trigger, outcome in product(triggers, outcomes))
    settings = state.settings
    if settings is not None:
        owners = [service.name for service in settings.services if service.owns_schedules]
        yield from (("dcsup_schedule_resume", labels) for labels in product(owners, get_args(ScheduleOutcome)))
        services = [service.name for service in settings.services]
        yield from (("dcsup_commands_outside_rq", labels) for labels in product(settings.nodes, services))
        yield from (("dcsup_endpoint_outage_seconds", (endpoint.name,)) for endpoint in settings.endpoints)


def _counter(family: _Family, clusters: Mapping[str, Live]) -> Metric:
    metric = CounterMetricFamily(family.name, family.help, labels=["cluster", *family.labels])
    for cluster, live in clusters.items():
        counts = live.projection.counts[family.name]
        for labels, count in sorted(counts.items()):
            metric.add_metric([cluster, *labels], count.value, created=count.since_s)
        for name, labels in _zeros(live.state) if live.leads else ():
            if name == family.name and labels not in counts:
                metric.add_metric([cluster, *labels], 0)
    return metric


def _histogram(family: _Family, clusters: Mapping[str, Live]) -> Metric:
    names = ["cluster", *family.labels]
    metric = HistogramMetricFamily(family.name, family.help, labels=names)
    for cluster, live in clusters.items():
        for labels, one in sorted(_distributions(family, live).items()):
            values = [cluster, *labels]
            metric.add_metric(values, one.cumulative(), sum_value=one.sum_s)
            if one.since_s:
                metric.add_sample(f"{family.name}_created", dict(zip(names, values, strict=True)), one.since_s)
    return metric


def _distributions(family: _Family, live: Live) -> dict[Labels, _Distribution]:
    zeros = _zeros(live.state) if live.leads else ()
    return {labels: _Distribution(0.0) for name, labels in zeros if name == family.name} | live.projection.distributions[family.name]


def _gauges(clusters: Mapping[str, Live]) -> Iterator[Metric]:
    metrics: dict[str, Metric] = {
        name: GaugeMetricFamily(name, family.help, labels=["cluster", *family.labels]) for name, family in _NOW.items()
    }
    metrics[_POLLS.name] = CounterMetricFamily(_POLLS.name, _POLLS.help, labels=["cluster", *_POLLS.labels])
    for cluster, live in clusters.items():
        for name, labels, value in _values(live):
            metrics[name].add_metric([cluster, *labels], float(value))  # type: ignore[attr-defined]
    yield from metrics.values()
