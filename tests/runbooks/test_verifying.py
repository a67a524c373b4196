"""What can be seen of a step: yes, no, and unknown as an answer of its own."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.runbooks.steps import Step, Verification
from orchestrator.runbooks.verifying import State, before, judge
from tests.runbooks.support import EVERY, TestEyes, look, shape_of, step_of, steps_of, words
from tests.statemachines.story import Story

SHAPE = shape_of("both")


def told(story: Story) -> State:
    return story.state.model_dump(mode="json")


def serving_story() -> Story:
    """The core's own state while everything runs on node1."""
    story = Story()
    story.bring_up("node1")
    return story.wait(60)


def seen_from(story: Story, node: str = "node1", group: str = "online", current: str | None = "node1", **more: Any) -> Story:
    story.tell(node, "ClusterViewed", group_state=group, current=current, suspended=False, **more)
    return story


def a_step(kind: Any, node: str | None = "node1", *about: str) -> Step:
    return Step(f"{kind}.{node}", "move", node, (), Verification(kind, about))


@pytest.mark.parametrize(("name", "services", "standbys"), EVERY)
def test_who_sees_nothing_says_unknown(name: str, services: str, standbys: int) -> None:
    """From a desk without Redis and without a cluster: never yes, never no, and a sentence each time."""
    for step in steps_of(name, services, standbys):
        finding = look(step, shape_of(services, standbys), TestEyes())
        assert finding.answer == "unknown", step.id
        assert finding.said
        assert before(step, TestEyes()) == {}


def test_the_nodes_own_cluster_manager_is_asked_first() -> None:
    """What it says now counts more than what an orchestrator heard."""
    state = told(seen_from(serving_story()))
    assert look(a_step("group-on"), SHAPE, TestEyes("node1", state)).answer == "yes"
    for where, said in (((), "the group is on -, not on node1"), (("node2",), "on node2, not on node1"), (("node1", "node2"), "DOUBLE")):
        finding = look(a_step("group-on"), SHAPE, TestEyes("node1", state, where))
        assert finding.answer == "no"
        assert said in words(finding)
    assert look(a_step("group-on", "node2"), SHAPE, TestEyes(None, None, ("node2",))).answer == "yes"


def test_a_view_of_a_node_that_is_silent_is_no_evidence() -> None:
    """Where the group is, is unknown then, not where it was."""
    story = seen_from(serving_story())
    story.tell("_leader", "NodeLost", node="node1")
    assert look(a_step("group-on"), SHAPE, TestEyes(None, told(story))).answer == "unknown"


def test_a_group_on_its_way_is_nowhere_yet() -> None:
    """Pending and failed states are unknown; offline is nowhere."""
    for group, current, answer in (("online-pending", "node1", "unknown"), ("online-failure", "node1", "unknown"), ("offline", None, "no")):
        state = told(seen_from(serving_story(), group=group, current=current))
        assert look(a_step("group-on"), SHAPE, TestEyes(None, state)).answer == answer


def test_the_group_is_known_only_where_somebody_knows_it() -> None:
    """By the node's own manager or by a view; both wherever it is."""
    assert look(a_step("group-known", None), SHAPE, TestEyes(None, None, ())).answer == "yes"
    assert look(a_step("group-known", None), SHAPE, TestEyes(None, told(seen_from(serving_story())))).answer == "yes"
    assert look(a_step("group-known", None), SHAPE, TestEyes(None, told(serving_story()))).answer == "unknown"


def test_serving_means_every_service_verified_on_that_node() -> None:
    """On the other node, or while one starts, it is no."""
    state = told(seen_from(serving_story()))
    assert look(a_step("serving"), SHAPE, TestEyes(None, state)).answer == "yes"
    assert look(a_step("serving", "node2"), SHAPE, TestEyes(None, state)).answer == "no"
    story = Story()
    story.call("start", "node1")
    starting = told(seen_from(story))
    finding = look(a_step("serving"), SHAPE, TestEyes(None, starting))
    assert finding.answer == "no"
    assert "agent is starting" in words(finding)
    assert look(a_step("serving"), SHAPE, TestEyes("node1", None, ("node1",))).answer == "unknown"


def test_after_a_move_the_schedules_are_looked_at() -> None:
    """A missed one is no; one that is not judged yet is unknown; the judged ones are counted."""
    step = a_step("moved", "node2")
    good = told(seen_from(moved_story()[0], "node2", current="node2"))
    finding = look(step, SHAPE, TestEyes(None, good))
    assert finding.answer == "yes"
    assert "schedules of server were judged, none was missed" in words(finding)
    story = Story()
    story.bring_up("node2", observe=False)
    assert look(step, SHAPE, TestEyes(None, told(seen_from(story, "node2", current="node2")))).answer == "unknown"
    good["schedules"]["server"]["judgement"]["schedules"][0]["outcome"] = "missed"
    finding = look(step, SHAPE, TestEyes(None, good))
    assert finding.answer == "no"
    assert "should run and do not: auto-started-1" in words(finding)


