"""Rules about the nodes themselves, from what `dcsup check --node` saw on each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from orchestrator.checking.evidence import Evidence, Missing, NodeEvidence
from orchestrator.checking.of_configuration import install_path
from orchestrator.checking.rules import Hit, Rule, Source
from orchestrator.said import Said, say

SKEW_REFUSED_S, SKEW_WARNED_S = 5.0, 1.0
"""Facts that are further ahead of Redis's clock are quarantined (DESIGN.md, "Clock")."""
_NODE_CALLS: tuple[Source, ...] = ("node",)


# --- several nodes ------------------------------------------------------------------------------------------------------------------


def each(evidence: Evidence, what: Said, look: Callable[[NodeEvidence], Any]) -> Iterator[tuple[NodeEvidence, Any]]:
    """What each node showed; a node that did not show it makes the answer unknown, after the others were judged."""
    blind = []
    for node in evidence.need_nodes():
        seen = look(node)
        if seen is None:
            blind.append(node.name or "-")
        else:
            yield node, seen
    if blind:
        raise Missing(say("{what} on {nodes}", what=what, nodes=", ".join(blind)))


def _differ(evidence: Evidence, what: Said, look: Callable[[NodeEvidence], Any]) -> dict[str, Any]:
    """What differs, by node; empty: all the same.

    Raises:
        Missing: fewer than two nodes showed it, or not all nodes of the cluster did and the others agree.
    """
    seen = {node.name: value for node, value in each(evidence, what, look)}
    if len({repr(value) for value in seen.values()}) > 1:
        return seen
    expected = evidence.settings.nodes if evidence.settings is not None else ()
    others = [name for name in expected if name not in seen]
    if len(seen) < 2 or others:
        raise Missing(say("{what} on the other nodes ({nodes}): --evidence FILE", what=what, nodes=", ".join(others) or "-"))
    return {}


def _truth(node: NodeEvidence, *path: str) -> bool | None:
    """Yes or no; None: neither, as in a file that somebody edited."""
    seen = node.look(*path)
    return seen if isinstance(seen, bool) else None


def _table(node: NodeEvidence, *path: str) -> dict[str, Any] | None:
    """What is known of each of several things; None: of none."""
    seen = node.look(*path)
    return seen if isinstance(seen, dict) and seen else None


def _in_words(seen: dict[str, Any]) -> str:
    return ", ".join(f"{node}: {value}" for node, value in seen.items())


def _paths(node: NodeEvidence) -> str | None:
    commands = _table(node, "commands")
    if commands is None:
        return None
    paths = [one.get("path") for _name, one in sorted(commands.items()) if isinstance(one, dict)]
    return ", ".join(str(install_path(str(path)) or path) for path in paths)


def _paths_differ(evidence: Evidence) -> Iterator[Hit]:
    if seen := _differ(evidence, say("the install path"), _paths):
        yield Hit(say("the install paths differ: {seen}", seen=_in_words(seen)))


def _metadata_service(evidence: Evidence) -> str | None:
    """Name of the service; None: this cluster has no server."""
    if not evidence.services("server"):
        return None
    metadata = evidence.need_settings().metadata
    if metadata is None:
        raise Missing(say("the metadata database's service: there is no [clusters.{name}.metadata]", name=evidence.cluster))
    return metadata.service


def _accounts_differ(evidence: Evidence) -> Iterator[Hit]:
    service = _metadata_service(evidence)
    if service is not None and (seen := _differ(evidence, say("the metadata database's account"), lambda node: _account(node, service))):
        yield Hit(say("the metadata database runs under different accounts: {seen}", seen=_in_words(seen)))


def _account(node: NodeEvidence, service: str) -> str | None:
    """Without the machine's own name before it: a local account has the same name on every node (G30)."""
    account = node.look("services", service, "account")
    if not isinstance(account, str):
        return None
    domain, _, name = account.rpartition("\\")
    return name.lower() if domain.lower() in ("", ".", node.name.lower()) else account.lower()


def _versions_differ(evidence: Evidence) -> Iterator[Hit]:
    if seen := _differ(evidence, say("dcsup's version"), lambda node: node.look("versions", "dcsup")):
        yield Hit(say("the versions of dcsup differ: {seen}", seen=_in_words(seen)))


