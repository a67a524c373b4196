"""Phases of a failover: points on one time line, and what lies between them.

The boundaries add up: an absent phase's ends coincide, so the phases that are there sum to the total wherever every hook was seen. A
phase whose ends were not both seen (mode observe, a dead node's stop) is absent, not 0.
"""

from __future__ import annotations

from statemachines.states import PHASES, FailoverStatus, TicketStatus

_ORDER = ("symptom", "acted", "stop_ended", "start_called", "first_command", "last_command", "verified", "judged")


def settle(failover: FailoverStatus) -> None:
    """Order the points, and work out phases and total (s) from them, in place."""
    points = failover.points
    last = None
    for name in _ORDER:
        if name in points:
            # A later boundary is never before an earlier one: clocks of two nodes may differ by their error bound.
            points[name] = points[name] if last is None else max(points[name], last)
            last = points[name]
    if "stop_called" in points and "acted" in points:
        points["stop_called"] = points["acted"]  # detect ends at the stop hook if one comes, also after the ordering
    failover.phases = {}
    for phase, begins, ends in PHASES:
        if begins in points and ends in points:
            failover.phases[phase] = _seconds(points[begins], points[ends])
    if "stop_ended" not in points and "acted" in points and "start_called" in points:
        failover.phases["takeover"] = _seconds(points["acted"], points["start_called"])
    if "first_command" not in points and "start_called" in points and "verified" in points:
        failover.phases["verify"] = _seconds(points["start_called"], points["verified"])
    failover.phases = {phase: failover.phases[phase] for phase, _, _ in PHASES if phase in failover.phases}
    if "symptom" in points and last is not None:
        failover.total_s = _seconds(points["symptom"], points.get("ended", last))


def _seconds(begin_ms: float, end_ms: float) -> float:
    return round(max(0.0, end_ms - begin_ms) / 1000, 4)


def note_commands(failover: FailoverStatus, start: TicketStatus | None) -> None:
    """Put the bounds of the start commands that really ran into the points (absent if dcstatus was 0 already)."""
    failover.points.pop("first_command", None)
    failover.points.pop("last_command", None)
    ran = [c for c in start.commands if c.started_ms is not None and c.ran] if start else []
    if ran:
        failover.points["first_command"] = min(c.started_ms for c in ran if c.started_ms is not None)
        ends = [c.ended_ms for c in ran if c.ended_ms is not None]
        if ends:
            failover.points["last_command"] = max(ends)
