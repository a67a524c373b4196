"""The DataCoordinator stand-in alone: what the verbs mean (G4-G7), what dcstatus says, and what the faults do."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.sandbox.standins.cluster import SandboxCluster
from deploy.sandbox.standins.dc_metadata import DEFAULT_SCHEDULES
from deploy.sandbox.standins.dc_server import states_after_start

STARTED = {name for name, _, state in DEFAULT_SCHEDULES if state == "started"}
AUTOMATIC = {name for name, mode, _ in DEFAULT_SCHEDULES if mode == "auto"}


class OneNode:
    """One node that has the disk, without any cluster manager."""

    def __init__(self, base: Path) -> None:
        self.sandbox = SandboxCluster(base)
        (self.sandbox.node_dir("node1") / "disk").symlink_to(self.sandbox.shared)

    def run(self, path: str, *arguments: str, node: str = "node1") -> tuple[int, str, str]:
        """Run a command: its exit code and what it said."""
        result = self.sandbox.run(node, path, *arguments)
        return result.returncode, result.stdout, result.stderr

    def server(self, verb: str) -> int:
        """Run dcserver."""
        return self.run("server/bin/dcserver", verb)[0]

    def start(self, verb: str) -> None:
        """Run dcserver and wait for a dcstatus of 0."""
        assert self.server(verb) == 0
        self.sandbox.wait_for("a healthy server", lambda: self.run("server/bin/dcstatus")[0] == 0)

    def end_server(self, how: str) -> None:
        """stop, faststop, or die."""
        if how == "die":
            self.sandbox.crash("node1", "server")
            self.sandbox.wait_for("a dead server", lambda: self.run("server/bin/dcstatus")[0] != 0)
        else:
            assert self.server(how) == 0

    def started(self) -> set[str]:
        """What the probe command calls started."""
        code, output, _ = self.run("server/bin/dcschedules")
        assert code == 0
        return {row["name"] for row in map(json.loads, output.splitlines()) if row["state"] == "started"}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[OneNode]:
    """One node with the disk attached and nothing running."""
    one = OneNode(tmp_path)
    yield one
    one.sandbox.shutdown()
    assert one.sandbox.processes() == []


@pytest.mark.parametrize(
    ("how", "verb", "expected"),
    [
        ("faststop", "recover", STARTED),  # G4
        ("stop", "recover", AUTOMATIC),  # G5
        ("stop", "start", AUTOMATIC),  # G6
        ("faststop", "start", STARTED | AUTOMATIC),  # G6: the others stay as they were
        ("die", "recover", STARTED),  # G7
        ("die", "start", STARTED | AUTOMATIC),  # G6
    ],
)
def test_schedules_after_a_start_follow_the_last_stop_and_the_verb(node: OneNode, how: str, verb: str, expected: set[str]) -> None:
    """G4-G7: each pair of last stop and start verb gives its own set of started schedules."""
    node.start("recover")
    node.end_server(how)
    node.start(verb)
    assert node.started() == expected


def test_the_three_rules_give_different_answers_for_the_default_schedules() -> None:
    """The default schedules tell G4, G5 and G6 apart."""
    rows = list(DEFAULT_SCHEDULES)
    answers = [states_after_start(rows, *case) for case in (("faststop", "recover"), ("stop", "recover"), ("faststop", "start"))]
    assert len({frozenset(answer.items()) for answer in answers}) == 3


def test_stop_makes_every_schedule_stopped_and_faststop_keeps_them(node: OneNode) -> None:
    """After faststop the metadata DB has the old states, after stop only stopped ones."""
    node.start("recover")
    node.end_server("faststop")
    assert {row["name"] for row in node.sandbox.schedules() if row["state"] == "started"} == STARTED
    node.start("recover")
    node.end_server("stop")
    assert {row["state"] for row in node.sandbox.schedules()} == {"stopped"}


def test_started_schedules_run_and_stopped_ones_do_not(node: OneNode) -> None:
    """Runs in the metadata DB are those of the started schedules, on the node that runs them."""
    node.start("recover")
    node.sandbox.wait_for("a run of each", lambda: {run["schedule"] for run in node.sandbox.schedule_runs()} == STARTED)
    assert {run["node"] for run in node.sandbox.schedule_runs()} == {"node1"}


def test_sabotaged_and_surprising_schedules_are_what_the_faults_name(node: OneNode) -> None:
    """A schedule may be made to stay away after recover, another to run unasked."""
    node.sandbox.sabotage_schedules("auto-started-sabotaged-5", "夜間バックアップ-7")
    node.sandbox.surprise_schedules("manual-stopped-surprise-6")
    node.start("recover")
    assert node.started() == STARTED - {"auto-started-sabotaged-5", "夜間バックアップ-7"} | {"manual-stopped-surprise-6"}


def test_reset_schedules_works_with_and_without_a_server(node: OneNode) -> None:
    """The driver can set the schedules at any time."""
    node.sandbox.reset_schedules([("one", "auto", "stopped"), ("two", "manual", "started")])
    node.start("recover")
    assert node.started() == {"two"}
    node.sandbox.reset_schedules()
    assert node.started() == STARTED


def test_dcstatus_is_0_only_while_server_and_metadata_db_answer(node: OneNode) -> None:
    """Not running, starting, and without its metadata DB the server is not healthy."""
    assert node.run("server/bin/dcstatus")[0] == 1
    node.sandbox.set_start_seconds("server", 60)
    assert node.server("recover") == 0
    assert node.run("server/bin/dcstatus")[0] == 1
    assert node.run("server/bin/dcschedules")[0] == 1
    assert node.server("faststop") == 0
    node.sandbox.clear_fault("start-seconds-server")
    node.start("recover")
    node.sandbox.crash("node1", "metadata")
    node.sandbox.wait_for("an unhealthy server", lambda: node.run("server/bin/dcstatus")[0] == 1)


def test_a_forced_stop_in_the_middle_of_a_start_changes_no_schedule(node: OneNode) -> None:
    """After stop, an unfinished recover and a faststop, a recover still starts the automatic ones (G5)."""
    node.start("recover")
    node.end_server("stop")
    node.sandbox.set_start_seconds("server", 60)
    assert node.server("recover") == 0
    assert node.server("faststop") == 0
    node.sandbox.clear_fault("start-seconds-server")
    node.start("recover")
    assert node.started() == AUTOMATIC


def test_a_second_server_is_refused(node: OneNode) -> None:
    """A start while one runs, healthy or not, fails and leaves the first alone."""
    node.start("recover")
    code, _, error = node.run("server/bin/dcserver", "start")
    assert code == 1
    assert "running already" in error
    assert node.run("server/bin/dcstatus")[0] == 0


def test_without_the_disk_nothing_starts_and_the_metadata_db_cannot_be_opened(node: OneNode) -> None:
    """The standby, which has no disk, is refused by every start verb and cannot open the metadata DB; the active node can."""
    node.start("recover")
    for path in ("server/bin/dcserver", "agent/bin/dcagent"):
        code, _, error = node.run(path, "recover", node="node2")
        assert code == 1
        assert "not attached" in error
    code, _, error = node.run("server/bin/dcmetaopen", node="node2")
    assert code == 1
    assert "cannot open" in error
    assert node.run("server/bin/dcmetaopen") == (0, f"{len(DEFAULT_SCHEDULES)}\n", "")


def test_daemons_end_when_their_disk_is_taken_away(node: OneNode) -> None:
    """A node whose reservation is preempted loses its daemons: they get I/O errors."""
    node.start("recover")
    assert node.run("agent/bin/dcagent", "start")[0] == 0
    (node.sandbox.node_dir("node1") / "disk").unlink()
    node.sandbox.wait_for("no daemon", lambda: node.sandbox.processes() == [])


def test_daemons_leave_their_caller(node: OneNode) -> None:
    """Each daemon has a session of its own: ending the caller's group does not end it."""
    node.start("recover")
    pids = [int((node.sandbox.node_dir("node1") / "run" / f"{name}.pid").read_text()) for name in ("server", "metadata")]
    assert {os.getsid(pid) for pid in pids}.isdisjoint({os.getsid(0)})
    assert {os.getpgid(pid) for pid in pids}.isdisjoint({os.getpgrp()})


