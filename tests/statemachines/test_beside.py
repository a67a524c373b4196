"""What belongs to a failover and moves nothing: outages that clients saw, moves that were asked for, the metadata DB, runbooks."""

from __future__ import annotations

from typing import Any

import pytest

from statemachines.states import FailoverStatus
from tests.statemachines.story import Story, settings

ENDPOINTS = [{"name": name, "host": "192.0.2.9", "port": port} for name, port in (("server", 22101), ("agent", 22102))]


def up(**changes: Any) -> Story:
    story = Story(settings(**({"endpoints": ENDPOINTS} | changes)))
    story.bring_up("node1")
    story.wait(100)
    return story


def endpoint(story: Story, is_up: bool, name: str = "server", *, at_ms: float | None = None) -> float:
    story.tell("_leader", "EndpointChanged", endpoint=name, up=is_up, reason="" if is_up else "refused", at_ms=at_ms)
    return float(story.now_ms) if at_ms is None else at_ms


def fail_over(story: Story) -> FailoverStatus:
    story.tell("_leader", "NodeLost", node="node1")
    story.bring_up("node2", "FAILOVER")
    return story.ended()


# --- what clients see


def test_what_clients_saw_stands_beside_the_phases() -> None:
    """An outage within a failover is in its record, with its two ends."""
    story = up()
    story.tell("_leader", "NodeLost", node="node1")
    down_ms = endpoint(story, False)
    story.wait(3)
    up_ms = endpoint(story, True)
    story.bring_up("node2", "FAILOVER")
    (outage,) = story.ended().outages
    assert (outage.endpoint, outage.down_ms, outage.up_ms) == ("server", down_ms, up_ms)


def test_clients_may_notice_first() -> None:
    """An outage that goes on when the first symptom comes belongs to the failover; one that is over by then, as a start's, does not."""
    story = up()
    endpoint(story, False, "agent")
    endpoint(story, True, "agent")
    story.wait(1)
    endpoint(story, False)
    story.wait(30)
    assert [outage.endpoint for outage in fail_over(story).outages] == ["server"]


def test_an_outage_of_old_that_goes_on_overlaps() -> None:
    """It began long before, and clients could not connect meanwhile."""
    story = up()
    endpoint(story, False)
    story.wait(4000)
    (outage,) = fail_over(story).outages
    assert outage.up_ms is None


def test_an_outage_that_ends_after_the_failover_completes_its_record() -> None:
    """Clients get through later than dcstatus is 0; the record is amended, and nothing moves."""
    story = up()
    endpoint(story, False)
    fail_over(story)
    states = story.states()
    story.wait(5)
    up_ms = endpoint(story, True)
    (outage,) = story.ended().outages
    assert outage.up_ms == up_ms
    assert story.log[-1].entry.type == "FailoverAmended"
    assert story.states() == states
    assert story.state.failover is None


def test_one_outage_may_belong_to_two_failovers() -> None:
    """The second one began before clients were served again."""
    story = up()
    endpoint(story, False)
    fail_over(story)
    story.take_down("node2", "FAILOVER", "GROUPMOVE")
    story.tell("node1", "NodeJoined", boot="second", version="0")
    story.bring_up("node1")
    up_ms = endpoint(story, True)
    assert [[outage.up_ms for outage in record.outages] for record in story.state.failovers] == [[up_ms], [up_ms]]


def test_an_outage_without_a_failover_stays_in_the_log() -> None:
    """Nothing is decided; the endpoint's last outages are remembered."""
    story = up()
    endpoint(story, False)
    endpoint(story, True)
    assert story.log[-1].entry.type == "EndpointChanged"
    assert len(story.state.endpoints["server"].outages) == 1
    story.wait(100)
    assert fail_over(story).outages == []


def test_what_a_new_leader_says_again_begins_nothing_anew() -> None:
    """It finds the endpoint down and says so: the outage began when it was first seen."""
    story = up()
    down_ms = endpoint(story, False)
    story.wait(5)
    endpoint(story, False)
    (outage,) = story.state.endpoints["server"].outages
    assert outage.down_ms == down_ms


def test_an_endpoint_that_flaps_fills_no_record() -> None:
    """What is kept of it is bounded: the latest twenty."""
    story = up()
    story.tell("_leader", "NodeLost", node="node1")
    for _ in range(30):
        endpoint(story, False)
        endpoint(story, True)
    assert story.state.failover is not None
    assert len(story.state.failover.outages) == 20
    assert len(story.state.endpoints["server"].outages) == 20


# --- moves that an operator asks for