# --- each node ----------------------------------------------------------------------------------------------------------------------


def _port_taken(evidence: Evidence) -> Iterator[Hit]:
    service = _metadata_service(evidence)
    if service is None:
        return
    metadata = evidence.need_settings().metadata
    for node, (listening, running) in each(
        evidence, say("who has the metadata database's port"), lambda node: _port_and_service(node, service)
    ):
        if listening and not running:
            port = metadata.port if metadata is not None else "-"
            found = say("{node}: another application has port {port}; the metadata database does not run", node=node.name, port=port)
            yield Hit(found, node.name)


def _port_and_service(node: NodeEvidence, service: str) -> tuple[bool, bool] | None:
    listening = _truth(node, "metadata_listening")
    if listening is False:
        return False, False
    state, running = node.look("services", service, "state"), _truth(node, "metadata_running")
    runs = running if running is not None else state == "running" if state is not None else None
    return None if listening is None or runs is None else (True, runs)


def _starts_by_itself(evidence: Evidence) -> Iterator[Hit]:
    for node, services in each(evidence, say("how DataCoordinator's services start"), lambda node: _table(node, "services")):
        for name, service in sorted(services.items()):
            startup = service.get("startup") if isinstance(service, dict) else None
            if startup in ("auto", "disabled"):
                yield Hit(say("{node}: service '{name}' is set to {startup}", node=node.name, name=name, startup=startup), node.name)


def _silent_endpoints(evidence: Evidence) -> Iterator[Hit]:
    if not evidence.need_settings().endpoints:
        raise Missing(say("at which address clients reach the services: [[clusters.{name}.endpoints]]", name=evidence.cluster))
    for node, endpoints in each(evidence, say("whether the endpoints answer"), lambda node: _table(node, "endpoints")):
        for name, answers in sorted(endpoints.items()):
            if answers is False:
                yield Hit(say("{node}: endpoint '{name}' does not answer", node=node.name, name=name), node.name)


def _bad_folder(evidence: Evidence) -> Iterator[Hit]:
    for node, local in each(evidence, say("whether the node folder is on a local disk"), lambda node: _truth(node, "folder", "local")):
        if not local:
            yield Hit(say("{node}: the node folder is on another machine's disk", node=node.name), node.name)


def _locked_folder(evidence: Evidence) -> Iterator[Hit]:
    for node, writable in each(evidence, say("whether the node folder can be written"), lambda node: _truth(node, "folder", "writable")):
        if not writable:
            yield Hit(say("{node}: this user cannot write the node folder", node=node.name), node.name)


def _lacks_commands(evidence: Evidence) -> Iterator[Hit]:
    for node, commands in each(evidence, say("whether the services' commands are there"), lambda node: _table(node, "commands")):
        for name, command in sorted(commands.items()):
            if isinstance(command, dict) and command.get("exists") is False:
                values = {"node": node.name, "name": name, "path": command.get("path", "-")}
                yield Hit(say("{node}: the command of '{name}' is not there: {path}", **values), node.name)


def _lacks_tools(evidence: Evidence) -> Iterator[Hit]:
    for node, tools in each(evidence, say("whether CLUSTERPRO's commands are there"), lambda node: _table(node, "tools")):
        lacking = sorted(name for name, there in tools.items() if not there)
        if lacking:
            yield Hit(say("{node}: not found: {names}", node=node.name, names=", ".join(lacking)), node.name)


def _not_callable(evidence: Evidence) -> Iterator[Hit]:
    for node, called in each(evidence, say("whether dcsup can be called"), lambda node: _truth(node, "dcsup", "callable")):
        if not called:
            yield Hit(say("{node}: `dcsup` in [node] does not run, or does not answer as a hook", node=node.name), node.name)


def _silent_redis(evidence: Evidence) -> Iterator[Hit]:
    for node, reachable in each(evidence, say("whether Redis answers"), lambda node: _truth(node, "redis", "reachable")):
        if not reachable:
            why = node.look("redis", "why") or "-"
            yield Hit(say("{node}: Redis does not answer ({why})", node=node.name, why=why), node.name)


