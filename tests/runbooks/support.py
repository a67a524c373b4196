"""Clusters of each shape, and eyes that see what a test says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.runbooks.plans import DrillKind, Shape, plan
from orchestrator.runbooks.steps import Step
from orchestrator.runbooks.verifying import Case, Finding, State, verify
from orchestrator.said import say
from statemachines.configuration import ClusterSettings

SERVER = {"name": "server", "kind": "server"}
AGENT = {"name": "agent", "kind": "agent"}
DBMS = {"name": "dbms", "kind": "command"}

SERVICES: dict[str, list[dict[str, Any]]] = {
    "server": [SERVER],
    "agent-local": [DBMS, {**AGENT, "databases": "local"}],
    "agent-remote": [{**AGENT, "databases": "remote"}],
    "agent-unsaid": [AGENT],
    "both": [{**AGENT, "databases": "remote"}, SERVER],
}
"""Every shape of a cluster."""

FITTING = {
    "install-server": ("server", "both"),
    "install-agent": ("agent-local", "agent-remote", "agent-unsaid", "both"),
    "register-agent": ("agent-local", "agent-remote", "agent-unsaid", "both"),
    "uninstall-server": ("server", "both"),
    "uninstall-agent": ("agent-local", "agent-remote", "agent-unsaid", "both"),
    "drill": tuple(SERVICES),
}
"""Runbook -> the shapes that it is for."""

EVERY = [(name, shape, standbys) for name, shapes in FITTING.items() for shape in shapes for standbys in (1, 2, 3)]
"""Every runbook for every shape that it fits, with one to three standbys."""


def shape_of(services: str, standbys: int = 1, **changes: Any) -> Shape:
    nodes = [f"node{n}" for n in range(1, standbys + 2)]
    given = {"group": "failover1", "nodes": nodes, "services": SERVICES[services]}
    return Shape("pair", ClusterSettings.model_validate(given | changes))


def steps_of(name: str, services: str, standbys: int = 1, drill: DrillKind = "move", **changes: Any) -> list[Step]:
    return plan(name, shape_of(services, standbys, **changes), drill)


def ids(steps: list[Step]) -> list[str]:
    return [step.id for step in steps]


def step_of(steps: list[Step], wanted: str) -> Step:
    return next(step for step in steps if step.id == wanted)


@dataclass
class TestEyes:
    """orchestrator.runbooks.verifying.Eyes: sees what it is given, and nothing by itself."""

    __test__ = False

    node: str | None = None
    known_state: State | None = None
    group_on: tuple[str, ...] | None = None
    boot_id: str | None = None
    services: Mapping[str, str] | None = None
    ports: set[int] | None = None
    files: Mapping[str, bool | None] = field(default_factory=dict)
    programs: Mapping[str, str] = field(default_factory=dict)
    checked: Finding = field(default_factory=lambda: Finding("yes", (say("fine"),)))

    def state(self) -> State | None:
        return self.known_state

    def active(self) -> tuple[str, ...] | None:
        return self.group_on

    def boot(self) -> str | None:
        return self.boot_id

    def startups(self) -> Mapping[str, str] | None:
        return self.services

    def listening(self, port: int) -> bool | None:
        return None if self.ports is None else port in self.ports

    def there(self, path: str) -> bool | None:
        return self.files.get(path)

    def program(self, service: str) -> str | None:
        return self.programs.get(service)

    def check(self, metadata_path: str | None, shared_folder: str | None) -> Finding:
        return self.checked


def look(
    step: Step,
    shape: Shape,
    eyes: TestEyes,
    values: Mapping[str, str] | None = None,
    before: Mapping[str, Any] | None = None,
    seen: Mapping[str, Mapping[str, Any]] | None = None,
) -> Finding:
    return verify(Case(step, shape, values or {}, before or {}, seen or {}, eyes))


def words(finding: Finding) -> str:
    return "; ".join(map(str, finding.said))
