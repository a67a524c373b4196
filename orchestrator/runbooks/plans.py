"""The runbooks: from a cluster's settings to the steps in their order.

Pure functions. The order is the guide's own (G26: install where the group is up, move, reboot, and so on for each standby); what is added
to it is only what the guide asks for elsewhere, and each step names its rule. Nodes are taken in the group's order of priority: the first
is installed first and uninstalled last.

On a cluster with server and agent on one machine, `install-server` installs both at each visit of a node and `uninstall-server` removes
both, the agent first (G38); `install-agent` and `uninstall-agent` are for the agent alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from orchestrator.runbooks.steps import PARTS, Step, Verification
from orchestrator.said import Said, say
from statemachines.configuration import ClusterSettings, MetadataSettings

DrillKind = Literal["move", "failure"]
Component = Literal["server", "agent"]

FOR_SERVER = ("path", "server-host")
FOR_AGENT = ("path", "agent-host", "server-address")


class DoesNotFit(ValueError):
    """The runbook is not for this cluster; `said` tells why, and what would be."""

    def __init__(self, said: Said) -> None:
        super().__init__(str(said))
        self.said = said


@dataclass(frozen=True)
class Shape:
    """What of a cluster's settings the steps depend on."""

    name: str
    settings: ClusterSettings

    @property
    def first(self) -> str:
        return self.settings.nodes[0]

    @property
    def standbys(self) -> list[str]:
        return self.settings.nodes[1:]

    def has(self, component: Component) -> bool:
        return any(service.kind == component for service in self.settings.services)

    @property
    def both(self) -> bool:
        return self.has("server") and self.has("agent")

    @property
    def databases(self) -> str:
        """G2: one local DBMS of one agent is enough to be `local`; without a word of the site it is `unsaid`."""
        said = [service.databases for service in self.settings.services if service.kind == "agent"]
        return "local" if "local" in said else "unsaid" if None in said else "remote"

    @property
    def metadata(self) -> MetadataSettings:
        return self.settings.metadata or MetadataSettings()

    @property
    def components(self) -> tuple[Component, ...]:
        found: tuple[Component, ...] = ("server", "agent")
        return tuple(one for one in found if self.has(one))


def plan(name: str, shape: Shape, drill: DrillKind = "move", to: str | None = None) -> list[Step]:
    """The steps of a runbook for one cluster. `drill` and `to` (where the group is to go) matter to the drill only.

    Raises:
        DoesNotFit: the cluster has no such service, no standby, or no such node.
    """
    _fits(name, shape, to)
    if name == "drill":
        return list(_drill(shape, drill, to or shape.standbys[0]))
    return list(PLANS[name](shape))


def _fits(name: str, shape: Shape, to: str | None) -> None:
    if not shape.standbys:
        raise DoesNotFit(say("cluster '{cluster}' has one node only: there is no standby to lead through (G1)", cluster=shape.name))
    component: Component | None = "server" if name.endswith("-server") else "agent" if name.endswith("-agent") else None
    if component is not None and not shape.has(component):
        text = say("cluster '{cluster}' has no service of kind '{kind}', so {runbook} is not for it", kind=component, runbook=name)
        raise DoesNotFit(Said(text.template, {**text.values, "cluster": shape.name}))
    if to is not None and to not in shape.settings.nodes:
        known = ", ".join(shape.settings.nodes)
        raise DoesNotFit(say("cluster '{cluster}' has no node '{node}'; known: {known}", cluster=shape.name, node=to, known=known))


# --- installing (G25-G36, G40) ------------------------------------------------------------------------------------------------------------


def _install_server(shape: Shape) -> Iterator[Step]:
    yield _cluster_first()
    if shape.both:
        yield _databases(shape)
    yield _values(shape, shape.components)
    yield from _visits(shape, shape.components)
    yield from _manual(shape, shape.components)
    yield from _into_the_group(shape)
    yield Step("clients", "clients", None, ("G36",))
    yield from _first_start(shape)


