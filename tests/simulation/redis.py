"""The world's one Redis, and everybody's own way to it.

The server is the memory store's (it passes the same contract suite as the real one) with a clock that follows the world's time. A `Line`
is one client's way there: each request takes its time, and may be lost before the server sees it, or after (then it happened, and nobody
was told); may arrive twice; may arrive after its sender gave up, and so behind what was sent later; may wait because the server stalls.
`Store` is what an orchestrator sees behind its line, `Client` what a node's code takes for redis-py's.

A Redis that fails over to a replica which lacks the last writes is one that goes back to what it held a moment before (`lag`, `fail_over`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import redis

from orchestrator.memory_store import MemoryRedis, MemoryStore
from orchestrator.ports import Commit, CommitAnswer, Head, InboxEntry, Leader, SignsOfLife, StoredEntry, StoreUnavailable
from tests.simulation.engine import START_S, Kernel, Machine, Signal

T = TypeVar("T")

Committed = Callable[[Sequence[Commit], Sequence[CommitAnswer]], None]
"""Told of every commit that was asked for, and what came of it."""

LATENCY_S = (0.001, 0.05)
SEEN = 0.2
"""Of so many requests on a good line the time is seen: then others run meanwhile. More would tell nothing and take its time."""

TIMEOUT_S = 2.0
"""Of every client, as workers/redisclient.py and orchestrator/redis_store.py set it."""

TROUBLES = ("request lost", "answer lost", "request doubled", "request late", "answer slow")
"""What may happen to one request on a bad line."""


class NoAnswer(Exception):
    """The client waited in vain: whether the request was served, it cannot know."""


class Unreachable(Exception):
    """There is nobody, and the request was never served."""


class Full(Exception):
    """The server has no memory left for what was asked."""


class Data(NamedTuple):
    """Everything that a server holds."""

    keys: dict[str, bytes]
    expiry_ms: dict[str, int]
    streams: dict[str, list[tuple[str, dict[str, bytes]]]]
    queues: dict[str, list[tuple[str, dict[str, Any]]]]


class Server(MemoryRedis):
    """The Redis that all share."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(int(START_S * 1000))
        self.kernel = kernel
        self.is_full = False
        self.stalled_until_s = 0.0
        self.rang = Signal(kernel)
        """Something came into an inbox."""
        self.queued = Signal(kernel)
        """Something came into a queue."""
        self.went_back_to_s: list[tuple[float, float]] = []
        """(when, to what time): each loss of the last writes."""
        self.clock_offset_s = 0.0
        self.lives = 1
        """How often it was started: a connection to an earlier life is reset."""
        self._copy: tuple[float, Data] | None = None

    def tick(self) -> None:
        """Its clock follows the world's."""
        self.clock_ms = int((START_S + self.kernel.now_s + self.clock_offset_s) * 1000)

    # --- what happens to it

    def restart(self) -> None:
        """It has what it had; every connection is reset."""
        self.up = True
        self.lives += 1
        self.rang.set()
        self.queued.set()

    def lag(self) -> None:
        """From now on its replica lags behind."""
        self._copy = (self.kernel.now_s, self._data())

    def fail_over(self) -> None:
        """The replica takes its place: what came since `lag` is lost."""
        if self._copy is None:
            return
        at_s, data = self._copy
        self._copy = None
        self.went_back_to_s.append((self.kernel.now_s, at_s))
        self.keys, self.expiry_ms = data.keys, data.expiry_ms
        for ours, theirs in ((self.streams, data.streams), (self.queues, data.queues)):
            ours.clear()
            ours.update(theirs)
        self.restart()

    def _data(self) -> Data:
        streams = {name: list(entries) for name, entries in self.streams.items()}
        queues = {name: list(jobs) for name, jobs in self.queues.items()}
        return Data(dict(self.keys), dict(self.expiry_ms), streams, queues)


