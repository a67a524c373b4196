"""The databases beside DataCoordinator: an agent's DBMS, local or remote, and the metadata DB as a service of its own."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.sandbox.standins.clients import write_once
from deploy.sandbox.standins.cluster import SandboxCluster
from deploy.sandbox.standins.place import ask

from .conftest import MakeSandbox

MakeNode = Callable[..., SandboxCluster]


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[MakeNode]:
    """Makes a sandbox whose node1 has the disk, without any cluster manager."""
    made: list[SandboxCluster] = []

    def make(**settings: Any) -> SandboxCluster:
        sandbox = SandboxCluster(tmp_path / "sandbox", **settings)
        made.append(sandbox)
        (sandbox.node_dir("node1") / "disk").symlink_to(sandbox.shared)
        return sandbox

    yield make
    for sandbox in made:
        sandbox.shutdown()
        assert sandbox.processes() == []


def good(sandbox: SandboxCluster, path: str, *arguments: str, node: str = "node1") -> bool:
    """Whether a command ended with 0."""
    return sandbox.run(node, path, *arguments).returncode == 0


def healthy(sandbox: SandboxCluster, path: str, node: str = "node1") -> None:
    """Wait for a status command to say 0."""
    sandbox.wait_for(path, lambda: good(sandbox, path, node=node))


def test_a_local_dbms_keeps_what_the_agent_wrote_on_the_switchable_disk(make_node: MakeNode) -> None:
    """G2, G24: started before the agent and stopped after it, with records of its own; its data stays with the disk."""
    sandbox = make_node(databases="local")
    assert not good(sandbox, "dbms/bin/dbstatus")
    assert good(sandbox, "dbms/bin/dbstart")
    healthy(sandbox, "dbms/bin/dbstatus")
    assert good(sandbox, "agent/bin/dcagent", "start")
    healthy(sandbox, "agent/bin/dcstatus")
    assert ask(sandbox.settings["nodes"]["node1"]["agent"], "WRITE hello") == "OK"
    assert good(sandbox, "agent/bin/dcagent", "stop")
    assert good(sandbox, "dbms/bin/dbstop")
    assert not good(sandbox, "dbms/bin/dbstatus")
    assert [(row["text"], row["node"]) for row in sandbox.user_writes()] == [("hello", "node1")]
    assert (sandbox.shared / "dbms" / "user.db").exists()
    calls = [(call["component"], call["verb"], call["code"]) for call in sandbox.verbs()]
    assert calls == [("dbms", "start", 0), ("agent", "start", 0), ("agent", "stop", 0), ("dbms", "stop", 0)]


def test_an_agent_without_its_dbms_is_not_healthy(make_node: MakeNode) -> None:
    """G24: an agent that was started first waits for the DBMS, and one that loses it says so."""
    sandbox = make_node(databases="local")
    assert good(sandbox, "agent/bin/dcagent", "start")
    sandbox.wait_for("the agent", lambda: "starting" in sandbox.run("node1", "agent/bin/dcstatus").stdout)
    assert good(sandbox, "dbms/bin/dbstart")
    healthy(sandbox, "agent/bin/dcstatus")
    sandbox.crash("node1", "dbms")
    sandbox.wait_for("the loss", lambda: "DBMS" in sandbox.run("node1", "agent/bin/dcstatus").stdout)


def test_a_dbms_starts_only_where_the_disk_is(make_node: MakeNode) -> None:
    """The standby cannot start it; a start beside a running one is refused; the faults have its name."""
    sandbox = make_node(databases="local")
    assert not good(sandbox, "dbms/bin/dbstart", node="node2")
    assert good(sandbox, "dbms/bin/dbstart")
    assert not good(sandbox, "dbms/bin/dbstart")
    healthy(sandbox, "dbms/bin/dbstatus")
    sandbox.set_fault("unhealthy-dbms")
    assert not good(sandbox, "dbms/bin/dbstatus")
    assert sandbox.run("node1", "dbms/bin/dbstop", "now").returncode == 2


def test_a_remote_dbms_is_there_whatever_happens_to_the_nodes(make_sandbox: MakeSandbox) -> None:
    """G2: it runs on a machine of its own; a node that loses its power takes nothing of it along."""
    sandbox = make_sandbox(services=("agent",), databases="remote")
    sandbox.start_node("node1")
    healthy(sandbox, "dbms/bin/dbstatus", node="dbhost")
    before = sandbox.processes("dbhost")
    sandbox.kill_node("node1")
    assert sandbox.processes("dbhost") == before
    assert good(sandbox, "dbms/bin/dbstatus", node="dbhost")


def test_the_metadata_db_is_a_service_with_a_state_of_its_own(make_node: MakeNode) -> None:
    """G44: the server's start and stop are those of the metadata DB, and its service tells which; unless a stop leaves it running."""
    sandbox = make_node()
    assert not good(sandbox, "metadata/bin/metastatus")
    assert good(sandbox, "server/bin/dcserver", "recover")
    assert good(sandbox, "metadata/bin/metastatus")
    healthy(sandbox, "server/bin/dcstatus")
    sandbox.set_fault("disk-held")
    assert good(sandbox, "server/bin/dcserver", "faststop")
    assert good(sandbox, "metadata/bin/metastop")
    assert good(sandbox, "metadata/bin/metastatus")
    sandbox.clear_fault("disk-held")
    assert good(sandbox, "metadata/bin/metastop")
    assert not good(sandbox, "metadata/bin/metastatus")
    assert [(call["component"], call["verb"]) for call in sandbox.verbs()][-1] == ("metadata", "stop")


