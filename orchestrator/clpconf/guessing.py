"""From CLUSTERPRO's configuration to what a dcsup.toml could say.

CLUSTERPRO knows groups, resources and scripts; it does not know DataCoordinator. What is read is taken; what is concluded is a guess and
carries its reason; what nobody can know from the file is listed, so that a person fills it in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import Literal

from orchestrator.clpconf.exported import Exported, Script
from orchestrator.clpconf.model import DISKS, SCRIPTS, Group, Resource
from orchestrator.clpconf.naming import legal_name, node_names
from orchestrator.clpconf.reading import ClpConfError
from orchestrator.said import Said, say

Kind = Literal["agent", "server"]
DEFAULT_FOLDER = PureWindowsPath("C:\\DataCoordinatorRA")
"""G27's default install path."""


@dataclass(frozen=True)
class Service:
    kind: Kind
    command: str
    status: str
    why: Said
    """Why this service, and where its commands were found or assumed."""


@dataclass(frozen=True)
class Draft:
    """What the file will say."""

    cluster: str
    group: str
    group_there: str
    nodes: dict[str, str]
    """CLUSTERPRO's host name -> dcsup's node name, in priority order."""
    order_said: Said
    node: str
    node_said: Said
    services: tuple[Service, ...]
    addresses: tuple[tuple[str, str], ...]
    """Floating IPs: address, resource."""
    script_timeout_s: float
    timeout_said: Said
    windows: bool
    unknown: tuple[Said, ...]
    renamed: tuple[Said, ...]


def draft(exported: Exported, cluster: str | None = None, group: str | None = None, node: str | None = None) -> Draft:
    """The draft of a dcsup.toml.

    Args:
        cluster: dcsup's name for the cluster; None: made of CLUSTERPRO's.
        group: CLUSTERPRO's name of the failover group; None: the only one that can be meant.
        node: host name, or node name, of the machine that the [node] table is for; None: the first.

    Raises:
        ClpConfError: there is no such group or node, no server, or it must be said which group is meant.
    """
    chosen = _group(exported, group)
    hosts = _hosts(exported, chosen)
    nodes = node_names(hosts)
    own, own_said = _own_node(nodes, node)
    scripts = [one for one in exported.conf.of_group(chosen) if one.type in SCRIPTS]
    timeout_s, timeout_said = _script_timeout(scripts)
    name = legal_name(cluster or exported.conf.cluster, "cluster1")
    return Draft(
        cluster=name,
        group=legal_name(chosen.name, "failover1"),
        group_there=chosen.name,
        nodes=nodes,
        order_said=_order_said(chosen),
        node=own,
        node_said=own_said,
        services=_services(exported, chosen),
        addresses=tuple((one.address.value, one.name) for one in exported.conf.of_group(chosen, "fip") if one.address.value),
        script_timeout_s=timeout_s,
        timeout_said=timeout_said,
        windows=exported.conf.os != "linux",
        unknown=tuple(_unknown(exported, chosen)),
        renamed=tuple(_renamed(chosen, nodes, {cluster or exported.conf.cluster or "-": name})),
    )


# --- group and nodes ----------------------------------------------------------------------------------------------------------------


def _group(exported: Exported, wanted: str | None) -> Group:
    conf = exported.conf
    known = ", ".join(group.name for group in conf.groups)
    if wanted is not None:
        found = conf.group(wanted)
        if found is None:
            raise ClpConfError(say("there is no group '{name}' in the file; it has: {known}", name=wanted, known=known or "-"))
        return found
    fitting = [group for group in conf.groups if conf.of_group(group, *SCRIPTS)] or list(conf.groups)
    calling = {script.group.lower() for script in exported.scripts or () if script.commands}
    meant = [group for group in fitting if group.name.lower() in calling] or fitting
    if not meant:
        raise ClpConfError(say("the file has no failover group"))
    if len(meant) > 1:
        names = ", ".join(group.name for group in meant)
        raise ClpConfError(say("several groups can be meant ({names}); say which with --group", names=names))
    return meant[0]


def _hosts(exported: Exported, group: Group) -> list[str]:
    hosts = list(group.order) or [server.name for server in exported.conf.servers]
    if not hosts:
        raise ClpConfError(say("the file names no server"))
    return hosts


def _order_said(group: Group) -> Said:
    if group.order:
        return say("from the group's failover policy, the best first")
    return say("guess: the group has no policy in the file, so these are all servers, by their priority")


def _own_node(nodes: dict[str, str], wanted: str | None) -> tuple[str, Said]:
    if wanted is None:
        return next(iter(nodes.values())), say("guess: the first node; on the others, change the name")
    fitting = [name for host, name in nodes.items() if wanted.lower() in (host.lower(), name)]
    if not fitting:
        raise ClpConfError(say("there is no node '{name}' in the group; it has: {known}", name=wanted, known=", ".join(nodes)))
    return fitting[0], say("as asked for with --node")


