"""The fold: how an entry changes the state. Nothing else ever does (I6).

Facts leave evidence: what was seen, when, by whom. Decisions carry their whole effect with them: the `transitions` that they made and
`changes`, a patch of the state. So the state is what the log records, whatever tomorrow's rules say, and folding is cheap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from statemachines.configuration import ClusterSettings
from statemachines.entries import Entry, Sealed
from statemachines.states import (
    KEPT_FAILOVERS,
    KEPT_OUTAGES,
    KEPT_RUNBOOKS,
    KEPT_STEPS,
    KEPT_STREAMS,
    KEPT_TICKETS,
    ClusterState,
    ClusterView,
    CommandStatus,
    EndpointStatus,
    FailoverStatus,
    MetadataStatus,
    NodeStatus,
    Observation,
    Outage,
    Poll,
    RunbookStatus,
    ScheduleEntry,
    ScheduleStatus,
    ServiceStatus,
    TicketStatus,
)


def fold(state: ClusterState, sealed: Sealed) -> None:
    """Apply one entry to the state, in place."""
    entry = sealed.entry
    state.last_id, state.last_hash = entry.id, sealed.hash
    if entry.cause is not None or entry.source == "dcsup":
        state.counts.decisions += 1
        for transition in entry.transitions:
            _move(state, entry, transition)
        if entry.type == "FactQuarantined":
            state.counts.quarantined += 1
        elif entry.type == "DecisionSkipped":
            reason = entry.data["reason"]
            state.counts.skipped[reason] = state.counts.skipped.get(reason, 0) + 1
        elif entry.type == "FactsLost":
            state.counts.facts_lost += entry.data["count"]
        _note_source(state, entry)
        patch(state, entry.data.get("changes", {}))
        return
    state.counts.facts += 1
    _note_source(state, entry)
    if entry.node is not None and state.settings is not None and entry.node not in state.nodes:
        return  # a node that is not, or no more, one of the cluster's leaves nothing behind but its entry
    if (evidence := _EVIDENCE.get(entry.type)) is not None:
        evidence(state, entry)


def _move(state: ClusterState, entry: Entry, transition: dict[str, str]) -> None:
    machine, _, name = transition["machine"].partition(":")
    if machine == "service":
        service = state.services.setdefault(name, ServiceStatus())
        service.state, service.since_ms = transition["to"], entry.ms  # type: ignore[assignment]
    elif machine == "node":
        node = state.nodes.setdefault(name, NodeStatus())
        node.state, node.since_ms = transition["to"], entry.ms  # type: ignore[assignment]
    # a failover's state travels in its own record, in `changes`


def _note_source(state: ClusterState, entry: Entry) -> None:
    if entry.source_id is None or entry.evidence is None:
        return
    stream, _, seq = entry.source_id.rpartition(":")
    streams = state.sources.setdefault(entry.evidence["inbox"], {})
    streams.pop(stream, None)
    streams[stream] = int(seq)
    while len(streams) > KEPT_STREAMS:
        streams.pop(next(iter(streams)))


# --- decisions


def _put(model: BaseModel, fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        type(model).__pydantic_validator__.validate_assignment(model, name, value)


def patch(state: ClusterState, changes: dict[str, Any]) -> None:
    """Apply a decision's `changes`.

    `nodes`, `services`, `schedules`, `metadata`: name -> fields to set. `tickets`: id -> the whole ticket. `failover`: the whole open
    one, or None. `ended`: a failover that ended. `deadlines`: id -> due ms, or None to clear it. Everything else: a field of the state.
    """
    for key, value in changes.items():
        if key in ("nodes", "services", "schedules"):
            kept: dict[str, Any] = getattr(state, key)
            for name, fields in value.items():
                _put(kept.setdefault(name, _PARTS[key]()), fields)
        elif key == "metadata":
            for name, fields in value.items():
                state.metadata[name] = MetadataStatus.model_validate(state.metadata[name].model_dump() | fields)
        elif key == "tickets":
            state.tickets.update({name: TicketStatus.model_validate(ticket) for name, ticket in value.items()})
            _prune_tickets(state)
        elif key == "failover":
            state.failover = None if value is None else FailoverStatus.model_validate(value)
        elif key == "ended":
            _keep_failover(state, FailoverStatus.model_validate(value))
        elif key == "deadlines":
            for name, due_ms in value.items():
                if due_ms is None:
                    state.deadlines.pop(name, None)
                else:
                    state.deadlines[name] = due_ms
        else:
            _put(state, {key: value})


_PARTS: dict[str, Callable[[], BaseModel]] = {"nodes": NodeStatus, "services": ServiceStatus, "schedules": ScheduleStatus}


def _keep_failover(state: ClusterState, failover: FailoverStatus) -> None:
    for index, kept in enumerate(state.failovers):
        if kept.id == failover.id:  # a late fact completed the record
            state.failovers[index] = failover
            return
    state.failovers.append(failover)
    del state.failovers[:-KEPT_FAILOVERS]


def _prune_tickets(state: ClusterState) -> None:
    if len(state.tickets) <= KEPT_TICKETS:
        return
    present = (state.start_ticket, state.stop_ticket)
    spare = [name for name in state.tickets if name not in present]  # in order of arrival: one told late is still to be completed
    for name in spare[: len(state.tickets) - KEPT_TICKETS]:
        del state.tickets[name]


# --- facts: what they leave as evidence


def _at(entry: Entry) -> float:
    assert entry.evidence is not None
    at_ms: float = entry.evidence["at_ms"]
    return at_ms


def _lead_taken(state: ClusterState, entry: Entry) -> None:
    state.epoch, state.leader = entry.data["epoch"], entry.data["owner"]


def _configuration_changed(state: ClusterState, entry: Entry) -> None:
    settings = ClusterSettings.model_validate(entry.data["settings"])
    state.settings = settings
    state.nodes = {name: state.nodes.get(name, NodeStatus()) for name in settings.nodes}
    state.services = {s.name: state.services.get(s.name, ServiceStatus()) for s in settings.services}
    state.schedules = {s.name: state.schedules.get(s.name, ScheduleStatus()) for s in settings.services if s.owns_schedules}
    for service in state.services.values():
        service.polls = {name: poll for name, poll in service.polls.items() if name in state.nodes}
    state.views = {name: view for name, view in state.views.items() if name in state.nodes}
    if state.view is not None and state.view.node not in state.nodes:
        state.view = max(state.views.values(), key=lambda view: view.at_ms, default=None)
    state.metadata = {name: status for name, status in state.metadata.items() if name in state.nodes and settings.metadata is not None}
    endpoints = {endpoint.name for endpoint in settings.endpoints}
    state.endpoints = {name: status for name, status in state.endpoints.items() if name in endpoints}


def _node(state: ClusterState, entry: Entry) -> NodeStatus:
    return state.nodes.setdefault(entry.node or "", NodeStatus())


def _node_joined(state: ClusterState, entry: Entry) -> None:
    node = _node(state, entry)
    node.boot, node.present, node.watched = entry.data["boot"], True, True
    for service in state.services.values():
        service.polls.pop(entry.node or "", None)  # what an earlier worker saw there may not be so any more
    state.views.pop(entry.node or "", None)


def _node_left(state: ClusterState, entry: Entry) -> None:
    _node(state, entry).present = False


def _node_presence(present: bool) -> Callable[[ClusterState, Entry], None]:
    def evidence(state: ClusterState, entry: Entry) -> None:
        _node(state, entry).present = present

    return evidence


def _node_watched(watched: bool) -> Callable[[ClusterState, Entry], None]:
    def evidence(state: ClusterState, entry: Entry) -> None:
        _node(state, entry).watched = watched

    return evidence


def _service_polled(state: ClusterState, entry: Entry) -> None:
    service = state.services.get(entry.data["service"])
    if service is None or entry.node is None:
        return
    before, at_ms = service.polls.get(entry.node), _at(entry)
    if before is None or before.at_ms <= at_ms:
        service.polls[entry.node] = Poll(
            status=entry.data["status"], verified=entry.data["verified"], code=entry.data.get("code"), ticket=entry.data.get("ticket"),
            at_ms=at_ms,
        )  # fmt: skip


def _schedules_observed(state: ClusterState, entry: Entry) -> None:
    status = state.schedules.get(entry.data["service"])
    if status is None or entry.node is None:
        return
    seen = Observation(
        node=entry.node, at_ms=_at(entry), ticket=entry.data.get("ticket"),
        schedules=[ScheduleEntry(**schedule) for schedule in entry.data["schedules"]],
    )  # fmt: skip
    status.probe_error = None
    if status.latest is None or status.latest.at_ms <= seen.at_ms:
        status.before, status.latest = status.latest, seen


def _probe_failed(state: ClusterState, entry: Entry) -> None:
    if (status := state.schedules.get(entry.data["service"])) is not None:
        status.probe_error = entry.data["reason"]


def _cluster_viewed(state: ClusterState, entry: Entry) -> None:
    view = ClusterView(node=entry.node or "", at_ms=_at(entry), **entry.data)
    before = state.views.get(view.node)
    if before is None or before.at_ms <= view.at_ms:
        state.views[view.node] = view
    if not state.counts_as_view(view):
        return
    if state.view is None or state.view.at_ms <= view.at_ms:
        state.view = view
    if view.suspended is not None:
        state.suspension_told_ms = max(state.suspension_told_ms, view.at_ms)


def _cluster_view_failed(state: ClusterState, entry: Entry) -> None:
    """What the node last saw is not kept up to date any more; a view that can be had again is told again."""
    view = state.views.get(entry.node or "")
    if view is not None and view.at_ms <= _at(entry):
        del state.views[view.node]


def _metadata_observed(state: ClusterState, entry: Entry) -> None:
    before = state.metadata.get(entry.node or "")
    configured = state.settings is not None and state.settings.metadata is not None
    if configured and entry.node is not None and (before is None or before.at_ms <= _at(entry)):
        state.metadata[entry.node] = MetadataStatus(
            service=entry.data["service"], port=entry.data["port"], at_ms=_at(entry), held=before is not None and before.held
        )


def _endpoint_changed(state: ClusterState, entry: Entry) -> None:
    """What was known already (a new leader says it again) does not begin anew."""
    name, up, at_ms, before = entry.data["endpoint"], entry.data["up"], _at(entry), state.endpoints.get(entry.data["endpoint"])
    configured = state.settings is not None and any(endpoint.name == name for endpoint in state.settings.endpoints)
    if not configured or (before is not None and (before.up == up or before.since_ms > at_ms)):
        return
    outages = list(before.outages) if before is not None else []
    if not up:
        outages.append(Outage(endpoint=name, down_ms=at_ms))
    elif outages:
        outages[-1] = outages[-1].model_copy(update={"up_ms": at_ms})
    state.endpoints[name] = EndpointStatus(up=up, since_ms=at_ms, reason=entry.data.get("reason", ""), outages=outages[-KEPT_OUTAGES:])


def _runbook_step(state: ClusterState, entry: Entry) -> None:
    """The last going-through of each runbook; a step that is told again takes its place anew, the oldest ones are let go."""
    name, step = entry.data["runbook"], entry.data["step"]
    before = state.runbooks.pop(name, None)
    steps = dict(before.steps) if before is not None and before.run == entry.data["run"] else {}
    steps.pop(step, None)
    steps[step] = entry.data["outcome"]
    kept = dict(list(steps.items())[-KEPT_STEPS:])
    state.runbooks[name] = RunbookStatus(run=entry.data["run"], at_ms=_at(entry), steps=kept)
    while len(state.runbooks) > KEPT_RUNBOOKS:
        state.runbooks.pop(next(iter(state.runbooks)))


def _hook_called(state: ClusterState, entry: Entry) -> None:
    name = entry.data["ticket"]
    if name in state.tickets:
        return
    state.tickets[name] = TicketStatus(
        ticket=name, node=entry.node or "", script="start" if entry.type == "StartHookCalled" else "stop", event=entry.data["event"],
        factor=entry.data.get("factor", ""), term=state.term, called_ms=_at(entry),
        commands=[CommandStatus(**command) for command in entry.data["commands"]],
    )  # fmt: skip
    _prune_tickets(state)


def _ticket(state: ClusterState, entry: Entry) -> TicketStatus | None:
    """The ticket that a fact is about, as a new object: tickets are shared between copies of the state."""
    ticket = state.tickets.get(entry.data["ticket"])
    if ticket is not None and ticket.node != entry.node:
        return None  # no node has a say in another's
    if ticket is not None:
        ticket = state.tickets[ticket.ticket] = ticket.model_copy(update={"commands": [c.model_copy() for c in ticket.commands]})
    return ticket


def _command(state: ClusterState, entry: Entry) -> CommandStatus | None:
    ticket = _ticket(state, entry)
    if ticket is None:
        return None
    if entry.data["by"] == "script":
        ticket.owner = "script"  # it runs commands only of what it has taken, also if the disk took no word of that (N2)
    return _listed(ticket, entry)


def _listed(ticket: TicketStatus, entry: Entry) -> CommandStatus | None:
    return next((c for c in ticket.commands if (c.n, c.service) == (entry.data["n"], entry.data["service"])), None)


def _command_started(state: ClusterState, entry: Entry) -> None:
    if entry.data["by"] == "script" and entry.data["service"] in state.services:
        key = f"{entry.node}/{entry.data['service']}"
        state.counts.commands_by_script[key] = state.counts.commands_by_script.get(key, 0) + 1
    command = _command(state, entry)
    if command is not None and (command.started_ms is None or command.result == "lost"):
        command.started_ms, command.by = _at(entry), entry.data["by"]


def _command_ended(state: ClusterState, entry: Entry) -> None:
    if entry.data["result"] == "ok" and not entry.data.get("ran", True):
        _still_healthy(state, entry)
    command = _command(state, entry)
    if command is None or command.result in ("ok", "fail"):
        return
    command.ended_ms, command.result, command.ran = _at(entry), entry.data["result"], entry.data.get("ran", True)
    command.by = command.by or entry.data["by"]
    if command.started_ms is None:
        command.started_ms = command.ended_ms - 1000 * (entry.data.get("duration_s") or 0.0)
    if command.result == "ok":
        ticket = state.tickets[entry.data["ticket"]]
        note = _note_start_verb if ticket.script == "start" else _note_stop_verb
        note(state, ticket, command.service, entry.data["verb"], command.ran)


def _still_healthy(state: ClusterState, entry: Entry) -> None:
    """A start's own dcstatus was 0 (NODE.md, N3), so there was nothing to run: what the watch saw verified held until then at least, and
    the watch has nothing new to tell of it."""
    service = state.services.get(entry.data["service"])
    poll = service.polls.get(entry.node or "") if service is not None else None
    if service is not None and poll is not None and entry.node is not None and poll.verified and poll.at_ms < _at(entry):
        service.polls[entry.node] = poll.model_copy(update={"at_ms": _at(entry)})


def _note_start_verb(state: ClusterState, ticket: TicketStatus, name: str, verb: str, ran: bool) -> None:
    """The verb that brought the service up decides the rule (G4-G6); where dcstatus was 0 already, none did."""
    service = state.services.get(name)
    if service is not None and state.start_ticket == ticket.ticket:
        service.last_start_verb = verb if ran else None


def _note_stop_verb(state: ClusterState, ticket: TicketStatus, name: str, verb: str, ran: bool) -> None:
    """A stop handed in late counts only for the start that followed it, while that one's schedules are not judged."""
    start = state.tickets.get(state.start_ticket or "")
    status, service = state.schedules.get(name), state.services.get(name)
    counts = start is None or ticket.called_ms > start.called_ms or (status is not None and status.owed)
    if service is not None and counts and ran:
        service.last_stop_verb = verb


