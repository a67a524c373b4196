"""A story told by chance: any fact in any order, biased to plausible ones, and what must hold whatever is told.

`Chaos` looks at every step's answer as an outsider would: it knows the promises of DESIGN.md, not how the core keeps them. What
story.py checks at each step (invariants, fold, determinism) is checked here too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from statemachines.cluster import Arrival, quarantine
from statemachines.configuration import ClusterSettings
from statemachines.entries import Sealed
from statemachines.rules import why_of
from statemachines.states import ClusterState, FailoverStatus
from tests.statemachines.story import Story, schedule_list, settings

NODES = ("node1", "node2")
SERVICES = ("agent", "server", "dbms")
FACTORS = ("GROUPSTOP", "GROUPMOVE", "GROUPFAILOVER", "RESOURCERESTART", "SERVERSHUTDOWN", "RESOURCESTOP", "")
ALERTS = (
    ("rc", 60), ("nm", 2), ("rm", 9), ("rc", 50), ("rm", 13), ("rc", 92), ("pm", 1), ("rm", 200), ("rc", 32), ("rm", 16), ("nm", 30),
    ("rc", 74), ("xy", 1), ("pm", 20),
)  # fmt: skip
WAITS_S = (0.2, 2.0, 12.0, 40.0, 700.0, 1000.0)
LATE_S = (0.0, 0.0, 0.0, 0.0, 1.0, 20.0, 300.0)
AGENT, SERVER, DBMS = {"name": "agent", "kind": "agent"}, {"name": "server", "kind": "server"}, {"name": "dbms", "kind": "command"}
ENDPOINTS = [{"name": name, "host": "192.0.2.9", "port": port} for name, port in (("server", 22101), ("agent", 22102))]
CONFIGURATIONS: tuple[ClusterSettings, ...] = (
    settings(),
    settings(mode="observe"),
    settings(schedules={"probe": "none", "settle": 0, "deadline": 5}),
    settings(services=[SERVER]),
    settings(services=[AGENT]),
    settings(services=[AGENT, SERVER, {"name": "server-b", "kind": "server"}]),
    settings(nodes=["node1"]),
    settings(nodes=["node1", "node2", "third"]),
    settings(services=[DBMS, AGENT, SERVER], metadata={}, endpoints=ENDPOINTS),
    settings(services=[DBMS, AGENT], nodes=["node1", "node2", "third"], metadata={}),
    settings(services=[DBMS], endpoints=ENDPOINTS[:1]),
    settings(services=[AGENT, SERVER | {"verbs": {"start": "start", "stop": "stop"}}], mode="observe", metadata={}, endpoints=ENDPOINTS),
)
PHASE_POINTS = frozenset(
    {"symptom", "acted", "stop_called", "stop_ended", "start_called", "first_command", "last_command", "verified", "judged"}
)
AT_REST = ("stopped", "running", "failed")


class Chaos(Story):
    """A story whose facts are picked by numbers: `do(what, a, b, c)` tells one fact (or a few that belong together)."""

    def __init__(self, config: ClusterSettings | None = None) -> None:
        self.issued_once: set[tuple[str, int]] = set()
        self.given_up: set[str] = set()
        self.calls: list[str] = []
        super().__init__(config)

    # --- what must hold

    def take(self, arrival: Arrival) -> list[Sealed]:
        data = arrival.envelope.data
        known = self.state.tickets.get(str(data.get("ticket", "")))
        suspicions = self.state.failover_count
        own = known is not None and known.node == arrival.inbox
        if arrival.envelope.type in ("ScriptEnded", "FallbackTaken") and own:
            self.given_up.add(data["ticket"])
        before = self.state
        entries = super().take(arrival)
        failover = self.state.failover if self.state.failover_count > suspicions else None
        if before.suspended and self.state.suspended and failover is not None:
            assert failover.state != "suspected", "a suspicion while the cluster is suspended"
        for sealed in entries:
            rule = sealed.entry.rule
            assert rule is None or why_of(rule), f"nobody says why {sealed.entry.type} follows from {rule}"
            if sealed.entry.type == "CommandIssued":
                self._check_command(before, sealed)
            if sealed.entry.type in ("FailoverEnded", "FailoverAmended"):
                check_record(FailoverStatus.model_validate(sealed.entry.data["failover"]), sealed.entry.type == "FailoverEnded")
        return entries

    def _check_command(self, before: ClusterState, sealed: Sealed) -> None:
        entry, state = sealed.entry, self.state
        ticket, n = entry.data["ticket"], entry.data["n"]
        assert (ticket, n) not in self.issued_once, f"command {n} of {ticket} was issued twice"
        self.issued_once.add((ticket, n))
        assert state.settings is not None
        assert state.settings.mode == "supervise", "a command in mode observe"
        assert before.paused_since_ms is None, "a command under pause"
        assert ticket not in self.given_up, "a command for a script that goes on by itself or is over"
        kinds = {service.name: service.kind for service in state.settings.services}
        if entry.data["verb"] in ("start", "recover") and kinds[str(entry.service)] == "server":
            agents = [name for name, kind in kinds.items() if kind == "agent"]
            assert all(state.services[name].verified for name in agents), "the server before its agent (G23)"

    def settle(self) -> None:
        """Long after the last fact everything is at rest: every failover ended, nothing transient is left (I3, I4)."""
        self.tell("_operator", "ResumeRequested", by="suzuki")
        self.tell("node1", "ClusterViewed", group_state="unknown", current=None, suspended=False)
        for _ in range(6):
            self.wait(1000)
        assert self.state.failover is None, f"{self.state.failover} never ends"
        assert {s for s in self.states().values() if s not in AT_REST} == set(), self.states()
        assert {s for s in self.nodes().values() if s not in AT_REST} == set(), self.nodes()
        for name, status in self.state.schedules.items():
            served = self.state.services[name].verified and self.state.services[name].state == "running"
            assert not (status.owed and served), f"the schedules of {name} are dropped"
        assert not self.state.deadlines, self.state.deadlines

    # --- telling by numbers

    def do(self, what: str, a: int, b: int, c: int) -> None:
        _ACTS[what](self, a, b, c)

    def node(self, number: int) -> str:
        """One of the cluster's nodes, or one that is none, or none any more."""
        assert self.state.settings is not None
        names = [*self.state.settings.nodes, "node2"] if "node2" not in self.state.settings.nodes else self.state.settings.nodes
        return names[number % len(names)]

    def late_ms(self, c: int) -> float:
        return float(self.now_ms + 1) - 1000 * LATE_S[c % len(LATE_S)]

    def some_ticket(self, a: int) -> str:
        recent = self.calls[-3:]
        return recent[-1 - a % len(recent)] if recent and a % 7 != 6 else "b-failover1-0-start"

    def called(self, script: str, a: int, b: int, c: int) -> None:
        node, event = self.node(a), "START" if b % 2 else "FAILOVER"
        listed = self.guide(script, event)
        variant = (a // 2) % 12
        listed = {0: listed[:1], 1: listed[1:], 2: listed[::-1], 3: [*listed, ("unknown", listed[0][1])], 4: []}.get(variant, listed)
        self._calls += 1
        ticket = f"b-failover1-{self._calls}-{script}"
        self.calls.append(ticket)
        commands = [{"n": n, "service": service, "verb": verb} for n, (service, verb) in enumerate(listed, 1)]
        extra = {"factor": FACTORS[b // 2 % len(FACTORS)]} if script == "stop" else {}
        kind = "StartHookCalled" if script == "start" else "StopHookCalled"
        self.tell(node, kind, ticket=ticket, event=event, commands=commands, at_ms=self.late_ms(c), **extra)

    def command(self, a: int, b: int, c: int) -> None:
        name = self.some_ticket(a)
        status = self.state.tickets.get(name)
        command = status.commands[b % len(status.commands)] if status is not None and status.commands else None
        node = status.node if status is not None and b % 9 else self.node(b)
        data: dict[str, Any] = {
            "ticket": name, "n": command.n if command else 1, "service": command.service if command else "server",
            "verb": command.verb if command else "recover", "by": "script" if c % 4 == 0 else "worker",
        }  # fmt: skip
        if c % 3:
            self.tell(node, "CommandStarted", at_ms=self.late_ms(c), **data)
        if c % 5:
            result = ("ok", "ok", "ok", "fail", "lost")[(a + c) % 5]
            self.tell(node, "CommandEnded", result=result, ran=c % 7 != 0, code=0, at_ms=self.late_ms(c), **data)

    def goes_well(self, a: int, b: int, c: int) -> None:
        """The present call takes its next steps as it does when all is well."""
        status = self.state.tickets.get(self.calls[-1]) if self.calls else None
        if status is None or status.code is not None:
            return
        for command in status.commands:
            if command.result is None and command.service in self.state.services:
                self.run(status.ticket, command.n)
                started = status.script == "start"
                self.poll(status.node, command.service, "healthy" if started else "unhealthy", ticket=status.ticket if started else None)
                if a % 3 == 0:
                    return
        self.tell(status.node, "ScriptEnded", ticket=status.ticket, script=status.script, code=0)

    def script_ended(self, a: int, b: int, c: int) -> None:
        status = self.state.tickets.get(name := self.some_ticket(a))
        node, script = (status.node, status.script) if status is not None and b % 9 else (self.node(b), "start")
        self.tell(node, "ScriptEnded", ticket=name, script=script, code=(0, 0, 1, 40)[c % 4])

    def fell_back(self, a: int, b: int, c: int) -> None:
        status = self.state.tickets.get(name := self.some_ticket(a))
        self.tell(status.node if status is not None else "node1", "FallbackTaken", ticket=name, reason="hook-75")

    def polled(self, a: int, b: int, c: int) -> None:
        service = (*SERVICES, *SERVICES, "unknown")[a % 5]
        status = ("healthy", "healthy", "healthy", "unhealthy", "unknown")[b % 5]
        ticket = (self.state.start_ticket, self.state.start_ticket, None, self.some_ticket(a))[c % 4]
        self.poll(self.node(a), service, status, ticket=ticket, verified=status == "healthy" and b % 4 != 0, at_ms=self.late_ms(c))

    def node_changed(self, a: int, b: int, c: int) -> None:
        node = self.node(a)
        kind = ("NodeLost", "NodeReturned", "NodeLeft", "NodeJoined", "NodeJoined", "WatchLost", "WatchReturned")[b % 7]
        if kind == "NodeJoined":
            self.tell(node, kind, boot=f"boot-{node}" if c % 2 else f"boot-{c}", version="0")
        elif kind == "NodeLeft":
            self.tell(node, kind)
        else:
            self.tell("_leader", kind, node=node)

    def seen(self, a: int, b: int, c: int) -> None:
        state = self.state.schedules
        if b % 4 == 0 or not state:
            self.tell(self.node(a), "ProbeFailed", service="server", reason="exit code 1")
            return
        states = {} if b % 3 else {"auto-started-1": "stopped", "manual-stopped-6": "started"}
        self.tell(self.node(a), "SchedulesObserved", service="server", schedules=schedule_list(states), at_ms=self.late_ms(c))

    def viewed(self, a: int, b: int, c: int) -> None:
        current = (*NODES, None)[a % 3]
        group = ("online", "online", "online-pending", "offline", "unknown")[b % 5]
        servers = {} if c % 4 else {self.node(b): "offline"}
        self.tell(self.node(b), "ClusterViewed", group_state=group, current=current, servers=servers, double_activation=c % 9 == 8,
                  suspended=(None, None, True, False)[(a + c) % 4], at_ms=self.late_ms(c))  # fmt: skip

    def alerted(self, a: int, b: int, c: int) -> None:
        module, number = ALERTS[b % len(ALERTS)]
        text = ("", "Server node1 has been stopped.", "Server NODE2 has been stopped.")[a % 3]
        self.tell(self.node(a), "AlertReceived", module=module, id=number, text=text, at_ms=self.late_ms(c))

    def operated(self, a: int, b: int, c: int) -> None:
        if a % 3 == 0:
            self.tell("_operator", "PauseRequested" if b % 2 else "ResumeRequested", by="suzuki")
        elif a % 3 == 1:
            to = (None, *NODES, "third", "gone")[b % 5]
            self.tell("_operator", "MoveRequested", request=f"m{c % 3}", to=to, by="suzuki", why="patch")
        else:
            self.tell("_operator", "MoveEnded", request=f"m{c % 3}", ok=b % 2 == 0, reason="as the manager says")

    def beside(self, a: int, b: int, c: int) -> None:
        """What moves nothing: an endpoint, the metadata DB, a runbook's step, a view that could not be had."""
        states = self.states(), self.nodes()
        if a % 4 < 2:
            name = ("server", "agent", "unknown")[a // 4 % 3]
            self.tell("_leader", "EndpointChanged", endpoint=name, up=b % 2 == 0, at_ms=self.late_ms(c))
        elif a % 4 == 2:
            service, port = ("running", "stopped", "unknown")[b % 3], ("open", "closed", "unknown")[c % 3]
            self.tell(self.node(a // 4), "MetadataObserved", service=service, port=port, at_ms=self.late_ms(c))
        elif b % 2:
            self.tell("_operator", "RunbookStepRecorded", runbook="drill", run=f"r{a % 2}", step=f"s{c}", outcome="done", by="suzuki")
        else:
            self.tell(self.node(c), "ClusterViewFailed", reason="clpstat: exit code 1")
        assert (self.states(), self.nodes()) == states

    def configured(self, a: int, b: int, c: int) -> None:
        chosen = CONFIGURATIONS[a % len(CONFIGURATIONS)]
        self.tell("_leader", "ConfigurationChanged", settings=chosen.model_dump(mode="json"))

    def rare(self, a: int, b: int, c: int) -> None:
        """What is rare: a new leader, refused jobs, declined scripts, lost facts, a deadline told twice or to no purpose, quarantine."""
        node = self.node(a)
        what = b % 8
        if what == 0:
            self.tell("_leader", "LeadTaken", epoch=self.state.epoch + 1, owner=f"orchestrator-{c}")
        elif what == 1:
            self.tell(node, "CommandRefused", job_id="j", ticket=self.some_ticket(a), n=1, reason="no-ticket")
        elif what in (2, 3):
            reason = ("recover", "cluster-not-running", "disk-failure")[c % 3]
            self.tell(node, "ScriptDeclined", script="start", reason=reason)
        elif what == 4:
            self.tell(node, "FactsDropped", count=c + 1, reason="disk full")
        elif what == 5:
            of_calls = [f"{kind}:{name}" for kind in ("start", "stop") for name in self.calls]
            names = (*self.state.deadlines, *of_calls, "takeover:F1", "resume:1")
            self.tell("_leader", "DeadlinePassed", deadline=names[c % len(names)])
        elif what == 6:
            arrival = self.arrival(node, "NodeLeft")
            aside = quarantine(self.state, node, arrival.inbox_id, "unreadable", arrival.envelope)
            self.log += aside.entries
            self.state = aside.state
        else:
            self._seqs[node, "s"] = self._seqs.get((node, "s"), 0) + 3
            arrival = self.arrival(node, "WatchHookStarted", service="server")
            oldest = arrival.envelope.model_copy(update={"oldest": arrival.envelope.seq})
            self.take(Arrival(arrival.inbox, arrival.inbox_id, oldest, arrival.fact))

    def waited(self, a: int, b: int, c: int) -> None:
        self.wait(WAITS_S[a % len(WAITS_S)])


def check_record(record: FailoverStatus, ended: bool) -> None:
    """A failover's numbers: an outcome, no negative phase, and a sum that is the total wherever every hook was seen."""
    assert not ended or record.outcome is not None
    assert all(seconds >= 0 for seconds in record.phases.values()), record
    if record.outcome == "completed":
        assert record.total_s is not None
        assert sum(record.phases.values()) <= record.total_s + 0.01, record
        if record.points.keys() >= PHASE_POINTS:
            assert abs(sum(record.phases.values()) - record.total_s) <= 0.01, record


_ACTS: dict[str, Callable[[Chaos, int, int, int], None]] = {
    "start": lambda chaos, a, b, c: chaos.called("start", a, b, c),
    "stop": lambda chaos, a, b, c: chaos.called("stop", a, b, c),
    "goes_well": Chaos.goes_well, "command": Chaos.command, "script_ended": Chaos.script_ended, "fell_back": Chaos.fell_back,
    "polled": Chaos.polled, "node": Chaos.node_changed, "seen": Chaos.seen, "viewed": Chaos.viewed, "alerted": Chaos.alerted,
    "operated": Chaos.operated, "beside": Chaos.beside, "configured": Chaos.configured, "odd": Chaos.rare, "waited": Chaos.waited,
}  # fmt: skip
USUAL = ("start", "stop", "goes_well", "goes_well", "goes_well", "command", "polled", "polled", "seen", "script_ended", "node", "waited")
RARE = ("fell_back", "viewed", "viewed", "alerted", "operated", "operated", "beside", "beside", "configured", "odd")
