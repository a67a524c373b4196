"""What dcsup remembers: the state of one cluster, and nothing that the log does not record.

`ClusterState` is only ever changed by `statemachines.folding.fold`. It is JSON all through, so that `dcsup status --json`, a snapshot
and the fold of an exported file can be compared as wholes (I6).
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from statemachines.configuration import ClusterSettings
from statemachines.entries import GENESIS_HASH, GENESIS_ID

ServiceState = Literal["stopped", "starting", "running", "failing-over", "recovering", "stopping", "failed"]
NodeState = Literal["stopped", "starting", "running", "failing-over", "recovering", "failed"]
FailoverState = Literal["suspected", "acting", "starting", "resuming", "ended"]
Kind = Literal["failure", "move", "restart", "shutdown", "none"]
Outcome = Literal["completed", "failed", "superseded", "cleared"]
ScheduleOutcome = Literal["resumed", "auto_started", "missed", "unexpected", "unknown"]

SERVICE_STATES: tuple[ServiceState, ...] = ("stopped", "starting", "running", "failing-over", "recovering", "stopping", "failed")
NODE_STATES: tuple[NodeState, ...] = ("stopped", "starting", "running", "failing-over", "recovering", "failed")
FAILOVER_STATES: tuple[FailoverState, ...] = ("suspected", "acting", "starting", "resuming", "ended")

PHASES: tuple[tuple[str, str, str], ...] = (
    ("detect", "symptom", "acted"),
    ("stop", "stop_called", "stop_ended"),
    ("takeover", "stop_ended", "start_called"),
    ("dispatch", "start_called", "first_command"),
    ("start", "first_command", "last_command"),
    ("verify", "last_command", "verified"),
    ("resume", "verified", "judged"),
)
"""Phase, and the two points that bound it (DESIGN.md). `total` is from `symptom` to `judged`."""


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Poll(Part):
    status: Literal["healthy", "unhealthy", "unknown"]
    verified: bool
    code: int | None
    ticket: str | None
    at_ms: float


class NodeStatus(Part):
    state: NodeState = "stopped"
    role: Literal["active", "standby"] = "standby"
    since_ms: int = 0
    boot: str | None = None
    present: bool = False
    """Its worker shows signs of life."""
    watched: bool = True
    """Its watch job shows signs of life (only meaningful while present)."""
    was_lost: bool = False
    """It went away without a word, and has not been verified since."""


class ServiceStatus(Part):
    state: ServiceState = "stopped"
    node: str | None = None
    """Where it runs, or was last asked to run."""
    since_ms: int = 0
    verified: bool = False
    verified_ms: float | None = None
    last_start_verb: str | None = None
    last_stop_verb: str | None = None
    """The verb of the stop that ended since the last start; None: it was not stopped (G7)."""
    polls: dict[str, Poll] = {}


class CommandStatus(Part):
    n: int
    service: str
    verb: str
    job_id: str | None = None
    by: Literal["worker", "script"] | None = None
    started_ms: float | None = None
    ended_ms: float | None = None
    result: Literal["ok", "fail", "lost"] | None = None
    ran: bool = True

    @property
    def is_untouched(self) -> bool:
        """Nobody was asked for it and nobody has begun it: only then may a worker be asked (I7)."""
        return self.job_id is None and self.started_ms is None and self.result is None


class TicketStatus(Part):
    ticket: str
    node: str
    script: Literal["start", "stop"]
    event: str
    factor: str = ""
    term: int
    called_ms: float
    commands: list[CommandStatus]
    owner: Literal["dcsup", "script"] = "dcsup"
    verdict: int | None = None
    code: int | None = None
    """What the script returned; None while it lives."""


class ScheduleEntry(Part):
    name: str
    startup_mode: Literal["auto", "manual"]
    state: Literal["started", "stopped"]


class Observation(Part):
    node: str
    at_ms: float
    ticket: str | None
    schedules: list[ScheduleEntry]


class ScheduleVerdict(Part):
    name: str
    outcome: ScheduleOutcome


class Judgement(Part):
    """What came of a service's schedules after a start: every verdict names its rule and the age of its evidence."""

    service: str
    rule: Literal["G4", "G5", "G6"]
    assumed: bool
    """G7: nothing was stopped, so the rule is a named assumption."""
    evidence_age_s: float | None
    """From the last observation before the first symptom to that symptom; None: there was none."""
    schedules: list[ScheduleVerdict]


