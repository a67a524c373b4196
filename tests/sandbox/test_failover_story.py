"""A whole cluster on the guide's own scripts: start, node killed, return, move back, server crash. Judged by the stand-ins' records."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.sandbox.standins.cluster import SandboxCluster

Record = dict[str, Any]
SERVER_OR_GROUP = re.compile(r"^\s{3}([* ])(\S+)\s*\.*\s*:\s(.+?)(?:\s{2,}(.*\S))?\s*$")
CHILD = re.compile(r"^\s{6}(\S+)\s*:\s(.+?)(?:\s{2,}(.*))?$")


class Story:
    """The sandbox after the story was played, and what each step showed while it was on."""

    def __init__(self, base: Path) -> None:
        self.sandbox = SandboxCluster(
            base,
            armsleep_scale=0.01,
            heartbeat_interval_s=0.1,
            heartbeat_timeout_s=1.5,
            monitor_interval_s=0.1,
            start_seconds={"server": 0.3, "agent": 0.1},
        )
        self.opens: dict[str, int] = {}
        self.stat = self.wide = self.active = ""
        self.disks_after_failover: list[str] = []

    def play(self) -> None:
        """All steps, in order."""
        self._start()
        self._kill_the_active_node()
        self._return_and_move_back()
        self._crash_the_server()

    def _start(self) -> None:
        for node in self.sandbox.nodes:
            self.sandbox.start_node(node)
        self.sandbox.wait_group("Online", "node1")
        self.opens = {node: self.sandbox.run(node, "server/bin/dcmetaopen").returncode for node in self.sandbox.nodes}
        self.stat, self.wide = self.sandbox.clpstat(node="node1"), self.sandbox.clpstat("--long", node="node2")
        self.active = self.sandbox.clpgrp("-n", "failover1", node="node2")
        self.sandbox.start_clients()
        self.sandbox.wait_for("a client's write", lambda: any(row["ok"] for row in self.sandbox.read_records("clients")))
        self._wait_for_a_schedule_run_on("node1")

    def _kill_the_active_node(self) -> None:
        self.sandbox.kill_node("node1")
        assert self.sandbox.processes("node1") == []
        self.sandbox.wait_group("Online", "node2")
        self._wait_for_a_schedule_run_on("node2")
        self.disks_after_failover = [node for node in self.sandbox.nodes if os.path.lexists(self.sandbox.node_dir(node) / "disk")]

    def _return_and_move_back(self) -> None:
        self.sandbox.start_node("node1")
        self.sandbox.wait_node("node1", seen_from="node2")
        self.sandbox.wait_for("the script with RECOVER", lambda: bool(self.scripts("CLP_EVENT", "RECOVER")))
        self.sandbox.clpgrp("-m", "failover1", "-a", "node1")
        self._wait_for_a_schedule_run_on("node1")

    def _crash_the_server(self) -> None:
        self.sandbox.crash("node1", "server")
        self.sandbox.wait_group("Online", "node2")
        self._wait_for_a_schedule_run_on("node2")

    def _wait_for_a_schedule_run_on(self, node: str) -> None:
        """The schedules' own clock ticks apart from the group's: the next step may come before their first run on a node."""

        def ran_there_last() -> bool:
            runs = self.sandbox.schedule_runs()
            return bool(runs) and runs[-1]["node"] == node

        self.sandbox.wait_for(f"a schedule's run on {node}", ran_there_last)

    def cluster(self, what: str, **fields: Any) -> list[Record]:
        """Records of the cluster manager of one kind."""
        found = [record for record in self.sandbox.read_records("cluster") if record["what"] == what]
        return [record for record in found if all(record.get(name) == value for name, value in fields.items())]

    def scripts(self, name: str, value: str) -> list[Record]:
        """Script runs that ended, by a variable of their environment."""
        return [record for record in self.cluster("script-end") if record["environment"].get(name) == value]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """The story, played once for all tests of this file."""
    story = Story(tmp_path_factory.mktemp("story"))
    try:
        story.play()
        yield story
    finally:
        story.sandbox.shutdown()


def test_the_verbs_are_the_guides_in_order_and_on_the_right_node(story: Story) -> None:
    """G8-G15 and G23: each step ran exactly the guide's verbs, agent before server at a start, after it at a stop."""
    calls = [(call["node"], call["component"], call["verb"]) for call in story.sandbox.verbs()]
    assert calls == [
        ("node1", "agent", "start"),  # G12: the first start, CLP_EVENT=START
        ("node1", "server", "recover"),  # G8
        ("node2", "agent", "recover"),  # G13: node1 was killed
        ("node2", "server", "recover"),  # G9
        ("node2", "server", "faststop"),  # G11: the move back; it had been started by FAILOVER
        ("node2", "agent", "faststop"),  # G15
        ("node1", "agent", "start"),  # G12: CLP_EVENT of a move is START
        ("node1", "server", "recover"),  # G8
        ("node1", "server", "faststop"),  # G10: the monitor's failover; it had been started by START
        ("node1", "agent", "stop"),  # G14
        ("node2", "agent", "recover"),  # G13
        ("node2", "server", "recover"),  # G9
    ]
    assert {call["code"] for call in story.sandbox.verbs()} == {0}


