"""Whether a step holds, as far as a machine can see it.

Every answer is yes, no or unknown, and unknown is an answer of its own: from another machine a service's startup type cannot be
seen, and what an orchestrator once knew is no evidence when nobody leads the cluster now. Nothing here changes anything.

Who looks on the node is given from outside (`Eyes`); the central state comes as JSON, as `dcsup status --json` shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from orchestrator.runbooks import places
from orchestrator.runbooks.plans import Shape
from orchestrator.runbooks.steps import Step
from orchestrator.said import Said, say

State = dict[str, Any]
Answer = Literal["yes", "no", "unknown"]


@dataclass(frozen=True)
class Finding:
    """What was seen: the answer, in words, and (`seen`) what is worth keeping with the step."""

    answer: Answer
    said: tuple[Said, ...]
    seen: Mapping[str, Any] = field(default_factory=dict)


class Eyes(Protocol):
    """What can be seen from where the command runs. None and "unknown": it cannot be told; no method raises for that."""

    node: str | None
    """The cluster node that this machine is; None: it is none."""

    def state(self) -> State | None:
        """The cluster's state from the orchestrator that leads it now."""

    def active(self) -> tuple[str, ...] | None:
        """Where the cluster manager of this node says that the group is: nowhere, one node, or (double activation) several."""

    def boot(self) -> str | None:
        """Id of this node's present boot."""

    def startups(self) -> Mapping[str, str] | None:
        """DataCoordinator's services in this node's operating system: name -> `manual`, or what else its startup type is."""

    def listening(self, port: int) -> bool | None:
        """Whether anything listens on the port here."""

    def there(self, path: str) -> bool | None:
        """Whether a file or folder is there, on this node."""

    def program(self, service: str) -> str | None:
        """The program of a service as this node's configuration has it."""

    def check(self, metadata_path: str | None, shared_folder: str | None) -> Finding:
        """What `dcsup check --node` finds here."""


@dataclass(frozen=True)
class Case:
    """A step and everything that its verification may need."""

    step: Step
    shape: Shape
    values: Mapping[str, str]
    before: Mapping[str, Any]
    """What `before` returned when the step was first shown."""
    seen: Mapping[str, Mapping[str, Any]]
    """Step -> what was kept with it when it was recorded."""
    eyes: Eyes

    @property
    def node(self) -> str:
        return self.step.node or ""

    @property
    def about(self) -> tuple[str, ...]:
        return self.step.verification.about if self.step.verification else ()

    @property
    def here(self) -> bool:
        return self.eyes.node == self.step.node


def before(step: Step, eyes: Eyes) -> dict[str, Any]:
    """How things are before a step, where its verification compares: to be remembered across reboots."""
    kind = step.verification.kind if step.verification else None
    if kind == "rebooted" and (boot := _boot(step.node or "", eyes)) is not None:
        return {"boot": boot}
    if kind == "failed-over" and (state := eyes.state()) is not None:
        return {"failovers": [one["id"] for one in _failovers(state)]}
    return {}


def verify(case: Case) -> Finding:
    """What can be seen of a step. One without a verification is for people's eyes only."""
    if case.step.verification is None:
        return _unknown(say("no machine can see this"))
    return _KINDS[case.step.verification.kind](case)


def together(findings: Iterable[Finding]) -> Finding:
    """One no is a no, else one unknown is an unknown."""
    every = list(findings)
    answers = {finding.answer for finding in every}
    answer: Answer = "no" if "no" in answers else "unknown" if "unknown" in answers else "yes"
    seen = {name: value for finding in every for name, value in finding.seen.items()}
    return Finding(answer, tuple(said for finding in every for said in finding.said), seen)


def _yes(*said: Said, **seen: Any) -> Finding:
    return Finding("yes", said, seen)


def _no(*said: Said, **seen: Any) -> Finding:
    return Finding("no", said, seen)


def _unknown(*said: Said, **seen: Any) -> Finding:
    return Finding("unknown", said, seen)


def _not_here(case: Case) -> Finding:
    return _unknown(say("this can be seen on {node} only", node=case.node))


def _nobody_leads() -> Finding:
    return _unknown(say("no orchestrator that leads the cluster answers, so its state is not known"))


# --- the group ----------------------------------------------------------------------------------------------------------------------------


def where(eyes: Eyes) -> tuple[str, ...] | None:
    """Where the group is: this node's own cluster manager first, else the view of a node whose worker lives."""
    here = eyes.active()
    if here is not None:
        return here
    state = eyes.state()
    view = state["view"] if state is not None else None
    if state is None or view is None or not state["nodes"].get(view["node"], {}).get("present"):
        return None
    if view["group_state"] == "online" and view["current"]:
        return (view["current"],)
    return () if view["group_state"] == "offline" else None


