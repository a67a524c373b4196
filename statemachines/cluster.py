"""One step: a fact in, entries out. What each kind of fact means is here; which row applies is said by tables.py.

`step` works on a copy, so a fact that makes it raise leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from statemachines import facts as f
from statemachines import invariants, phases, records
from statemachines.deciding import LATE_MS, JobOrder
from statemachines.entries import Sealed, next_id
from statemachines.facts import AnyFact, Envelope
from statemachines.judging import Judging
from statemachines.states import ClusterState, Kind, TicketStatus

__all__ = ["Arrival", "JobOrder", "StepResult", "order_of", "quarantine", "step"]

ALERT_SYMPTOMS = frozenset({("nm", 2), ("rm", 9)})
ALERT_ACTS: dict[tuple[str, int], Kind] = {
    ("rc", 60): "failure", ("rm", 14): "failure", ("rc", 50): "move", ("rc", 80): "restart", ("rm", 13): "restart"
}  # fmt: skip
"""Alert ids that are a first symptom, or say that the manager acts (CLUSTERPRO.md 6.2)."""

ALERT_DOUBLE_ACTIVATION = ("rc", 92)


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
    """Whether a fact is the next of its stream; a gap that its producer can still fill is not stepped over (I5)."""
    last = state.sources.get(inbox, {}).get(envelope.stream, 0)
    if envelope.seq <= last:
        return "duplicate"
    if envelope.seq == last + 1 or envelope.oldest > last + 1:
        return "next"
    return "gap"


def step(state: ClusterState, arrival: Arrival) -> StepResult:
    """Decide what follows from a fact.

    The given state is left as it is. A fact that is no `next` of its stream must not be given (`order_of`).
    """
    return _Step(state.working_copy()).take(arrival)


def quarantine(state: ClusterState, inbox: str, inbox_id: str, reason: str, envelope: Envelope | None) -> StepResult:
    """Log that an inbox entry was put aside, and why. With a readable envelope its number counts as applied."""
    return _Step(state.working_copy()).put_aside(inbox, inbox_id, reason, envelope)


class _Step(Judging):
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
        self.boot_before = state.nodes[node].boot if node in state.nodes else None
        data = fact.model_dump(mode="json", exclude={"type"})
        self._append(
            wanted, type=envelope.type, node=node, service=data.get("service"), source=envelope.source,
            source_id=f"{envelope.stream}:{envelope.seq}", cause=None, rule=None, transitions=[], data=data,
            evidence=_evidence(arrival, self.at_ms),
        )  # fmt: skip
        self.cause = wanted
        if envelope.seq > last + 1:
            self.decide("FactsLost", "I5", data={"count": envelope.seq - last - 1, "stream": envelope.stream}, node=node)
        if state.settings is not None and (handler := _HANDLERS.get(envelope.type)) is not None:
            handler(self, node or "", fact)
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
    # --- start and stop calls

    def on_start_hook(self, node: str, fact: f.StartHookCalled) -> None:
        ticket = self.state.tickets[fact.ticket]
        if self._is_older(ticket):
            self.skip(None, "older-call", detail=fact.ticket)
            return
        self.compare_with_table(ticket)
        if self.state.active is not None and self.state.active != node:
            self._take_away(self.state.active)
        failing = any(s.state == "failing-over" for s in self.state.services.values())
        conditions = ["failover"] if fact.event == "FAILOVER" or failing or self._failover_open() else []
        self.fire_failover("start_called", conditions, node=node, clp_event=fact.event)
        self._begin_term(node, ticket)
        self.fire_node(node, "activated")
        for command in ticket.commands:
            if command.service in self.state.services:
                self.fire_service(command.service, "start_called", conditions)
        self.turn(fact.ticket, 1)

    def _failover_open(self) -> bool:
        return self.state.failover is not None and self.state.failover.state != "resuming"

    def _is_older(self, ticket: TicketStatus) -> bool:
        present = [self.state.tickets.get(name or "") for name in (self.state.start_ticket, self.state.stop_ticket)]
        return any(other is not None and other.ticket != ticket.ticket and other.called_ms > ticket.called_ms for other in present)

    def _take_away(self, node: str) -> None:
        for name, service in self.state.services.items():
            if service.node == node:
                self.fire_service(name, "taken_away")
        self.fire_node(node, "taken_away")

    def _begin_term(self, node: str, ticket: TicketStatus | None) -> None:
        """The group comes up on `node`: the next term. Without a ticket: somebody else brought it up, and dcsup takes it over."""
        term = self.state.term + 1
        services: dict[str, Any] = {}
        for name in self.state.services:
            command = next((c for c in ticket.commands if c.service == name), None) if ticket else None
            services[name] = {"node": node, "verified": False, "verified_ms": None, "last_start_verb": command.verb if command else None}
        changes: dict[str, Any] = {
            "term": term, "active": node, "services": services, "start_ticket": ticket.ticket if ticket else None,
            "nodes": {name: {"role": "active" if name == node else "standby"} for name in self.state.nodes},
            "schedules": self.owe_schedules(), "deadlines": self._call_deadlines(),
        }  # fmt: skip
        if ticket is not None:
            changes["tickets"] = {ticket.ticket: ticket.model_copy(update={"term": term}).model_dump(mode="json")}
            changes["deadlines"][f"start:{ticket.ticket}"] = self.due(self.settings.start.deadline)
        self.decide("TermBegan", None, node=node, data={"term": term, "ticket": ticket.ticket if ticket else None}, changes=changes)

    def _call_deadlines(self) -> dict[str, int | None]:
        """Those of the calls before, which a new call takes the place of."""
        return {name: None for name in self.state.deadlines if name.startswith(("start:", "stop:", "resume:"))}

    def on_stop_hook(self, node: str, fact: f.StopHookCalled) -> None:
        ticket = self.state.tickets[fact.ticket]
        if self._is_older(ticket):
            self._complete_record(ticket)
            return
        self.compare_with_table(ticket)
        suspected = self.state.failover is not None and self.state.failover.state in ("suspected", "acting")
        kind = records.MOVING_FACTORS.get(fact.factor)
        if kind is None and suspected and fact.factor in ("", "RESOURCESTOP"):
            kind = "failure"  # the cluster manager did not say why; what was seen before does
        conditions = ["moving"] if kind is not None else []
        self.decide(
            "StopAccepted", None, node=node, data={"ticket": fact.ticket, "factor": fact.factor},
            changes={
                "stop_ticket": fact.ticket,
                "deadlines": self._call_deadlines() | {f"stop:{fact.ticket}": self.due(self.settings.stop.deadline)},
            },
        )
        self.freeze_baseline()
        self.fire_failover("stop_called", conditions, kind=kind, node=node)
        self.freeze_baseline()
        if kind is not None:
            self.fire_node(node, "evacuated")
        for command in ticket.commands:
            if command.service in self.state.services:
                self.fire_service(command.service, "stop_called", conditions)
        self.turn(fact.ticket, 1)

    def on_command_ended(self, node: str, fact: f.CommandEnded) -> None:
        ticket = self.state.tickets.get(fact.ticket)
        if ticket is None or fact.service not in self.state.services:
            return
        if fact.ticket not in (self.state.start_ticket, self.state.stop_ticket):
            self._complete_record(ticket)
            return
        if ticket.script == "stop":
            if fact.result == "lost":
                self.fire_service(fact.service, "stop_lost", ticket=ticket)
            elif ticket.owner == "dcsup" and ticket.code is None:
                self.turn(fact.ticket, fact.n + 1)
        elif fact.result == "fail":
            moved = self.fire_service(fact.service, "start_failed", ticket=ticket).moved
            for name in self._unverified(ticket):
                self.fire_service(name, "start_gave_up", ticket=ticket)
            self._start_over_if(moved, ticket, f"{fact.verb} of {fact.service} failed")
        elif fact.result == "lost":
            self.fire_service(fact.service, "start_lost", ticket=ticket)

    def _unverified(self, ticket: TicketStatus) -> list[str]:
        return [c.service for c in ticket.commands if c.service in self.state.services and not self.state.services[c.service].verified]

    def _start_over_if(self, moved: bool, ticket: TicketStatus, reason: str) -> None:
        if moved:
            self.clear_deadlines(f"start:{ticket.ticket}")
            self.fire_failover("start_failed", reason=reason)

    def on_script_ended(self, node: str, fact: f.ScriptEnded) -> None:
        ticket = self.state.tickets.get(fact.ticket)
        if ticket is None:
            return
        known = [c.service for c in ticket.commands if c.service in self.state.services]
        if fact.ticket == self.state.start_ticket and fact.script == "start":
            if fact.code == 0:
                for name in self._unverified(ticket):
                    self._verified(name, node)
            else:
                moved = [self.fire_service(name, "start_gave_up", ticket=ticket).moved for name in self._unverified(ticket)]
                self._start_over_if(any(moved), ticket, f"the start script returned {fact.code}")
        elif fact.ticket == self.state.stop_ticket and fact.script == "stop" and fact.code == 0:
            self._stopped(ticket, known)
        else:
            self._complete_record(ticket)

    def _stopped(self, ticket: TicketStatus, known: list[str]) -> None:
        self.clear_deadlines(f"stop:{ticket.ticket}")
        for name in known:
            self.fire_service(name, "stop_ended")
        changes: dict[str, Any] = {"services": {name: {"verified": False, "verified_ms": None} for name in known}}
        if all(service.state == "stopped" for service in self.state.services.values()):
            changes |= {"active": None, "nodes": {ticket.node: {"role": "standby"}}}
        self.decide("StopEnded", None, node=ticket.node, data={"ticket": ticket.ticket}, changes=changes)
        self.fire_failover("stop_ended", ticket=ticket.ticket)

    def _complete_record(self, ticket: TicketStatus) -> None:
        """A late fact of an older stop completes the record of its failover and moves no state."""
        if ticket.script != "stop":
            return
        candidates = [*self.state.failovers, *([self.state.failover] if self.state.failover else [])]
        for present in reversed(candidates):
            start = present.points.get("start_called")
            if present.node_from != ticket.node or start is None or not start - 3_600_000 < ticket.called_ms <= start:
                continue
            record = present.model_copy(deep=True)
            records.note_stop_points(self, record, ticket)
            phases.settle(record)
            if record != present:
                body = record.model_dump(mode="json")
                changes = {"ended": body} if record.state == "ended" else {"failover": body}
                self.decide("FailoverAmended", None, node=ticket.node, data={"failover": body}, changes=changes)
            return

    # --- polls

    def on_polled(self, node: str, fact: f.ServicePolled) -> None:
        service = self.state.services.get(fact.service)
        if service is None:
            return
        self.fire_node(node, "polled")
        start = self.state.tickets.get(self.state.start_ticket or "")
        if start is not None and self.at_ms < start.called_ms:
            return  # of an older episode
        if fact.status == "healthy" and fact.verified:
            self._verified(fact.service, node, fact.ticket)
            self._clear_if_well()
        elif fact.status == "unhealthy" and node == service.node:
            self.fire_service(fact.service, "unhealthy", ["served"] if service.verified else [])
        self._watch_double_activation(fact.service)

    def _verified(self, name: str, node: str, ticket_name: str | None = None) -> None:
        service = self.state.services[name]
        start = self.state.tickets.get(self.state.start_ticket or "")
        asked = start is not None and start.node == node and start.code is None
        here = node == service.node and (not asked or ticket_name == self.state.start_ticket)
        if service.state in ("stopped", "failing-over", "failed"):
            if self._adopts(node, asked):
                self._adopt(name, node)
                return
            here = False
        owed = here and name in self.state.schedules and self.state.schedules[name].owed
        if here and not service.verified:
            self._note_verified(name)
        self.fire_service(name, "verified", [*(["here"] if here else []), *(["owing"] if owed else [])])
        if here:
            self._after_verified()

    def _note_verified(self, name: str) -> None:
        self.decide(
            "ServiceVerified", "G20", service=name, node=self.state.services[name].node,
            changes={"services": {name: {"verified": True, "verified_ms": self.at_ms}}},
        )  # fmt: skip

    def _adopts(self, node: str, asked: bool) -> bool:
        """Whether a service that nobody asked us for is the group's: on the node where the manager, or we, last had the group."""
        if asked:
            return False
        if self.state.view is not None and self.state.view.current is not None:
            return self.state.view.current == node
        return self.state.active in (None, node)

    def _adopt(self, name: str, node: str) -> None:
        if self.state.active != node:
            self._begin_term(node, None)
        self._note_verified(name)
        owed = name in self.state.schedules and self.state.schedules[name].owed
        in_failover = self.state.failover is not None
        self.fire_service(name, "verified", ["adopt_owing"] if owed and in_failover else ["adopt"])
        self._after_verified()

    def _after_verified(self) -> None:
        start = self.state.tickets.get(self.state.start_ticket or "")
        if start is not None:
            waiting = next((c for c in start.commands if c.service in self._unverified(start)), None)
            if waiting is not None and start.owner == "dcsup" and start.code is None and waiting.job_id is None and waiting.result is None:
                self.turn(start.ticket, waiting.n)
        if all(service.verified for service in self.state.services.values()):
            if start is not None:
                self.clear_deadlines(f"start:{start.ticket}")
            self.fire_failover("all_verified")
            if self.settings.schedules.probe == "none":
                self.judge_all()
            self.end_if_all_judged()

    def _clear_if_well(self) -> None:
        """A suspicion is cleared when what it was about is well again: node, watch and every service of the group's node."""
        failover, active = self.state.failover, self.state.active
        if failover is None or failover.state != "suspected" or active is None:
            return
        node = self.state.nodes[active]
        polls = [service.polls.get(active) for service in self.state.services.values()]
        if node.present and node.watched and all(poll is not None and poll.status == "healthy" for poll in polls):
            self.fire_failover("cleared", reason="the symptom went away")

    def _watch_double_activation(self, name: str) -> None:
        polls = self.state.services[name].polls
        present = {name for name, node in self.state.nodes.items() if node.present}
        up = sorted(node for node, poll in polls.items() if poll.status == "healthy" and node in present)
        if len(up) > 1 and not self.state.double_activation:
            self.decide("DoubleActivationReported", "I1", service=name, data={"nodes": up}, changes={"double_activation": True})
        elif len(up) <= 1 and self.state.double_activation:
            self.decide("DoubleActivationEnded", "I1", service=name, changes={"double_activation": False})
    def on_schedules(self, node: str, fact: f.SchedulesObserved) -> None:
        status, service = self.state.schedules.get(fact.service), self.state.services.get(fact.service)
        if status is None or service is None or not status.owed or service.verified_ms is None or service.node != node:
            return
        if self.at_ms < service.verified_ms + 1000 * self.settings.schedules.settle:
            return
        if not any(v.outcome in ("missed", "unknown") for v in self.judgement(fact.service).schedules):
            self.judge(fact.service)
            self.end_if_all_judged()

    # --- symptoms and what the manager says

    def symptom(self, trigger: str) -> None:
        self.freeze_baseline()
        self.fire_failover("symptom", trigger=trigger)

    def _serves(self, node: str) -> bool:
        return self.state.active == node and any(s.verified or s.state in ("starting", "recovering") for s in self.state.services.values())

    def on_node_joined(self, node: str, fact: f.NodeJoined) -> None:
        status = self.state.nodes.get(node)
        if status is None:
            return
        self.fire_node(node, "joined", ["was_lost"] if status.was_lost else [])
        if self._serves(node) and self.boot_before not in (None, fact.boot):
            self.symptom("node")
        self._clear_if_well()

    def on_node_lost(self, node: str, fact: f.NodeLost) -> None:
        self.fire_node(node, "lost", ["active"] if self._serves(node) else [])

    def on_node_returned(self, node: str, fact: f.NodeReturned) -> None:
        self.fire_node(node, "returned")
        self._clear_if_well()

    def on_node_left(self, node: str, fact: f.NodeLeft) -> None:
        self.fire_node(node, "left")

    def on_watch_lost(self, node: str, fact: f.WatchLost) -> None:
        if self._serves(node):
            self.symptom("watch")

    def on_watch_returned(self, node: str, fact: f.WatchReturned) -> None:
        self._clear_if_well()

    def on_declined(self, node: str, fact: f.ScriptDeclined) -> None:
        if fact.reason == "recover":
            self.fire_node(node, "recover_called")
        elif fact.reason == "disk-failure":
            self.fire_node(node, "disk_failed")

    def on_alert(self, node: str, fact: f.AlertReceived) -> None:
        key = (fact.module, fact.id)
        if key in ALERT_SYMPTOMS:
            self.symptom("alert")
        elif key in ALERT_ACTS:
            self._manager_acted("alert", ALERT_ACTS[key], None)
        elif key == ALERT_DOUBLE_ACTIVATION and not self.state.double_activation:
            self.decide("DoubleActivationReported", "I1", data={"nodes": []}, changes={"double_activation": True})

    def on_viewed(self, node: str, fact: f.ClusterViewed) -> None:
        """In mode observe the manager's own view is what tells that it acts; in supervise the hooks tell it better."""
        if fact.double_activation and not self.state.double_activation:
            self.decide("DoubleActivationReported", "I1", data={"nodes": []}, changes={"double_activation": True})
        if self.settings.mode != "observe":
            return
        if fact.current is not None and self.state.active not in (None, fact.current):
            self._manager_acted("cluster-view", "failure" if self.state.failover else "move", fact.current)
        quiet = self.state.failover is None or self.state.failover.state == "suspected"
        if fact.current is None and fact.group_state == "offline" and quiet:
            self._seen_offline()
        if fact.current is not None and fact.group_state == "online":
            for name, service in self.state.services.items():
                poll = service.polls.get(fact.current)
                if poll is not None and poll.verified and not service.verified:
                    self._verified(name, fact.current)

    def _seen_offline(self) -> None:
        self.fire_failover("stop_called", kind=None)
        for name in self.state.services:
            self.fire_service(name, "seen_offline", ["observing"])
        unverified = {name: {"verified": False, "verified_ms": None} for name in self.state.services}
        self.decide("GroupSeenOffline", None, changes={"active": None, "services": unverified})

    def _manager_acted(self, trigger: str, kind: Kind, node_to: str | None) -> None:
        self.freeze_baseline()
        self.fire_failover("manager_acted", trigger=trigger, kind=kind, node=node_to)
        if self.state.active is not None and self.state.active != node_to:
            self._take_away(self.state.active)

    # --- deadlines, operators, counting

    def on_deadline(self, node: str, fact: f.DeadlinePassed) -> None:
        kind, _, what = fact.deadline.partition(":")
        if kind in ("start", "stop") and what in self.state.tickets:
            ticket = self.state.tickets[what]
            moved = False
            for command in ticket.commands:
                if command.service in self.state.services:
                    served = ["served"] if self.state.services[command.service].verified else []
                    moved |= self.fire_service(command.service, f"{kind}_deadline", served, ticket).moved
            if kind == "start" and moved:
                self.fire_failover("start_failed", reason="not verified before the deadline")
        elif kind == "takeover":
            for name in self.state.services:
                self.fire_service(name, "takeover_deadline")
            self.fire_failover("takeover_deadline", reason="the group was not started anywhere in time")
        elif kind == "suspicion":
            self.fire_failover("suspicion_deadline", reason="the manager did not act")
        elif kind == "resume":
            self.judge_all()
            self.end_if_all_judged()
        elif kind == "node":
            self.fire_node(what, "probation_passed")

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
        self.skip(None, f"refused-{fact.reason}", detail=fact.detail or fact.job_id)

    def on_dropped(self, node: str, fact: f.FactsDropped) -> None:
        self.decide("FactsLost", "I5", node=node, data={"count": fact.count, "stream": "disk"})

