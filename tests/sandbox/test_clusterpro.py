"""The CLUSTERPRO stand-in on small scripts: recovery actions, failing scripts and disks, orderly stops, frozen nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from deploy.sandbox.standins.cluster import SandboxCluster

from .conftest import MakeSandbox

OK = "#!/bin/sh\nexit 0\n"
FAIL = "#!/bin/sh\nexit 9\n"
STAY = (
    '#!/bin/sh\n. "$(dirname "$0")/site.env"\nwhile [ ! -e "$NODE_DIR/leave-$1" ]; do sleep 0.05; done\nrm "$NODE_DIR/leave-$1"\nexit 3\n'
)
SCRIPTS = {"start.sh": OK, "stop.sh": OK, "watch.sh": STAY}


def running(sandbox: SandboxCluster, scripts: Mapping[str, str] = SCRIPTS) -> SandboxCluster:
    """The sandbox with ``scripts`` on all nodes, switched on."""
    for node in sandbox.nodes:
        sandbox.install_scripts(node, scripts)
    for node in sandbox.nodes:
        sandbox.start_node(node)
    return sandbox


def cluster(sandbox: SandboxCluster, what: str) -> list[dict[str, Any]]:
    """The cluster manager's records of one kind."""
    return [record for record in sandbox.read_records("cluster") if record["what"] == what]


def events(sandbox: SandboxCluster) -> list[tuple[str, str, str, str | None]]:
    """Node, script, CLP_EVENT and CLP_FACTOR of each script run."""
    runs = [(record["node"], record["script"], record["environment"]) for record in cluster(sandbox, "script-end")]
    return [(node, script, environment["CLP_EVENT"], environment.get("CLP_FACTOR")) for node, script, environment in runs]


def end_watch(sandbox: SandboxCluster, node: str) -> None:
    """Let the server's watch script on ``node`` end."""
    (sandbox.node_dir(node) / "leave-server").touch()


def test_the_ladder_restarts_in_place_before_it_fails_over(make_sandbox: MakeSandbox) -> None:
    """restart 1, failover 1: the first end of the watch restarts script and residents there, the second moves the group."""
    sandbox = running(make_sandbox(restart_count=1, monitor_reset_s=3600.0))
    sandbox.wait_group("Online", "node1")
    end_watch(sandbox, "node1")
    sandbox.wait_for("a restart", lambda: len(events(sandbox)) == 3)
    sandbox.wait_group("Online", "node1")
    end_watch(sandbox, "node1")
    sandbox.wait_group("Online", "node2")
    assert events(sandbox) == [
        ("node1", "start.sh", "START", None),
        ("node1", "stop.sh", "START", "RESOURCERESTART"),
        ("node1", "start.sh", "START", None),
        ("node1", "stop.sh", "START", "GROUPFAILOVER"),
        ("node2", "start.sh", "FAILOVER", None),
    ]
    assert [record["code"] for record in cluster(sandbox, "monitor-detected")] == [3, 3]


def test_without_another_node_the_monitor_leaves_the_group_alone(make_sandbox: MakeSandbox) -> None:
    """A failover with nowhere to go is not begun: the group stays up, the monitor shows its error."""
    sandbox = running(make_sandbox(nodes=("node1",)))
    sandbox.wait_group("Online", "node1")
    end_watch(sandbox, "node1")
    sandbox.wait_for("the monitor", lambda: bool(cluster(sandbox, "monitor-acted")))
    assert [record["action"] for record in cluster(sandbox, "monitor-acted")] == ["none"]
    sandbox.wait_group("Online", "node1")
    assert "appliw-server    : Error" in sandbox.clpstat()


def test_a_failing_start_script_is_tried_on_one_other_node(make_sandbox: MakeSandbox) -> None:
    """Start fails on node1: stop there, start on node2 with FAILOVER."""
    sandbox = make_sandbox()
    sandbox.set_fault("start", "", "node1")
    running(sandbox, SCRIPTS | {"start.sh": '#!/bin/sh\n[ "$CLP_SERVER" = OTHER ]\n'})
    sandbox.wait_group("Online", "node2")
    assert events(sandbox) == [
        ("node1", "start.sh", "START", None),
        ("node1", "stop.sh", "START", "GROUPFAILOVER"),
        ("node2", "start.sh", "FAILOVER", None),
    ]


def test_a_start_script_failing_everywhere_leaves_the_group_failed(make_sandbox: MakeSandbox) -> None:
    """After one other node failed too, the group is Online Failure there and nothing more is tried."""
    sandbox = running(make_sandbox(), SCRIPTS | {"start.sh": FAIL})
    sandbox.wait_group("Online Failure", "node2")
    assert [run[:2] for run in events(sandbox)] == [("node1", "start.sh"), ("node1", "stop.sh"), ("node2", "start.sh")]
    assert "script1        : Online Failure" in sandbox.clpstat(node="node2")


def test_a_start_script_beyond_its_limit_is_a_failure(make_sandbox: MakeSandbox) -> None:
    """A script that outlives its limit is ended, and the activation has failed."""
    slow = SCRIPTS | {"start.sh": '#!/bin/sh\n[ "$CLP_SERVER" = OTHER ] || exec sleep 600\n'}
    sandbox = running(make_sandbox(script_timeout_s=0.5), slow)
    sandbox.wait_group("Online", "node2")
    assert [record["reason"] for record in cluster(sandbox, "script-end")] == ["timeout", "", ""]


