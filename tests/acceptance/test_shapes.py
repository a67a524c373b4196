"""Each shape of a cluster through its whole story: start, failover, return, restart in place, move, stop.

What is expected comes from GUIDE.md's tables, spelled out here once more on purpose, and from what the stand-ins wrote down themselves.
What dcsup says of a step is compared with that, never with what dcsup says elsewhere. Nothing here counts on how long anything takes.
"""

from __future__ import annotations

import base64
import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.sandbox.evidence import Round
from deploy.sandbox.shapes import SHAPES, STANDBYS, Service, Shape
from deploy.sandbox.site import Pace, Site
from deploy.sandbox.standins.cluster import API_USER

Call = tuple[str, str, str]
"""Node, component, verb."""
Record = dict[str, Any]

GUIDE = {
    ("server", "start", "START"): "recover",  # G8
    ("server", "start", "FAILOVER"): "recover",  # G9
    ("server", "stop", "START"): "faststop",  # G10
    ("server", "stop", "FAILOVER"): "faststop",  # G11
    ("agent", "start", "START"): "start",  # G12
    ("agent", "start", "FAILOVER"): "recover",  # G13
    ("agent", "stop", "START"): "stop",  # G14
    ("agent", "stop", "FAILOVER"): "faststop",  # G15
}
PACE = Pace(
    ack_timeout=30.0,
    node_ttl=3.0,
    interval=1.0,
    startup_interval=0.5,
    agent_start=0.5,
    server_start=0.8,
    probe_interval=1.5,
    settle=0.3,
    probation=1.0,
    view_interval=2.0,
)
LIMIT_S = 90.0
"""For whatever is waited for: a bound, not a promise."""


def calls(shape: Shape, script: str, event: str, node: str) -> list[Call]:
    """What the guide has a script run: in the order of the services at a start (G23, G24), in reverse at a stop."""
    services = shape.services if script == "start" else shape.services[::-1]
    return [(node, service.name, script if service.kind == "command" else GUIDE[service.kind, script, event]) for service in services]


