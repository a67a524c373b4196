"""Rows, tables and how a table is stepped: one `transitions` machine per table, no registered models.

A table is an ordered list of rows; the first row whose source, event and guard fit wins. The row is everything at once: behaviour,
text in the log, the entry's `rule`, label in the diagram, documentation. Guards are names of conditions; who fires an event says
which conditions hold, so a table can be tried with every combination of them.

`well_formedness(table)` is checked when a table is loaded: whatever happens in whatever state is accepted, ignored or rejected on purpose.
Models are never registered with `transitions` (its registry is quadratic and keeps them alive); `Event.trigger` takes any object
with a `state`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, cast

from transitions import EventData, Machine

Answer = Literal["accept", "ignore", "reject"]


@dataclass(frozen=True, slots=True)
class Row:
    """One rule. `target` None: the state stays. `guard` names a condition that must hold, `!name` one that must not."""

    rule: str
    source: tuple[str, ...]
    event: str
    target: str | None
    why: str
    guard: str | None = None
    action: str | None = None
    """What is decided beside the move; the names are those of `cluster.py`'s actions."""
    phase: str = ""
    answer: Answer = "accept"


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    """`service`, `node` or `failover`."""
    states: tuple[str, ...]
    initial: str
    final: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def events(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.event for row in self.rows))

    @property
    def guards(self) -> tuple[str, ...]:
        return tuple(sorted({row.guard.lstrip("!") for row in self.rows if row.guard}))


@dataclass(slots=True)
class Firing:
    """What `transitions` moves: a state, the conditions that hold, and the row that was taken."""

    state: str
    conditions: frozenset[str]
    row: Row | None = None


@dataclass(frozen=True, slots=True)
class Fired:
    row: Row
    source: str
    target: str

    @property
    def moved(self) -> bool:
        return self.source != self.target


class TableIllFormed(ValueError):
    """A table that leaves something open; the message lists everything that is wrong with it."""


@dataclass(slots=True)
class StateMachine:
    """A table made steppable.

    Raises:
        TableIllFormed: see `well_formedness`.
    """

    table: Table
    _machine: Machine = field(init=False)

    def __post_init__(self) -> None:
        if problems := list(well_formedness(self.table)):
            raise TableIllFormed("; ".join(problems))
        self._machine = Machine(
            model=None, states=list(self.table.states), initial=self.table.initial, auto_transitions=False, send_event=True,
            transitions=[
                {
                    "trigger": row.event, "source": list(row.source), "dest": None if row.target is None else row.target,
                    "conditions": [partial(_holds, row.guard)] if row.guard else [], "after": [partial(_take, row)],
                }
                for row in self.table.rows
            ],
        )  # fmt: skip

    def fire(self, state: str, event: str, conditions: Iterable[str] = ()) -> Fired:
        """Step once.

        Raises:
            KeyError: the table has no such event.
            transitions.MachineError: the table has no row for this event in this state (a loaded table always has).
        """
        model = Firing(state, frozenset(conditions))
        self._machine.events[event].trigger(model)
        assert model.row is not None, f"{self.table.name}: no row of {event} in {state} fits {sorted(model.conditions)}"
        return Fired(model.row, state, model.state)


def _holds(guard: str, event: EventData) -> bool:
    model = cast(Firing, event.model)
    return (guard[1:] not in model.conditions) if guard.startswith("!") else guard in model.conditions


def _take(row: Row, event: EventData) -> None:
    model = cast(Firing, event.model)
    model.row = row


def well_formedness(table: Table) -> Iterable[str]:
    """What is wrong with a table: nothing, if it is well-formed."""
    seen: set[str] = set()
    for row in table.rows:
        if row.rule in seen:
            yield f"{table.name}: rule {row.rule} is there twice"
        seen.add(row.rule)
        for state in (*row.source, *([row.target] if row.target else [])):
            if state not in table.states:
                yield f"{row.rule}: no state is called {state!r}"
        if not row.why.endswith("."):
            yield f"{row.rule}: a row says why, in a sentence"
        if row.answer != "accept" and (row.target is not None or row.action is not None):
            yield f"{row.rule}: what is not accepted moves nothing and does nothing"
    yield from _unanswered(table)
    yield from _shadowed(table)
    yield from _unreachable(table)


def _unanswered(table: Table) -> Iterable[str]:
    for state in table.states:
        for event in table.events:
            rows = [row for row in table.rows if row.event == event and state in row.source]
            guards = {row.guard for row in rows}
            always = None in guards or any(guard and f"!{guard}" in guards for guard in guards)
            if not always:
                yield f"{table.name}: {event} in {state} is neither accepted nor ignored nor rejected in every case"


def _shadowed(table: Table) -> Iterable[str]:
    for index, row in enumerate(table.rows):
        for state in row.source:
            before = {r.guard for r in table.rows[:index] if r.event == row.event and state in r.source}
            if None in before or row.guard in before:
                yield f"{row.rule}: never taken in {state}, a row before it always fits"


def _unreachable(table: Table) -> Iterable[str]:
    reached = {table.initial}
    while more := {r.target for r in table.rows if r.target and reached & set(r.source)} - reached:
        reached |= more
    for state in table.states:
        if state not in reached:
            yield f"{table.name}: {state} cannot be reached"
        leaves = any(r.target not in (None, state) for r in table.rows if state in r.source)
        if not leaves and state not in table.final:
            yield f"{table.name}: {state} cannot be left"


def row_of(table: Table, rule: str) -> Row | None:
    return next((row for row in table.rows if row.rule == rule), None)


def rows_as_dicts(table: Table) -> list[dict[str, Any]]:
    """The table for documentation and `dcsup graph --json`."""
    return [
        {"rule": r.rule, "source": list(r.source), "event": r.event, "guard": r.guard, "target": r.target, "action": r.action,
         "phase": r.phase, "answer": r.answer, "why": r.why}
        for r in table.rows
    ]  # fmt: skip
