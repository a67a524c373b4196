"""Nights that go otherwise: facts that come late, twice, or from the wrong node; calls that cross; a cluster that changes under way."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from statemachines.cluster import order_of, quarantine
from tests.statemachines.chaos import check_record
from tests.statemachines.story import Story, settings

UP = {"agent": "running", "server": "running"}


def up(config: object = None) -> Story:
    story = Story(config)  # type: ignore[arg-type]
    story.bring_up("node1")
    story.wait(5)
    return story


def moved(story: Story) -> str:
    """A planned move to node2, all well; the ticket of the stop."""
    ticket = story.take_down("node1", factor="GROUPMOVE")
    story.bring_up("node2")
    return ticket


# --- facts that come late


def test_the_end_of_a_stop_told_after_the_start_elsewhere_takes_nothing_back() -> None:
    """The old node's last word may be slower than the new node's start: what was verified stays so, and the record is completed."""
    story = up()
    stop = story.call("stop", "node1", factor="GROUPMOVE")
    story.run(stop, 1)
    story.bring_up("node2")
    story.run(stop, 2)
    story.tell("node1", "ScriptEnded", ticket=stop, script="stop", code=0)
    assert all(service.verified for service in story.state.services.values())
    assert story.states() == UP
    assert "stop" in story.ended().phases
    story.poll("node2", "server", "unhealthy")
    assert story.state.failover is not None, "a failed poll of what is served is a symptom"


def test_schedules_are_judged_after_a_restart_in_place_whose_start_hook_told_nothing() -> None:
    """I4: a start that only the script and the polls tell of (its hook crashed) owes the schedules as any other."""
    story = up()
    story.take_down("node1", factor="RESOURCERESTART")
    start = "bootnode1-group-a-9-start"
    story.tell("node1", "FallbackTaken", ticket=start, reason="hook-1")
    for n, (service, verb) in enumerate(story.guide("start", "START"), start=1):
        story.tell("node1", "CommandStarted", ticket=start, n=n, service=service, verb=verb, by="script")
        story.tell("node1", "CommandEnded", ticket=start, n=n, service=service, verb=verb, by="script", result="ok", code=0)
        story.poll("node1", service, ticket=start)
    assert story.state.failover is not None, "it ends when the schedules are judged"
    story.wait(3)
    story.observe("node1", ticket=start)
    assert story.states() == UP
    assert [judgement.service for judgement in story.ended().judgements] == ["server"]
    assert story.state.term == 2, "a start of the group is a term of its own, whoever told of it"


def viewed(story: Story, node: str, current: str) -> None:
    story.tell(node, "ClusterViewed", group_state="online", current=current, servers={}, suspended=False, by="clpstat")


def test_what_goes_on_after_a_double_activation_is_taken_over_where_the_manager_says() -> None:
    """I1, I3: the group came up on both nodes, and the later one gave way: the other's services serve, though their polls are no news."""
    story = up()
    second = story.call("start", "node2", "FAILOVER")
    for n, service in enumerate(("agent", "server"), start=1):
        story.run(second, n)
        story.poll("node2", service, ticket=second)
    story.tell("node2", "ScriptEnded", ticket=second, script="start", code=0)
    story.take_down("node2", "FAILOVER")
    assert story.states() == {"agent": "stopped", "server": "stopped"}
    viewed(story, "node1", "node1")
    story.observe("node1")
    assert story.states() == UP
    assert story.state.active == "node1"


def test_a_view_from_before_a_stop_brings_nothing_back() -> None:
    """A node's view that is told late, and polls that no longer come (dcstatus hangs): what was stopped is stopped."""
    story = up()
    seen_ms = float(story.now_ms)
    story.wait(1)
    stop = story.call("stop", "node1", factor="GROUPSTOP")
    for n in (1, 2):
        story.run(stop, n)
    story.tell("node1", "ScriptEnded", ticket=stop, script="stop", code=0)
    view: dict[str, Any] = {"group_state": "online", "current": "node1", "servers": {}, "suspended": False, "by": "clpstat"}
    story.tell("node2", "ClusterViewed", at_ms=seen_ms, **view)
    story.tell("node2", "ClusterViewed", **view)
    assert story.states() == {"agent": "stopped", "server": "stopped"}