class Story:
    """One shape, played step by step; each step checks what the stand-ins wrote down of it."""

    def __init__(self, site: Site) -> None:
        self.site, self.shape, self.cluster = site, site.shape, site.cluster
        self.failovers = 0

    @property
    def last(self) -> Service:
        """The service that is started last: its crash is the monitor's reason, its address what clients use."""
        return self.shape.services[-1]

    # --- the steps

    def start(self) -> None:
        """G8, G12, G23, G24: each service once, in order, on the node of highest priority, and only when the one before is healthy."""
        begin = time.time()
        self.site.bring_up()
        seen = self._settle("node1", begin)
        assert seen.names() == _names(calls(self.shape, "start", "START", "node1"))
        self._started_when_the_one_before_was_healthy(seen)
        self.cluster.start_clients()
        self._clients_write()

    def node_dies(self) -> None:
        """G9, G13: the group comes up on a standby with FAILOVER; where that one fails, on the next."""
        self._schedules_seen()
        self._clients_write()  # they were well before
        if self.shape is STANDBYS:
            self._node_dies_and_the_next_cannot()
            return
        seen, record = self._failover(lambda: self.cluster.kill_node("node1"), "node2")
        assert seen.names() == _names(calls(self.shape, "start", "FAILOVER", "node2"))
        assert _short(record) == ("failure", "completed", "node1", "node2")
        assert record["initiator"] == "cluster"
        self._judged(record, assumed=True)  # G7: nothing was stopped
        self._clients_agree(seen)

    def _node_dies_and_the_next_cannot(self) -> None:
        """A start that fails is stopped where it failed, and the group goes on to the third node: a failed failover, then a good one."""
        self.cluster.fail_command("agent", "recover", 1, "node2")
        self.failovers += 1
        seen, record = self._failover(lambda: self.cluster.kill_node("node1"), "node3")
        tried = [("node2", "agent", "recover"), *calls(self.shape, "stop", "FAILOVER", "node2")]
        assert seen.names() == _names([*tried, *calls(self.shape, "start", "FAILOVER", "node3")])
        assert [_short(each) for each in self._records(self.site.state())] == [
            ("failure", "failed", "node1", "node2"),
            ("failure", "completed", "node2", "node3"),
        ]
        self._judged(record)
        self._clients_agree(seen)
        self.cluster.clear_fault("fail-agent-recover", "node2")

    def node_returns(self) -> None:
        """G16: the start script runs with RECOVER on the node that returned, and starts nothing."""
        begin = time.time()
        self.site.power_on("node1")
        self.site.wait_state("node1 is a standby", lambda s: s["nodes"]["node1"]["state"] == "running", LIMIT_S)
        self.site.wait_for("the script with RECOVER", lambda: bool(self._round(begin).script("start", "script-end", "node1")), LIMIT_S)
        seen = self._round(begin)
        assert seen.events() == [("node1", "start", "RECOVER")]
        assert seen.verbs == []

    def restart_in_place(self, cause: Callable[[], None]) -> None:
        """The monitor restarts the script resource before it fails over: a stop and a start on the same node."""
        self._schedules_seen()
        node = self._active()
        seen, record = self._failover(cause, node)
        assert seen.names() == _names(calls(self.shape, "stop", "FAILOVER", node) + calls(self.shape, "start", "START", node))
        assert [r["environment"]["CLP_FACTOR"] for r in seen.script("stop")] == ["RESOURCERESTART"]
        assert _short(record) == ("restart", "completed", node, node)
        assert [r["action"] for r in seen.cluster if r["what"] == "monitor-acted"] == ["restart"]
        self._judged(record)

    def move(self, how: Callable[[], None], asked: bool) -> None:
        """G10-G15: stop where it is, by how it was started there, then start on the other node with START."""
        self._schedules_seen()
        node = self._active()
        seen, record = self._failover(how, "node1")
        assert seen.names() == _names(calls(self.shape, "stop", "START", node) + calls(self.shape, "start", "START", "node1"))
        assert [r["environment"]["CLP_FACTOR"] for r in seen.script("stop")] == ["GROUPMOVE"]
        assert _short(record) == ("move", "completed", node, "node1")
        assert (record["requested_by"], record["why"]) == (("h8", "the story goes on") if asked else (None, ""))
        self._judged(record, assumed=False)
        self._clients_agree(seen)

    def stop(self) -> None:
        """G10, G14: the group is stopped and stays so; that is no failover."""
        begin = time.time()
        self.cluster.clpgrp("-t", self.cluster.group)
        state = self.site.wait_state("all stopped", lambda s: all(x["state"] == "stopped" for x in s["services"].values()), LIMIT_S)
        seen = self._round(begin)
        assert seen.names() == _names(calls(self.shape, "stop", "START", "node1"))
        self._by_rq_workers(seen)
        assert len(self._records(state)) == self.failovers

    def crash(self) -> None:
        """The service that is started last dies."""
        self.cluster.crash(self._active(), self.last.name)

    # --- a failover and its two accounts

    def _failover(self, cause: Callable[[], object], node_to: str) -> tuple[Round, Record]:
        """Do something that moves the group; the stand-ins' round and dcsup's record of it, when both are complete."""
        self._clients_write()
        self.site.wait_state("the address is shown to be up", lambda s: s["endpoints"][self.last.name]["up"], LIMIT_S)
        begin = time.time()
        cause()
        self.failovers += 1
        seen = self._settle(node_to, begin)
        state = self.site.wait_state(
            "the failover is on record", lambda s: s["failover"] is None and len(self._records(s)) == self.failovers, LIMIT_S
        )
        self._clients_write()
        return seen, self._records(state)[-1]

    @staticmethod
    def _records(state: Record) -> list[Record]:
        """Without the symptoms that went away again, of which a busy machine has its share."""
        return [record for record in state["failovers"] if record["kind"] != "none"]

    def _settle(self, node: str, begin: float) -> Round:
        """Wait until the services run on `node` as everybody sees it; what the stand-ins wrote down since `begin`."""

        def runs(state: Record) -> bool:
            services = state["services"].values()
            return state["failover"] is None and all(s["state"] == "running" and s["node"] == node for s in services)

        def activated() -> bool:
            ended = ("group-activation-end", "resource-restart-end")
            return any(r["what"] in ended and r["ok"] and r["node"] == node for r in self._round(begin).cluster)

        self.site.wait_for(f"the group is up on {node}", activated, LIMIT_S)
        self.cluster.wait_group("Online", node, LIMIT_S)
        self.site.wait_state(f"the services run on {node}", runs, LIMIT_S)
        seen = self._round(begin)
        self._by_rq_workers(seen)
        return seen

    def _round(self, begin: float) -> Round:
        return Round(self.cluster, begin, time.time())

    def _active(self) -> str:
        return self.cluster.clpgrp("-n", self.cluster.group, node=self.cluster.nodes[-1]).strip()

    @staticmethod
    def _by_rq_workers(seen: Round) -> None:
        assert [str(verb) for verb in seen.verbs if not verb.by_rq_worker] == []

    def _started_when_the_one_before_was_healthy(self, seen: Round) -> None:
        healthy = {r["component"]: r["time"] for r in seen.daemons if r["what"] == "healthy"}
        for before, verb in zip(self.shape.services, seen.verbs[1:], strict=False):
            assert healthy[before.name] < verb.begin

    # --- schedules (G4-G7)

    def _schedules_seen(self) -> None:
        """A dead node can't be asked any more: what ran is known only if the probe saw it."""
        if self.shape.has("server"):
            self.site.wait_state("the probe has seen the schedules", self._seen_as_they_are, LIMIT_S)

    def _seen_as_they_are(self, state: Record) -> bool:
        latest = state["schedules"]["server"]["latest"]
        there = {row["name"]: row["state"] for row in self.cluster.schedules()}
        return bool(latest) and {row["name"]: row["state"] for row in latest["schedules"]} == there

    def _judged(self, record: Record, *, assumed: bool | None = None) -> None:
        """Where there is a server its schedules were judged, by name, as the metadata DB has them; nowhere else."""
        if not self.shape.has("server"):
            assert record["judgements"] == []
            return
        judgement = record["judgements"][-1]
        told = {verdict["name"]: verdict["outcome"] for verdict in judgement["schedules"]}
        assert told == {row["name"]: "resumed" for row in self.cluster.schedules() if row["state"] == "started"}
        assert judgement["rule"] == "G4"
        if assumed is not None:
            assert judgement["assumed"] is assumed

    # --- what clients see (G28, G36)

    def _clients_write(self) -> None:
        since = time.time()

        def wrote() -> bool:
            return any(r["ok"] and r["time"] > since for r in self.cluster.read_records("clients"))

        self.site.wait_for("a client's write", wrote, LIMIT_S)

    def _clients_agree(self, seen: Round) -> None:
        """The outage on dcsup's record is one that clients had too: they failed in it, and wrote before and after."""
        state = self.site.wait_state("the outage is on record, with its end", lambda s: self._outage(s, seen) is not None, LIMIT_S)
        down, up = self._outage(state, seen) or (0.0, 0.0)
        self._clients_write()
        rows = self.cluster.read_records("clients")
        failed = [r["time"] for r in rows if not r["ok"] and r["time"] > seen.begin]
        assert down < failed[-1]
        assert failed[0] < up
        assert any(r["ok"] and r["time"] < down for r in rows)
        assert any(r["ok"] and r["time"] > up for r in rows)

    def _outage(self, state: Record, seen: Round) -> tuple[float, float] | None:
        """Begin and end of what the latest failover's record says of our address in this round; None: there is none, or no end.

        It may begin a moment before the round: a connection that was made before and cut by what we did was no good to a client either.
        """
        outages = [o for o in self._records(state)[-1]["outages"] if o["endpoint"] == self.last.name]
        if not outages or outages[-1]["up_ms"] is None:
            return None
        mine = [o for o in outages if o["up_ms"] / 1000 > seen.begin]
        return (mine[0]["down_ms"] / 1000, mine[-1]["up_ms"] / 1000) if mine else None

    # --- maintenance

    def suspended(self) -> None:
        """A suspended cluster is maintenance: nobody's watch ends for a service that is made unhealthy by hand, and nothing is moved."""
        node, begin = self._active(), time.time()
        assert self.cluster.run("node1", "clp/bin/clpcl", "--suspend").returncode == 0
        self.site.wait_state("the suspension is known", lambda s: s["suspended"], LIMIT_S)
        self.site.wait_for("the node knows of it", (self.site.node_folder(node) / "maintenance").exists, LIMIT_S)
        self.cluster.set_fault(f"unhealthy-{self.last.name}", node=node)
        self.site.wait_for("failing polls of watch job and hook", lambda: len(self._failed_polls(node, begin)) >= 5, LIMIT_S)
        state = self.site.state()
        assert len(self._records(state)) == self.failovers
        assert state["services"][self.last.name]["state"] == "running"
        assert [process for process in self.cluster.processes(node) if f"watch.sh {self.last.name}" in process] != []
        assert self._round(begin).script("stop") == []

    def _failed_polls(self, node: str, begin: float) -> list[Record]:
        rows = self.cluster.read_records("status")
        return [r for r in rows if r["node"] == node and r["component"] == self.last.name and r["code"] and r["time"] > begin]

    def resume(self) -> None:
        """After the resume the watch ends and the monitor acts; whoever made the service unhealthy repairs it meanwhile."""
        node, begin = self._active(), time.time()
        assert self.cluster.run("node2", "clp/bin/clpcl", "--resume").returncode == 0
        self.site.wait_for("the monitor acts", lambda: any(r["what"] == "monitor-acted" for r in self._round(begin).cluster), LIMIT_S)
        self.cluster.clear_fault(f"unhealthy-{self.last.name}", node)

    # --- the metadata DB (G44)

    def metadata_shown(self) -> None:
        """G44: service and port of the metadata DB on each node, as the stand-ins have it."""
        active = self._active()

        def shown(state: Record) -> bool:
            seen = {node: (row["service"], row["port"]) for node, row in state["metadata"].items()}
            return seen == {node: ("running", "open") if node == active else ("stopped", "closed") for node in self.cluster.nodes}

        self.site.wait_state("the metadata DB is shown", shown, LIMIT_S)

    def move_with_disk_held(self) -> None:
        """G44: whether `faststop` ends the metadata DB is not said; here it does not."""
        self.cluster.set_fault("disk-held", node=self._active())
        self.by_clpgrp()

    def disk_is_held(self) -> None:
        """G44: a metadata DB that stays behind is warned of, and left alone; the warning goes when it does."""
        self.site.wait_state("the held disk is shown", lambda s: s["metadata"]["node2"]["held"], LIMIT_S)
        assert self.cluster.run("node2", "metadata/bin/metastatus").returncode == 0
        self.cluster.clear_fault("disk-held", "node2")
        self.site.wait_state("it is gone", lambda s: not s["metadata"]["node2"]["held"], LIMIT_S)
        self.metadata_shown()

    # --- ways to move the group to node1

    def by_clpgrp(self) -> None:
        """As an operator does without dcsup."""
        self.cluster.clpgrp("-m", self.cluster.group, "-a", "node1")

    def by_api(self) -> None:
        """Through the RESTful API, as a console does."""
        password = (self.cluster.node_dir("node2") / "clp" / "etc" / "api-password").read_text(encoding="utf-8").strip()
        url = f"{self.cluster.api_url('node2')}/api/v1/groups/{self.cluster.group}/move"
        request = urllib.request.Request(url, data=json.dumps({"target": "node1"}).encode(), method="POST")
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{API_USER}:{password}".encode()).decode())
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            assert json.load(answer)["result"]["code"] == 0

    def by_dcsup(self, *more: str) -> None:
        """`dcsup move`, which follows the move to its end."""
        config = str(self.site.config("node2"))
        words = ("--to", "node1", "--by", "h8", "--why", "the story goes on", "--yes", *more)
        done = self.site.dcsup("move", "--config", config, *words, timeout_s=LIMIT_S)
        assert done.returncode == 0, done.stdout + done.stderr


