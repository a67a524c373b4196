"""CLUSTERPRO's alerts: what each (module, id) means, in our own words, and what dcsup takes it for (CLUSTERPRO.md, 6.2).

The alert extension hands them in one by one (`dcsup hook alert`). A `symptom` is where `detect` begins; an alert that the manager `acts` is
where it ends if no hook says it first; `fencing` is what the manager does about a node that it cannot reach; `withheld` and `failed` are
reasons why nothing, or nothing good, came of it; the rest is information. An id that is not here is kept with its own text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from statemachines.states import Kind

Category = Literal["symptom", "acts", "fencing", "withheld", "failed", "double-activation", "information"]


@dataclass(frozen=True, slots=True)
class Alert:
    category: Category
    meaning: str
    kind: Kind = "none"
    """Of one that says that the manager acts: what the failover is called."""
    by_operator: bool = False
    """Somebody asked the manager to."""
    own_node: bool = False
    """It is about the node that tells it, so it concerns the group only if it is there."""


ALERTS: dict[tuple[str, int], Alert] = {
    # --- where `detect` begins
    ("rm", 9): Alert("symptom", "a monitor found an error"),
    ("pm", 11): Alert("symptom", "the cluster service met a fatal error", own_node=True),
    ("pm", 20): Alert("symptom", "a process of the cluster service died", own_node=True),
    # --- the manager's decision
    ("rc", 50): Alert("acts", "the group is being moved", "move", by_operator=True),
    ("rc", 60): Alert("acts", "the group fails over", "failure"),
    ("rc", 70): Alert("acts", "the group is being restarted in place", "restart"),
    ("rc", 74): Alert("acts", "the group goes back to the node of highest priority by itself", "move"),
    ("rc", 80): Alert("acts", "a resource of the group is being restarted", "restart"),
    ("rm", 13): Alert("acts", "a monitor had its target restarted", "restart"),
    ("rm", 14): Alert("acts", "a monitor had its target failed over", "failure"),
    ("rm", 16): Alert("acts", "a monitor has this node shut down", "shutdown", own_node=True),
    ("rm", 17): Alert("acts", "a monitor has this node rebooted", "shutdown", own_node=True),
    # --- what it does about a node that it cannot reach
    ("nm", 2): Alert("fencing", "a node went down or was stopped"),
    ("nm", 30): Alert("fencing", "the network between the nodes is cut"),
    ("nm", 31): Alert("fencing", "the network between the nodes is cut, and this side gives way"),
    **{("nm", n): Alert("fencing", "whether the network between the nodes is cut could not be told; the manager acts on the node")
       for n in range(40, 46)},
    # --- why nothing happened
    ("rc", 23): Alert("withheld", "a node is in no state to bring the group up"),
    ("rc", 63): Alert("withheld", "a node is in no state to take the group over"),
    ("rc", 65): Alert("withheld", "there is no node that the group could go to"),
    ("rc", 66): Alert("withheld", "a node is in no state for the group"),
    ("rc", 100): Alert("withheld", "the group was restarted as often as allowed; the final action is held back"),
    **{("rc", n): Alert("withheld", "what the manager does by itself is switched off at present") for n in range(510, 514)},
    ("rm", 25): Alert("withheld", "a monitor's recovery was left out: its target is not active"),
    ("rm", 100): Alert("withheld", "a monitor's target was restarted as often as allowed; the final action is held back"),
    ("rm", 190): Alert("withheld", "the recovery by monitors was switched off"),
    ("rm", 192): Alert("withheld", "a monitor's recovery was ignored: recovery is switched off"),
    ("rm", 193): Alert("withheld", "a monitor's recovery was ignored"),
    ("rm", 200): Alert("withheld", "a monitor's final action was held back: no other node is healthy"),
    ("rm", 220): Alert("withheld", "a monitor's recovery was left out: its target is not active"),
    ("cl", 18): Alert("withheld", "groups are not started by themselves: the cluster was not stopped in good order"),
    # --- what went wrong on the way
    ("rc", 12): Alert("failed", "the group could not be brought up"),
    ("rc", 22): Alert("failed", "the group could not be stopped"),
    ("rc", 32): Alert("failed", "a resource could not be brought up"),
    ("rc", 42): Alert("failed", "a resource could not be stopped"),
    ("rc", 52): Alert("failed", "the group could not be moved"),
    ("rc", 62): Alert("failed", "the group could not be failed over"),
    ("rc", 72): Alert("failed", "the group could not be restarted"),
    ("rc", 76): Alert("failed", "the group could not go back to the node of highest priority"),
    ("rc", 82): Alert("failed", "a resource could not be restarted"),
    **{("rm", n): Alert("failed", "what a monitor had asked for could not be done") for n in range(18, 24)},
    ("rm", 7): Alert("failed", "a monitor could not be started"),
    ("rm", 171): Alert("failed", "a monitor's recovery script failed"),
    ("nm", 37): Alert("failed", "a network partition resource failed"),
    # --- up twice
    ("rc", 92): Alert("double-activation", "the group is up on more than one node"),
    ("rc", 502): Alert("double-activation", "the manager deals with a group that is up on more than one node"),
    # --- for whoever reads the record
    ("rc", 503): Alert("information", "the nodes do not agree about the group's state"),
    ("rc", 504): Alert("information", "the nodes agree about the group's state again"),
    ("pm", 1): Alert("information", "the cluster service starts"),
    ("pm", 2): Alert("information", "the cluster service stops"),
    ("nm", 1): Alert("information", "a node joined the cluster"),
    ("nm", 4): Alert("information", "a heartbeat between the nodes stopped"),
    ("nm", 10): Alert("information", "the state of a heartbeat is not known"),
    ("nm", 36): Alert("information", "a network partition resource is well again"),
    ("nm", 80): Alert("information", "the cluster's own connection to a node is lost"),
    ("nm", 81): Alert("information", "the cluster's own connection to a node is back"),
    ("rc", 10): Alert("information", "the group is being brought up"),
    ("rc", 11): Alert("information", "the group is up"),
    ("rc", 20): Alert("information", "the group is being stopped"),
    ("rc", 21): Alert("information", "the group is stopped"),
    ("rc", 30): Alert("information", "a resource is being brought up"),
    ("rc", 31): Alert("information", "a resource is up"),
    ("rc", 40): Alert("information", "a resource is being stopped"),
    ("rc", 41): Alert("information", "a resource is stopped"),
    ("rc", 51): Alert("information", "the group was moved"),
    ("rc", 61): Alert("information", "the group was failed over"),
    ("rc", 64): Alert("information", "the manager chose the node that the group goes to"),
    ("rc", 71): Alert("information", "the group was restarted"),
    ("rc", 75): Alert("information", "the group went back to the node of highest priority"),
    ("rc", 81): Alert("information", "a resource was restarted"),
    ("rm", 4): Alert("information", "a monitor warns"),
    ("rm", 10): Alert("information", "a monitor does not watch on this node"),
    ("rm", 12): Alert("information", "a monitor had its target stopped"),
    ("rm", 15): Alert("information", "a monitor has the cluster service stopped"),
    ("rm", 26): Alert("information", "a monitor finds all well again"),
    ("rm", 27): Alert("information", "a monitor cannot tell any more"),
    ("rm", 49): Alert("information", "a monitor warns no more"),
    ("rm", 71): Alert("information", "a monitor takes nearly as long as it may"),
    ("rm", 170): Alert("information", "a monitor's recovery script ran"),
    ("rm", 191): Alert("information", "the recovery by monitors was switched on"),
}  # fmt: skip


def alert_of(module: str, number: int) -> Alert | None:
    return ALERTS.get((module, number))


def meaning_of(module: str, number: int, text: str) -> str:
    """What an alert means; of one that is not in the table, the beginning of its own text."""
    known = alert_of(module, number)
    return known.meaning if known is not None else text[:LONGEST_TEXT] or f"alert {module} {number}"


LONGEST_TEXT = 200
