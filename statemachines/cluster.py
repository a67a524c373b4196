"""One step: a fact in, entries out. Which row of a machine applies is said by tables.py; what each kind of fact sets in motion, by
calls.py (what the manager asks for), outlook.py (what is seen of services and nodes), manager.py (what the manager says),
beside.py (what stands beside the machines) and, for what is left, by this module.

`step` works on a copy, so a fact that makes it raise leaves nothing behind.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from statemachines import facts as f
from statemachines import invariants, records
from statemachines.beside import Beside
from statemachines.deciding import LATE_MS, JobOrder
from statemachines.entries import Sealed, next_id
from statemachines.facts import AnyFact, Envelope
from statemachines.states import ClusterState

__all__ = ["Arrival", "JobOrder", "StepResult", "order_of", "quarantine", "step"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A parsed fact as it stands in an inbox."""

    inbox: str
    """A node's name, `_leader` or `_operator`."""
    inbox_id: str
    envelope: Envelope
    fact: AnyFact


@dataclass(frozen=True, slots=True)
class StepResult:
    state: ClusterState
    entries: list[Sealed]
    """The fact's own entry first, then its decisions."""
    jobs: list[JobOrder]


def order_of(state: ClusterState, inbox: str, envelope: Envelope) -> Literal["next", "duplicate", "gap"]:
    """Whether a fact is the next of its stream; a gap that its producer can still fill is not stepped over (I5).

    It can fill all of it from `oldest` on. What lies before that nobody has any more: then the oldest is the next.
    """
    last = state.sources.get(inbox, {}).get(envelope.stream, 0)
    if envelope.seq <= last:
        return "duplicate"
    return "next" if envelope.seq in (last + 1, envelope.oldest) else "gap"


def step(state: ClusterState, arrival: Arrival) -> StepResult:
    """Decide what follows from a fact.

    The given state is left as it is. A fact that is no `next` of its stream must not be given (`order_of`).
    """
    return _Step(state).take(arrival)


def quarantine(state: ClusterState, inbox: str, inbox_id: str, reason: str, envelope: Envelope | None) -> StepResult:
    """Log that an inbox entry was put aside, and why. With a readable envelope its number counts as applied."""
    return _Step(state).put_aside(inbox, inbox_id, reason, envelope)


