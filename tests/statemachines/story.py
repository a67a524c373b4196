"""A story told to the core: facts in order, and what it answers. Needs no clock, no Redis, no processes.

After every step the invariants are checked, the state is compared with the fold of all entries so far (I6), and the same step is decided
once more and must come out the same.
"""

from __future__ import annotations

from typing import Any

from statemachines.cluster import Arrival, JobOrder, StepResult, order_of, step
from statemachines.configuration import ClusterSettings
from statemachines.entries import Sealed
from statemachines.facts import Envelope, parse_body
from statemachines.folding import fold
from statemachines.invariants import check
from statemachines.states import ClusterState, FailoverStatus, new_state

START_MS = 1_800_000_000_000

SIX = [
    ("auto-started-1", "auto", "started"), ("manual-started-2", "manual", "started"), ("auto-stopped-3", "auto", "stopped"),
    ("manual-stopped-4", "manual", "stopped"), ("auto-started-5", "auto", "started"), ("manual-stopped-6", "manual", "stopped"),
]  # fmt: skip


def settings(**changes: Any) -> ClusterSettings:
    given: dict[str, Any] = {
        "mode": "supervise", "group": "failover1", "nodes": ["node1", "node2"],
        "services": [{"name": "agent", "kind": "agent"}, {"name": "server", "kind": "server"}],
        "schedules": {"settle": 1, "deadline": 30},
    }  # fmt: skip
    return ClusterSettings.model_validate(given | changes)


def schedule_list(states: dict[str, str] | None = None) -> list[dict[str, str]]:
    changed = states or {}
    return [{"name": name, "startup_mode": mode, "state": changed.get(name, state)} for name, mode, state in SIX]


