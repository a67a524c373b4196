"""What stands beside the machines: what clients see of the cluster's addresses, and moves that an operator asks for.

It moves no service and no node.
"""

from __future__ import annotations

from functools import partial

from statemachines import facts as f
from statemachines import records
from statemachines.manager import Manager


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