@pytest.mark.parametrize("first", ["polls", "view"])
def test_a_start_on_another_node_that_told_nothing_is_taken_over_there(first: str) -> None:
    """No hook, no ticket (a full disk, no Python): what runs on node2, and on node1 no more, is the group's, whatever is heard of first."""
    story = up()
    story.tell("node1", "NodeJoined", boot="another", version="1", platform="x")
    story.poll("node1", "server", "unhealthy")
    if first == "view":
        viewed(story, "node2", "node2")
    for service in ("agent", "server"):
        story.poll("node2", service)
    if first == "polls":
        viewed(story, "node2", "node2")
    story.poll("node1", "agent", "unhealthy")
    story.observe("node2")
    story.wait(3)
    story.observe("node2")
    assert story.states() == UP
    assert {service.node for service in story.state.services.values()} == {"node2"} and story.state.active == "node2"
    assert (story.ended().outcome, story.ended().node_to) == ("completed", "node2")
    assert story.issued() == [] or all(node == "node1" for node, *_ in story.issued()), "nobody asked for a command there"


def test_a_start_that_died_with_its_node_holds_up_no_other_for_longer_than_its_deadline() -> None:
    """While it is under way, and it is known of, nothing else is taken over; then it is, in whatever state the failover is."""
    story = up()
    story.take_down("node1", factor="GROUPFAILOVER")
    story.call("start", "node2", "FAILOVER")
    story.poll("node2", "agent", "unhealthy")
    story.poll("node2", "server", "unhealthy")
    viewed(story, "node1", "node1")
    for service in ("agent", "server"):
        story.poll("node1", service)
    assert story.state.active == "node2"
    story.wait(601)
    assert story.states() == UP and story.state.active == "node1"


def test_a_start_told_after_a_symptom_that_it_explains_is_the_failovers_with_its_schedules() -> None:
    """I4: node2's facts come late; meanwhile node1 came back and showed a symptom, which is later than the start: one failover, judged."""
    story = up()
    began_ms = float(story.now_ms)
    story.wait(60)
    story.tell("node1", "NodeJoined", boot="another", version="1", platform="x")
    assert story.state.failover is not None
    start, at_ms = "b-group-a-7-start", began_ms + 1000
    commands = [{"n": n, "service": s, "verb": v} for n, (s, v) in enumerate(story.guide("start", "FAILOVER"), start=1)]
    told = {"ticket": start, "event": "FAILOVER", "server": "OTHER", "commands": commands, "previous": "node1"}
    story.tell("node2", "StartHookCalled", at_ms=at_ms, **told)
    for service in ("agent", "server"):
        polled = {"service": service, "status": "healthy", "verified": True, "code": 0, "ticket": start, "polls": 1, "duration_s": 0.1}
        story.tell("node2", "ServicePolled", at_ms=at_ms + 9000, **polled)
    story.tell("node2", "ScriptEnded", at_ms=at_ms + 9001, ticket=start, script="start", code=0)
    story.observe("node2", ticket=start)
    story.wait(61)
    assert story.states() == UP and story.ended().outcome == "completed"
    assert [judgement.service for judgement in story.ended().judgements] == ["server"]


def test_an_alert_told_after_the_start_takes_nothing_away() -> None:
    """`rc 60` says that a failover began; told when the new node is already at it, it is history."""
    story = up()
    alerted_ms = float(story.now_ms)
    start = story.call("start", "node2", "FAILOVER")
    for at_ms in (alerted_ms, None):
        story.tell("node2", "AlertReceived", module="rc", id=60, at_ms=at_ms)
    assert story.states() == {"agent": "recovering", "server": "recovering"}
    assert story.state.active == "node2"
    story.run(start, 1)
    story.poll("node2", "agent", ticket=start)
    assert story.issued()[-1] == ("node2", 2, "server", "recover")


def test_an_alert_before_the_hooks_is_where_the_manager_acted() -> None:
    """The alert opens the failover; the stop hook, when it comes, is where `detect` ends."""
    story = up()
    story.tell("node2", "AlertReceived", module="rm", id=9)
    story.wait(1)
    story.tell("node2", "AlertReceived", module="rc", id=60)
    assert story.states() == {"agent": "failing-over", "server": "failing-over"}
    story.wait(1)
    story.take_down("node1", factor="GROUPFAILOVER")
    story.bring_up("node2", "FAILOVER")
    assert story.ended().trigger == "alert"
    assert story.ended().phases["detect"] == pytest.approx(2.0, abs=0.1)
    check_record(story.ended(), ended=True)