def _group_known(case: Case) -> Finding:
    found = where(case.eyes)
    if found is None:
        return _unknown(say("the cluster manager cannot be asked from here"))
    group = case.shape.settings.group_there
    return _yes(say("the cluster manager knows the group {group}; it is on {nodes}", group=group, nodes=_names(found)))


def _group_on(case: Case) -> Finding:
    found = where(case.eyes)
    if found is None:
        return _unknown(say("where the group is cannot be seen from here"))
    if len(found) > 1:
        return _no(say("DOUBLE ACTIVATION: the group is on {nodes}", nodes=_names(found)))
    if found == (case.node,):
        return _yes(say("the group is on {node}", node=case.node))
    return _no(say("the group is on {found}, not on {node}", found=_names(found), node=case.node))


def _names(nodes: tuple[str, ...]) -> str:
    return ", ".join(nodes) or "-"


def _moved(case: Case) -> Finding:
    return together([_serving(case), *_judged(case)])


def _judged(case: Case) -> list[Finding]:
    """What became of the schedules after the last start, for each service that owns some."""
    state = case.eyes.state()
    if state is None:
        return []  # the services have said so already
    return [_verdict(name, state["schedules"].get(name) or {}) for name in _owners(case)]


def _verdict(name: str, status: State) -> Finding:
    if status.get("owed") or not status.get("judgement"):
        return _unknown(say("the schedules of {service} are not judged yet", service=name))
    verdicts = status["judgement"]["schedules"]
    missed = [one["name"] for one in verdicts if one["outcome"] == "missed"]
    if missed:
        return _no(say("schedules that should run and do not: {names}", names=", ".join(missed)))
    if not verdicts or any(one["outcome"] == "unknown" for one in verdicts):
        return _unknown(say("what became of the schedules of {service} is not known", service=name))
    return _yes(say("{count} schedules of {service} were judged, none was missed", count=len(verdicts), service=name))


def _serving(case: Case) -> Finding:
    state = case.eyes.state()
    if state is None:
        return together([_group_on(case), _nobody_leads()])
    return together([_group_on(case), *(_service(name, case, state) for name in _services(case))])


def _service(name: str, case: Case, state: State) -> Finding:
    status = state["services"].get(name) or {}
    if status.get("state") == "running" and status.get("verified") and status.get("node") == case.node:
        return _yes(say("{service} runs on {node} and is verified", service=name, node=case.node))
    values = {"service": name, "state": status.get("state", "-"), "node": status.get("node") or "-"}
    return _no(say("{service} is {state} (node {node})", **values))


def _services(case: Case) -> list[str]:
    return [service.name for service in case.shape.settings.services]


def _owners(case: Case) -> list[str]:
    return [service.name for service in case.shape.settings.services if service.owns_schedules]


# --- a node -------------------------------------------------------------------------------------------------------------------------------


def _boot(node: str, eyes: Eyes) -> str | None:
    if eyes.node == node:
        return eyes.boot()
    state = eyes.state()
    boot = state["nodes"].get(node, {}).get("boot") if state is not None else None
    return boot if isinstance(boot, str) else None


def _rebooted(case: Case) -> Finding:
    then, now = case.before.get("boot"), _boot(case.node, case.eyes)
    if then is None or now is None:
        return _unknown(say("the boot of {node} cannot be compared from here", node=case.node))
    if then == now:
        return _no(say("{node} has not been rebooted since this step was first shown", node=case.node))
    return _yes(say("{node} has been rebooted", node=case.node))


def _port_free(case: Case) -> Finding:
    if not case.here:
        return _not_here(case)
    port = case.shape.metadata.port
    taken = case.eyes.listening(port)
    if taken is None:
        return _unknown(say("whether port {port} is free cannot be told", port=port))
    if taken:
        return _no(say("something listens on port {port} already (G31)", port=port))
    return _yes(say("nothing listens on port {port}", port=port))


def _installed(case: Case) -> Finding:
    if not case.here:
        return _not_here(case)
    data = {"server": "metadata_path", "agent": "shared_folder"}
    kept = [_data_there(case, data[component]) for component in case.about if case.values.get(data[component])]
    return together([*(_program(name, case) for name in _of_kind(case)), *kept])


def _of_kind(case: Case) -> list[str]:
    return [service.name for service in case.shape.settings.services if service.kind in case.about]


