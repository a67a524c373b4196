"""The cluster manager's own view, from several nodes: suspended or not, up twice or not, and what is maintenance."""

from __future__ import annotations

from typing import Any

import pytest

from tests.statemachines.story import Story, settings

UP = {"agent": "running", "server": "running"}
BOTH = {"node1": "online", "node2": "online"}


def up(**changes: Any) -> Story:
    story = Story(settings(**changes))
    story.bring_up("node1")
    story.wait(40)
    return story


def view(story: Story, node: str, current: str | None = "node1", *, state: str = "online", at_ms: float | None = None, **more: Any) -> None:
    story.tell(node, "ClusterViewed", group_state=state, current=current, at_ms=at_ms, **({"servers": BOTH} | more))


def suspended(**changes: Any) -> Story:
    story = up(**changes)
    view(story, "node1", suspended=True)
    return story


# --- suspended or not


def test_a_suspended_cluster_is_maintenance_until_it_is_resumed() -> None:
    """Each change is one decision with its rule; what is maintenance says why."""
    story = suspended()
    assert (story.state.suspended, story.state.maintenance) == (True, "suspended")
    view(story, "node2", suspended=True)
    view(story, "node1", suspended=False)
    assert (story.state.suspended, story.state.maintenance) == (False, None)
    rules = [(s.entry.type, s.entry.rule) for s in story.log if "uspended" in s.entry.type]
    assert rules == [("ClusterSuspended", "C100"), ("ClusterUnsuspended", "C102")]


def test_a_view_that_could_not_tell_whether_it_is_suspended_changes_nothing() -> None:
    """Unknown is its own answer."""
    story = suspended()
    view(story, "node1", suspended=None, monitors={"userw": "normal"})
    assert story.state.suspended


def test_an_older_view_does_not_take_the_suspension_back() -> None:
    """What a node saw before, and could tell only now, is history; also when a newer view left it open."""
    story = up()
    before_ms = float(story.now_ms)
    story.wait(5)
    view(story, "node1", suspended=True)
    view(story, "node1", suspended=None, monitors={"userw": "normal"})
    view(story, "node2", suspended=False, at_ms=before_ms)
    assert story.state.suspended


def test_a_node_outside_the_cluster_has_no_say() -> None:
    """A node whose own service is stopped prints that all is offline: what it prints of the others is not what they do."""
    story = suspended(mode="observe")
    view(story, "node2", None, state="offline", servers={"node1": "offline", "node2": "offline"}, suspended=False)
    assert story.state.suspended
    assert story.state.view is not None
    assert story.state.view.current == "node1"


def test_a_cluster_that_was_stopped_everywhere_is_seen_offline() -> None:
    """Mode observe: when no node is a member any more, what they print is what is so."""
    story = Story(settings(mode="observe"))
    for node in ("node1", "node2"):
        view(story, node)
    for service in ("agent", "server"):
        story.poll("node1", service)
    assert story.states() == UP
    for node in ("node1", "node2"):
        view(story, node, None, state="offline", servers={"node1": "offline", "node2": "offline"})
    assert set(story.states().values()) == {"stopped"}


# --- what maintenance means


@pytest.mark.parametrize("symptom", ["poll", "node", "watch", "alert"])
def test_a_symptom_while_the_cluster_is_suspended_opens_no_failover(symptom: str) -> None:
    """The manager acts on nothing then; that it was seen, and why nothing came of it, is recorded."""
    story = suspended()
    tell_symptom(story, symptom)
    assert story.state.failover is None
    assert story.state.counts.skipped["maintenance"] == 1
    (skipped,) = [s.entry for s in story.log if s.entry.type == "DecisionSkipped" and s.entry.data["reason"] == "maintenance"]
    assert (skipped.rule, skipped.data["detail"]) == ("C110", symptom)


