"""One step: a fact in, entries out. All branching of the core is here; which row applies is said by tables.py.

`step` works on a copy, so a fact that makes it raise leaves nothing behind. Each decision is sealed and folded at once, so that the
next one already sees it, and so that the live state is by construction the fold of what is logged (I6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from statemachines import facts as f
from statemachines import invariants, phases, schedules, wire
from statemachines.configuration import ClusterSettings
from statemachines.entries import Entry, Sealed, next_id, seal, time_of
from statemachines.facts import AnyFact, Envelope
from statemachines.folding import fold
from statemachines.machine import Fired
from statemachines.states import ClusterState, CommandStatus, FailoverStatus, Judgement, Kind, TicketStatus
from statemachines.tables import ALLOWED_VERBS, MACHINES, VERBS

MOVING_FACTORS: dict[str, Kind] = {
    "GROUPMOVE": "move", "GROUPFAILOVER": "failure", "RESOURCERESTART": "restart", "GROUPRESTART": "restart",
    "SERVERSHUTDOWN": "shutdown", "SERVERREBOOT": "shutdown",
}  # fmt: skip
"""CLP_FACTOR values that say that the group is to come up again, and what the failover is then called (CLUSTERPRO.md 1.1)."""

ALERT_SYMPTOMS = frozenset({("nm", 2), ("rm", 9)})
ALERT_ACTS: dict[tuple[str, int], Kind] = {
    ("rc", 60): "failure", ("rm", 14): "failure", ("rc", 50): "move", ("rc", 80): "restart", ("rm", 13): "restart"
}  # fmt: skip
"""Alert ids that are a first symptom, or say that the manager acts (CLUSTERPRO.md 6.2)."""

ALERT_DOUBLE_ACTIVATION = ("rc", 92)
LATE_MS = 5000.0
"""A fact handed in later than this after it happened is on its node's clock, and says so."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A parsed fact as it stands in an inbox."""

    inbox: str
    """A node's name, `_leader` or `_operator`."""
    inbox_id: str
    envelope: Envelope
    fact: AnyFact


@dataclass(frozen=True, slots=True)
class JobOrder:
    """A job that goes onto a node's command queue in the same commit as the decision that ordered it."""

    node: str
    job_id: str
    payload: dict[str, Any]
    not_after_ms: int | None


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
    return _Step(_copy(state)).take(arrival)


def quarantine(state: ClusterState, inbox: str, inbox_id: str, reason: str, envelope: Envelope | None) -> StepResult:
    """Log that an inbox entry was put aside, and why. With a readable envelope its number counts as applied."""
    return _Step(_copy(state)).put_aside(inbox, inbox_id, reason, envelope)


def _copy(state: ClusterState) -> ClusterState:
    return ClusterState.model_validate_json(state.model_dump_json())


