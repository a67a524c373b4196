"""The shapes of a cluster that the sandbox plays, as data: which services, on how many nodes, with which databases and surroundings.

A site takes one (`Site(..., shape=SHAPES["agent-local"])`), and so does `dcsup up --sandbox --shape NAME`. Everything that differs between
shapes is said here; what is common, and the pace, is the site's (site.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from deploy.sandbox.standins.cluster import API_USER, SandboxCluster


@dataclass(frozen=True)
class Service:
    """One service of the group, as dcsup.toml has it.

    Attributes:
        name: also the stand-in's component, whose records and faults go by it.
        commands: key of [node.services.<name>] -> the command's path on a node.
        databases: for an agent, where its DBMS is (G2).
    """

    name: str
    kind: Literal["agent", "server", "command"]
    commands: Mapping[str, str]
    databases: Literal["local", "remote"] | None = None

    def settings(self) -> dict[str, Any]:
        """Its [[clusters.<name>.services]] table."""
        where = {} if self.databases is None else {"databases": self.databases}
        return {"name": self.name, "kind": self.kind, **where}


SERVER = Service("server", "server", {"command": "server/bin/dcserver", "status": "server/bin/dcstatus"})
_AGENT_COMMANDS = {"command": "agent/bin/dcagent", "status": "agent/bin/dcstatus"}
AGENT = Service("agent", "agent", _AGENT_COMMANDS)
AGENT_LOCAL = Service("agent", "agent", _AGENT_COMMANDS, "local")
AGENT_REMOTE = Service("agent", "agent", _AGENT_COMMANDS, "remote")
DBMS = Service("dbms", "command", {"start": "dbms/bin/dbstart", "stop": "dbms/bin/dbstop", "status": "dbms/bin/dbstatus"})
METADATA = Service(
    "metadata", "command", {"start": "metadata/bin/metastart", "stop": "metadata/bin/metastop", "status": "metadata/bin/metastatus"}
)


@dataclass(frozen=True)
class Shape:
    """One shape.

    Attributes:
        title: what a person reads in the list.
        services: in start order (G23, G24); each has a resident watch script and a monitor.
        nodes: in the group's order of priority.
        metadata: the metadata DB is watched and shown (G44).
        view: where the workers get the cluster manager's view from.
    """

    name: str
    title: str
    services: tuple[Service, ...]
    nodes: tuple[str, ...] = ("node1", "node2")
    metadata: bool = False
    view: Literal["clpstat", "rest"] = "clpstat"

    @property
    def resources(self) -> tuple[str, ...]:
        """The failover group's resources in order of dependency (G40)."""
        return ("fip1", "sd1", "script1", *(f"appli-{service.name}" for service in self.services))

    def has(self, kind: str) -> bool:
        """Whether a service of this kind belongs to the group."""
        return any(service.kind == kind for service in self.services)

    def sandbox(self) -> dict[str, Any]:
        """Arguments of SandboxCluster."""
        return {
            "services": [service.name for service in self.services],
            "databases": next((service.databases for service in self.services if service.databases), None),
            "metadata_by_server": METADATA not in self.services,
        }

    # --- dcsup.toml

    def cluster_tables(self, cluster: SandboxCluster, node: str | None) -> dict[str, Any]:
        """Tables below [clusters.<name>]; `node`: whose file it is, None for an orchestrator's."""
        if not self.metadata:
            return {}
        # 'the same port on every node' becomes one port a node here: each node's own file has its own
        return {"metadata": {"port": cluster.settings["nodes"][node or self.nodes[0]]["metadata"]}}

    def endpoints(self, cluster: SandboxCluster) -> Iterator[dict[str, Any]]:
        """The [[clusters.<name>.endpoints]] tables: what clients connect to (G28, G36)."""
        for service in self.services:
            if service.kind != "command":
                host, port = cluster.address_of(service.name)
                yield {"name": service.name, "host": host, "port": port, "service": service.name, "interval": 0.2, "limit": 2}

    def node_tables(self, cluster: SandboxCluster, node: str) -> dict[str, Any]:
        """What this shape adds to [node]."""

        def command(path: str) -> list[str]:
            return [str(cluster.command(node, path))]

        tables: dict[str, Any] = {
            "services": {service.name: {key: command(path) for key, path in service.commands.items()} for service in self.services}
        }
        if self.has("server"):
            tables["probe"] = command("server/bin/dcschedules")
        if self.metadata:
            tables["metadata_status"] = command("metadata/bin/metastatus")
        if self.view == "rest":
            password = cluster.node_dir(node) / "clp" / "etc" / "api-password"
            tables |= {"view": "rest", "rest": {"url": cluster.api_url(node), "user": API_USER, "password_file": str(password)}}
        return tables


BOTH = Shape("both", "agent and server on one machine (G23, G35)", (AGENT, SERVER))
_SINGLE = (
    Shape("server", "server only", (SERVER,)),
    Shape("agent-local", "agent only, its DBMS in the same group (G2, G24)", (DBMS, AGENT_LOCAL)),
    Shape("agent-remote", "agent only, its DBMS outside the cluster (G2); view by REST", (AGENT_REMOTE,), view="rest"),
)
_METADATA = (
    Shape("metadata", "server only, its metadata DB watched and shown (G44)", (SERVER,), metadata=True),
    Shape("metadata-managed", "server only, its metadata DB started and stopped as well (G44)", (METADATA, SERVER), metadata=True),
)
STANDBYS = Shape("standbys", "agent and server, two standbys; view by REST", (AGENT, SERVER), ("node1", "node2", "node3"), view="rest")
SHAPES = {shape.name: shape for shape in (BOTH, *_SINGLE, *_METADATA, STANDBYS)}