def _install_agent(shape: Shape) -> Iterator[Step]:
    yield _cluster_first()
    yield _databases(shape)
    yield _values(shape, ("agent",))
    yield from _visits(shape, ("agent",))
    yield from _manual(shape, ("agent",))
    yield from _into_the_group(shape)
    yield from _first_start(shape)


def _cluster_first() -> Step:
    return Step("cluster-first", "cluster-first", None, ("G25", "G1", "G3"), Verification("group-known"))


def _databases(shape: Shape) -> Step:
    return Step("databases", f"databases-{shape.databases}", None, ("G2", "G3"))


def _values(shape: Shape, components: tuple[Component, ...]) -> Step:
    parts = tuple(dict.fromkeys(part for one in components for part in _parts(shape, one, new=True)))
    about = tuple(name for one in components for name in VALUES_OF[one])
    return Step("values", "values", None, _rules(parts), Verification("values", tuple(dict.fromkeys(about))), parts)


VALUES_OF: dict[Component, tuple[str, ...]] = {
    "server": ("install_path", "floating_ip", "server_port", "disk", "metadata_path", "account"),
    "agent": ("install_path", "floating_ip", "agent_port", "agent_name", "server_address", "disk", "shared_folder"),
}
"""What must be known before an installer is started."""


def _parts(shape: Shape, component: Component, *, new: bool) -> tuple[str, ...]:
    apart = ("apart",) if shape.both else ()
    if component == "server":
        metadata = "metadata-new" if new else "metadata-existing"
        return (*FOR_SERVER, metadata, "account", "port", "memory", "manual-server", *apart)
    return (*FOR_AGENT, "folder-new" if new else "folder-existing", "memory", "manual-agent", *apart)


def _rules(parts: tuple[str, ...], *more: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*more, *(PARTS[part] for part in parts)]))


def _visits(shape: Shape, components: tuple[Component, ...]) -> Iterator[Step]:
    """G26: the active node, then each standby; every node is installed while the group is up on it, and rebooted when it is not."""
    yield Step(f"group-up.{shape.first}", "group-up", shape.first, ("G26",), Verification("group-on"))
    yield from _installs(shape, components, shape.first, new=True)
    for standby in shape.standbys:
        yield _move(standby)
        if standby == shape.standbys[0]:
            yield _reboot(shape.first)
        yield from _installs(shape, components, standby, new=False)
        yield _back(shape, standby)
        yield _reboot(standby)


def _installs(shape: Shape, components: tuple[Component, ...], node: str, *, new: bool) -> Iterator[Step]:
    if "server" in components:
        yield Step(f"port.{node}", "port", node, ("G31",), Verification("port-free"))
    for component in components:
        parts = _parts(shape, component, new=new)
        kind = f"install-{component}-{'first' if new else 'standby'}"
        seen = Verification("installed", (component,))
        yield Step(f"install-{component}.{node}", kind, node, _rules(parts, "G26"), seen, parts)


def _move(node: str, *, verified: Literal["group-on", "moved"] = "group-on", rules: tuple[str, ...] = ("G26",)) -> Step:
    return Step(f"move.{node}", "move", node, rules, Verification(verified))


def _back(shape: Shape, standby: str, *, verified: Literal["group-on", "moved"] = "group-on", rules: tuple[str, ...] = ("G26",)) -> Step:
    """Named after the node that the group comes from, for it comes back from each standby."""
    return Step(f"back.{standby}", "back", shape.first, rules, Verification(verified), values={"standby": standby})


def _reboot(node: str) -> Step:
    return Step(f"reboot.{node}", "reboot", node, ("G26",), Verification("rebooted"))


def _manual(shape: Shape, components: tuple[Component, ...]) -> Iterator[Step]:
    kind = "manual-both" if len(components) > 1 else f"manual-{components[0]}"
    for node in shape.settings.nodes:
        yield Step(f"manual.{node}", kind, node, ("G33",), Verification("manual", tuple(components)))


