"""CLUSTERPRO's alerts: where `detect` begins and ends, what is fencing, and why nothing happened (CLUSTERPRO.md 6.2)."""

from __future__ import annotations

import pytest

from statemachines.alerts import ALERTS, alert_of, meaning_of
from tests.statemachines.chaos import check_record
from tests.statemachines.story import Story, settings

BY_CATEGORY = {
    "symptom": [("rm", 9)],
    "acts": [("rc", 50), ("rc", 60), ("rc", 80), ("rm", 13), ("rm", 14)],
    "fencing": [("nm", 2), ("nm", 30), ("nm", 31), *(("nm", n) for n in range(40, 46))],
    "withheld": [
        *(("rc", n) for n in (23, 63, 65, 66, 100, 510, 511, 512, 513)), *(("rm", n) for n in (25, 100, 190, 193, 200, 220)), ("cl", 18),
    ],
    "failed": [*(("rc", n) for n in (12, 22, 32, 42, 52, 62)), *(("rm", n) for n in range(18, 24))],
    "double-activation": [("rc", 92)],
    "information": [("pm", 1), ("nm", 1), ("rc", 61), ("rc", 503), ("rm", 26)],
}  # fmt: skip


def up(nodes: tuple[str, ...] = ("node1", "node2")) -> Story:
    story = Story(settings(nodes=list(nodes)), joined=nodes)
    story.bring_up("node1")
    story.wait(100)
    return story


def alert(story: Story, module: str, number: int, node: str = "node1", *, text: str = "", at_ms: float | None = None) -> None:
    story.tell(node, "AlertReceived", module=module, id=number, text=text, at_ms=at_ms)


@pytest.mark.parametrize(("category", "ids"), BY_CATEGORY.items(), ids=BY_CATEGORY)
def test_each_alert_of_the_list_is_taken_for_what_it_is(category: str, ids: list[tuple[str, int]]) -> None:
    """CLUSTERPRO.md 6.2, spelled out again: every id in its category, with a meaning in words of its own."""
    for module, number in ids:
        known = alert_of(module, number)
        assert known is not None, (module, number)
        assert known.category == category, (module, number)
        assert known.meaning
    assert all((known.kind != "none") == (known.category == "acts") for known in ALERTS.values())


# --- where detect begins


@pytest.mark.parametrize(("module", "number"), [("rm", 9), ("nm", 2), ("nm", 30), ("nm", 40), ("pm", 20)])
def test_a_symptom_opens_a_suspicion_and_is_in_its_record(module: str, number: int) -> None:
    """The first that is heard of it may be the manager's own alert."""
    story = up()
    alert(story, module, number)
    assert story.state.failover is not None
    assert (story.state.failover.state, story.state.failover.trigger) == ("suspected", "alert")
    (note,) = story.state.failover.alerts
    assert (note.module, note.id, note.meaning) == (module, number, meaning_of(module, number, ""))


def test_a_standby_that_went_down_is_no_symptom() -> None:
    """The alert names it; a name that is part of another word is none."""
    story = up(("node1", "node2", "third"))
    alert(story, "nm", 2, text="Server NODE2 has been stopped.")
    assert story.state.failover is None
    alert(story, "nm", 2, "third", text="Server node1-old has been stopped.")
    assert story.state.failover is not None, "whom it names is not known: it may be the one that serves"


def test_the_death_of_the_serving_node_is_a_symptom_whoever_says_so() -> None:
    """nm 2 with the name of the group's node."""
    story = up()
    alert(story, "nm", 2, "node2", text="Server node1 has been stopped.")
    assert story.state.failover is not None
    assert story.state.failover.points["fenced"] == story.state.failover.points["symptom"]


def test_what_happens_to_the_cluster_service_of_a_standby_is_no_symptom() -> None:
    """pm 20 is about the node that tells it."""
    story = up()
    alert(story, "pm", 20, "node2")
    assert story.state.failover is None


def test_an_alert_that_was_first_but_is_heard_of_second_begins_detect() -> None:
    """The failed poll was handed in before it; the monitor's error came earlier."""
    story = up()
    noticed_ms = float(story.now_ms)
    story.wait(3)
    story.poll("node1", "server", "unhealthy")
    alert(story, "rm", 9, at_ms=noticed_ms)
    assert story.state.failover is not None
    assert (story.state.failover.trigger, story.state.failover.points["symptom"]) == ("alert", noticed_ms)
    story.take_down("node1", factor="GROUPFAILOVER")
    story.bring_up("node2", "FAILOVER")
    assert story.ended().phases["detect"] == pytest.approx(3.0, abs=0.1)
    check_record(story.ended(), ended=True)


# --- what the manager decided


