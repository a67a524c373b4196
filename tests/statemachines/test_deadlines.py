"""Deadlines that are told at an odd moment: when they are none any more, under pause, or to the millisecond."""

from __future__ import annotations

import pytest

from tests.statemachines.story import Story


def up() -> Story:
    story = Story()
    story.bring_up("node1")
    story.wait(5)
    return story


def test_a_deadline_told_when_its_call_is_over_ends_nothing_else() -> None:
    """The fact was on its way while a new start began: the new one has its own time."""
    story = Story()
    first = story.call("start", "node1")
    deadline = story.arrival("_leader", "DeadlinePassed", deadline=f"start:{first}")
    story.take_down("node1")
    second = story.call("start", "node1")
    story.take(deadline)
    assert story.states() == {"agent": "starting", "server": "starting"}
    assert story.verdicts() == []
    assert f"start:{second}" in story.state.deadlines


def test_a_deadline_told_in_the_millisecond_in_which_it_is_due_leaves_its_call_no_time() -> None:
    """What was seen to run meanwhile is taken over then, for its poll is no news later (I3)."""
    story = Story()
    start = story.call("start", "node1")
    story.run(start, 1)
    story.poll("node1", "agent", ticket=start)
    story.poll("node1", "server")  # of the script's own start, which could tell nothing
    story.now_ms = story.state.deadlines[f"start:{start}"] - 1
    story.tell("_leader", "DeadlinePassed", deadline=f"start:{start}")
    assert story.states() == {"agent": "running", "server": "running"}


def test_a_stop_that_ends_well_after_its_deadline_has_stopped_its_services() -> None:
    """They were given up at the deadline (I3), and the script's end says how it ended after all."""
    story = up()
    stop = story.call("stop", "node1", factor="GROUPSTOP")
    story.wait(601)
    assert story.states() == {"agent": "failed", "server": "failed"}
    story.tell("node1", "ScriptEnded", ticket=stop, script="stop", code=0)
    assert story.states() == {"agent": "stopped", "server": "stopped"}
    assert story.state.active is None


def test_a_deadline_told_under_pause_or_before_it_is_due_stays() -> None:
    """Under pause the clocks stand, also for a fact that was on its way when it began."""
    story = up()
    story.tell("_leader", "NodeLost", node="node1")
    (name,) = story.state.deadlines
    story.tell("_leader", "DeadlinePassed", deadline=name)
    story.now_ms = story.state.deadlines[name]
    story.tell("_operator", "PauseRequested", by="suzuki")
    story.tell("_leader", "DeadlinePassed", deadline=name)
    assert story.state.failover is not None
    assert name in story.state.deadlines
    story.tell("_operator", "ResumeRequested", by="suzuki")
    story.wait(1)
    assert story.state.failover is None


def test_a_deadline_set_under_pause_begins_when_the_pause_ends() -> None:
    """What is set late in a long pause does not wait as long again."""
    story = Story()
    story.tell("_operator", "PauseRequested", by="suzuki")
    story.wait(5000)
    start = story.call("start", "node1")
    story.tell("_operator", "ResumeRequested", by="suzuki")
    assert story.state.deadlines[f"start:{start}"] - story.now_ms == pytest.approx(600_000, abs=10)
