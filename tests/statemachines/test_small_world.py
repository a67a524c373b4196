"""Everything that can happen in a small world: two nodes, an agent and a server, every order of events up to a depth.

Where chance (test_properties.py) tells long stories, this tells all short ones, from each place of a night: a cluster that has never run,
one that starts, serves, is being taken away, or waits for its schedules. States are told apart by a key without times, so that each is gone
on from once. In each the invariants hold, the fold of what was logged is the state, and whatever may wait ends.

CI goes two events deep, and three while the group is being taken away; how many states there were is told in the end. Deeper:
`DCSUP_DEPTH=4 pytest tests/statemachines/test_small_world.py`; each event more takes about seventeen times as long.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from statemachines.cluster import Arrival, step
from statemachines.facts import Envelope, parse_body
from statemachines.folding import fold
from statemachines.invariants import check
from statemachines.states import ClusterState, TicketStatus
from tests.statemachines.story import Story, schedule_list

DEPTH = int(os.environ.get("DCSUP_DEPTH", "0"))
"""0: as CI goes."""
NODES, SERVICES = ("node1", "node2"), ("agent", "server")
VERBS = {
    ("start", "START"): (("agent", "start"), ("server", "recover")), ("start", "FAILOVER"): (("agent", "recover"), ("server", "recover")),
    ("stop", "START"): (("server", "faststop"), ("agent", "stop")),
}  # fmt: skip

Told = tuple[str, str, dict[str, Any]]
"""Inbox, kind of fact, its data."""


# --- what may happen in a state


def events(state: ClusterState) -> Iterator[Told]:
    """Each fact that may be told next; nothing that no node would tell, as an end of what was never called."""
    for node in NODES:
        yield from _of_node(state, node)
    call = _call(state)
    if call is not None:
        yield from _of_call(call)
    for module, number in (("rm", 9), ("rc", 60), ("rc", 92)):
        yield "node1", "AlertReceived", {"module": module, "id": number}
    yield "_operator", "ResumeRequested" if state.paused_since_ms is not None else "PauseRequested", {"by": "suzuki"}
    if state.deadlines:
        yield "_leader", "DeadlinePassed", {"deadline": min(state.deadlines, key=lambda name: (state.deadlines[name], name))}


def _of_node(state: ClusterState, node: str) -> Iterator[Told]:
    for (script, event), commands in VERBS.items():
        factors = ("GROUPSTOP", "GROUPFAILOVER") if script == "stop" else ("",)
        for factor in factors:
            listed = [{"n": n, "service": service, "verb": verb} for n, (service, verb) in enumerate(commands, 1)]
            data = {"ticket": f"b-failover1-{state.counts.facts}-{script}", "event": event, "commands": listed}
            kind, extra = ("StopHookCalled", {"factor": factor}) if script == "stop" else ("StartHookCalled", {})
            yield node, kind, data | extra
    for service in SERVICES:
        for status in ("healthy", "unhealthy"):
            yield node, "ServicePolled", _poll(service, status, state.start_ticket)
    yield ("_leader", "NodeLost", {"node": node}) if state.nodes[node].present else (node, "NodeJoined", {"boot": "new", "version": "0"})
    view = {"group_state": "online", "current": node, "servers": {}, "suspended": not state.suspended}
    yield node, "ClusterViewed", view
    if state.active == node:
        yield node, "SchedulesObserved", {"service": "server", "schedules": schedule_list()}


def _poll(service: str, status: str, ticket: str | None) -> dict[str, Any]:
    healthy = status == "healthy"
    return {"service": service, "status": status, "verified": healthy, "code": int(not healthy), "ticket": ticket if healthy else None}


def _call(state: ClusterState) -> TicketStatus | None:
    tickets = [state.tickets[name] for name in (state.start_ticket, state.stop_ticket) if name in state.tickets]
    return max((ticket for ticket in tickets if ticket.code is None), key=lambda ticket: ticket.called_ms, default=None)


def _of_call(call: TicketStatus) -> Iterator[Told]:
    command = next((command for command in call.commands if command.result is None), None)
    if command is not None:
        data = {"ticket": call.ticket, "n": command.n, "service": command.service, "verb": command.verb, "by": "worker"}
        for result in ("ok", "fail", "lost"):
            yield call.node, "CommandEnded", data | {"result": result, "code": 0 if result == "ok" else 1, "duration_s": 0.5}
    if call.owner == "dcsup":
        yield call.node, "FallbackTaken", {"ticket": call.ticket, "reason": "hook-75"}
    for code in (0, 40):
        yield call.node, "ScriptEnded", {"ticket": call.ticket, "script": call.script, "code": code}


# --- telling it


def tell(state: ClusterState, told: Told) -> ClusterState:
    """What follows, after everything that must hold was checked. A deadline passes when it is due, anything else a second later."""
    inbox, kind, data = told
    now_ms = int(state.last_id.partition("-")[0]) + 1000
    if kind == "DeadlinePassed":
        now_ms = max(now_ms, state.deadlines[data["deadline"]])
    envelope = Envelope.model_validate({
        "type": kind, "source": "worker", "stream": "s", "seq": state.sources.get(inbox, {}).get("s", 0) + 1, "at_ms": float(now_ms),
        "clock": "mono", "data": data,
    })  # fmt: skip
    result = step(state, Arrival(inbox, f"{now_ms}-0", envelope, parse_body(envelope, inbox)))
    assert not check(result.state, result.entries), f"{told} in {key(state)}"
    folded = state.working_copy()
    for sealed in result.entries:
        fold(folded, sealed)
    assert folded == result.state, f"{told} in {key(state)}: the fold of the entries is not the live state"
    issued = [(job.payload["ticket"], job.payload["n"]) for job in result.jobs if job.payload["kind"] == "command"]
    untouched = all(state.tickets[ticket].commands[n - 1].job_id is None for ticket, n in issued if ticket in state.tickets)
    assert untouched, f"{told} in {key(state)}: a command was issued twice"
    return result.state


def ends(state: ClusterState) -> None:
    """I3, I4: if nothing more is told, everything that waits comes to its end."""
    if state.paused_since_ms is not None:
        state = tell(state, ("_operator", "ResumeRequested", {"by": "suzuki"}))
    for _ in range(12):
        if not state.deadlines:
            break
        state = tell(
            state, ("_leader", "DeadlinePassed", {"deadline": min(state.deadlines, key=lambda name: (state.deadlines[name], name))})
        )
    assert state.failover is None, key(state)
    assert not state.deadlines, key(state)
    assert {service.state for service in state.services.values()} <= {"stopped", "running", "failed"}, key(state)
    assert {node.state for node in state.nodes.values()} <= {"stopped", "running", "failed"}, key(state)


# --- telling states apart

_NO_STATE = frozenset({
    "last_id", "last_hash", "settings", "counts", "sources", "failovers", "failover_count", "clocks", "phases", "total_s", "term", "id",
    "evidence_age_s", "epoch", "leader", "job_id", "alerts", "alerts_beyond", "paused_by", "view",
})  # fmt: skip
"""What tells when and how often, not what is so."""


def key(state: ClusterState) -> str:
    """A state without times and running numbers: what happens next depends on the rest."""
    dump = state.model_dump(mode="json", exclude={"tickets", "deadlines"})
    body = _timeless(dump)
    call = _call(state)
    body["tickets"] = [
        _timeless(state.tickets[name].model_dump(mode="json")) | {"issued": [c.job_id is not None for c in state.tickets[name].commands]}
        for name in (state.start_ticket, state.stop_ticket)
        if name in state.tickets
    ]
    body["call"] = call.script if call is not None else None
    body["deadlines"] = [name.partition(":")[0] for name in sorted(state.deadlines, key=lambda name: (state.deadlines[name], name))]
    text = json.dumps(body, sort_keys=True)
    for name, role in ((state.start_ticket, "the start"), (state.stop_ticket, "the stop")):
        text = text.replace(name, role) if name else text
    return text


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: sorted(part) if name == "points" else _timeless(part)
            for name, part in value.items()
            if name not in _NO_STATE and not name.endswith("_ms")
        }
    return [_timeless(part) for part in value] if isinstance(value, list) else value


# --- the worlds


def never_run() -> Story:
    return Story()


def starting() -> Story:
    story = Story()
    ticket = story.call("start", "node1")
    story.run(ticket, 1)
    story.poll("node1", "agent", ticket=ticket)
    return story


def serving() -> Story:
    story = Story()
    story.bring_up("node1")
    story.wait(40)
    return story


def failing_over() -> Story:
    story = serving()
    story.take_down("node1", factor="GROUPFAILOVER")
    return story


def resuming() -> Story:
    story = failing_over()
    story.bring_up("node2", "FAILOVER", observe=False)
    return story


WORLDS = {never_run: (2, 280), starting: (2, 350), serving: (2, 250), failing_over: (3, 2600), resuming: (2, 250)}
"""How deep CI goes, and how many states there are at least: fewer would mean that something is no longer told."""


@pytest.mark.parametrize("world", WORLDS)
def test_every_order_of_events_keeps_every_promise(world: Callable[[], Story], record_property: Any) -> None:
    """I1 to I6 in every state that can be reached within the depth, and an end for whatever waits in it."""
    ci_depth, states_min = WORLDS[world]
    depth, state = DEPTH or ci_depth, world().state
    came: dict[str, tuple[Told, ...]] = {key(state): ()}
    frontier, steps = [(state, key(state))], 0
    for _ in range(depth):
        reached: list[tuple[ClusterState, str]] = []
        for present, place in frontier:
            for told in events(present):
                steps += 1
                way = (*came[place], told)
                with _told(way):
                    following = tell(present, told)
                    if (name := key(following)) not in came:
                        came[name] = way
                        ends(following)
                        reached.append((following, name))
        frontier = reached
    record_property(f"machines, {world.__name__}", f"{depth} events deep, {len(came)} states, {steps} steps")
    assert len(came) >= states_min or depth < ci_depth, "the world is smaller than it was"


@contextmanager
def _told(way: tuple[Told, ...]) -> Iterator[None]:
    """Where a promise is broken, the way there is told."""
    try:
        yield
    except AssertionError as error:
        broken = next(
            (line for line in str(error).splitlines() if line.startswith("assert not [")), "an assertion of the fold, a job or an end"
        )
        pytest.fail("\n    ".join([broken, *map(str, way)]))
