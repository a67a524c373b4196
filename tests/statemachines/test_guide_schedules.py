"""G4 to G7: which schedules must run after a start. The expectations are spelled out from GUIDE.md by name, not computed."""

from __future__ import annotations

from typing import Any

import pytest

from statemachines.schedules import judge, rule_for
from statemachines.states import Observation, ScheduleEntry
from tests.statemachines.story import SIX, Story

ALL_STARTED = {name: "started" for name, _, _ in SIX}
ALL_STOPPED = {name: "stopped" for name, _, _ in SIX}


def observation(states: dict[str, str] | None = None, names: list[str] | None = None) -> Observation:
    changed = states or {}
    return Observation(node="node1", at_ms=0.0, ticket=None, schedules=[
        ScheduleEntry(name=name, startup_mode=mode, state=changed.get(name, state))
        for name, mode, state in SIX if names is None or name in names])  # fmt: skip


def judged(rule: Any, before: Observation | None, after: Observation | None) -> dict[str, str]:
    return {verdict.name: verdict.outcome for verdict in judge(rule, before, after)}


def test_g04_faststop_then_recover_carries_the_states_over() -> None:
    """G4: those that were started run again; the guide is silent on the others."""
    assert rule_for("faststop", "recover", "G4") == ("G4", False)
    assert judged("G4", observation(), observation()) == {
        "auto-started-1": "resumed", "manual-started-2": "resumed", "auto-started-5": "resumed"}  # fmt: skip
    assert judged("G4", observation(), observation(ALL_STOPPED)) == {
        "auto-started-1": "missed", "manual-started-2": "missed", "auto-started-5": "missed"}  # fmt: skip
    assert judged("G4", observation(), observation(ALL_STARTED)) == {
        "auto-started-1": "resumed", "manual-started-2": "resumed", "auto-started-5": "resumed",
        "auto-stopped-3": "unexpected", "manual-stopped-4": "unexpected", "manual-stopped-6": "unexpected"}  # fmt: skip


def test_g05_stop_then_recover_runs_only_the_automatic_ones() -> None:
    """G5: only those whose startup mode is automatic, whatever ran before."""
    assert rule_for("stop", "recover", "G4") == ("G5", False)
    after = observation(ALL_STOPPED | {"auto-started-1": "started", "auto-stopped-3": "started", "auto-started-5": "started"})
    assert judged("G5", observation(), after) == {
        "auto-started-1": "auto_started", "auto-stopped-3": "auto_started", "auto-started-5": "auto_started"}  # fmt: skip
    assert judged("G5", observation(), observation())["auto-stopped-3"] == "missed"
    assert judged("G5", observation(), observation())["manual-started-2"] == "unexpected"


@pytest.mark.parametrize("last_stop", ["stop", "faststop", None])
def test_g06_start_runs_the_automatic_ones_after_any_stop(last_stop: str | None) -> None:
    """G6: the verb `start` begins the automatic ones; on the others the guide is silent."""
    assert rule_for(last_stop, "start", "G4") == ("G6", False)
    after = observation({"auto-stopped-3": "started"})
    assert judged("G6", observation(), after) == {
        "auto-started-1": "auto_started", "auto-stopped-3": "auto_started", "auto-started-5": "auto_started",
        "manual-started-2": "unexpected"}  # fmt: skip


def test_g07_after_a_death_the_setting_is_taken_and_said_to_be_assumed() -> None:
    """G7: nothing was stopped; the guide does not say; the verdict is marked."""
    assert rule_for(None, "recover", "G4") == ("G4", True)
    story = Story()
    story.bring_up("node1")
    story.tell("_leader", "NodeLost", node="node1")
    story.bring_up("node2", "FAILOVER")
    judgement = story.ended().judgements[0]
    assert (judgement.rule, judgement.assumed) == ("G4", True)
    assert judgement.evidence_age_s is not None


def test_the_six_schedules_tell_the_three_rules_apart() -> None:
    """G4, G5 and G6 demand different things of the same six schedules."""
    demanded = [frozenset(judged(rule, observation(), observation(ALL_STOPPED))) for rule in ("G4", "G5")]
    assert demanded[0] != demanded[1]


def test_what_cannot_be_known_is_unknown_and_never_resumed() -> None:
    """I4: without the observation that a rule needs the outcome is `unknown`, by name where names are known."""
    assert judged("G4", None, observation()) == {name: "unknown" for name, _, _ in SIX}
    assert judged("G4", observation(), None) == {
        "auto-started-1": "unknown", "manual-started-2": "unknown", "auto-started-5": "unknown"}  # fmt: skip
    assert judged("G5", None, observation(ALL_STARTED))["auto-stopped-3"] == "auto_started"
    assert judged("G4", None, None) == {"*": "unknown"}


def test_a_schedule_that_vanished_is_missed_and_a_new_one_unexpected() -> None:
    """A required schedule that the probe does not list any more did not come back."""
    few = observation(names=["auto-started-1"])
    assert judged("G4", observation(), few)["manual-started-2"] == "missed"
    assert judged("G4", few, observation())["manual-started-2"] == "unexpected"


@pytest.mark.parametrize(("stop", "rule"), [("stop", "G5"), ("faststop", "G4")])
def test_the_verb_of_the_stop_decides_the_rule_of_the_next_start(stop: str, rule: str) -> None:
    """The whole way: the stop's verb is remembered until the start after it is judged, and not longer."""
    story = Story()
    story.bring_up("node1")
    ticket = story.call("stop", "node1", "START", "GROUPMOVE", commands=[("server", stop), ("agent", "stop")])
    for n in (1, 2):
        story.run(ticket, n)
    story.tell("node1", "ScriptEnded", ticket=ticket, script="stop", code=0)
    after = {"auto-stopped-3": "started", "manual-started-2": "stopped"} if rule == "G5" else {}
    start = story.bring_up("node2", observe=False)
    story.observe("node2", after, start)
    assert story.ended().judgements[0].rule == rule
    assert not story.ended().judgements[0].assumed
    assert story.state.services["server"].last_stop_verb is None