def test_every_script_got_the_event_the_factor_and_the_origin_that_belong_to_its_step(story: Story) -> None:
    """CLP_EVENT, CLP_FACTOR (stop only), CLP_SERVER_PREV and CLP_SERVER of each run are the product's."""
    names = ("CLP_EVENT", "CLP_FACTOR", "CLP_SERVER_PREV", "CLP_SERVER", "CLP_DISK")
    runs = [(r["node"], r["script"], *(r["environment"].get(name) for name in names)) for r in story.cluster("script-end")]
    assert runs == [
        ("node1", "start.sh", "START", None, None, "HOME", "SUCCESS"),
        ("node2", "start.sh", "FAILOVER", None, "node1", "OTHER", "SUCCESS"),
        ("node1", "start.sh", "RECOVER", None, None, "HOME", "SUCCESS"),
        ("node2", "stop.sh", "FAILOVER", "GROUPMOVE", "node1", "OTHER", "SUCCESS"),
        ("node1", "start.sh", "START", None, "node2", "HOME", "SUCCESS"),
        ("node1", "stop.sh", "START", "GROUPFAILOVER", "node2", "HOME", "SUCCESS"),
        ("node2", "start.sh", "FAILOVER", None, "node1", "OTHER", "SUCCESS"),
    ]


def test_the_dead_node_is_known_by_its_silence_alone(story: Story) -> None:
    """The survivor misses heartbeats, waits out the timeout, declares the node dead, and only then takes over."""
    dead = story.cluster("node-dead", node="node2", peer="node1")[0]
    missed = [record for record in story.cluster("heartbeat-missed", node="node2", peer="node1") if record["time"] < dead["time"]][-1]
    taken = story.cluster("group-activation-begin", node="node2")[0]
    killed = next(record for record in story.sandbox.read_records("driver") if record["what"] == "node killed")
    assert killed["time"] < missed["time"] < dead["time"] < taken["time"]
    assert dead["time"] - dead["last_heard"] > story.sandbox.settings["heartbeat_timeout_s"]
    assert [record["peer"] for record in story.cluster("disk-preempted")] == ["node1"]
    assert story.disks_after_failover == ["node2"]


def test_resources_start_in_order_of_dependency_and_stop_in_reverse(story: Story) -> None:
    """fip1, sd1, script1, then the resident applications; the other way round at a stop."""
    order = ["fip1", "sd1", "script1", "appli-agent", "appli-server"]
    starts = [record["resource"] for record in story.cluster("resource-end", node="node1", action="start")]
    stops = [record["resource"] for record in story.cluster("resource-end", node="node2", action="stop")]
    assert starts == order * 2
    assert stops == order[::-1]


