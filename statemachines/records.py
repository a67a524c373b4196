"""The record of a failover: what each row of its table writes into it.

The functions take the point in time from the step that fires them, and know nothing of why the row was taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from statemachines import phases
from statemachines.alerts import Alert, alert_of
from statemachines.states import KEPT_ALERTS, KEPT_OUTAGES, AlertNote, ClusterState, FailoverStatus, Kind, Outage, TicketStatus

if TYPE_CHECKING:
    from statemachines.deciding import Deciding

MOVING_FACTORS: dict[str, Kind] = {
    "GROUPMOVE": "move", "GROUPFAILOVER": "failure", "RESOURCERESTART": "restart", "GROUPRESTART": "restart",
    "SERVERSHUTDOWN": "shutdown", "SERVERREBOOT": "shutdown",
}  # fmt: skip
"""CLP_FACTOR values that say that the group is to come up again, and what the failover is then called (CLUSTERPRO.md 1.1)."""


def _point(step: Deciding, record: FailoverStatus, name: str, at_ms: float | None = None) -> None:
    record.points[name] = step.at_ms if at_ms is None else at_ms
    record.clocks[name] = step.clock


def _become(record: FailoverStatus, kind: Kind, *, by_operator: bool) -> None:
    """What the failover is called now. A move is an operator's act where the manager says that it is one (GROUPMOVE, rc 50), not where
    dcsup only takes it for one; anything else is the cluster's, whoever asked for a move before it."""
    record.kind = kind
    record.initiator = "operator" if kind == "move" and by_operator else "cluster"
    if kind != "move":
        record.requested_by, record.why = None, ""


def _open(step: Deciding, record: FailoverStatus, details: dict[str, Any]) -> None:
    record.trigger = details["trigger"]
    _point(step, record, "symptom")


def _act(step: Deciding, record: FailoverStatus, details: dict[str, Any]) -> None:
    _become(record, details["kind"] or record.kind, by_operator=True)
    _point(step, record, "acted")
    _point(step, record, "stop_called")


def _open_acting(step: Deciding, record: FailoverStatus, details: dict[str, Any]) -> None:
    record.trigger = "stop-hook"
    _point(step, record, "symptom")
    _act(step, record, details)


def _act_again(step: Deciding, record: FailoverStatus, details: dict[str, Any]) -> None:
    """Taken away again before it was verified: the first act and stop stay, the last start will count."""
    _become(record, details["kind"], by_operator=True)
    record.restarts += 1
    record.points.setdefault("stop_called", record.points["acted"])  # so that an attempt before the first stop is in some phase
    for point in ("stop_ended", "start_called", "first_command", "last_command"):
        record.points.pop(point, None)


def _act_by_view(step: Deciding, record: FailoverStatus, details: dict[str, Any]) -> None:
    record.node_to = details["node"]
    _become(record, details["kind"], by_operator=details["by_operator"])
    if "symptom" not in record.points:
        record.trigger = details["trigger"]
        _point(step, record, "symptom")
    _point(step, record, "acted")


def _note_stop(step: Deciding, record: FailoverStatus, details: dict[str, Any]) -> None:
    ticket = step.state.tickets[details["ticket"]]
    ends = [c.ended_ms for c in ticket.commands if c.ended_ms is not None]
    _point(step, record, "stop_ended", max(ends) if ends else step.at_ms)


def note_stop_points(step: Deciding, record: FailoverStatus, ticket: TicketStatus) -> None:
    """The stop that led to this failover, told late: by its node's clock."""
    ends = [c.ended_ms for c in ticket.commands if c.ended_ms is not None]
    start = record.points["start_called"]
    _point(step, record, "stop_called", ticket.called_ms)
    _point(step, record, "acted", ticket.called_ms)
    record.points["symptom"] = min(record.points.get("symptom", ticket.called_ms), ticket.called_ms)
    if record.trigger == "start-hook":
        record.trigger = "stop-hook"
    if ticket.factor in MOVING_FACTORS:
        _become(record, MOVING_FACTORS[ticket.factor], by_operator=True)
    if ends and len(ends) == len(ticket.commands):
        _point(step, record, "stop_ended", min(max(ends), start))
    count_by_script(step, record)


def _begin_start(step: Deciding, record: FailoverStatus, details: dict[str, Any]) -> None:
    record.node_to, record.term = details["node"], step.state.term + 1
    for point in ("symptom", "acted"):
        if step.at_ms < record.points.get(point, step.at_ms):
            _point(step, record, point)  # what counted as such was seen after the start, which is told late
    if record.kind == "none":
        record.kind = "failure" if details["clp_event"] == "FAILOVER" else "restart" if record.node_from == record.node_to else "move"
    if "acted" not in record.points:
        _point(step, record, "acted")
    _point(step, record, "start_called")


def _open_starting(step: Deciding, record: FailoverStatus, details: dict[str, Any]) -> None:
    record.trigger = "start-hook"
    _point(step, record, "symptom")
    _begin_start(step, record, details)


