"""What a site may set: the models behind dcsup.toml.

`[clusters.<name>]` says how a cluster is supervised; it is the orchestrator's and goes into the log, because decisions depend on
it. `[node]` says where things are on one machine (paths, commands); it never leaves that machine. `[redis]` and
`[orchestrator]` are how a process is run. Reading the file, and saying on which line a mistake is, is orchestrator/settings.py.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from statemachines import wire
from statemachines.durations import Seconds


class Clash(NamedTuple):
    """Two settings that do not go together: where (below the table that noticed it), and a text with named values to fill in."""

    where: tuple[str | int, ...]
    text: str
    values: dict[str, Any]

    def __str__(self) -> str:
        place = ".".join(map(str, self.where))
        return f"{place}: {self.text.format(**self.values)}" if place else self.text.format(**self.values)


class Inconsistent(ValueError):
    """Every clash of a table at once; carries them apart, so that a reader of the file can tell each one's line."""

    def __init__(self, clashes: list[Clash]) -> None:
        super().__init__("; ".join(map(str, clashes)))
        self.clashes = clashes


def _refuse(clashes: list[Clash]) -> None:
    if clashes:
        raise Inconsistent(clashes)


def _name(value: str) -> str:
    if not wire.NAME.fullmatch(value):
        raise ValueError("a name is 1 to 32 of a-z, 0-9 and '-', not beginning or ending with '-'")
    return value


Name = Annotated[str, AfterValidator(_name)]
Argv = Annotated[list[str], Field(min_length=1)]
Positive = Annotated[Seconds, Field(gt=0)]
Verb = Literal["start", "recover", "stop", "faststop"]
Mode = Literal["observe", "supervise"]


class Section(BaseModel):
    """A table of dcsup.toml: unknown keys are mistakes, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ServiceSettings(Section):
    """One DataCoordinator service of the group. The list's order is the start order (G23); a stop runs in reverse."""

    name: Name
    kind: Literal["agent", "server"]
    schedules: bool | None = None
    """Whether the schedules are judged after this service came up; default: for a server, yes."""

    @property
    def owns_schedules(self) -> bool:
        return self.kind == "server" if self.schedules is None else self.schedules


class WatchSettings(Section):
    """How `dcstatus` is polled (G20, G22). `profile = "fast"` is for sites that know that an early 0 is true and cheap."""

    profile: Literal["normal", "fast"] = "normal"
    interval: Positive = 10.0
    first_check_after: Seconds | None = None
    startup_interval: Positive | None = None
    verify_confirm: Annotated[int, Field(ge=1, le=20)] | None = None
    confirm: Annotated[int, Field(ge=1, le=20)] = 1
    poll_limit: Positive = 30.0
    unknown_confirm: Annotated[int, Field(ge=1)] | None = None
    """How many polls in a row without an answer count as one failed poll; None: never (the guide would only wait)."""

    @property
    def first_check_after_s(self) -> float:
        if self.first_check_after is not None:
            return self.first_check_after
        return 0.1 if self.profile == "fast" else 1.0

    @property
    def startup_interval_s(self) -> float | None:
        """Seconds between polls while a service comes up; None: twice the last poll's own time, at least 1 s."""
        if self.startup_interval is not None:
            return self.startup_interval
        return 0.1 if self.profile == "fast" else None

    @property
    def verify_confirm_polls(self) -> int:
        if self.verify_confirm is not None:
            return self.verify_confirm
        return 1 if self.profile == "fast" else 2


class ScriptSettings(Section):
    """Limits of one kind of script call."""

    command_limit: Positive = 300.0
    """After this a command is ended with everything that it started and counts as failed."""
    deadline: Positive = 600.0
    """After this a call that has not reached its end state is given up."""


class StopSettings(ScriptSettings):
    report_failure: bool = False
    """A stop that is proved to have failed returns non-zero; CLUSTERPRO's default then is to shut the OS down."""


class ScheduleSettings(Section):
    after_death: Literal["G4"] = "G4"
    """G7: which rule is assumed where nothing was stopped because node or process died."""
    probe_interval: Positive = 60.0
    settle: Seconds = 2.0
    """How long after the verification an observation must be taken to count."""
    deadline: Positive = 60.0
    """How long after the verification the last observation decides."""
    probe: Literal["command", "none"] = "command"
    """`none` says on purpose that this site cannot list its schedules: outcomes are `unknown`."""