def test_the_monitor_acts_when_the_watch_script_ends(story: Story) -> None:
    """G22: the server's crash ends its watch script with the code of dcstatus, and the monitor fails the group over."""
    detected = story.cluster("monitor-detected")
    assert [(record["monitor"], record["code"]) for record in detected] == [("appliw-server", 1)]
    assert [record["action"] for record in story.cluster("monitor-acted")] == ["failover"]


def test_only_the_active_node_can_open_the_metadata_db(story: Story) -> None:
    """The active node opens it; the standby's try fails."""
    assert story.opens == {"node1": 0, "node2": 1}


def test_clients_keep_their_address_and_see_the_failover_as_errors(story: Story) -> None:
    """Through one fixed address clients write before and after each failover, and their errors in between are recorded."""
    rows = story.sandbox.read_records("clients")
    taken = [record["time"] for record in story.cluster("group-activation-end", node="node2")]
    assert rows[0]["ok"]
    assert any(not row["ok"] and row["time"] < taken[0] for row in rows)
    assert any(row["ok"] and taken[0] < row["time"] < taken[1] for row in rows)


def test_schedules_survive_each_takeover(story: Story) -> None:
    """G4 and G7: after death, move and crash the started schedules are those of the beginning, and they run where the group is."""
    started = {row["name"] for row in story.sandbox.schedules() if row["state"] == "started"}
    assert started == {"auto-started-1", "manual-started-2", "auto-started-sabotaged-5", "夜間バックアップ-7"}
    ran = [run["node"] for run in story.sandbox.schedule_runs()]
    changes = [node for index, node in enumerate(ran) if index == 0 or ran[index - 1] != node]
    assert changes == ["node1", "node2", "node1", "node2"]


def test_guide_lines_and_broadcasts(story: Story) -> None:
    """G19: an INFO line precedes each command, id 1 for the server and 2 for the agent; no ERR line, no broadcast."""
    lines = [(row["id"], row["level"]) for row in story.sandbox.read_records("clusterlog")]
    assert lines == [({"server": 1, "agent": 2}[call["component"]], "INFO") for call in story.sandbox.verbs()]
    assert story.sandbox.read_records("broadcasts") == []


def test_a_start_waits_before_it_asks_and_a_stop_asks_nothing(story: Story) -> None:
    """G20: 10 s before each poll of the agent, 20 s before each of the server. G41: no poll belongs to a stop."""
    start = story.cluster("script-end", node="node1")[0]
    status = story.sandbox.read_records("status")
    polls = [(row["time"], row["component"]) for row in status]
    sleeps = [(row["time"], f"wait {row['seconds']:.0f}") for row in story.sandbox.read_records("sleeps")]
    during = [what for when, what in sorted(polls + sleeps) if when < start["time"]]
    agent, server = ["wait 10", "agent"], ["wait 20", "server"]
    assert during[:2] == agent
    assert during[-2:] == server
    assert during == agent * during.count("agent") + server * during.count("server")
    stops = {record["pid"] for record in story.cluster("script-end") if record["script"] == "stop.sh"}
    assert len(stops) == 2
    assert not [row for row in status if row["parent"] in stops]


def test_clpstat_has_the_shape_that_parsers_know(story: Story) -> None:
    """Short and wide form: sections, star, columns, state words."""
    heads = {match[2]: (match[1], match[3]) for line in story.stat.splitlines() if (match := SERVER_OR_GROUP.match(line))}
    assert heads["node1"] == ("*", "Online")
    assert heads["node2"] == (" ", "Online")
    children = {match[1]: match[2] for line in story.stat.splitlines() if (match := CHILD.match(line))}
    assert children["current"] == "node1"
    assert children["script1"] == "Online"
    colons = {line.index(":") for line in story.wide.splitlines()[3:] if ":" in line}
    assert colons == {38}
    assert {line.index(":") for line in story.stat.splitlines()[3:] if ":" in line} == {21}
    assert story.active == "node1\n"


def test_shutdown_leaves_nothing(story: Story) -> None:
    """After shutdown no process carries the sandbox's mark. (Last in this file: the story's cluster is gone then.)"""
    assert story.sandbox.processes() != []
    story.sandbox.shutdown()
    assert story.sandbox.processes() == []
