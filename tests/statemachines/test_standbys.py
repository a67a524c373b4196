"""One active node and more than one standby (G1): moves between any of them, and a failover that goes on until somebody serves."""

from __future__ import annotations

from itertools import permutations

import pytest

from statemachines.states import FailoverStatus
from tests.statemachines.chaos import check_record
from tests.statemachines.story import Story, settings

UP = {"agent": "running", "server": "running"}
THREE = ("node1", "node2", "third")
FOUR = (*THREE, "4th")


def up(nodes: tuple[str, ...] = THREE) -> Story:
    story = Story(settings(nodes=list(nodes)), joined=nodes)
    story.bring_up("node1")
    story.wait(40)
    return story


def failing_start(story: Story, node: str, event: str = "FAILOVER") -> str:
    """A start whose first command fails: the script hears 40 and returns it."""
    ticket = story.call("start", node, event)
    story.run(ticket, 1, result="fail")
    story.tell(node, "ScriptEnded", ticket=ticket, script="start", code=40)
    return ticket


def what(record: FailoverStatus) -> tuple[str, str | None, str | None, str | None]:
    return record.kind, record.outcome, record.node_from, record.node_to


@pytest.mark.parametrize("nodes", [THREE, FOUR], ids=["two standbys", "three standbys"])
def test_the_group_moves_from_any_node_to_any_other(nodes: tuple[str, ...]) -> None:
    """G1: each move is complete and names its two nodes; exactly one node is active, all are there."""
    story = up(nodes)
    count = 0
    for node_from, node_to in permutations(nodes, 2):
        if story.state.active != node_from:
            story.take_down(story.state.active or "", factor="GROUPMOVE")
            story.bring_up(node_from)
            count += 1
        story.take_down(node_from, factor="GROUPMOVE")
        story.bring_up(node_to)
        count += 1
        assert what(story.ended()) == ("move", "completed", node_from, node_to)
        assert [name for name, node in story.state.nodes.items() if node.role == "active"] == [node_to]
        assert set(story.nodes().values()) == {"running"}
        assert story.states() == UP
    assert story.state.failover_count == count


@pytest.mark.parametrize("first", ["node2", "third"])
def test_a_failover_may_end_on_any_standby(first: str) -> None:
    """The failover policy is the manager's: dcsup follows it."""
    story = up()
    story.tell("_leader", "NodeLost", node="node1")
    story.bring_up(first, "FAILOVER")
    assert what(story.ended()) == ("failure", "completed", "node1", first)


@pytest.mark.parametrize("stopped", [None, "GROUPFAILOVER", ""], ids=["no stop", "stop that says why", "stop that does not"])
def test_the_next_standby_takes_over_when_the_first_one_fails(stopped: str | None) -> None:
    """CLUSTERPRO tries the next: the first failover failed, the second is complete, and what ran on node1 is what must come back."""
    story = up()
    story.tell("_leader", "NodeLost", node="node1")
    failing_start(story, "node2")
    assert what(story.ended()) == ("failure", "failed", "node1", "node2")
    assert story.states() == {"agent": "failed", "server": "failed"}
    if stopped is not None:
        story.take_down("node2", "FAILOVER", stopped)
    story.bring_up("third", "FAILOVER")
    assert [record.outcome for record in story.state.failovers] == ["failed", "completed"]
    assert what(story.ended()) == ("failure", "completed", "node2", "third")
    assert story.states() == UP
    assert story.nodes() == {"node1": "stopped", "node2": "running", "third": "running"}
    assert story.outcomes() == {"auto-started-1": "resumed", "auto-started-5": "resumed", "manual-started-2": "resumed"}
    for record in story.state.failovers:
        check_record(record, ended=True)


def test_all_standbys_fail_one_after_the_other() -> None:
    """I3: each attempt has its own record and its own end; nothing waits when the last one failed."""
    story = up(FOUR)
    story.tell("_leader", "NodeLost", node="node1")
    for node in FOUR[1:]:
        failing_start(story, node)
    story.wait(2000)
    assert [what(record)[1:] for record in story.state.failovers] == [
        ("failed", "node1", "node2"), ("failed", "node2", "third"), ("failed", "third", "4th")
    ]  # fmt: skip
    assert story.states() == {"agent": "failed", "server": "failed"}
    assert story.state.failover is None
    assert not story.state.deadlines


