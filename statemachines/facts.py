"""What happened: every fact that a producer may hand in, and the envelope that it travels in.

On a node a fact is first a file in the outbox (NODE.md; workers/outbox.py). The forwarder numbers it, adds what it measured about
clocks, and hands it in as one inbox entry whose field `f` is the envelope below as JSON. Which node a fact is of is
told by the inbox it arrived in, never by its own words: a node can only write its own inbox.

A fact's `at_ms` is the time it happened on Redis's time line, in ms since the epoch, as well as the node could tell:
`clock = "mono"` mapped from the node's monotonic clock by a measured offset, `"wall"` from its wall clock (a script's line: the
file's time), `"arrival"` when nothing better is known.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

from statemachines.configuration import ClusterSettings, Name, Verb

Status = Literal["healthy", "unhealthy", "unknown"]
By = Literal["worker", "script"]


class Envelope(BaseModel):
    """What every inbox entry carries; `type` and `data` are read in a second step, so that a bad body still has a number."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str
    version: int = 1
    source: Literal["hook", "script", "worker", "watch", "probe", "cluster", "alert", "operator", "leader"]
    stream: str
    """Identity of the outbox (or of a process's direct sequence) that numbered the fact."""
    seq: Annotated[int, Field(ge=1)]
    """Consecutive within the stream."""
    oldest: Annotated[int, Field(ge=1)] = 1
    """The lowest number the producer can still offer: a gap below it is for ever."""
    boot: str | None = None
    mono: float | None = None
    """The producer's monotonic clock, s."""
    wall: float | None = None
    """The producer's wall clock, s since the epoch."""
    at_ms: float | None = None
    at_error_ms: float = 0.0
    clock: Literal["mono", "wall", "arrival"] = "arrival"
    data: dict[str, Any] = {}


