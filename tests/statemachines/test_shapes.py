"""Every shape of a cluster that a configuration may describe, through start, failover, restart in place, move and stop."""

from __future__ import annotations

from typing import Any

import pytest

from statemachines.configuration import ClusterSettings
from tests.statemachines.chaos import check_record
from tests.statemachines.story import Story, settings

AGENT, SERVER, DBMS = {"name": "agent", "kind": "agent"}, {"name": "server", "kind": "server"}, {"name": "dbms", "kind": "command"}
SHAPES: dict[str, list[dict[str, Any]]] = {
    "server only": [SERVER],
    "agent only, remote databases": [AGENT | {"databases": "remote"}],
    "agent with its DBMS (G24)": [DBMS, AGENT | {"databases": "local"}],
    "both (G23)": [AGENT, SERVER],
    "DBMS, agent, server": [DBMS, AGENT, SERVER],
    "metadata DB where a site asks for it (G44), server": [{"name": "metadata", "kind": "command"}, SERVER],
    "two servers": [AGENT, SERVER, {"name": "server-b", "kind": "server"}],
    "two agents": [AGENT, {"name": "agent-b", "kind": "agent"}, SERVER],
    "a command service after the server": [AGENT, SERVER, {"name": "report", "kind": "command"}],
    "a command service alone": [DBMS],
    "an agent with schedules of its own": [AGENT | {"schedules": True}],
    "a server whose schedules nobody judges": [SERVER | {"schedules": False}],
}


def shaped(services: list[dict[str, Any]], **changes: Any) -> ClusterSettings:
    return settings(services=services, **changes)


def verbs_of_last_call(story: Story, count: int) -> list[tuple[str, str]]:
    return [(service, verb) for _, _, service, verb in story.issued()[-count:]]


@pytest.mark.parametrize("probe", ["command", "none"])
@pytest.mark.parametrize("services", SHAPES.values(), ids=SHAPES)
def test_every_shape_starts_fails_over_restarts_moves_and_stops(services: list[dict[str, Any]], probe: str) -> None:
    """G8-G15, G23, G24: the verbs in the order of the list, each failover complete and its phases adding up, nothing left waiting."""
    story = Story(shaped(services, schedules={"settle": 1, "deadline": 30, "probe": probe}))
    up = {service["name"]: "running" for service in services}
    story.bring_up("node1")
    assert verbs_of_last_call(story, len(services)) == story.guide("start", "START")
    story.wait(40)
    assert story.states() == up
    assert story.state.failover_count == 0

    story.tell("_leader", "NodeLost", node="node1")
    story.bring_up("node2", "FAILOVER")
    assert verbs_of_last_call(story, len(services)) == story.guide("start", "FAILOVER")
    story.wait(40)
    story.tell("node1", "NodeJoined", boot="second", version="0")
    assert (story.ended().kind, story.ended().outcome) == ("failure", "completed")

    story.poll("node2", services[-1]["name"], "unhealthy")
    story.take_down("node2", "FAILOVER", "RESOURCERESTART")
    assert verbs_of_last_call(story, len(services)) == story.guide("stop", "FAILOVER")
    story.bring_up("node2")
    story.wait(40)
    assert (story.ended().kind, story.ended().outcome) == ("restart", "completed")

    story.take_down("node2", factor="GROUPMOVE")
    story.bring_up("node1")
    story.wait(40)
    assert (story.ended().kind, story.ended().outcome) == ("move", "completed")
    assert story.states() == up

    story.take_down("node1")
    assert set(story.states().values()) == {"stopped"}
    assert "CommandListDiffered" not in story.types()
    assert story.state.failover is None
    assert not story.state.deadlines
    for record in story.state.failovers:
        check_record(record, ended=True)
        judged = {judgement.service for judgement in record.judgements}
        assert judged <= set(story.state.schedules)