class ScheduleStatus(Part):
    latest: Observation | None = None
    before: Observation | None = None
    """The observation before the latest one: facts of one moment may arrive in either order."""
    baseline: Observation | None = None
    """What ran before the present start: what must come back."""
    owed: bool = False
    """A start was verified (or is under way) and its schedules are not judged yet."""
    rule: Literal["G4", "G5", "G6"] | None = None
    assumed: bool = False
    symptom_ms: float | None = None
    judgement: Judgement | None = None
    probe_error: str | None = None


class Outage(Part):
    """How long clients could not connect to an address."""

    endpoint: str
    down_ms: float
    up_ms: float | None = None
    """None: it is still down."""


class AlertNote(Part):
    """An alert of the cluster manager that belongs to a failover, and what it means."""

    module: str
    id: int
    at_ms: float
    meaning: str


class FailoverStatus(Part):
    id: str
    state: FailoverState = "suspected"
    kind: Kind = "none"
    trigger: str = ""
    """What showed first: poll, watch, node, alert, cluster-view, stop-hook, start-hook."""
    initiator: Literal["cluster", "operator"] = "cluster"
    node_from: str | None = None
    node_to: str | None = None
    term: int | None = None
    points: dict[str, float] = {}
    """Boundary -> ms since the epoch on Redis's time line; and `fenced`, when the manager first told of a node or network gone."""
    clocks: dict[str, str] = {}
    """Boundary -> `redis`, or `node` with its error when the fact was handed in late."""
    phases: dict[str, float] = {}
    """Phase -> seconds; a phase whose ends were not both seen is absent."""
    total_s: float | None = None
    outcome: Outcome | None = None
    reason: str = ""
    restarts: int = 0
    judgements: list[Judgement] = []
    by_script: int = 0
    """Commands that the plain sequence ran in this failover."""
    requested_by: str | None = None
    """Who asked for it with `dcsup move`."""
    why: str = ""
    outages: list[Outage] = []
    """What clients saw meanwhile."""
    alerts: list[AlertNote] = []
    """In the order of their time, at most `KEPT_ALERTS`; mere information is let go first."""
    alerts_beyond: int = 0
    """How many more there were."""


class ClusterView(Part):
    node: str
    at_ms: float
    group_state: str
    current: str | None
    servers: dict[str, str]
    monitors: dict[str, str] = {}
    resources: dict[str, str] = {}
    suspended: bool | None = None
    double_activation: bool = False
    by: str = "clpstat"

    @property
    def from_outside(self) -> bool:
        """It comes from a node that is itself no member now: what it prints of the others is not what they do."""
        return self.servers.get(self.node) == "offline"


class MoveStatus(Part):
    """A requested move that has not come to its end yet."""

    request: str
    to: str | None
    by: str
    why: str
    at_ms: float


class MetadataStatus(Part):
    """The metadata DB server on one node (G44)."""

    service: Literal["running", "stopped", "unknown"]
    port: Literal["open", "closed", "unknown"]
    at_ms: float
    held: bool = False
    """It still runs on a node from which the group was taken: it may hold the switchable partition."""

    @property
    def runs(self) -> bool | None:
        """What its service or its port says; None: neither says anything."""
        if self.service == "running" or self.port == "open":
            return True
        return None if self.service == self.port == "unknown" else False


class EndpointStatus(Part):
    up: bool
    since_ms: float
    reason: str = ""
    outages: list[Outage] = []
    """The last ones, oldest first, at most `KEPT_OUTAGES`."""


class RunbookStatus(Part):
    """How far the last going-through of a runbook came."""

    run: str
    at_ms: float
    steps: dict[str, str] = {}
    """Step -> done, skipped or failed."""


class Counts(Part):
    facts: int = 0
    decisions: int = 0
    quarantined: int = 0
    skipped: dict[str, int] = {}
    commands_by_script: dict[str, int] = {}
    """`node/service` -> commands that the plain sequence ran."""
    facts_lost: int = 0


