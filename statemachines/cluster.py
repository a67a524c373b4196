"""One step: a fact in, entries out. All branching of the core is here; the rows that decide are in tables.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from statemachines.entries import Sealed
from statemachines.facts import AnyFact, Envelope
from statemachines.states import ClusterState


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


def step(state: ClusterState, arrival: Arrival) -> StepResult: ...  # type: ignore[empty-body]


def quarantine(state: ClusterState, inbox: str, inbox_id: str, reason: str, envelope: Envelope | None) -> StepResult: ...  # type: ignore[empty-body]
