"""Rules about what CLUSTERPRO is set to: from an exported configuration, and the scripts beside it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from orchestrator.checking.evidence import Evidence, Missing, known
from orchestrator.checking.rules import Hit, Rule, Source
from orchestrator.clpconf.model import ACTIVATION_EXTRA_S, DISKS, SCRIPTS, STOP_AND_SHUT_DOWN, Monitor, Resource
from orchestrator.said import say

_OLDEST = (4, 3)
"""The guide is for CLUSTERPRO X 4.3."""


# --- the file and its groups --------------------------------------------------------------------------------------------------------


def _oddities(evidence: Evidence) -> Iterator[Hit]:
    for finding in evidence.need_exported().conf.findings:
        yield Hit(finding.said, evidence.in_clp_conf(finding.place))


def _no_group(evidence: Evidence) -> Iterator[Hit]:
    conf = evidence.need_exported().conf
    wanted = evidence.need_settings().group_there
    if not any(wanted.lower() == group.name.lower() for group in conf.groups):
        there = ", ".join(group.name for group in conf.groups) or "-"
        yield Hit(say("CLUSTERPRO has no group '{name}'; it has: {there}", name=wanted, there=there), evidence.at("group"))


def _other_nodes(evidence: Evidence) -> Iterator[Hit]:
    group, conf = evidence.need_group(), evidence.need_exported().conf
    order = group.order or tuple(server.name for server in conf.servers)
    settings = evidence.need_settings()
    ours = [settings.server_there(node) for node in settings.nodes]
    if not order:
        raise Missing(say("the CLUSTERPRO configuration does not tell the group's servers"))
    if [name.lower() for name in order] != [name.lower() for name in ours]:
        values = {"ours": ", ".join(ours), "theirs": ", ".join(order)}
        yield Hit(say("`nodes` is {ours}; the group's failover policy is {theirs}", **values), evidence.at("nodes"))


def _two_ways(evidence: Evidence) -> Iterator[Hit]:
    """Groups that run DataCoordinator and begin on different servers."""
    exported = evidence.need_exported()
    own = evidence.need_group()
    others = [group for group in exported.conf.groups if group is not own and exported.conf.of_group(group, *SCRIPTS)]
    if not others:
        return
    if exported.scripts is None:
        raise Missing(say("whether other groups run DataCoordinator: the scripts are not beside the CLUSTERPRO configuration"))
    running = {script.group.lower() for script in exported.scripts if script.commands or script.calls_dcsup}
    for group in others:
        if group.name.lower() in running and group.order[:1] != own.order[:1]:
            values = {"one": own.name, "first": ", ".join(own.order), "other": group.name, "second": ", ".join(group.order)}
            found = say("groups '{one}' ({first}) and '{other}' ({second}) both run DataCoordinator and prefer different servers", **values)
            yield Hit(found, evidence.in_clp_conf(group.place))


def _lacks_address(evidence: Evidence) -> Iterator[Hit]:
    count = len(evidence.resources("fip"))
    if count != 1:
        found = say("the group has {count} floating IPs; the guide has one", count=count)
        yield Hit(found, evidence.in_clp_conf(evidence.need_group().place), "error" if count == 0 else "warning")


def _lacks_disk(evidence: Evidence) -> Iterator[Hit]:
    if not evidence.resources(*DISKS):
        yield Hit(say("the group has no disk resource"), evidence.in_clp_conf(evidence.need_group().place))


def _other_host(evidence: Evidence) -> Iterator[Hit]:
    endpoints = evidence.need_settings().endpoints
    if not endpoints:
        raise Missing(say("at which address clients reach the services: [[clusters.{name}.endpoints]]", name=evidence.cluster))
    addresses = {one.address.value for one in evidence.resources("fip") if one.address.value}
    if not addresses:
        raise Missing(say("the CLUSTERPRO configuration does not tell the floating IP"))
    for n, endpoint in enumerate(endpoints):
        if endpoint.host not in addresses:
            _need_address(endpoint.host)
            values = {"name": endpoint.name, "host": endpoint.host, "addresses": ", ".join(sorted(addresses))}
            yield Hit(say("endpoint '{name}' is at {host}; the group's floating IP is {addresses}", **values), evidence.at("endpoints", n))


def _need_address(host: str) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise Missing(say("whether the name {host} is the floating IP", host=host)) from None


def _no_failover(evidence: Evidence) -> Iterator[Hit]:
    group = evidence.need_group()
    if not known(group.auto_failover, say("the group's automatic failover")):
        yield Hit(say("automatic failover of group '{name}' is off", name=group.name), evidence.in_clp_conf(group.auto_failover.place))


def _no_autostart(evidence: Evidence) -> Iterator[Hit]:
    group = evidence.need_group()
    if not known(group.auto_start, say("the group's automatic start")):
        yield Hit(say("group '{name}' is not started with the cluster", name=group.name), evidence.in_clp_conf(group.auto_start.place))


def _failback(evidence: Evidence) -> Iterator[Hit]:
    group = evidence.need_group()
    if known(group.auto_failback, say("the group's automatic failback")):
        yield Hit(say("automatic failback of group '{name}' is on", name=group.name), evidence.in_clp_conf(group.auto_failback.place))


def _old_version(evidence: Evidence) -> Iterator[Hit]:
    version = evidence.need_exported().conf.version
    numbers = re.match(r"(\d{1,4})\.(\d{1,4})", version)
    if numbers is None:
        raise Missing(say("the CLUSTERPRO configuration does not tell its version"))
    if (int(numbers[1]), int(numbers[2])) < _OLDEST:
        yield Hit(say("the configuration was saved by CLUSTERPRO X {version}; the guide is for 4.3", version=version))


# --- scripts ------------------------------------------------------------------------------------------------------------------------


def _lacks_script(evidence: Evidence) -> Iterator[Hit]:
    if not evidence.resources(*SCRIPTS):
        yield Hit(say("the group has no script resource"), evidence.in_clp_conf(evidence.need_group().place))


def _not_one_caller(evidence: Evidence) -> Iterator[Hit]:
    names = {one.name.lower() for one in evidence.resources(*SCRIPTS)}
    if not names:
        return
    calling = [script.resource for script in evidence.need_scripts() if script.calls_dcsup and script.resource.lower() in names]
    if len(calling) > 1:
        found = say("{count} script resources call dcsup: {names}", count=len(calling), names=", ".join(calling))
        yield Hit(found, evidence.in_clp_conf(evidence.need_group().place))
    if not calling and evidence.need_settings().mode == "supervise":
        found = say("no script resource calls dcsup, though the mode is supervise")
        yield Hit(found, evidence.in_clp_conf(evidence.need_group().place))


def _server_first(evidence: Evidence) -> Iterator[Hit]:
    """Two script resources, one with the agent and one with the server: the dependency must put the agent first."""
    if not (evidence.services("agent") and evidence.services("server")):
        return
    scripts = evidence.need_scripts()
    runs = {kind: {one.resource for one in scripts if kind in dict(one.commands)} for kind in ("agent", "server")}
    for one in evidence.resources(*SCRIPTS):
        if one.name in runs["server"] - runs["agent"] and (agents := runs["agent"] - runs["server"]) and not agents & _below(evidence, one):
            values = {"server": one.name, "agent": ", ".join(sorted(agents))}
            found = say("resource '{server}' starts the server and does not depend on '{agent}', which starts the agent", **values)
            yield Hit(found, evidence.in_clp_conf(one.place))


def _below(evidence: Evidence, resource: Resource) -> set[str]:
    """Names of everything that a resource depends on, through others too.

    Raises:
        Missing: one of them does not say on what it depends.
    """
    by_name = {one.name: one for one in evidence.resources()}
    found: set[str] = set()
    waiting = [resource]
    while waiting:
        one = waiting.pop()
        names = known(one.depends, say("on what resource '{name}' depends", name=one.name)) if one.type in (*SCRIPTS, "appli") else ()
        fresh = set(names or one.depends.value or ()) - found
        found |= fresh
        waiting += [by_name[name] for name in fresh if name in by_name]
    return found


def _script_alone(evidence: Evidence) -> Iterator[Hit]:
    resource = evidence.dcsup_resource()
    below = _below(evidence, resource)
    for kinds, what in ((("fip",), say("the floating IP")), (DISKS, say("the disk"))):
        names = [one.name for one in evidence.resources(*kinds)]
        if names and not below.intersection(names):
            values = {"name": resource.name, "what": what, "names": ", ".join(names)}
            yield Hit(say("script resource '{name}' does not depend on {what} ({names})", **values), evidence.in_clp_conf(resource.place))


def _unjudged(evidence: Evidence) -> Iterator[Hit]:
    resource = evidence.dcsup_resource()
    if resource.type == "exec":  # on Linux 0 is good and all else is not
        return
    normal = resource.normal_start
    if known(normal, say("the normal return value of the start script")) == "" or not _includes_only_good(str(normal.value)):
        shown = normal.value or "-"
        found = say("resource '{name}': the start script's normal return value is '{value}'", name=resource.name, value=shown)
        yield Hit(found, evidence.in_clp_conf(normal.place))


def _includes_only_good(spec: str) -> bool:
    """Whether 0 is normal and the failing ends of our scripts, 1 and 40, are not; `0,2,4-6`."""
    return _is_in(0, spec) and not _is_in(1, spec) and not _is_in(40, spec)


def _is_in(code: int, spec: str) -> bool:
    ranges = [re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", part) for part in spec.split(",")]
    return any(int(one[1]) <= code <= int(one[2] or one[1]) for one in ranges if one is not None)


def _asynchronous(evidence: Evidence) -> Iterator[Hit]:
    resource = evidence.dcsup_resource()
    for value, script in ((resource.start_sync, "start"), (resource.stop_sync, "stop")):
        if not known(value, say("whether the {script} script is synchronous", script=script)):
            found = say("resource '{name}': the {script} script is run asynchronously", name=resource.name, script=script)
            yield Hit(found, evidence.in_clp_conf(value.place))


def _shuts_down(evidence: Evidence) -> Iterator[Hit]:
    resource = evidence.dcsup_resource()
    action = known(resource.deact_action, say("the final action of a failed stop"))
    if action >= STOP_AND_SHUT_DOWN:
        reported = evidence.settings is not None and evidence.settings.stop.report_failure
        found = say(
            "resource '{name}': a failed stop takes the operating system down (final action {action})", name=resource.name, action=action
        )
        yield Hit(found, evidence.in_clp_conf(resource.deact_action.place), "warning" if reported else None)


def _timeouts_differ(evidence: Evidence) -> Iterator[Hit]:
    resource, ours_s = evidence.dcsup_resource(), evidence.need_settings().clusterpro.script_timeout
    theirs_s = min(known(value, say("the script timeout")) for value in (resource.start_timeout, resource.stop_timeout))
    if theirs_s < ours_s:
        values = {"ours": f"{ours_s:g}", "theirs": f"{theirs_s:g}", "name": resource.name}
        found = say("`clusterpro.script_timeout` is {ours} s; a script of resource '{name}' has {theirs} s", **values)
        yield Hit(found, evidence.at("clusterpro", "script_timeout"))


def _resource_timeouts(evidence: Evidence) -> Iterator[Hit]:
    resource = evidence.dcsup_resource()
    pairs = ((resource.start_timeout, resource.act_timeout, "act"), (resource.stop_timeout, resource.deact_timeout, "deact"))
    for script, whole, name in pairs:
        wanted_s = known(script, say("the script timeout")) + ACTIVATION_EXTRA_S
        whole_s = known(whole, say("the resource's timeout"))
        if whole_s < wanted_s:
            values = {"resource": resource.name, "name": f"{name}/timeout", "found": f"{whole_s:g}", "wanted": f"{wanted_s:g}"}
            yield Hit(say("resource '{resource}': {name} is {found} s, less than {wanted} s", **values), evidence.in_clp_conf(whole.place))


# --- watching -----------------------------------------------------------------------------------------------------------------------


def _watchers(evidence: Evidence) -> list[Resource]:
    """The resident application resources. Where one does not say whether it is, it may be.

    Raises:
        Missing: none is resident for sure, and one may be.
    """
    applications = evidence.resources("appli")
    resident = [one for one in applications if one.resident.value]
    if not resident and any(not one.resident.known for one in applications):
        raise Missing(say("whether the application resource is resident"))
    return resident


def _lacks_watcher(evidence: Evidence) -> Iterator[Hit]:
    if evidence.need_exported().conf.os == "linux":
        raise Missing(say("how a resident program is watched on Linux"))
    if not _watchers(evidence):
        yield Hit(say("the group has no resident application resource"), evidence.in_clp_conf(evidence.need_group().place))


def _watcher_alone(evidence: Evidence) -> Iterator[Hit]:
    scripts = {one.name for one in evidence.resources(*SCRIPTS)}
    for one in _watchers(evidence) if scripts else ():  # without one G40-script says so
        if not scripts & set(known(one.depends, say("on what resource '{name}' depends", name=one.name))):
            found = say("application resource '{name}' does not depend on the script resource", name=one.name)
            yield Hit(found, evidence.in_clp_conf(one.place))


def _monitors(evidence: Evidence) -> list[Monitor]:
    """The application monitors of the group's watchers; one that does not name its target watches them all."""
    names = {one.name for one in _watchers(evidence)}
    monitors = [one for one in evidence.need_exported().conf.monitors if one.type == "appliw"]
    return [one for one in monitors if not one.target.value or one.target.value in names]


