"""Who leads: the lease says who may try, the epoch in the head says who does.

An orchestrator holds one lease, a key with a TTL, and each cluster names its owner. Where the owner's lease has run out (or nobody is
named) somebody else may try: it folds the log and then commits, upon the head that it folded to, an epoch higher by one, its name as
the owner, and the fact `LeadTaken`. That commit is the take-over. Whoever led before, paused or cut off as it may be, builds upon a head
that no longer stands, so nothing that it sends is done. No clock is trusted for that, only the compare-and-set.

Of two that try at the same time one finds the head moved and stays standby. A leader that stops in good order deletes its lease and
its name, so that a standby need not wait.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator import history
from orchestrator.history import History
from orchestrator.intake import Batch, take_in
from orchestrator.observing import Countdown, LeaderFact, Liveness, Telling, envelopes
from orchestrator.ports import (
    Commit,
    Core,
    Head,
    InboxEntry,
    Leader,
    Projection,
    ProjectionFactory,
    SignsOfLife,
    Store,
    StoreRefused,
)
from statemachines import wire
from statemachines.configuration import ClusterSettings
from statemachines.entries import GENESIS_HASH, GENESIS_ID
from statemachines.facts import ConfigurationChanged, LeadTaken
from statemachines.states import ClusterState


def new_identity() -> str:
    """A name that no other orchestrator has or had: host, process, and a random part."""
    host = "".join(c if c.isalnum() or c == "-" else "-" for c in socket.gethostname().partition(".")[0])
    return f"{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


class Lease:
    """This orchestrator's lease."""

    def __init__(self, identity: str, ttl_s: float, where: str) -> None:
        """`where`: JSON that tells others how to reach this orchestrator."""
        self.identity = identity
        self.ttl_s = ttl_s
        self.where = where
        self._renewed: float | None = None

    @property
    def renew_every_s(self) -> float:
        return min(0.5, self.ttl_s / 3)

    def renew(self, store: Store, *, if_due: bool = False) -> None:
        now = time.monotonic()
        if if_due and self._renewed is not None and now - self._renewed < self.renew_every_s:
            return
        store.renew_lease(self.identity, self.ttl_s, self.where)
        self._renewed = now

    def may_try(self, leader: Leader) -> bool:
        return leader.orchestrator in (None, self.identity) or not leader.lives


@dataclass(slots=True)
class Pending:
    """A commit that was sent and whose answer has not been seen."""

    head: Head
    batch: Batch


@dataclass(slots=True)
class Led:
    """A cluster that this orchestrator leads: the state at `head`, and what belongs to leading it."""

    cluster: str
    settings: ClusterSettings
    head: Head
    state: ClusterState
    """Never changed in place: each step gives a new one, so other threads may read it."""
    projection: Projection | None
    inboxes: tuple[str, ...]
    liveness: Liveness
    upon: Head | None = None
    """The head that the lead was taken upon."""
    pending: Pending | None = None
    deadlines: Countdown = field(default_factory=Countdown)
    deadlines_told: Telling = field(default_factory=Telling)
    liveness_told: Telling = field(default_factory=Telling)
    endpoints_told: Telling = field(default_factory=Telling)
    maintenance: str | None = ""
    """What stands in the nodes' maintenance key as far as is known; empty: not known."""
    signs: Mapping[str, SignsOfLife] = field(default_factory=dict)
    """Node -> its signs of life at the last sweep."""
    entries_since_snapshot: int = 0
    waiting_since_ms: int | None = None
    """Arrival of the oldest fact that was read and is not committed."""

    @property
    def cursors(self) -> dict[str, str]:
        """Inbox -> where to read on."""
        return {inbox: self.head.cursors.get(inbox, GENESIS_ID) for inbox in self.inboxes}

    def commit_of(self, batch: Batch) -> Commit:
        """The commit that makes `batch` history. Nodes that something was read from learn how far they are, also after a repeat."""
        new = Head(self.head.epoch, self.head.commit + 1, batch.cursors, *_end_of(batch, self.head))
        marks = {inbox: batch.state.sources.get(inbox, {}) for inbox in sorted(batch.inboxes) if not inbox.startswith("_")}
        anew = sorted(batch.spoilt)
        return Commit(self.cluster, self.head, new, batch.entries, batch.jobs, marks, batch.quarantined, upon=self.upon, begun_anew=anew)


def _end_of(batch: Batch, head: Head | None) -> tuple[str, str]:
    if batch.entries:
        return batch.entries[-1].entry.id, batch.entries[-1].hash
    return (head.last_id, head.last_hash) if head is not None else (GENESIS_ID, GENESIS_HASH)


