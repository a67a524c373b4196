"""The CLUSTERPRO stand-in as operators and monitors of it see it: suspending, alerts, the API, and standbys in order of the policy."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from deploy.sandbox.standins.clp_alerts import events_of
from deploy.sandbox.standins.cluster import API_USER, SandboxCluster

from .conftest import MakeSandbox
from .test_clusterpro import FAIL, OK, SCRIPTS, cluster, end_watch, events, running

THREE = ("node1", "node2", "node3")


class Api:
    """A client of one node's RESTful API."""

    def __init__(self, sandbox: SandboxCluster, node: str) -> None:
        self._url = sandbox.api_url(node)
        self.password = (sandbox.node_dir(node) / "clp" / "etc" / "api-password").read_text(encoding="utf-8").strip()

    def ask(self, path: str, body: object | None = None) -> tuple[int, dict[str, Any]]:
        """HTTP status and answer; a body makes it a POST."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._url}/api/v1{path}", data=data)
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{API_USER}:{self.password}".encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)


def alerts(sandbox: SandboxCluster, *modules: str) -> list[tuple[str, str, int]]:
    """Node, module and id of the events, of the modules given."""
    return [(row["node"], row["module"], row["id"]) for row in sandbox.read_records("alerts") if row["module"] in modules]


def up(sandbox: SandboxCluster) -> SandboxCluster:
    """The sandbox with the group on node1 and every node a member, as node1 and the last node see it."""
    running(sandbox)
    sandbox.wait_group("Online", "node1")
    for node in sandbox.nodes:
        sandbox.wait_node(node, seen_from="node1")
    sandbox.wait_for("the last node's view", lambda: sandbox.clpgrp("-n", node=sandbox.nodes[-1]) == "node1\n")
    return sandbox


# --- suspended clusters and monitors


def test_a_suspended_cluster_shows_it_and_no_monitor_acts_until_it_is_resumed(make_sandbox: MakeSandbox) -> None:
    """clpcl --suspend, asked anywhere, holds everywhere: the watch's end is seen only after --resume, and then acted on."""
    sandbox = up(make_sandbox())
    assert sandbox.run("node2", "clp/bin/clpcl", "--suspend").returncode == 0
    for node in sandbox.nodes:
        assert "appliw-server    : Suspend" in sandbox.clpstat(node=node)
        assert "node1 ...........: Suspend" in sandbox.clpstat(node=node)
    end_watch(sandbox, "node1")
    assert sandbox.run("node1", "clp/bin/clpcl", "--suspend").returncode == 1
    assert sandbox.run("node1", "clp/bin/clpgrp", "-m").returncode == 1
    assert cluster(sandbox, "monitor-detected") == []
    assert sandbox.run("node1", "clp/bin/clpcl", "--resume").returncode == 0
    sandbox.wait_group("Online", "node2")
    assert len(cluster(sandbox, "monitor-detected")) == 1
    assert "appliw-server    : Normal" in sandbox.clpstat(node="node2")


def test_no_node_takes_over_while_the_cluster_is_suspended(make_sandbox: MakeSandbox) -> None:
    """A node that dies in a suspended cluster is seen to be dead, and its group is taken over after the resume."""
    sandbox = up(make_sandbox())
    sandbox.run("node1", "clp/bin/clpcl", "--suspend")
    sandbox.kill_node("node1")
    sandbox.wait_for("node1's death", lambda: bool(cluster(sandbox, "node-dead")))
    assert [run[0] for run in events(sandbox)] == ["node1"]
    assert sandbox.run("node2", "clp/bin/clpcl", "--resume").returncode == 0
    sandbox.wait_group("Online", "node2")


def test_one_monitor_is_suspended_by_clpmonctrl(make_sandbox: MakeSandbox) -> None:
    """clpmonctrl -s takes one monitor's eyes, -r gives them back; an unknown monitor is refused."""
    sandbox = up(make_sandbox())
    assert sandbox.run("node2", "clp/bin/clpmonctrl", "-s", "-m", "nobody").returncode == 1
    assert sandbox.run("node2", "clp/bin/clpmonctrl", "-s", "-m", "appliw-server").returncode == 0
    stat = sandbox.clpstat(node="node1")
    assert "appliw-server    : Suspend" in stat
    assert "appliw-agent     : Normal" in stat
    assert "node1 ...........: Online" in stat
    end_watch(sandbox, "node1")
    assert sandbox.run("node2", "clp/bin/clpmonctrl", "-r").returncode == 0
    sandbox.wait_group("Online", "node2")


