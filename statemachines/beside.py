"""What stands beside the machines: moves that an operator asks for, what clients see of the cluster's addresses, the metadata DB.

It moves no service and no node.
"""

from __future__ import annotations

from functools import partial

from statemachines import facts as f
from statemachines import records
from statemachines.manager import Manager
from statemachines.states import TicketStatus

METADATA_GRACE_S = 15.0
"""How long the metadata DB may still run where the group is not: its own resource is stopped after ours, and started before it."""


class Beside(Manager):
    """A step that knows what belongs to a failover and has no state of its own."""

    # --- moves that an operator asks for

    def on_move_requested(self, node: str, fact: f.MoveRequested) -> None:
        """From here on the manager is asked. The move itself is a failover as any other, and takes the request with it (records.py)."""
        words = {"request": fact.request, "to": fact.to, "by": fact.by, "why": fact.why}
        if fact.to is not None and fact.to not in self.state.nodes:
            self.decide("MoveFailed", "C302", data=words | {"reason": f"no node of this cluster is called {fact.to}"})
            return
        before = self.state.move
        deadlines = {f"move:{before.request}": None} if before is not None else {}
        due = {f"move:{fact.request}": self.due(self.settings.takeover_deadline)}
        changes = {"move": words | {"at_ms": self.at_ms}, "deadlines": deadlines | due}
        self.decide("MoveAwaited", "C300", data=words | {"replaces": before.request if before is not None else None}, changes=changes)

    def on_move_ended(self, node: str, fact: f.MoveEnded) -> None:
        """What ended well shows in the cluster; what the manager refused will not come."""
        if self.state.move is not None and self.state.move.request == fact.request and not fact.ok:
            self.drop_move("MoveFailed", "C302", fact.reason)

    def drop_move(self, kind: str, rule: str, reason: str) -> None:
        move = self.state.move
        if move is None:
            return
        deadline = f"move:{move.request}"
        deadlines = {deadline: None} if deadline in self.state.deadlines else {}
        data = move.model_dump(mode="json", exclude={"at_ms"}) | {"reason": reason}
        self.decide(kind, rule, data=data, changes={"move": None, "deadlines": deadlines})

    # --- what clients see

    def on_endpoint(self, node: str, fact: f.EndpointChanged) -> None:
        """An outage belongs to every failover that it overlaps, also when it ends after the failover did."""
        for record in self.known_failovers():
            self.amend(record, partial(records.note_outages, self.state))

    # --- the metadata DB (G44)

    def on_metadata(self, node: str, fact: f.MetadataObserved) -> None:
        self.watch_metadata(node)

    def watch_metadata(self, node: str) -> None:
        """Where the group is, it runs; where the group is not, it may hold the disk: said when it does so for longer than a stop takes."""
        status, deadline = self.state.metadata.get(node), f"metadata:{node}"
        if status is None:
            return
        if status.held and (status.runs is False or not self._group_left(node)):
            self.decide("MetadataReleased", "G44", node=node, changes={"metadata": {node: {"held": False}}})
        elif not status.held and status.runs and self._group_left(node) and deadline not in self.state.deadlines:
            self.decide("MetadataWatched", "G44", node=node, changes={"deadlines": {deadline: self.due(METADATA_GRACE_S)}})

    def metadata_had_time(self, node: str) -> None:
        status = self.state.metadata.get(node)
        if status is None or not status.runs or status.held or not self._group_left(node) or not self.state.nodes[node].present:
            return
        if self.state.failover is not None and self.state.failover.state == "acting" and self.state.failover.node_from != node:
            self.watch_metadata(node)  # it may be coming up there
            return
        data = {"service": status.service, "port": status.port}
        self.decide("MetadataStillHeld", "G44", node=node, data=data, changes={"metadata": {node: {"held": True}}})

    def on_node_returned(self, node: str, fact: f.NodeReturned) -> None:
        super().on_node_returned(node, fact)
        self.watch_metadata(node)

    def _group_left(self, node: str) -> bool:
        """Whether the group is known not to be there: it is elsewhere, or its stop there has ended."""
        call = self.current_call()
        stopped = call is not None and call.script == "stop" and call.node == node and call.code is not None
        return stopped or self.state.active not in (None, node)

    def begin_term(self, node: str, ticket: TicketStatus | None) -> None:
        super().begin_term(node, ticket)
        for name in self.state.metadata:
            self.watch_metadata(name)

    def stopped(self, ticket: TicketStatus) -> None:
        super().stopped(ticket)
        self.watch_metadata(ticket.node)