@pytest.mark.parametrize("services", SHAPES.values(), ids=SHAPES)
def test_every_shape_is_observed_through_a_failover(services: list[dict[str, Any]]) -> None:
    """Mode observe: whatever the services, a failover ends, and no verb is run."""
    story = Story(shaped(services, mode="observe"))
    story.tell("node1", "ClusterViewed", group_state="online", current="node1")
    for service in services:
        story.poll("node1", service["name"])
    story.wait(40)
    story.tell("_leader", "NodeLost", node="node1")
    story.tell("node2", "ClusterViewed", group_state="online", current="node2")
    for service in services:
        story.poll("node2", service["name"])
    story.wait(40)
    assert (story.ended().outcome, story.ended().node_to) == ("completed", "node2")
    assert set(story.states().values()) == {"running"}
    assert story.jobs == []


@pytest.mark.parametrize("services", [SHAPES["agent only, remote databases"], SHAPES["a command service alone"]])
def test_a_failover_with_no_schedules_to_judge_ends_with_its_verification(services: list[dict[str, Any]]) -> None:
    """Nothing is waited for that nobody judges; the resume phase is there and takes no time."""
    story = Story(shaped(services))
    story.bring_up("node1")
    story.tell("_leader", "NodeLost", node="node1")
    story.bring_up("node2", "FAILOVER")
    assert story.ended().outcome == "completed"
    assert story.ended().phases["resume"] == 0.0
    assert story.ended().judgements == []


def test_without_a_probe_the_outcome_is_unknown_at_once() -> None:
    """I4: a site that cannot list its schedules is told `unknown`, never `resumed`, and waits for nothing."""
    story = Story(settings(schedules={"probe": "none"}))
    story.bring_up("node1", observe=False)
    story.tell("_leader", "NodeLost", node="node1")
    story.bring_up("node2", "FAILOVER", observe=False)
    assert story.ended().outcome == "completed"
    assert story.outcomes() == {"*": "unknown"}


# --- command services (G24)


def test_a_failed_dbms_lets_nothing_after_it_begin() -> None:
    """G24: what the agent needs did not start, so the agent is not started, and the script reports the group as not up."""
    story = Story(shaped(SHAPES["DBMS, agent, server"]))
    ticket = story.call("start", "node1")
    assert story.issued() == [("node1", 1, "dbms", "start")]
    story.run(ticket, 1, result="fail")
    assert story.verdicts() == [(ticket, 40)]
    assert set(story.states().values()) == {"failed"}
    assert len(story.issued()) == 1


def test_the_agent_waits_for_its_dbms_and_the_server_for_the_agent() -> None:
    """G23, G24: command N+1 is issued when the service of command N is verified, whatever its kind."""
    story = Story(shaped(SHAPES["DBMS, agent, server"]))
    ticket = story.call("start", "node1")
    for n, name in enumerate(("dbms", "agent", "server"), 1):
        assert [issued[2] for issued in story.issued()] == ["dbms", "agent", "server"][:n]
        story.run(ticket, n)
        story.poll("node1", name, ticket=ticket)
    assert story.states() == {"dbms": "running", "agent": "running", "server": "running"}


def test_i2_is_about_agents_and_not_about_other_services() -> None:
    """G23: a server is not held back by a command service that its ticket does not list; only a missing agent does that."""
    story = Story(shaped([SERVER, DBMS]))
    story.call("start", "node1", commands=[("server", "recover")])
    assert story.issued() == [("node1", 1, "server", "recover")]


def test_a_dead_dbms_is_a_symptom_like_any_other() -> None:
    """G22, G24: its status command is polled as dcstatus is."""
    story = Story(shaped(SHAPES["agent with its DBMS (G24)"]))
    story.bring_up("node1")
    story.poll("node1", "dbms", "unhealthy")
    assert story.state.failover is not None
    assert story.state.failover.trigger == "poll"


