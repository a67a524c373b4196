"""Commands that show how things stand: status, graph, probe test."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from orchestrator.cli import options, output
from orchestrator.cli.connection import chosen, configured, states
from orchestrator.cli.output import age, moment, seconds
from orchestrator.cli.stopping import BAD_ANSWER, WRONG_USE, Stop
from orchestrator.said import Said, say
from workers.messages import _

MACHINES = ("service", "node", "failover")
State = dict[str, Any]


def add(commands: options.Commands) -> None:
    status = options.add_command(commands, "status", _("show the state of each cluster, as its leading orchestrator knows it"), run_status)
    options.config(status)
    options.cluster(status)
    options.as_json(status)
    graph = options.add_command(commands, "graph", _("draw a state machine as Mermaid, from the table that decides"), run_graph)
    graph.add_argument("machine", nargs="*", metavar="service|node|failover", help=_("which one (default: all)"))
    options.as_json(graph)
    probe = options.add_command(commands, "probe", _("the schedule probe of this node"), run_probe)
    probe.add_argument("what", choices=["test"], help=_("run it once and show what it sees"))
    options.config(probe)
    options.as_json(probe)


# --- status -------------------------------------------------------------------------------------------------------------------------------


def run_status(arguments: argparse.Namespace) -> int:
    configuration = configured(arguments)
    found = states(configuration, chosen(arguments, configuration))
    if arguments.json:
        output.show_json({"clusters": found})
    else:
        for state in found.values():
            show_state(state)
    return 0


def show_state(state: State) -> None:
    """One cluster, for a person."""
    for said in _headlines(state):
        output.show(said)
    columns = [_("service"), _("state"), _("node"), _("verified"), _("since")]
    output.table(_("Services"), columns, (_service_row(name, one) for name, one in sorted(state["services"].items())))
    columns = [_("node"), _("state"), _("role"), _("worker"), _("since")]
    output.table(_("Nodes"), columns, (_node_row(name, one) for name, one in sorted(state["nodes"].items())))
    _show_surroundings(state)
    if state["schedules"]:
        columns = [_("service"), _("schedule"), _("startup mode"), _("state"), _("last verdict")]
        rows = (row for name, one in sorted(state["schedules"].items()) for row in _schedule_rows(name, one))
        output.table(_("Schedules"), columns, rows)


def _show_surroundings(state: State) -> None:
    """What stands beside services and nodes; only what is configured or was seen."""
    if endpoints := (state["settings"] or {}).get("endpoints"):
        columns = [_("endpoint"), _("address"), _("clients"), _("since"), _("reason")]
        output.table(_("Endpoints"), columns, (_endpoint_row(one, state["endpoints"].get(one["name"])) for one in endpoints))
    if state["metadata"]:
        columns = [_("node"), _("service"), _("port"), _("disk"), _("seen")]
        output.table(_("Metadata DB"), columns, (_metadata_row(name, one) for name, one in sorted(state["metadata"].items())))
    if state["views"]:
        columns = [_("seen from"), _("group"), _("on"), _("servers"), _("monitors"), _("changed"), _("ago")]
        rows = (_view_row(one, state["nodes"].get(name)) for name, one in sorted(state["views"].items()))
        output.table(_("Cluster manager"), columns, rows)
    if state["runbooks"]:
        columns = [_("runbook"), _("last step"), _("outcome"), _("done"), _("skipped"), _("failed"), _("when")]
        output.table(_("Runbooks"), columns, (_runbook_row(name, one) for name, one in state["runbooks"].items()))


def _headlines(state: State) -> list[Said]:
    mode = (state["settings"] or {}).get("mode", "-")
    active, leader = state["active"] or "-", state["leader"] or "-"
    lines = [
        say(
            "cluster {name}: mode {mode}, active node {active}, term {term}",
            name=state["cluster"],
            mode=mode,
            active=active,
            term=state["term"],
        ),
        say("led by {leader}, epoch {epoch}", leader=leader, epoch=state["epoch"]),
        say("log head {id} {hash}", id=state["last_id"], hash=state["last_hash"]),
    ]
    if state["paused_since_ms"]:
        since = moment(state["paused_since_ms"])
        lines.append(say("PAUSED since {since} by {by}: no command is issued", since=since, by=state["paused_by"]))
    if state["suspended"]:
        since = moment(state["suspended_since_ms"])
        lines.append(say("MAINTENANCE: the cluster is suspended since {since}; what it asks for is still done", since=since))
    if state["double_activation"]:
        lines.append(say("DOUBLE ACTIVATION: the group was seen on two nodes"))
    holding = sorted(name for name, one in state["metadata"].items() if one["held"])
    text = say("WARNING: the metadata DB still runs on {node}, which the group has left: it may hold the disk", node=", ".join(holding))
    lines += [text] if holding else []
    if move := state["move"]:
        words = {"to": move["to"] or "-", "by": move["by"], "since": moment(move["at_ms"]), "why": move["why"]}
        lines.append(say("move to {to} asked for by {by} at {since}: {why}", **words))
    if failover := state["failover"]:
        since = moment(failover["points"].get("symptom"))
        lines.append(say("failover {id} is {state}, since {since}", id=failover["id"], state=failover["state"], since=since))
    return lines


def _service_row(name: str, service: State) -> list[str]:
    return [name, service["state"], service["node"] or "-", _yes_no(service["verified"]), moment(service["since_ms"])]


def _node_row(name: str, node: State) -> list[str]:
    return [name, node["state"], node["role"], _("present") if node["present"] else _("absent"), moment(node["since_ms"])]


def _endpoint_row(settings: State, status: State | None) -> list[str]:
    address = f"{settings['host']}:{settings['port']}"
    if status is None:
        return [settings["name"], address, _("unknown"), "-", "-"]
    return [settings["name"], address, _("get in") if status["up"] else _("CUT OFF"), moment(status["since_ms"]), status["reason"] or "-"]


def _metadata_row(node: str, status: State) -> list[str]:
    return [node, status["service"], status["port"], _("MAY BE HELD") if status["held"] else "-", moment(status["at_ms"])]


def _view_row(view: State, node: State | None) -> list[str]:
    """Only changes are told: an old view of a node that is there still holds; of one that is not, nobody knows."""
    ago = age(view["at_ms"]) if node is not None and node["present"] else _("{age}, silent").format(age=age(view["at_ms"]))
    servers, monitors = _odd(view["servers"], ("online",)), _odd(view["monitors"], ("normal", "online", "offline"))
    group = _("suspended") if view["suspended"] else view["group_state"]
    return [view["node"], group, view["current"] or "-", servers, monitors, moment(view["at_ms"])[:19], ago]


def _odd(states: dict[str, str], usual: tuple[str, ...]) -> str:
    """Those that are not as usual; a monitor may rightly be offline on a standby."""
    if not states:
        return _("unknown")
    return ", ".join(f"{name}: {state}" for name, state in sorted(states.items()) if state not in usual) or _("all well")


def _runbook_row(name: str, status: State) -> list[str]:
    outcomes = list(status["steps"].values())
    step, last = list(status["steps"].items())[-1] if outcomes else ("-", "-")
    counts = [str(outcomes.count(one)) for one in ("done", "skipped", "failed")]
    return [name, step, last, *counts, moment(status["at_ms"])]


def _schedule_rows(service: str, status: State) -> list[list[str]]:
    verdicts = {one["name"]: one["outcome"] for one in (status["judgement"] or {}).get("schedules", ())}
    seen = {one["name"]: one for one in (status["latest"] or {}).get("schedules", ())}
    return [
        [service, name, seen.get(name, {}).get("startup_mode", "-"), seen.get(name, {}).get("state", "-"), verdicts.get(name, "-")]
        for name in sorted({*verdicts, *seen})
    ]


def _yes_no(value: bool) -> str:
    return _("yes") if value else _("no")


# --- failovers ----------------------------------------------------------------------------------------------------------------------------


def show_failovers(failovers: list[State]) -> None:
    """What each was, then how long each phase of it took; the oldest first."""
    from statemachines.states import PHASES

    columns = [_("began"), _("kind"), _("trigger"), _("nodes"), _("outcome"), _("schedules")]
    output.table(_("Failovers"), columns, (_failover_row(one) for one in failovers))
    phases = [phase for phase, _begin, _end in PHASES]
    columns = [_("began"), *phases, _("total"), _("clients")]
    output.table(_("Phases, and how long clients were cut off (seconds)"), columns, (_phases_row(one, phases) for one in failovers))
    for one in failovers:
        if one["requested_by"] is not None:
            output.show(say("{began}: asked for by {by}: {why}", began=_began(one), by=one["requested_by"], why=one["why"]))


def _failover_row(failover: State) -> list[str]:
    nodes = f"{failover['node_from'] or '-'} -> {failover['node_to'] or '-'}"
    story = (failover["kind"], failover["trigger"], nodes)
    return [_began(failover), *story, failover["outcome"] or failover["state"], _verdicts(failover)]


def _phases_row(failover: State, phases: list[str]) -> list[str]:
    durations = (seconds(failover["phases"].get(phase)) for phase in phases)
    return [_began(failover), *durations, seconds(failover["total_s"]), _cut(failover)]


def _began(failover: State) -> str:
    """To the second: `2026-08-01 10:00:00`."""
    return moment(failover["points"].get("symptom"))[:19]


def _cut(failover: State) -> str:
    """How long clients could not connect: of the address that was down longest. `+`: one is still down. A dash: nothing was seen."""
    lengths: dict[str, float] = {}
    for outage in failover["outages"]:
        past_ms = outage["up_ms"] - outage["down_ms"] if outage["up_ms"] is not None else 0.0
        lengths[outage["endpoint"]] = lengths.get(outage["endpoint"], 0.0) + past_ms / 1000
    still = any(outage["up_ms"] is None for outage in failover["outages"])
    return (seconds(max(lengths.values())) if lengths else "-") + ("+" if still else "")


def _verdicts(failover: State) -> str:
    """`5 resumed, 1 missed`."""
    counts: dict[str, int] = {}
    for judgement in failover["judgements"]:
        for verdict in judgement["schedules"]:
            counts[verdict["outcome"]] = counts.get(verdict["outcome"], 0) + 1
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) or "-"


# --- graph, probe -------------------------------------------------------------------------------------------------------------------------


def run_graph(arguments: argparse.Namespace) -> int:
    from statemachines.diagrams import mermaid

    unknown = [name for name in arguments.machine if name not in MACHINES]
    if unknown:
        raise Stop(WRONG_USE, say("there is no state machine '{name}'; known: {known}", name=unknown[0], known=", ".join(MACHINES)))
    drawings = {name: mermaid(name) for name in arguments.machine or MACHINES}
    if arguments.json:
        output.show_json(drawings)
    else:
        print("\n".join(drawing.rstrip("\n") + "\n" for drawing in drawings.values()), end="")
    return 0


def run_probe(arguments: argparse.Namespace) -> int:
    node = configured(arguments).node
    if node is None or node.probe is None:
        raise Stop(WRONG_USE, say("{file} sets no probe in [node]: outcomes will be `unknown`", file=arguments.config))
    from workers import probe
    from workers.runs import Run

    run = Run(node.probe, 30.0, encoding=node.encoding)
    try:
        while (outcome := run.poll()) is None:
            time.sleep(0.05)
    except KeyboardInterrupt:
        run.discard()
        raise
    try:
        schedules = [schedule.model_dump(mode="json") for schedule in probe.read(outcome)]
    except probe.ProbeError as error:
        print(outcome.output, end="", file=sys.stderr)
        raise Stop(BAD_ANSWER, say("the probe told nothing: {why}", why=str(error))) from error
    if arguments.json:
        output.show_json({"duration_s": outcome.duration_s, "schedules": schedules})
        return 0
    columns = [_("schedule"), _("startup mode"), _("state")]
    output.table(_("Schedules"), columns, ([one["name"], one["startup_mode"], one["state"]] for one in schedules))
    output.show(say("{count} schedules, asked in {duration} s", count=len(schedules), duration=seconds(outcome.duration_s)))
    return 0