@dataclass(frozen=True, slots=True)
class Taking:
    """A take-over: what the log folded to, and the commit that takes the lead upon it."""

    past: History
    batch: Batch
    commit: Commit


@dataclass(frozen=True, slots=True)
class Taker:
    """Takes the lead of clusters for one orchestrator."""

    store: Store
    lease: Lease
    core: Core
    make_projection: ProjectionFactory | None = None
    unanswered: dict[str, Taking] = field(default_factory=dict)
    """Cluster -> a take-over that was sent and whose answer has not been seen."""

    def take(self, cluster: str, settings: ClusterSettings, epoch_seen: int) -> Led | None:
        """Fold the cluster's log and take its lead; None: somebody else was quicker.

        `epoch_seen`: the highest epoch known, for a Redis that lost its tail must not issue one twice.

        Raises:
            LogDamaged, StoreRefused, StoreUnavailable: see `orchestrator.ports`. After the last one the next call settles what was sent.
        """
        taking, head = self._settled(cluster)
        if taking is None or head is None:
            self.store.prepare(cluster, settings.nodes)
            taking = self._prepared(cluster, settings, epoch_seen)
            if not self.lease.may_try(self.store.leaders([cluster])[cluster]):
                return None  # it was taken while we folded, or before: the take-over would be upon that one's head, and take it away again
            self.unanswered[cluster] = taking
            [answer] = self.store.commit([taking.commit])
            del self.unanswered[cluster]
            if answer.head is None and answer.trouble is not None:
                raise StoreRefused(answer.trouble)
            if not answer.done or answer.head is None:
                return None
            head = answer.head
        return _led(taking, head, settings)

    def _settled(self, cluster: str) -> tuple[Taking | None, Head | None]:
        """The take-over whose answer was lost, if it happened and is the last thing that did; its head as it stands."""
        taking = self.unanswered.get(cluster)
        if taking is None:
            return None, None
        head = self.store.read_head(cluster)
        del self.unanswered[cluster]
        return (taking, head) if taking.commit.new.same_commit(head) else (None, None)

    def _prepared(self, cluster: str, settings: ClusterSettings, epoch_seen: int) -> Taking:
        past = history.load(self.store, cluster, self.core, self.make_projection, lambda: self.lease.renew(self.store, if_due=True))
        epoch = max(past.head.epoch if past.head is not None else 0, epoch_seen) + 1
        batch = self._first_batch(past, cluster, settings, epoch, self.store.now_ms())
        number = past.head.commit + 1 if past.head is not None else 1
        new = Head(epoch, number, batch.cursors, *_end_of(batch, past.head))
        marks = {node: batch.state.sources.get(node, {}) for node in settings.nodes}
        commit = Commit(
            cluster, past.head, new, batch.entries, batch.jobs, marks, batch.quarantined, owner=self.lease.identity, upon=past.head
        )
        return Taking(past, batch, commit)

    def _first_batch(self, past: History, cluster: str, settings: ClusterSettings, epoch: int, now_ms: int) -> Batch:
        """The facts of taking the lead go the way of all facts, except that the inbox is passed by: they must be in this commit."""
        facts: list[LeaderFact] = [LeadTaken(epoch=epoch, owner=self.lease.identity)]
        if past.state.settings != settings:
            facts.append(ConfigurationChanged(settings=settings))
        texts = envelopes(past.state, wire.LEADER_INBOX, self.lease.identity, facts)
        entries = [InboxEntry(cluster, wire.LEADER_INBOX, f"{now_ms}-{place}", text.encode()) for place, text in enumerate(texts)]
        cursors = past.head.cursors if past.head is not None else {}
        batch = take_in(self.core, past.state, cursors, entries, now_ms)
        batch.cursors = dict(cursors)
        return batch


def _led(taking: Taking, head: Head, settings: ClusterSettings) -> Led:
    """The lead as it is after the take-over's commit, whose head stands now."""
    past, batch = taking.past, taking.batch
    for sealed in batch.entries:
        if past.projection is not None:
            past.projection.apply(sealed)
    inboxes = (*dict.fromkeys((*settings.nodes, *head.cursors, wire.LEADER_INBOX, wire.OPERATOR_INBOX)),)
    led = Led(taking.commit.cluster, settings, head, batch.state, past.projection, inboxes, Liveness(settings), past.head)
    led.entries_since_snapshot = past.folded + len(batch.entries)
    return led