def test_a_reboot_shows_in_the_boot_id() -> None:
    """On the node itself, or as its worker told it; the same id is no reboot."""
    step = a_step("rebooted")
    here = TestEyes("node1", boot_id="1")
    remembered = before(step, here)
    assert look(step, SHAPE, here, before=remembered).answer == "no"
    assert look(step, SHAPE, TestEyes("node1", boot_id="2"), before=remembered).answer == "yes"
    story = serving_story()
    elsewhere = before(step, TestEyes("node2", told(story), boot_id="9"))
    assert elsewhere == {"boot": "boot-node1"}
    story.tell("node1", "NodeJoined", boot="boot-after", version="0")
    assert look(step, SHAPE, TestEyes("node2", told(story), boot_id="9"), before=elsewhere).answer == "yes"
    assert look(step, SHAPE, TestEyes("node1", boot_id=None), before=remembered).answer == "unknown"


def test_what_only_the_node_can_show_is_unknown_elsewhere() -> None:
    """Ports, programs, startup types, the check: the sentence says where to look."""
    steps = [a_step(kind, "node1", "server") for kind in ("port-free", "installed", "uninstalled", "manual", "check")]
    for step in steps:
        finding = look(step, SHAPE, TestEyes("node2", ports=set(), services={}))
        assert (finding.answer, words(finding)) == ("unknown", "this can be seen on node1 only")


def test_installed_and_uninstalled_go_by_the_configured_program() -> None:
    """There or gone; a program that nobody configured, or that cannot be looked at, is unknown."""
    program = r"C:\DataCoordinatorRA\server\bin\dcserver.bat"
    installed, gone = a_step("installed", "node1", "server"), a_step("uninstalled", "node1", "server", "last")
    for there, answers in ((True, ("yes", "no")), (False, ("no", "yes")), (None, ("unknown", "unknown"))):
        eyes = TestEyes("node1", programs={"server": program}, files={program: there})
        assert (look(installed, SHAPE, eyes).answer, look(gone, SHAPE, eyes).answer) == answers
    wrapped = TestEyes("node1", programs={"server": "cmd"}, files={"cmd": True})
    assert look(installed, SHAPE, wrapped).answer == "unknown"
    assert look(gone, SHAPE, wrapped).answer == "unknown"


def test_installed_asks_for_the_data_too() -> None:
    """The metadata database's folder is where it was said to be, once the group is there."""
    program = r"C:\DataCoordinatorRA\server\bin\dcserver.bat"
    eyes = TestEyes("node1", programs={"server": program}, files={program: True, r"E:\meta": False})
    finding = look(a_step("installed", "node1", "server"), SHAPE, eyes, {"metadata_path": r"E:\meta"})
    assert finding.answer == "no"


def test_startup_types_of_all_of_its_services_count() -> None:
    """One automatic service is a no; the metadata DB's, where it is not found under its name, unknown."""
    step = a_step("manual", "node1", "server")
    name = "DataCoordinatorRA Meta DB server"
    cases: list[tuple[dict[str, str], str]] = [
        ({name: "manual"}, "yes"), ({name: "manual", "DataCoordinatorRA Agent": "auto"}, "no"), ({name: "unknown"}, "unknown"),
        ({"DataCoordinatorRA Server": "manual"}, "unknown"), ({}, "unknown"), ({name: "disabled"}, "no"),
    ]  # fmt: skip
    for services, answer in cases:
        assert look(step, SHAPE, TestEyes("node1", services=services)).answer == answer
    assert look(step, SHAPE, TestEyes("node1", services=None)).answer == "unknown"


def test_values_are_asked_for_until_all_are_given() -> None:
    """A wrong one is no, a missing one unknown by name, all of them yes."""
    step = step_of(steps_of("install-server", "server"), "values")
    good = {
        "install_path": r"C:\DC", "floating_ip": "10.0.0.9", "server_port": "1", "disk": "E:", "metadata_path": r"E:\meta",
        "account": "necsys",
    }  # fmt: skip
    assert look(step, shape_of("server"), TestEyes(), good).answer == "yes"
    finding = look(step, shape_of("server"), TestEyes(), {**good, "account": ""})
    assert (finding.answer, words(finding)) == ("unknown", "not given yet: account")
    assert look(step, shape_of("server"), TestEyes(), {**good, "metadata_path": "E:"}).answer == "no"


def test_healthy_wants_everything() -> None:
    """A service that does not run, a node that is gone, an open failover, a double activation: each is told."""
    step = a_step("healthy", None)
    story = serving_story()
    assert look(step, SHAPE, TestEyes(None, told(story))).answer == "yes"
    story.tell("_leader", "NodeLost", node="node2")
    finding = look(step, SHAPE, TestEyes(None, told(story)))
    assert finding.answer == "no"
    assert "node node2 is" in words(finding)
    assert look(step, SHAPE, TestEyes(None, told(Story()))).answer == "no"
    story = serving_story()
    story.tell("_leader", "NodeLost", node="node1")
    assert "failover" in words(look(step, SHAPE, TestEyes(None, told(story))))