class Fact(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TicketCommand(Fact):
    n: Annotated[int, Field(ge=1)]
    service: Name
    verb: Verb


def _numbered(commands: list[TicketCommand]) -> list[TicketCommand]:
    if [command.n for command in commands] != list(range(1, len(commands) + 1)):
        raise ValueError("a ticket's commands are numbered 1, 2, 3, ... in the order in which they run")
    return commands


Commands = Annotated[list[TicketCommand], AfterValidator(_numbered)]


class StartHookCalled(Fact):
    """start.bat holds a ticket and waits (G8, G9, G12, G13)."""

    type: Literal["StartHookCalled"] = "StartHookCalled"
    ticket: str
    event: Literal["START", "FAILOVER"]
    server: str = ""
    previous: str | None = None
    commands: Commands


class StopHookCalled(Fact):
    """stop.bat holds a ticket and waits (G10, G11, G14, G15). `factor` is CLP_FACTOR: why the stop came."""

    type: Literal["StopHookCalled"] = "StopHookCalled"
    ticket: str
    event: Literal["START", "FAILOVER"]
    server: str = ""
    factor: str = ""
    commands: Commands


class ScriptDeclined(Fact):
    """A script that rightly ran nothing: RECOVER (G16), no cluster (G17), no disk (G18)."""

    type: Literal["ScriptDeclined"] = "ScriptDeclined"
    script: Literal["start", "stop"]
    reason: Literal["recover", "cluster-not-running", "disk-failure"]
    event: str = ""
    disk: str = ""


class FallbackTaken(Fact):
    """The script took the ticket and goes on with the guide's plain sequence."""

    type: Literal["FallbackTaken"] = "FallbackTaken"
    ticket: str
    reason: str
    """`bypass`, `hook-75`, `hook-<code>`, `hook-silent`, `hook-limit`, `no-ticket`."""


class ScriptEnded(Fact):
    """A script closed its ticket and returns `code` to the cluster manager."""

    type: Literal["ScriptEnded"] = "ScriptEnded"
    ticket: str
    script: Literal["start", "stop"]
    code: int


class CommandStarted(Fact):
    type: Literal["CommandStarted"] = "CommandStarted"
    ticket: str
    n: Annotated[int, Field(ge=1)]
    service: Name
    verb: Verb
    by: By


class CommandEnded(Fact):
    """A command's end. `lost`: its process is gone and nobody knows how it ended. `ran` false: dcstatus was 0 already."""

    type: Literal["CommandEnded"] = "CommandEnded"
    ticket: str
    n: Annotated[int, Field(ge=1)]
    service: Name
    verb: Verb
    by: By
    result: Literal["ok", "fail", "lost"]
    ran: bool = True
    code: int | None = None
    duration_s: float | None = None
    output: str = ""
    reason: str = ""


class CommandRefused(Fact):
    """A job that ran nothing, and why: `late`, `no-ticket`, `not-claimed`, `not-listed`, `already-run`, `agent-down`, `bad-job`, ..."""

    type: Literal["CommandRefused"] = "CommandRefused"
    job_id: str = ""
    ticket: str | None = None
    n: int | None = None
    reason: str
    detail: str = ""


class ServicePolled(Fact):
    """The outcome of polling `dcstatus` changed (only changes are facts).

    `ticket`: the start whose command had ended ok before these polls began; `verified`: `verify_confirm` good polls in a row.
    """

    type: Literal["ServicePolled"] = "ServicePolled"
    service: Name
    status: Status
    verified: bool
    code: int | None = None
    ticket: str | None = None
    polls: int = 1
    duration_s: float | None = None


class WatchHookStarted(Fact):
    type: Literal["WatchHookStarted"] = "WatchHookStarted"
    service: Name


class WatchHookEnded(Fact):
    """The resident watch script's hook ended; 40: after a dcstatus of its own that was not 0."""

    type: Literal["WatchHookEnded"] = "WatchHookEnded"
    service: Name
    code: int
    status_code: int | None = None
    reason: str = ""


class Schedule(Fact):
    name: str
    startup_mode: Literal["auto", "manual"]
    state: Literal["started", "stopped"]


class SchedulesObserved(Fact):
    """What the probe printed, when it differs from the last time or was asked for after a start (`fresh`)."""

    type: Literal["SchedulesObserved"] = "SchedulesObserved"
    service: Name
    schedules: list[Schedule]
    ticket: str | None = None
    """The start that was verified before this probe began; None while nothing was started here."""


class ProbeFailed(Fact):
    type: Literal["ProbeFailed"] = "ProbeFailed"
    service: Name
    reason: str


class ClusterViewed(Fact):
    """The cluster manager's own view changed (clpstat, clpgrp -n), as seen from this node."""

    type: Literal["ClusterViewed"] = "ClusterViewed"
    group_state: str
    """Lower case with hyphens: online, offline, online-pending, offline-pending, online-failure, offline-failure, unknown."""
    current: str | None
    servers: dict[str, str] = {}
    monitors: dict[str, str] = {}
    """Monitor -> state word, lower case with hyphens (normal, caution, error, unused, suspend, offline, unknown)."""
    resources: dict[str, str] = {}
    """Resource of our group -> state word."""
    suspended: bool | None = None
    """Whether the cluster is suspended (`clpcl --suspend`); None: it could not be told."""
    double_activation: bool = False
    by: Literal["clpstat", "rest"] = "clpstat"


class ClusterViewFailed(Fact):
    type: Literal["ClusterViewFailed"] = "ClusterViewFailed"
    reason: str


class AlertReceived(Fact):
    """CLUSTERPRO's alert extension called `dcsup hook alert` (CLUSTERPRO.md, section 6)."""

    type: Literal["AlertReceived"] = "AlertReceived"
    module: str
    id: int
    text: str = ""


class MetadataObserved(Fact):
    """The metadata DB server on this node, when it changed (G44: watched and shown)."""

    type: Literal["MetadataObserved"] = "MetadataObserved"
    service: Literal["running", "stopped", "unknown"]
    port: Literal["open", "closed", "unknown"]


class NodeJoined(Fact):
    """The node's worker started."""

    type: Literal["NodeJoined"] = "NodeJoined"
    boot: str
    version: str
    platform: str = ""


class NodeLeft(Fact):
    """The node's worker was told to stop; its services go on."""

    type: Literal["NodeLeft"] = "NodeLeft"
    reason: str = ""


class LogTailLost(Fact):
    """The log is behind a head that this node has seen: Redis lost its tail."""

    type: Literal["LogTailLost"] = "LogTailLost"
    seen_id: str
    found_id: str


class FactsDropped(Fact):
    """Facts that could not be written to the node's disk, counted."""

    type: Literal["FactsDropped"] = "FactsDropped"
    count: Annotated[int, Field(ge=1)]
    reason: str


class LeadTaken(Fact):
    type: Literal["LeadTaken"] = "LeadTaken"
    epoch: int
    owner: str


class ConfigurationChanged(Fact):
    type: Literal["ConfigurationChanged"] = "ConfigurationChanged"
    settings: ClusterSettings


class NodeLost(Fact):
    """The node's sign of life ran out, judged only after Redis and this orchestrator were up long enough together."""

    type: Literal["NodeLost"] = "NodeLost"
    node: Name


class NodeReturned(Fact):
    """A lost node shows signs of life again without having joined anew (its worker was only cut off)."""

    type: Literal["NodeReturned"] = "NodeReturned"
    node: Name


class WatchLost(Fact):
    type: Literal["WatchLost"] = "WatchLost"
    node: Name


class WatchReturned(Fact):
    type: Literal["WatchReturned"] = "WatchReturned"
    node: Name


class DeadlinePassed(Fact):
    type: Literal["DeadlinePassed"] = "DeadlinePassed"
    deadline: str


class EndpointChanged(Fact):
    """An address that clients use began, or ceased, to take connections, as seen from where the orchestrator runs."""

    type: Literal["EndpointChanged"] = "EndpointChanged"
    endpoint: Name
    up: bool
    reason: str = ""


class MoveRequested(Fact):
    """An operator asks the cluster manager to move the group (`dcsup move`); told apart from a failure by this."""

    type: Literal["MoveRequested"] = "MoveRequested"
    request: str
    """Identifies the request; its MoveEnded has the same."""
    to: Name | None = None
    """None: wherever the failover policy says."""
    by: str
    why: str = ""


class MoveEnded(Fact):
    """The cluster manager's command for a requested move returned, or could not be run."""

    type: Literal["MoveEnded"] = "MoveEnded"
    request: str
    ok: bool
    reason: str = ""


class RunbookStepRecorded(Fact):
    """A step of a runbook was done, skipped or has failed (`dcsup runbook`)."""

    type: Literal["RunbookStepRecorded"] = "RunbookStepRecorded"
    runbook: str
    run: str
    """Identifies this going-through of the runbook."""
    step: str
    outcome: Literal["done", "skipped", "failed"]
    by: str
    on_node: str | None = None
    verified: bool = False
    """Whether dcsup itself saw that it holds, or a person said so."""
    note: str = ""


class PauseRequested(Fact):
    type: Literal["PauseRequested"] = "PauseRequested"
    by: str
    why: str = ""


class ResumeRequested(Fact):
    type: Literal["ResumeRequested"] = "ResumeRequested"
    by: str
    why: str = ""


AnyFact = (
    StartHookCalled | StopHookCalled | ScriptDeclined | FallbackTaken | ScriptEnded | CommandStarted | CommandEnded | CommandRefused
    | ServicePolled | WatchHookStarted | WatchHookEnded | SchedulesObserved | ProbeFailed | ClusterViewed | ClusterViewFailed
    | AlertReceived | NodeJoined | NodeLeft | LogTailLost | FactsDropped | LeadTaken | ConfigurationChanged | NodeLost | NodeReturned
    | WatchLost | WatchReturned | DeadlinePassed | PauseRequested | ResumeRequested | MetadataObserved | EndpointChanged | MoveRequested
    | MoveEnded | RunbookStepRecorded
)  # fmt: skip

FACT: TypeAdapter[AnyFact] = TypeAdapter(Annotated[AnyFact, Field(discriminator="type")])
TYPES = frozenset(kind.model_fields["type"].default for kind in AnyFact.__args__)

OF_LEADER = frozenset({
    "LeadTaken", "ConfigurationChanged", "NodeLost", "NodeReturned", "WatchLost", "WatchReturned", "DeadlinePassed",
    "EndpointChanged",
})  # fmt: skip
OF_OPERATOR = frozenset({"PauseRequested", "ResumeRequested", "MoveRequested", "MoveEnded", "RunbookStepRecorded"})


def parse_body(envelope: Envelope, inbox: str) -> AnyFact:
    """The fact inside an envelope that arrived in `inbox` (a node's name, `_leader` or `_operator`).

    Raises:
        ValueError: unknown type or version, a body that does not fit it, or a type that this inbox may not write.
    """
    if envelope.version != 1:
        raise ValueError(f"version {envelope.version} of {envelope.type} is newer than this dcsup understands")
    allowed = OF_LEADER if inbox == "_leader" else OF_OPERATOR if inbox == "_operator" else TYPES - OF_LEADER - OF_OPERATOR
    if envelope.type not in allowed:
        known = "unknown fact type" if envelope.type not in TYPES else "this inbox may not write"
        raise ValueError(f"{known} {envelope.type[:80]!r}")
    return FACT.validate_python({**envelope.data, "type": envelope.type})
