"""What the cluster manager itself says: its own view of the cluster, and its alerts.

In mode supervise the scripts' hooks tell best what the manager does; in mode observe this is all there is. Views come from every node, each
told only when it changes, so they may be older or differ: the newest one counts, and a node says something new about the group's place
only when the place is another one than in its view before.
"""

from __future__ import annotations

import re

from statemachines import facts as f
from statemachines import records
from statemachines.alerts import LONGEST_TEXT, Alert, alert_of, meaning_of
from statemachines.outlook import Outlook
from statemachines.states import AlertNote, ClusterView, Kind

VIEWS_AGREE_S = 15.0
"""Two nodes' views may differ for this long while the group moves: each is read at its own pace, by default every 5 s."""

READ_AFTER_MS = 1000.0
"""A view that was read at least this long after another one, and differs, knew what that one says."""


class Manager(Outlook):
    """A step that knows what the manager says."""

    # --- its view

    def on_viewed(self, node: str, fact: f.ClusterViewed) -> None:
        """In mode observe the manager's own view is what tells that it acts; in supervise the hooks tell it better."""
        view = self.state.views[node]
        if view.at_ms > self.at_ms or not self.state.counts_as_view(view):
            return  # an older one, or one from outside: evidence only
        if fact.double_activation:
            self.double_activation(None, [])
        self._compare_views(view)
        self._note_suspension(fact)
        if self.state.view is view and self.at_ms >= self.state.term_ms and self.settings.mode == "observe":
            self._observe(node, fact)
        self.adopt_what_runs()

    def _compare_views(self, view: ClusterView) -> None:
        """Two nodes that each name another one as the group's: the group is up twice, or has just moved."""
        differing = self.differing_views()
        if not differing:
            self.clear_deadlines("views")
        elif not self.state.double_activation:
            if self._knew_better(view, differing):
                self.double_activation(None, _named(differing))
            elif "views" not in self.state.deadlines:
                data = {"current": {other.node: other.current for other in differing}}
                self.decide("ViewsDiffered", "C200", data=data, changes={"deadlines": {"views": self.due(VIEWS_AGREE_S)}})
        self.watch_double_activation()

    def _knew_better(self, view: ClusterView, differing: list[ClusterView]) -> bool:
        """Whether the node that was slower to read, or seemed so, has read again that the group is where it said before."""
        before = self.before.views.get(view.node)
        if view not in differing or before is None or before.current != view.current:
            return False
        others_ms = max(other.at_ms for other in differing if other.current != view.current)
        return before.at_ms < others_ms <= view.at_ms - READ_AFTER_MS

    def views_still_differ(self) -> None:
        if differing := self.differing_views():
            self.double_activation(None, _named(differing))

    def _note_suspension(self, fact: f.ClusterViewed) -> None:
        told = fact.suspended is not None and self.at_ms >= self.before.suspension_told_ms
        if not told or fact.suspended == self.state.suspended:
            return
        if fact.suspended:
            self.decide("ClusterSuspended", "C100", changes={"suspended": True, "suspended_since_ms": self.now_ms})
        else:
            self.decide("ClusterUnsuspended", "C102", changes={"suspended": False, "suspended_since_ms": None})
            self.look_again()

    # --- its view in mode observe

    def _observe(self, node: str, fact: f.ClusterViewed) -> None:
        before = self.before.views.get(node)
        if before is None or (before.current, before.group_state) != (fact.current, fact.group_state):
            self._observe_place(fact)

    def _observe_place(self, fact: f.ClusterViewed) -> None:
        if fact.current is not None and self.state.active not in (None, fact.current):
            self._manager_acted("cluster-view", "failure" if self._failover_begun() else "move", fact.current)
        if fact.current is None and fact.group_state == "offline":
            self._seen_offline()

    def _failover_begun(self) -> bool:
        return self.state.failover is not None and self.state.failover.state != "resuming"

    def _seen_offline(self) -> None:
        if self.state.failover is not None and self.state.failover.state in ("acting", "starting"):
            return  # between two nodes it is offline for a while
        self.fire_failover("stop_called", kind=None)
        for name in self.state.services:
            self.fire_service(name, "seen_offline", ["observing"])
        self.decide("GroupSeenOffline", None, changes={"active": None})

    # --- its alerts

    def on_alert(self, node: str, fact: f.AlertReceived) -> None:
        """One that is told when the group was brought up since completes a record and moves nothing."""
        alert = alert_of(fact.module, fact.id)
        if alert is not None and self.at_ms >= self.state.term_ms:
            self._heed(node, fact, alert)
        if (record := records.of_moment(self.known_failovers(), self.at_ms)) is not None:
            note = AlertNote(module=fact.module, id=fact.id, at_ms=self.at_ms, meaning=meaning_of(fact.module, fact.id, fact.text))
            self.amend(record, lambda copy: records.note_alert(self, copy, note, alert), node)

    def _heed(self, node: str, fact: f.AlertReceived, alert: Alert) -> None:
        concerned = self.serves(self.state.active) and not (alert.own_node and node != self.state.active)
        if alert.category == "double-activation":
            self.double_activation(None, [])
        elif alert.category in ("symptom", "fencing") and concerned and not self._names_another(fact.text):
            self.symptom("alert")
        elif alert.category == "acts" and (concerned or not alert.own_node):
            self._manager_acted("alert", alert.kind, None, alert.by_operator)
        elif alert.category == "withheld" and self.state.failover is None:
            data = {"module": fact.module, "id": fact.id, "meaning": alert.meaning, "text": fact.text[:LONGEST_TEXT]}
            self.decide("ManagerWithheld", "C400", node=node, data=data)

    def _names_another(self, text: str) -> bool:
        """Whether an alert's text is about other nodes than the group's: that a standby went down is no symptom."""
        named = {name for name in self.state.nodes if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text, re.IGNORECASE)}
        return bool(named) and self.state.active not in named

    def _manager_acted(self, trigger: str, kind: Kind, node_to: str | None, by_operator: bool = False) -> None:
        self.freeze_baseline()
        conditions = ["elsewhere"] if node_to is not None else []
        details = {"trigger": trigger, "kind": kind, "node": node_to, "by_operator": by_operator}
        moving = self.fire_failover("manager_acted", conditions, **details)
        if moving and self.state.active is not None and self.state.active != node_to:
            self.take_away(self.state.active)


def _named(views: list[ClusterView]) -> list[str]:
    return sorted({view.current for view in views if view.current is not None})