class _Step(Beside):
    """Every kind of fact, and what it sets in motion."""

    # --- what every step does

    def take(self, arrival: Arrival) -> StepResult:
        state, envelope, fact = self.state, arrival.envelope, arrival.fact
        last = state.sources.get(arrival.inbox, {}).get(envelope.stream, 0)
        wanted = next_id(state.last_id, arrival.inbox_id)
        self.now_ms = int(wanted.partition("-")[0])
        self.at_ms = min(envelope.at_ms if envelope.at_ms is not None else float(self.now_ms), float(self.now_ms))
        if self.now_ms - self.at_ms > LATE_MS:
            self.clock = f"node, within {envelope.at_error_ms:.0f} ms"
        node = getattr(fact, "node", None) or (arrival.inbox if not arrival.inbox.startswith("_") else None)
        data = fact.model_dump(mode="json", exclude={"type"})
        self._append(
            wanted, type=envelope.type, node=node, service=_service_of(fact), source=envelope.source,
            source_id=f"{envelope.stream}:{envelope.seq}", cause=None, rule=None, transitions=[], data=data,
            evidence=_evidence(arrival, self.at_ms),
        )  # fmt: skip
        self.cause = wanted
        if envelope.seq > last + 1:
            self.decide("FactsLost", "I5", data={"count": envelope.seq - last - 1, "stream": envelope.stream}, node=node)
        if state.settings is not None and (handler := _HANDLERS.get(envelope.type)) is not None:
            if node is None or node in state.nodes:
                handler(self, node or "", fact)
            else:
                self.skip(None, "unknown-node", detail=node)
        if violations := invariants.check(self.state, self.entries):
            self.decide("InvariantViolated", violations[0].partition(" ")[0], data={"violations": violations})
        return StepResult(self.state, self.entries, self.jobs)

    def put_aside(self, inbox: str, inbox_id: str, reason: str, envelope: Envelope | None) -> StepResult:
        evidence: dict[str, Any] = {"inbox": inbox, "inbox_id": inbox_id}
        self._append(
            next_id(self.state.last_id), type="FactQuarantined", node=None if inbox.startswith("_") else inbox, service=None,
            source="dcsup", source_id=f"{envelope.stream}:{envelope.seq}" if envelope else None, cause=None, rule="I5", transitions=[],
            data={"reason": reason, "inbox": inbox, "inbox_id": inbox_id}, evidence=evidence,
        )  # fmt: skip
        return StepResult(self.state, self.entries, self.jobs)

    def on_schedules(self, node: str, fact: f.SchedulesObserved) -> None:
        status, service = self.state.schedules.get(fact.service), self.state.services.get(fact.service)
        if status is None or service is None or not status.owed or service.verified_ms is None or service.node != node:
            return
        if self.at_ms < service.verified_ms + 1000 * self.settings.schedules.settle:
            return
        if not any(v.outcome in ("missed", "unknown") for v in self.judgement(fact.service).schedules):
            self.judge(fact.service)
            self.end_if_all_judged()

    # --- deadlines, operators, counting

    def on_deadline(self, node: str, fact: f.DeadlinePassed) -> None:
        if fact.deadline not in self.before.deadlines or fact.deadline in self.state.deadlines:
            self.skip(None, "deadline-not-due", detail=fact.deadline)  # what it was for happened while it was on its way, or it was moved
            return
        kind, _, what = fact.deadline.partition(":")
        if kind in ("start", "stop"):
            self._call_has_no_time(kind, what)
        elif kind == "takeover":
            for name in self.state.services:
                self.fire_service(name, "takeover_deadline")
            self.fire_failover("takeover_deadline", reason="the group was not started anywhere in time")
        elif kind == "suspicion":
            why = records.withheld(self.state.failover)
            self.fire_failover("suspicion_deadline", reason="the manager did not act" + (f": {why}" if why else ""))
        elif kind == "resume":
            self.judge_served()
            self.end_if_all_judged()
        elif kind == "node":
            self.fire_node(what, "probation_passed")
        elif kind == "views":
            self.views_still_differ()
        elif kind == "metadata":
            self.metadata_had_time(what)
        elif kind == "move":
            self.drop_move("MoveExpired", "C304", "the group was not moved in time")

    def _call_has_no_time(self, script: str, ticket_name: str) -> None:
        ticket = self.state.tickets.get(ticket_name)
        for name, service in self.state.services.items():
            self.fire_service(name, f"{script}_deadline", ["served"] if service.verified else [], ticket)
        if script == "start":
            self.fire_failover("start_failed", reason="not verified before the deadline")
        self.adopt_what_runs()

    def on_configured(self, node: str, fact: f.ConfigurationChanged) -> None:
        """Nothing waits any more for a node or a service that is gone."""
        self.clear_deadlines(*(f"node:{name}" for name in self.before.nodes if name not in self.state.nodes))
        self.clear_deadlines(*(f"metadata:{name}" for name in self.before.metadata if name not in self.state.metadata))
        if self.state.move is not None and self.state.move.to not in (None, *self.state.nodes):
            self.drop_move("MoveFailed", "C302", f"{self.state.move.to} is no node of this cluster any more")
        if self.before.settings is not None:
            self.after_verified()
            self.end_if_all_judged()

    def on_pause(self, node: str, fact: f.PauseRequested) -> None:
        if self.state.paused_since_ms is None:
            changes = {"paused_since_ms": self.now_ms, "paused_by": fact.by}
            self.decide("ClusterPaused", None, data={"by": fact.by, "why": fact.why}, changes=changes)

    def on_resume(self, node: str, fact: f.ResumeRequested) -> None:
        """Under pause the clocks stood: every deadline moves by as long as it lasted."""
        if self.state.paused_since_ms is None:
            return
        stood_ms = self.now_ms - self.state.paused_since_ms
        deadlines = {name: due_ms + stood_ms for name, due_ms in self.state.deadlines.items()}
        self.decide(
            "ClusterResumed", None, data={"by": fact.by, "why": fact.why},
            changes={"paused_since_ms": None, "paused_by": None, "deadlines": deadlines},
        )  # fmt: skip

    def on_refused(self, node: str, fact: f.CommandRefused) -> None:
        known = fact.reason if _REASON.fullmatch(fact.reason) else "other"  # it becomes a label: no place for free text
        self.skip(None, f"refused-{known}", detail=fact.detail or fact.job_id)

    def on_dropped(self, node: str, fact: f.FactsDropped) -> None:
        self.decide("FactsLost", "I5", node=node, data={"count": fact.count, "stream": "disk"})


