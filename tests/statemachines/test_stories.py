"""The core's behaviour told as stories: what an operator would see happen, step by step."""

from __future__ import annotations

import pytest

from statemachines.states import PHASES, FailoverStatus
from tests.statemachines.story import Story, settings


def _adds_up(failover: FailoverStatus) -> None:
    assert failover.total_s is not None
    assert sum(failover.phases.values()) == pytest.approx(failover.total_s, abs=0.002)


def test_normal_start_issues_agent_then_server() -> None:
    """G8, G12, G23: the agent is asked for first, the server only after the agent was verified."""
    story = Story()
    ticket = story.call("start", "node1")
    assert story.issued() == [("node1", 1, "agent", "start")]
    story.run(ticket, 1)
    assert len(story.issued()) == 1
    story.poll("node1", "agent", ticket=ticket)
    assert story.issued()[1:] == [("node1", 2, "server", "recover")]
    story.run(ticket, 2)
    story.poll("node1", "server", ticket=ticket)
    assert story.states() == {"agent": "running", "server": "running"}
    assert story.state.failover is None
    assert not story.state.failovers


def test_node_death_is_one_completed_failover_whose_phases_add_up() -> None:
    """G7, G9, G13: symptom, manager, start, verification, schedules: one record, one kind, one total."""
    story = Story()
    story.bring_up("node1")
    story.wait(30)
    story.tell("_leader", "NodeLost", node="node1")
    assert story.states() == {"agent": "running", "server": "running"}, "a symptom alone moves no state"
    assert story.state.failover is not None
    assert story.state.failover.state == "suspected"
    story.wait(3)
    story.bring_up("node2", "FAILOVER")
    failover = story.ended()
    assert (failover.kind, failover.outcome, failover.trigger, failover.node_from, failover.node_to) == (
        "failure", "completed", "node", "node1", "node2")  # fmt: skip
    assert "stop" not in failover.phases
    assert failover.phases["detect"] == pytest.approx(3.0, abs=0.1)
    _adds_up(failover)
    assert story.outcomes() == {"auto-started-1": "resumed", "auto-started-5": "resumed", "manual-started-2": "resumed"}
    assert failover.judgements[0].rule == "G4"
    assert failover.judgements[0].assumed
    assert story.nodes() == {"node1": "stopped", "node2": "running"}
    assert story.states() == {"agent": "running", "server": "running"}


def test_planned_move_is_counted_apart() -> None:
    """G11, G15: a move's first symptom is its own stop hook; the rule is G4 by the verb and not by assumption."""
    story = Story()
    story.bring_up("node1")
    story.wait(5)
    story.take_down("node1", factor="GROUPMOVE")
    assert story.states() == {"agent": "failing-over", "server": "failing-over"}
    assert story.nodes()["node1"] == "failing-over"
    story.wait(2)
    story.bring_up("node2", "START")
    failover = story.ended()
    assert (failover.kind, failover.initiator, failover.outcome) == ("move", "operator", "completed")
    assert [phase for phase, _, _ in PHASES] == list(failover.phases)
    assert failover.phases["detect"] == 0.0
    _adds_up(failover)
    assert not failover.judgements[0].assumed
    assert story.nodes() == {"node1": "running", "node2": "running"}


def test_crash_of_the_server_opens_a_suspicion_that_the_stop_hook_turns_into_a_failure() -> None:
    """G22: detect runs from the failed poll to the stop hook."""
    story = Story()
    story.bring_up("node1")
    story.poll("node1", "server", "unhealthy")
    assert story.state.failover is not None
    assert (story.state.failover.state, story.state.failover.trigger) == ("suspected", "poll")
    story.wait(1.5)
    story.take_down("node1", factor="GROUPFAILOVER")
    story.bring_up("node2", "FAILOVER")
    failover = story.ended()
    assert failover.kind == "failure"
    assert failover.phases["detect"] == pytest.approx(1.5, abs=0.1)
    _adds_up(failover)


def test_a_symptom_that_goes_away_is_cleared_and_counts_for_nothing() -> None:
    """A suspicion ends cleared when what it was about is well again; the schedules' baseline is dropped."""
    story = Story()
    story.bring_up("node1")
    story.tell("_leader", "NodeLost", node="node1")
    story.tell("_leader", "NodeReturned", node="node1")
    failover = story.ended()
    assert (failover.outcome, failover.kind) == ("cleared", "none")
    assert story.state.failover is None
    assert story.states() == {"agent": "running", "server": "running"}
    assert story.state.schedules["server"].baseline is None


def test_a_suspicion_on_which_nobody_acts_ends_at_its_deadline() -> None:
    """I3: every failover ends."""
    story = Story()
    story.bring_up("node1")
    story.tell("_leader", "WatchLost", node="node1")
    story.wait(601)
    assert story.ended().outcome == "cleared"
    assert story.ended().reason == "the manager did not act"


