"""Rules that dcsup.toml alone can break, or with a look at where the group's disk is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import reduce
from pathlib import PurePath, PurePosixPath, PureWindowsPath

from orchestrator.checking.bound import Bound, start_bound, stop_bound
from orchestrator.checking.evidence import Evidence, Missing
from orchestrator.checking.rules import Hit, Rule, Source
from orchestrator.clpconf.model import DISKS
from orchestrator.said import Said, say
from statemachines.configuration import ServiceSettings

_VERBS = {
    "agent": {"start": "start", "start_after_failover": "recover", "stop": "stop", "stop_after_failover": "faststop"},
    "server": {"start": "recover", "start_after_failover": "recover", "stop": "faststop", "stop_after_failover": "faststop"},
}
"""G8-G15."""
_CONSEQUENCES = {
    "start": say("after it only schedules whose startup mode is automatic run (G6)"),
    "recover": say("after a faststop every schedule that ran goes on (G4), after a stop only the automatic ones (G5)"),
    "stop": say("it stops every schedule: a recover after it starts only the automatic ones again (G5)"),
    "faststop": say("it keeps the schedules' states: a recover after it lets those that ran go on (G4)"),
}
_POLL_INTERVAL_S = 10.0
"""G22."""


# --- paths --------------------------------------------------------------------------------------------------------------------------


def path_of(text: str) -> PurePath:
    """A path as the machine means it on which it is used, not the one that looks at it."""
    return PureWindowsPath(text) if re.match(r"[A-Za-z]:|\\\\", text) else PurePosixPath(text)


def is_root(path: PurePath) -> bool:
    """Whether it is the root of a drive."""
    return path.is_absolute() and path == type(path)(path.anchor)


def install_path(command: str) -> PurePath | None:
    """`C:\\DataCoordinatorRA` of `C:\\DataCoordinatorRA\\server\\bin\\dcserver.bat`; None: the command is not where the guide has it."""
    path = path_of(command)
    parts = [part.lower() for part in path.parts]
    return path.parents[2] if path.is_absolute() and parts[-2:-1] == ["bin"] and parts[-3:-2] in (["server"], ["agent"]) else None


def installs(evidence: Evidence) -> Iterator[tuple[str, PurePath]]:
    """The install path of each agent and server of this node.

    Raises:
        Missing: there is no [node] table, or a command that is no absolute path below server\\bin or agent\\bin.
    """
    node = evidence.need_node_settings()
    for _n, service in evidence.services("agent", "server"):
        place = node.services.get(service.name)
        path = install_path(place.command[0]) if place is not None and place.command else None
        if path is None:
            raise Missing(say("the install path of '{name}' cannot be told from its command", name=service.name))
        yield service.name, path


def volumes(evidence: Evidence) -> list[PurePath]:
    """The drives or mount points that move with the group."""
    known = [one.volume.value for one in evidence.resources(*DISKS) if one.volume.value]
    if not known:
        raise Missing(say("the CLUSTERPRO configuration does not tell the group's drive"))
    return [path_of(f"{volume}\\" if re.fullmatch(r"[A-Za-z]:", volume) else volume) for volume in known]


def is_on(path: PurePath, drives: Iterable[PurePath]) -> bool:
    return any(type(path) is type(drive) and path.is_relative_to(drive) for drive in drives)


# --- what rules find ----------------------------------------------------------------------------------------------------------------


def _no_standby(evidence: Evidence) -> Iterator[Hit]:
    nodes = evidence.need_settings().nodes
    if len(nodes) < 2:
        yield Hit(say("the cluster has one node, '{name}', and no standby", name=nodes[0]), evidence.at("nodes"))


def _databases_unsaid(evidence: Evidence) -> Iterator[Hit]:
    for n, service in evidence.services("agent"):
        if service.databases is None:
            where = evidence.at("services", n)
            raise Missing(
                say("whether a database of agent '{name}' is on its own server: `databases` ({where})", name=service.name, where=where)
            )
        if service.databases == "local" and not _has_dbms(evidence):
            yield Hit(
                say("agent '{name}' has local databases, and nothing in its group starts a DBMS", name=service.name),
                evidence.at("services", n),
            )


def _has_dbms(evidence: Evidence) -> bool:
    return bool(evidence.services("command")) or bool(evidence.resources("service"))


def _dbms_elsewhere(evidence: Evidence) -> Iterator[Hit]:
    local = [(n, one) for n, one in evidence.services("agent") if one.databases == "local"]
    if not local or evidence.services("command"):
        return
    dbms = {one.name for one in evidence.resources("service")}
    if dbms and not dbms.intersection(evidence.dcsup_resource().depends.value or ()):
        n, agent = local[0]
        found = say("the DBMS of agent '{name}' is started by a service resource, not where the agent is started", name=agent.name)
        yield Hit(found, evidence.at("services", n))


def _other_verbs(evidence: Evidence) -> Iterator[Hit]:
    for n, service in evidence.services("agent", "server"):
        for field, guided in _VERBS[service.kind].items():
            chosen = getattr(service.verbs, field)
            if chosen is not None and chosen != guided:
                yield Hit(_verb_said(service, field, chosen, guided), evidence.at("services", n, "verbs", field))


def _verb_said(service: ServiceSettings, field: str, chosen: str, guided: str) -> Said:
    values = {"name": service.name, "field": field, "chosen": chosen, "guided": guided, "consequence": _CONSEQUENCES[chosen]}
    if service.kind == "server":
        return say("'{name}': {field} is {chosen} instead of {guided}; {consequence}", **values)
    return say("'{name}': {field} is {chosen} instead of {guided}; what an agent's verbs do is taken by analogy: {consequence}", **values)


def _other_pace(evidence: Evidence) -> Iterator[Hit]:
    watch = evidence.need_settings().watch
    if watch.interval != _POLL_INTERVAL_S:
        yield Hit(
            say("dcstatus is polled every {interval} s; the guide's watch script polls every 10 s", interval=f"{watch.interval:g}"),
            evidence.at("watch"),
        )
    if watch.confirm > 1:
        yield Hit(
            say("{count} failed polls in a row are waited for; the guide acts on the first", count=watch.confirm), evidence.at("watch")
        )


def _install_in_root(evidence: Evidence) -> Iterator[Hit]:
    for name, path in installs(evidence):
        if is_root(path):
            yield Hit(say("'{name}' is installed in the root of a drive, {path}", name=name, path=path), evidence.at_node("services", name))


def _install_on_group_disk(evidence: Evidence) -> Iterator[Hit]:
    drives = volumes(evidence)
    for name, path in installs(evidence):
        if is_on(path, drives) and not is_root(path):
            yield Hit(say("'{name}' is installed in {path}, on the group's disk", name=name, path=path), evidence.at_node("services", name))


def _unsafe_path(path: str | None, what: Said, option: str) -> PurePath:
    if path is None:
        raise Missing(say("where {what} is: only a person knows ({option} PATH)", what=what, option=option))
    return path_of(path)


METADATA, SHARED = say("the metadata database"), say("the agent's shared folder")


def _metadata_path(evidence: Evidence) -> PurePath | None:
    """None: this cluster has no server."""
    return _unsafe_path(evidence.metadata_path, METADATA, "--metadata-path") if evidence.services("server") else None


def _shared_folder(evidence: Evidence) -> PurePath | None:
    return _unsafe_path(evidence.shared_folder, SHARED, "--shared-folder") if evidence.services("agent") else None


def _in_root(path: PurePath | None, what: Said) -> Iterator[Hit]:
    if path is not None and is_root(path):
        yield Hit(say("{what} is in the root of a drive, {path}", what=what, path=path))


def _off_disk(evidence: Evidence, path: PurePath | None, what: Said) -> Iterator[Hit]:
    if path is not None and not is_on(path, drives := volumes(evidence)):
        drive = ", ".join(map(str, drives))
        yield Hit(say("{what} is in {path}, not on the group's disk ({drive})", what=what, path=path, drive=drive))


def _same_place(evidence: Evidence) -> Iterator[Hit]:
    if not (evidence.services("agent") and evidence.services("server")):
        return
    metadata, shared = _metadata_path(evidence), _shared_folder(evidence)
    if metadata == shared:
        yield Hit(say("the metadata database and the agent's shared folder are both in {path}", path=metadata))


def _metadata_unwatched(evidence: Evidence) -> Iterator[Hit]:
    if evidence.services("server") and evidence.need_settings().metadata is None:
        yield Hit(say("the metadata database is not watched: there is no [clusters.{name}.metadata]", name=evidence.cluster), evidence.at())


def _exceeds(evidence: Evidence, bound: Bound, key: str) -> Iterator[Hit]:
    timeout_s = _timeout_s(evidence, bound)
    if bound.total_s >= timeout_s:
        parts = [say("{part}: {seconds} s", part=part.said, seconds=f"{part.seconds:g}") for part in bound.parts]
        together = reduce(lambda first, second: say("{first}; {second}", first=first, second=second), parts)
        values = {"script": bound.script, "total": f"{bound.total_s:g}", "timeout": f"{timeout_s:g}", "parts": together}
        yield Hit(say("the {script} script may take {total} s, CLUSTERPRO waits {timeout} s ({parts})", **values), evidence.at(key))


def _timeout_s(evidence: Evidence, bound: Bound) -> float:
    """CLUSTERPRO's own setting if it is known and shorter."""
    try:
        resource = evidence.dcsup_resource()
    except Missing:
        return bound.timeout_s
    theirs = resource.start_timeout.value if bound.script == "start" else resource.stop_timeout.value
    return min(bound.timeout_s, theirs) if theirs else bound.timeout_s


