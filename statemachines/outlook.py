"""What is seen of services and nodes: polls, signs of life, and whether something is up twice.

What is seen here is a symptom or nothing: only the cluster manager acts. While the cluster is suspended it acts on nothing, so a symptom is
then none; what is still bad when the suspension ends becomes one at that moment.
"""

from __future__ import annotations

from statemachines import facts as f
from statemachines.calls import Calls
from statemachines.states import ClusterView


class Outlook(Calls):
    """A step that knows what is seen of services and nodes."""

    # --- polls

    def on_polled(self, node: str, fact: f.ServicePolled) -> None:
        service, call = self.state.services.get(fact.service), self.current_call()
        if service is None:
            return
        self.fire_node(node, "polled")
        if call is not None and self.at_ms < call.called_ms:
            return  # of an older episode
        if fact.status == "healthy" and fact.verified:
            self.verified(fact.service, node, fact.ticket)
            self.clear_if_well()
        elif fact.status == "unhealthy" and node == service.node:
            self.fire_service(fact.service, "unhealthy", ["served"] if service.verified else [])
            self.adopt_what_runs()
        self.watch_double_activation()

    def clear_if_well(self) -> None:
        """A suspicion is cleared when what it was about is well again: node, watch and every service of the group's node."""
        failover, active = self.state.failover, self.state.active
        node = self.state.nodes.get(active or "")
        if failover is None or failover.state != "suspected" or active is None or node is None:
            return
        polls = [service.polls.get(active) for service in self.state.services.values()]
        if node.present and node.watched and all(poll is not None and poll.status == "healthy" for poll in polls):
            self.fire_failover("cleared", reason="the symptom went away")

    # --- up twice

    def watch_double_activation(self) -> None:
        """I1: a service that is up on two nodes that are there, or two nodes whose views name different ones as the group's."""
        for name, service in self.state.services.items():
            up = sorted(node for node, poll in service.polls.items() if poll.status == "healthy" and self._is_there(node))
            if len(up) > 1:
                self.double_activation(name, up)
                return
        said = any(view.double_activation for view in self._views())
        if self.state.double_activation and not said and not self.differing_views():
            self.decide("DoubleActivationEnded", "I1", changes={"double_activation": False})

    def double_activation(self, service: str | None, nodes: list[str]) -> None:
        if not self.state.double_activation:
            self.decide("DoubleActivationReported", "I1", service=service, data={"nodes": nodes}, changes={"double_activation": True})

    def _is_there(self, node: str) -> bool:
        return node in self.state.nodes and self.state.nodes[node].present

    def _views(self) -> list[ClusterView]:
        """Those that are kept up to date: a view is told only when it changes, and holds while its node's watch lives."""
        watched = [view for node, view in self.state.views.items() if self._is_there(node) and self.state.nodes[node].watched]
        return [view for view in watched if not view.from_outside]

    def differing_views(self) -> list[ClusterView]:
        """Views that do not name the same node as the group's; none while one says that the group is on its way (pending)."""
        views = self._views()
        named = [view for view in views if view.current is not None]
        pending = any("pending" in view.group_state for view in views)
        return [] if pending or len({view.current for view in named}) < 2 else named

    # --- signs of life

    def symptom(self, trigger: str) -> None:
        if self.state.suspended:
            self.skip(None, "maintenance", detail=trigger, rule="C110")
            return
        self.freeze_baseline()
        self.fire_failover("symptom", trigger=trigger)

    def serves(self, node: str | None) -> bool:
        taking_part = any(s.verified or s.state in ("starting", "recovering") for s in self.state.services.values())
        return node is not None and self.state.active == node and taking_part

    def on_node_joined(self, node: str, fact: f.NodeJoined) -> None:
        self.fire_node(node, "joined", ["was_lost"] if self.state.nodes[node].was_lost else [])
        if self.serves(node) and self.before.nodes[node].boot not in (None, fact.boot):
            self.symptom("node")
        self.clear_if_well()

    def on_node_lost(self, node: str, fact: f.NodeLost) -> None:
        self.fire_node(node, "lost", ["active"] if self.serves(node) else [])
        self.adopt_what_runs()
        self.watch_double_activation()

    def on_node_returned(self, node: str, fact: f.NodeReturned) -> None:
        self.fire_node(node, "returned")
        self.clear_if_well()

    def on_node_left(self, node: str, fact: f.NodeLeft) -> None:
        self.fire_node(node, "left")

    def on_watch_lost(self, node: str, fact: f.WatchLost) -> None:
        if self.serves(node):
            self.symptom("watch")

    def look_again(self) -> None:
        """What was no symptom while the cluster was suspended is one now, if it is still so."""
        for name, service in self.state.services.items():
            poll = service.polls.get(service.node or "")
            if service.verified and poll is not None and poll.status == "unhealthy":
                self.fire_service(name, "unhealthy", ["served"])
        for name, node in self.state.nodes.items():
            if node.was_lost and not node.present:
                self.fire_node(name, "lost", ["active"] if self.serves(name) else [])
            elif node.present and not node.watched and self.serves(name):
                self.symptom("watch")

    def on_watch_returned(self, node: str, fact: f.WatchReturned) -> None:
        self.clear_if_well()

    def on_declined(self, node: str, fact: f.ScriptDeclined) -> None:
        if fact.reason == "recover":
            self.fire_node(node, "recover_called")
        elif fact.reason == "disk-failure":
            self.fire_node(node, "disk_failed")
