"""What the leader itself observes: deadlines that are due, signs of life of nodes and watches, endpoints that take connections. No I/O.

Everything is judged by level, not by edge: `differences` says what does not agree between the state and the world as it is, and a fact
goes into the leader's inbox for each difference that this leader has not told yet. So nothing is lost when an append's answer is
lost or a leader dies in between: whoever looks next sees the same difference. A fact that changes nothing is not told again and again.

A missing sign of life means nothing after Redis was away: TTLs are absolute, so an outage ends them all at once. It is judged only when
Redis and this orchestrator have been up together for the TTL plus the workers' reconnect time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.endpoints import Seen
from orchestrator.ports import SignsOfLife
from statemachines.configuration import ClusterSettings
from statemachines.facts import (
    ConfigurationChanged,
    DeadlinePassed,
    EndpointChanged,
    Envelope,
    LeadTaken,
    NodeLost,
    NodeReturned,
    WatchLost,
    WatchReturned,
)
from statemachines.states import ClusterState, NodeStatus

RECONNECT_S = 3.0
"""Within this time after Redis is back, a worker that lives has shown it again."""

LeaderFact = ConfigurationChanged | DeadlinePassed | EndpointChanged | LeadTaken | NodeLost | NodeReturned | WatchLost | WatchReturned


@dataclass(frozen=True, slots=True)
class Dated:
    """A fact that happened before it is told."""

    fact: LeaderFact
    at_ms: float
    """On Redis's time line, ms since the epoch."""
    error_ms: float
    """It may have happened so much earlier."""


Differences = dict[tuple[str, ...], LeaderFact | Dated]
"""What to tell, by what identifies it."""


@dataclass(slots=True)
class Telling:
    """What this leader has told already, so that a difference that stays is told once."""

    told: set[tuple[str, ...]] = field(default_factory=set)

    def untold(self, differences: Differences) -> Differences:
        """Those not told yet; what is no difference any more may be told again later."""
        self.told &= differences.keys()
        return {key: fact for key, fact in differences.items() if key not in self.told}

    def note(self, differences: Differences) -> None:
        """They are safely in the inbox."""
        self.told |= differences.keys()

    def forget(self) -> None:
        """Perhaps they were not: what is still a difference is told again."""
        self.told.clear()


def envelopes(state: ClusterState, inbox: str, stream: str, facts: Iterable[LeaderFact | Dated]) -> list[str]:
    """The facts as they go into the leader's inbox, numbered on from what the state has seen of this leader's stream."""
    seq = state.sources.get(inbox, {}).get(stream, 0)
    return [_envelope(stream, seq + place, fact).model_dump_json(exclude_defaults=True) for place, fact in enumerate(facts, start=1)]


def _envelope(stream: str, seq: int, told: LeaderFact | Dated) -> Envelope:
    if not isinstance(told, Dated):
        data = told.model_dump(mode="json", exclude={"type"})
        return Envelope(type=told.type, source="leader", stream=stream, seq=seq, data=data)
    return _envelope(stream, seq, told.fact).model_copy(update={"at_ms": told.at_ms, "at_error_ms": told.error_ms, "clock": "mono"})


class Countdown:
    """One cluster's deadlines, counted down on this process's monotonic clock from the moment when they were first seen.

    They are written down on Redis's time line, and that may be set forward or back: then neither all of them are due, nor none.
    """

    def __init__(self) -> None:
        self._at_s: dict[tuple[str, ...], float] = {}

    def note(self, state: ClusterState, now_ms: int, mono_s: float) -> None:
        """Deadlines that are new begin to count; those that are gone are forgotten. `now_ms` and `mono_s` are the same moment."""
        keys = {_key(name, due_ms): due_ms for name, due_ms in state.deadlines.items()}
        self._at_s = {key: self._at_s.get(key, mono_s + (due_ms - now_ms) / 1000) for key, due_ms in keys.items()}

    def due(self, state: ClusterState, mono_s: float) -> Differences:
        """Those that are due. Under pause the clocks stand."""
        if state.paused_since_ms is not None:
            return {}
        keys = {_key(name, due_ms): name for name, due_ms in state.deadlines.items()}
        return {key: DeadlinePassed(deadline=name) for key, name in keys.items() if self._at_s.get(key, mono_s + 1) <= mono_s}

    def next_s(self, state: ClusterState, telling: Telling) -> float | None:
        """When, on the monotonic clock, the next one is due that was not told yet."""
        if state.paused_since_ms is not None:
            return None
        return min((at_s for key, at_s in self._at_s.items() if key not in telling.told), default=None)


def latest_ms(differences: Differences) -> int:
    """When the latest of these deadlines was due, on Redis's time line."""
    return max(int(due_ms) for _, _, due_ms in differences)


