"""What the world saw, against what was promised: verbs, scripts, facts. Nothing here asks dcsup what it thinks of it.

- I1: a verb that a worker ran was asked for by a script of that node that had not ended.
- I2: a worker started no server while its node's agent had never become healthy since the script was called.
- I4: a failover that counts as completed has judged the schedules of each service that has some, and left none out.
- I5: what was numbered on a disk is in the log, once, or it is said there that it was lost.
- I7: a verb runs once per (ticket, N), unless the first run's end is unknown and its process gone; never two at a time; after a stop
  ended with 0 no older start runs on.
- I8: a watch script ends with another code than 0 only after a dcstatus on that node was not 0, or could not be run at all; start and stop
  scripts return within the bound that `dcsup check` reckons. A start does not fail for dcsup's sake: what is up is not called down.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.checking.bound import script_bounds
from statemachines.entries import Sealed
from tests.simulation.disk import Disk
from tests.simulation.engine import START_S
from tests.simulation.services import CODE_NOT_FOUND, START_VERBS, VerbRun
from tests.simulation.shell import Shell

if TYPE_CHECKING:
    from tests.simulation.clusterpro import ScriptCall
    from tests.simulation.node import Node
    from tests.simulation.world import World


class Found(NamedTuple):
    """A promise that was not kept, and when."""

    rule: str
    at_s: float
    what: str


def _at_s(sealed: Sealed) -> float:
    return sealed.entry.ms / 1000 - START_S


class Ledger:
    """What was written to one node's disk that matters here: facts that got their number, and ends in the journal."""

    def __init__(self, disk: Disk, now_s: Callable[[], float]) -> None:
        self.numbered: dict[str, str] = {}
        """`stream:seq` -> the fact's type."""
        self.ends: dict[tuple[str, int], float] = {}
        """(ticket, n) -> when its end was first in the journal."""
        self.let_go: set[str] = set()
        """Paths of facts that the mark passed."""
        self._paths: dict[str, str] = {}
        self._disk, self._next, self._now_s = disk, disk.after, now_s
        disk.after = self._after

    def _after(self, what: str, path: str) -> None:
        if what == "rename":
            old, _, new = path.partition(" ")
            if "/outbox/numbered/" in new:
                self._note_number(old, new)
            elif "/journal/" in new:
                self._note_end(new.rpartition("/")[2])
        elif what == "unlink" and "/outbox/numbered/" in path:
            self.let_go.add(path)
        self._next(what, path)

    def _note_number(self, old: str, new: str) -> None:
        if new.endswith(".done"):
            self.let_go.add(old)
            return
        folder, _, name = new.partition("/numbered/")
        stream = self._disk.files[f"{folder}/stream"].content.decode().strip()
        found = _TYPE.search(self._disk.files[new].content)
        source_id = f"{stream}:{int(name.partition('.')[0])}"
        self.numbered[source_id], self._paths[source_id] = found[1].decode() if found else "", new

    def _note_end(self, name: str) -> None:
        ticket, n, state = name.split(".")
        if state in ("ok", "fail"):
            self.ends.setdefault((ticket, int(n)), self._now_s())

    def expected(self) -> Iterator[tuple[str, str]]:
        """(`stream:seq`, type) of what must be in the log: all but what a power cut took from the disk again before it was safe."""
        for source_id, kind in self.numbered.items():
            path = self._paths[source_id]
            if path in self.let_go or path in self._disk.files:
                yield source_id, kind


_TYPE = re.compile(rb'(?:"type": "|^type=)([A-Za-z]+)', re.MULTILINE)

SLACK_S = 0.5
MADE_WITHIN_S = 30.0
"""A script's ticket is made, and looked for, at its beginning; its commands are later."""

"""Between the end of a call as CLUSTERPRO saw it and as the node did."""


def verbs_asked_for(world: World) -> Iterator[Found]:
    """I1."""
    calls: dict[str, list[ScriptCall]] = defaultdict(list)
    for call in world.cluster.scripts:
        calls[call.node].append(call)
    for node in world.nodes.values():
        for run in node.records:
            if not any(_asks(call, run) for call in calls[node.name]):
                yield Found("I1", run.began_s, f"nobody asked for: {run}")


def _asks(call: ScriptCall, run: VerbRun) -> bool:
    wanted = "start" if run.verb in START_VERBS else "stop"
    return call.kind == wanted and call.began_s <= run.began_s and (call.ended_s is None or run.began_s <= call.ended_s + SLACK_S)


