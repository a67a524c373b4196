"""Replay: the state that a log leads to, and whether today's rules decide the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.chain import Damaged
from orchestrator.replay import fold_file, replay, verify
from statemachines.cluster import quarantine
from statemachines.entries import Sealed
from tests.orchestrator.surface import chained, entry, file_of, told_log
from tests.statemachines.story import Story


def with_rule(log: list[Sealed], position: int, rule: str) -> list[Sealed]:
    """The log with one entry forged, and every hash made right again."""
    return chained([replace(sealed.entry, rule=rule) if n == position else sealed.entry for n, sealed in enumerate(log)])


def test_a_file_leads_to_the_live_state(tmp_path: Path) -> None:
    """I6: folded from the exported file by itself, the state is the one that the steps left, as a whole."""
    story = Story()
    story.bring_up("node1")
    story.tell("_leader", "NodeLost", node="node1")
    story.bring_up("node2", "FAILOVER")
    (tmp_path / "log").write_bytes(file_of(story.log))
    assert fold_file(tmp_path / "log").model_dump_json() == story.state.model_dump_json()


def test_a_log_decided_again_under_the_same_rules_is_the_same() -> None:
    """I6: no difference, over failures, moves, late facts and gaps; and its failovers are told, the oldest first."""
    replayed = replay(told_log(), again=True)
    assert replayed.differences == []
    assert [one["kind"] for one in replayed.failovers.values()] == ["failure", "move"]


def test_quarantined_facts_and_gaps_are_no_differences() -> None:
    """What was put aside then is folded and not judged again; a gap in a producer's numbers is part of its fact's decisions."""
    story = Story()
    bad = quarantine(story.state, "node1", "5-0", "unknown type", None)
    story.log += bad.entries
    story.state = bad.state
    arrival = story.arrival("node1", "NodeLeft")
    gap = replace(arrival, envelope=arrival.envelope.model_copy(update={"seq": 50, "oldest": 50}))
    story.take(gap)
    assert "FactsLost" in story.types()
    replayed = replay(story.log, again=True)
    assert replayed.differences == []
    assert replayed.state == story.state
    assert replayed.state is not None
    assert replayed.state.counts.quarantined == 1


def test_a_forged_decision_is_found_and_still_what_the_state_follows() -> None:
    """A log whose hashes are right and whose decisions are not: told with fact, recorded and decided entries; the record is folded."""
    log = told_log()
    position = next(n for n, sealed in enumerate(log) if sealed.entry.transitions)
    forged = with_rule(log, position, "X999")
    difference = verify(forged)[0]
    assert difference.fact_id == forged[position].entry.cause
    assert difference.recorded[0]["rule"] == "X999"
    assert difference.decided[0]["rule"] == log[position].entry.rule
    assert "recorded" in str(difference)
    state = replay(forged).state
    assert state is not None
    assert state.last_hash == forged[-1].hash


def test_a_missing_and_an_added_decision_are_differences() -> None:
    """One decision more or less than the rules give is found."""
    log = told_log()
    position = next(n for n, sealed in enumerate(log) if sealed.entry.type == "FailoverEnded")
    without = chained([sealed.entry for n, sealed in enumerate(log) if n != position])
    assert verify(without)[0].decided[0]["type"] == "FailoverEnded"
    extra = replace(log[position].entry, id=f"{log[-1].entry.ms + 1000}-0", cause=log[-1].entry.cause or log[-1].entry.id)
    assert verify(chained([*(sealed.entry for sealed in log), extra]))[0].decided == []


def test_a_fact_that_this_version_does_not_know_is_a_difference() -> None:
    """A log of a later dcsup is folded as far as it is understood; deciding it again says why it cannot."""
    unknown = entry(1, "FromTheFuture", {}, source="worker", cause=None, source_id="s:1", evidence={"inbox": "n1", "inbox_id": "1-0"})
    (difference,) = verify(chained([unknown]))
    assert "FromTheFuture" in difference.error
    bare = entry(1, "NodeLeft", {}, source="worker", cause=None)
    assert "no evidence" in verify(chained([bare]))[0].error


def test_an_entry_that_cannot_be_folded_is_told() -> None:
    """Not a traceback: the entry's id and the reason."""
    with pytest.raises(Damaged, match="cannot be folded by this version"):
        replay(chained([entry(1, "LeadTaken", {}, source="leader", cause=None)]))