@dataclass
class Line:
    """One client's way to the server. Set `badness` (0 to 1) or `is_cut` to make it a bad one."""

    server: Server
    net: Machine
    """Where late requests wait."""
    who: str
    count: Callable[[str], None]
    """Told of each trouble."""
    timeout_s: float = TIMEOUT_S
    is_cut: bool = False
    badness: float = 0.0
    life: int = 0
    """The server's, to which it is connected; 0: to none."""

    def call(self, serve: Callable[[], T], *, grows: bool = False) -> T:
        """Send a request and wait for its answer.

        Raises:
            Unreachable, NoAnswer, Full: see there.
        """
        kernel = self.server.kernel
        if self.is_cut or self.badness or kernel.dice.random() < SEEN:
            kernel.sleep(kernel.dice.uniform(*LATENCY_S))
        trouble = kernel.dice.choice(TROUBLES) if self.badness and kernel.dice.random() < self.badness else ""
        if trouble:
            self.count(trouble)
        if self.is_cut or trouble == "request lost":
            self._give_up()
        if trouble == "request late":
            self._later(serve, grows, kernel.dice.uniform(0.5, 2 * self.timeout_s))
            self._give_up()
        self._wait_out_stall(serve, grows)
        self._connect()
        if trouble == "request doubled":
            self._served(serve, grows)
        answer = self._served(serve, grows)
        if trouble == "answer lost":
            self._give_up()
        if trouble == "answer slow":
            kernel.sleep(kernel.dice.uniform(0.1, 0.9 * self.timeout_s))
        return answer

    def _connect(self) -> None:
        if not self.server.up:
            self.server.kernel.sleep(LATENCY_S[1])
            raise Unreachable("connection refused")
        before, self.life = self.life, self.server.lives
        if before not in (0, self.server.lives):
            raise Unreachable("connection reset")

    def _served(self, serve: Callable[[], T], grows: bool) -> T:
        self.server.tick()
        if grows and self.server.is_full:
            raise Full("OOM command not allowed when used memory > 'maxmemory'.")
        return serve()

    def _wait_out_stall(self, serve: Callable[[], Any], grows: bool) -> None:
        left_s = self.server.stalled_until_s - self.server.kernel.now_s
        if left_s <= 0:
            return
        if left_s > self.timeout_s:
            self._later(serve, grows, left_s)
            self._give_up()
        self.server.kernel.sleep(left_s)

    def _give_up(self) -> None:
        self.server.kernel.sleep(self.timeout_s)
        raise NoAnswer("timed out")

    def _later(self, serve: Callable[[], Any], grows: bool, after_s: float) -> None:
        """It is served after its sender gave up, as by a proxy that held it back, or a server that stalled."""

        def arrive() -> None:
            if not self.server.up:
                return
            try:
                self._served(serve, grows)
            except (Full, redis.RedisError):
                pass  # nobody hears it

        self.server.kernel.spawn(f"late request of {self.who}", self.net, arrive, delay_s=after_s)