def verbs_once(world: World) -> Iterator[Found]:
    """I7, for each node."""
    for node in world.nodes.values():
        yield from _once_per_number(world, node)
        yield from _one_at_a_time(world, node)
        yield from _nothing_after_a_stop(world, node)


def _once_per_number(world: World, node: Node) -> Iterator[Found]:
    ends = world.ledgers[node.name].ends
    by_number: dict[tuple[str, int], list[VerbRun]] = defaultdict(list)
    for run in node.records:
        if run.ticket is not None:
            by_number[run.ticket, run.n].append(run)
    for same in by_number.values():
        for first, second in pairwise(same):
            if ends.get((first.ticket or "", first.n), inf) < second.began_s and not _was_blind(world, node, first, second):
                yield Found("I7", second.began_s, f"ran twice though its end was known: {first}; {second}")


def _one_at_a_time(world: World, node: Node) -> Iterator[Found]:
    by_service: dict[str, list[VerbRun]] = defaultdict(list)
    for run in node.records:
        by_service[run.service].append(run)
    for same in by_service.values():
        for n, first in enumerate(same):
            for second in same[n + 1 :]:
                if second.began_s < _gone_s(first) and not _was_blind(world, node, first, second):
                    yield Found("I7", second.began_s, f"two at the same time: {first}; {second}")


CODE_NOT_UP = 40
"""How our start script says that the group is not up; 1: there is no cluster or no disk here, or CLUSTERPRO ended the script."""

HALTING = ("node paused", "script halted")
UNSURE = ("dcstatus lies", "dcstatus hangs", "dcstatus slow", "dcstatus missing", "shared disk missing", "verb fails")
"""Why a start may have had another view of what is up than we."""

UNREADABLE = ("disk failing",)
UNMARKED = ("disk full", "disk read-only", "no boot id")


def _was_blind(world: World, node: Node, first: VerbRun, second: VerbRun) -> bool:
    """Whether nobody could see what ran: the disk could not be read shortly before, or while, the first ran; or the first was a script's
    that could put no ticket on the disk, and so no mark for those who come after it (as in the guide, N6)."""
    for one in (struck for struck in world.struck if struck.node == node.name):
        if one.kind in UNREADABLE and one.began_s <= second.began_s and one.ended_s >= first.began_s - MADE_WITHIN_S:
            return True
        if one.kind in UNMARKED and first.by == "script" and one.began_s <= first.began_s <= one.ended_s + MADE_WITHIN_S:
            return True
    return False


def _gone_s(run: VerbRun) -> float:
    """When nothing of it ran any more."""
    if run.ended_s is not None:
        return run.ended_s
    return inf if run.process.ended_s is None else run.process.ended_s


def _nothing_after_a_stop(world: World, node: Node) -> Iterator[Found]:
    """A start verb that is older than a stop which ended with 0, and still runs after it."""
    stops = [call for call in world.cluster.scripts if call.node == node.name and call.kind == "stop" and call.code == 0]
    for call in stops:
        assert call.ended_s is not None
        for run in node.records:
            if run.verb not in START_VERBS or run.began_s >= call.began_s:
                continue
            if _gone_s(run) > call.ended_s and not _was_blind(world, node, run, run):
                yield Found("I7", call.ended_s, f"a stop ended with 0, and an older start ran on: {run}")


def facts_once(world: World, entries: Iterable[Sealed]) -> Iterator[Found]:
    """I5: each numbered fact of each node's disk stands in the log, once."""
    seen: dict[tuple[str, str], str] = {}
    said_lost = False
    for sealed in entries:
        entry = sealed.entry
        said_lost = said_lost or entry.type in ("LogTailLost", "FactsLost", "FactsDropped")
        if entry.source_id is None or entry.evidence is None or entry.cause is not None:
            continue
        key = (entry.evidence["inbox"], entry.source_id)
        if key in seen:
            yield Found("I5", _at_s(sealed), f"{key} stands in the log twice: {seen[key]} and {entry.type}")
        seen[key] = entry.type
    for node in world.nodes.values():
        for source_id, kind in world.ledgers[node.name].expected():
            found = seen.get((node.name, source_id))
            if found is None and not (world.net.server.went_back_to_s and said_lost):
                yield Found("I5", world.kernel.now_s, f"{kind} {source_id} of {node.name} is not in the log")
            elif found is not None and found not in (kind, "FactQuarantined", "FactsDropped"):
                yield Found("I5", world.kernel.now_s, f"{source_id} of {node.name} was {kind}, and the log has {found}")


