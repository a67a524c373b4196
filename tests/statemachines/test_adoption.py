"""What runs without dcsup having been told of its start: what counts as the group's, and when the group is up."""

from __future__ import annotations

from typing import Any

from tests.statemachines.story import Story, settings

UP = {"agent": "running", "server": "running"}


def test_observing_a_failover_of_a_group_whose_start_never_came_to_an_end() -> None:
    """DESIGN.md, phase verify: the whole group must be up, also the service that was stopped when it was taken away (I4)."""
    story = Story(settings(mode="observe"))
    story.tell("node1", "ClusterViewed", group_state="online-pending", current="node1")
    story.poll("node1", "agent")
    assert story.states() == {"agent": "running", "server": "stopped"}
    for teller in ("node1", "node2"):
        story.tell(teller, "ClusterViewed", group_state="online-pending", current="node2")
    story.poll("node2", "agent")
    assert story.state.failover is not None
    assert story.state.failover.state == "acting"
    story.poll("node2", "server")
    story.wait(60)
    assert (story.ended().outcome, story.ended().node_to) == ("completed", "node2")
    assert story.states() == UP


def test_a_command_by_the_script_says_that_the_script_has_the_ticket() -> None:
    """N2: no worker is asked for the next one, though the disk took no word of the script's taking it."""
    story = Story()
    ticket = story.call("start", "node1")
    assert len(story.issued()) == 1
    story.run(ticket, 1, by="script")
    story.poll("node1", "agent", ticket=ticket)
    assert len(story.issued()) == 1
    story.run(ticket, 2, by="script")
    story.poll("node1", "server", ticket=ticket)
    assert story.states() == UP


def test_what_a_start_found_healthy_is_adopted_though_its_watch_saw_no_change() -> None:
    """A stop was killed before the agent's turn, and the next start, which told nothing, found the agent up: it serves with the group."""
    story = Story()
    story.bring_up("node1")
    story.tell("node1", "ClusterViewed", group_state="online", current="node1")
    stop = story.call("stop", "node1", factor="GROUPSTOP")
    story.run(stop, 1)
    story.poll("node1", "server", "unhealthy")
    story.tell("node1", "ScriptEnded", ticket=stop, script="stop", code=0)
    assert story.states() == {"agent": "stopped", "server": "stopped"}
    untold: dict[str, Any] = {"ticket": "unknown-failover1-9-start", "by": "script", "n": 1, "service": "agent", "verb": "start"}
    story.tell("node1", "CommandEnded", result="ok", ran=False, code=0, reason="already-healthy", **untold)
    story.poll("node1", "server")
    assert story.states() == UP