class _Step:
    """The working copy, and what has been decided so far."""

    def __init__(self, state: ClusterState) -> None:
        self.state = state
        self.entries: list[Sealed] = []
        self.jobs: list[JobOrder] = []
        self.cause: str = ""
        self.at_ms: float = 0.0
        self.now_ms: int = 0
        self.clock = "redis"
        self.boot_before: str | None = None

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

    def _append(self, entry_id: str, **fields: Any) -> None:
        sealed = seal(Entry(id=entry_id, time=time_of(entry_id), version=1, cluster=self.state.cluster, **fields), self.state.last_hash)
        fold(self.state, sealed)
        self.entries.append(sealed)

    def decide(
        self, kind: str, rule: str | None, *, data: dict[str, Any] | None = None, changes: dict[str, Any] | None = None,
        transitions: list[dict[str, str]] | None = None, node: str | None = None, service: str | None = None,
    ) -> None:  # fmt: skip
        body = dict(data or {})
        if changes:
            body["changes"] = changes
        self._append(
            next_id(self.state.last_id), type=kind, node=node, service=service, source="dcsup", source_id=None, cause=self.cause,
            rule=rule, transitions=transitions or [], data=body,
        )  # fmt: skip

    @property
    def settings(self) -> ClusterSettings:
        assert self.state.settings is not None
        return self.state.settings

    def due(self, seconds: float) -> int:
        return self.now_ms + round(seconds * 1000)

    # --- firing the machines

    def fire_service(self, name: str, event: str, conditions: Iterable[str] = (), ticket: TicketStatus | None = None, n: int = 0) -> Fired:
        service = self.state.services[name]
        fired = MACHINES["service"].fire(service.state, event, conditions)
        move = [{"machine": f"service:{name}", "from": fired.source, "to": fired.target}] if fired.moved else []
        action = fired.row.action
        if fired.row.answer == "reject":
            self.skip(fired, f"{event}-in-{fired.source}", service=name)
        elif action == "issue_command":
            assert ticket is not None
            self._issue_command(fired, ticket, n)
        else:
            if fired.moved:
                self.decide("ServiceStateChanged", fired.row.rule, transitions=move, service=name, node=service.node)
            if action in _VERDICTS and ticket is not None:
                self._issue_verdict(fired.row.rule, ticket, _VERDICTS[action], fired.row.why)
            elif action == "suspect":
                self.symptom("poll")
            elif action == "await_schedules":
                self._await_schedules(fired.row.rule)
        return fired

    def fire_node(self, name: str, event: str, conditions: Iterable[str] = ()) -> Fired | None:
        if name not in self.state.nodes:
            return None
        fired = MACHINES["node"].fire(self.state.nodes[name].state, event, conditions)
        changes: dict[str, Any] = {}
        if fired.row.action == "begin_probation":
            changes["deadlines"] = {f"node:{name}": self.due(self.settings.probation)}
        if (event == "lost" and fired.row.answer == "accept") or (event == "episode_ended" and fired.moved and fired.target == "stopped"):
            changes["nodes"] = {name: {"was_lost": True}}
        elif fired.moved and fired.target == "running":
            changes["nodes"] = {name: {"was_lost": False}}
        if fired.moved and fired.target not in ("starting", "recovering") and f"node:{name}" in self.state.deadlines:
            changes["deadlines"] = {f"node:{name}": None}
        if fired.moved or changes:
            move = [{"machine": f"node:{name}", "from": fired.source, "to": fired.target}] if fired.moved else []
            self.decide("NodeStateChanged", fired.row.rule, transitions=move, node=name, changes=changes)
        if fired.row.action == "suspect":
            self.symptom("node")
        return fired

    def fire_failover(self, event: str, conditions: Iterable[str] = (), **details: Any) -> None:
        present = self.state.failover
        fired = MACHINES["failover"].fire(present.state if present else "none", event, conditions)
        if fired.row.action is None:
            return
        if present is None:
            record = FailoverStatus(id=f"F{self.state.failover_count + 1}", node_from=self.state.active)
        else:
            record = present.model_copy(deep=True)
        if fired.target != "none":
            record.state = fired.target  # type: ignore[assignment]
        _FAILOVER_ACTIONS[fired.row.action](self, record, details)
        self._log_failover(fired, present, record)
        if fired.target == "ended":
            for name in self.state.nodes:
                self.fire_node(name, "episode_ended", ["present"] if self.state.nodes[name].present else [])
        if fired.row.action == "supersede" and (event != "stop_called" or "moving" in conditions):
            self.fire_failover(event, conditions, **details)

    def _log_failover(self, fired: Fired, present: FailoverStatus | None, record: FailoverStatus) -> None:
        phases.settle(record)
        body = record.model_dump(mode="json")
        ended = record.state == "ended"
        deadlines: dict[str, int | None] = dict(self._failover_deadlines(record))
        changes: dict[str, Any] = {"failover": None if ended else body, "deadlines": deadlines}
        if ended:
            changes["ended"] = body
        if record.outcome == "cleared":
            changes["schedules"] = {name: {"baseline": None, "symptom_ms": None} for name, s in self.state.schedules.items() if not s.owed}
        if present is None:
            changes["failover_count"] = self.state.failover_count + 1
        kind = "FailoverEnded" if ended else "FailoverOpened" if present is None else "FailoverAdvanced"
        move = [{"machine": f"failover:{record.id}", "from": fired.source, "to": fired.target}] if fired.moved else []
        node = record.node_to or record.node_from
        self.decide(kind, fired.row.rule, data={"failover": body}, changes=changes, transitions=move, node=node)

    def _failover_deadlines(self, record: FailoverStatus) -> dict[str, int | None]:
        suspicion, takeover = f"suspicion:{record.id}", f"takeover:{record.id}"
        wanted = {"suspected": suspicion, "acting": takeover}.get(record.state)
        deadlines: dict[str, int | None] = {n: None for n in (suspicion, takeover) if n in self.state.deadlines and n != wanted}
        if wanted is not None and wanted not in self.state.deadlines:
            seconds = self.settings.suspicion_deadline if record.state == "suspected" else self.settings.takeover_deadline
            deadlines[wanted] = self.due(seconds)
        return deadlines

    def skip(self, fired: Fired | None, reason: str, *, service: str | None = None, detail: str = "") -> None:
        data = {"reason": reason} | ({"why": fired.row.why} if fired else {}) | ({"detail": detail} if detail else {})
        self.decide("DecisionSkipped", fired.row.rule if fired else None, data=data, service=service)

    # --- commands and verdicts

    def _issue_command(self, fired: Fired, ticket: TicketStatus, n: int) -> None:
        command = ticket.commands[n - 1]
        wait_s = self.settings.ack_timeout if n == 1 else LATE_MS / 1000
        payload = {"kind": "command", "ticket": ticket.ticket, "n": n, "service": command.service, "verb": command.verb,
                   "not_after_ms": self.due(wait_s)}  # fmt: skip
        job_id = self._order(ticket.node, payload, self.due(wait_s))
        updated = ticket.model_copy(deep=True)
        updated.commands[n - 1].job_id = job_id
        self.decide(
            "CommandIssued", fired.row.rule, node=ticket.node, service=command.service,
            data={"job_id": job_id, "ticket": ticket.ticket, "n": n, "verb": command.verb, "not_after_ms": self.due(wait_s)},
            changes={"tickets": {ticket.ticket: updated.model_dump(mode="json")}},
        )  # fmt: skip

    def _issue_verdict(self, rule: str, ticket: TicketStatus, code: Literal[40, 75], reason: str) -> None:
        ticket = self.state.tickets[ticket.ticket]
        if ticket.verdict is not None or ticket.code is not None or ticket.owner == "script":
            return  # the script has its answer, or does not wait for one
        job_id = self._order(ticket.node, {"kind": "verdict", "ticket": ticket.ticket, "code": code, "reason": reason}, None)
        updated = ticket.model_copy(update={"verdict": code})
        self.decide(
            "VerdictIssued", rule, node=ticket.node, data={"job_id": job_id, "ticket": ticket.ticket, "code": code, "reason": reason},
            changes={"tickets": {ticket.ticket: updated.model_dump(mode="json")}},
        )  # fmt: skip

    def _order(self, node: str, payload: dict[str, Any], not_after_ms: int | None) -> str:
        job_id = wire.job_id(self.state.cluster, node, self.state.last_hash, 0)
        self.jobs.append(JobOrder(node, job_id, payload, not_after_ms))
        return job_id

    def turn(self, ticket_name: str, n: int) -> None:
        """Command n of a ticket is next: the service's table says whether it is issued."""
        ticket = self.state.tickets[ticket_name]
        if n > len(ticket.commands):
            return
        command = ticket.commands[n - 1]
        if command.service not in self.state.services:
            self._issue_verdict("G1", ticket, 75, f"service {command.service} is not configured here")
            return
        self.fire_service(command.service, "turn_came", self._turn_conditions(ticket, command), ticket, n)

    def _turn_conditions(self, ticket: TicketStatus, command: CommandStatus) -> list[str]:
        conditions = []
        if self.state.paused_since_ms is not None:
            conditions.append("paused")
        if self.settings.mode == "observe":
            conditions.append("observing")
        fresh = self.now_ms - ticket.called_ms <= 1000 * self.settings.ack_timeout if command.n == 1 else True
        waiting = ticket.code is None and ticket.owner == "dcsup" and ticket.verdict is None
        untouched = command.job_id is None and command.started_ms is None and command.result is None
        current = ticket.ticket in (self.state.start_ticket, self.state.stop_ticket)
        if fresh and waiting and untouched and current and command.verb in ALLOWED_VERBS[ticket.script]:
            conditions.append("live")
        return conditions

    def compare_with_table(self, ticket: TicketStatus) -> None:
        """The ticket's list is the law; where it differs from the guide's table that is reported (NODE.md, consequences)."""
        names = [s.name for s in self.settings.services]
        order = names if ticket.script == "start" else names[::-1]
        kinds = {s.name: s.kind for s in self.settings.services}
        expected = [{"service": name, "verb": VERBS[kinds[name], ticket.script, ticket.event]} for name in order]
        asked = [{"service": c.service, "verb": c.verb} for c in ticket.commands]
        if asked != expected:
            data = {"ticket": ticket.ticket, "asked": asked, "guide": expected}
            self.decide("CommandListDiffered", "G8-G15", node=ticket.node, data=data)

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
            "schedules": self._owe_schedules(), "deadlines": self._call_deadlines(),
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
        kind = MOVING_FACTORS.get(fact.factor)
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
        self._freeze_baseline()
        self.fire_failover("stop_called", conditions, kind=kind, node=node)
        self._freeze_baseline()
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
            self._clear_deadlines(f"start:{ticket.ticket}")
            self.fire_failover("start_failed", reason=reason)

    def _clear_deadlines(self, *names: str) -> None:
        if present := [name for name in names if name in self.state.deadlines]:
            self.decide("DeadlinesCleared", "I3", data={}, changes={"deadlines": dict.fromkeys(present)})

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
        self._clear_deadlines(f"stop:{ticket.ticket}")
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
            _note_stop_points(self, record, ticket)
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
                self._clear_deadlines(f"start:{start.ticket}")
            self.fire_failover("all_verified")
            if self.settings.schedules.probe == "none":
                self._judge_all()
            self._all_judged_if()

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

    # --- schedules

    def _freeze_baseline(self) -> None:
        """What ran before the first symptom is what must come back: a dead node cannot be asked any more."""
        frozen: dict[str, Any] = {}
        for name, status in self.state.schedules.items():
            if status.owed or status.symptom_ms is not None:
                continue  # the last start's are not judged yet: what had to come back then still has to
            seen = next((o for o in (status.latest, status.before) if o is not None and o.at_ms <= self.at_ms), None)
            frozen[name] = {"baseline": seen.model_dump(mode="json") if seen else None, "symptom_ms": self.at_ms}
        if frozen:
            self.decide("ScheduleBaselineTaken", "I4", data={}, changes={"schedules": frozen})

    def _owe_schedules(self) -> dict[str, Any]:
        owed: dict[str, Any] = {}
        for name, status in self.state.schedules.items():
            if status.owed:
                continue
            baseline = status.baseline or status.latest
            if baseline is not None or self.state.failover is not None:
                symptom_ms = self.at_ms if status.symptom_ms is None else status.symptom_ms
                seen = baseline.model_dump(mode="json") if baseline else None
                owed[name] = {"owed": True, "judgement": None, "baseline": seen, "symptom_ms": symptom_ms}
        return owed

    def _await_schedules(self, rule: str) -> None:
        name = f"resume:{self.state.term}"
        if name not in self.state.deadlines:
            due = {name: self.due(self.settings.schedules.deadline)}
            self.decide("SchedulesAwaited", rule, data={}, changes={"deadlines": due})

    def on_schedules(self, node: str, fact: f.SchedulesObserved) -> None:
        status, service = self.state.schedules.get(fact.service), self.state.services.get(fact.service)
        if status is None or service is None or not status.owed or service.verified_ms is None or service.node != node:
            return
        if self.at_ms < service.verified_ms + 1000 * self.settings.schedules.settle:
            return
        if not any(v.outcome in ("missed", "unknown") for v in self._judgement(fact.service).schedules):
            self._judge(fact.service)
            self._all_judged_if()

    def _judgement(self, name: str) -> Judgement:
        status, service = self.state.schedules[name], self.state.services[name]
        choice = schedules.rule_for(service.last_stop_verb, service.last_start_verb, self.settings.schedules.after_death)
        fresh = service.verified_ms is not None and status.latest is not None and status.latest.at_ms >= service.verified_ms
        observed = status.latest if fresh and self.settings.schedules.probe != "none" else None
        age_s = None
        if status.baseline is not None and status.symptom_ms is not None:
            age_s = round(max(0.0, status.symptom_ms - status.baseline.at_ms) / 1000, 3)
        return Judgement(
            service=name, rule=choice.rule, assumed=choice.assumed, evidence_age_s=age_s,
            schedules=schedules.judge(choice.rule, status.baseline, observed),
        )  # fmt: skip

    def _judge(self, name: str) -> None:
        judgement = self._judgement(name).model_dump(mode="json")
        failover = self.state.failover
        changes: dict[str, Any] = {
            "schedules": {name: {"owed": False, "judgement": judgement, "baseline": None, "symptom_ms": None}},
            "services": {name: {"last_stop_verb": None}},
        }  # fmt: skip
        if failover is not None:
            record = failover.model_dump(mode="json")
            record["judgements"] = [*record["judgements"], judgement]
            record["points"]["judged"] = self.at_ms
            record["clocks"]["judged"] = self.clock
            changes["failover"] = record
        self.decide(
            "ScheduleJudged", judgement["rule"], service=name, node=self.state.services[name].node,
            data={"judgement": judgement, "failover_id": failover.id if failover else None}, changes=changes,
        )  # fmt: skip
        self.fire_service(name, "schedules_judged", ["served"] if self.state.services[name].verified else [])

    def _judge_all(self) -> None:
        for name, status in self.state.schedules.items():
            if status.owed:
                self._judge(name)

    def _all_judged_if(self) -> None:
        if not any(status.owed for status in self.state.schedules.values()):
            self._clear_deadlines(f"resume:{self.state.term}")
            self.fire_failover("all_judged")

    # --- symptoms and what the manager says

    def symptom(self, trigger: str) -> None:
        self._freeze_baseline()
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
        if fact.current is None and fact.group_state == "offline" and (self.state.failover is None or self.state.failover.state == "suspected"):
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
        self._freeze_baseline()
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
            self._judge_all()
            self._all_judged_if()
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