def schedules_judged(world: World, entries: Iterable[Sealed]) -> Iterator[Found]:
    """I4."""
    owners = {service.name for service in world.settings.services if service.owns_schedules}
    names = set(next(iter(world.nodes.values())).services.shared.automatic)
    for sealed in entries:
        record = sealed.entry.data.get("failover")
        if sealed.entry.type != "FailoverEnded" or record is None or record["outcome"] != "completed":
            continue
        judged = {one["service"]: {(verdict["name"], verdict["outcome"]) for verdict in one["schedules"]} for one in record["judgements"]}
        if judged.keys() != owners:
            yield Found("I4", _at_s(sealed), f"failover {record['id']} is completed, and judged are the schedules of {sorted(judged)}")
        for service, told in judged.items():
            # that nobody knows of any of them, before as after, is told as well
            if told and told != {("*", "unknown")} and not {name for name, _ in told} >= names:
                yield Found("I4", _at_s(sealed), f"failover {record['id']}: of {service} only {sorted(told)} are accounted for")


def scripts_in_time(world: World) -> Iterator[Found]:
    """I8: our scripts return within the bound that `dcsup check` reckons, whatever befalls dcsup."""
    bounds = {bound.script: bound.total_s for bound in script_bounds(world.settings)}
    for call in world.cluster.scripts:
        took_s = _ended_s(world, call) - call.began_s
        if isinstance(call.script, Shell) and call.kind in bounds and took_s > bounds[call.kind] + _halted_s(world, call):
            yield Found("I8", call.began_s, f"the {call.kind} script of {call.node} took {took_s:.0f} s, not {bounds[call.kind]:.0f}")


def _ended_s(world: World, call: ScriptCall) -> float:
    """When it was over, though nobody saw it: CLUSTERPRO's own manager may have died with its node."""
    ended_s = call.ended_s if call.ended_s is not None else call.process.ended_s
    return world.kernel.now_s if ended_s is None else ended_s


def _halted_s(world: World, call: ScriptCall) -> float:
    """How long the script was held up by faults of its own process, or by a command of its own that outlived its limit: the guide gives it
    no guard, and the bound reckons with its limit (checking/bound.py)."""
    ended_s = _ended_s(world, call)
    struck = (one for one in world.struck if one.node == call.node and one.kind in HALTING)
    halted_s = sum(max(0.0, min(one.ended_s, ended_s) - max(one.began_s, call.began_s)) for one in struck)
    own = (run for run in world.nodes[call.node].records if run.by == "script" and call.began_s <= run.began_s <= ended_s)
    limits_s = {"start": world.settings.start.command_limit, "stop": world.settings.stop.command_limit}
    return halted_s + sum(max(0.0, min(_gone_s(run), ended_s) - run.began_s - limits_s[call.kind]) for run in own)


def starts_right(world: World) -> Iterator[Found]:
    """The first law: a start says that the group is not up only if it is not, or a command of its call did not end well."""
    for call in world.cluster.scripts:
        if call.kind != "start" or call.code != CODE_NOT_UP or not call.was_up or not isinstance(call.script, Shell):
            continue
        runs = [run for run in world.nodes[call.node].records if call.began_s <= run.began_s <= (call.ended_s or inf)]
        unsure = any(one.node == call.node and one.kind in UNSURE and one.began_s <= (call.ended_s or inf) for one in world.struck)
        if call.event in ("START", "FAILOVER") and all(run.code == 0 for run in runs) and not unsure:
            yield Found("I8", call.ended_s or 0.0, f"the start script of {call.node} ended with {call.code}, and every service is up")


def watches_right(world: World) -> Iterator[Found]:
    """I8."""
    for call in world.cluster.scripts:
        if call.kind == "watch" and call.code not in (None, 0, CODE_NOT_FOUND) and not any(_bad_answers(world.nodes[call.node], call)):
            yield Found("I8", call.ended_s or 0.0, f"the watch script of {call.node} ended with {call.code}, and no dcstatus had been bad")


def _bad_answers(node: Node, call: ScriptCall) -> Iterator[bool]:
    return (answer.code not in (0, None) and call.began_s <= answer.at_s <= (call.ended_s or inf) for answer in node.services.answers)