def test_where_the_site_starts_the_metadata_db_the_server_does_not(make_node: MakeNode) -> None:
    """G44: without `metadata_by_server` the server waits for a metadata DB that somebody else starts, and leaves it when it stops."""
    sandbox = make_node(metadata_by_server=False)
    assert good(sandbox, "server/bin/dcserver", "recover")
    assert not good(sandbox, "metadata/bin/metastatus")
    assert good(sandbox, "metadata/bin/metastart")
    healthy(sandbox, "server/bin/dcstatus")
    assert good(sandbox, "server/bin/dcserver", "faststop")
    assert good(sandbox, "metadata/bin/metastatus")


def test_the_floating_address_refuses_while_nobody_listens_behind_it(make_sandbox: MakeSandbox) -> None:
    """G28: with the group up and its server killed, a client is refused, as by a machine on which nobody listens."""
    stay = "#!/bin/sh\nexec sleep 600\n"
    sandbox = make_sandbox(services=("server",))
    start = '#!/bin/sh\n. "$(dirname "$0")/site.env"\n"$SERVER_COMMAND" recover\n'
    for node in sandbox.nodes:
        sandbox.install_scripts(node, {"start.sh": start, "watch.sh": stay})
        sandbox.start_node(node)
    sandbox.wait_group("Online", "node1")
    sandbox.wait_for("a write", lambda: write_once(*sandbox.address, "text") == "")
    sandbox.crash("node1", "server")

    def refused() -> bool:
        try:
            socket.create_connection(sandbox.address, 2).close()
        except ConnectionRefusedError:
            return True
        return False

    sandbox.wait_for("a refusal", refused)


def test_sandboxes_made_at_the_same_time_have_different_ports(tmp_path: Path) -> None:
    """Most ports are bound only when a node is switched on: a sandbox keeps its range from the moment it is made."""
    made = [SandboxCluster(tmp_path / str(n)) for n in range(10)]
    try:
        ports = [port for sandbox in made for node in sandbox.settings["nodes"].values() for port in node.values()]
        assert len(ports) == len(set(ports)) == 10 * 2 * 7
    finally:
        for sandbox in made:
            sandbox.shutdown()