def _lacks_monitor(evidence: Evidence) -> Iterator[Hit]:
    if _watchers(evidence) and not _monitors(evidence):
        yield Hit(say("no application monitor watches the resident application resource"), evidence.in_clp_conf("/root/monitor"))


def _other_recovery(evidence: Evidence) -> Iterator[Hit]:
    for one in _monitors(evidence):
        if known(one.failovers, say("how often monitor '{name}' fails over", name=one.name)) == 0:
            found = say("monitor '{name}' never fails over: its failover count is 0", name=one.name)
            yield Hit(found, evidence.in_clp_conf(one.failovers.place))


def _no_alerts(evidence: Evidence) -> Iterator[Hit]:
    if not any(one.calls_dcsup for one in evidence.need_exported().conf.alerts):
        yield Hit(say("the alert extension does not call `dcsup hook alert`"))


def _api_off(evidence: Evidence) -> Iterator[Hit]:
    if evidence.need_node_settings().rest is None:
        return
    api = evidence.need_exported().conf.api
    if not known(api, say("whether the RESTful API is on")):
        yield Hit(say("the RESTful API is off, and [node.rest] asks it"), evidence.in_clp_conf(api.place))


# --- the rules ----------------------------------------------------------------------------------------------------------------------

_CLP: tuple[Source, ...] = ("clusterpro",)
_BOTH: tuple[Source, ...] = ("configuration", "clusterpro")
_SCRIPTS: tuple[Source, ...] = ("clusterpro", "scripts")