# --- the alert extension


def test_each_step_raises_the_products_events(make_sandbox: MakeSandbox) -> None:
    """CLUSTERPRO.md 6.2: monitor error and failover, move, death of a node, by module and id, on the node where they belong."""
    sandbox = up(make_sandbox())
    end_watch(sandbox, "node1")
    sandbox.wait_group("Online", "node2")
    sandbox.wait_for("the failover's end", lambda: ("node2", "rc", 61) in alerts(sandbox, "rc"))
    sandbox.clpgrp("-m")
    sandbox.wait_for("the move's end", lambda: ("node1", "rc", 51) in alerts(sandbox, "rc"))
    sandbox.kill_node("node1")
    sandbox.wait_group("Online", "node2")
    sandbox.wait_for("the second failover's end", lambda: alerts(sandbox, "rc").count(("node2", "rc", 61)) == 2)
    told = [event for event in alerts(sandbox, "rc", "rm", "nm") if event[2] not in (1, 10, 11, 20, 21, 30, 31, 40, 41)]
    assert told == [
        ("node1", "rm", 9),
        ("node1", "rm", 14),
        ("node1", "rc", 60),
        ("node2", "rc", 61),
        ("node2", "rc", 50),
        ("node1", "rc", 51),
        ("node2", "nm", 2),
        ("node2", "rc", 60),
        ("node2", "rc", 61),
    ]


def test_the_alert_extension_runs_the_configured_command_with_the_events_text(make_sandbox: MakeSandbox, tmp_path: Path) -> None:
    """Only for the ids that have one, %%MSG%% replaced as one word; a command that cannot be run stops nothing."""
    sandbox = make_sandbox()
    told = tmp_path / "told.txt"
    command = f'sh -c \'printf "%s|" "$@" >>{told}\' sh rc 11 %%MSG%%'
    sandbox.install_alert_commands("node1", {"rc@11": ["/nowhere/at/all", command]})
    running(sandbox)
    sandbox.wait_group("Online", "node1")
    sandbox.wait_for("the command", lambda: told.exists() and told.read_text() == "rc|11|Activating group failover1 has completed.|")


@pytest.mark.parametrize(
    ("what", "fields", "expected"),
    [
        ("resource-end", {"resource": "script1", "action": "start", "ok": False, "reason": "x"}, [("rc", 32)]),
        ("resource-end", {"resource": "script1", "action": "stop", "ok": False, "reason": "x"}, [("rc", 42)]),
        ("group-activation-end", {"ok": False, "event": "START", "previous": None}, [("rc", 12)]),
        ("group-deactivation-end", {"ok": False, "factor": "GROUPSTOP"}, [("rc", 22)]),
        ("double-activation", {"taken_by": "node2"}, [("rc", 92)]),
        ("no-destination", {"tried": ["node1"]}, [("rc", 65)]),
        ("resource-restart-begin", {"resource": "script1"}, [("rc", 80)]),
        ("monitor-acted", {"monitor": "appliw-server", "action": "restart"}, [("rm", 13)]),
        ("node-left", {"peer": "node2"}, [("nm", 2)]),
        ("script-begin", {}, []),
    ],
)
def test_failures_have_events_of_their_own(what: str, fields: dict[str, Any], expected: list[tuple[str, int]]) -> None:
    """CLUSTERPRO.md 6.2: what went wrong is told by another id than what went well."""
    assert [event[:2] for event in events_of(what, fields, "failover1")] == expected


# --- the RESTful API


