"""What GUIDE.md's tables ask of a start and a stop script, as data; written from the guide, not from the scripts.

A case is one combination of everything that issue 3 names. `Expected` says what must be recorded for it.
"""

from __future__ import annotations

from itertools import combinations, product
from typing import Any, NamedTuple

SHAPES = ("server", "agent", "agent server")
RUNNING_EVENTS = ("START", "FAILOVER")
NO_CLUSTER_EVENTS = ("", "NON & SENSE (x)")
"""CLP_EVENT absent, and with something in it that no version of CLUSTERPRO knows (G17)."""
SERVERS = ("HOME", "OTHER")
FACTORS = ("", "GROUPSTOP", "GROUPMOVE", "GROUPFAILOVER", "RESOURCERESTART")
"""CLP_FACTOR exists in a stop only."""
DCSUP = ("working", "missing", "crash", "hang", "before", "during", "after")
HOMES = ("plain", "with a space")

VERBS = {
    ("server", "start", "START"): "recover",  # G8
    ("server", "start", "FAILOVER"): "recover",  # G9
    ("server", "stop", "START"): "faststop",  # G10
    ("server", "stop", "FAILOVER"): "faststop",  # G11
    ("agent", "start", "START"): "start",  # G12
    ("agent", "start", "FAILOVER"): "recover",  # G13
    ("agent", "stop", "START"): "stop",  # G14
    ("agent", "stop", "FAILOVER"): "faststop",  # G15
}
LOG_IDS = {"server": 1, "agent": 2}
NO_CLUSTER = "The cluster is not running: DataCoordinator is neither started nor stopped."
NO_DISK = "The switchable partition is not available: no command is run for DataCoordinator."
ANNOUNCED = {"start": "Starting DataCoordinator {}.", "stop": "Stopping DataCoordinator {}."}
FAILED = {"start": "DataCoordinator {} could not be started.", "stop": "DataCoordinator {} could not be stopped."}


class Case(NamedTuple):
    script: str
    services: str
    event: str
    disk: str
    server: str
    factor: str
    fails: bool
    dcsup: str
    home: str

    def environment(self) -> dict[str, str]:
        """What CLUSTERPRO sets; a variable without a value is not set."""
        values = {"CLP_EVENT": self.event, "CLP_DISK": self.disk, "CLP_SERVER": self.server, "CLP_FACTOR": self.factor, "MODE": self.dcsup}
        return {name: value for name, value in values.items() if value}


class Expected(NamedTuple):
    code: int
    runs: list[str]
    logs: list[str]
    broadcasts: list[str]


def expected(case: Case) -> Expected:
    """What must be recorded: exit code, verbs in order, lines in the cluster log in order, broadcasts."""
    start = case.script == "start"
    if start and case.event == "RECOVER":  # G16
        return Expected(0, [], [], [])
    if case.event not in RUNNING_EVENTS:  # G17
        return Expected(int(start), [], [], [NO_CLUSTER])
    if case.disk == "FAILURE":  # G18
        return Expected(int(start), [], [], [NO_DISK])
    # G23: the agent before the server; a stop in reverse
    services = case.services.split() if start else case.services.split()[::-1]
    logs = [_log(service, "INFO", ANNOUNCED[case.script]) for service in services]  # G19
    tried = services[:1] if start and case.fails else services
    runs = [f"{service} {VERBS[service, case.script, case.event]}" for service in tried]
    # A verb runs a second time only when nobody knows how the first run ended, and, in a start, only when the service is not up (NODE.md)
    if case.dcsup == "during" or (case.dcsup == "after" and (not start or case.fails)):
        runs = runs[:1] + runs
    if case.fails and (start or case.dcsup != "working"):
        logs += [_log(service, "ERR", FAILED[case.script]) for service in tried]
    return Expected(40 if start and case.fails else 0, runs, logs, [])


def _log(service: str, level: str, text: str) -> str:
    return f"CLPLOGCMD|-m|{text.format(service)}|-i|{LOG_IDS[service]}|-l|{level}"


def running_cases() -> list[Case]:
    """Every combination of script, shape, event, outcome and state of dcsup; what else CLUSTERPRO says, and the path, take turns."""
    found = []
    for script in ("start", "stop"):
        fixed = [
            {"script": script, "services": services, "event": event, "disk": "SUCCESS", "fails": fails, "dcsup": dcsup}
            for services, event, fails, dcsup in product(SHAPES, RUNNING_EVENTS, (False, True), DCSUP)
        ]
        found += _with_turns(fixed, {"server": SERVERS, "factor": FACTORS if script == "stop" else ("",), "home": HOMES})
    return found


def declining_cases() -> list[Case]:
    """Every combination of script, shape, event, disk, server and factor in which nothing may run; the states of dcsup and of the commands,
    and the path, take turns."""
    found = []
    for script in ("start", "stop"):
        said = [*product(("RECOVER", *NO_CLUSTER_EVENTS), ("SUCCESS", "FAILURE")), *product(RUNNING_EVENTS, ("FAILURE",))]
        fixed = [
            {"script": script, "services": services, "event": event, "disk": disk, "server": server, "factor": factor}
            for services, (event, disk), server, factor in product(SHAPES, said, SERVERS, FACTORS if script == "stop" else ("",))
        ]
        found += _with_turns(fixed, {"fails": (False, True), "dcsup": DCSUP, "home": HOMES})
    return found


def _with_turns(fixed: list[dict[str, Any]], turning: dict[str, tuple[Any, ...]]) -> list[Case]:
    """Each row with those values of the turning columns that make the most pairs which did not occur yet."""
    choices = [dict(zip(turning, values, strict=True)) for values in product(*turning.values())]
    seen: set[tuple[object, ...]] = set()
    found = []
    for row in fixed:
        case = max((Case(**row, **choice) for choice in choices), key=lambda case: len(_pairs(case) - seen))
        seen |= _pairs(case)
        found.append(case)
    return found


def _pairs(case: Case) -> set[tuple[object, ...]]:
    return {(*a, *b) for a, b in combinations(enumerate(case), 2)}


def missing_pairs(cases: list[Case]) -> list[tuple[object, ...]]:
    """Pairs of values, of two columns, that occur somewhere and never together."""
    values = [set(column) for column in zip(*cases, strict=True)]
    seen = set().union(*map(_pairs, cases))
    wanted = [(a, x, b, y) for a, b in combinations(range(len(values)), 2) for x in values[a] for y in values[b]]
    return [pair for pair in wanted if pair not in seen]