class Store:
    """What one orchestrator sees: `orchestrator.ports.Store` behind a line."""

    def __init__(self, line: Line, committed: Committed) -> None:
        self.line, self._committed = line, committed
        self._behind = MemoryStore(line.server)

    def _call(self, serve: Callable[[], T], *, grows: bool = False) -> T:
        try:
            return self.line.call(serve, grows=grows)
        except (NoAnswer, Unreachable, Full) as error:
            raise StoreUnavailable(str(error)) from error

    def now_ms(self) -> int:
        return self._call(self._behind.now_ms)

    def read_head(self, cluster: str) -> Head | None:
        return self._call(lambda: self._behind.read_head(cluster))

    def commit(self, commits: Sequence[Commit]) -> list[CommitAnswer]:
        return self._call(lambda: self._commit(commits), grows=True)

    def _commit(self, commits: Sequence[Commit]) -> list[CommitAnswer]:
        answers = self._behind.commit(commits)
        self._committed(commits, answers)
        if any(commit.jobs for commit in commits):
            self.line.server.queued.set()
        return answers

    def prepare(self, cluster: str, nodes: Iterable[str]) -> None:
        """Nothing here is slow the first time."""

    def read_log(self, cluster: str, after: str, count: int = 1000) -> list[StoredEntry]:
        return self._call(lambda: self._behind.read_log(cluster, after, count))

    def read_entry(self, cluster: str, entry_id: str) -> StoredEntry | None:
        return self._call(lambda: self._behind.read_entry(cluster, entry_id))

    def get_snapshot(self, cluster: str) -> bytes | None:
        return self._call(lambda: self._behind.get_snapshot(cluster))

    def put_snapshot(self, cluster: str, epoch: int, text: bytes) -> bool:
        return self._call(lambda: self._behind.put_snapshot(cluster, epoch, text), grows=True)

    def get_maintenance(self, clusters: Sequence[str]) -> dict[str, str | None]:
        return self._call(lambda: self._behind.get_maintenance(clusters))

    def put_maintenance(self, cluster: str, epoch: int, text: str | None) -> bool:
        return self._call(lambda: self._behind.put_maintenance(cluster, epoch, text), grows=text is not None)

    def read_inboxes(self, cursors: Mapping[str, Mapping[str, str]], count: int = 100) -> list[InboxEntry]:
        return self._call(lambda: self._behind.read_inboxes(cursors, count))

    def wait_for_facts(self, cursors: Mapping[str, Mapping[str, str]], count: int, timeout_s: float) -> list[InboxEntry]:
        """Blocks in the server, as XREAD does; the bell may not reach who is cut off."""
        if not cursors:
            self.line.server.kernel.sleep(timeout_s)
            return []
        until_s = self.line.server.kernel.now_s + timeout_s
        found = self.read_inboxes(cursors, count)
        while not found and (left_s := until_s - self.line.server.kernel.now_s) > 0:
            if self.line.server.kernel.wait(self.line.server.rang, left_s):
                found = self.read_inboxes(cursors, count)
        return found

    def append_leader_facts(self, cluster: str, epoch: int, envelopes: Sequence[str], not_before_ms: int = 0) -> bool:
        return self._call(lambda: self._append(cluster, epoch, envelopes, not_before_ms), grows=True)

    def _append(self, cluster: str, epoch: int, envelopes: Sequence[str], not_before_ms: int) -> bool:
        done = self._behind.append_leader_facts(cluster, epoch, envelopes, not_before_ms)
        self.line.server.rang.set()
        return done

    def trim_inboxes(self, heads: Mapping[str, Head]) -> None:
        self._call(lambda: self._behind.trim_inboxes(heads))

    def renew_lease(self, orchestrator: str, ttl_s: float, where: str) -> None:
        self._call(lambda: self._behind.renew_lease(orchestrator, ttl_s, where), grows=True)

    def leaders(self, clusters: Sequence[str]) -> dict[str, Leader]:
        return self._call(lambda: self._behind.leaders(clusters))

    def release(self, orchestrator: str, clusters: Sequence[str]) -> None:
        self._call(lambda: self._behind.release(orchestrator, clusters))

    def signs_of_life(self, nodes: Sequence[tuple[str, str]]) -> dict[tuple[str, str], SignsOfLife]:
        return self._call(lambda: self._behind.signs_of_life(nodes))

    def close(self) -> None:
        """There is nothing to give back."""


class Client:
    """What node code takes for a `redis.Redis`; and, in place of RQ, the node's two queues."""

    def __init__(self, line: Line) -> None:
        self.line, self.server = line, line.server
        self.connection_pool = self

    def disconnect(self) -> None:
        """As a pool's: the next request connects anew."""

    def _call(self, serve: Callable[[], T], *, grows: bool = False) -> T:
        try:
            return self.line.call(serve, grows=grows)
        except Unreachable as error:
            raise redis.ConnectionError(str(error)) from error
        except NoAnswer as error:
            raise redis.TimeoutError(str(error)) from error
        except Full as error:
            raise redis.OutOfMemoryError(str(error)) from error

    def time(self) -> tuple[int, int]:
        seconds, milliseconds = divmod(self._call(lambda: self.server.clock_ms), 1000)
        return seconds, milliseconds * 1000

    def get(self, key: str) -> bytes | None:
        return self._call(lambda: self.server.get(key))

    def set(self, key: str, value: str | bytes, px: int | None = None) -> None:
        self._call(lambda: self.server.set(key, value, px / 1000 if px else None), grows=True)

    def exists(self, key: str) -> int:
        return self._call(lambda: int(self.server.get(key) is not None))

    def xrevrange(self, key: str, count: int) -> list[tuple[str, dict[bytes, bytes]]]:
        """The last entries of a stream, the newest first, with names as bytes as redis-py gives them."""

        def last() -> list[tuple[str, dict[bytes, bytes]]]:
            entries = self.server.streams[key][-count:]
            return [(entry_id, {name.encode(): value for name, value in fields.items()}) for entry_id, fields in reversed(entries)]

        return self._call(last)

    @contextmanager
    def pipeline(self, transaction: bool = True) -> Iterator[Pipeline]:
        _ = transaction
        yield Pipeline(self)

    # in place of RQ; `queue` is a queue's whole name (wire.command_queue, wire.watch_queue)

    def take_job(self, queue: str, timeout_s: float) -> tuple[str, dict[str, Any]] | None:
        """The next job, which now lies between (as RQ's blocking pop does it); None: there was none in time.

        Raises:
            redis.RedisError: it may have been moved all the same.
        """
        until_s = self.server.kernel.now_s + timeout_s
        while True:
            job = self._call(lambda: self._pop(queue))
            left_s = until_s - self.server.kernel.now_s
            if job is not None or left_s <= 0:
                return copy.deepcopy(job)
            self.server.kernel.wait(self.server.queued, left_s)

    def _pop(self, name: str) -> tuple[str, dict[str, Any]] | None:
        if not self.server.queues[name]:
            return None
        job = self.server.queues[name].pop(0)
        self.server.queues[between(name)].append(job)
        return job

    def finish_job(self, queue: str, job_id: str) -> None:
        """The job was performed: nothing of it is left between."""

        def remove() -> None:
            jobs = self.server.queues[between(queue)]
            jobs[:] = [job for job in jobs if job[0] != job_id]

        self._call(remove)

    def recover_jobs(self, queue: str) -> int:
        """Move what lies between back to the consuming end, in its order."""

        def move() -> int:
            left = self.server.queues[between(queue)]
            self.server.queues[queue][:0], self.server.queues[between(queue)] = left, []
            return len(left)

        return self._call(move)

    def enqueue_job(self, queue: str, job_id: str, payload: dict[str, Any]) -> None:
        def put() -> None:
            self.server.queues[queue].append((job_id, payload))
            self.server.queued.set()

        self._call(put, grows=True)

    def llen(self, queue: str) -> int:
        return self._call(lambda: len(self.server.queues[queue]))

    count_jobs = llen

    def count_intermediate(self, queue: str) -> int:
        return self.llen(between(queue))

    def publish(self, channel: str, message: str) -> None:
        _ = channel, message
        self._call(self.server.rang.set)

    def xadd(self, key: str, fields: Mapping[str, bytes | str]) -> str:
        return self._call(lambda: self.server.xadd(key, fields), grows=True)