def test_a_failing_stop_script_is_written_down_as_a_shutdown(make_sandbox: MakeSandbox) -> None:
    """By default the shutdown is only recorded, and the move goes on."""
    sandbox = running(make_sandbox(), SCRIPTS | {"stop.sh": FAIL})
    sandbox.wait_group("Online", "node1")
    sandbox.clpgrp("-m")
    sandbox.wait_group("Online", "node2")
    assert [(record["node"], record["real"]) for record in cluster(sandbox, "os-shutdown")] == [("node1", False)]


def test_a_failing_stop_script_really_costs_the_node_where_the_sandbox_says_so(make_sandbox: MakeSandbox) -> None:
    """With shutdown_is_real the node loses its power, and the other takes over as after any death."""
    sandbox = running(make_sandbox(shutdown_is_real=True), SCRIPTS | {"stop.sh": FAIL})
    sandbox.wait_group("Online", "node1")
    with pytest.raises(RuntimeError):
        sandbox.clpgrp("-m", node="node1")
    sandbox.wait_group("Online", "node2")
    assert sandbox.processes("node1") == []
    assert events(sandbox)[-1] == ("node2", "start.sh", "FAILOVER", None)


def test_a_disk_that_cannot_be_attached_is_told_to_the_script(make_sandbox: MakeSandbox) -> None:
    """CLP_DISK=FAILURE, and no link to the disk (G18); the guide's own script broadcasts, runs no verb, and ends with 0."""
    sandbox = make_sandbox()
    sandbox.set_fault("attach-fails", node="node1")
    for node in sandbox.nodes:
        sandbox.install_scripts(node, {"watch.sh": STAY})
        sandbox.start_node(node)
    sandbox.wait_group("Online", "node1")
    assert [record["environment"]["CLP_DISK"] for record in cluster(sandbox, "script-end")] == ["FAILURE"]
    assert "sd1            : Online Failure" in sandbox.clpstat()
    assert len(sandbox.read_records("broadcasts")) == 1
    assert sandbox.verbs() == []


def test_the_guides_scripts_outside_the_cluster_only_broadcast(make_sandbox: MakeSandbox) -> None:
    """G17: without CLP_EVENT, and with RECOVER in a stop, nothing is started or stopped."""
    sandbox = make_sandbox()
    assert sandbox.run("node1", "scripts/start.sh").returncode == 0
    assert sandbox.run("node1", "scripts/stop.sh").returncode == 0
    assert len(sandbox.read_records("broadcasts")) == 2
    assert sandbox.verbs() == []


def test_stop_and_start_of_the_group_by_command(make_sandbox: MakeSandbox) -> None:
    """clpgrp -t stops with GROUPSTOP and nothing starts it again by itself; -s starts it where it is run, with START."""
    sandbox = running(make_sandbox())
    sandbox.wait_group("Online", "node1")
    sandbox.clpgrp("-t", "failover1", node="node2")
    sandbox.wait_group("Offline")
    assert sandbox.clpgrp("-n", "failover1") == ""
    sandbox.clpgrp("-s", "failover1", node="node2")
    sandbox.wait_group("Online", "node2")
    assert events(sandbox)[1:] == [("node1", "stop.sh", "START", "GROUPSTOP"), ("node2", "start.sh", "START", None)]


def test_an_orderly_shutdown_gives_the_group_away(make_sandbox: MakeSandbox) -> None:
    """A node that is shut down stops its scripts first, and is not declared dead."""
    sandbox = running(make_sandbox())
    sandbox.wait_group("Online", "node1")
    sandbox.stop_node("node1")
    sandbox.wait_group("Online", "node2")
    assert events(sandbox)[1:] == [("node1", "stop.sh", "START", "SERVERSHUTDOWN"), ("node2", "start.sh", "FAILOVER", None)]
    assert cluster(sandbox, "node-dead") == []
    assert sandbox.processes("node1") == []


def test_a_frozen_node_loses_the_group_and_knows_it_when_it_goes_on(make_sandbox: MakeSandbox) -> None:
    """A node that froze past the timeout finds its group taken: it runs no script, ends its residents, and follows."""
    sandbox = running(make_sandbox())
    sandbox.wait_group("Online", "node1")
    sandbox.pause_node("node1")
    sandbox.wait_group("Online", "node2")
    sandbox.continue_node("node1")
    sandbox.wait_for("its insight", lambda: bool(cluster(sandbox, "double-activation")))
    sandbox.wait_for("agreement", lambda: sandbox.view("node1")["view"]["owner"] == "node2")
    assert [run for run in events(sandbox) if run[0] == "node1"] == [("node1", "start.sh", "START", None)]


def test_commands_fail_where_the_cluster_service_does_not_run(make_sandbox: MakeSandbox) -> None:
    """clpstat, clpgrp and clplogcmd need the daemon; armsleep and armbcast do not; wrong options are refused."""
    sandbox = make_sandbox()
    for command in (("clpstat",), ("clpgrp", "-n", "failover1"), ("clplogcmd", "-m", "text")):
        assert sandbox.run("node1", f"clp/bin/{command[0]}", *command[1:]).returncode == 1
    assert sandbox.run("node1", "clp/bin/armsleep", "1").returncode == 0
    assert sandbox.run("node1", "clp/bin/armbcast", "/MSG", "text", "/A").returncode == 0
    result = sandbox.run("node1", "clp/bin/clpstat", "--sideways")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_a_new_sandbox_in_the_same_folder_ends_what_the_former_left(make_sandbox: MakeSandbox) -> None:
    """A driver that died leaves its nodes running; the next one clears them away and keeps the shared disk."""
    former = running(make_sandbox())
    former.wait_group("Online", "node1")
    (former.shared / "kept").touch()
    SandboxCluster(former.base)
    assert former.processes() == []
    assert (former.shared / "kept").exists()