def ask(story: Story, to: str | None = "node2", request: str = "m1") -> None:
    story.tell("_operator", "MoveRequested", request=request, to=to, by="suzuki", why="monthly patch")


def move(story: Story, to: str = "node2", factor: str = "GROUPMOVE") -> FailoverStatus:
    assert story.state.active is not None
    story.take_down(story.state.active, factor=factor)
    story.bring_up(to)
    return story.ended()


@pytest.mark.parametrize("to", [None, "node2"])
def test_a_requested_move_says_who_and_why(to: str | None) -> None:
    """Told apart from a failure and from somebody else's move; the request is settled by it."""
    story = up()
    ask(story, to)
    assert story.state.move is not None
    record = move(story)
    assert (record.kind, record.initiator, record.requested_by, record.why) == ("move", "operator", "suzuki", "monthly patch")
    assert story.state.move is None
    story.tell("_operator", "MoveEnded", request="m1", ok=True)
    assert not [name for name in story.state.deadlines if name.startswith("move:")]
    assert record.outcome == "completed"


def test_the_record_says_so_from_its_beginning() -> None:
    """Whoever looks while the group is under way sees who asked for it."""
    story = up()
    ask(story)
    story.call("stop", "node1", factor="GROUPMOVE")
    assert story.state.failover is not None
    assert story.state.failover.requested_by == "suzuki"


def test_a_move_that_nobody_asked_dcsup_for_is_an_operators_all_the_same() -> None:
    """CLP_FACTOR=GROUPMOVE: somebody at the WebUI; who is not known."""
    record = move(up())
    assert (record.kind, record.initiator, record.requested_by) == ("move", "operator", None)


def test_what_is_only_taken_for_a_move_is_nobodys_act() -> None:
    """A start elsewhere without a word about the stop: dcsup calls it a move, and does not say that a person wanted it."""
    story = up()
    story.bring_up("node2")
    assert (story.ended().kind, story.ended().initiator) == ("move", "cluster")


def test_a_failure_after_a_request_is_a_failure() -> None:
    """Never counted as a move: the manager says why the group was taken away."""
    story = up()
    ask(story)
    record = move(story, factor="GROUPFAILOVER")
    assert (record.kind, record.initiator, record.requested_by) == ("failure", "cluster", None)
    assert story.state.move is not None, "the request waits until the manager answers it"
    story.tell("_operator", "MoveEnded", request="m1", ok=False, reason="the group is not online")
    assert story.state.move is None
    assert story.log[-1].entry.type == "MoveFailed"


def test_a_move_that_becomes_a_failure_is_one() -> None:
    """The start on the wanted node fails and the manager takes the group on: its kind is the last action."""
    story = up(nodes=["node1", "node2", "third"])
    story.tell("third", "NodeJoined", boot="b", version="0")
    ask(story)
    story.take_down("node1", factor="GROUPMOVE")
    story.call("start", "node2")
    story.take_down("node2", factor="GROUPFAILOVER")
    story.bring_up("third", "FAILOVER")
    record = story.ended()
    assert (record.kind, record.initiator, record.requested_by, record.restarts) == ("failure", "cluster", None, 1)
    assert story.state.move is None


def test_a_move_to_another_node_than_the_one_asked_for_is_somebody_elses() -> None:
    """The stop does not say where to; the start does. The request waits on."""
    story = up(nodes=["node1", "node2", "third"])
    story.tell("third", "NodeJoined", boot="b", version="0")
    ask(story, "third")
    record = move(story, "node2")
    assert (record.initiator, record.requested_by) == ("operator", None)
    assert story.state.move is not None
    record = move(story, "third")
    assert record.requested_by == "suzuki"
    assert story.state.move is None


def test_a_move_that_began_before_the_request_is_not_its() -> None:
    """Somebody else was quicker."""
    story = up()
    story.take_down("node1", factor="GROUPMOVE")
    story.wait(5)
    ask(story)
    story.bring_up("node2")
    assert story.ended().requested_by is None


def test_a_second_request_replaces_the_first() -> None:
    """There is one at a time; which was replaced is recorded, and its own end changes nothing any more."""
    story = up()
    ask(story, request="m1")
    ask(story, None, request="m2")
    assert story.log[-1].entry.data["replaces"] == "m1"
    assert list(story.state.deadlines) == ["move:m2"]
    story.tell("_operator", "MoveEnded", request="m1", ok=False, reason="interrupted")
    assert story.state.move is not None


def test_a_request_that_nothing_followed_is_dropped() -> None:
    """I3: it takes no later move for its own."""
    story = up()
    ask(story)
    story.wait(901)
    assert "MoveExpired" in story.types()
    assert story.state.move is None
    assert move(story).requested_by is None


