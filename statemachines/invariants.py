"""What must hold after every step (DESIGN.md, I1-I8); checked in tests, in simulation, and cheaply in production.

Only what can be seen in one cluster's state and the entries of one step is here. That a verb ran once (I7), or that the watch hook was
right to end (I8), is seen on the nodes, and checked there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from statemachines.entries import Sealed
from statemachines.states import ClusterState


def check(state: ClusterState, entries: Iterable[Sealed]) -> list[str]:
    """Every violation, as `I<n> what is wrong`; an empty list if all is well."""
    if state.settings is None:
        return []
    return [*_commands(state, entries), *_every_wait_has_an_end(state), *_failovers_end(state)]


def _commands(state: ClusterState, entries: Iterable[Sealed]) -> Iterator[str]:
    for sealed in entries:
        entry = sealed.entry
        if entry.type != "CommandIssued":
            continue
        ticket = state.tickets.get(entry.data["ticket"])
        if ticket is None or ticket.node != entry.node or ticket.code is not None:
            yield f"I1 {entry.data['job_id']}: no script on {entry.node} asks for it"
            continue
        command = ticket.commands[entry.data["n"] - 1]
        if (command.service, command.verb) != (entry.service, entry.data["verb"]):
            yield f"I1 {entry.data['job_id']}: the ticket lists {command.verb} of {command.service}"
        if ticket.script == "start" and _agent_missing(state, command.service):
            yield f"I2 {entry.data['job_id']}: the agent of this node does not run yet (G23)"


def _agent_missing(state: ClusterState, service: str) -> bool:
    assert state.settings is not None
    asked = state.settings.service(service)
    agents = [s.name for s in state.settings.services if s.kind == "agent"]
    return asked is not None and asked.kind == "server" and any(not state.services[name].verified for name in agents)


_WAITS = {
    "starting": ("start:",), "recovering": ("start:", "resume:"), "stopping": ("stop:",), "failing-over": ("stop:", "takeover:", "start:")
}  # fmt: skip


def _every_wait_has_an_end(state: ClusterState) -> Iterator[str]:
    for name, service in state.services.items():
        prefixes = _WAITS.get(service.state)
        if service.verified and service.state not in ("starting", "recovering", "running"):
            yield f"I3 service {name} is {service.state} and counts as verified"
        if prefixes and not any(deadline.startswith(prefixes) for deadline in state.deadlines):
            yield f"I3 service {name} is {service.state} and nothing ends it"
    for name, node in state.nodes.items():
        if node.state in ("starting", "recovering") and f"node:{name}" not in state.deadlines:
            yield f"I3 node {name} is {node.state} and nothing ends it"
        if node.state == "failing-over" and state.failover is None:
            yield f"I3 node {name} is failing-over and there is no failover"


def _failovers_end(state: ClusterState) -> Iterator[str]:
    failover = state.failover
    if failover is not None:
        wanted = {"suspected": ("suspicion:",), "acting": ("takeover:",), "starting": ("start:",), "resuming": ("resume:",)}[failover.state]
        if not any(deadline.startswith(wanted) for deadline in state.deadlines):
            yield f"I3 failover {failover.id} is {failover.state} and nothing ends it"
    for ended in state.failovers:
        if ended.outcome is None:
            yield f"I3 failover {ended.id} ended without an outcome"