def tell_symptom(story: Story, symptom: str) -> None:
    if symptom == "poll":
        story.poll("node1", "server", "unhealthy")
    elif symptom == "alert":
        story.tell("node1", "AlertReceived", module="rm", id=9)
    else:
        story.tell("_leader", {"node": "NodeLost", "watch": "WatchLost"}[symptom], node="node1")


@pytest.mark.parametrize("symptom", ["poll", "node", "watch"])
def test_what_is_still_bad_when_maintenance_ends_is_a_symptom_then(symptom: str) -> None:
    """`detect` begins when the manager watches again, not in the maintenance before."""
    story = suspended()
    tell_symptom(story, symptom)
    story.wait(100)
    view(story, "node2", suspended=False)
    assert story.state.failover is not None
    assert (story.state.failover.trigger, story.state.failover.points["symptom"]) == (symptom, float(story.now_ms))
    assert story.states() == UP


def test_what_is_well_again_when_maintenance_ends_is_no_symptom() -> None:
    """An operator restarted the server meanwhile."""
    story = suspended()
    story.poll("node1", "server", "unhealthy")
    story.tell("_leader", "NodeLost", node="node1")
    story.poll("node1", "server")
    story.tell("_leader", "NodeReturned", node="node1")
    view(story, "node1", suspended=False)
    assert story.state.failover is None
    assert story.states() == UP


def test_a_node_lost_in_maintenance_from_which_the_group_went_is_stopped_in_the_end() -> None:
    """I3: no node counts as running for ever because its loss was no symptom."""
    story = suspended()
    story.tell("_leader", "NodeLost", node="node1")
    story.bring_up("node2", "FAILOVER")
    view(story, "node2", "node2", suspended=False)
    story.wait(60)
    assert story.nodes()["node1"] == "stopped"


def test_the_manager_is_obeyed_while_it_is_suspended() -> None:
    """Hook calls are handled as ever: an operator may stop, start or move the group by hand, and its verbs are issued."""
    story = suspended()
    issued = len(story.issued())
    story.take_down("node1", factor="GROUPMOVE")
    story.bring_up("node2")
    assert len(story.issued()) == issued + 4
    assert (story.ended().kind, story.ended().outcome) == ("move", "completed")


def test_deadlines_go_on_while_the_cluster_is_suspended() -> None:
    """The scripts run, and a start that is never verified is given up; under pause it is not."""
    story = suspended()
    story.take_down("node1")
    story.call("start", "node1")
    story.wait(700)
    assert story.states() == {"agent": "failed", "server": "failed"}


def test_a_suspicion_from_before_the_suspension_ends_at_its_deadline() -> None:
    """I3: the manager does not act on it any more; what is still bad afterwards is a new symptom."""
    story = up()
    story.poll("node1", "server", "unhealthy")
    view(story, "node1", suspended=True)
    story.wait(700)
    assert story.ended().outcome == "cleared"
    view(story, "node1", suspended=False)
    assert story.state.failover is not None
    assert story.state.failover_count == 2


def test_pause_is_maintenance_first() -> None:
    """Both at once: what dcsup does is what pause says."""
    story = suspended()
    story.tell("_operator", "PauseRequested", by="suzuki")
    ticket = story.call("stop", "node1")
    assert (ticket, 75) in story.verdicts()
    before = story.state.maintenance
    story.tell("_operator", "ResumeRequested", by="suzuki")
    assert (before, story.state.maintenance) == ("paused", "suspended")


# --- up twice


def test_two_nodes_that_both_say_that_they_have_the_group_are_reported_after_the_moment_of_a_move() -> None:
    """I1: ask both and compare `current`. One may only be slower to read than the other; after 15 s it is not that."""
    story = up()
    view(story, "node1")
    view(story, "node2", "node2")
    assert "ViewsDiffered" in story.types()
    assert not story.state.double_activation
    story.wait(16)
    assert story.state.double_activation
    (report,) = [s.entry for s in story.log if s.entry.type == "DoubleActivationReported"]
    assert report.data["nodes"] == ["node1", "node2"]