def _service_of(fact: AnyFact) -> str | None:
    """The service that a fact is about. What MetadataObserved calls so is the state of an operating system's service."""
    return None if isinstance(fact, f.MetadataObserved) else getattr(fact, "service", None)


def _evidence(arrival: Arrival, at_ms: float) -> dict[str, Any]:
    envelope = arrival.envelope
    return {
        "inbox": arrival.inbox, "inbox_id": arrival.inbox_id, "oldest": envelope.oldest, "at_ms": at_ms,
        "at_error_ms": envelope.at_error_ms, "clock": envelope.clock, "boot": envelope.boot, "mono": envelope.mono, "wall": envelope.wall,
    }  # fmt: skip


_REASON = re.compile(r"[a-z][a-z0-9-]{0,30}")

_HANDLERS: dict[str, Callable[[_Step, str, Any], None]] = {
    "StartHookCalled": _Step.on_start_hook, "StopHookCalled": _Step.on_stop_hook, "CommandEnded": _Step.on_command_ended,
    "ScriptEnded": _Step.on_script_ended, "ServicePolled": _Step.on_polled, "SchedulesObserved": _Step.on_schedules,
    "NodeJoined": _Step.on_node_joined, "NodeLost": _Step.on_node_lost, "NodeReturned": _Step.on_node_returned,
    "NodeLeft": _Step.on_node_left, "WatchLost": _Step.on_watch_lost, "WatchReturned": _Step.on_watch_returned,
    "ScriptDeclined": _Step.on_declined, "AlertReceived": _Step.on_alert, "ClusterViewed": _Step.on_viewed,
    "DeadlinePassed": _Step.on_deadline, "PauseRequested": _Step.on_pause, "ResumeRequested": _Step.on_resume,
    "ConfigurationChanged": _Step.on_configured, "CommandRefused": _Step.on_refused, "FactsDropped": _Step.on_dropped,
    "EndpointChanged": _Step.on_endpoint, "MoveRequested": _Step.on_move_requested, "MoveEnded": _Step.on_move_ended,
    "MetadataObserved": _Step.on_metadata,
}  # fmt: skip

EVIDENCE_ONLY: dict[str, str] = {
    "CommandStarted": "its time is a boundary of a phase",
    "FallbackTaken": "from here on the ticket is the script's",
    "WatchHookStarted": "for the reader of the log",
    "WatchHookEnded": "the manager acts on it, and tells by a hook",
    "ProbeFailed": "shown, and judged at the deadline",
    "ClusterViewFailed": "from here on that node's view is not compared with the others'",
    "LogTailLost": "shown and alerted on; the outboxes offer again by themselves",
    "LeadTaken": "raises the epoch",
    "RunbookStepRecorded": "remembered, so that a runbook can be gone on with",
}
"""Facts that change what is known and lead to no decision, and why."""

HANDLED = frozenset(_HANDLERS)