def _into_the_group(shape: Shape) -> Iterator[Step]:
    """The scripts, and the resources that run them; beside a DBMS whose scripts exist already, the lines are added to those (G42)."""
    if shape.has("agent") and shape.databases != "remote":
        yield Step("scripts", "scripts-dbms", None, ("G24", "G42", "G8", "G12"))
    else:
        yield Step("scripts", "scripts", None, ("G8", "G12", "G22"))
    kind = "resources-both" if shape.both else "resources"
    yield Step("resources", kind, None, ("G40", "G22", *(("G23", "G35") if shape.both else ())))


def _first_start(shape: Shape) -> Iterator[Step]:
    yield Step(f"start.{shape.first}", "start", shape.first, ("G40", "G20"), Verification("serving"))
    for node in shape.settings.nodes:
        yield Step(f"check.{node}", "check", node, ("G27", "G31", "G33"), Verification("check"))


# --- registering (G37) --------------------------------------------------------------------------------------------------------------------


def _register_agent(shape: Shape) -> Iterator[Step]:
    yield Step(f"serving.{shape.first}", "serving", shape.first, ("G37",), Verification("serving"))
    yield Step("register", "register", None, ("G37",))
    yield Step(f"look.{shape.first}", "look", shape.first, ("G37",))
    for standby in shape.standbys:
        yield _move(standby, verified="moved", rules=("G37", "G3"))
        yield Step(f"look.{standby}", "look-again", standby, ("G37",))
    yield _back(shape, shape.standbys[-1], verified="moved", rules=("G37", "G3"))


# --- uninstalling (G38, G39) --------------------------------------------------------------------------------------------------------------


def _uninstall_server(shape: Shape) -> Iterator[Step]:
    components: tuple[Component, ...] = ("agent", "server") if shape.both else ("server",)
    yield Step("take-out", "take-out", None, ("G38", "G40"), danger=True)
    for standby in shape.standbys:
        yield _move(standby, rules=("G38",))
        yield from _removals(components, standby, last=False)
    yield _back(shape, shape.standbys[-1], rules=("G38",))
    yield from _removals(components, shape.first, last=True)


def _uninstall_agent(shape: Shape) -> Iterator[Step]:
    yield Step("take-out", "take-out-agent", None, ("G39", "G40", "G42"), danger=True)
    yield Step(f"group-up.{shape.first}", "group-up", shape.first, ("G39",), Verification("group-on"))
    for standby in shape.standbys:
        yield from _removals(("agent",), standby, last=False)
    yield from _removals(("agent",), shape.first, last=True)


def _removals(components: tuple[Component, ...], node: str, *, last: bool) -> Iterator[Step]:
    for component in components:
        kind = f"uninstall-{component}-{'last' if last else 'standby'}"
        rules = ("G38",) if component == "server" else ("G39", "G38") if "server" in components else ("G39",)
        seen = Verification("uninstalled", (component, "last" if last else "standby"))
        yield Step(f"uninstall-{component}.{node}", kind, node, rules, seen, danger=True)


# --- the drill ----------------------------------------------------------------------------------------------------------------------------


def _drill(shape: Shape, kind: DrillKind, to: str) -> Iterator[Step]:
    yield Step("healthy", "drill-healthy", None, ("G20",), Verification("healthy"))
    yield Step("no-maintenance", "drill-no-maintenance", None, (), Verification("no-maintenance"))
    yield Step("schedules", "drill-schedules", None, ("G4", "G5", "G6"), Verification("schedules-known"))
    yield Step("announce", "drill-announce", None, (), Verification("values", ("limit_s",)))
    values = {"to": to}
    yield Step("provoke", f"drill-{kind}", None, ("G3",), Verification("failed-over", (kind,)), danger=True, values=values)
    yield Step("objectives", "drill-objectives", None, ("G3", "G4", "G7"), Verification("objectives", ("provoke",)))
    yield Step("clients", "drill-clients", None, ("G3", "G37"))
    yield Step("again-healthy", "drill-again-healthy", None, ("G16",), Verification("healthy"))


PLANS: dict[str, Callable[[Shape], Iterator[Step]]] = {
    "install-server": _install_server,
    "install-agent": _install_agent,
    "register-agent": _register_agent,
    "uninstall-server": _uninstall_server,
    "uninstall-agent": _uninstall_agent,
}
NAMES = (*PLANS, "drill")