def test_commands_fail_and_hang_as_told(node: OneNode) -> None:
    """A fault gives a verb its exit code, or lets it hang until the fault is cleared."""
    node.sandbox.fail_command("server", "recover", 7)
    assert node.server("recover") == 7
    node.sandbox.clear_fault("fail-server-recover")
    node.sandbox.hang_command("agent", "start")
    hanging = node.sandbox.spawn("node1", "hanging", [str(node.sandbox.command("node1", "agent/bin/dcagent")), "start"])
    node.sandbox.wait_for("its record", lambda: any(call["pid"] == hanging.pid for call in node.sandbox.verbs()))
    assert hanging.poll() is None
    node.sandbox.clear_fault("hang-agent-start")
    assert hanging.wait(10) == 0


def test_a_metadata_db_may_keep_the_disk_after_a_stop(node: OneNode) -> None:
    """G44: with the fault set, faststop ends the server and leaves its metadata DB running; without it both are gone."""
    node.start("recover")
    node.sandbox.set_fault("disk-held")
    assert node.server("faststop") == 0
    assert ["dc_metadata" in line for line in node.sandbox.processes()] == [True]
    node.sandbox.clear_fault("disk-held")
    assert node.server("faststop") == 0
    assert node.sandbox.processes() == []


def test_every_call_is_recorded_with_its_parents(node: OneNode) -> None:
    """The stand-in's own record names the verb, its times, its code, and who called whom up to this test."""
    assert node.server("faststop") == 0
    assert node.server("sideways") == 2
    calls = node.sandbox.verbs()
    assert [(call["component"], call["verb"], call["code"]) for call in calls] == [("server", "faststop", 0), ("server", "sideways", 2)]
    assert all(call["begin"] <= call["end"] for call in calls)
    assert calls[0]["chain"][0]["pid"] == os.getpid()