def test_a_failed_start_command_makes_the_verdict_40_and_the_failover_failed() -> None:
    """A known failure is never repeated: verdict 40, no further command, all services of the call failed."""
    story = Story()
    story.bring_up("node1")
    story.tell("_leader", "NodeLost", node="node1")
    ticket = story.call("start", "node2", "FAILOVER")
    story.run(ticket, 1, result="fail")
    assert story.verdicts() == [(ticket, 40)]
    assert story.states() == {"agent": "failed", "server": "failed"}
    assert story.ended().outcome == "failed"
    assert len(story.issued()) == 3


def test_a_command_that_was_issued_is_not_issued_again_when_the_one_before_is_seen_healthy_again() -> None:
    """I7: each (T, N) is issued once, however often its turn seems to come."""
    story = Story()
    ticket = story.call("start", "node1")
    story.run(ticket, 1)
    story.poll("node1", "agent", "healthy", ticket=ticket)
    assert [n for _, n, *_ in story.issued()] == [1, 2]
    story.poll("node1", "agent", "healthy", ticket=ticket)
    story.tell("node1", "CommandStarted", ticket=ticket, n=2, service="server", verb="start", by="worker")
    story.poll("node1", "agent", "healthy", ticket=ticket)
    assert len(story.issued()) == 2


def test_a_lost_command_makes_the_verdict_75() -> None:
    """I7: the orchestrator never issues (T, N) again; the script goes on by itself."""
    story = Story()
    ticket = story.call("start", "node1")
    story.run(ticket, 1, result="lost")
    assert story.verdicts() == [(ticket, 75)]
    assert len(story.issued()) == 1
    story.tell("node1", "FallbackTaken", ticket=ticket, reason="hook-75")
    story.run(ticket, 1, by="script")
    story.run(ticket, 2, by="script")
    story.tell("node1", "ScriptEnded", ticket=ticket, script="start", code=0)
    assert story.states() == {"agent": "running", "server": "running"}
    assert len(story.issued()) == 1, "no command to a service that was taken over"


def test_pause_gives_way_at_once_and_the_clocks_stand() -> None:
    """Under pause no command is issued and the verdict is 75; deadlines move by as long as it lasted."""
    story = Story()
    story.tell("_operator", "PauseRequested", by="suzuki")
    ticket = story.call("start", "node1")
    assert story.issued() == []
    assert story.verdicts() == [(ticket, 75)]
    due = story.state.deadlines[f"start:{ticket}"]
    story.wait(5000)
    story.tell("_operator", "ResumeRequested", by="suzuki")
    assert story.state.deadlines[f"start:{ticket}"] - due >= 5_000_000
    assert story.states() == {"agent": "starting", "server": "starting"}


def test_observe_runs_no_verb_and_reports_the_failover() -> None:
    """Mode observe: from polls and the manager's view alone, with only the phases whose ends were both seen."""
    story = Story(settings(mode="observe", schedules={"settle": 1, "deadline": 30}))
    story.tell("node1", "ClusterViewed", group_state="online", current="node1", servers={"node1": "online", "node2": "online"})
    for service in ("agent", "server"):
        story.poll("node1", service)
    assert story.states() == {"agent": "running", "server": "running"}
    story.observe("node1")
    story.wait(20)
    story.tell("_leader", "NodeLost", node="node1")
    story.wait(2)
    story.tell("node2", "ClusterViewed", group_state="online-pending", current="node2", servers={"node1": "offline", "node2": "online"})
    story.wait(4)
    for service in ("agent", "server"):
        story.poll("node2", service)
    story.wait(2)
    story.observe("node2")
    failover = story.ended()
    assert (failover.outcome, failover.kind, failover.node_to) == ("completed", "failure", "node2")
    assert set(failover.phases) == {"detect", "resume"}
    assert story.jobs == []
    assert story.outcomes()["auto-started-1"] == "resumed"


def test_the_whole_fallback_told_late_completes_the_record() -> None:
    """Both nodes' workers were away: the move is known only from what the scripts wrote, the newer node's facts arriving first."""
    story = Story()
    story.bring_up("node1")
    for node in ("node1", "node2"):
        story.tell(node, "NodeLeft")
    story.wait(60)
    stop_ms, start_ms = story.now_ms - 30_000.0, story.now_ms - 20_000.0
    start = story.call("start", "node2", "START", at_ms=start_ms)
    assert story.issued()[2:] == [], "the call is over: nothing is issued"
    for n in (1, 2):
        story.run(start, n, by="script")
    story.tell("node2", "ScriptEnded", ticket=start, script="start", code=0, at_ms=start_ms + 9000)
    stop = story.call("stop", "node1", "START", "GROUPMOVE", at_ms=stop_ms)
    for n in (1, 2):
        story.run(stop, n, by="script")
    story.tell("node1", "ScriptEnded", ticket=stop, script="stop", code=0, at_ms=stop_ms + 3000)
    open_or_ended = story.state.failover or story.ended()
    assert open_or_ended.kind == "move"
    assert open_or_ended.phases["stop"] > 0
    assert open_or_ended.points["stop_called"] == stop_ms
    assert open_or_ended.by_script == 4
    assert story.states() == {"agent": "running", "server": "recovering"}
    story.tell("node2", "NodeJoined", boot="boot-node2", version="0")
    story.observe("node2", ticket=start)
    assert story.states()["server"] == "running"