def test_maintenance_is_told_with_who_and_how_to_end_it() -> None:
    """Paused, suspended, and neither; without a view nobody knows whether the cluster is suspended."""
    step = a_step("no-maintenance", None)
    story = serving_story()
    assert look(step, SHAPE, TestEyes(None, told(story))).answer == "unknown"
    assert look(step, SHAPE, TestEyes(None, told(seen_from(story)))).answer == "yes"
    story.tell("_operator", "PauseRequested", by="sato", why="")
    finding = look(step, SHAPE, TestEyes(None, told(story)))
    assert finding.answer == "no"
    assert "paused by sato" in words(finding)
    story = serving_story()
    story.tell("node1", "ClusterViewed", group_state="online", current="node1", suspended=True)
    assert look(step, SHAPE, TestEyes(None, told(story))).answer == "no"


def test_schedules_are_known_when_they_were_seen() -> None:
    """Seen, never seen, a probe that fails, and a cluster that has none."""
    step = a_step("schedules-known", None)
    story = serving_story()
    finding = look(step, SHAPE, TestEyes(None, told(story)))
    assert (finding.answer, words(finding)) == ("yes", "6 schedules of server, 3 started")
    assert look(step, SHAPE, TestEyes(None, told(Story()))).answer == "unknown"
    story.tell("node1", "ProbeFailed", service="server", reason="code 1")
    assert look(step, SHAPE, TestEyes(None, told(story))).answer == "no"
    assert look(step, shape_of("agent-remote"), TestEyes(None, told(story))).answer == "yes"


def moved_story() -> tuple[Story, dict[str, Any]]:
    """A planned move from node1 to node2, and what was remembered before it."""
    story = serving_story()
    remembered = before(a_step("failed-over", None, "move"), TestEyes(None, told(story)))
    story.take_down("node1", "START", factor="GROUPMOVE")
    story.bring_up("node2")
    return story.wait(60), remembered


def test_the_failover_that_followed_is_found_and_kept() -> None:
    """Not one from before; not one that is still open; and of the kind that was meant."""
    story, remembered = moved_story()
    step = a_step("failed-over", None, "move")
    assert look(step, SHAPE, TestEyes(None, told(serving_story())), before={"failovers": []}).answer == "no"
    finding = look(step, SHAPE, TestEyes(None, told(story)), before=remembered)
    assert finding.answer == "yes"
    assert finding.seen["failover"]["kind"] == "move"
    assert finding.seen["failover"]["node_to"] == "node2"
    assert look(a_step("failed-over", None, "failure"), SHAPE, TestEyes(None, told(story)), before=remembered).answer == "no"
    assert look(step, SHAPE, TestEyes(None, told(story))).answer == "unknown"
    known = before(step, TestEyes(None, told(story)))
    assert look(step, SHAPE, TestEyes(None, told(story)), before=known).answer == "no"


def test_a_failover_under_way_is_waited_for() -> None:
    """Unknown until it has ended."""
    story = serving_story()
    remembered = before(a_step("failed-over", None, "failure"), TestEyes(None, told(story)))
    story.tell("_leader", "NodeLost", node="node1")
    finding = look(a_step("failed-over", None, "failure"), SHAPE, TestEyes(None, told(story)), before=remembered)
    assert finding.answer == "unknown"
    assert "under way" in words(finding)


FAILOVER: dict[str, Any] = {
    "outcome": "completed", "state": "ended", "total_s": 12.0,
    "judgements": [{"schedules": [{"name": "a", "outcome": "resumed"}, {"name": "b", "outcome": "unexpected"}]}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "limit_s", "answer"),
    [
        ({}, "12", "yes"),
        ({}, None, "yes"),
        ({}, "11.9", "no"),
        ({"outcome": "failed"}, "60", "no"),
        ({"outcome": None}, "60", "unknown"),
        ({"total_s": None}, "60", "unknown"),
        ({"judgements": []}, "60", "unknown"),
        ({"judgements": [{"schedules": [{"name": "a", "outcome": "missed"}]}]}, "60", "no"),
        ({"judgements": [{"schedules": [{"name": "a", "outcome": "unknown"}]}]}, "60", "unknown"),
    ],
)
def test_objectives(changes: dict[str, Any], limit_s: str | None, answer: str) -> None:
    """Completed, within the agreed time if there is one, nothing missed; what is not known is not met and not missed."""
    assert judge({**FAILOVER, **changes}, limit_s, True).answer == answer


def test_objectives_without_schedules() -> None:
    """A cluster that owns none is not asked for any."""
    assert judge({**FAILOVER, "judgements": []}, "60", False).answer == "yes"


def test_the_objectives_are_judged_from_what_was_kept_with_the_step_before() -> None:
    """Also when Redis is away by then."""
    step = step_of(steps_of("drill", "both"), "objectives")
    assert look(step, SHAPE, TestEyes(), {"limit_s": "60"}, seen={"provoke": {"failover": FAILOVER}}).answer == "yes"
    assert look(step, SHAPE, TestEyes(), {"limit_s": "60"}, seen={"provoke": {}}).answer == "unknown"
