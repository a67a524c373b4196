"""The working copy of a step, and the ways in which a decision is made: fire a machine, issue a command, give a verdict.

Each decision is sealed and folded at once, so that the next one already sees it, and so that the live state is by construction the
fold of what is logged (I6). What a row's action means beyond that is said in `records.py` for failovers and in `judging.py` for
schedules; which event is fired when, in `cluster.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from statemachines import phases, records, wire
from statemachines.configuration import ClusterSettings
from statemachines.entries import Entry, Sealed, next_id, seal, time_of
from statemachines.folding import fold
from statemachines.machine import Fired
from statemachines.states import ClusterState, CommandStatus, FailoverStatus, TicketStatus
from statemachines.tables import MACHINES, allows, verb_of

LATE_MS = 5000.0
"""A fact handed in later than this after it happened is on its node's clock, and says so."""


@dataclass(frozen=True, slots=True)
class JobOrder:
    """A job that goes onto a node's command queue in the same commit as the decision that ordered it."""

    node: str
    job_id: str
    payload: dict[str, Any]
    not_after_ms: int | None


class Deciding:
    """What has been decided so far, on a copy of the state."""

    def __init__(self, before: ClusterState) -> None:
        self.before = before
        """The state that the fact found; never changed."""
        self.state = before.working_copy()
        self.entries: list[Sealed] = []
        self.jobs: list[JobOrder] = []
        self.cause: str = ""
        self.at_ms: float = 0.0
        self.now_ms: int = 0
        self.clock = "redis"

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
        """When a deadline that begins now is due. Under pause the clocks stand: then it begins when the pause began, and moves with it."""
        paused_ms = self.state.paused_since_ms
        return (self.now_ms if paused_ms is None else paused_ms) + round(seconds * 1000)

    def current_call(self) -> TicketStatus | None:
        """The call that was accepted last: a stop of this term, or else the start that began it."""
        stop = self.state.tickets.get(self.state.stop_ticket or "")
        return stop if stop is not None and stop.term == self.state.term else self.state.tickets.get(self.state.start_ticket or "")

    def is_current(self, ticket: TicketStatus) -> bool:
        call = self.current_call()
        return call is not None and call.ticket == ticket.ticket

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
                changes = None if fired.target in SERVED or not service.verified else {"services": {name: NOT_VERIFIED}}
                self.decide("ServiceStateChanged", fired.row.rule, transitions=move, service=name, node=service.node, changes=changes)
            if action in _VERDICTS and ticket is not None:
                self.issue_verdict(fired.row.rule, ticket, _VERDICTS[action], fired.row.why)
            elif action == "suspect":
                self.symptom("poll")
            elif action == "await_schedules":
                self.await_schedules(fired.row.rule)
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

    def fire_failover(self, event: str, conditions: Iterable[str] = (), **details: Any) -> bool:
        """Whether the event was one for it."""
        present = self.state.failover
        fired = MACHINES["failover"].fire(present.state if present else "none", event, conditions)
        if fired.row.action is None:
            return False
        if present is None:
            record = FailoverStatus(id=f"F{self.state.failover_count + 1}", node_from=self._group_was_on())
        else:
            record = FailoverStatus.model_validate(present.model_dump())
        if fired.target != "none":
            record.state = fired.target  # type: ignore[assignment]
        records.ACTIONS[fired.row.action](self, record, details)
        self._log_failover(fired, present, record)
        if fired.target == "ended":
            for name in self.state.nodes:
                self.fire_node(name, "episode_ended", ["present"] if self.state.nodes[name].present else [])
        if fired.row.action == "supersede" and (event != "stop_called" or "moving" in conditions):
            self.fire_failover(event, conditions, **details)
        return True

    def _group_was_on(self) -> str | None:
        """The node that has the group, or that had it until its stop ended."""
        stop = self.state.tickets.get(self.state.stop_ticket or "")
        return self.state.active or (stop.node if stop is not None and stop.term == self.state.term else None)

    def _log_failover(self, fired: Fired, present: FailoverStatus | None, record: FailoverStatus) -> None:
        phases.settle(record)
        records.note_outages(self.state, record)
        settled = records.claim_move(self.state, record)
        body = record.model_dump(mode="json")
        ended = record.state == "ended"
        deadlines: dict[str, int | None] = dict(self._failover_deadlines(record))
        changes: dict[str, Any] = {"failover": None if ended else body, "deadlines": deadlines}
        if settled and self.state.move is not None:
            changes["move"] = None
            deadlines[f"move:{self.state.move.request}"] = None
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

    def amend(self, present: FailoverStatus, complete: Callable[[FailoverStatus], None], node: str | None = None) -> None:
        """What was told late completes a failover's record, whether it has ended or not; it moves no state."""
        record = present.model_copy(deep=True)
        complete(record)
        phases.settle(record)
        if record == present:
            return
        body = record.model_dump(mode="json")
        changes = {"ended": body} if record.state == "ended" else {"failover": body}
        self.decide("FailoverAmended", None, node=node, data={"failover": body}, changes=changes)

    def known_failovers(self) -> list[FailoverStatus]:
        """Those that are remembered, the open one last."""
        return [*self.state.failovers, *([self.state.failover] if self.state.failover else [])]

    def _failover_deadlines(self, record: FailoverStatus) -> dict[str, int | None]:
        suspicion, takeover = f"suspicion:{record.id}", f"takeover:{record.id}"
        wanted = {"suspected": suspicion, "acting": takeover}.get(record.state)
        deadlines: dict[str, int | None] = {n: None for n in (suspicion, takeover) if n in self.state.deadlines and n != wanted}
        if wanted is not None and wanted not in self.state.deadlines:
            seconds = self.settings.suspicion_deadline if record.state == "suspected" else self.settings.takeover_deadline
            deadlines[wanted] = self.due(seconds)
        return deadlines

    def skip(
        self, fired: Fired | None, reason: str, *, service: str | None = None, detail: str = "", rule: str | None = None
    ) -> None:  # fmt: skip
        data = {"reason": reason} | ({"why": fired.row.why} if fired else {}) | ({"detail": detail} if detail else {})
        self.decide("DecisionSkipped", fired.row.rule if fired else rule, data=data, service=service)

    # --- commands and verdicts

    def _issue_command(self, fired: Fired, ticket: TicketStatus, n: int) -> None:
        command = ticket.commands[n - 1]
        wait_s = self.settings.ack_timeout if n == 1 else LATE_MS / 1000
        payload = {"kind": "command", "ticket": ticket.ticket, "n": n, "service": command.service, "verb": command.verb,
                   "not_after_ms": self.due(wait_s)}  # fmt: skip
        job_id = self._order(ticket.node, payload, self.due(wait_s))
        updated = ticket.model_dump(mode="json")
        updated["commands"][n - 1]["job_id"] = job_id
        self.decide(
            "CommandIssued", fired.row.rule, node=ticket.node, service=command.service,
            data={"job_id": job_id, "ticket": ticket.ticket, "n": n, "verb": command.verb, "not_after_ms": self.due(wait_s)},
            changes={"tickets": {ticket.ticket: updated}},
        )  # fmt: skip

    def issue_verdict(self, rule: str, ticket: TicketStatus, code: Literal[40, 75], reason: str) -> None:
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
            self.issue_verdict("G1", ticket, 75, f"service {command.service} is not configured here")
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
        if ticket.script == "start" and self._lacks_agent(command.service):
            conditions.append("agent_missing")
        if fresh and waiting and command.is_untouched and self.is_current(ticket) and self._may_run(ticket, command):
            conditions.append("live")
        return conditions

    def _may_run(self, ticket: TicketStatus, command: CommandStatus) -> bool:
        service = self.settings.service(command.service)
        return service is not None and allows(service, ticket.script, command.verb)

    def _lacks_agent(self, service: str) -> bool:
        """Whether a server's turn comes before its agents run (G23). Other services are only earlier or later in the order."""
        asked = self.settings.service(service)
        agents = [s.name for s in self.settings.services if s.kind == "agent"]
        return asked is not None and asked.kind == "server" and any(not self.state.services[name].verified for name in agents)

    def compare_with_table(self, ticket: TicketStatus) -> None:
        """The ticket's list is the law; where it differs from what the site chose, or else the guide's table, that is reported
        (NODE.md, consequences): the scripts on the node are not those of the present configuration."""
        order = self.settings.services if ticket.script == "start" else self.settings.services[::-1]
        expected = [{"service": s.name, "verb": verb_of(s, ticket.script, ticket.event)} for s in order]
        asked = [{"service": c.service, "verb": c.verb} for c in ticket.commands]
        if asked != expected:
            data = {"ticket": ticket.ticket, "asked": asked, "expected": expected}
            self.decide("CommandListDiffered", "G8-G15", node=ticket.node, data=data)

    def clear_deadlines(self, *names: str) -> None:
        if present := [name for name in names if name in self.state.deadlines]:
            self.decide("DeadlinesCleared", "I3", data={}, changes={"deadlines": dict.fromkeys(present)})

    # --- what rows ask for, said in the modules that build on this one

    def symptom(self, trigger: str) -> None:
        raise AssertionError("the step says what a symptom does")

    def await_schedules(self, rule: str) -> None:
        raise AssertionError("the step says how schedules are awaited")


SERVED = frozenset({"starting", "recovering", "running"})
"""The states in which a service can be verified; in every other it is served nowhere."""

NOT_VERIFIED: dict[str, Any] = {"verified": False, "verified_ms": None}

_VERDICTS: dict[str, Literal[40, 75]] = {"give_way": 75, "refuse_start": 40, "refuse_stop": 40}
SERVICE_ACTIONS = frozenset({"issue_command", "suspect", "await_schedules", *_VERDICTS})
NODE_ACTIONS = frozenset({"suspect", "begin_probation"})