def test_restart_in_place_then_failover_is_one_incident() -> None:
    """CLUSTERPRO may restart in place before it fails over: one aggregate, its kind the last action."""
    story = Story()
    story.bring_up("node1")
    story.poll("node1", "server", "unhealthy")
    story.take_down("node1", factor="RESOURCERESTART")
    story.call("start", "node1", "START")
    story.take_down("node1", factor="GROUPFAILOVER")
    story.bring_up("node2", "FAILOVER")
    assert story.state.failover_count == 1
    assert (story.ended().kind, story.ended().restarts, story.ended().outcome) == ("failure", 1, "completed")
    _adds_up(story.ended())


def test_group_stop_is_no_failover_and_its_start_is_judged_without_holding_up() -> None:
    """A stop with no failover ahead: stopping, stopped; the next start is running at once, its schedules judged beside."""
    story = Story()
    story.bring_up("node1")
    story.take_down("node1")
    assert story.states() == {"agent": "stopped", "server": "stopped"}
    assert story.state.failover_count == 0
    story.bring_up("node2", observe=False)
    assert story.states() == {"agent": "running", "server": "running"}
    story.wait(31)
    assert story.outcomes()["auto-started-1"] == "unknown"
    assert story.state.failover_count == 0


def test_a_new_failure_while_schedules_are_judged_supersedes() -> None:
    """The first failover ends superseded, the next begins; what had to come back before still has to."""
    story = Story()
    story.bring_up("node1")
    story.tell("_leader", "NodeLost", node="node1")
    story.bring_up("node2", "FAILOVER", observe=False)
    assert story.states()["server"] == "recovering"
    story.take_down("node2", "FAILOVER", "GROUPFAILOVER")
    assert story.ended().outcome == "superseded"
    story.tell("node1", "NodeJoined", boot="again", version="0")
    story.bring_up("node1", "FAILOVER")
    assert story.ended().outcome == "completed"
    assert story.outcomes()["manual-started-2"] == "resumed"
    assert story.state.failover_count == 2


def test_double_activation_is_reported_once_and_ends() -> None:
    """I1: where CLUSTERPRO itself brings the group up on two nodes, that is said at once."""
    story = Story()
    story.bring_up("node1")
    story.poll("node2", "server")
    assert story.types().count("DoubleActivationReported") == 1
    story.poll("node2", "agent")
    assert story.types().count("DoubleActivationReported") == 1
    story.poll("node2", "server", "unhealthy")
    assert "DoubleActivationEnded" not in story.types(), "the agent is still up on both"
    story.poll("node2", "agent", "unhealthy")
    assert story.types().count("DoubleActivationEnded") == 1


def test_a_job_is_not_issued_for_a_start_told_late() -> None:
    """A start hook that is long over gets no command: the job would find no live ticket."""
    story = Story()
    story.now_ms += 60_000
    story.call("start", "node1", at_ms=story.now_ms - 30_000.0)
    assert story.issued() == []
    assert "DecisionSkipped" in story.types()


def test_start_deadline_fails_the_start() -> None:
    """I3: a start that is never verified is given up; the script hears 40."""
    story = Story()
    ticket = story.call("start", "node1")
    story.run(ticket, 1)
    story.wait(700)
    assert story.states() == {"agent": "failed", "server": "failed"}
    assert (ticket, 40) in story.verdicts()


def test_group_that_never_comes_up_again_is_a_failed_failover() -> None:
    """I3: taken away and started nowhere: failed at the takeover deadline."""
    story = Story()
    story.bring_up("node1")
    story.take_down("node1", factor="GROUPFAILOVER")
    story.wait(1000)
    assert story.ended().outcome == "failed"
    assert story.states() == {"agent": "failed", "server": "failed"}


def test_missing_schedules_are_missed_at_the_deadline() -> None:
    """I4: what did not come back is `missed`; what runs though not asked for is `unexpected`."""
    story = Story()
    story.bring_up("node1")
    story.tell("_leader", "NodeLost", node="node1")
    ticket = story.bring_up("node2", "FAILOVER", observe=False)
    story.observe("node2", {"auto-started-5": "stopped", "manual-stopped-6": "started"}, ticket)
    assert story.states()["server"] == "recovering"
    story.wait(31)
    assert story.states()["server"] == "running"
    assert story.outcomes() == {
        "auto-started-1": "resumed", "auto-started-5": "missed", "manual-started-2": "resumed", "manual-stopped-6": "unexpected"
    }  # fmt: skip
    _adds_up(story.ended())


def test_recover_puts_the_returned_node_on_probation() -> None:
    """G16: a node that comes back starts nothing and is recovering until its probation has passed."""
    story = Story()
    story.bring_up("node1")
    story.tell("_leader", "NodeLost", node="node1")
    story.bring_up("node2", "FAILOVER")
    story.tell("node1", "NodeJoined", boot="second", version="0")
    assert story.nodes()["node1"] == "recovering"
    story.tell("node1", "ScriptDeclined", script="start", reason="recover", event="RECOVER")
    story.wait(11)
    assert story.nodes()["node1"] == "running"
    assert len(story.issued()) == 4
