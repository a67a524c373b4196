"""What belongs to a failover and moves nothing: outages that clients saw, moves that were asked for, the metadata DB, runbooks."""

from __future__ import annotations

from typing import Any

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
    """An outage that begins up to a minute before the first symptom belongs to the failover; an earlier one that is over does not."""
    story = up()
    endpoint(story, False, "agent")
    endpoint(story, True, "agent")
    story.wait(61)
    endpoint(story, False)
    endpoint(story, True)
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