class ClusterSettings(Section):
    """One failover pair (or more standbys), G1."""

    mode: Mode = "observe"
    group: Name
    nodes: Annotated[list[Name], Field(min_length=1)]
    """In the group's order of priority."""
    services: Annotated[list[ServiceSettings], Field(min_length=1)]
    watch: WatchSettings = WatchSettings()
    start: ScriptSettings = ScriptSettings()
    stop: StopSettings = StopSettings()
    schedules: ScheduleSettings = ScheduleSettings()
    ack_timeout: Positive = 4.0
    """How long a hook waits for its ticket to be taken."""
    node_ttl: Positive = 5.0
    """A node whose sign of life is older is lost."""
    takeover_deadline: Positive = 900.0
    """A group that was taken away and is not started anywhere after this long: the failover failed."""
    suspicion_deadline: Positive = 600.0
    """A symptom on which the cluster manager did not act for this long is cleared."""
    probation: Seconds = 10.0
    """How long a returned node is `recovering`."""

    @model_validator(mode="after")
    def _consistent(self) -> ClusterSettings:
        _refuse([*self._clashes_of_services(), *self._clashes_of_nodes()])
        return self

    def _clashes_of_services(self) -> list[Clash]:
        names = [service.name for service in self.services]
        clashes = [
            Clash(("services", n, "name"), "two services are called '{name}'", {"name": name})
            for n, name in enumerate(names)
            if name in names[:n]
        ]
        kinds = [service.kind for service in self.services]
        if "agent" in kinds and "server" in kinds and kinds.index("server") < len(kinds) - 1 - kinds[::-1].index("agent"):
            text = "an agent on the server's machine is started before the server (G23): put it first"
            clashes.append(Clash(("services", kinds.index("server")), text, {}))
        return clashes

    def _clashes_of_nodes(self) -> list[Clash]:
        twins = [
            Clash(("nodes", n), "two nodes are called '{name}'", {"name": name})
            for n, name in enumerate(self.nodes)
            if name in self.nodes[:n]
        ]
        text = "'{one}' is a prefix of '{other}', so Redis access rules cannot tell them apart"
        return twins + [
            Clash(("nodes", self.nodes.index(one)), text, {"one": one, "other": other})
            for one in dict.fromkeys(self.nodes)
            for other in dict.fromkeys(self.nodes)
            if one != other and other.startswith(one)
        ]

    def service(self, name: str) -> ServiceSettings | None:
        return next((service for service in self.services if service.name == name), None)


class NodeServiceSettings(Section):
    """Where a service's two commands are on this node."""

    command: Argv
    """The verb is put behind it: `["C:\\\\DataCoordinatorRA\\\\server\\\\bin\\\\dcserver.bat"]`."""
    status: Argv
    """`dcstatus`: exit code 0 is healthy, anything else is not."""


class NodeSettings(Section):
    """One machine of the cluster: what `dcsup worker` runs with."""

    name: Name
    cluster: Name
    folder: str
    """The node folder: outbox, tickets, journal. On a local disk that does not move with the group."""
    boot: Argv | None = None
    """A command whose output is this boot's id; the scripts use the same one (NODE.md N4). None: the operating system's own."""
    encoding: Literal["utf-8", "cp932"] = "utf-8"
    """Of the output of the site's commands."""
    services: dict[Name, NodeServiceSettings]
    probe: Argv | None = None
    """Prints one JSON object a line: name, startup_mode auto|manual, state started|stopped."""
    clpstat: Argv | None = None
    clpgrp: Argv | None = None
    view_interval: Positive = 5.0


class RedisSettings(Section):
    url: str | None = None
    embedded: str | None = None
    """Folder in which dcsup runs a Redis of its own (append-only, fsync always)."""

    @model_validator(mode="after")
    def _one(self) -> RedisSettings:
        if (self.url is None) == (self.embedded is None):
            _refuse([Clash((), "set either url (a Redis of your own) or embedded (a folder), and not both", {})])
        return self


class OrchestratorSettings(Section):
    listen: str = "127.0.0.1:9464"
    """Where /metrics and /status are served."""
    lease_ttl: Positive = 1.5
    snapshot_every: Annotated[int, Field(ge=10)] = 500
    """Log entries between two snapshots."""


class Configuration(Section):
    redis: RedisSettings
    orchestrator: OrchestratorSettings = OrchestratorSettings()
    clusters: Annotated[dict[Name, ClusterSettings], Field(min_length=1)]
    node: NodeSettings | None = None

    @model_validator(mode="after")
    def _node_fits(self) -> Configuration:
        if self.node is None:
            return self
        _refuse(self._clashes_of_node(self.node))
        return self

    def _clashes_of_node(self, node: NodeSettings) -> list[Clash]:
        cluster = self.clusters.get(node.cluster)
        if cluster is None:
            text = "cluster '{cluster}' has no [clusters.{cluster}] table"
            return [Clash(("node", "cluster"), text, {"cluster": node.cluster})]
        clashes = []
        if node.name not in cluster.nodes:
            text = "'{name}' is not among the nodes of cluster '{cluster}'"
            clashes.append(Clash(("node", "name"), text, {"name": node.name, "cluster": node.cluster}))
        text = "there is no [node.services.{service}] table, though the cluster has that service"
        missing = [service.name for service in cluster.services if service.name not in node.services]
        clashes += [Clash(("node", "services"), text, {"service": name}) for name in missing]
        text = "cluster '{cluster}' has no service '{service}'"
        unknown = [name for name in node.services if cluster.service(name) is None]
        return clashes + [Clash(("node", "services", name), text, {"cluster": node.cluster, "service": name}) for name in unknown]