_VERDICTS: dict[str, Literal[40, 75]] = {"give_way": 75, "refuse_start": 40, "refuse_stop": 40}


# --- what the failover's rows do to its record


def _point(step: _Step, record: FailoverStatus, name: str, at_ms: float | None = None) -> None:
    record.points[name] = step.at_ms if at_ms is None else at_ms
    record.clocks[name] = step.clock


def _open(step: _Step, record: FailoverStatus, details: dict[str, Any]) -> None:
    record.trigger = details["trigger"]
    _point(step, record, "symptom")


def _act(step: _Step, record: FailoverStatus, details: dict[str, Any]) -> None:
    record.kind = details["kind"] or record.kind
    record.initiator = "operator" if record.kind == "move" else "cluster"
    _point(step, record, "acted")
    _point(step, record, "stop_called")


def _open_acting(step: _Step, record: FailoverStatus, details: dict[str, Any]) -> None:
    record.trigger = "stop-hook"
    _point(step, record, "symptom")
    _act(step, record, details)


def _act_again(step: _Step, record: FailoverStatus, details: dict[str, Any]) -> None:
    """Taken away again before it was verified: the first act and stop stay, the last start will count."""
    record.kind = details["kind"]
    record.restarts += 1
    record.points.setdefault("stop_called", step.at_ms)
    for point in ("stop_ended", "start_called", "first_command", "last_command"):
        record.points.pop(point, None)


