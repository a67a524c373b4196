"""What the loop needs of the outside world: small interfaces, and what their errors mean.

`orchestrator/redis_store.py` is the real one; `orchestrator/memory_store.py` is a fake that passes the same contract suite
(tests/contract/test_store.py), so whatever a test proves on one holds for the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from statemachines.cluster import Arrival, JobOrder, StepResult, order_of, quarantine, step
from statemachines.entries import Sealed, id_key
from statemachines.facts import Envelope
from statemachines.folding import fold
from statemachines.states import ClusterState, new_state


class StoreUnavailable(Exception):
    """The store gave no answer, or said that it cannot serve now (loading, read-only, out of memory, no permission).

    A read may simply be repeated. Whether a commit or an append happened is unknown: read the head, it tells.
    """


class StoreRefused(Exception):
    """The store answers, and does not take this one thing: a right that is missing, a key of another type."""


class LogDamaged(Exception):
    """The log does not lead to its head: entries were changed, removed or added by somebody else. Nobody can lead this cluster."""


# --- what is stored -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Head:
    """Where a cluster's history stands: one key, and the only thing that a commit is compared with."""

    epoch: int
    """Raised by each take-over; whoever commits with an older one is refused."""
    commit: int
    """Consecutive number of the commit that wrote this head."""
    cursors: Mapping[str, str]
    """Inbox -> id of the last entry read from it."""
    last_id: str
    last_hash: str
    """Of the log's last entry."""
    time_ms: int = 0
    """Redis TIME of the commit; written by the store."""

    def encode(self) -> str:
        """The stored text. `time_ms` comes last, so that the store can put it in."""
        return json.dumps(
            {"epoch": self.epoch, "commit": self.commit, "cursors": dict(self.cursors), "last_id": self.last_id,
             "last_hash": self.last_hash, "time_ms": self.time_ms},
            separators=(",", ":"),
        )  # fmt: skip

    @classmethod
    def decode(cls, text: str | bytes) -> Head:
        """
        Raises:
            LogDamaged: the text is no head.
        """
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise LogDamaged(f"the head is not one that this dcsup wrote: {str(text)[:200]}") from error

    def same_commit(self, other: Head | None) -> bool:
        """Whether the other head was written by the very commit that this one stands for (the time apart)."""
        return other is not None and replace(self, time_ms=0) == replace(other, time_ms=0)

    def seen(self) -> dict[str, Any]:
        """What jobs and marks carry, so that a node notices when the log lost its tail (`statemachines.commands.SeenHead`)."""
        return {"epoch": self.epoch, "commit": self.commit, "last_id": self.last_id, "last_hash": self.last_hash}


_EPOCH = re.compile(r'\{"epoch":(\d{1,18}),')


def epoch_of(head: str | None) -> int:
    """The epoch of a head as it is stored, quickly; 0 if it is none."""
    found = _EPOCH.match(head or "")
    return int(found[1]) if found is not None else 0


@dataclass(frozen=True, slots=True)
class InboxEntry:
    """One raw fact as it stands in an inbox; `raw` is None when the entry has no field `f`."""

    cluster: str
    inbox: str
    id: str
    raw: bytes | None

    @property
    def ms(self) -> int:
        return id_key(self.id)[0]


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """One log entry as stored: the bytes that were hashed, and the hash."""

    id: str
    body: bytes
    hash: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    inbox: str
    inbox_id: str
    reason: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class QueuedJob:
    order: JobOrder
    limit_s: int
    """After this RQ calls the job timed out."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Everything that happens at once, or not at all."""

    cluster: str
    expected: Head | None
    """The head that must still stand; None: there is no history yet."""
    new: Head
    entries: Sequence[Sealed] = ()
    jobs: Sequence[QueuedJob] = ()
    marks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Node -> stream -> the last number that is durably in the log."""
    quarantined: Sequence[Quarantined] = ()
    owner: str | None = None
    """Set when the commit takes the lead."""
    upon: Head | None = None
    """The head that the lead of `new.epoch` was taken upon; None: there was no history."""
    begun_anew: Sequence[str] = ()
    """Inboxes that are dropped: behind the ids in them nothing can be added any more. What was in them is offered again."""

    def mark_text(self, node: str) -> str:
        """What the node's mark says: how far its facts are in the log, and the head, from which it sees whether the log lost its tail.

        A log that did, and has grown beyond where it was, is told by `upon`: what the node saw of an older epoch must not lie behind it.
        """
        upon = {"commit": self.upon.commit, "last_hash": self.upon.last_hash} if self.upon is not None else {"commit": 0, "last_hash": ""}
        return json.dumps({"streams": dict(self.marks[node]), "head": {**self.new.seen(), "upon": upon}}, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class CommitAnswer:
    done: bool
    """True also when the same commit had happened already (sent twice)."""
    head: Head | None
    """The head that stands now; None: there is none, or log or head themselves were refused (`trouble` says why)."""
    trouble: str | None = None
    """What the store refused: of a commit that was done, a part beside log and head (a job, a mark)."""


@dataclass(frozen=True, slots=True)
class Leader:
    """Who is written down as a cluster's leader, and whether its lease still runs."""

    orchestrator: str | None
    lives: bool
    epoch: int = 0
    """Of the cluster's head; 0: it has none that can be read."""