@pytest.mark.parametrize(("script", "verb"), [("start", "recover"), ("stop", "faststop")])
def test_a_command_service_knows_start_and_stop_only(script: str, verb: str) -> None:
    """A ticket that asks it for a verb of the product gets no command; the script goes on by itself."""
    story = Story(shaped([DBMS]))
    if script == "stop":
        story.bring_up("node1")
    issued = story.issued()
    story.call(script, "node1", commands=[("dbms", verb)])
    assert story.issued() == issued
    assert "DecisionSkipped" in story.types()
    assert "CommandListDiffered" in story.types()


# --- other verbs than the guide's

CHOSEN = {"start": "recover", "start_after_failover": "start", "stop": "faststop", "stop_after_failover": "stop"}


@pytest.mark.parametrize("kind", ["agent", "server"])
def test_a_sites_own_verbs_are_what_is_expected(kind: str) -> None:
    """A ticket with the site's verbs differs from nothing; one with the guide's differs, and is carried out all the same."""
    story = Story(shaped([{"name": kind, "kind": kind, "verbs": CHOSEN}]))
    for script, event, key in (
        ("start", "START", "start"), ("stop", "START", "stop"), ("start", "FAILOVER", "start_after_failover"),
        ("stop", "FAILOVER", "stop_after_failover"),
    ):  # fmt: skip
        ticket = story.call(script, "node1", event, commands=[(kind, CHOSEN[key])])
        assert verbs_of_last_call(story, 1) == [(kind, CHOSEN[key])]
        story.run(ticket, 1)
        story.poll("node1", kind, "healthy" if script == "start" else "unhealthy", ticket=ticket if script == "start" else None)
        story.tell("node1", "ScriptEnded", ticket=ticket, script=script, code=0)
    assert "CommandListDiffered" not in story.types()
    story.call("start", "node1", commands=[(kind, "start")])
    (differed,) = [sealed.entry for sealed in story.log if sealed.entry.type == "CommandListDiffered"]
    assert differed.data["expected"] == [{"service": kind, "verb": "recover"}]
    assert verbs_of_last_call(story, 1) == [(kind, "start")]


def moved_with(stop: str, start: str) -> Story:
    """A move by a site that stops and starts its server with these verbs."""
    verbs = {"stop": stop, "start": start, "start_after_failover": start, "stop_after_failover": stop}
    story = Story(shaped([SERVER | {"verbs": verbs}]))
    for script, node in (("start", "node1"), ("stop", "node1"), ("start", "node2")):
        ticket = story.call(script, node, factor="GROUPMOVE", commands=[("server", start if script == "start" else stop)])
        story.run(ticket, 1)
        story.poll(node, "server", "healthy" if script == "start" else "unhealthy", ticket=ticket if script == "start" else None)
        story.tell(node, "ScriptEnded", ticket=ticket, script=script, code=0)
        if script == "start":
            story.wait(2)
            story.observe(node)
    story.wait(40)
    return story


@pytest.mark.parametrize(
    ("stop", "start", "rule"),
    [("faststop", "recover", "G4"), ("stop", "recover", "G5"), ("faststop", "start", "G6"), ("stop", "start", "G6")],
)
def test_the_schedule_rule_follows_the_sites_verbs(stop: str, start: str, rule: str) -> None:
    """G4-G6: which schedules must run is decided by the verbs that really ran, and assumed nowhere."""
    (judgement,) = moved_with(stop, start).ended().judgements
    assert (judgement.rule, judgement.assumed) == (rule, False)


def test_a_verb_that_did_not_run_decides_no_rule() -> None:
    """G7: dcstatus was 0 already, so `start` was never given; that nothing happened to the schedules is an assumption, and says so."""
    story = Story(shaped([SERVER | {"verbs": {"start_after_failover": "start"}}]))
    story.bring_up("node1")
    story.tell("_leader", "NodeLost", node="node1")
    ticket = story.call("start", "node2", "FAILOVER", commands=[("server", "start")])
    story.run(ticket, 1, ran=False)
    story.poll("node2", "server", ticket=ticket)
    story.wait(2)
    story.observe("node2")
    (judgement,) = story.ended().judgements
    assert (judgement.rule, judgement.assumed) == ("G4", True)