def test_an_alert_while_nothing_is_served_is_no_symptom() -> None:
    """A server that goes down under a stopped group moves nothing."""
    story = up()
    story.take_down("node1")
    story.tell("node2", "AlertReceived", module="nm", id=2)
    assert story.state.failover is None


def test_a_start_told_after_somebody_else_brought_the_group_up_is_history() -> None:
    """A node that was away tells of its start only when another one has been serving for long."""
    story = Story()
    called_ms = float(story.now_ms)
    story.wait(60)
    for service in ("agent", "server"):
        story.poll("node2", service)
    story.call("start", "node1", at_ms=called_ms)
    assert story.state.active == "node2"
    assert story.states() == UP


def test_a_call_older_than_every_ticket_that_is_kept_is_digested() -> None:
    """Nothing that arrives late makes the step raise."""
    story = up()
    called_ms = float(story.now_ms)
    for _ in range(5):
        story.take_down("node1")
        story.bring_up("node1")
    story.call("stop", "node2", at_ms=called_ms)
    assert "older-call" in story.state.counts.skipped
    assert story.states() == UP


def test_the_baseline_is_what_was_seen_before_a_symptom_told_late() -> None:
    """The failed poll happened before the last observation arrived: what ran before the symptom is what must come back."""
    story = up()
    failed_ms = float(story.now_ms)
    story.wait(3)
    story.observe("node1", {"manual-started-2": "stopped", "auto-started-1": "stopped"})
    story.poll("node1", "server", "unhealthy", at_ms=failed_ms)
    baseline = story.state.schedules["server"].baseline
    assert baseline is not None
    assert {s.name for s in baseline.schedules if s.state == "started"} == {"auto-started-1", "manual-started-2", "auto-started-5"}


def test_the_end_of_a_start_told_by_a_clock_that_was_set_back_is_not_before_the_start() -> None:
    """Its failover counts as completed with what was judged of its schedules (I4)."""
    story = up()
    story.take_down("node1", factor="GROUPFAILOVER")
    start = story.call("start", "node2", "FAILOVER")
    story.tell("node2", "FallbackTaken", ticket=start, reason="hook-75")
    story.tell("node2", "ScriptEnded", ticket=start, script="start", code=0, at_ms=story.now_ms - 4_000_000.0)
    story.wait(60)
    assert [judgement.service for judgement in story.ended().judgements] == ["server"]
    assert story.state.services["server"].verified_ms == story.state.term_ms


# --- calls that cross, and where they belong


def test_a_stop_where_the_group_is_not_touches_nothing() -> None:
    """A node that cleans up after itself is let go on by itself; what another node serves stays served."""
    story = up()
    story.wait(60)
    ticket = story.call("stop", "node2", factor="GROUPSTOP")
    assert story.states() == UP
    assert (ticket, 75) in story.verdicts()
    assert story.state.failover is None


def test_no_start_command_is_issued_once_the_stop_is_called() -> None:
    """The agent's good poll comes when the group is being stopped already: the server's turn does not come."""
    story = Story()
    start = story.call("start", "node1")
    story.run(start, 1)
    story.call("stop", "node1")
    issued = story.issued()
    story.poll("node1", "agent", ticket=start)
    assert story.issued() == issued
    assert story.states() == {"agent": "stopping", "server": "stopping"}


def test_a_good_poll_while_the_stop_is_under_way_brings_nothing_back() -> None:
    """What still runs before its stop has ended is not taken over; the failover goes on."""
    story = up()
    story.call("stop", "node1", factor="GROUPFAILOVER")
    story.poll("node1", "agent", "unknown")
    story.poll("node1", "agent")
    assert story.states() == {"agent": "failing-over", "server": "failing-over"}


def test_a_failed_start_and_then_a_start_elsewhere() -> None:
    """A normal start elsewhere after a failed one is no failover; a FAILOVER start is one, and the next of its own."""
    story = Story()
    ticket = story.call("start", "node1")
    story.run(ticket, 1, result="fail")
    story.bring_up("node2")
    assert story.state.failover_count == 0
    assert story.nodes() == {"node1": "running", "node2": "running"}
    failed = story.call("start", "node1", "FAILOVER")
    story.run(failed, 1, result="fail")
    assert story.ended().outcome == "failed"
    story.bring_up("node2", "FAILOVER")
    assert [record.outcome for record in story.state.failovers] == ["failed", "completed"]


