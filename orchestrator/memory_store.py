"""A store in memory: the verified fake of redis_store.py, for tests and simulation. Not for production: it forgets everything.

It passes the same contract suite as the real one. Its clock stands still until somebody moves it (`clock_ms`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.keys import job_payload
from orchestrator.ports import (
    Commit,
    CommitAnswer,
    Head,
    InboxEntry,
    Leader,
    LogDamaged,
    SignsOfLife,
    StoredEntry,
    StoreRefused,
    StoreUnavailable,
    epoch_of,
)
from statemachines import wire
from statemachines.entries import id_key


class MemoryRedis:
    """What several stores share, as several clients share one server."""

    def __init__(self, clock_ms: int = 1_700_000_000_000) -> None:
        self.clock_ms = clock_ms
        self.up = True
        """False: no call is answered."""
        self.no_maintenance = False
        """True: the maintenance keys may be neither read nor written."""
        self.keys: dict[str, bytes] = {}
        self.expiry_ms: dict[str, int] = {}
        self.streams: dict[str, list[tuple[str, dict[str, bytes]]]] = defaultdict(list)
        self.queues: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
        """Queue name -> (job id, payload) in order."""

    def get(self, key: str) -> bytes | None:
        if self.expiry_ms.get(key, self.clock_ms + 1) <= self.clock_ms:
            self.delete(key)
        return self.keys.get(key)

    def set(self, key: str, value: bytes | str, ttl_s: float | None = None) -> None:
        self.keys[key] = value.encode() if isinstance(value, str) else value
        self.expiry_ms.pop(key, None)
        if ttl_s is not None:
            self.expiry_ms[key] = self.clock_ms + int(ttl_s * 1000)

    def delete(self, key: str) -> None:
        self.keys.pop(key, None)
        self.expiry_ms.pop(key, None)

    def xadd(self, key: str, fields: Mapping[str, bytes | str], entry_id: str = "*") -> str:
        """Append; like Redis it refuses an id that is not greater than the last one (ValueError)."""
        stream = self.streams[key]
        ms, seq = id_key(stream[-1][0]) if stream else (0, 0)
        if entry_id == "*":
            entry_id = f"{self.clock_ms}-0" if self.clock_ms > ms else f"{ms}-{seq + 1}"
        if id_key(entry_id) <= (ms, seq):
            raise ValueError("the ID specified in XADD is equal or smaller than the target stream top item")
        stream.append((entry_id, {name: value.encode() if isinstance(value, str) else value for name, value in fields.items()}))
        return entry_id


class MemoryStore:
    """See `orchestrator.ports.Store`."""

    def __init__(self, server: MemoryRedis | None = None, *, keys: Mapping[str, str] | None = None) -> None:
        self.server = server if server is not None else MemoryRedis()
        self._keys = keys or {}

    @property
    def _up(self) -> MemoryRedis:
        if not self.server.up:
            raise StoreUnavailable("the memory store is switched off")
        return self.server

    def now_ms(self) -> int:
        return self._up.clock_ms

    # --- log and head -----------------------------------------------------------------------------------------------------------------

    def read_head(self, cluster: str) -> Head | None:
        text = self._up.get(wire.head(cluster))
        return Head.decode(text) if text else None

    def commit(self, commits: Sequence[Commit]) -> list[CommitAnswer]:
        return [self._commit(commit) for commit in commits]

    def _commit(self, commit: Commit) -> CommitAnswer:
        server = self._up
        expected = commit.expected.encode().encode() if commit.expected is not None else None
        if server.get(wire.head(commit.cluster)) != expected:
            return self._refuse(commit)
        try:
            self._add_entries(commit)
        except ValueError as error:
            return CommitAnswer(False, None, str(error))
        text = commit.new.encode().rpartition(":")[0] + f":{server.clock_ms}}}"
        server.set(wire.head(commit.cluster), text)
        self._add_rest(commit)
        return CommitAnswer(True, replace(commit.new, time_ms=server.clock_ms))

    def _refuse(self, commit: Commit) -> CommitAnswer:
        """The head is another one than was expected: perhaps the commit's own, which came before."""
        try:
            found = self.read_head(commit.cluster)
        except LogDamaged as error:
            return CommitAnswer(False, None, str(error))
        return CommitAnswer(commit.new.same_commit(found), found)

    def _add_entries(self, commit: Commit) -> None:
        for sealed in commit.entries:
            fields = {wire.ENTRY_FIELD: sealed.body, wire.HASH_FIELD: sealed.hash.encode()}
            self.server.xadd(wire.log(commit.cluster), fields, sealed.entry.id)

    def _add_rest(self, commit: Commit) -> None:
        server = self.server
        for job in commit.jobs:
            queue = server.queues[wire.command_queue(commit.cluster, job.order.node)]
            queue.append((job.order.job_id, job_payload(commit, job.order, self._keys)))
        for node in commit.marks:
            server.set(wire.mark(commit.cluster, node), commit.mark_text(node))
        for one in commit.quarantined:
            fields: dict[str, bytes | str] = {"inbox": one.inbox, "id": one.inbox_id, "reason": one.reason, wire.FACT_FIELD: one.raw}
            server.xadd(wire.quarantine(commit.cluster), fields)
        if commit.owner is not None:
            server.set(wire.owner(commit.cluster), commit.owner)
        for inbox in commit.begun_anew:
            server.streams[wire.inbox(commit.cluster, inbox)].clear()

    def prepare(self, cluster: str, nodes: Iterable[str]) -> None:
        """Nothing here is slow the first time."""

    def read_log(self, cluster: str, after: str, count: int = 1000) -> list[StoredEntry]:
        entries = self._up.streams[wire.log(cluster)]
        return [_stored(*entry) for entry in entries if id_key(entry[0]) > id_key(after)][:count]

    def read_entry(self, cluster: str, entry_id: str) -> StoredEntry | None:
        return next((_stored(*entry) for entry in self._up.streams[wire.log(cluster)] if entry[0] == entry_id), None)

    def get_snapshot(self, cluster: str) -> bytes | None:
        return self._up.get(wire.snapshot(cluster))

    def put_snapshot(self, cluster: str, epoch: int, text: bytes) -> bool:
        if not self._leads(cluster, epoch):
            return False
        self.server.set(wire.snapshot(cluster), text)
        return True

    def _leads(self, cluster: str, epoch: int) -> bool:
        try:
            head = self.read_head(cluster)
        except LogDamaged:
            return False
        return head is not None and head.epoch == epoch

    # --- maintenance ------------------------------------------------------------------------------------------------------------------

    def get_maintenance(self, clusters: Sequence[str]) -> dict[str, str | None]:
        self._check_right()
        return {cluster: self._text(wire.maintenance(cluster)) for cluster in clusters}

    def put_maintenance(self, cluster: str, epoch: int, text: str | None) -> bool:
        self._check_right()
        if not self._leads(cluster, epoch):
            return False
        if text is None:
            self.server.delete(wire.maintenance(cluster))
        else:
            self.server.set(wire.maintenance(cluster), text, wire.MAINTENANCE_TTL_MS / 1000)
        return True

    def _check_right(self) -> None:
        if self._up.no_maintenance:
            raise StoreRefused("no permissions to access a key")

    # --- inboxes ----------------------------------------------------------------------------------------------------------------------

    def read_inboxes(self, cursors: Mapping[str, Mapping[str, str]], count: int = 100) -> list[InboxEntry]:
        return [
            InboxEntry(cluster, inbox, entry_id, fields.get(wire.FACT_FIELD))
            for cluster, inboxes in cursors.items()
            for inbox, cursor in inboxes.items()
            for entry_id, fields in self._after(wire.inbox(cluster, inbox), cursor)[:count]
        ]

    def _after(self, key: str, cursor: str) -> list[tuple[str, dict[str, bytes]]]:
        stream, last = self._up.streams[key], id_key(cursor)
        begin = len(stream)
        while begin and id_key(stream[begin - 1][0]) > last:
            begin -= 1
        return stream[begin:]

    def append_leader_facts(self, cluster: str, epoch: int, envelopes: Sequence[str], not_before_ms: int = 0) -> bool:
        if not self._leads(cluster, epoch):
            return False
        key = wire.inbox(cluster, wire.LEADER_INBOX)
        for envelope in envelopes:
            last_ms = id_key(self.server.streams[key][-1][0])[0] if self.server.streams[key] else 0
            set_back = max(self.server.clock_ms, last_ms) < not_before_ms
            self.server.xadd(key, {wire.FACT_FIELD: envelope}, f"{not_before_ms}-0" if set_back else "*")
        return True

    def trim_inboxes(self, heads: Mapping[str, Head]) -> None:
        for cluster, head in heads.items():
            for inbox, cursor in head.cursors.items() if self._leads(cluster, head.epoch) else ():
                stream = self._up.streams[wire.inbox(cluster, inbox)]
                stream[:] = [entry for entry in stream if id_key(entry[0]) >= id_key(cursor)]

    def wait_for_facts(self, cursors: Mapping[str, Mapping[str, str]], count: int, timeout_s: float) -> list[InboxEntry]:
        """Time stands still here: what is not there yet does not come within the timeout."""
        _ = timeout_s
        return self.read_inboxes(cursors, count)

    # --- lead -------------------------------------------------------------------------------------------------------------------------

    def renew_lease(self, orchestrator: str, ttl_s: float, where: str) -> None:
        self._up.set(wire.lease(orchestrator), where, ttl_s)

    def leaders(self, clusters: Sequence[str]) -> dict[str, Leader]:
        return {cluster: self._leader(cluster) for cluster in clusters}

    def _leader(self, cluster: str) -> Leader:
        found = self._up.get(wire.owner(cluster))
        owner = found.decode() if found is not None else None
        lives = owner is not None and self.server.get(wire.lease(owner)) is not None
        return Leader(owner, lives, epoch_of(self._text(wire.head(cluster))))

    def release(self, orchestrator: str, clusters: Sequence[str]) -> None:
        for cluster in clusters:
            if self._up.get(wire.owner(cluster)) == orchestrator.encode():
                self.server.delete(wire.owner(cluster))
        self._up.delete(wire.lease(orchestrator))

    # --- nodes ------------------------------------------------------------------------------------------------------------------------

    def signs_of_life(self, nodes: Sequence[tuple[str, str]]) -> dict[tuple[str, str], SignsOfLife]:
        return {(c, n): SignsOfLife(self._text(wire.alive(c, n)), self._text(wire.watch_alive(c, n))) for c, n in nodes}

    def _text(self, key: str) -> str | None:
        value = self._up.get(key)
        return value.decode("utf-8", "replace") if value is not None else None

    def close(self) -> None:
        """There is nothing to give back."""


def _stored(entry_id: str, fields: Mapping[str, bytes]) -> StoredEntry:
    return StoredEntry(entry_id, fields[wire.ENTRY_FIELD], fields[wire.HASH_FIELD].decode())
