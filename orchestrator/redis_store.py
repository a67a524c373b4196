"""The store on a real Redis (or Valkey), 6.2 or newer.

**The commit** is one Lua script: it compares the head with the one that the leader built upon, and only then adds the log entries, puts
the jobs on their queues, moves the marks and sets the new head. MULTI under WATCH is not enough: a MULTI that is sent twice (redis-py
does so after a timeout) queues its jobs twice, and a cut answer comes back as WatchError although the commit happened. The jobs'
commands are those that RQ's public `Queue.enqueue(..., pipeline=p)` leaves in `p.command_stack`; they travel as arguments.

The script writes log and head first, with `call`: if Redis refuses these, nothing has happened. What follows uses `pcall`: a job or a
mark that Redis refuses (a key of a wrong type, say) is reported as trouble, and can neither wedge the cluster nor be done twice.

**Waiting.** With few inboxes one blocking XREAD is the shortest way from a fact to its leader. With many it is not: at 1,000 inboxes it
costs twice the latency and four times the CPU of a bell (PUBLISH beside each XADD) and a read of the clusters that rang.

**Connections.** One for everything, one for the bells. Nothing is ever sent again by the client library (`Retry(NoBackoff(), 0)`): an
answer that is lost is settled by reading the head. One single connection, not a pool, so that a server that went away and came back is
always noticed as an error and never papered over.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import redis
import structlog
from redis.backoff import NoBackoff
from redis.exceptions import ClusterDownError, NoScriptError, OutOfMemoryError, ReadOnlyError, ResponseError
from redis.retry import Retry
from rq import Queue

from orchestrator.keys import job_payload
from orchestrator.ports import (
    Commit,
    CommitAnswer,
    Head,
    InboxEntry,
    Leader,
    LogDamaged,
    QueuedJob,
    SignsOfLife,
    StoredEntry,
    StoreRefused,
    StoreUnavailable,
    epoch_of,
)
from statemachines import wire

log = structlog.get_logger()

QUARANTINE_LENGTH_MAX = 10_000
QUARANTINE_RAW_BYTES_MAX = 65_536

BLOCKING_INBOXES_MAX = 64
"""Up to so many inboxes are waited for by XREAD, more by their clusters' bells."""

SPOILT_RETRY_S = 5.0
JOB_RESULT_TTL_S = 300
JOB_FAILURE_TTL_S = 3600
"""A job's outcome is in the log; what RQ keeps is only for somebody who looks at RQ."""

_COMMIT = """
local found = redis.call('GET', KEYS[1]) or ''
if found ~= ARGV[1] then return {0, found, ''} end
local now = redis.call('TIME')
local head = ARGV[2] .. string.format('%d', now[1] * 1000 + math.floor(now[2] / 1000)) .. '}'
local place, trouble = 4, ''
local function following()
  local first = place + 1
  place = first + ARGV[place]
  return unpack(ARGV, first, place - 1)
end
for i = 1, tonumber(ARGV[3]) do redis.call(following()) end
redis.call('SET', KEYS[1], head)
while place <= #ARGV do
  local answer = redis.pcall(following())
  if type(answer) == 'table' and answer.err then trouble = answer.err end
end
return {1, head, trouble}
"""
"""KEYS: head. ARGV: expected head, new head up to its time, number of log commands, then each command as its length and its words."""

_FENCE = """
local sound, head = pcall(cjson.decode, redis.pcall('GET', KEYS[1]) or '')
if not sound or type(head) ~= 'table' or head.epoch ~= tonumber(ARGV[1]) then return 0 end
"""
"""A leader that was deposed while it slept must write nothing, not even what would do no harm. KEYS: head. ARGV: epoch."""

_APPEND = (
    _FENCE
    + """
local now, floor, id = redis.call('TIME'), tonumber(ARGV[2]), '*'
if now[1] * 1000 + math.floor(now[2] / 1000) < floor then
  local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
  if not last or tonumber(string.match(last[1], '^%d+')) < floor then id = ARGV[2] .. '-0' end
end
for i = 4, #ARGV do
  redis.call('XADD', KEYS[2], id, ARGV[3], ARGV[i])
  id = '*'
end
return 1
"""
)
"""KEYS: head, inbox. ARGV: epoch, ms that the ids must not be below, field, then each envelope."""