def test_a_standby_dies_while_it_takes_over() -> None:
    """The start on it never ends; the third node's start is the same incident, and the last start counts."""
    story = up()
    story.tell("_leader", "NodeLost", node="node1")
    ticket = story.call("start", "node2", "FAILOVER")
    story.run(ticket, 1)
    story.tell("_leader", "NodeLost", node="node2")
    story.bring_up("third", "FAILOVER")
    assert story.state.failover_count == 1
    assert what(story.ended()) == ("failure", "completed", "node1", "third")
    assert story.nodes()["node1"] == "stopped"
    assert story.nodes()["node2"] == "stopped"
    assert (ticket, 1) in [(job.payload["ticket"], job.payload["n"]) for job in story.jobs if job.payload["kind"] == "command"]


def test_what_the_dead_standby_tells_later_moves_nothing() -> None:
    """It was only cut off; its ends arrive when the third node serves."""
    story = up()
    story.tell("_leader", "NodeLost", node="node1")
    ticket = story.call("start", "node2", "FAILOVER")
    story.tell("_leader", "NodeLost", node="node2")
    story.bring_up("third", "FAILOVER")
    story.run(ticket, 1, result="fail")
    story.tell("node2", "ScriptEnded", ticket=ticket, script="start", code=40)
    story.tell("_leader", "NodeReturned", node="node2")
    assert story.states() == UP
    assert story.state.active == "third"
    assert story.ended().outcome == "completed"


def test_a_second_failover_before_the_schedules_of_the_first_are_judged() -> None:
    """The first is superseded; the second goes on from where the group was, to a node that had no part in it."""
    story = up()
    story.tell("_leader", "NodeLost", node="node1")
    story.bring_up("node2", "FAILOVER", observe=False)
    story.tell("_leader", "NodeLost", node="node2")
    story.bring_up("third", "FAILOVER")
    assert [what(record) for record in story.state.failovers] == [
        ("failure", "superseded", "node1", "node2"), ("failure", "completed", "node2", "third")
    ]  # fmt: skip
    assert story.outcomes()["manual-started-2"] == "resumed"


def test_a_move_on_before_the_schedules_are_judged() -> None:
    """An operator moves the group on at once: superseded, and a move of its own."""
    story = up()
    story.take_down("node1", factor="GROUPMOVE")
    story.bring_up("node2", observe=False)
    story.take_down("node2", factor="GROUPMOVE")
    story.bring_up("third")
    assert [what(record) for record in story.state.failovers] == [
        ("move", "superseded", "node1", "node2"), ("move", "completed", "node2", "third")
    ]  # fmt: skip


def test_a_standby_that_comes_and_goes_moves_nothing() -> None:
    """Its loss is no symptom, its return no news but its own probation."""
    story = up()
    story.tell("_leader", "NodeLost", node="third")
    assert story.nodes()["third"] == "stopped"
    story.tell("third", "NodeJoined", boot="second", version="0")
    story.wait(20)
    assert story.nodes()["third"] == "running"
    assert story.state.failover_count == 0


def test_three_nodes_observed() -> None:
    """Mode observe: any of the nodes may be the one that tells."""
    story = Story(settings(nodes=list(THREE), mode="observe"), joined=THREE)
    for place in ("node1", "third", "node2", "node1"):
        for teller in THREE:
            story.tell(teller, "ClusterViewed", group_state="online", current=place)
        for service in ("agent", "server"):
            for node in sorted(THREE, key=lambda node: node == place):
                story.poll(node, service, "healthy" if node == place else "unhealthy")
        story.wait(60)
        assert story.states() == UP
        assert story.state.active == place
    assert [what(record)[1:] for record in story.state.failovers] == [
        ("completed", "node1", "third"), ("completed", "third", "node2"), ("completed", "node2", "node1")
    ]  # fmt: skip
    assert "DoubleActivationReported" not in story.types()