def _folder_moves(evidence: Evidence) -> Iterator[Hit]:
    folder = path_of(evidence.need_node_settings().folder)
    if is_on(folder, volumes(evidence)):
        yield Hit(say("the node folder {path} is on the group's disk", path=folder), evidence.at_node("folder"))


# --- the rules ----------------------------------------------------------------------------------------------------------------------

_CLP: tuple[Source, ...] = ("configuration", "clusterpro")

RULES: tuple[Rule, ...] = (
    Rule(
        "G1-standby", say("the cluster has at least one standby"), "error", ("configuration",),
        say("only one-way standby is supported: one active node and one or more standbys; without one nothing can fail over"),
        say("name every node of the group in `nodes`, in its order of priority"),
        _no_standby,
    ),
    Rule(
        "G2-databases", say("a DBMS on the agent's own server is in the agent's group"), "error", _CLP,
        say("a local DBMS that is not clustered with the agent stays behind when the agent fails over"),
        say("put the DBMS into the agent's group: as a `command` service before the agent, or as a resource"),
        _databases_unsaid,
    ),
    Rule(
        "G4-verbs", say("which verbs the site chose, and what they do to the schedules"), "information", ("configuration",),
        say("which schedules run after a start depends on the verbs of the last stop and of the start"),
        say("nothing, if it is meant; otherwise leave `verbs` out"),
        _other_verbs,
    ),
    Rule(
        "G22-pace", say("dcstatus is polled as the guide's watch script polls it"), "information", ("configuration",),
        say("it decides how soon CLUSTERPRO hears of a dead service, and how easily it acts"),
        say("nothing, if it is meant; otherwise leave `watch.interval` and `watch.confirm` out"),
        _other_pace,
    ),
    Rule(
        "G24-dbms", say("a local DBMS is started and stopped where its agent is"), "warning", _CLP,
        say("an agent whose DBMS is not up yet cannot connect; one whose DBMS is already down cannot end well"),
        say("make it a `command` service before the agent, or make the script resource depend on the service resource"),
        _dbms_elsewhere,
    ),
    Rule(
        "G27-root", say("the install path is not the root of a drive"), "error", ("configuration",),
        say("the guide forbids it"),
        say("install again into a folder, the same on every node"),
        _install_in_root,
    ),
    Rule(
        "G27-local", say("the install path is on a local partition"), "error", _CLP,
        say("on the standby the group's disk cannot be read, so nothing could be started or watched there"),
        say("install again on a local partition, the same path on every node"),
        _install_on_group_disk,
    ),
    Rule(
        "G29-root", say("the metadata database is not in the root of a drive"), "error", ("options",),
        say("the guide forbids it"),
        say("install it into a folder on the group's disk"),
        lambda evidence: _in_root(_metadata_path(evidence), METADATA),
    ),
    Rule(
        "G29-disk", say("the metadata database is on the group's disk"), "error", ("options", "clusterpro"),
        say("what is not on the group's disk is not there after a failover: schedules and their states would be lost"),
        say("install it into a folder on the group's disk, and choose 'already installed' on the standbys"),
        lambda evidence: _off_disk(evidence, _metadata_path(evidence), METADATA),
    ),
    Rule(
        "G34-root", say("the agent's shared folder is not in the root of a drive"), "error", ("options",),
        say("the guide forbids it"),
        say("install it into a folder on the group's disk"),
        lambda evidence: _in_root(_shared_folder(evidence), SHARED),
    ),
    Rule(
        "G34-disk", say("the agent's shared folder is on the group's disk"), "error", ("options", "clusterpro"),
        say("what is not on the group's disk cannot be handed over to the node that takes over"),
        say("install it into a folder on the group's disk, and choose the existing one on the standbys"),
        lambda evidence: _off_disk(evidence, _shared_folder(evidence), SHARED),
    ),
    Rule(
        "G35-same", say("metadata database and shared folder are in different places"), "error", ("options",),
        say("server and agent on the same machine would overwrite each other's files"),
        say("give each a folder of its own"),
        _same_place,
    ),
    Rule(
        "G44-metadata", say("the metadata database is watched"), "information", ("configuration",),
        say("a metadata database that is gone, or still holds the disk after a stop, would not be shown"),
        say("add the table `metadata`; dcsup watches service and port, and never starts or stops them"),
        _metadata_unwatched,
    ),
    Rule(
        "N-bound-start", say("the start script ends within CLUSTERPRO's script timeout, with dcsup in any state"), "error", _CLP,
        say("CLUSTERPRO ends a script that takes longer and counts it as failed"),
        say("lower start.deadline or both command_limits, or raise the script timeout in CLUSTERPRO and in `clusterpro.script_timeout`"),
        lambda evidence: _exceeds(evidence, start_bound(evidence.need_settings()), "start"),
    ),
    Rule(
        "N-bound-stop", say("the stop script ends within CLUSTERPRO's script timeout, with dcsup in any state"), "error", _CLP,
        say("a stop script that takes longer has failed for CLUSTERPRO, whose default then is to shut the operating system down"),
        say("lower stop.deadline or both command_limits, or raise the script timeout in CLUSTERPRO and in `clusterpro.script_timeout`"),
        lambda evidence: _exceeds(evidence, stop_bound(evidence.need_settings()), "stop"),
    ),
    Rule(
        "N-folder-moves", say("the node folder does not move with the group"), "error", _CLP,
        say("tickets and journal belong to one machine; where they move, two nodes could both think that a command is theirs"),
        say("set `folder` in [node] to a folder on a local disk"),
        _folder_moves,
    ),
)  # fmt: skip