_PUT = (
    _FENCE
    + """
if not ARGV[2] then redis.call('DEL', KEYS[2])
elseif ARGV[3] then redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
else redis.call('SET', KEYS[2], ARGV[2]) end
return 1
"""
)
"""KEYS: head, key. ARGV: epoch, value (none: delete it), how many ms it lasts (none: for good)."""

_TRIM = (
    _FENCE
    + """
for i = 2, #KEYS do redis.pcall('XTRIM', KEYS[i], 'MINID', '~', ARGV[i]) end
return 1
"""
)
"""KEYS: head, inboxes. ARGV: epoch, cursors."""

_RELEASE = """
for i = 2, #KEYS do
  if redis.call('GET', KEYS[i]) == ARGV[1] then redis.call('DEL', KEYS[i]) end
end
redis.call('DEL', KEYS[1])
"""

Connect = Callable[[float], redis.Redis]
"""Makes a client that owns its connections, and sends nothing again by itself; the argument bounds each answer, s."""


def _connect(url: str, timeout_s: float) -> redis.Redis:
    pool = redis.ConnectionPool.from_url(
        url, socket_timeout=timeout_s, socket_connect_timeout=min(timeout_s, 2.0), retry=Retry(NoBackoff(), 0)
    )
    return redis.Redis.from_pool(pool)


