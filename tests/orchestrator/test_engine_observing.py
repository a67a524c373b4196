"""What the leader itself observes: differences between the state and the world, told once each."""

from __future__ import annotations

import pytest

from orchestrator.observing import Countdown, Differences, Liveness, Telling, envelopes, latest_ms, liveness_values
from orchestrator.ports import SignsOfLife
from statemachines import wire
from statemachines.facts import DeadlinePassed, Envelope, NodeLost, NodeReturned, WatchLost, WatchReturned
from statemachines.states import ClusterState, NodeStatus, new_state
from tests.orchestrator.engine import C, settings

NOW_MS = 1_700_000_000_000
GONE = SignsOfLife(None, None)
ALIVE = SignsOfLife('{"wall":1}', "{}")
REFRESHED = SignsOfLife('{"wall":2}', "{}")
UNWATCHED = SignsOfLife('{"wall":1}', None)


def state_with(**node: object) -> ClusterState:
    state = new_state(C)
    state.nodes["n1"] = NodeStatus.model_validate({"present": True, "boot": "b1"} | node)
    return state


class Eyes:
    """One cluster's liveness, looked at again and again."""

    def __init__(self) -> None:
        self._liveness = Liveness(settings(node_ttl="5s"))

    def see(self, state: ClusterState, sign: SignsOfLife, *, mono_s: float = 0.0, now_ms: int = NOW_MS) -> list[object]:
        return list(self._liveness.differences(state, {"n1": sign}, now_ms, mono_s).values())


def test_a_difference_that_stays_is_told_once() -> None:
    """What was told is not told again while the difference lasts; after it has gone it may come again."""
    telling = Telling()
    found: Differences = {("node", "n1", "lost"): NodeLost(node="n1")}
    assert telling.untold(found) == found
    assert telling.untold(found) == found  # its append may have failed: until it is noted it is not told
    telling.note(found)
    assert telling.untold(found) == {}
    assert telling.untold({}) == {}
    assert telling.untold(found) == found


def test_a_present_node_without_a_sign_is_lost() -> None:
    """A node that joined long ago and shows nothing is lost, also when this leader never saw it alive."""
    assert Eyes().see(state_with(), GONE) == [NodeLost(node="n1")]


def test_a_node_that_just_joined_has_time_to_show_itself() -> None:
    """Until its TTL has passed since it joined, a node that was not seen alive yet is not lost."""
    young = state_with(since_ms=NOW_MS - 4_999)
    assert Eyes().see(young, GONE) == []
    assert Eyes().see(young, GONE, now_ms=NOW_MS + 1) == [NodeLost(node="n1")]
    seen = Eyes()
    assert seen.see(young, ALIVE) == []
    assert seen.see(young, GONE) == [NodeLost(node="n1")]


def test_an_absent_node_is_not_lost_again() -> None:
    """Neither a node that left, nor one that never joined, nor one that nobody knows is lost."""
    assert Eyes().see(state_with(present=False), GONE) == []
    assert Eyes().see(state_with(present=False, boot=None), GONE) == []
    assert Eyes().see(new_state(C), GONE) == []


def test_only_a_refreshed_sign_brings_a_node_back() -> None:
    """A node that left may leave its last sign behind; a second, different one means that it is there."""
    eyes, absent = Eyes(), state_with(present=False)
    assert eyes.see(absent, ALIVE) == []
    assert eyes.see(absent, ALIVE) == []
    assert eyes.see(absent, REFRESHED) == [NodeReturned(node="n1")]
    assert eyes.see(absent, REFRESHED) == [NodeReturned(node="n1")]


def test_a_node_that_never_joined_will_say_so_itself() -> None:
    """Signs of life of a node without a boot id bring nothing back."""
    eyes, unknown = Eyes(), state_with(present=False, boot=None)
    assert eyes.see(unknown, ALIVE) == eyes.see(unknown, REFRESHED) == []