@pytest.mark.parametrize(
    ("module", "number", "kind", "initiator"),
    [
        ("rc", 50, "move", "operator"), ("rc", 60, "failure", "cluster"), ("rc", 70, "restart", "cluster"), ("rc", 74, "move", "cluster"),
        ("rc", 80, "restart", "cluster"), ("rm", 13, "restart", "cluster"), ("rm", 14, "failure", "cluster"),
        ("rm", 16, "shutdown", "cluster"),
    ],
)  # fmt: skip
def test_the_manager_acts(module: str, number: int, kind: str, initiator: str) -> None:
    """`detect` ends with the alert where no hook came first; what it is called follows from the id."""
    story = up()
    alert(story, module, number)
    assert story.state.failover is not None
    record = story.state.failover
    assert (record.state, record.kind, record.initiator) == ("acting", kind, initiator)
    assert set(story.states().values()) == {"failing-over"}


def test_a_shutdown_of_a_standby_takes_nothing_away() -> None:
    """rm 16 is about the node that tells it."""
    story = up()
    alert(story, "rm", 16, "node2")
    assert story.state.failover is None


def test_fencing_is_noted_where_it_belongs() -> None:
    """When the manager told of the node as gone stands among the points of the record, and changes no phase."""
    story = up()
    story.tell("_leader", "NodeLost", node="node1")
    story.wait(2)
    alert(story, "nm", 2, "node2", text="Server node1 has been stopped.")
    fenced_ms = float(story.now_ms)
    story.bring_up("node2", "FAILOVER")
    assert story.ended().points["fenced"] == fenced_ms
    check_record(story.ended(), ended=True)


# --- why nothing happened


@pytest.mark.parametrize(("module", "number"), BY_CATEGORY["withheld"])
def test_why_nothing_happened_is_told_when_nothing_is_open(module: str, number: int) -> None:
    """So that `explain` can answer it: a decision of its own, with the meaning."""
    story = up()
    alert(story, module, number, text="as the manager says it")
    decided = story.log[-1].entry
    assert (decided.type, decided.rule) == ("ManagerWithheld", "C400")
    assert decided.data["meaning"] == ALERTS[module, number].meaning
    assert story.state.failover is None


def test_why_the_manager_did_not_act_on_a_symptom_is_in_the_record() -> None:
    """rm 200: no other node is healthy. The suspicion ends at its deadline, and says so."""
    story = up()
    story.poll("node1", "server", "unhealthy")
    alert(story, "rm", 200)
    assert "ManagerWithheld" not in story.types()
    story.wait(601)
    assert story.ended().outcome == "cleared"
    assert story.ended().reason == "the manager did not act: a monitor's final action was held back: no other node is healthy"


# --- records


def test_each_alert_of_an_open_failover_is_in_its_record() -> None:
    """Also what failed on the way, and what dcsup has no word of its own for."""
    story = up()
    story.tell("_leader", "NodeLost", node="node1")
    alert(story, "rc", 32, "node2", text="resource md1")
    alert(story, "xy", 7, "node2", text="something of a later version")
    alert(story, "xy", 8, "node2")
    story.bring_up("node2", "FAILOVER")
    assert [note.meaning for note in story.ended().alerts] == [
        "a resource could not be brought up", "something of a later version", "alert xy 8"
    ]  # fmt: skip


def test_many_alerts_fill_no_record() -> None:
    """At most twenty are kept, counted beyond; information is let go first."""
    story = up()
    story.tell("_leader", "NodeLost", node="node1")
    for _ in range(25):
        alert(story, "rc", 30, "node2")
    for _ in range(5):
        alert(story, "rc", 32, "node2")
    record = story.state.failover
    assert record is not None
    assert (len(record.alerts), record.alerts_beyond) == (20, 10)
    assert [note.id for note in record.alerts].count(32) == 5


def test_an_alert_told_late_completes_the_record_and_moves_nothing() -> None:
    """The node was cut off: its alerts arrive when the failover has ended. They say when it began, and when the manager acted."""
    story = up()
    noticed_ms = float(story.now_ms)
    story.wait(30)
    story.bring_up("node2", "FAILOVER")
    assert story.ended().phases["detect"] == 0.0
    states, count = story.states(), story.state.failover_count
    story.wait(60)
    for number, at_ms in ((9, noticed_ms), (14, noticed_ms + 10_000)):
        alert(story, "rm", number, at_ms=at_ms)
    record = story.ended()
    assert [note.id for note in record.alerts] == [9, 14]
    assert record.trigger == "alert"
    assert record.phases["detect"] == pytest.approx(10.0, abs=0.1)
    assert record.phases["takeover"] == pytest.approx(20.0, abs=0.1)
    assert (story.states(), story.state.failover_count, story.state.failover) == (states, count, None)
    check_record(record, ended=True)


def test_an_alert_of_a_quiet_time_belongs_to_no_record() -> None:
    """Long before or after every failover."""
    story = up()
    story.tell("_leader", "NodeLost", node="node1")
    story.bring_up("node2", "FAILOVER")
    story.wait(100)
    alert(story, "rm", 26, "node2")
    alert(story, "rc", 92, "node1", at_ms=float(story.now_ms) - 400_000)
    assert story.ended().alerts == []
    assert not story.state.double_activation