class RedisStore:
    """See `orchestrator.ports.Store`."""

    def __init__(self, server: str | Connect, *, timeout_s: float = 5.0, keys: Mapping[str, str] | None = None) -> None:
        """`server`: what makes clients, or just a url; `timeout_s`: how long an answer may take before the store counts as unavailable;
        `keys`: cluster -> the one that signs its jobs.

        Raises:
            ValueError: the server's settings cannot be used.
        """
        self._connect = partial(server if callable(server) else partial(_connect, server), timeout_s)
        self._keys = keys or {}
        self._bell_client = self._connect()
        self._pool: redis.Redis | None = None
        self._client: redis.Redis | None = None
        self._bells: Any = None
        self._listening: frozenset[str] = frozenset()
        self._queues: dict[str, Queue] = {}
        self._spoilt: dict[str, float] = {}
        """Inboxes that Redis refused to read, and until when they are left out."""
        self._sha = hashlib.sha1(_COMMIT.encode(), usedforsecurity=False).hexdigest()

    @property
    def _redis(self) -> redis.Redis:
        if self._client is None:
            self._pool = self._connect()
            self._client = self._pool.client()  # type: ignore[no-untyped-call]  # a connection of its own, made now
        return self._client

    @contextmanager
    def _answers(self) -> Iterator[None]:
        """One meaning for all the ways in which Redis can fail to answer; nothing of a connection that failed is used again."""
        try:
            yield
        except (redis.RedisError, OSError) as error:
            self._disconnect()
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error

    def _disconnect(self) -> None:
        self._drop_bells()
        self._queues.clear()
        if self._pool is not None:
            self._pool.close()
        self._client = self._pool = None

    # --- log and head -----------------------------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        with self._answers():
            seconds, micros = self._redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def read_head(self, cluster: str) -> Head | None:
        with self._answers(), _refusing():
            text = self._redis.get(wire.head(cluster))
        return Head.decode(text) if text else None

    def commit(self, commits: Sequence[Commit]) -> list[CommitAnswer]:
        with self._answers():
            wanted = [self._arguments(commit) for commit in commits]
            answers = self._evaluate(wanted)
            if any(isinstance(answer, NoScriptError) for answer in answers):
                self._redis.script_load(_COMMIT)  # a restarted server has forgotten it; none of these ran
                again = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
                for place, answer in zip(again, self._evaluate([wanted[place] for place in again]), strict=True):
                    answers[place] = answer
            for answer in answers:
                if isinstance(answer, Exception) and not _is_refusal(answer):
                    raise answer
        return [_settle(commit, answer) for commit, answer in zip(commits, answers, strict=True)]

    def _evaluate(self, arguments: list[list[Any]]) -> list[Any]:
        """The script's answers; what Redis refused is an exception among them."""
        if len(arguments) == 1:  # the usual case, on the connection that is open already
            try:
                return [self._redis.evalsha(self._sha, 1, *arguments[0])]
            except ResponseError as error:
                return [error]
        with self._redis.pipeline(transaction=False) as pipeline:
            for words in arguments:
                pipeline.evalsha(self._sha, 1, *words)
            return pipeline.execute(raise_on_error=False)

    def _arguments(self, commit: Commit) -> list[Any]:
        log = [_log_command(commit, place) for place in range(len(commit.entries))]
        rest = [*self._job_commands(commit), *_mark_commands(commit), *_quarantine_commands(commit)]
        if commit.owner is not None:
            rest.append(("SET", wire.owner(commit.cluster), commit.owner))
        rest += [("DEL", wire.inbox(commit.cluster, inbox)) for inbox in commit.begun_anew]
        expected = commit.expected.encode() if commit.expected is not None else ""
        words: list[Any] = [wire.head(commit.cluster), expected, commit.new.encode().rpartition(":")[0] + ":", len(log)]
        for command in (*log, *rest):
            words.append(len(command))
            words.extend(command)
        return words

    def _job_commands(self, commit: Commit) -> list[tuple[Any, ...]]:
        if not commit.jobs:
            return []
        with self._redis.pipeline() as pipeline:
            pipeline.multi()  # else RQ would begin one itself, and fail at the second job
            for job in commit.jobs:
                self._enqueue(commit, job, pipeline)
            return [arguments for arguments, _ in pipeline.command_stack]

    def _enqueue(self, commit: Commit, job: QueuedJob, pipeline: Any) -> None:
        order = job.order
        self._queue(wire.command_queue(commit.cluster, order.node)).enqueue(
            wire.JOB_FUNCTION,
            job_payload(commit, order, self._keys),
            job_id=order.job_id,
            job_timeout=job.limit_s,
            result_ttl=JOB_RESULT_TTL_S,
            failure_ttl=JOB_FAILURE_TTL_S,
            description=f"{order.payload.get('kind', 'job')} {order.payload.get('ticket', '')}",
            pipeline=pipeline,
        )

    def _queue(self, name: str) -> Queue:
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = Queue(name, connection=self._redis, serializer="json")
            queue.get_redis_server_version()  # RQ asks for it once, and would do so in the middle of a commit
        return queue

    def prepare(self, cluster: str, nodes: Iterable[str]) -> None:
        with self._answers():
            for node in nodes:
                self._queue(wire.command_queue(cluster, node))
            self._redis.script_load(_COMMIT)

    def read_log(self, cluster: str, after: str, count: int = 1000) -> list[StoredEntry]:
        with self._answers(), _refusing():
            found: Any = self._redis.xrange(wire.log(cluster), min=f"({after}", count=count)
        return [_stored(entry_id, fields) for entry_id, fields in found]

    def read_entry(self, cluster: str, entry_id: str) -> StoredEntry | None:
        with self._answers(), _refusing():
            found: Any = self._redis.xrange(wire.log(cluster), min=entry_id, max=entry_id, count=1)
        return _stored(*found[0]) if found else None

    def get_snapshot(self, cluster: str) -> bytes | None:
        with self._answers(), _refusing():
            return self._redis.get(wire.snapshot(cluster))  # type: ignore[return-value]

    def put_snapshot(self, cluster: str, epoch: int, text: bytes) -> bool:
        with self._answers(), _refusing():
            return self._put(cluster, wire.snapshot(cluster), epoch, text)

    def _put(self, cluster: str, key: str, epoch: int, *value: Any) -> bool:
        return bool(self._redis.eval(_PUT, 2, wire.head(cluster), key, str(epoch), *value))

    # --- maintenance ------------------------------------------------------------------------------------------------------------------

    def get_maintenance(self, clusters: Sequence[str]) -> dict[str, str | None]:
        if not clusters:
            return {}
        with self._answers(), _refusing():
            return dict(zip(clusters, self._texts([wire.maintenance(cluster) for cluster in clusters]), strict=True))

    def put_maintenance(self, cluster: str, epoch: int, text: str | None) -> bool:
        value = [] if text is None else [text, str(wire.MAINTENANCE_TTL_MS)]
        with self._answers(), _refusing():
            return self._put(cluster, wire.maintenance(cluster), epoch, *value)

    # --- inboxes ----------------------------------------------------------------------------------------------------------------------

    def read_inboxes(self, cursors: Mapping[str, Mapping[str, str]], count: int = 100) -> list[InboxEntry]:
        return self._read(cursors, count, None)

    def _read(self, cursors: Mapping[str, Mapping[str, str]], count: int, block_ms: int | None) -> list[InboxEntry]:
        places = {wire.inbox(cluster, inbox): (cluster, inbox) for cluster, inboxes in cursors.items() for inbox in inboxes}
        streams: Any = {key: cursors[cluster][inbox] for key, (cluster, inbox) in places.items() if not self._is_spoilt(key)}
        if not streams:
            time.sleep((block_ms or 0) / 1000)
            return []
        with self._answers():
            found: Any = self._read_streams(streams, count, block_ms)
        return [
            InboxEntry(*places[key.decode()], entry_id.decode(), fields.get(wire.FACT_FIELD.encode()))
            for key, entries in found or ()
            for entry_id, fields in entries
        ]

    def _read_streams(self, streams: dict[Any, Any], count: int, block_ms: int | None) -> Any:
        """One XREAD of all; where Redis refuses it because of some, they are found one by one and left out for a while."""
        try:
            return self._redis.xread(streams, count=count, block=block_ms)
        except ResponseError as error:
            if not _is_refusal(error):
                raise
        with self._redis.pipeline(transaction=False) as pipeline:
            for key, cursor in streams.items():
                pipeline.xread({key: cursor}, count=count)
            answers = pipeline.execute(raise_on_error=False)
        for key, answer in zip(streams, answers, strict=True):
            if isinstance(answer, Exception):
                log.error("an inbox cannot be read; if its key is of a wrong type, delete it: what is in the outboxes comes again",
                          key=key, reason=str(answer))  # fmt: skip
                self._spoilt[key] = time.monotonic() + SPOILT_RETRY_S
        return [part for answer in answers if isinstance(answer, list) for part in answer]

    def _is_spoilt(self, key: str) -> bool:
        if self._spoilt and time.monotonic() >= self._spoilt.get(key, 0.0):
            self._spoilt.pop(key, None)
        return key in self._spoilt

    def append_leader_facts(self, cluster: str, epoch: int, envelopes: Sequence[str], not_before_ms: int = 0) -> bool:
        keys = (wire.head(cluster), wire.inbox(cluster, wire.LEADER_INBOX))
        with self._answers(), _refusing():
            answer: Any = self._redis.eval(_APPEND, 2, *keys, str(epoch), str(not_before_ms), wire.FACT_FIELD, *envelopes)
        return bool(answer)

    def trim_inboxes(self, heads: Mapping[str, Head]) -> None:
        with self._answers(), self._redis.pipeline(transaction=False) as pipeline:
            for cluster, head in heads.items():
                keys = [wire.head(cluster), *(wire.inbox(cluster, inbox) for inbox in head.cursors)]
                pipeline.eval(_TRIM, len(keys), *keys, str(head.epoch), *head.cursors.values())
            pipeline.execute(raise_on_error=False)  # what is not forgotten now is forgotten the next time

    # --- waiting ----------------------------------------------------------------------------------------------------------------------

    def wait_for_facts(self, cursors: Mapping[str, Mapping[str, str]], count: int, timeout_s: float) -> list[InboxEntry]:
        if not cursors or timeout_s <= 0:
            time.sleep(max(0.0, timeout_s))
            return self.read_inboxes(cursors, count)
        if sum(map(len, cursors.values())) <= BLOCKING_INBOXES_MAX:
            return self._read(cursors, count, max(1, int(timeout_s * 1000)))
        with self._answers():
            rung = self._listen(frozenset(cursors), timeout_s)
        return self.read_inboxes({cluster: cursors[cluster] for cluster in rung}, count)

    def _listen(self, clusters: frozenset[str], timeout_s: float) -> set[str]:
        """The clusters whose bell rang since the last call; waits for the first one."""
        if self._bells is None or clusters != self._listening:
            self._drop_bells()
            self._listening = clusters
            self._bells = self._bell_client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
            self._bells.subscribe(*map(wire.bell, clusters))
            return set(clusters)  # what was handed in before the bells could be heard
        channels = {wire.bell(cluster).encode(): cluster for cluster in clusters}
        rung: set[str] = set()
        wait_until = time.monotonic() + timeout_s
        while True:
            left_s = 0.0 if rung else max(0.0, wait_until - time.monotonic())
            message = self._bells.get_message(timeout=left_s)
            if message is not None:
                rung.add(channels[message["channel"]])
            elif left_s == 0.0 or time.monotonic() >= wait_until:
                return rung

    def _drop_bells(self) -> None:
        if self._bells is not None:
            self._bells.close()
            self._bells = None

    # --- lead -------------------------------------------------------------------------------------------------------------------------

    def renew_lease(self, orchestrator: str, ttl_s: float, where: str) -> None:
        with self._answers():
            self._redis.set(wire.lease(orchestrator), where, px=max(1, int(ttl_s * 1000)))

    def leaders(self, clusters: Sequence[str]) -> dict[str, Leader]:
        if not clusters:
            return {}
        with self._answers():
            found = self._texts([*map(wire.owner, clusters), *map(wire.head, clusters)])
            owners, heads = found[: len(clusters)], found[len(clusters) :]
            known = sorted({owner for owner in owners if owner})
            leases = dict(zip(known, self._texts([wire.lease(owner) for owner in known]), strict=True)) if known else {}
        return {
            cluster: Leader(owner, owner is not None and leases.get(owner) is not None, epoch_of(head))
            for cluster, owner, head in zip(clusters, owners, heads, strict=True)
        }

    def release(self, orchestrator: str, clusters: Sequence[str]) -> None:
        keys = [wire.lease(orchestrator), *(wire.owner(cluster) for cluster in clusters)]
        with self._answers():
            self._redis.eval(_RELEASE, len(keys), *keys, orchestrator)

    # --- nodes ------------------------------------------------------------------------------------------------------------------------

    def signs_of_life(self, nodes: Sequence[tuple[str, str]]) -> dict[tuple[str, str], SignsOfLife]:
        if not nodes:
            return {}
        keys = [name(cluster, node) for cluster, node in nodes for name in (wire.alive, wire.watch_alive)]
        with self._answers():
            values = self._texts(keys)
        return {pair: SignsOfLife(values[2 * place], values[2 * place + 1]) for place, pair in enumerate(nodes)}

    def _texts(self, keys: list[str]) -> list[str | None]:
        found: Any = self._redis.mget(keys)
        return [value.decode("utf-8", "replace") if value is not None else None for value in found]

    def close(self) -> None:
        self._disconnect()
        self._bell_client.close()