# --- services -----------------------------------------------------------------------------------------------------------------------


def _services(exported: Exported, group: Group) -> tuple[Service, ...]:
    """Agents first (G23)."""
    found = _from_scripts(exported, group) or _from_resources(exported, group)
    windows = exported.conf.os != "linux"
    if not found:
        why = say("guess: nothing in the file tells what runs in the group; a server is assumed, in the default folder (G27)")
        found = {"server": _service("server", "", why, windows)}
    return tuple(found[kind] for kind in ("agent", "server") if kind in found)


def _from_scripts(exported: Exported, group: Group) -> dict[Kind, Service]:
    found: dict[Kind, Service] = {}
    for script in exported.scripts or ():
        if script.group.lower() == group.name.lower():
            for kind, command in script.commands:
                if kind in ("agent", "server") and kind not in found:
                    found[kind] = _service(kind, command, _why(script, command), exported.conf.os != "linux")  # type: ignore[index, arg-type]
    return found


def _why(script: Script, command: str) -> Said:
    if command:
        return say("from the scripts of resource '{name}'", name=script.resource)
    return say("from the scripts of resource '{name}'; guess: the folder, which they do not spell out", name=script.resource)


def _from_resources(exported: Exported, group: Group) -> dict[Kind, Service]:
    found: dict[Kind, Service] = {}
    for resource in exported.conf.of_group(group, *SCRIPTS, "appli", "service"):
        words = " ".join((resource.name, resource.start_path.value or "")).lower()
        for kind in ("agent", "server"):
            if re.search(rf"(?:dc|datacoordinator\w*[^a-z]*){kind}|\b{kind}\b", words):
                why = say("guess: from the name or start path of resource '{name}'", name=resource.name)
                found.setdefault(kind, _service(kind, _home_in(resource, kind), why, exported.conf.os != "linux"))
    return found


def _home_in(resource: Resource, kind: str) -> str:
    """A start path below `...\\server\\bin` tells where the commands are."""
    path = PureWindowsPath(resource.start_path.value or "")
    return str(path.parent / f"dc{kind}.bat") if [part.lower() for part in path.parts[-3:-1]] == [kind, "bin"] else ""


def _service(kind: Kind, command: str, why: Said, windows: bool) -> Service:
    if not command and windows:
        command = str(DEFAULT_FOLDER / kind / "bin" / f"dc{kind}.bat")
    elif not command:
        command = f"/opt/DataCoordinatorRA/{kind}/bin/dc{kind}.sh"
    cut = max(command.rfind("\\"), command.rfind("/")) + 1
    suffix = ".bat" if windows else ".sh"
    return Service(kind, command, f"{command[:cut]}dcstatus{suffix}", why)


def _script_timeout(scripts: list[Resource]) -> tuple[float, Said]:
    given = [
        (value.value, one.name)
        for one in scripts
        for value in (one.start_timeout, one.stop_timeout)
        if value.origin == "file" and value.value
    ]
    if given:
        least_s, name = min(given)
        return least_s, say("from resource '{name}': the shorter one of its start and stop", name=name)
    return 1800.0, say("CLUSTERPRO's default: the file sets none")


# --- what is left -------------------------------------------------------------------------------------------------------------------


def _unknown(exported: Exported, group: Group) -> list[Said]:
    conf = exported.conf
    kinds = {service.kind for service in _services(exported, group)}
    unknown = [say("the address of Redis: [redis] url")]
    if exported.scripts is None:
        unknown.append(say("what the group's scripts call: give the whole folder that `clpcfctrl --pull` writes, with scripts/"))
    unknown += [
        say("the port on which clients reach the {kind} (G28): the endpoints, written as comments", kind=kind) for kind in sorted(kinds)
    ]
    if not conf.of_group(group, "fip"):
        unknown.append(say("the group's floating IP: the file has none for this group"))
    if not conf.of_group(group, *DISKS):
        unknown.append(say("the group's disk: the file has none for this group"))
    if "agent" in kinds:
        unknown.append(say("whether one of the agent's databases is on its own server (G2): databases"))
    if "server" in kinds:
        unknown.append(say("how this site lists its schedules: [node] probe; without it their outcome stays `unknown`"))
    unknown += [
        say("whether the service of resource '{name}' belongs to dcsup as a `command` service (G24)", name=one.name)
        for one in conf.of_group(group, "service")
    ]
    if conf.os is None:
        unknown.append(say("whether the nodes run Windows or Linux: Windows was assumed"))
    return unknown


def _renamed(group: Group, nodes: dict[str, str], cluster: dict[str, str]) -> list[Said]:
    pairs = [*nodes.items(), (group.name, legal_name(group.name, "failover1")), *cluster.items()]
    return [
        say("'{there}' is '{here}' in dcsup: only a-z, 0-9 and '-' are allowed, and no node a prefix of another", there=there, here=here)
        for there, here in pairs
        if there != here
    ]