def _key(name: str, due_ms: int) -> tuple[str, ...]:
    return ("deadline", name, str(due_ms))


class Liveness:
    """The signs of life of one cluster's nodes, as this leader saw them come and go."""

    def __init__(self, settings: ClusterSettings) -> None:
        self._settings = settings
        self._alive_seen: set[str] = set()
        self._watch_seen: set[str] = set()
        self._watch_missing_since: dict[str, float] = {}
        self._first_value: dict[str, str] = {}
        """Of nodes that count as absent: the first sign seen since. A second, different one is a fresh sign."""

    def differences(self, state: ClusterState, signs: Mapping[str, SignsOfLife], now_ms: int, mono_s: float) -> Differences:
        """What differs between the state's nodes and their signs of life; `mono_s` is this process's monotonic clock."""
        found: Differences = {}
        for name, sign in signs.items():
            status = state.nodes.get(name)
            if status is not None:
                found |= self._of_node(name, status, sign, now_ms)
                found |= self._of_watch(name, status, sign, mono_s)
        return found

    def _of_node(self, name: str, status: NodeStatus, sign: SignsOfLife, now_ms: int) -> Differences:
        if sign.alive is not None:
            self._alive_seen.add(name)
            return self._returned(name, status, sign.alive)
        self._first_value.pop(name, None)
        # (A node that joined "in the future" joined before somebody set the clock back.)
        just_joined = name not in self._alive_seen and abs(now_ms - status.since_ms) < self._settings.node_ttl * 1000
        if not status.present or just_joined:
            return {}
        return {("node", name, "lost"): NodeLost(node=name)}

    def _returned(self, name: str, status: NodeStatus, value: str) -> Differences:
        """A node that left may leave a last sign behind, so only a sign that was refreshed counts. One that never joined will join."""
        if status.present or status.boot is None:
            self._first_value.pop(name, None)
            return {}
        if self._first_value.setdefault(name, value) == value:
            return {}
        return {("node", name, "returned"): NodeReturned(node=name)}

    def _of_watch(self, name: str, status: NodeStatus, sign: SignsOfLife, mono_s: float) -> Differences:
        if not status.present or sign.alive is None:
            self._watch_missing_since.pop(name, None)
            self._watch_seen.discard(name)
            return {}
        if sign.watch is not None:
            self._watch_seen.add(name)
            self._watch_missing_since.pop(name, None)
            return {} if status.watched else {("watch", name, "returned"): WatchReturned(node=name)}
        missing_s = mono_s - self._watch_missing_since.setdefault(name, mono_s)
        patience_s = 0.0 if name in self._watch_seen else self._settings.node_ttl + RECONNECT_S  # it may not have begun yet
        return {("watch", name, "lost"): WatchLost(node=name)} if status.watched and missing_s >= patience_s else {}


def endpoint_differences(state: ClusterState, seen: Mapping[str, Seen], now_ms: int, mono_s: float) -> Differences:
    """Endpoints that take connections, or take none, otherwise than the state has it (or of which it knows nothing yet).

    `now_ms` and `mono_s` are the same moment on Redis's time line and on this process's monotonic clock.
    """
    found: Differences = {}
    for name, one in seen.items():
        known = state.endpoints.get(name)
        if known is None or known.up != one.up:
            at_ms = now_ms - 1000 * max(0.0, mono_s - one.mono_s)
            if known is not None:
                at_ms = max(at_ms, known.since_ms)  # another leader's clock was a little ahead: it is after what that one saw all the same
            fact = EndpointChanged(endpoint=name, up=one.up, reason=one.reason)
            found["endpoint", name, "up" if one.up else "down"] = Dated(fact, at_ms, 1000 * one.within_s)
    return found


def maintenance_text(state: ClusterState) -> str | None:
    """What the nodes read while the cluster is in maintenance (`wire.maintenance`); None: it is not."""
    reason = state.maintenance
    if reason is None:
        return None
    since_ms, by = (state.paused_since_ms, state.paused_by) if reason == "paused" else (state.suspended_since_ms, "cluster")
    return json.dumps({"reason": reason, "since_ms": since_ms, "by": by}, ensure_ascii=False)


def liveness_values(signs: Mapping[str, SignsOfLife]) -> dict[str, dict[str, object]]:
    """Node -> the JSON of its `alive` and `watch` keys; None for what is not there or is no JSON object."""
    return {name: {"alive": _object(sign.alive), "watch": _object(sign.watch)} for name, sign in signs.items()}


def _object(text: str | None) -> dict[str, object] | None:
    try:
        value = json.loads(text) if text is not None else None
    except (ValueError, RecursionError):  # a node may write there what it likes
        return None
    return value if isinstance(value, dict) else None
