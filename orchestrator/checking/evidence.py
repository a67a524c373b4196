"""What is known of an installation, as plain data: rules ask through `need_*`, and what is not there makes the answer `unknown`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.clpconf.exported import Exported, Script
from orchestrator.clpconf.model import SCRIPTS, Group, Resource, Value
from orchestrator.clpconf.naming import legal_name
from orchestrator.said import Said, say
from orchestrator.tomllines import Path as KeyPath
from orchestrator.tomllines import nearest
from statemachines.configuration import ClusterSettings, Configuration, NodeSettings, ServiceSettings

_SAVED_SIZE_MAX = 1_000_000


class Missing(Exception):
    """A rule cannot be judged: `said` is what would have to be known."""

    def __init__(self, said: Said) -> None:
        super().__init__(str(said))
        self.said = said


class Unusable(Exception):
    """A file with a node's evidence cannot be used; `said` is why."""

    def __init__(self, said: Said) -> None:
        super().__init__(str(said))
        self.said = said


@dataclass(frozen=True)
class NodeEvidence:
    """What a node showed (workers/inspection.py); every look may be missing. Read through `look`, for the data may come from a file."""

    name: str
    cluster: str
    looks: Mapping[str, Any] = field(default_factory=dict)

    def look(self, *path: str) -> Any:
        """What stands at a path; None: not known."""
        found: Any = self.looks
        for key in path:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found


def node_evidence(data: Mapping[str, Any]) -> NodeEvidence:
    return NodeEvidence(
        str(data["name"]), str(data["cluster"]), {key: value for key, value in data.items() if key not in ("name", "cluster")}
    )


def saved_evidence(path: str | Path) -> NodeEvidence:
    """A node's evidence as `dcsup check --node --save FILE` wrote it.

    Raises:
        Unusable: it cannot be read, or is something else.
    """
    try:
        with Path(path).open("rb") as file:
            data = json.loads(file.read(_SAVED_SIZE_MAX))
    except OSError as error:
        raise Unusable(say("the file cannot be read ({reason})", reason=error.strerror or type(error).__name__)) from None
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict) or not isinstance(data.get("name"), str) or not isinstance(data.get("cluster"), str):
        raise Unusable(say("this is not what `dcsup check --node --save` wrote"))
    return node_evidence(data)


@dataclass(frozen=True)
class Evidence:
    """Everything about one cluster. None, or empty: not gathered."""

    cluster: str = ""
    settings: ClusterSettings | None = None
    node_settings: NodeSettings | None = None
    """The [node] table, if it is of this cluster."""
    whole: Configuration | None = None
    """The whole file, for what belongs to no cluster."""
    config_file: str = ""
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    exported: Exported | None = None
    nodes: tuple[NodeEvidence, ...] = ()
    metadata_path: str | None = None
    """Where the metadata DB lies; only a person knows (G29)."""
    shared_folder: str | None = None
    """The agent's shared folder; only a person knows (G34)."""

    # configuration

    def need_settings(self) -> ClusterSettings:
        if self.settings is None:
            raise Missing(say("no dcsup.toml was read"))
        return self.settings

    def need_node_settings(self) -> NodeSettings:
        if self.node_settings is None:
            raise Missing(say("dcsup.toml has no [node] table for this cluster"))
        return self.node_settings

    def need_whole(self) -> Configuration:
        if self.whole is None:
            raise Missing(say("no dcsup.toml was read"))
        return self.whole

    def services(self, *kinds: str) -> list[tuple[int, ServiceSettings]]:
        """With their place in the list."""
        return [(n, one) for n, one in enumerate(self.need_settings().services) if one.kind in kinds]

    def at(self, *where: str | int) -> str:
        """`dcsup.toml:12 nodes`: a place in the cluster's table."""
        return self._in_file(("clusters", self.cluster, *where))

    def at_node(self, *where: str | int) -> str:
        return self._in_file(("node", *where))

    def at_top(self, *where: str | int) -> str:
        return self._in_file(where)

    def _in_file(self, where: KeyPath) -> str:
        from orchestrator.settings import dotted

        return f"{self.config_file}:{nearest(self.lines, where)} {dotted(where)}"

    # CLUSTERPRO

    def need_exported(self) -> Exported:
        if self.exported is None:
            raise Missing(say("no CLUSTERPRO configuration was given (--clp-conf)"))
        return self.exported

    def need_group(self) -> Group:
        """The group that is supervised, as CLUSTERPRO has it."""
        exported, wanted = self.need_exported(), None if self.settings is None else self.settings.group_there
        if wanted is None:
            groups = [group for group in exported.conf.groups if exported.conf.of_group(group, *SCRIPTS)]
            if len(groups) == 1:
                return groups[0]
            raise Missing(say("without a dcsup.toml it is not known which group is meant"))
        found = [group for group in exported.conf.groups if wanted.lower() in (group.name.lower(), legal_name(group.name, ""))]
        if not found:
            raise Missing(say("the CLUSTERPRO configuration has no group '{name}'", name=wanted))
        return found[0]

    def resources(self, *types: str) -> tuple[Resource, ...]:
        return self.need_exported().conf.of_group(self.need_group(), *types)

    def need_scripts(self) -> tuple[Script, ...]:
        """The scripts of the group's resources."""
        scripts = self.need_exported().scripts
        if scripts is None:
            raise Missing(
                say("the scripts are not beside the CLUSTERPRO configuration; give the whole folder that `clpcfctrl --pull` writes")
            )
        group = self.need_group().name.lower()
        return tuple(script for script in scripts if script.group.lower() == group)

    def dcsup_resource(self) -> Resource:
        """The script resource that starts and stops the services: the one that calls dcsup, or the only one."""
        found = self.resources(*SCRIPTS)
        if len(found) > 1:
            calling = {script.resource.lower() for script in self.need_scripts() if script.calls_dcsup}
            found = tuple(one for one in found if one.name.lower() in calling)
        if len(found) != 1:
            raise Missing(say("it is not known which script resource starts the services"))
        return found[0]

    def in_clp_conf(self, place: object) -> str:
        return f"{self.need_exported().path}: {place}"

    # nodes

    def need_nodes(self) -> tuple[NodeEvidence, ...]:
        if not self.nodes:
            raise Missing(say("no node was looked at (--node on the node itself, or --evidence FILE)"))
        return self.nodes


def known(value: Value[Any], what: Said) -> Any:
    """A setting's value.

    Raises:
        Missing: neither the file nor the documentation tells it.
    """
    if not value.known or value.value is None:
        raise Missing(say("the CLUSTERPRO configuration does not tell {what}, and its default is not certain", what=what))
    return value.value
