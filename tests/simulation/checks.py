"""What must hold (DESIGN.md, I1-I8), and when it is looked at.

At every step of the core: I1-I3 by the invariants themselves, and that no node is declared lost that was there all the time. At every
commit: that an id is never used for two things. In the end, from the world's own records (what DataCoordinator, CLUSTERPRO and the disks
saw, records.py) and from the log: I1, I2, I4-I8, and that all is well again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchestrator import replay
from orchestrator.lease import Led
from orchestrator.memory_store import MemoryStore
from orchestrator.ports import Commit, CommitAnswer
from statemachines import wire
from statemachines.cluster import Arrival, StepResult, step
from statemachines.entries import GENESIS_HASH, Sealed, unseal
from statemachines.folding import fold
from statemachines.states import ClusterState, new_state
from tests.simulation import records
from tests.simulation.engine import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

AGAIN_EVERY = 8
"""One of so many seeds is decided again as a whole (I6): that takes as long as the seed itself."""

NOTICED_WITHIN_S = 20.0
"""Workers look at their mark every 10 to 18 s here while nothing happens (the real ones every second)."""

NODE_LOST_EXCUSED_S = 60.0
"""A loss within this time after a fault that kept signs of life from Redis is explained by it."""


def _first_difference(one: ClusterState, other: ClusterState) -> str:
    ours, theirs = one.model_dump(), other.model_dump()
    return next(f"{name}: {ours[name]} and {theirs[name]}"[:300] for name in ours if ours[name] != theirs[name])


class Checks:
    """What was found wrong in a world, and what is counted in passing."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.violations: list[str] = []
        self.jobs_seen: list[tuple[str, tuple[str, dict[str, Any]]]] = []
        """(queue, job) of every job that was ever queued."""
        self.facts = 0
        self._jobs: dict[str, str] = {}
        self._epochs: dict[int, str] = {}

    def violate(self, rule: str, what: str, at_s: float | None = None) -> None:
        """Note it, now or where it belongs in the story."""
        line = f"{rule}: {what}"
        if line not in self.violations:
            self.violations.append(line)
            self.world.note(f"VIOLATED {line}", at_s)

    def crashed(self, process: Process, error: Exception) -> None:
        self.violate("crash", f"{process.name} on {process.machine.name}: {type(error).__name__}: {error}")

    # --- at every step

    def step(self, state: Any, arrival: Arrival) -> StepResult:
        """The core's step, looked at."""
        result = step(state, arrival)
        for sealed in result.entries:
            self._look_at(sealed)
        return result

    def _look_at(self, sealed: Sealed) -> None:
        entry = sealed.entry
        if entry.type == "InvariantViolated":
            for words in entry.data["violations"]:
                self.violate(*words.split(" ", 1))
        elif entry.type == "NodeLost" and entry.node is not None and not self.world.was_unseen(entry.node, NODE_LOST_EXCUSED_S):
            self.violate("lost", f"{entry.node} is declared lost and was there all the time")

    def committed(self, commits: Sequence[Commit], answers: Sequence[CommitAnswer]) -> None:
        """Told by the server of every commit that it was asked for."""
        for commit, answer in zip(commits, answers, strict=True):
            if answer.done:
                self._look_at_commit(commit)

    def _look_at_commit(self, commit: Commit) -> None:
        self.facts += sum(sealed.entry.is_fact for sealed in commit.entries)
        queue_of = {job.order.node: wire.command_queue(commit.cluster, job.order.node) for job in commit.jobs}
        for job in commit.jobs:
            text = json.dumps(job.order.payload, sort_keys=True)
            if self._jobs.setdefault(job.order.job_id, text) != text:
                self.violate("ids", f"job {job.order.job_id} means two things")
            self.jobs_seen.append((queue_of[job.order.node], (job.order.job_id, {**job.order.payload, "head": commit.new.seen()})))
        if commit.owner is None or self.world.net.server.went_back_to_s:
            return
        if self._epochs.setdefault(commit.new.epoch, commit.owner) != commit.owner:
            self.violate("epoch", f"{commit.new.epoch} was given to {self._epochs[commit.new.epoch]} and to {commit.owner}")

    # --- is all well?

    @property
    def leader(self) -> Led | None:
        """What the leading orchestrator holds of the cluster."""
        for host in self.world.hosts:
            if host.is_alive and host.orchestrator is not None and (led := host.orchestrator._led.get(self.world.cluster_name)):
                return led
        return None

    def what_is_not_well(self) -> str:
        """Empty if the group runs somewhere and dcsup knows it."""
        cluster = self.world.cluster
        if cluster.group_state != "online" or cluster.where is None:
            return f"the group is {cluster.group_state} at {cluster.where}"
        services = self.world.nodes[cluster.where].services
        down = [one.name for one in self.world.settings.services if not services.is_healthy(one.name)]
        if down:
            return f"{', '.join(down)} on {cluster.where} not healthy"
        return self._what_dcsup_has_not_seen(cluster.where)

    def _what_dcsup_has_not_seen(self, where: str) -> str:
        led = self.leader
        if led is None:
            return "nobody leads"
        if led.state.failover is not None:
            return f"failover {led.state.failover.id} is {led.state.failover.state}"
        for name, service in led.state.services.items():
            if (service.state, service.node) != ("running", where):
                return f"{name} is {service.state} on {service.node} for dcsup, and runs on {where}"
        absent = [name for name in self.world.nodes if name in led.state.nodes and not led.state.nodes[name].present]
        if absent:
            return f"{', '.join(absent)} absent for dcsup"
        waiting = [name for name, node in self.world.nodes.items() if node.facts_waiting]
        if waiting:
            return f"facts wait on {', '.join(waiting)}"
        went_back = self.world.net.server.went_back_to_s
        if went_back and self.world.kernel.now_s < went_back[-1][0] + NOTICED_WITHIN_S:
            return "not every node has had the time to see that the log lost its tail"
        return ""

    # --- in the end

    def at_the_end(self) -> None:
        """Go through the records."""
        entries = self._log()
        self._fold_is_live(entries)
        if self.world.seed % AGAIN_EVERY == 0:
            for difference in replay.verify(entries):
                self.violate("I6", f"decided again: {difference}")
        world = self.world
        for found in (
            records.verbs_asked_for(world), records.verbs_once(world), records.facts_once(world, entries),
            records.schedules_judged(world, entries), records.watches_right(world), records.scripts_in_time(world),
            records.starts_right(world),
        ):  # fmt: skip
            for one in found:
                self.violate(one.rule, one.what, one.at_s)
        for sealed in entries:
            if sealed.entry.type == "FactQuarantined" and "step raised" in sealed.entry.data["reason"]:
                self.violate("step", sealed.entry.data["reason"])

    def _log(self) -> list[Sealed]:
        """The log as it stands, each entry checked against the one before it."""
        entries: list[Sealed] = []
        last_hash = GENESIS_HASH
        for stored in self.world.net.server.streams[wire.log(self.world.cluster_name)]:
            fields = stored[1]
            entries.append(unseal(fields[wire.ENTRY_FIELD], fields[wire.HASH_FIELD].decode(), last_hash))
            last_hash = entries[-1].hash
        return entries

    def _fold_is_live(self, entries: Sequence[Sealed]) -> None:
        led = self.leader
        if led is None:
            return
        folded = new_state(self.world.cluster_name)
        for sealed in entries:
            fold(folded, sealed)
        head = MemoryStore(self.world.net.server).read_head(self.world.cluster_name)
        if head is None or (head.last_id, head.last_hash) != (folded.last_id, folded.last_hash):
            self.violate("I6", f"the log ends with {folded.last_id}, and its head is {head}")
        if folded.last_id == led.state.last_id and folded != led.state:
            self.violate("I6", f"folding the log gives another state than the leader holds: {_first_difference(folded, led.state)}")

    # --- numbers

    @property
    def failovers(self) -> int:
        led = self.leader
        return led.state.failover_count if led is not None else 0

    @property
    def commands(self) -> tuple[int, int]:
        """Verbs that were run, and how many of them by the plain sequence."""
        runs = [run for node in self.world.nodes.values() for run in node.records]
        return len(runs), sum(run.by == "script" for run in runs)

    def digest(self) -> str:
        """Of everything that happened."""
        whole = hashlib.sha256()
        for note in self.world.notes:
            whole.update(f"{note.at_s:.6f} {note.text}\n".encode())
        led = self.leader
        whole.update((led.head.last_hash if led is not None else "").encode())
        for node in self.world.nodes.values():
            for record in node.records:
                whole.update(f"{record}\n".encode())
        return whole.hexdigest()[:16]