RULES: tuple[Rule, ...] = (
    Rule(
        "G1-oneway", say("groups with DataCoordinator prefer the same server"), "error", _SCRIPTS,
        say("two groups in opposite directions are two-way standby, which is not supported"),
        say("put server and agent into one group (G35), or give both groups the same order of servers"),
        _two_ways,
    ),
    Rule(
        "G23-order", say("the agent is started before the server"), "error", ("configuration", "clusterpro", "scripts"),
        say("the guide starts an agent on the server's machine before the server"),
        say("let the server's script resource depend on the agent's, or start both in one script"),
        _server_first,
    ),
    Rule(
        "G25-address", say("the group has one floating IP"), "error", _CLP,
        say("clients and agents reach the services by it, wherever the group is"),
        say("add one floating IP resource to the group"),
        _lacks_address,
    ),
    Rule(
        "G25-disk", say("the group has a disk"), "error", _CLP,
        say("metadata database and shared folder must move with the group (G3)"),
        say("add a disk or mirror disk resource to the group"),
        _lacks_disk,
    ),
    Rule(
        "G28-host", say("clients are given the floating IP"), "error", _BOTH,
        say("a client that knows a node's own address does not find the service after a failover"),
        say("use the floating IP as host in the installer on every node, and in `endpoints`"),
        _other_host,
    ),
    Rule(
        "G40-script", say("the group has a script resource"), "error", _CLP,
        say("it starts and stops the services"),
        say("add a script resource; `dcsup render clusterpro` writes its scripts"),
        _lacks_script,
    ),
    Rule(
        "G40-resident", say("the group has a resident application resource that runs the watch script"), "error", _CLP,
        say("without it CLUSTERPRO does not notice that a service died"),
        say("add an application resource: resident, start path the watch script, depending on the script resource"),
        _lacks_watcher,
    ),
    Rule(
        "G40-order", say("the application resource depends on the script resource"), "error", _CLP,
        say("otherwise the watch begins before the service was started, ends at once, and CLUSTERPRO fails over"),
        say("set the dependency in the application resource"),
        _watcher_alone,
    ),
    Rule(
        "G40-monitor", say("an application monitor watches it"), "error", _CLP,
        say("the watch script's end is only noticed by the application monitor"),
        say("the monitor appears with the application resource; if it was removed, add it again"),
        _lacks_monitor,
    ),
    Rule(
        "G40-recovery", say("the monitor's recovery action is a failover"), "error", _CLP,
        say("a dead service would never be failed over"),
        say("set the monitor's recovery action to failover"),
        _other_recovery,
    ),
    Rule(
        "N-one", say("exactly one script resource of the group calls dcsup"), "error", ("configuration", "clusterpro", "scripts"),
        say("two would clear each other's tickets away (N6); with none dcsup decides nothing"),
        say("render the scripts for one script resource that handles all services, and remove the others"),
        _not_one_caller,
    ),
    Rule(
        "C-file", say("the configuration file makes sense"), "warning", _CLP,
        say("what could not be read was not checked"),
        say("export the configuration again with `clpcfctrl --pull`; do not edit it by hand"),
        _oddities, "seen",
    ),
    Rule(
        "C-group", say("CLUSTERPRO has the group"), "error", _BOTH,
        say("dcsup would look at a group that does not exist"),
        say("set `clusterpro.group` to the failover group's name as CLUSTERPRO has it"),
        _no_group, "seen",
    ),
    Rule(
        "C-nodes", say("`nodes` is the group's failover policy"), "warning", _BOTH,
        say("which node is the highest-priority one (G21), and which ones are standbys, would be told wrongly"),
        say("name the same servers in the same order; where CLUSTERPRO calls one otherwise, set `clusterpro.servers`"),
        _other_nodes, "seen",
    ),
    Rule(
        "C-depends", say("the script resource depends on floating IP and disk"), "error", _CLP,
        say("otherwise the services may be started before their data and their address are there"),
        say("set both dependencies in the script resource"),
        _script_alone, "seen",
    ),
    Rule(
        "C-normal", say("the start script's exit code is judged"), "warning", _CLP,
        say("with a blank normal return value a start that failed counts as good, and nothing fails over"),
        say("set the normal return value of the start script to 0"),
        _unjudged, "known",
    ),
    Rule(
        "C-sync", say("start and stop script are run synchronously"), "error", _CLP,
        say("otherwise the group counts as started before anything is up, and no exit code is judged"),
        say("set both scripts to synchronous"),
        _asynchronous, "seen",
    ),
    Rule(
        "C-final", say("what a failed stop does"), "information", _BOTH,
        say("it is CLUSTERPRO's default: a stop that fails or takes too long shuts the node down; dcsup's stop script therefore returns 0"),
        say("nothing, if it is meant; otherwise set the final action at deactivation failure to no action"),
        _shuts_down, "seen",
    ),
    Rule(
        "C-timeout", say("dcsup knows the script timeout"), "error", _BOTH,
        say("how long the scripts may take at the worst is compared with it"),
        say("set `clusterpro.script_timeout` to CLUSTERPRO's value"),
        _timeouts_differ, "inferred",
    ),
    Rule(
        "C-resource-timeout", say("the resource's timeout leaves room for its script's"), "warning", _CLP,
        say("the resource would time out before its script does; CLUSTERPRO wants 180 s more"),
        say("set activation and deactivation timeout to the script timeout plus 180 s"),
        _resource_timeouts, "seen",
    ),
    Rule(
        "C-failover", say("the group fails over automatically"), "warning", _CLP,
        say("after a fault nothing is started on the standby until a person does it"),
        say("switch the group's automatic failover on, unless it is off for a maintenance"),
        _no_failover, "seen",
    ),
    Rule(
        "C-start", say("the group is started with the cluster"), "information", _CLP,
        say("after a power failure a person must start it"),
        say("nothing, if it is meant; otherwise switch the group's automatic start on"),
        _no_autostart, "seen",
    ),
    Rule(
        "C-failback", say("the group does not fail back by itself"), "warning", _CLP,
        say("a node that comes back takes the group away again: a second interruption, perhaps to a node that is still ill"),
        say("switch the group's automatic failback off, and move it with `dcsup move` when it suits"),
        _failback, "seen",
    ),
    Rule(
        "C-version", say("CLUSTERPRO X is 4.3 or later"), "warning", _CLP,
        say("earlier versions were not looked at"),
        say("check each step by hand, or update CLUSTERPRO"),
        _old_version, "seen",
    ),
    Rule(
        "C-alert", say("CLUSTERPRO tells dcsup its alerts"), "information", _CLP,
        say("with the alert extension dcsup hears at once why CLUSTERPRO acts, instead of at its next look"),
        say("let the alert extension run `dcsup hook alert`; the page that `dcsup render` writes says how"),
        _no_alerts, "seen",
    ),
    Rule(
        "C-api", say("the RESTful API is on where dcsup asks it"), "warning", _BOTH,
        say("dcsup would not see the cluster manager's own view"),
        say("switch it on in the cluster's properties, or leave [node.rest] out and use clpstat"),
        _api_off, "unsure",
    ),
)  # fmt: skip