class ClusterState(Part):
    cluster: str
    last_id: str = GENESIS_ID
    last_hash: str = GENESIS_HASH
    epoch: int = 0
    leader: str | None = None
    settings: ClusterSettings | None = None
    paused_since_ms: int | None = None
    paused_by: str | None = None
    nodes: dict[str, NodeStatus] = {}
    services: dict[str, ServiceStatus] = {}
    term: int = 0
    term_ms: float = 0.0
    """When the present term began."""
    active: str | None = None
    """The node of the present term."""
    tickets: dict[str, TicketStatus] = {}
    start_ticket: str | None = None
    """The start call of the present term."""
    stop_ticket: str | None = None
    schedules: dict[str, ScheduleStatus] = {}
    failover: FailoverStatus | None = None
    """The one that is open."""
    failovers: list[FailoverStatus] = []
    """The last ones that ended, oldest first, at most `KEPT_FAILOVERS`."""
    failover_count: int = 0
    deadlines: dict[str, int] = {}
    """Deadline id -> due, ms since the epoch."""
    sources: dict[str, dict[str, int]] = {}
    """Inbox -> stream -> last number applied: the dedupe (I5)."""
    view: ClusterView | None = None
    """The newest one that counts (`counts_as_view`)."""
    views: dict[str, ClusterView] = {}
    """Node -> its newest one. They may differ: for a moment while the group moves, or because it is up twice."""
    suspended: bool = False
    """The cluster manager is suspended: maintenance, as under pause, but commands that it asks for are still issued."""
    suspended_since_ms: int | None = None
    suspension_told_ms: float = 0.0
    """When a view last told whether the cluster is suspended: an older view changes nothing."""
    move: MoveStatus | None = None
    metadata: dict[str, MetadataStatus] = {}
    """Node -> what was last seen of its metadata DB server."""
    endpoints: dict[str, EndpointStatus] = {}
    runbooks: dict[str, RunbookStatus] = {}
    double_activation: bool = False
    counts: Counts = Counts()

    @property
    def maintenance(self) -> Literal["paused", "suspended"] | None:
        """Why nobody is to be woken up for what happens now: an operator's `dcsup pause`, or a suspended cluster."""
        return "paused" if self.paused_since_ms is not None else "suspended" if self.suspended else None

    def counts_as_view(self, view: ClusterView) -> bool:
        """Whether a node's view is the cluster's: not while another node that is there, and a member, has one."""
        others = (v for name, v in self.views.items() if name != view.node and name in self.nodes and self.nodes[name].present)
        return not view.from_outside or all(other.from_outside for other in others)

    def working_copy(self) -> ClusterState:
        """A copy to fold into: every part that the fold changes in place is new, what it only ever replaces is shared."""
        new = self.model_copy()
        new.nodes = {name: node.model_copy() for name, node in self.nodes.items()}
        new.services = {name: service.model_copy(update={"polls": dict(service.polls)}) for name, service in self.services.items()}
        new.schedules = {name: status.model_copy() for name, status in self.schedules.items()}
        new.tickets, new.deadlines, new.failovers = dict(self.tickets), dict(self.deadlines), list(self.failovers)
        new.metadata, new.endpoints, new.runbooks = dict(self.metadata), dict(self.endpoints), dict(self.runbooks)
        new.views = dict(self.views)
        new.sources = {inbox: dict(streams) for inbox, streams in self.sources.items()}
        counts = {"skipped": dict(self.counts.skipped), "commands_by_script": dict(self.counts.commands_by_script)}
        new.counts = self.counts.model_copy(update=counts)
        return new


KEPT_FAILOVERS = 20
KEPT_TICKETS = 8
KEPT_STREAMS = 8
KEPT_RUNBOOKS = 20
KEPT_ALERTS = 20
KEPT_OUTAGES = 20
"""Of one endpoint, and in one failover's record: the latest."""
KEPT_STEPS = 100
"""Of one runbook: its latest steps."""


def new_state(cluster: str) -> ClusterState:
    return ClusterState(cluster=cluster)
