"""The loop: the host of the core, and what it owes to it.

One thread. It waits for facts, steps, commits, and from time to time looks around. The core decides; everything that touches the
world is here, in this order, and each line says what is left behind if the process ends right after it:

1. **Read** the inboxes, from the cursors in the head. *Ends here: nothing happened; whoever leads next reads the same.*
2. **Step** each fact that is the next of its stream, on a copy of the state (intake.py). *Ends here: the same.*
3. **Commit**: log entries, jobs, marks, quarantine and the new head in one compare-and-set. *Ends before it is applied: the same as 1. Ends
   after: all of it stands; the successor folds it from the log, the jobs are queued once, and the cursors have passed the facts.*
4. **Adopt** the new state, and let the projections see the entries. *Ends here: they are folded again from the log.*
5. **Tell the nodes** when maintenance begins and ends: a key of their own, which says what the state says. It is compared with the
   state when the lead is taken and every few seconds. *Ends here: the successor compares it.*
6. **Look around** (`SWEEP_S`): renew the lease, read all inboxes (a bell may be missed), compare signs of life, endpoints (endpoints.py)
   and deadlines with the state, and put a fact into the leader's own inbox for each difference (observing.py). *Ends here: the fact is
   judged by the successor, or the successor sees the same difference.*
7. **Tidy up**: a snapshot, what lies behind the cursors. *Ends here: a longer fold, a longer stream.*

A commit that is refused means that somebody else leads: the state is dropped and the lead is tried for again later, like any standby.
A commit whose answer is lost is settled by reading the head, before anything else is done for that cluster. After Redis was away the
state is kept only if the head is what it was. A fact on which the core raises is put aside and kills nobody.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from orchestrator import history
from orchestrator.clock import RedisClock
from orchestrator.endpoints import Endpoints, Seen
from orchestrator.intake import AHEAD_MS_MAX, Batch, in_order, take_in
from orchestrator.lease import Lease, Led, Pending, Taker
from orchestrator.observing import (
    RECONNECT_S,
    Differences,
    Telling,
    endpoint_differences,
    envelopes,
    latest_ms,
    liveness_values,
    maintenance_text,
)
from orchestrator.ports import (
    CommitAnswer,
    Core,
    InboxEntry,
    LogDamaged,
    Projection,
    ProjectionFactory,
    Store,
    StoreRefused,
    StoreUnavailable,
)
from statemachines import wire
from statemachines.configuration import ClusterSettings
from statemachines.entries import Sealed, id_key
from statemachines.states import ClusterState

log = structlog.get_logger()

SWEEP_S = 0.5
STANDBY_S = 0.25
"""How often a standby looks whether a lease has run out."""

TRIM_S = 10.0
MAINTENANCE_S = 3.0
"""How often what the nodes read of maintenance is compared with the state."""

READ_COUNT = 100
"""Entries asked for of each inbox in one read."""

BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
DAMAGED_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class View:
    """What is known of a cluster that this orchestrator leads, for metrics and status."""

    state: ClusterState
    projection: Projection | None
    now_ms: int
    inbox_lag_s: float | None
    """Age of the oldest fact handed in that is not in the log; None while Redis does not answer and nothing is known to wait."""
    nodes: Mapping[str, Mapping[str, Any]]
    """Node -> {"alive": ..., "watch": ...}: the liveness values as JSON, or None."""


class Orchestrator:
    """Leads what it can of the configured clusters. `run` is the loop; everything else may be called from other threads."""

    def __init__(
        self,
        store: Store,
        clusters: Mapping[str, ClusterSettings],
        lease: Lease,
        *,
        core: Core | None = None,
        make_projection: ProjectionFactory | None = None,
        snapshot_every: int = 500,
        revive: Callable[[], None] = lambda: None,
    ) -> None:
        """`revive` is called when Redis does not answer: whoever has a Redis of its own starts it again if it is gone."""
        self.lock = threading.RLock()
        """Held while states and projections change."""
        self.skipped: dict[str, Counter[str]] = defaultdict(Counter)
        """Cluster -> `duplicate` or `gap` -> facts that were read and not taken."""
        self.lease = lease
        self._store = store
        self._clusters = dict(clusters)
        self._core = core if core is not None else Core()
        self._taker = Taker(store, lease, self._core, make_projection)
        self._snapshot_every = snapshot_every
        self._revive = revive
        self._led: dict[str, Led] = {}
        self._due_s: dict[str, float] = {}
        """Cluster -> when (monotonic) its next deadline is due that was not told yet."""
        self._epochs_seen: Counter[str] = Counter()
        """Cluster -> the highest epoch seen, whoever led: Redis may come back without its last commits, and none is issued twice."""
        self._damaged_until: dict[str, float] = {}
        self._damaged: dict[str, str] = {}
        """Cluster -> why it cannot be led, as it was said."""
        self._endpoints = Endpoints()
        self._maintenance_due: set[str] = set()
        """Clusters whose maintenance key is not what the state says."""
        self._maintenance_refused = ""
        self._clock = RedisClock()
        self._stopping = False
        self._connected = False
        self._said_unavailable = False
        self._failures = 0
        self._together_since = 0.0
        """Since when (monotonic) Redis has been there without a break, its clock going evenly."""
        self._last_contact = 0.0
        self._contest_from = 0.0
        self._next_sweep = 0.0
        self._next_trim = 0.0
        self._next_maintenance = 0.0

    # --- the loop ---------------------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Lead until `stop` is called; then hand over at once."""
        while not self._stopping:
            self.turn()
        self._hand_over()
        self._endpoints.close()

    def stop(self) -> None:
        """End `run` soon. May be called from a signal handler."""
        self._stopping = True

    def turn(self) -> None:
        """One round: wait for something to do, and do it."""
        try:
            if not self._connected:
                self._reconnect()
            cursors = {cluster: led.cursors for cluster, led in self._led.items()}
            self._work(self._take(self._store.wait_for_facts(cursors, READ_COUNT, self._patience_s())))
            if time.monotonic() >= self._next_sweep:
                self._sweep()
            self._pass_deadlines()
            self._tell_maintenance()
        except StoreUnavailable as error:
            self._lost(error)
        else:
            self._well()

    def _patience_s(self) -> float:
        """How long there is nothing to do unless a fact comes."""
        due_s = min(self._due_s.values(), default=self._next_sweep)
        return max(0.0, min(self._next_sweep, max(due_s, self._together_since + RECONNECT_S)) - time.monotonic())

    # --- facts ------------------------------------------------------------------------------------------------------------------------

    def _work(self, clusters: Iterable[str]) -> None:
        """Read, step and commit until nothing is left to read."""
        waiting = {cluster for cluster in clusters if cluster in self._led}
        while waiting:
            waiting = self._take(self._store.read_inboxes({cluster: self._led[cluster].cursors for cluster in waiting}, READ_COUNT))
            self.lease.renew(self._store, if_due=True)

    def _take(self, entries: Sequence[InboxEntry]) -> set[str]:
        """Step and commit what was read; returns the clusters that have more."""
        by_cluster: dict[str, list[InboxEntry]] = defaultdict(list)
        for entry in entries:
            by_cluster[entry.cluster].append(entry)
        if max((entry.ms for entry in entries), default=0) > self._clock.now_ms() + AHEAD_MS_MAX:
            self._look_at_clock()  # before a fact is called early, the clock is asked
        more: set[str] = set()
        batches = {}
        for cluster, found in by_cluster.items():
            ready, rest = in_order(found, READ_COUNT)
            batches[cluster] = self._batch(self._led[cluster], ready)
            if rest:
                more.add(cluster)
        self._commit(batches)
        return more & self._led.keys()

    def _batch(self, led: Led, entries: Sequence[InboxEntry]) -> Batch:
        batch = take_in(self._core, led.state, led.cursors, entries, self._clock.now_ms())
        led.waiting_since_ms = batch.oldest_ms
        return batch

    def _commit(self, batches: Mapping[str, Batch]) -> None:
        """Commit one batch of each cluster, in one go."""
        if not batches:
            return
        commits = [self._led[cluster].commit_of(batch) for cluster, batch in batches.items()]
        for commit in commits:
            self._led[commit.cluster].pending = Pending(commit.new, batches[commit.cluster])
        for commit, answer in zip(commits, self._store.commit(commits), strict=True):
            self._answered(self._led[commit.cluster], answer)

    def _answered(self, led: Led, answer: CommitAnswer) -> None:
        if not answer.done or answer.head is None:
            self._deposed(led, answer.trouble or "another orchestrator committed")
            if answer.trouble is not None:
                self._leave_alone(led.cluster)
            return
        if answer.trouble is not None:
            log.error("Redis refused a part of a commit beside the log", cluster=led.cluster, reason=answer.trouble)
        self._adopt(led, answer.head.time_ms)

    def _adopt(self, led: Led, time_ms: int) -> None:
        """The pending commit is history: go on from it."""
        assert led.pending is not None
        batch, head = led.pending.batch, led.pending.head
        with self.lock:
            led.state, led.pending, led.waiting_since_ms = batch.state, None, None
            led.head = type(head)(head.epoch, head.commit, head.cursors, head.last_id, head.last_hash, time_ms)
            led.entries_since_snapshot += len(batch.entries)
            self.skipped[led.cluster].update(batch.skipped)
            self._project(led, batch.entries)
        if wire.LEADER_INBOX in batch.doubled:  # an append whose answer was lost came first after all, and took another one's number
            for telling in (led.deadlines_told, led.liveness_told, led.endpoints_told):
                telling.forget()
        self._note_deadlines(led)
        if maintenance_text(led.state) != led.maintenance:
            self._maintenance_due.add(led.cluster)
        for one in batch.quarantined:
            log.warning("a fact was quarantined", cluster=led.cluster, inbox=one.inbox, id=one.inbox_id, reason=one.reason)

    def _project(self, led: Led, entries: Sequence[Sealed]) -> None:
        if led.projection is None:
            return
        try:
            for sealed in entries:
                led.projection.apply(sealed)
        except Exception:
            # Numbers are no reason to stop supervising; the log has what they are made of.
            log.exception("a projection failed on entries of the log", cluster=led.cluster)

    def _note_deadlines(self, led: Led) -> None:
        led.deadlines.note(led.state, max(self._clock.now_ms(), id_key(led.state.last_id)[0]), time.monotonic())
        due_s = led.deadlines.next_s(led.state, led.deadlines_told)
        if due_s is None:
            self._due_s.pop(led.cluster, None)
        else:
            self._due_s[led.cluster] = due_s

    # --- looking around ---------------------------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        self.lease.renew(self._store)
        self._look_at_clock()
        self._contest()
        self._work(list(self._led))
        self._watch_nodes()
        self._watch_endpoints()
        self._compare_maintenance()
        self._tidy_up()
        every_s = min(self.lease.renew_every_s, SWEEP_S if len(self._led) == len(self._clusters) else STANDBY_S)
        self._next_sweep = time.monotonic() + every_s

    def _look_at_clock(self) -> None:
        """Ask Redis for its time. A gap since the last look in which signs of life could have run out unseen counts like an outage; so does
        a clock that was set, for that ends them all at once, and every lease."""
        asked_s = time.monotonic()
        stepped_s = self._clock.sync(self._store.now_ms(), asked_s)
        now = time.monotonic()
        shortest_ttl_s = min((settings.node_ttl for settings in self._clusters.values()), default=SWEEP_S)
        if stepped_s:
            log.warning("the clock of Redis, or this machine's, was set or stood still", by_s=round(stepped_s, 1))
            self._contest_from = now + self.lease.ttl_s
        if stepped_s or now - self._last_contact > max(2 * SWEEP_S, shortest_ttl_s / 2):
            self._together_since = now
        self._last_contact = now

    def _contest(self) -> None:
        """Drop what is somebody else's, try for what is nobody's."""
        leaders = self._store.leaders(list(self._clusters))
        free = [cluster for cluster, leader in leaders.items() if cluster not in self._led and self.lease.may_try(leader)]
        for cluster, leader in leaders.items():
            self._epochs_seen[cluster] = max(self._epochs_seen[cluster], leader.epoch)
            if cluster in self._led and leader.orchestrator != self.lease.identity:
                self._deposed(self._led[cluster], f"its owner is {leader.orchestrator}")
        if any(leaders[cluster].orchestrator not in (None, self.lease.identity) for cluster in free):
            self._look_at_clock()  # before a lease is called over, the clock is asked
        for cluster in free if time.monotonic() >= self._contest_from else ():
            self._try_to_lead(cluster)
            self.lease.renew(self._store, if_due=True)  # many clusters take longer than a lease lasts

    def _try_to_lead(self, cluster: str) -> None:
        if time.monotonic() < self._damaged_until.get(cluster, 0.0):
            return
        try:
            led = self._taker.take(cluster, self._clusters[cluster], self._epochs_seen[cluster])
        except (LogDamaged, StoreRefused) as error:
            what = "the log is damaged" if isinstance(error, LogDamaged) else "Redis refuses"
            self._cannot_lead(cluster, f"cannot lead: {what}", str(error))
            return
        except StoreUnavailable:
            raise
        except Exception:
            # Entries that this code cannot fold; the other clusters are led all the same.
            log.exception("cannot lead: the log cannot be folded", cluster=cluster)
            self._leave_alone(cluster)
            return
        if led is None:
            log.info("another orchestrator was quicker", cluster=cluster)
            return
        with self.lock:
            self._led[cluster] = led
        self._epochs_seen[cluster] = max(self._epochs_seen[cluster], led.head.epoch)
        self._damaged.pop(cluster, None)
        self._note_deadlines(led)
        self._next_maintenance = 0.0
        log.info("took the lead", cluster=cluster, epoch=led.head.epoch, last_id=led.head.last_id)

    def _cannot_lead(self, cluster: str, event: str, reason: str) -> None:
        """Said once for each reason; tried again for as long as it lasts."""
        if self._damaged.get(cluster) != reason:
            log.error(event, cluster=cluster, reason=reason)
            self._damaged[cluster] = reason
        self._leave_alone(cluster)

    def _leave_alone(self, cluster: str) -> None:
        """Trying at once again would only say the same, and hold up the other clusters."""
        self._damaged_until[cluster] = time.monotonic() + DAMAGED_RETRY_S

    def _deposed(self, led: Led, reason: str) -> None:
        log.warning("no longer leads", cluster=led.cluster, epoch=led.head.epoch, reason=reason)
        with self.lock:
            del self._led[led.cluster]
        self._due_s.pop(led.cluster, None)

    def _watch_nodes(self) -> None:
        """Facts for nodes and watches whose signs of life differ from the state.

        What differs is looked at twice, with everything read in between: a node that joins or leaves just now says so itself.
        """
        signs = self._store.signs_of_life([(led.cluster, node) for led in self._led.values() for node in led.settings.nodes])
        for (cluster, node), sign in signs.items():
            self._led[cluster].signs = {**self._led[cluster].signs, node: sign}
        suspects = {led.cluster: found for led in self._led.values() if (found := self._differences(led))}
        new = [cluster for cluster, found in suspects.items() if self._led[cluster].liveness_told.untold(found)]
        if new:
            self._look_at_clock()  # before a sign of life is called missing, the clock is asked: Redis may have stood still, or jumped
        self._work(new)
        for cluster, led in list(self._led.items()):
            again = self._differences(led)
            found = {key: fact for key, fact in suspects.get(cluster, {}).items() if key in again}
            self._tell(led, led.liveness_told, found)
        self._work(new)

    def _differences(self, led: Led) -> Differences:
        now = time.monotonic()
        found = led.liveness.differences(led.state, led.signs, self._clock.now_ms(), now)
        return found if now - self._together_since >= led.settings.node_ttl + RECONNECT_S else {}

    def _watch_endpoints(self) -> None:
        """Facts for endpoints that are otherwise than the state has them. Only the leader probes."""
        self._endpoints.watch({(led.cluster, one.name): one for led in self._led.values() for one in led.settings.endpoints})
        seen: dict[str, dict[str, Seen]] = defaultdict(dict)
        for (cluster, name), one in self._endpoints.seen().items():
            seen[cluster][name] = one
        now_ms, mono_s = self._clock.now_ms(), time.monotonic()
        found = [(led, endpoint_differences(led.state, seen[led.cluster], now_ms, mono_s)) for led in self._led.values()]
        self._work([led.cluster for led, differences in found if self._tell(led, led.endpoints_told, differences)])

    def _pass_deadlines(self) -> None:
        """Append deadlines that are due, and read on: they are judged after everything that arrived before them."""
        now = time.monotonic()
        if now - self._together_since < RECONNECT_S:
            return  # what the nodes have to say of the time when Redis was away is still on its way
        for cluster in [cluster for cluster, due_s in self._due_s.items() if due_s <= now]:
            led = self._led[cluster]
            due = led.deadlines.due(led.state, now)
            if self._tell(led, led.deadlines_told, due, latest_ms(due) if due else 0):
                self._note_deadlines(led)
                self._work([cluster])

    def _tell(self, led: Led, telling: Telling, differences: Differences, not_before_ms: int = 0) -> bool:
        """Put what was not told yet into the leader's inbox; True if there was something."""
        untold = telling.untold(differences)
        if not untold:
            return False
        texts = envelopes(led.state, wire.LEADER_INBOX, self.lease.identity, untold.values())
        try:
            leads, reason = self._store.append_leader_facts(led.cluster, led.head.epoch, texts, not_before_ms), "its epoch is over"
        except StoreRefused as error:
            leads, reason = False, str(error)
            self._leave_alone(led.cluster)
        if not leads:
            self._deposed(led, reason)
            return False
        telling.note(untold)
        return True

    def _compare_maintenance(self) -> None:
        """Whoever changed the nodes' keys, and whatever was not written: it is put right."""
        if time.monotonic() < self._next_maintenance:
            return
        self._next_maintenance = time.monotonic() + MAINTENANCE_S
        try:
            found = self._store.get_maintenance(list(self._led))
        except StoreRefused as error:
            self._refused_maintenance(str(error))
            return
        for cluster, text in found.items():
            self._led[cluster].maintenance = text
        self._maintenance_due = {cluster for cluster, led in self._led.items() if _must_tell(led)}
        self._tell_maintenance()

    def _tell_maintenance(self) -> None:
        """Write what the state says. What Redis does not take is tried again at the next comparison."""
        due, self._maintenance_due = self._maintenance_due, set()
        for led in [self._led[cluster] for cluster in due if cluster in self._led]:
            text = maintenance_text(led.state)
            try:
                if not self._store.put_maintenance(led.cluster, led.head.epoch, text):
                    self._deposed(led, "its epoch is over")
                    continue
            except StoreRefused as error:
                self._refused_maintenance(str(error))
                continue
            if text != led.maintenance:
                log.info("told the nodes of maintenance", cluster=led.cluster, maintenance=text)
            led.maintenance = text
            self._maintenance_refused = ""

    def _refused_maintenance(self, reason: str) -> None:
        if reason != self._maintenance_refused:
            log.error("Redis does not let us tell the nodes of maintenance; trying again", reason=reason)
        self._maintenance_refused = reason

    def _tidy_up(self) -> None:
        for led in self._led.values():
            if led.entries_since_snapshot >= self._snapshot_every:
                self._save(led)
                self.lease.renew(self._store, if_due=True)
        if time.monotonic() >= self._next_trim:
            self._store.trim_inboxes({led.cluster: led.head for led in self._led.values()})
            self._next_trim = time.monotonic() + TRIM_S

    def _save(self, led: Led) -> None:
        try:
            history.save(self._store, led.head.epoch, led.state, led.projection)
        except StoreRefused as error:
            log.error("a snapshot was refused; the next leader folds more of the log", cluster=led.cluster, reason=str(error))
        led.entries_since_snapshot = 0

    # --- Redis goes and comes ---------------------------------------------------------------------------------------------------------

    def _lost(self, error: StoreUnavailable) -> None:
        """Redis gave no answer: say so once, wait a little, and look at the heads before anything else."""
        self._connected = False
        if not self._said_unavailable:
            log.error("Redis does not answer; trying again until it does", reason=str(error))
            self._said_unavailable = True
        self._revive()
        pause_s = BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
        self._failures += 1
        until = time.monotonic() + pause_s
        while not self._stopping and (left_s := until - time.monotonic()) > 0:
            time.sleep(min(left_s, 0.1))

    def _well(self) -> None:
        """A whole turn without trouble. (An answer alone says little: a full Redis, or one that only reads, gives answers too.)"""
        if self._said_unavailable:
            log.info("Redis answers again")
        self._said_unavailable, self._failures = False, 0

    def _reconnect(self) -> None:
        self.lease.renew(self._store)  # a write: whether Redis serves is not seen from reading
        self._together_since = self._last_contact = time.monotonic()
        self._look_at_clock()
        for led in list(self._led.values()):
            self._settle(led)
            self.lease.renew(self._store, if_due=True)
        self._connected = True
        self._next_sweep = self._next_maintenance = 0.0

    def _settle(self, led: Led) -> None:
        """What became of a cluster while no answer came: our last commit happened, or nothing did, or somebody else was there."""
        try:
            head = self._store.read_head(led.cluster)
        except (LogDamaged, StoreRefused) as error:
            self._deposed(led, str(error))
            return
        if head is not None and led.pending is not None and led.pending.head.same_commit(head):
            self._adopt(led, head.time_ms)
        elif led.head.same_commit(head):
            led.pending = None
        else:
            self._deposed(led, "the head is another one than before Redis was away")

    def _hand_over(self) -> None:
        """Leave at once, so that a standby need not wait for the lease to run out. A snapshot that cannot be kept (a full Redis takes none)
        does not hinder that."""
        try:
            for led in self._led.values():
                self._save(led)
        except StoreUnavailable as error:
            log.warning("no snapshot could be left; the successor folds more of the log", reason=str(error))
        try:
            self._store.release(self.lease.identity, list(self._led))
        except StoreUnavailable as error:
            log.warning("could not hand over; the lease will run out", reason=str(error))
        with self.lock:
            self._led.clear()
        self._due_s.clear()

    # --- for other threads ------------------------------------------------------------------------------------------------------------

    def states(self) -> dict[str, Any]:
        """Who this is, what it leads, and the whole state of each cluster that it leads, as JSON values."""
        with self.lock:
            led = dict(self._led)
        return {
            "orchestrator": self.lease.identity,
            "leads": {cluster: one.head.seen() for cluster, one in led.items()},
            "clusters": {cluster: one.state.model_dump(mode="json") for cluster, one in led.items()},
        }

    def views(self) -> dict[str, View]:
        """What metrics ask for, of each cluster that it leads; call it under `lock` and read the projections there."""
        with self.lock:
            return {cluster: self._view(led) for cluster, led in self._led.items()}

    def _view(self, led: Led) -> View:
        now_ms = self._clock.now_ms()
        since_ms = led.waiting_since_ms
        lag_s = max(0, now_ms - since_ms) / 1000 if since_ms is not None else 0.0 if self._connected else None
        return View(led.state, led.projection, now_ms, lag_s, liveness_values(led.signs))


def _must_tell(led: Led) -> bool:
    """Whether the nodes' key is to be written: it says something else, or it lasts only as long as it is renewed."""
    text = maintenance_text(led.state)
    return text is not None or text != led.maintenance