def test_a_watch_that_was_seen_is_lost_at_once() -> None:
    """A watch key that was there and is gone is a fact, and its coming back another."""
    eyes = Eyes()
    assert eyes.see(state_with(), ALIVE) == []
    assert eyes.see(state_with(), UNWATCHED) == [WatchLost(node="n1")]
    assert eyes.see(state_with(watched=False), UNWATCHED) == []
    assert eyes.see(state_with(watched=False), ALIVE) == [WatchReturned(node="n1")]


def test_a_watch_that_was_never_seen_has_time_to_begin() -> None:
    """Without having been seen, a watch is lost only after the TTL and the reconnect time."""
    eyes = Eyes()
    assert eyes.see(state_with(), UNWATCHED, mono_s=100.0) == []
    assert eyes.see(state_with(), UNWATCHED, mono_s=107.9) == []
    assert eyes.see(state_with(), UNWATCHED, mono_s=108.0) == [WatchLost(node="n1")]


def test_a_dead_node_is_not_also_unwatched() -> None:
    """Where the whole node is silent, its watch is not judged apart."""
    eyes = Eyes()
    assert eyes.see(state_with(), ALIVE) == []
    assert eyes.see(state_with(), GONE) == [NodeLost(node="n1")]


def test_deadlines_are_due_and_told_once() -> None:
    """A deadline is due at its moment; told, the next one counts; under pause none is due."""
    state, telling, countdown = new_state(C), Telling(), Countdown()
    state.deadlines = {"a": 1_100, "b": 1_200}
    countdown.note(state, 1_000, 50.0)
    assert countdown.due(state, 50.09) == {}
    assert countdown.next_s(state, telling) == pytest.approx(50.1)
    found = countdown.due(state, 50.11)
    assert list(found.values()) == [DeadlinePassed(deadline="a")]
    assert latest_ms(found) == 1_100
    telling.note(found)
    assert countdown.next_s(state, telling) == pytest.approx(50.2)
    state.deadlines["a"] = 1_150  # moved: it is another one now
    countdown.note(state, 1_110, 50.11)
    assert countdown.next_s(state, telling) == pytest.approx(50.15)
    state.paused_since_ms = 1_050
    assert countdown.next_s(state, telling) is None
    assert countdown.due(state, 99.0) == {}


def test_a_deadline_counts_time_that_really_passes() -> None:
    """However the clock that it was written down with is set afterwards."""
    state, countdown = new_state(C), Countdown()
    state.deadlines = {"a": 1_000_000}
    countdown.note(state, 990_000, 50.0)
    for set_to_ms in (5_000_000, 10):
        countdown.note(state, set_to_ms, 55.0)
        assert countdown.due(state, 59.9) == {}
        assert countdown.due(state, 60.1)


def test_the_leaders_facts_are_numbered_on() -> None:
    """They continue the leader's own stream as the state knows it."""
    state = new_state(C)
    state.sources = {wire.LEADER_INBOX: {"me": 7}}
    texts = envelopes(state, wire.LEADER_INBOX, "me", [NodeLost(node="n1"), WatchLost(node="n2")])
    read = [Envelope.model_validate_json(text) for text in texts]
    assert [(one.type, one.stream, one.seq, one.source, one.data) for one in read] == [
        ("NodeLost", "me", 8, "leader", {"node": "n1"}), ("WatchLost", "me", 9, "leader", {"node": "n2"}),
    ]  # fmt: skip


def test_liveness_values_are_json_objects_or_nothing() -> None:
    """What a node wrote that is no JSON object shows as None, like a key that is not there."""
    signs = {"n1": ALIVE, "n2": GONE, "n3": SignsOfLife("[1]", "{")}
    assert liveness_values(signs) == {
        "n1": {"alive": {"wall": 1}, "watch": {}}, "n2": {"alive": None, "watch": None}, "n3": {"alive": None, "watch": None},
    }  # fmt: skip