def test_a_shutdown_that_goes_on_elsewhere_is_called_so() -> None:
    """CLP_FACTOR=SERVERSHUTDOWN, then a start on the standby: one failover of kind shutdown."""
    story = up()
    story.take_down("node1", factor="SERVERSHUTDOWN")
    story.tell("node1", "NodeLeft")
    story.bring_up("node2", "FAILOVER")
    assert (story.ended().kind, story.ended().outcome) == ("shutdown", "completed")
    check_record(story.ended(), ended=True)


@pytest.mark.parametrize(("symptom", "state"), [(True, "failing-over"), (False, "stopped")])
def test_a_stop_that_says_no_reason_is_told_by_what_was_seen_before(symptom: bool, state: str) -> None:
    """An empty CLP_FACTOR: after a symptom the group is being taken away, otherwise somebody stopped it."""
    story = up()
    if symptom:
        story.poll("node1", "server", "unhealthy")
    story.take_down("node1", factor="")
    assert set(story.states().values()) == {state}


def test_a_restart_in_place_is_a_failover_of_that_kind() -> None:
    """Stop and start on the same node."""
    story = up()
    story.poll("node1", "server", "unhealthy")
    story.take_down("node1", factor="RESOURCERESTART")
    story.bring_up("node1")
    assert (story.ended().kind, story.ended().outcome, story.ended().node_to) == ("restart", "completed", "node1")
    check_record(story.ended(), ended=True)


def test_a_second_standby_takes_over_when_the_first_one_fails() -> None:
    """G1 allows several standbys: three nodes, the first start fails, the third node serves."""
    story = Story(settings(nodes=["node1", "node2", "third"]), joined=("node1", "node2", "third"))
    story.bring_up("node1")
    story.tell("_leader", "NodeLost", node="node1")
    failed = story.call("start", "node2", "FAILOVER")
    story.run(failed, 1, result="fail")
    story.tell("node2", "ScriptEnded", ticket=failed, script="start", code=40)
    story.bring_up("third", "FAILOVER")
    assert story.states() == UP
    assert story.ended().outcome == "completed"
    assert story.nodes() == {"node1": "stopped", "node2": "running", "third": "running"}


def test_a_script_that_brings_the_group_up_by_itself_is_believed() -> None:
    """The plain sequence polls dcstatus itself (G20): its 0 is a verification, with or without polls of ours."""
    story = up()
    story.tell("_leader", "NodeLost", node="node1")
    start = story.call("start", "node2", "FAILOVER")
    story.tell("node2", "FallbackTaken", ticket=start, reason="hook-silent")
    for n in (1, 2):
        story.run(start, n, by="script")
    story.tell("node2", "ScriptEnded", ticket=start, script="start", code=0)
    story.wait(31)
    assert story.ended().outcome == "completed"
    assert story.ended().by_script == 2


# --- tickets that are not as they should be


def test_no_worker_starts_a_server_whose_agent_the_ticket_leaves_out() -> None:
    """I2, G23: the script is told to go on by itself."""
    story = Story()
    ticket = story.call("start", "node1", commands=[("server", "recover")])
    assert story.issued() == []
    assert story.verdicts() == [(ticket, 75)]


@pytest.mark.parametrize("commands", [[], [("agent", "recover")]])
def test_a_start_that_lists_not_every_service_ends_all_the_same(commands: list[tuple[str, str]]) -> None:
    """I3: what the ticket leaves out is not up at the deadline, and the failover says so."""
    story = up()
    story.tell("_leader", "NodeLost", node="node1")
    story.tell("node2", "StartHookCalled", ticket="b-failover1-9-start", event="FAILOVER",
               commands=[{"n": n, "service": s, "verb": v} for n, (s, v) in enumerate(commands, 1)])  # fmt: skip
    story.wait(700)
    assert story.ended().outcome == "failed"
    assert story.states()["server"] == "failed"


def test_commands_that_are_not_numbered_in_order_are_no_ticket() -> None:
    """Such a fact is put aside as invalid; the script goes on by itself."""
    story = Story()
    with pytest.raises(ValidationError, match="numbered 1, 2, 3"):
        story.tell("node1", "StartHookCalled", ticket="t", event="START", commands=[{"n": 2, "service": "agent", "verb": "start"}])


def test_a_node_has_no_say_in_the_ticket_of_another() -> None:
    """Ends told by another node than the ticket's change nothing."""
    story = Story()
    ticket = story.call("start", "node1")
    story.tell("node2", "CommandEnded", ticket=ticket, n=1, service="agent", verb="start", by="worker", result="fail", code=1)
    story.tell("node2", "ScriptEnded", ticket=ticket, script="start", code=0)
    assert story.states() == {"agent": "starting", "server": "starting"}
    assert story.state.tickets[ticket].code is None