def _act_by_view(step: _Step, record: FailoverStatus, details: dict[str, Any]) -> None:
    record.kind, record.node_to = details["kind"], details["node"]
    record.initiator = "operator" if record.kind == "move" else "cluster"
    if "symptom" not in record.points:
        record.trigger = details["trigger"]
        _point(step, record, "symptom")
    _point(step, record, "acted")


def _note_stop(step: _Step, record: FailoverStatus, details: dict[str, Any]) -> None:
    ticket = step.state.tickets[details["ticket"]]
    ends = [c.ended_ms for c in ticket.commands if c.ended_ms is not None]
    _point(step, record, "stop_ended", max(ends) if ends else step.at_ms)


def _note_stop_points(step: _Step, record: FailoverStatus, ticket: TicketStatus) -> None:
    """The stop that led to this failover, told late: by its node's clock."""
    ends = [c.ended_ms for c in ticket.commands if c.ended_ms is not None]
    start = record.points["start_called"]
    _point(step, record, "stop_called", ticket.called_ms)
    _point(step, record, "acted", ticket.called_ms)
    record.points["symptom"] = min(record.points.get("symptom", ticket.called_ms), ticket.called_ms)
    if record.trigger == "start-hook":
        record.trigger = "stop-hook"
    record.kind = MOVING_FACTORS.get(ticket.factor, record.kind)
    if len(ends) == len(ticket.commands):
        _point(step, record, "stop_ended", min(max(ends), start))