def _short(record: Record) -> tuple[str, str, str, str]:
    return record["kind"], record["outcome"], record["node_from"], record["node_to"]


def _names(expected: list[Call]) -> list[str]:
    return [f"{node}:{component} {verb}" for node, component, verb in expected]


@pytest.fixture
def story(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Story]:
    """A site of the shape asked for, and nothing left of it afterwards."""
    with Site(tmp_path, PACE, orchestrators=("a",), shape=SHAPES[request.param], restarts=1) as site:
        yield Story(site)
    assert site.left_over() == []


@pytest.mark.parametrize("story", SHAPES, indirect=True)
def test_the_shape_plays_its_whole_story(story: Story) -> None:
    """Start, failover, return, restart in place, move, stop: the guide's verbs, each once, by RQ workers; and dcsup tells them apart."""
    name = story.shape.name
    story.start()
    if story.shape.metadata:
        story.metadata_shown()
    story.node_dies()
    story.node_returns()
    if name == "server":
        story.suspended()
        story.restart_in_place(story.resume)
    else:
        story.restart_in_place(story.crash)
    if name == "metadata":
        story.move(story.move_with_disk_held, asked=False)
        story.disk_is_held()
    elif name == "agent-remote":
        story.move(story.by_api, asked=False)
    elif name == "both":
        story.move(story.by_dcsup, asked=True)
    elif name == "standbys":
        story.move(lambda: story.by_dcsup("--rest"), asked=True)
    else:
        story.move(story.by_clpgrp, asked=False)
    story.stop()