def test_a_node_that_read_again_and_still_differs_is_reported_at_once() -> None:
    """It knew what the other one says: no moment of a move."""
    story = up()
    view(story, "node1")
    view(story, "node2", "node2")
    story.wait(2)
    view(story, "node1", "node1", servers={"node1": "online", "node2": "offline"})
    assert story.state.double_activation


def test_a_move_is_no_double_activation() -> None:
    """The nodes read at their own pace, and the group is pending in between."""
    story = up()
    for node in ("node1", "node2"):
        view(story, node)
    story.take_down("node1", factor="GROUPMOVE")
    view(story, "node2", "node2", state="online-pending")
    assert "ViewsDiffered" not in story.types()
    view(story, "node2", "node2")
    view(story, "node1", "node1", state="offline-pending")
    assert "views" not in story.state.deadlines
    view(story, "node1", "node2")
    story.bring_up("node2")
    story.wait(60)
    assert "DoubleActivationReported" not in story.types()


@pytest.mark.parametrize("how", ["lost", "failed", "unwatched", "joined anew"])
def test_a_view_that_nobody_keeps_up_to_date_is_not_compared(how: str) -> None:
    """A dead node, a node whose cluster service does not answer, a dead watch: what they said last may not be so any more."""
    story = up()
    view(story, "node1")
    if how == "lost":
        story.tell("_leader", "NodeLost", node="node1")
    elif how == "failed":
        story.tell("node1", "ClusterViewFailed", reason="clpstat: exit code 1")
    elif how == "unwatched":
        story.tell("_leader", "WatchLost", node="node1")
    else:
        story.tell("node1", "NodeJoined", boot="second", version="0")
    view(story, "node2", "node2")
    story.wait(60)
    assert "DoubleActivationReported" not in story.types()


def test_double_activation_that_the_views_showed_ends_when_they_agree() -> None:
    """Also when a poll, which shows nothing of it, comes first."""
    story = up()
    view(story, "node1")
    view(story, "node2", "node2")
    story.wait(16)
    story.poll("node2", "server", "unknown")
    assert story.state.double_activation
    view(story, "node1", "node2")
    assert not story.state.double_activation


def test_the_managers_own_word_holds_until_its_view_says_otherwise() -> None:
    """The view itself says that the group is up twice."""
    story = up()
    view(story, "node1", double_activation=True)
    story.poll("node2", "server", "unknown")
    assert story.state.double_activation
    view(story, "node1")
    assert not story.state.double_activation


def test_three_nodes_of_which_two_agree_are_still_up_twice() -> None:
    """The third says what one of the two says."""
    story = Story(settings(nodes=["node1", "node2", "third"]), joined=("node1", "node2", "third"))
    story.bring_up("node1")
    for node, current in (("node1", "node1"), ("node2", "node2"), ("third", "node1")):
        view(story, node, current)
    story.wait(16)
    assert story.state.double_activation


# --- mode observe


def test_a_view_that_changes_in_something_else_says_nothing_about_the_place() -> None:
    """Up twice, each node sees itself: that a monitor's state changes on one of them is no failover back to it."""
    story = Story(settings(mode="observe"))
    for node in ("node1", "node2"):
        view(story, node)
    for service in ("agent", "server"):
        story.poll("node1", service)
    view(story, "node2", "node2")
    for service in ("agent", "server"):
        story.poll("node2", service)
    story.wait(60)
    assert story.state.active == "node2"
    view(story, "node1", "node1", monitors={"userw": "caution"})
    assert story.state.active == "node2"
    assert story.state.failover_count == 1


def test_monitors_and_resources_are_remembered() -> None:
    """What the manager sees is shown beside what dcsup sees."""
    story = up()
    view(story, "node1", monitors={"appliw1": "error"}, resources={"script1": "online-failure"}, by="rest")
    assert story.state.view is not None
    assert story.state.view.monitors == {"appliw1": "error"}
    assert story.state.view.resources == {"script1": "online-failure"}
    assert story.state.view.by == "rest"
    assert set(story.state.views) == {"node1"}
