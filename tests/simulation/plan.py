"""What kind of cluster a seed is: nodes, services, settings. Times are longer than in earnest: everything here is looked at less often."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from statemachines.configuration import Configuration

CLUSTER, GROUP = "c", "g"
OLDER = 0.12
"""So many worlds have a node with scripts of an older configuration."""

_SERVICES: dict[str, list[dict[str, Any]]] = {
    "agent, server": [{"name": "agent", "kind": "agent"}, {"name": "server", "kind": "server"}],
    "server": [{"name": "server", "kind": "server"}],
    "agent": [{"name": "agent", "kind": "agent"}],
    "dbms, server": [{"name": "dbms", "kind": "command"}, {"name": "server", "kind": "server"}],
}


@dataclass(frozen=True)
class Plan:
    """What the dice chose before anything happens."""

    nodes: tuple[str, ...]
    services: str
    mode: Literal["supervise", "observe"]
    has_our_scripts: bool
    """CLUSTERPRO runs dcsup's scripts, and not the guide's own. In mode observe a site may have either."""
    orchestrators: int
    rounds: int
    older_scripts: str
    """The node whose scripts are of an older dcsup.toml, in which the services stood in another order; mostly none."""
    configuration: dict[str, Any]

    @classmethod
    def of(cls, dice: Random) -> Plan:
        nodes = ("n1", "n2", "n3")[: dice.choices((2, 3), (4, 1))[0]]
        services = dice.choices(tuple(_SERVICES), (5, 3, 2, 2))[0]
        mode: Literal["supervise", "observe"] = "observe" if dice.random() < 0.08 else "supervise"
        ours = mode == "supervise" or dice.random() < 0.25
        orchestrators, rounds = dice.choices((1, 2, 3), (2, 5, 1))[0], dice.randint(2, 5)
        settings = _settings(dice, nodes, services, mode)
        older = dice.choice(nodes) if mode == "supervise" and dice.random() < OLDER else ""
        return cls(nodes, services, mode, ours, orchestrators, rounds, older, settings)

    def configuration_of(self, node: str) -> Configuration:
        """The whole dcsup.toml of one machine."""
        names = [service["name"] for service in _SERVICES[self.services]]
        paths = {name: _commands(name, kind) for name, kind in zip(names, self._kinds(), strict=True)}
        table = {
            "name": node, "cluster": CLUSTER, "folder": f"/{node}/dcsup", "services": paths, "probe": ["probe"], "clpstat": ["clpstat"],
            "clpgrp": ["clpgrp"], "view_interval": 60.0 if self.mode == "supervise" else 8.0,
        }  # fmt: skip
        return Configuration.model_validate({**self.configuration, "node": table})

    def _kinds(self) -> list[str]:
        return [service["kind"] for service in _SERVICES[self.services]]

    def __str__(self) -> str:
        scripts = "" if self.has_our_scripts else " (guide's scripts)"
        scripts += f", older scripts on {self.older_scripts}" if self.older_scripts else ""
        centre = f"{self.orchestrators} orchestrator(s), {self.rounds} rounds"
        return f"{len(self.nodes)} nodes, {self.services}, {self.mode}{scripts}, {centre}"


def _commands(name: str, kind: str) -> dict[str, Any]:
    verbs = {"start": ["dc", name, "start"], "stop": ["dc", name, "stop"]} if kind == "command" else {"command": ["dc", name]}
    return {**verbs, "status": ["dcstatus", name]}


def _settings(dice: Random, nodes: tuple[str, ...], services: str, mode: str) -> dict[str, Any]:
    settle_s = dice.choice((2.0, 2.0, 2.0, 20.0))
    cluster = {
        "mode": mode, "group": GROUP, "nodes": list(nodes), "services": _SERVICES[services], "ack_timeout": 8.0, "node_ttl": 24.0,
        "takeover_deadline": 90.0, "suspicion_deadline": dice.choice((60.0, 120.0)), "probation": 8.0,
        "watch": {
            "interval": 16.0, "poll_limit": 10.0, "first_check_after": 1.0, "startup_interval": 2.0,
            "verify_confirm": dice.choice((1, 2)), "confirm": dice.choice((1, 1, 2)), "unknown_confirm": dice.choice((None, 2)),
        },
        "start": {"command_limit": 30.0, "deadline": 90.0},
        "stop": {"command_limit": 30.0, "deadline": 90.0, "report_failure": dice.random() < 0.1},
        "schedules": {"probe_interval": 60.0, "settle": settle_s, "deadline": settle_s + 18.0},
        "clusterpro": {"script_timeout": 200.0},
    }  # fmt: skip
    return {"redis": {"url": "redis://world"}, "orchestrator": {"lease_ttl": 15.0, "snapshot_every": 100}, "clusters": {CLUSTER: cluster}}
