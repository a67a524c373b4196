"""What is seen from outside the scripts: polls, signs of life, the cluster manager's alerts and its own view.

In mode supervise the scripts' hooks tell best what the manager does; what is seen here is then a symptom or nothing. In mode observe it is
all there is.
"""

from __future__ import annotations

from statemachines import facts as f
from statemachines.calls import Calls
from statemachines.states import Kind

ALERT_SYMPTOMS = frozenset({("nm", 2), ("rm", 9)})
ALERT_ACTS: dict[tuple[str, int], Kind] = {
    ("rc", 60): "failure", ("rm", 14): "failure", ("rc", 50): "move", ("rc", 80): "restart", ("rm", 13): "restart"
}  # fmt: skip
"""Alert ids that are a first symptom, or say that the manager acts (CLUSTERPRO.md 6.2)."""

ALERT_DOUBLE_ACTIVATION = ("rc", 92)


class Outlook(Calls):
    """A step that knows what is seen from outside."""

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

    def watch_double_activation(self) -> None:
        """I1: a service that is up on two nodes that are there; over only when that is so for none."""
        present = {name for name, node in self.state.nodes.items() if node.present}
        for name, service in self.state.services.items():
            up = sorted(node for node, poll in service.polls.items() if poll.status == "healthy" and node in present)
            if len(up) > 1:
                self._double_activation(name, up)
                return
        if self.state.double_activation:
            self.decide("DoubleActivationEnded", "I1", changes={"double_activation": False})

    def _double_activation(self, service: str | None, nodes: list[str]) -> None:
        if not self.state.double_activation:
            self.decide("DoubleActivationReported", "I1", service=service, data={"nodes": nodes}, changes={"double_activation": True})

    # --- signs of life

    def symptom(self, trigger: str) -> None:
        self.freeze_baseline()
        self.fire_failover("symptom", trigger=trigger)

    def _serves(self, node: str | None) -> bool:
        taking_part = any(s.verified or s.state in ("starting", "recovering") for s in self.state.services.values())
        return node is not None and self.state.active == node and taking_part

    def on_node_joined(self, node: str, fact: f.NodeJoined) -> None:
        self.fire_node(node, "joined", ["was_lost"] if self.state.nodes[node].was_lost else [])
        if self._serves(node) and self.before.nodes[node].boot not in (None, fact.boot):
            self.symptom("node")
        self.clear_if_well()

    def on_node_lost(self, node: str, fact: f.NodeLost) -> None:
        self.fire_node(node, "lost", ["active"] if self._serves(node) else [])
        self.watch_double_activation()

    def on_node_returned(self, node: str, fact: f.NodeReturned) -> None:
        self.fire_node(node, "returned")
        self.clear_if_well()

    def on_node_left(self, node: str, fact: f.NodeLeft) -> None:
        self.fire_node(node, "left")

    def on_watch_lost(self, node: str, fact: f.WatchLost) -> None:
        if self._serves(node):
            self.symptom("watch")

    def on_watch_returned(self, node: str, fact: f.WatchReturned) -> None:
        self.clear_if_well()

    def on_declined(self, node: str, fact: f.ScriptDeclined) -> None:
        if fact.reason == "recover":
            self.fire_node(node, "recover_called")
        elif fact.reason == "disk-failure":
            self.fire_node(node, "disk_failed")

    # --- what the manager says

    def on_alert(self, node: str, fact: f.AlertReceived) -> None:
        key = (fact.module, fact.id)
        if key == ALERT_DOUBLE_ACTIVATION:
            self._double_activation(None, [])
        elif self.at_ms < self.state.term_ms:
            return  # told late: the group was brought up since
        elif key in ALERT_SYMPTOMS and self._serves(self.state.active):
            self.symptom("alert")
        elif key in ALERT_ACTS:
            self._manager_acted("alert", ALERT_ACTS[key], None)

    def on_viewed(self, node: str, fact: f.ClusterViewed) -> None:
        """In mode observe the manager's own view is what tells that it acts; in supervise the hooks tell it better."""
        if fact.double_activation:
            self._double_activation(None, [])
        newer = self.state.view is not None and self.state.view.at_ms > self.at_ms
        if self.settings.mode != "observe" or newer or self.at_ms < self.state.term_ms:
            return
        if fact.current is not None and self.state.active not in (None, fact.current):
            self._manager_acted("cluster-view", "failure" if self._failover_begun() else "move", fact.current)
        if fact.current is None and fact.group_state == "offline":
            self._seen_offline()
        if fact.current is not None and fact.group_state == "online":
            for name, service in self.state.services.items():
                poll = service.polls.get(fact.current)
                if poll is not None and poll.verified and not service.verified:
                    self.verified(name, fact.current)

    def _failover_begun(self) -> bool:
        return self.state.failover is not None and self.state.failover.state != "resuming"

    def _seen_offline(self) -> None:
        if self.state.failover is not None and self.state.failover.state in ("acting", "starting"):
            return  # between two nodes it is offline for a while
        self.fire_failover("stop_called", kind=None)
        for name in self.state.services:
            self.fire_service(name, "seen_offline", ["observing"])
        self.decide("GroupSeenOffline", None, changes={"active": None})

    def _manager_acted(self, trigger: str, kind: Kind, node_to: str | None) -> None:
        self.freeze_baseline()
        moving = self.fire_failover("manager_acted", ["elsewhere"] if node_to is not None else [], trigger=trigger, kind=kind, node=node_to)
        if moving and self.state.active is not None and self.state.active != node_to:
            self.take_away(self.state.active)