@dataclass(frozen=True, slots=True)
class SignsOfLife:
    """The values of a node's two liveness keys; None: the key is not there (its TTL ran out, or it never was)."""

    alive: str | None
    watch: str | None


# --- the ports ------------------------------------------------------------------------------------------------------------------------


class Store(Protocol):
    """Redis, as the orchestrator sees it. Each call may raise StoreUnavailable."""

    def now_ms(self) -> int:
        """The store's clock, ms since the epoch."""

    # log and head

    def read_head(self, cluster: str) -> Head | None:
        """
        Raises:
            LogDamaged: what stands there is no head.
            StoreRefused: see there.
        """

    def commit(self, commits: Sequence[Commit]) -> list[CommitAnswer]:
        """Try each of the commits (of different clusters): compare-and-set on its head. One answer each, in order."""

    def prepare(self, cluster: str, nodes: Iterable[str]) -> None:
        """Do beforehand what the first commit with a job for one of these nodes would have to wait for."""

    def read_log(self, cluster: str, after: str, count: int = 1000) -> list[StoredEntry]:
        """The entries that follow the entry with id `after` (`0-0`: from the beginning), at most `count`."""

    def read_entry(self, cluster: str, entry_id: str) -> StoredEntry | None: ...

    def get_snapshot(self, cluster: str) -> bytes | None: ...

    def put_snapshot(self, cluster: str, epoch: int, text: bytes) -> bool:
        """Keep it, if `epoch` still leads; False: it does not, and nothing was changed."""

    # maintenance, for the nodes

    def get_maintenance(self, clusters: Sequence[str]) -> dict[str, str | None]:
        """What stands in each cluster's maintenance key (`wire.maintenance`); None: it is not there.

        Raises:
            StoreRefused: this user may not read one of them.
        """

    def put_maintenance(self, cluster: str, epoch: int, text: str | None) -> bool:
        """Set the key for `wire.MAINTENANCE_TTL_MS`, or with None delete it, if `epoch` still leads; False: it does not, and nothing
        was changed.

        Raises:
            StoreRefused: this user may not write it.
        """

    # inboxes

    def read_inboxes(self, cursors: Mapping[str, Mapping[str, str]], count: int = 100) -> list[InboxEntry]:
        """What follows the cursors (cluster -> inbox -> id), of each inbox at most `count`, all seen at one moment.

        An inbox that cannot be read (its key is no stream) is left out, so that it holds up nobody else's.
        """

    def wait_for_facts(self, cursors: Mapping[str, Mapping[str, str]], count: int, timeout_s: float) -> list[InboxEntry]:
        """As `read_inboxes`, but waits at most `timeout_s` for the first fact.

        Facts may be missing that a bell was not rung for, and of several inboxes only one may be told: sweep with `read_inboxes`.
        """

    def append_leader_facts(self, cluster: str, epoch: int, envelopes: Sequence[str], not_before_ms: int = 0) -> bool:
        """Put facts into the leader's inbox, if `epoch` still leads; False: it does not, and nothing was put.

        Their ids are those of `now_ms`, or of `not_before_ms` if the store's clock is behind it (it was set back).

        Raises:
            StoreRefused: the inbox is none, or this user may not write it.
        """

    def trim_inboxes(self, heads: Mapping[str, Head]) -> None:
        """Forget what lies before the cursors of each cluster's head, where the head's epoch still leads."""

    # lead

    def renew_lease(self, orchestrator: str, ttl_s: float, where: str) -> None:
        """Hold the lease for `ttl_s` from now; `where` tells others how to reach this orchestrator (JSON)."""

    def leaders(self, clusters: Sequence[str]) -> dict[str, Leader]: ...

    def release(self, orchestrator: str, clusters: Sequence[str]) -> None:
        """Give up lease and clusters at once; clusters that are somebody else's by now stay theirs."""

    # nodes

    def signs_of_life(self, nodes: Sequence[tuple[str, str]]) -> dict[tuple[str, str], SignsOfLife]:
        """Of each (cluster, node)."""

    def close(self) -> None: ...


class Projection(Protocol):
    """Something that is folded along with one cluster's log, entry by entry: metrics, for instance.

    It sees each entry once, in order, from the very first; after a restart it goes on from what it dumped into the snapshot. Calls come
    from the loop's thread, under `Orchestrator.lock`: who reads it from another thread takes that lock.
    """

    def apply(self, sealed: Sealed) -> None: ...

    def dump(self) -> Any:
        """All it knows, as JSON values."""

    def load(self, blob: Any) -> None:
        """Become what was dumped. Raises ValueError, KeyError or TypeError for a blob that it does not understand."""


ProjectionFactory = Callable[[str], Projection]
"""Cluster -> a fresh projection that has seen nothing."""


@dataclass(frozen=True, slots=True)
class Core:
    """The core's functions, so that tests can put a small one in their place."""

    new_state: Callable[[str], ClusterState] = new_state
    step: Callable[[ClusterState, Arrival], StepResult] = step
    quarantine: Callable[[ClusterState, str, str, str, Envelope | None], StepResult] = quarantine
    fold: Callable[[ClusterState, Sealed], None] = fold
    order_of: Callable[[ClusterState, str, Envelope], Literal["next", "duplicate", "gap"]] = order_of