def _wrong_clock(evidence: Evidence) -> Iterator[Hit]:
    for node, skew_s in each(evidence, say("how far the clock is from Redis's"), _skew_s):
        if abs(skew_s) > SKEW_WARNED_S:
            found = say("{node}: the clock is {skew} s off the one of Redis", node=node.name, skew=f"{skew_s:+.1f}")
            yield Hit(found, node.name, "error" if abs(skew_s) > SKEW_REFUSED_S else "warning")


def _skew_s(node: NodeEvidence) -> float | None:
    skew_s = node.look("redis", "clock_s")
    return float(skew_s) if type(skew_s) in (int, float) and math.isfinite(skew_s) else None


# --- the rules ----------------------------------------------------------------------------------------------------------------------

RULES: tuple[Rule, ...] = (
    Rule(
        "G27-same", say("the install path is the same on every node"), "error", _NODE_CALLS,
        say("scripts and settings that are the same on every node would not find the commands"),
        say("install again where it differs"),
        _paths_differ,
    ),
    Rule(
        "G30-account", say("the metadata database's account has the same name on every node"), "error", _NODE_CALLS,
        say("files on the group's disk belong to the account; another one may not open them after a failover"),
        say("install again with the same account, or a domain account"),
        _accounts_differ,
    ),
    Rule(
        "G31-port", say("the metadata database's port is free of other applications"), "error", _NODE_CALLS,
        say("the metadata database cannot start where another application has its port"),
        say("find who listens on it (netstat -ano) and give one of them another port"),
        _port_taken,
    ),
    Rule(
        "G33-manual", say("DataCoordinator's services start manually"), "error", _NODE_CALLS,
        say("only the cluster starts them; one that starts with the machine runs on the standby, without its data"),
        say("set it to manual: sc config NAME start= demand"),
        _starts_by_itself,
    ),
    Rule(
        "G36-answers", say("clients reach the services at the floating IP"), "warning", _NODE_CALLS,
        say("server, agents and Manager connect to it; while the group runs it must answer"),
        say("see whether the group is up, and whether host and port in `endpoints` are those of the installer (G28)"),
        _silent_endpoints,
    ),
    Rule(
        "N-folder-local", say("the node folder is on a disk of the machine"), "error", _NODE_CALLS,
        say("scripts wait for what they write there; a network drive that hangs would hang a failover"),
        say("set `folder` in [node] to a folder on a local disk"),
        _bad_folder,
    ),
    Rule(
        "N-folder-writable", say("the node folder can be written"), "error", _NODE_CALLS,
        say("without tickets every script runs the plain sequence"),
        say("give the user that runs dcsup and CLUSTERPRO's scripts the right to write it"),
        _locked_folder,
    ),
    Rule(
        "N-commands", say("the services' commands are there"), "error", _NODE_CALLS,
        say("a start that does not find its command fails"),
        say("correct [node.services] in dcsup.toml"),
        _lacks_commands,
    ),
    Rule(
        "N-dcsup", say("the scripts can call dcsup"), "error", _NODE_CALLS,
        say("the scripts would always run the plain sequence"),
        say("set `dcsup` in [node] to the whole path of the program, and try: dcsup hook start (it answers 75)"),
        _not_callable,
    ),
    Rule(
        "N-redis", say("the node reaches Redis"), "error", _NODE_CALLS,
        say("without it no command comes from dcsup: every script waits for ack_timeout and runs the plain sequence"),
        say("see whether Redis runs, and whether address, password and firewall let this node reach it"),
        _silent_redis,
    ),
    Rule(
        "N-clock", say("the node's clock agrees with Redis's"), "warning", _NODE_CALLS,
        say("times in reports would be wrong, and facts that come from more than 5 s ahead are refused"),
        say("let the machines take their time from the same source (NTP)"),
        _wrong_clock,
    ),
    Rule(
        "N-versions", say("dcsup is the same version on every node"), "warning", _NODE_CALLS,
        say("after a failover another version would judge"),
        say("install the same version everywhere"),
        _versions_differ,
    ),
    Rule(
        "C-tools", say("CLUSTERPRO's commands are found"), "warning", _NODE_CALLS,
        say("the scripts write to the cluster log, broadcast and wait with them, and dcsup asks for the cluster's view"),
        say("set `clp_bin`, `clpstat` and `clpgrp` in [node]"),
        _lacks_tools, "seen",
    ),
)  # fmt: skip