def test_an_end_told_twice_counts_once() -> None:
    """What a command's first known end was stays so."""
    story = Story()
    ticket = story.call("start", "node1")
    story.run(ticket, 1)
    story.run(ticket, 1, result="fail")
    assert story.states() == {"agent": "starting", "server": "starting"}
    assert story.verdicts() == []


# --- who is there


def test_a_lost_node_on_which_nobody_acted_is_stopped_in_the_end() -> None:
    """A node without a sign of life does not count as running for ever."""
    story = up()
    story.tell("_leader", "NodeLost", node="node1")
    story.wait(601)
    assert story.nodes()["node1"] == "stopped"
    story.tell("_leader", "NodeReturned", node="node1")
    assert story.nodes()["node1"] == "recovering"


def test_a_node_back_with_a_new_boot_while_it_was_to_serve_is_a_symptom() -> None:
    """It was down in between, whatever the services' states say."""
    story = up()
    story.tell("node1", "NodeJoined", boot="second", version="0")
    assert story.state.failover is not None
    assert story.state.failover.trigger == "node"
    story.bring_up("node1")
    assert (story.ended().kind, story.ended().outcome) == ("restart", "completed")


def test_a_node_whose_disk_is_back_serves_again() -> None:
    """CLP_DISK failed there once (G18); the next start call on it says that the disk is there."""
    story = Story()
    story.tell("node1", "ScriptDeclined", script="start", reason="disk-failure", disk="FAILURE")
    assert story.nodes()["node1"] == "failed"
    story.bring_up("node1")
    assert story.nodes()["node1"] == "running"


def test_double_activation_of_one_service_is_not_ended_by_another() -> None:
    """I1: over only when no service is up on two nodes, and when the other node is gone."""
    story = up()
    story.poll("node2", "agent")
    story.poll("node1", "server", "unknown")
    assert story.state.double_activation
    story.tell("_leader", "NodeLost", node="node2")
    assert not story.state.double_activation


def test_a_group_brought_up_by_somebody_else_after_a_stop_is_judged_too() -> None:
    """I4: taken over without a hook's word, its schedules are judged at their deadline all the same."""
    story = up()
    story.take_down("node1")
    for service in ("agent", "server"):
        story.poll("node2", service)
    assert story.states() == UP
    story.observe("node2", {"auto-started-1": "stopped"})
    story.wait(31)
    assert story.outcomes()["auto-started-1"] == "missed"


# --- other clusters


@pytest.mark.parametrize("kind", ["agent", "server"])
def test_a_cluster_of_one_service(kind: str) -> None:
    """Agent-only and server-only pairs fail over as well."""
    story = Story(settings(services=[{"name": kind, "kind": kind}]))
    for node, event in (("node1", "START"), ("node2", "FAILOVER")):
        verb = "start" if (kind, event) == ("agent", "START") else "recover"
        ticket = story.call("start", node, event, commands=[(kind, verb)])
        assert story.issued()[-1] == (node, 1, kind, verb)
        story.run(ticket, 1)
        story.poll(node, kind, ticket=ticket)
        story.tell(node, "ScriptEnded", ticket=ticket, script="start", code=0)
        story.wait(40)
        story.tell("_leader", "NodeLost", node=node)
    assert story.states() == {kind: "running"}
    assert story.ended().outcome == "completed"
    assert "CommandListDiffered" not in story.types()


def test_observing_a_group_that_is_nowhere_for_a_while() -> None:
    """Between two nodes the manager's view has no current one: the failover waits, and ends on the other node."""
    story = Story(settings(mode="observe"))
    story.tell("node1", "ClusterViewed", group_state="online", current="node1")
    for service in ("agent", "server"):
        story.poll("node1", service)
    story.tell("node1", "AlertReceived", module="rc", id=60)
    story.tell("node1", "ClusterViewed", group_state="offline", current=None)
    assert story.states() == {"agent": "failing-over", "server": "failing-over"}
    story.wait(3)
    story.tell("node2", "ClusterViewed", group_state="online", current="node2")
    for service in ("agent", "server"):
        story.poll("node2", service)
    story.wait(60)
    assert (story.ended().outcome, story.ended().node_to) == ("completed", "node2")
    assert story.states() == UP