def between(queue: str) -> str:
    """RQ's intermediate list."""
    return f"{queue}:intermediate"


class Pipeline:
    """Commands that are sent together and answered together."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._commands: list[Callable[[], Any]] = []
        self._grows = False

    def set(self, key: str, value: str | bytes, px: int | None = None) -> None:
        self._add(lambda: self._client.server.set(key, value, px / 1000 if px else None), grows=True)

    def get(self, key: str) -> None:
        self._add(lambda: self._client.server.get(key))

    def exists(self, key: str) -> None:
        self._add(lambda: int(self._client.server.get(key) is not None))

    def llen(self, key: str) -> None:
        self._add(lambda: len(self._client.server.queues[key]))

    def xadd(self, key: str, fields: Mapping[str, bytes | str]) -> None:
        self._add(lambda: self._client.server.xadd(key, fields), grows=True)

    def publish(self, channel: str, message: str) -> None:
        _ = channel, message
        self._add(self._client.server.rang.set)

    def _add(self, command: Callable[[], Any], *, grows: bool = False) -> None:
        self._grows = self._grows or grows
        self._commands.append(command)

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        _ = raise_on_error
        return self._client._call(lambda: [command() for command in self._commands], grows=self._grows)


class Net:
    """The server and everybody's lines."""

    def __init__(self, kernel: Kernel, count: Callable[[str], None], committed: Committed) -> None:
        self.server = Server(kernel)
        self.lines: dict[str, list[Line]] = {}
        """Node or orchestrator -> its connections."""
        self._count, self._committed = count, committed
        self._machine = Machine(kernel, "net")
        self._state: dict[str, tuple[bool, float]] = {}

    def client(self, node: str, timeout_s: float = TIMEOUT_S) -> Client:
        return Client(self._line(node, timeout_s))

    def store(self, orchestrator: str) -> Store:
        return Store(self._line(orchestrator, TIMEOUT_S), self._committed)

    def _line(self, who: str, timeout_s: float) -> Line:
        is_cut, badness = self._state.get(who, (False, 0.0))
        line = Line(self.server, self._machine, who, self._count, timeout_s, is_cut, badness)
        self.lines.setdefault(who, []).append(line)
        return line

    def set_line(self, who: str, *, is_cut: bool = False, badness: float = 0.0) -> None:
        """From now on this one's way is such: all its connections, also later ones."""
        self._state[who] = (is_cut, badness)
        for line in self.lines.get(who, []):
            line.is_cut, line.badness = is_cut, badness

    def heal(self) -> None:
        for who in list(self._state):
            self.set_line(who)
        self.server.up, self.server.is_full = True, False
        self.server.stalled_until_s = 0.0