def test_a_request_for_a_node_that_is_none_has_failed_already() -> None:
    """The CLI says it first; whoever writes the inbox by hand is told by the log."""
    story = up()
    ask(story, "node9")
    assert story.state.move is None
    assert "node9" in story.log[-1].entry.data["reason"]


def test_a_requested_move_seen_only_by_the_managers_view_is_the_operators() -> None:
    """Mode observe: nothing else says that a person wanted it."""
    story = Story(settings(mode="observe"))
    for node, asked in (("node1", False), ("node2", True), ("node1", False)):
        if asked:
            ask(story)
        story.tell("node1", "ClusterViewed", group_state="online", current=node)
        for service in ("agent", "server"):
            story.poll(node, service)
        story.wait(60)
    assert [(r.kind, r.initiator, r.requested_by) for r in story.state.failovers] == [
        ("move", "operator", "suzuki"), ("move", "cluster", None)
    ]  # fmt: skip


# --- the metadata DB (G44)


def with_metadata() -> Story:
    story = up(metadata={})
    metadata(story, "node2", "stopped")
    metadata(story, "node1", "running")
    return story


def metadata(story: Story, node: str, service: str, port: str | None = None) -> None:
    story.tell(node, "MetadataObserved", service=service, port=port or {"running": "open", "stopped": "closed"}.get(service, "unknown"))


def held(story: Story) -> dict[str, bool]:
    return {node: status.held for node, status in story.state.metadata.items()}


def test_a_metadata_db_that_ends_with_the_group_is_no_news() -> None:
    """G44: its own resource is stopped a moment after ours, and started a moment before."""
    story = with_metadata()
    story.take_down("node1", factor="GROUPMOVE")
    story.wait(5)
    metadata(story, "node1", "stopped")
    metadata(story, "node2", "running")
    story.wait(20)
    story.bring_up("node2")
    story.wait(60)
    assert "MetadataStillHeld" not in story.types()
    assert held(story) == {"node1": False, "node2": False}


@pytest.mark.parametrize(("service", "port"), [("running", "open"), ("unknown", "open"), ("running", "closed")])
def test_a_metadata_db_that_stays_after_the_stop_may_hold_the_disk(service: str, port: str) -> None:
    """G44: a warning, which moves no service, until it is gone there."""
    story = with_metadata()
    metadata(story, "node1", service, port)
    story.take_down("node1")
    states = story.states()
    story.wait(16)
    assert held(story) == {"node1": True, "node2": False}
    (warned,) = [s.entry for s in story.log if s.entry.type == "MetadataStillHeld"]
    assert (warned.node, warned.rule) == ("node1", "G44")
    metadata(story, "node1", "unknown")
    assert held(story)["node1"] is True, "unknown is its own answer"
    metadata(story, "node1", "unknown", "closed")
    assert held(story) == {"node1": False, "node2": False}
    assert "MetadataReleased" in story.types()
    assert story.states() == states


def test_a_failover_from_a_node_that_still_runs_it_is_warned_of() -> None:
    """The group came up elsewhere without a stop; the node that it was on is there."""
    story = with_metadata()
    story.bring_up("node2", "FAILOVER")
    metadata(story, "node2", "running")
    story.wait(16)
    assert held(story) == {"node1": True, "node2": False}


def test_a_dead_node_holds_nothing() -> None:
    """What it said last is not so any more; when it is back and had only been cut off, it may hold the disk after all."""
    story = with_metadata()
    fail_over(story)
    story.wait(60)
    assert held(story)["node1"] is False
    story.tell("_leader", "NodeReturned", node="node1")
    story.wait(16)
    assert held(story)["node1"] is True


def test_a_metadata_db_is_wanted_again_when_the_group_is_back() -> None:
    """The warning ends with the group's return."""
    story = with_metadata()
    story.take_down("node1")
    story.wait(16)
    assert held(story)["node1"] is True
    story.bring_up("node1")
    assert held(story)["node1"] is False


def test_a_metadata_db_that_comes_up_long_before_the_start_script_is_not_left_over() -> None:
    """While the group is taken over it may be on its way to that node."""
    story = with_metadata()
    story.take_down("node1", factor="GROUPFAILOVER")
    metadata(story, "node1", "stopped")
    metadata(story, "node2", "running")
    story.wait(100)
    story.bring_up("node2", "FAILOVER")
    story.wait(100)
    assert "MetadataStillHeld" not in story.types()


def test_a_metadata_db_about_which_nothing_is_known_is_not_said_to_be_held() -> None:
    """Unknown is its own answer."""
    story = with_metadata()
    metadata(story, "node1", "unknown")
    story.take_down("node1")
    story.wait(60)
    assert held(story)["node1"] is False
    assert story.state.metadata["node1"].service == "unknown"