def count_by_script(step: Deciding, record: FailoverStatus) -> None:
    """How many of its commands the plain sequence ran, of the calls between the first symptom and the end."""
    first, last = record.points["symptom"], record.points.get("judged", float("inf"))
    commands = [c for t in step.state.tickets.values() if first <= t.called_ms <= last for c in t.commands]
    record.by_script = sum(c.by == "script" and c.ran for c in commands)


def _note_verified(step: Deciding, record: FailoverStatus, details: dict[str, Any]) -> None:
    start = step.state.tickets.get(step.state.start_ticket or "")
    phases.note_commands(record, start)
    moments = [s.verified_ms for s in step.state.services.values() if s.verified_ms is not None]
    _point(step, record, "verified", max([*moments]))
    count_by_script(step, record)
    record.node_to = step.state.active


def _end(outcome: Literal["completed", "failed", "superseded", "cleared"]) -> Callable[[Deciding, FailoverStatus, dict[str, Any]], None]:
    def action(step: Deciding, record: FailoverStatus, details: dict[str, Any]) -> None:
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


REQUEST_BEFORE_MS = 1000.0
"""A request counts for a move that begins this long before it at most: the clocks of two machines differ a little."""


def claim_move(state: ClusterState, record: FailoverStatus) -> bool:
    """Put who asked for this move with `dcsup move`, and why, into its record. Whether the request is settled by it.

    A stop does not say where to; so a request that names a node waits for the start, and is not settled by one elsewhere.
    """
    move, acted_ms = state.move, record.points.get("acted")
    if move is None or record.kind != "move" or acted_ms is None or acted_ms < move.at_ms - REQUEST_BEFORE_MS:
        return False
    if move.to not in (None, record.node_to) and record.node_to is not None:
        record.requested_by, record.why = None, ""
        return False
    record.requested_by, record.why, record.initiator = move.by, move.why, "operator"
    return move.to in (None, record.node_to) or record.state == "ended"


BEFORE_MS = 60_000.0
"""What the manager noticed at most this long before the first symptom that was known belongs to the failover."""


def note_outages(state: ClusterState, record: FailoverStatus) -> None:
    """What clients saw meanwhile; an outage that goes on is noted without its end."""
    seen = {(outage.endpoint, outage.down_ms): outage for outage in record.outages}
    for endpoint in state.endpoints.values():
        seen |= {(outage.endpoint, outage.down_ms): outage for outage in endpoint.outages if _belongs(outage, record)}
    record.outages = sorted(seen.values(), key=lambda outage: (outage.down_ms, outage.endpoint))[-KEPT_OUTAGES:]


def _belongs(outage: Outage, record: FailoverStatus) -> bool:
    symptom_ms, end_ms = record.points["symptom"], _end_ms(record)
    reaches_it = outage.up_ms is None or outage.up_ms >= symptom_ms
    return reaches_it and outage.down_ms <= end_ms


def _end_ms(record: FailoverStatus) -> float:
    points = record.points
    return points.get("ended", points.get("judged", float("inf"))) if record.state == "ended" else float("inf")


def of_moment(known: Sequence[FailoverStatus], at_ms: float) -> FailoverStatus | None:
    """The failover that something belongs to which happened then: the one that it lies in, or else the one that it shortly precedes."""
    for before_ms in (0.0, BEFORE_MS):
        for record in reversed(known):
            if record.points["symptom"] - before_ms <= at_ms <= _end_ms(record):
                return record
    return None


def note_alert(step: Deciding, record: FailoverStatus, note: AlertNote, alert: Alert | None) -> None:
    """What the manager said. It may have been there before what was known: then `detect` begins, or ends, with it."""
    record.alerts = sorted([*record.alerts, note], key=lambda kept: kept.at_ms)
    if len(record.alerts) > KEPT_ALERTS:
        record.alerts.remove(next(filter(_is_information, reversed(record.alerts)), record.alerts[-1]))
        record.alerts_beyond += 1
    category = alert.category if alert is not None else "information"
    if category in ("symptom", "fencing") and note.at_ms < record.points["symptom"]:
        record.trigger = "alert"
        _point(step, record, "symptom", note.at_ms)
    if category == "acts" and "stop_called" not in record.points and note.at_ms < record.points.get("acted", 0.0):
        _point(step, record, "acted", note.at_ms)
    if category == "fencing" and note.at_ms < record.points.get("fenced", float("inf")):
        _point(step, record, "fenced", note.at_ms)


def _is_information(note: AlertNote) -> bool:
    known = alert_of(note.module, note.id)
    return known is None or known.category == "information"


def withheld(record: FailoverStatus | None) -> str:
    """Why the manager did nothing about a symptom, as far as it said."""
    for note in reversed(record.alerts if record is not None else []):
        known = alert_of(note.module, note.id)
        if known is not None and known.category == "withheld":
            return known.meaning
    return ""


ACTIONS: dict[str, Callable[[Deciding, FailoverStatus, dict[str, Any]], None]] = {
    "open": _open, "open_acting": _open_acting, "open_starting": _open_starting, "act": _act, "act_again": _act_again,
    "act_by_view": _act_by_view, "note_stop": _note_stop, "begin_start": _begin_start, "note_verified": _note_verified,
    "complete": _end("completed"), "fail": _end("failed"), "supersede": _end("superseded"), "clear": _end("cleared"),
}  # fmt: skip