def _begin_start(step: _Step, record: FailoverStatus, details: dict[str, Any]) -> None:
    record.node_to, record.term = details["node"], step.state.term + 1
    if record.kind == "none":
        record.kind = "failure" if details["clp_event"] == "FAILOVER" else "restart" if record.node_from == record.node_to else "move"
    if "acted" not in record.points:
        _point(step, record, "acted")
    _point(step, record, "start_called")


def _open_starting(step: _Step, record: FailoverStatus, details: dict[str, Any]) -> None:
    record.trigger = "start-hook"
    _point(step, record, "symptom")
    _begin_start(step, record, details)
    record.initiator = "operator" if record.kind == "move" else "cluster"


def _note_verified(step: _Step, record: FailoverStatus, details: dict[str, Any]) -> None:
    start = step.state.tickets.get(step.state.start_ticket or "")
    phases.note_commands(record, start)
    moments = [s.verified_ms for s in step.state.services.values() if s.verified_ms is not None]
    _point(step, record, "verified", max([*moments]))
    record.by_script = sum(1 for t in step.state.tickets.values() if t.called_ms >= record.points["symptom"]
                           for c in t.commands if c.by == "script" and c.ran)  # fmt: skip
    record.node_to = step.state.active


def _end(outcome: Literal["completed", "failed", "superseded", "cleared"]) -> Callable[[_Step, FailoverStatus, dict[str, Any]], None]:
    def action(step: _Step, record: FailoverStatus, details: dict[str, Any]) -> None:
        record.outcome, record.reason = outcome, details.get("reason", "")
        if outcome == "completed":
            record.points.setdefault("judged", record.points["verified"])
        else:
            _point(step, record, "ended")
            if outcome == "cleared":
                record.kind = "none"
            elif record.term is not None:
                phases.note_commands(record, step.state.tickets.get(step.state.start_ticket or ""))

    return action


_FAILOVER_ACTIONS: dict[str, Callable[[_Step, FailoverStatus, dict[str, Any]], None]] = {
    "open": _open, "open_acting": _open_acting, "open_starting": _open_starting, "act": _act, "act_again": _act_again,
    "act_by_view": _act_by_view, "note_stop": _note_stop, "begin_start": _begin_start, "note_verified": _note_verified,
    "complete": _end("completed"), "fail": _end("failed"), "supersede": _end("superseded"), "clear": _end("cleared"),
}  # fmt: skip

SERVICE_ACTIONS = frozenset({"issue_command", "suspect", "await_schedules", *_VERDICTS})
NODE_ACTIONS = frozenset({"suspect", "begin_probation"})
FAILOVER_ACTIONS = frozenset(_FAILOVER_ACTIONS)

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