def test_before_it_is_known_where_the_group_is_nothing_is_left_over() -> None:
    """dcsup was installed on a cluster that runs: the metadata DB is where the group is, wherever that be."""
    story = Story(settings(metadata={}))
    metadata(story, "node1", "running")
    story.wait(60)
    assert "MetadataStillHeld" not in story.types()
    for service in ("agent", "server"):
        story.poll("node1", service)
    story.wait(60)
    assert "MetadataStillHeld" not in story.types()


# --- runbooks


def runbook_step(story: Story, step: str, outcome: str = "done", run: str = "r1", runbook: str = "drill") -> None:
    story.tell("_operator", "RunbookStepRecorded", runbook=runbook, run=run, step=step, outcome=outcome, by="suzuki")


def test_how_far_a_runbook_came_is_remembered() -> None:
    """So that it can be gone on with on another day and from another machine; the next going-through begins anew."""
    story = up()
    runbook_step(story, "active-node", "failed")
    runbook_step(story, "active-node")
    runbook_step(story, "baseline", "skipped")
    assert story.state.runbooks["drill"].steps == {"active-node": "done", "baseline": "skipped"}
    runbook_step(story, "active-node", run="r2")
    assert (story.state.runbooks["drill"].run, story.state.runbooks["drill"].steps) == ("r2", {"active-node": "done"})
    assert story.states() == {"agent": "running", "server": "running"}


def test_what_is_remembered_of_runbooks_is_bounded() -> None:
    """At most a hundred steps of one, the oldest let go first, and a few runbooks; the log has the rest."""
    story = up()
    for number in range(120):
        runbook_step(story, f"step-{number}")
    assert list(story.state.runbooks["drill"].steps) == [f"step-{number}" for number in range(20, 120)]
    for number in range(30):
        runbook_step(story, "first", runbook=f"runbook-{number}")
    assert len(story.state.runbooks) == 20
    assert "drill" not in story.state.runbooks


# --- a configuration that changes


def configure(story: Story, **changes: Any) -> None:
    story.tell("_leader", "ConfigurationChanged", settings=settings(**changes).model_dump(mode="json"))


def test_what_is_not_configured_any_more_vanishes() -> None:
    """Endpoints, the metadata DB, a node and what it saw: nothing of them is shown, compared or waited for."""
    nodes = ["node1", "node2", "third"]
    story = Story(settings(nodes=nodes, endpoints=ENDPOINTS, metadata={}), joined=tuple(nodes))
    story.bring_up("node1")
    story.wait(40)
    for name in ("server", "agent"):
        endpoint(story, False, name)
    for node in nodes:
        story.tell(node, "ClusterViewed", group_state="online", current="third" if node == "third" else "node1")
        metadata(story, node, "running")
    ask(story, "third")
    assert {"views", "metadata:node2", "metadata:third", "move:m1"} <= set(story.state.deadlines)
    configure(story, endpoints=ENDPOINTS[:1])
    assert list(story.state.endpoints) == ["server"]
    assert story.state.metadata == {}
    assert list(story.state.views) == ["node1", "node2"]
    assert story.state.view == story.state.views["node2"]
    assert all("third" not in service.polls for service in story.state.services.values())
    assert story.state.move is None
    assert "MoveFailed" in story.types()
    story.wait(60)
    assert "DoubleActivationReported" not in story.types()
    assert "MetadataStillHeld" not in story.types()
    assert not story.state.deadlines


def test_what_is_not_configured_leaves_nothing_behind() -> None:
    """A fact about an endpoint that is none any more, or a metadata DB that nobody asked for, is an entry in the log and no more."""
    story = Story()
    endpoint(story, False)
    metadata(story, "node1", "running")
    assert story.state.endpoints == {}
    assert story.state.metadata == {}


def test_what_is_configured_anew_appears_with_its_first_fact() -> None:
    """Unknown until then."""
    story = Story()
    configure(story, endpoints=ENDPOINTS, metadata={})
    assert story.state.endpoints == {}
    endpoint(story, True)
    metadata(story, "node2", "stopped")
    assert story.state.endpoints["server"].up
    assert story.state.metadata["node2"].runs is False


def test_the_entry_of_a_metadata_db_names_no_service_of_the_cluster() -> None:
    """Its `service` is the state of the operating system's service, and not one of ours."""
    story = with_metadata()
    (entry, *_) = [sealed.entry for sealed in story.log if sealed.entry.type == "MetadataObserved"]
    assert (entry.node, entry.service) == ("node2", None)
