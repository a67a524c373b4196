"""The tables, checked exhaustively: every state, every event, every combination of conditions."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
import transitions

from statemachines import cluster, deciding, facts, records
from statemachines.commands import KINDS
from statemachines.diagrams import mermaid
from statemachines.machine import Row, StateMachine, Table, TableIllFormed, well_formedness
from statemachines.tables import ALLOWED_VERBS, MACHINES, TABLES, VERBS
from tests.statemachines.story import Story

ALL_ROWS = [pytest.param(table, row, id=row.rule) for table in TABLES.values() for row in table.rows]


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_case_is_answered_by_the_first_row_that_fits(table: Table) -> None:
    """Whatever happens in whatever state, under any conditions that it is asked about, a plain reading of the list finds the row taken."""
    for state in table.states:
        for event in table.events:
            guards = sorted({row.guard.lstrip("!") for row in table.rows if row.event == event and row.guard})
            for size in range(len(guards) + 1):
                for conditions in combinations(guards, size):
                    expected = next(r for r in table.rows if _reads(r, state, event, set(conditions)))
                    fired = MACHINES[table.name].fire(state, event, conditions)
                    assert fired.row is expected
                    assert fired.target == (expected.target or state)


def _reads(row: Row, state: str, event: str, holds: set[str]) -> bool:
    if row.event != event or state not in row.source:
        return False
    return row.guard is None or ((row.guard[1:] not in holds) if row.guard[0] == "!" else row.guard in holds)


@pytest.mark.parametrize(("table", "row"), ALL_ROWS)
def test_a_table_without_one_of_its_rows_is_noticed(table: Table, row: Row) -> None:
    """No row is spare: without it the table is ill-formed, or decides some case differently."""
    shorter = replace(table, rows=tuple(r for r in table.rows if r is not row))
    if list(well_formedness(shorter)):
        return
    machine = StateMachine(shorter)
    differs = any(
        MACHINES[table.name].fire(state, row.event, given).row is row and machine.fire(state, row.event, given).row is not row
        for state in row.source
        for given in ([row.guard.lstrip("!")] if row.guard and row.guard[0] != "!" else [], [])
    )
    assert differs


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ((Row("X1", ("a",), "go", "b", "Why."), Row("X1", ("b",), "go", "a", "Why.")), "twice"),
        ((Row("X1", ("a",), "go", "b", "Why."),), "neither accepted nor ignored nor rejected"),
        ((Row("X1", ("a", "b"), "go", "c", "Why."),), "no state is called"),
        ((Row("X1", ("a", "b"), "go", "a", "why not"),), "in a sentence"),
        ((Row("X1", ("a", "b"), "go", "a", "Why."), Row("X2", ("a",), "go", "b", "Why.", guard="g")), "never taken"),
        ((Row("X1", ("a", "b"), "go", "a", "Why.", answer="ignore"),), "moves nothing"),
        ((Row("X1", ("a", "b"), "go", "a", "Why."),), "cannot be reached"),
        ((Row("X1", ("a", "b"), "go", "b", "Why."),), "cannot be left"),
    ],
)
def test_ill_formed_tables_are_refused(rows: tuple[Row, ...], complaint: str) -> None:
    """Each way in which a table can be wrong is named when it is loaded."""
    with pytest.raises(TableIllFormed, match=complaint):
        StateMachine(Table("x", ("a", "b"), "a", (), rows))


def test_every_action_of_the_tables_is_known_and_every_known_one_is_used() -> None:
    """Decider against doer: no row asks for what nobody does."""
    asked = {name: {row.action for row in table.rows if row.action} for name, table in TABLES.items()}
    assert asked["service"] == deciding.SERVICE_ACTIONS
    assert asked["node"] == deciding.NODE_ACTIONS
    assert asked["failover"] == set(records.ACTIONS)


def test_every_command_has_a_worker_function() -> None:
    """What the orchestrator may order, a worker can do, and nothing else."""
    from workers import jobs

    assert set(jobs.HANDLERS) == KINDS


def test_every_fact_has_a_handler_or_a_reason_for_none() -> None:
    """No result is dropped by oversight."""
    assert cluster.HANDLED | set(cluster.EVIDENCE_ONLY) == facts.TYPES
    assert not cluster.HANDLED & set(cluster.EVIDENCE_ONLY)


def test_verbs_are_the_guides() -> None:
    """G8-G15, spelled out again from GUIDE.md, and G24; each is one that the guide allows for its script."""
    assert VERBS == {
        ("server", "start", "START"): "recover", ("server", "start", "FAILOVER"): "recover",
        ("server", "stop", "START"): "faststop", ("server", "stop", "FAILOVER"): "faststop",
        ("agent", "start", "START"): "start", ("agent", "start", "FAILOVER"): "recover",
        ("agent", "stop", "START"): "stop", ("agent", "stop", "FAILOVER"): "faststop",
        ("command", "start", "START"): "start", ("command", "start", "FAILOVER"): "start",
        ("command", "stop", "START"): "stop", ("command", "stop", "FAILOVER"): "stop",
    }  # fmt: skip
    assert all(verb in ALLOWED_VERBS[script] for (_, script, _), verb in VERBS.items())


def test_the_live_step_fires_transitions_triggers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every move of a service, node or failover in a step is one that `transitions` made."""
    fired: list[str] = []
    trigger = transitions.core.Event.trigger

    def spy(event: transitions.core.Event, model: object, *args: object, **kwargs: object) -> bool:
        fired.append(event.name)
        result: bool = trigger(event, model, *args, **kwargs)
        return result

    story = Story()
    monkeypatch.setattr(transitions.core.Event, "trigger", spy)
    story.bring_up("node1")
    assert {"start_called", "turn_came", "verified", "activated"} <= set(fired)
    monkeypatch.setattr(transitions.core.Event, "trigger", lambda event, model, *a, **k: False)
    with pytest.raises(AssertionError, match="no row of"):
        story.call("stop", "node1", factor="GROUPMOVE")


@pytest.mark.parametrize("machine", TABLES)
def test_diagrams_show_every_accepted_row(machine: str) -> None:
    """`dcsup graph` draws from the table: each accepted row once for each of its sources."""
    drawn = mermaid(machine)
    for row in TABLES[machine].rows:
        arrows = [line for line in drawn.splitlines() if f": {row.rule} " in line]
        assert len(arrows) == (len(row.source) if row.answer == "accept" else 0)