class Story:
    def __init__(self, config: ClusterSettings | None = None, *, joined: tuple[str, ...] = ("node1", "node2")) -> None:
        self.state: ClusterState = new_state("demo")
        self.now_ms = START_MS
        self.log: list[Sealed] = []
        self.jobs: list[JobOrder] = []
        self.last: StepResult | None = None
        self._seqs: dict[tuple[str, str], int] = {}
        self._calls = 0
        self.tell("_leader", "LeadTaken", epoch=1, owner="orchestrator-1")
        self.tell("_leader", "ConfigurationChanged", settings=(config or settings()).model_dump(mode="json"))
        for node in joined:
            self.tell(node, "NodeJoined", boot=f"boot-{node}", version="0")
            for service in self.state.services:
                self.tell(node, "ServicePolled", service=service, status="unhealthy", verified=False, code=1)

    # --- telling

    def wait(self, seconds: float) -> Story:
        """Time passes; deadlines that came due are told, in order, as the leader would."""
        end_ms = self.now_ms + round(seconds * 1000)
        while self.state.paused_since_ms is None:
            due = sorted((ms, name) for name, ms in self.state.deadlines.items() if ms <= end_ms)
            if not due:
                break
            self.now_ms = max(self.now_ms, due[0][0])
            self.tell("_leader", "DeadlinePassed", deadline=due[0][1])
        self.now_ms = end_ms
        return self

    def arrival(self, inbox: str, kind: str, *, at_ms: float | None = None, stream: str = "s", **data: Any) -> Arrival:
        self.now_ms += 1
        seq = self._seqs[inbox, stream] = self._seqs.get((inbox, stream), 0) + 1
        source = "leader" if inbox == "_leader" else "operator" if inbox == "_operator" else "worker"
        envelope = Envelope.model_validate({
            "type": kind, "source": source, "stream": stream, "seq": seq, "at_ms": float(self.now_ms) if at_ms is None else at_ms,
            "clock": "mono", "data": data,
        })  # fmt: skip
        return Arrival(inbox, f"{self.now_ms}-0", envelope, parse_body(envelope, inbox))

    def tell(self, inbox: str, kind: str, *, at_ms: float | None = None, **data: Any) -> list[Sealed]:
        """One fact arrives; the entries that came of it (the fact's own first)."""
        return self.take(self.arrival(inbox, kind, at_ms=at_ms, **data))

    def take(self, arrival: Arrival) -> list[Sealed]:
        assert order_of(self.state, arrival.inbox, arrival.envelope) == "next"
        before = self.state.model_dump_json()
        result = step(self.state, arrival)
        assert self.state.model_dump_json() == before, "step changed the state that it was given"
        again = step(self.state, arrival)
        assert [s.body for s in again.entries] == [s.body for s in result.entries], "the same fact was decided differently"
        assert not [s for s in result.entries if s.entry.type == "InvariantViolated"], result.entries[-1].entry.data
        assert not check(result.state, result.entries)
        self.log += result.entries
        folded = ClusterState.model_validate_json(before)
        for sealed in result.entries:
            fold(folded, sealed)
        assert folded == result.state, "the fold of the entries is not the live state"
        self.state, self.last = result.state, result
        self.jobs += result.jobs
        return result.entries

    # --- what happens often

    def call(self, script: str, node: str, event: str = "START", factor: str = "", commands: list[tuple[str, str]] | None = None,
             at_ms: float | None = None) -> str:  # fmt: skip
        self._calls += 1
        ticket = f"b-failover1-{self._calls}-{script}"
        listed = [{"n": n, "service": s, "verb": v} for n, (s, v) in enumerate(commands or self.guide(script, event), 1)]
        extra = {"factor": factor} if script == "stop" else {}
        kind = "StartHookCalled" if script == "start" else "StopHookCalled"
        self.tell(node, kind, ticket=ticket, event=event, commands=listed, at_ms=at_ms, **extra)
        return ticket

    def guide(self, script: str, event: str) -> list[tuple[str, str]]:
        """Spelled out from GUIDE.md (G8-G15, G23, G24), not taken from the code under test."""
        assert self.state.settings is not None
        listed = [(service.name, service.kind) for service in self.state.settings.services]
        if script == "start":
            verbs = {"agent": "start" if event == "START" else "recover", "server": "recover", "command": "start"}
            return [(name, verbs[kind]) for name, kind in listed]
        verbs = {"agent": "stop" if event == "START" else "faststop", "server": "faststop", "command": "stop"}
        return [(name, verbs[kind]) for name, kind in reversed(listed)]

    def run(self, ticket: str, n: int, *, result: str = "ok", by: str = "worker", ran: bool = True, seconds: float = 1.0) -> list[Sealed]:
        status = self.state.tickets[ticket]
        command = status.commands[n - 1]
        common: dict[str, Any] = {"ticket": ticket, "n": n, "service": command.service, "verb": command.verb, "by": by}
        self.tell(status.node, "CommandStarted", **common)
        self.now_ms += round(seconds * 1000)
        return self.tell(status.node, "CommandEnded", result=result, ran=ran, code=0 if result == "ok" else 1, duration_s=seconds, **common)

    def poll(self, node: str, service: str, status: str = "healthy", *, ticket: str | None = None, verified: bool | None = None,
             at_ms: float | None = None) -> list[Sealed]:  # fmt: skip
        good = status == "healthy" if verified is None else verified
        return self.tell(node, "ServicePolled", service=service, status=status, verified=good, code=0 if status == "healthy" else 1,
                         ticket=ticket, at_ms=at_ms)  # fmt: skip

    def observe(self, node: str, states: dict[str, str] | None = None, ticket: str | None = None, service: str = "server"
                ) -> list[Sealed]:  # fmt: skip
        return self.tell(node, "SchedulesObserved", service=service, schedules=schedule_list(states), ticket=ticket)

    def bring_up(self, node: str, event: str = "START", observe: bool = True) -> str:
        """A whole start as it goes when all is well."""
        ticket = self.call("start", node, event)
        for command in self.state.tickets[ticket].commands:
            self.run(ticket, command.n)
            self.now_ms += 500
            self.poll(node, command.service, ticket=ticket)
        self.tell(node, "ScriptEnded", ticket=ticket, script="start", code=0)
        self.now_ms += 2000
        if observe:
            for name in self.state.schedules:
                self.observe(node, ticket=ticket, service=name)
        return ticket

    def take_down(self, node: str, event: str = "START", factor: str = "GROUPSTOP") -> str:
        ticket = self.call("stop", node, event, factor)
        for command in self.state.tickets[ticket].commands:
            self.run(ticket, command.n)
            self.poll(node, command.service, "unhealthy")
        self.tell(node, "ScriptEnded", ticket=ticket, script="stop", code=0)
        return ticket

    def quick_fact(self, inbox: str, kind: str, *, stream: str = "s", **data: Any) -> None:
        """One fact, stepped without the checks of `take`: where thousands are told."""
        self.state = step(self.state, self.arrival(inbox, kind, stream=stream, **data)).state

    def quick(self, node: str, event: str) -> None:
        """A whole start by the script itself, told quickly."""
        self._calls += 1
        common = {"ticket": f"b-failover1-{self._calls}-start"}
        commands = [{"n": n, "service": s, "verb": v} for n, (s, v) in enumerate(self.guide("start", event), 1)]
        self.quick_fact(node, "StartHookCalled", event=event, commands=commands, **common)
        self.quick_fact(node, "FallbackTaken", reason="bypass", **common)
        self.quick_fact(node, "ScriptEnded", script="start", code=0, **common)
        self.quick_fact(node, "SchedulesObserved", service="server", schedules=schedule_list())

    # --- looking

    def states(self) -> dict[str, str]:
        return {name: service.state for name, service in self.state.services.items()}

    def nodes(self) -> dict[str, str]:
        return {name: node.state for name, node in self.state.nodes.items()}

    def issued(self) -> list[tuple[str, int, str, str]]:
        return [(j.node, j.payload["n"], j.payload["service"], j.payload["verb"]) for j in self.jobs if j.payload["kind"] == "command"]

    def verdicts(self) -> list[tuple[str, int]]:
        return [(j.payload["ticket"], j.payload["code"]) for j in self.jobs if j.payload["kind"] == "verdict"]

    def types(self) -> list[str]:
        return [sealed.entry.type for sealed in self.log]

    def ended(self) -> FailoverStatus:
        return self.state.failovers[-1]

    def outcomes(self) -> dict[str, str]:
        judgement = self.state.schedules["server"].judgement
        assert judgement is not None
        return {verdict.name: verdict.outcome for verdict in judgement.schedules}
