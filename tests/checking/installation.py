"""An installation against which no rule has anything to say, and ways to change one thing in it."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from orchestrator.checking.evidence import Evidence, NodeEvidence
from orchestrator.clpconf.exported import Exported, Script
from orchestrator.clpconf.parsing import parse
from statemachines.configuration import Configuration
from tests.clpconf.sample import sample

META = "DataCoordinatorRA Meta DB server"
SETTINGS: dict[str, Any] = {
    "redis": {"url": "rediss://redis.example:6379/0"},
    "clusters": {
        "pair": {
            "mode": "supervise",
            "group": "failover1",
            "nodes": ["nodea", "nodeb"],
            "services": [{"name": "agent", "kind": "agent", "databases": "remote"}, {"name": "server", "kind": "server"}],
            "metadata": {"service": META},
            "endpoints": [{"name": "server", "host": "10.0.0.9", "port": 22100, "service": "server"}],
        }
    },
    "node": {
        "name": "nodea",
        "cluster": "pair",
        "folder": "C:\\ProgramData\\dcsup",
        "key": {"file": "C:\\ProgramData\\dcsup\\node.key"},
        "rest": {"url": "https://nodea:29009", "user": "monitor", "password_file": "C:\\ProgramData\\dcsup\\rest.txt"},
        "services": {
            "agent": {
                "command": ["C:\\DataCoordinatorRA\\agent\\bin\\dcagent.bat"],
                "status": ["C:\\DataCoordinatorRA\\agent\\bin\\dcstatus.bat"],
            },
            "server": {
                "command": ["C:\\DataCoordinatorRA\\server\\bin\\dcserver.bat"],
                "status": ["C:\\DataCoordinatorRA\\server\\bin\\dcstatus.bat"],
            },
        },
    },
}
TRUSTED = {"settings": "C:\\dcsup\\dcsup.toml", "folder": "C:\\ProgramData\\dcsup", "secret": "C:\\dcsup\\node.key"}
SCRIPT = Script("failover1", "script1", True, (("agent", ""), ("server", "")))


def changed(data: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one value set at `a.b.0.c`, or removed (None)."""
    data = copy.deepcopy(data)
    *above, last = path.split(".")
    holder: Any = data
    for key in above:
        holder = holder[int(key)] if isinstance(holder, list) else holder.setdefault(key, {})
    if value is None:
        del holder[last]
    elif isinstance(holder, list):
        holder[int(last)] = value
    else:
        holder[last] = value
    return data


def looks() -> dict[str, Any]:
    """What a node shows on which all is well."""
    services = {META: {"startup": "manual", "account": ".\\necsys", "state": "stopped"}, "DataCoordinatorServer": {"startup": "manual"}}
    node = SETTINGS["node"]["services"]
    return {
        "system": "windows",
        "versions": {"python": "3.11.2", "dcsup": "0.1.0"},
        "folder": {"exists": True, "writable": True, "local": True},
        "commands": {name: {"path": place["command"][0], "exists": True} for name, place in node.items()},
        "tools": {"clplogcmd": True, "armsleep": True, "armbcast": True, "clpstat": True, "clpgrp": True},
        "dcsup": {"callable": True, "code": 75},
        "services": services,
        "metadata_listening": False,
        "endpoints": {"server": True},
        "redis": {"reachable": True, "clock_s": 0.02},
        "permissions": [
            {"path": path, "kind": kind, "writers": [], "readers": ["Users"] if kind != "secret" else []} for kind, path in TRUSTED.items()
        ],
    }


def installation(
    *,
    settings: tuple[tuple[str, Any], ...] = (),
    conf: tuple[tuple[str, str], ...] = (),
    scripts: tuple[Script, ...] | None = (SCRIPT,),
    second: tuple[tuple[str, Any], ...] = (),
    **fields: Any,
) -> Evidence:
    """The clean installation with changes: in the configuration, in clp.conf, in what the second node shows, in the evidence itself."""
    data = SETTINGS
    for path, value in settings:
        data = changed(data, path, value)
    seen = looks()
    for path, value in second:
        seen = changed(seen, path, value)
    configuration = Configuration.model_validate(data)
    evidence = Evidence(
        cluster="pair",
        settings=configuration.clusters["pair"],
        node_settings=configuration.node,
        whole=configuration,
        config_file="dcsup.toml",
        exported=Exported(parse(sample(*conf)), "clp.conf", scripts),
        nodes=(NodeEvidence("nodea", "pair", looks()), NodeEvidence("nodeb", "pair", seen)),
        metadata_path="E:\\meta",
        shared_folder="E:\\shared",
    )
    return replace(evidence, **fields)