def test_the_api_shows_what_clpstat_shows(make_sandbox: MakeSandbox) -> None:
    """CLUSTERPRO.md 4: cluster, servers, groups, resources, monitors, each with result.code 0; `current` of a stopped group is "None"."""
    sandbox = up(make_sandbox())
    api = Api(sandbox, "node2")
    sandbox.wait_for("node2's own view", lambda: api.ask("/groups/failover1")[1]["groups"][0]["status"] == "Online")
    assert api.ask("/cluster") == (200, {"cluster": {"name": "sandbox", "status": "Normal"}, "result": {"code": 0, "message": ""}})
    assert {row["name"]: row["status"] for row in api.ask("/servers")[1]["servers"]} == {"node1": "Online", "node2": "Online"}
    assert api.ask("/groups")[1]["groups"][0]["current"] == "node1"
    resources = {row["name"]: (row["type"], row["status"], row["group"]) for row in api.ask("/resources")[1]["resources"]}
    assert resources["appli-server"] == ("appli", "Online", "failover1")
    assert resources["sd1"] == ("sd", "Online", "failover1")
    monitor = api.ask("/monitors/appliw-server")[1]["monitors"][0]
    assert (monitor["type"], monitor["status"]) == ("appliw", "Normal")
    assert {row["name"]: row["status"] for row in monitor["servers"]} == {"node1": "Normal", "node2": "Offline"}
    sandbox.clpgrp("-t")
    sandbox.wait_for("the stop", lambda: api.ask("/groups")[1]["groups"][0]["current"] == "None")


def test_the_api_moves_and_suspends_and_answers_before_it_is_done(make_sandbox: MakeSandbox) -> None:
    """A POST is accepted with code 0 and carried out by and by; a suspended cluster says so and refuses a move."""
    sandbox = up(make_sandbox())
    api = Api(sandbox, "node2")
    assert api.ask("/groups/failover1/move", {"target": "node2"})[1]["result"]["code"] == 0
    sandbox.wait_group("Online", "node2")
    assert events(sandbox)[1:] == [("node1", "stop.sh", "START", "GROUPMOVE"), ("node2", "start.sh", "START", None)]
    assert api.ask("/cluster/suspend", {})[1]["result"]["code"] == 0
    sandbox.wait_for("the suspension", lambda: api.ask("/cluster")[1]["cluster"]["status"] == "Suspend")
    status, answer = api.ask("/groups/failover1/move", {})
    assert status == 500
    assert answer["result"] == {"code": 6, "message": "The cluster is suspended."}


def test_the_api_refuses_what_it_does_not_know(make_sandbox: MakeSandbox) -> None:
    """Wrong account, unknown paths, names and servers, a body that is no JSON: an HTTP error whose body has code and message."""
    sandbox = up(make_sandbox())
    api = Api(sandbox, "node1")
    refused = [
        api.ask("/nothing"),
        api.ask("/groups/other"),
        api.ask("/groups/other/move", {}),
        api.ask("/groups/failover1/move", {"target": "nobody"}),
    ]
    assert [status for status, _ in refused] == [404, 404, 404, 400]
    assert all(answer["result"]["code"] and answer["result"]["message"] for _, answer in refused)
    api.password = "wrong"
    assert api.ask("/cluster")[0] == 401


# --- more than one standby


def test_a_start_that_fails_on_the_second_node_goes_on_to_the_third(make_sandbox: MakeSandbox) -> None:
    """Policy order: node1 dies, node2 cannot start the group, node3 can; node2's stop script runs in between."""
    sandbox = up(make_sandbox(nodes=THREE))
    sandbox.install_scripts("node2", SCRIPTS | {"start.sh": FAIL})
    sandbox.kill_node("node1")
    sandbox.wait_group("Online", "node3")
    assert events(sandbox)[1:] == [
        ("node2", "start.sh", "FAILOVER", None),
        ("node2", "stop.sh", "FAILOVER", "GROUPFAILOVER"),
        ("node3", "start.sh", "FAILOVER", None),
    ]
    assert [event for event in alerts(sandbox, "rc") if event[2] in (12, 32, 61)] == [
        ("node2", "rc", 32),
        ("node2", "rc", 12),
        ("node3", "rc", 61),
    ]


def test_each_node_is_tried_once(make_sandbox: MakeSandbox) -> None:
    """A start that fails everywhere ends on the last node of the policy, as Online Failure, with the event that there is no destination."""
    sandbox = make_sandbox(nodes=THREE)
    running(sandbox, SCRIPTS | {"start.sh": FAIL, "stop.sh": OK})
    sandbox.wait_group("Online Failure", "node3")
    assert [run[:2] for run in events(sandbox)] == [
        ("node1", "start.sh"),
        ("node1", "stop.sh"),
        ("node2", "start.sh"),
        ("node2", "stop.sh"),
        ("node3", "start.sh"),
    ]
    assert alerts(sandbox, "rc")[-1] == ("node3", "rc", 65)