@contextmanager
def _refusing() -> Iterator[None]:
    """Redis answers, but does not do this: no reason to give the connection up, or the lead of other clusters."""
    try:
        yield
    except ResponseError as error:
        if not _is_refusal(error):
            raise
        raise StoreRefused(str(error)) from error


def _log_command(commit: Commit, place: int) -> tuple[Any, ...]:
    sealed = commit.entries[place]
    return ("XADD", wire.log(commit.cluster), sealed.entry.id, wire.ENTRY_FIELD, sealed.body, wire.HASH_FIELD, sealed.hash)


def _mark_commands(commit: Commit) -> list[tuple[Any, ...]]:
    return [("SET", wire.mark(commit.cluster, node), commit.mark_text(node)) for node in commit.marks]


def _quarantine_commands(commit: Commit) -> list[tuple[Any, ...]]:
    stream = wire.quarantine(commit.cluster)
    return [
        ("XADD", stream, "MAXLEN", "~", QUARANTINE_LENGTH_MAX, "*", "inbox", one.inbox, "id", one.inbox_id, "reason", one.reason,
         wire.FACT_FIELD, one.raw[:QUARANTINE_RAW_BYTES_MAX])
        for one in commit.quarantined
    ]  # fmt: skip


def _settle(commit: Commit, answer: Any) -> CommitAnswer:
    """A stale answer that shows our own new head means: done before, and sent twice."""
    if isinstance(answer, Exception):
        return CommitAnswer(False, None, str(answer))
    done, text, trouble = answer
    try:
        head = Head.decode(text) if text else None
    except LogDamaged as error:
        return CommitAnswer(False, None, str(error))
    return CommitAnswer(bool(done) or commit.new.same_commit(head), head, trouble.decode("utf-8", "replace") or None)


def _is_refusal(error: Exception) -> bool:
    """Whether Redis serves, and does not do just this: a key of a wrong type, a right that is missing, a log that goes on behind its head.
    (Of a commit nothing was written then: log and head come first.)"""
    return isinstance(error, ResponseError) and not isinstance(error, _CANNOT_SERVE) and not any(word in str(error) for word in _NOT_NOW)


_CANNOT_SERVE = (ClusterDownError, NoScriptError, OutOfMemoryError, ReadOnlyError)
_NOT_NOW = ("BUSY", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "READONLY")
"""What Redis cannot do for anybody at the moment; from within a script it comes as text."""


def _stored(entry_id: bytes, fields: dict[bytes, bytes]) -> StoredEntry:
    body, digest = fields.get(wire.ENTRY_FIELD.encode(), b""), fields.get(wire.HASH_FIELD.encode(), b"")
    return StoredEntry(entry_id.decode(), body, digest.decode("ascii", "replace"))
