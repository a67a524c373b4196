"""Every rule that an entry may name, and its one sentence of why: the rows of the tables, and the rules beside them.

C numbers are decisions about the cluster as a whole, which move no machine; like the rows' they are stable and have gaps. G rules are
GUIDE.md's, I rules the invariants'.
"""

from __future__ import annotations

from statemachines.tables import TABLES

BESIDE: dict[str, str] = {
    "C100": "The cluster manager is suspended: maintenance. Commands that it asks for are still issued; symptoms open no failover.",
    "C102": "The cluster manager watches again: what is bad now is a symptom now.",
    "C110": "A symptom while the cluster is suspended: the manager acts on nothing, so no failover is expected.",
    "C200": "Two nodes name different ones as the group's. While it moves that is so for a moment; after that it is up twice.",
    "C300": "An operator asked for a move: the next one, to the node that was named, is theirs. A request before it is replaced.",
    "C302": "The cluster manager did not move the group as it was asked to.",
    "C304": "A request for a move that nothing followed is dropped, so that it takes no later move for its own.",
    "C400": "The cluster manager says why it does nothing, and no failover is open that this would belong to.",
    "G1": "One node has the group, with the services that are configured here; any other call goes on by itself.",
    "G4": "After faststop and recover the schedules that were started run again.",
    "G5": "After stop and recover only the automatic schedules run.",
    "G6": "After start the automatic schedules run.",
    "G8-G15": "The ticket lists other commands than the site chose, or else the guide instructs; the ticket is carried out.",
    "G20": "A service is up when dcstatus answered 0, as often as the site asks.",
    "G44": "The metadata DB is watched and shown; where it runs on without the group it may hold the switchable partition.",
    "I1": "dcsup adds no start and no stop; where the cluster manager brings the group up twice, that is said at once.",
    "I2": "The server is never started by a worker before the agents of its machine run.",
    "I3": "Every failover and every wait ends.",
    "I4": "Every schedule that must come back is accounted for.",
    "I5": "Every fact is applied once, or it is said that it was not.",
}


def why_of(rule: str) -> str | None:
    """The sentence behind an entry's `rule`; None for a number that this version does not know."""
    rows = (row.why for table in TABLES.values() for row in table.rows if row.rule == rule)
    return next(rows, BESIDE.get(rule))
