"""Sites to render for: each shape of a cluster, on Windows and on Linux."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.clusterpro import sources
from orchestrator.rendering import Platform, Site, Target, site_of
from orchestrator.rendering.scripts import Files, supervised
from orchestrator.rendering.variables import in_whole_seconds
from statemachines.configuration import Configuration
from workers.messages import in_language

SHAPES = {
    "server": ("server",),
    "agent": ("agent",),
    "both": ("agent", "server"),
    "dbms": ("command", "agent", "server"),
}
"""Name of the shape -> kinds of its services, in start order; a service is called as its kind."""

ROOTS = {"windows": "C:\\DataCoordinatorRA", "linux": "/opt/dc"}
ENGLISH, JAPANESE = in_language("en"), in_language("ja")


@dataclass
class Recipe:
    """A dcsup.toml in the making."""

    shape: str = "both"
    platform: Platform = "windows"
    cluster: dict[str, Any] = field(default_factory=dict)
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Further settings of a service, by its kind."""
    node: dict[str, Any] = field(default_factory=dict)
    places: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Commands of a service on the node, by its kind."""

    def toml(self) -> str:
        cluster = {"mode": "supervise", "group": "failover1", "nodes": ["node1", "node2"], **self.cluster}
        services = [{"name": kind, "kind": kind, **self.services.get(kind, {})} for kind in SHAPES[self.shape]]
        places = {service["name"]: self._place(service["kind"]) for service in services}
        folder = "C:\\dcsup" if self.platform == "windows" else "/var/dcsup"
        node = {"name": "node1", "cluster": "pair", "folder": folder, **self.node, "services": places}
        tables = {"redis": {"url": "redis://localhost"}, "clusters": {"pair": {**cluster, "services": services}}, "node": node}
        return "\n".join(f"{name} = {_inline(table)}" for name, table in tables.items()) + "\n"

    def _place(self, kind: str) -> dict[str, Any]:
        root, dot = ROOTS[self.platform], ".bat" if self.platform == "windows" else ".sh"
        slash = "\\" if self.platform == "windows" else "/"
        names = {"command": ("start", "stop", "status")}.get(kind, ("command", "status"))
        return {name: [f"{root}{slash}{kind}{slash}{name}{dot}"] for name in names} | self.places.get(kind, {})

    def write(self, folder: Path) -> Path:
        file = folder / "dcsup.toml"
        file.write_text(self.toml(), encoding="utf-8")
        return file

    def target(self, **target: Any) -> Target:
        return Target(self.platform, **({"encoding": "cp932"} if self.platform == "windows" else {}) | target)

    def site(self, target: Target | None = None) -> Site:
        """With durations in whole seconds, as everything that renders wants it."""
        configuration = Configuration.model_validate(tomllib.loads(self.toml()))
        return in_whole_seconds(site_of(configuration), target or self.target())[0]

    def files(self, **target: Any) -> Files:
        wanted = self.target(**target)
        return supervised(self.site(wanted), wanted, sources(self.platform), in_language(wanted.language))


def _inline(value: object) -> str:
    """TOML's inline form of what JSON can say too."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_inline(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