def _fallback_taken(state: ClusterState, entry: Entry) -> None:
    if (ticket := _ticket(state, entry)) is not None:
        ticket.owner = "script"


def _script_ended(state: ClusterState, entry: Entry) -> None:
    if (ticket := _ticket(state, entry)) is not None:
        ticket.code = entry.data["code"]


def _deadline_passed(state: ClusterState, entry: Entry) -> None:
    """It counts only if it is still there and due: it may have been cleared or moved while the fact was on its way (and under pause
    the clocks stand)."""
    name = entry.data["deadline"]
    if state.paused_since_ms is None and state.deadlines.get(name, entry.ms + 1) <= entry.ms:
        del state.deadlines[name]


_EVIDENCE: dict[str, Callable[[ClusterState, Entry], None]] = {
    "LeadTaken": _lead_taken, "ConfigurationChanged": _configuration_changed, "NodeJoined": _node_joined, "NodeLeft": _node_left,
    "NodeLost": _node_presence(False), "NodeReturned": _node_presence(True), "WatchLost": _node_watched(False),
    "WatchReturned": _node_watched(True), "ServicePolled": _service_polled, "SchedulesObserved": _schedules_observed,
    "ProbeFailed": _probe_failed, "ClusterViewed": _cluster_viewed, "StartHookCalled": _hook_called, "StopHookCalled": _hook_called,
    "CommandStarted": _command_started, "CommandEnded": _command_ended, "FallbackTaken": _fallback_taken, "ScriptEnded": _script_ended,
    "DeadlinePassed": _deadline_passed, "ClusterViewFailed": _cluster_view_failed,
    "MetadataObserved": _metadata_observed, "EndpointChanged": _endpoint_changed,
    "RunbookStepRecorded": _runbook_step,
}  # fmt: skip