def _evidence(arrival: Arrival, at_ms: float) -> dict[str, Any]:
    envelope = arrival.envelope
    return {
        "inbox": arrival.inbox, "inbox_id": arrival.inbox_id, "oldest": envelope.oldest, "at_ms": at_ms,
        "at_error_ms": envelope.at_error_ms, "clock": envelope.clock, "boot": envelope.boot, "mono": envelope.mono, "wall": envelope.wall,
    }  # fmt: skip

_HANDLERS: dict[str, Callable[[_Step, str, Any], None]] = {
    "StartHookCalled": _Step.on_start_hook, "StopHookCalled": _Step.on_stop_hook, "CommandEnded": _Step.on_command_ended,
    "ScriptEnded": _Step.on_script_ended, "ServicePolled": _Step.on_polled, "SchedulesObserved": _Step.on_schedules,
    "NodeJoined": _Step.on_node_joined, "NodeLost": _Step.on_node_lost, "NodeReturned": _Step.on_node_returned,
    "NodeLeft": _Step.on_node_left, "WatchLost": _Step.on_watch_lost, "WatchReturned": _Step.on_watch_returned,
    "ScriptDeclined": _Step.on_declined, "AlertReceived": _Step.on_alert, "ClusterViewed": _Step.on_viewed,
    "DeadlinePassed": _Step.on_deadline, "PauseRequested": _Step.on_pause, "ResumeRequested": _Step.on_resume,
    "CommandRefused": _Step.on_refused, "FactsDropped": _Step.on_dropped,
}  # fmt: skip

EVIDENCE_ONLY: dict[str, str] = {
    "CommandStarted": "its time is a boundary of a phase",
    "FallbackTaken": "from here on the ticket is the script's",
    "WatchHookStarted": "for the reader of the log",
    "WatchHookEnded": "the manager acts on it, and tells by a hook",
    "ProbeFailed": "shown, and judged at the deadline",
    "ClusterViewFailed": "shown",
    "LogTailLost": "shown and alerted on; the outboxes offer again by themselves",
    "LeadTaken": "raises the epoch",
    "ConfigurationChanged": "replaces the settings",
}
"""Facts that change what is known and lead to no decision, and why."""

HANDLED = frozenset(_HANDLERS)