def _program(name: str, case: Case) -> Finding:
    path = case.eyes.program(name)
    if path is None or not places.pure(path).is_absolute():
        return _unknown(say("the configuration does not say where the program of {service} is on this node", service=name))
    wrong = [*places.mistakes(case.values, ("install_path",))]
    if wrong:
        return _no(*wrong)
    there = case.eyes.there(path)
    if there is None:
        return _unknown(say("whether {path} is there cannot be told", path=path))
    if not there:
        return _no(say("{path} is not there", path=path))
    install_path = case.values.get("install_path")
    if install_path and not places.below(path, install_path):
        values = {"path": path, "folder": install_path}
        return _no(say("{path} is not below the install path {folder}, which is the same on every node (G27)", **values))
    return _yes(say("{path} is there", path=path))


def _data_there(case: Case, name: str) -> Finding:
    path = case.values[name]
    there = case.eyes.there(path)
    if there is None:
        return _unknown(say("whether {path} is there cannot be told", path=path))
    return _yes(say("{path} is there", path=path)) if there else _no(say("{path} is not there", path=path))


def _uninstalled(case: Case) -> Finding:
    if not case.here:
        return _not_here(case)
    return together([*(_gone(name, case) for name in _of_kind(case)), *_kept(case)])


def _gone(name: str, case: Case) -> Finding:
    path = case.eyes.program(name)
    there = case.eyes.there(path) if path is not None and places.pure(path).is_absolute() else None
    if there is None:
        return _unknown(say("whether the program of {service} is gone cannot be told", service=name))
    return _no(say("{path} is still there", path=path)) if there else _yes(say("{path} is gone", path=path))


def _kept(case: Case) -> list[Finding]:
    """On a standby the shared data must stay (G38); it can be seen only where the disk is."""
    name = "metadata_path" if "server" in case.about else "shared_folder"
    if "standby" not in case.about or not case.values.get(name) or case.eyes.active() != (case.node,):
        return []
    return [_data_there(case, name)]


def _manual(case: Case) -> Finding:
    """All of DataCoordinator's services that are there: only the metadata DB's is known by name."""
    if not case.here:
        return _not_here(case)
    found = case.eyes.startups()
    if found is None:
        return _unknown(say("how the services of {node} start cannot be told", node=case.node))
    findings = [_startup(service, startup) for service, startup in sorted(found.items())]
    metadata = case.shape.metadata.service
    if ("server" in case.about and metadata not in found) or not findings:
        findings.append(_unknown(say("no service is called '{service}' here", service=metadata)))
    return together(findings)


def _startup(service: str, startup: str) -> Finding:
    if startup == "manual":
        return _yes(say("service '{service}' starts manually", service=service))
    if startup == "unknown":
        return _unknown(say("how service '{service}' starts cannot be told", service=service))
    return _no(say("service '{service}': startup type {found}, not manual (G33)", service=service, found=startup))


def _check(case: Case) -> Finding:
    if not case.here:
        return _not_here(case)
    return case.eyes.check(case.values.get("metadata_path"), case.values.get("shared_folder"))


# --- values -------------------------------------------------------------------------------------------------------------------------------


def _values(case: Case) -> Finding:
    wrong = [*places.mistakes(case.values, case.about)]
    if wrong:
        return _no(*wrong)
    missing = [name for name in case.about if not case.values.get(name)]
    if missing:
        return _unknown(say("not given yet: {names}", names=", ".join(missing)))
    return _yes(say("every value is given"))


# --- the whole cluster --------------------------------------------------------------------------------------------------------------------


def _healthy(case: Case) -> Finding:
    state = case.eyes.state()
    if state is None:
        return _nobody_leads()
    wrong = [*_sick_services(state, case), *_sick_nodes(state, case)]
    if state["double_activation"]:
        wrong.append(say("DOUBLE ACTIVATION: the group was seen on two nodes"))
    if state["failover"]:
        wrong.append(say("failover {id} is under way", id=state["failover"]["id"]))
    return _no(*wrong) if wrong else _yes(say("every service is verified on {node}, every node is there", node=state["active"] or "-"))


def _sick_services(state: State, case: Case) -> list[Said]:
    statuses = {name: state["services"].get(name) or {} for name in _services(case)}
    return [
        say("{service} is {state} (node {node})", service=name, state=status.get("state", "-"), node=status.get("node") or "-")
        for name, status in statuses.items()
        if status.get("state") != "running" or not status.get("verified")
    ]


def _sick_nodes(state: State, case: Case) -> list[Said]:
    statuses = {name: state["nodes"].get(name) or {} for name in case.shape.settings.nodes}
    return [
        say("node {node} is {state}", node=name, state=status.get("state", "-"))
        for name, status in statuses.items()
        if status.get("state") != "running" or not status.get("present")
    ]


def _no_maintenance(case: Case) -> Finding:
    state = case.eyes.state()
    if state is None:
        return _nobody_leads()
    if state["paused_since_ms"]:
        return _no(say("dcsup was paused by {by}; `dcsup resume` ends that", by=state["paused_by"] or "-"))
    if state["suspended"]:
        return _no(say("the cluster is suspended; `clpcl --resume` ends that"))
    if not state["view"] or state["view"]["suspended"] is None:
        return _unknown(say("whether the cluster is suspended cannot be told"))
    return _yes(say("neither paused nor suspended"))