def test_observing_the_next_failover_before_the_schedules_of_the_last_one_are_judged() -> None:
    """The view names another node again: the first ends superseded, and the second is counted."""
    story = Story(settings(mode="observe"))
    story.tell("node1", "ClusterViewed", group_state="online", current="node1")
    for node, other in (("node1", "node2"), ("node2", "node1"), ("node1", "node2")):
        for teller in (node, other):
            story.tell(teller, "ClusterViewed", group_state="online", current=node)
        for service in ("agent", "server"):
            story.poll(other, service, "unhealthy")
            story.poll(node, service)
    story.wait(60)
    assert [record.outcome for record in story.state.failovers] == ["superseded", "completed"]
    assert story.states() == UP


@pytest.mark.parametrize("services", [["agent"], ["server"], ["agent", "server", "server-b"]])
def test_a_cluster_whose_services_change_while_a_failover_is_open(services: list[str]) -> None:
    """A service that is gone is not waited for; a new one is not part of the failover that began without it."""
    story = up()
    story.tell("_leader", "NodeLost", node="node1")
    start = story.call("start", "node2", "FAILOVER")
    kinds = [{"name": name, "kind": "agent" if name == "agent" else "server"} for name in services]
    story.tell("_leader", "ConfigurationChanged", settings=settings(services=kinds).model_dump(mode="json"))
    for n, name in enumerate(("agent", "server"), 1):
        if name in services:
            story.run(start, n, by="script")
            story.poll("node2", name, ticket=start)
    story.wait(60)
    assert story.ended().outcome == "completed"


def test_a_node_that_is_no_more_one_of_the_clusters_is_not_heard() -> None:
    """What its outbox still holds is logged, and changes nothing."""
    story = up()
    story.tell("_leader", "ConfigurationChanged", settings=settings(nodes=["node1"]).model_dump(mode="json"))
    story.call("start", "node2", "FAILOVER")
    assert story.state.active == "node1"
    assert list(story.state.nodes) == ["node1"]
    assert story.state.counts.skipped["unknown-node"] == 1


# --- years


def test_the_state_stays_small_after_a_thousand_failovers() -> None:
    """What is remembered is bounded, whatever the number of failovers, streams, refusals and tickets."""
    story = Story()
    sizes = []
    for number in range(1000):
        one, other = ("node1", "node2") if number % 2 else ("node2", "node1")
        story.quick(one, "FAILOVER" if number % 3 else "START")
        story.quick_fact("_leader", "LeadTaken", epoch=number + 2, owner="o", stream=f"leader-{number}")
        story.quick_fact(other, "CommandRefused", reason=f"because of {number}")
        sizes.append(len(json.dumps(story.state.model_dump(mode="json"))))
    assert story.state.failover_count > 600
    assert max(sizes[-100:]) < max(sizes[30:130]) * 1.1


def test_quarantine_with_and_without_an_envelope() -> None:
    """With one its number counts as applied, so that what follows is the next; without one nothing is known of it."""
    story = Story()
    arrival = story.arrival("node1", "NodeLeft")
    following = story.arrival("node1", "NodeLeft")
    assert order_of(story.state, "node1", following.envelope) == "gap"
    unread = quarantine(story.state, "node1", "1-1", "unreadable", None)
    assert order_of(unread.state, "node1", following.envelope) == "gap"
    aside = quarantine(story.state, "node1", "1-1", "invalid", arrival.envelope)
    assert order_of(aside.state, "node1", following.envelope) == "next"
    assert aside.state.counts.quarantined == 1


def test_a_gap_that_nobody_can_fill_is_told_and_stepped_over() -> None:
    """I5: a producer that does not have the facts any more says so; how many are lost is counted."""
    story = Story()
    arrival = story.arrival("node1", "WatchHookStarted", service="server")
    later = arrival.envelope.model_copy(update={"seq": arrival.envelope.seq + 7})
    assert order_of(story.state, "node1", later) == "gap"
    known = later.model_copy(update={"oldest": later.seq})
    assert order_of(story.state, "node1", known) == "next"
    behind_it = known.model_copy(update={"seq": known.seq + 3})
    assert order_of(story.state, "node1", behind_it) == "gap", "what its producer still has from `oldest` on is not lost"
    story.take(type(arrival)(arrival.inbox, arrival.inbox_id, known, arrival.fact))
    assert story.state.counts.facts_lost == 7
    assert order_of(story.state, "node1", known) == "duplicate"