def _schedules_known(case: Case) -> Finding:
    state = case.eyes.state()
    if state is None:
        return _nobody_leads()
    findings = [_observed(name, state["schedules"].get(name) or {}) for name in _owners(case)]
    return together(findings) if findings else _yes(say("no service of this cluster has schedules"))


def _observed(name: str, status: State) -> Finding:
    if status.get("probe_error"):
        return _no(say("the probe of {service} fails: {why}", service=name, why=status["probe_error"]))
    if not status.get("latest"):
        return _unknown(say("no schedules of {service} were seen yet", service=name))
    schedules = status["latest"]["schedules"]
    started = sum(one["state"] == "started" for one in schedules)
    return _yes(say("{count} schedules of {service}, {started} started", count=len(schedules), service=name, started=started))


# --- a drill ------------------------------------------------------------------------------------------------------------------------------


def _failovers(state: State) -> list[State]:
    """The ended ones, then the open one."""
    return [*state["failovers"], *([state["failover"]] if state["failover"] else [])]


def _failed_over(case: Case) -> Finding:
    state = case.eyes.state()
    if state is None:
        return _nobody_leads()
    if "failovers" not in case.before:
        return _unknown(say("dcsup could not see what was before this step, so it does not know which failover followed"))
    new = [one for one in _failovers(state) if one["id"] not in case.before["failovers"] and one["outcome"] != "cleared"]
    if not new:
        return _no(say("no failover has begun since this step was first shown"))
    return _one_failover(new[0], case.about[0])


def _one_failover(failover: State, wanted: str) -> Finding:
    values = {name: failover[name] for name in ("id", "state", "kind")}
    if failover["outcome"] is None:
        return _unknown(say("failover {id} ({kind}) is under way: {state}", **values), failover=failover)
    ended = say("failover {id} ({kind}) ended: {outcome}", outcome=failover["outcome"], **values)
    planned = failover["kind"] == "move"
    if failover["outcome"] != "completed" or planned != (wanted == "move"):
        return _no(ended, failover=failover)
    return _yes(ended, failover=failover)


def _objectives(case: Case) -> Finding:
    failover = case.seen.get(case.about[0], {}).get("failover")
    if not failover:
        return _unknown(say("no failover was found"))
    return judge(failover, case.values.get("limit_s"), bool(_owners(case)))


def judge(failover: State, limit_s: str | None, has_schedules: bool) -> Finding:
    """Whether a failover met the objectives: completed, within the agreed time if one was agreed, no schedule missed."""
    findings = [_ending(failover), _duration(failover["total_s"], limit_s)]
    if has_schedules:
        findings.append(_resumption([one for judgement in failover["judgements"] for one in judgement["schedules"]]))
    return together(findings)


def _ending(failover: State) -> Finding:
    ended = say("outcome: {outcome}", outcome=failover["outcome"] or failover["state"])
    if failover["outcome"] is None:
        return _unknown(ended)
    return _yes(ended) if failover["outcome"] == "completed" else _no(ended)


def _duration(total_s: float | None, limit_s: str | None) -> Finding:
    if total_s is None:
        return _unknown(say("how long it took is not known"))
    took = f"{total_s:.1f}"
    if limit_s is None:
        return _yes(say("it took {total} s; no limit was agreed", total=took))
    told = say("it took {total} s of the agreed {limit} s", total=took, limit=limit_s)
    return _yes(told) if total_s <= float(limit_s) else _no(told)


def _resumption(verdicts: list[State]) -> Finding:
    missed = [one["name"] for one in verdicts if one["outcome"] == "missed"]
    if missed:
        return _no(say("schedules that should run and do not: {names}", names=", ".join(missed)))
    unclear = [one["name"] for one in verdicts if one["outcome"] == "unknown"]
    if unclear or not verdicts:
        return _unknown(say("schedules of which nothing is known: {names}", names=", ".join(unclear) or "-"))
    return _yes(say("no schedule was missed ({count} judged)", count=len(verdicts)))


_KINDS: dict[str, Callable[[Case], Finding]] = {
    "group-known": _group_known, "values": _values, "group-on": _group_on, "moved": _moved, "rebooted": _rebooted,
    "port-free": _port_free, "installed": _installed, "uninstalled": _uninstalled, "manual": _manual, "serving": _serving,
    "check": _check, "healthy": _healthy, "no-maintenance": _no_maintenance, "schedules-known": _schedules_known,
    "failed-over": _failed_over, "objectives": _objectives,
}  # fmt: skip
