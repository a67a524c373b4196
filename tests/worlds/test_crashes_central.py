"""A crash at each thing that the orchestrator asks of its store: the loop's steps 1 to 7, and the commit as a whole.

The real loop tells a story (facts of a node, a command, a broken fact, an operator's pause, a snapshot) on a store that ends it at each
call in turn: the process dies before the call is served or behind it, and a successor takes the lead; or it is paused there until the
successor has told the rest, and then goes on; or only the answer is lost, or the request, and the same process goes on. In the end log,
queues and numbers are as if nothing had happened.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator import clock, lease, loop
from orchestrator.embedded import EmbeddedRedis
from orchestrator.loop import Orchestrator
from orchestrator.memory_store import MemoryRedis, MemoryStore
from orchestrator.ports import StoreUnavailable
from orchestrator.redis_store import RedisStore
from statemachines import wire
from statemachines.entries import GENESIS_HASH, GENESIS_ID, Entry, unseal
from tests.orchestrator.engine import C, Site, envelope, joined, orchestrator_on, start_called

STORY: list[tuple[str, str]] = [
    ("n1", joined(1)),
    ("n1", start_called(2)),
    ("n1", "no fact at all"),
    ("n2", joined(1)),
    (wire.OPERATOR_INBOX, envelope(1, "PauseRequested", {"by": "suzuki"})),
    ("n1", envelope(3)),
    ("n1", envelope(3)),
    (wire.OPERATOR_INBOX, envelope(2, "ResumeRequested", {"by": "suzuki"})),
    ("n1", envelope(4)),
]
"""Inbox, and what is handed in there; the third fact of n1 twice, as after a new connection."""

ENDS = ("dies before", "request lost", "answer lost", "paused before")
"""Behind a call is before the next one: nothing outside happens between them."""
NOT_THE_STORY = ("LeadTaken", "ConfigurationChanged")


class Died(BaseException):
    """The process is no more."""


class Fragile:
    """A store that counts what is asked of it, and breaks once."""

    def __init__(self, store: Any, at: int = 0, end: str = "", meanwhile: Callable[[], None] = lambda: None) -> None:
        """`meanwhile`: what others do while its process is paused."""
        self._store, self._at, self._end, self._meanwhile = store, at, end, meanwhile
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        return self._fragile(name, method) if callable(method) else method

    def _fragile(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.asked.append(name)
            if len(self.asked) != self._at:
                return method(*arguments, **named)
            if self._end == "paused before":
                self._meanwhile()
                return method(*arguments, **named)
            if self._end in ("dies behind", "answer lost"):
                method(*arguments, **named)
            raise Died if self._end.startswith("dies") else StoreUnavailable(self._end)

        return call


@dataclass(frozen=True)
class Redis:
    """What a telling needs of the server; both kinds can be looked at through a store."""

    make_store: Callable[[], Any]
    deliver: Callable[[str, str], Any]
    forget: Callable[[str], Any]
    get: Callable[[str], Any]
    jobs: Callable[[], list[str]]

    def entries(self) -> list[Entry]:
        """The log, its chain checked."""
        last, entries = GENESIS_HASH, []
        for stored in self.make_store().read_log(C, GENESIS_ID):
            sealed = unseal(stored.body, stored.hash, last)
            last = sealed.hash
            entries.append(sealed.entry)
        return entries


def in_memory() -> Redis:
    server = MemoryRedis()

    def deliver(inbox: str, raw: str) -> None:
        server.clock_ms += 1
        server.xadd(wire.inbox(C, inbox), {wire.FACT_FIELD: raw})

    queue = server.queues[wire.command_queue(C, "n1")]
    return Redis(lambda: MemoryStore(server), deliver, server.delete, server.get, lambda: [job for job, _ in queue])


def real(url: str) -> Redis:
    site = Site(url)
    site.client.flushall()
    return Redis(lambda: RedisStore(url, timeout_s=10.0), site.deliver, site.client.delete, site.client.get, site.jobs)


def tell(server: Redis, at: int = 0, end: str = "") -> tuple[list[str], Orchestrator]:
    """The whole story, broken off at one call; returns what was asked of the first orchestrator's store, and who leads in the end."""
    rest, leaders = [*STORY], list[Orchestrator]()

    def take_over() -> None:
        server.forget(wire.lease("first"))
        leaders.append(orchestrator_on(server.make_store(), "successor", snapshot_every=2))
        _tell_on(leaders[-1], server, rest)

    store = Fragile(server.make_store(), at, end, take_over)
    leaders.append(orchestrator_on(store, "first", snapshot_every=2))
    try:
        _tell_on(leaders[0], server, rest)
    except Died:
        take_over()
    return store.asked, leaders[-1]


def _tell_on(leader: Orchestrator, server: Redis, rest: list[tuple[str, str]]) -> None:
    for _ in range(10):
        if not leader.views():
            leader.turn()
    while rest:
        server.deliver(*rest.pop(0))
        leader.turn()
    for _ in range(4):
        leader.turn()


def happened(server: Redis) -> list[tuple[str, str | None]]:
    """Type and source of what the story left in the log."""
    entries = [entry for entry in server.entries() if entry.type not in NOT_THE_STORY]
    sources = [(entry.evidence["inbox"], entry.source_id) for entry in entries if entry.evidence is not None]
    assert len(sources) == len({*sources}), f"a fact is in the log twice: {sources}"
    return [(entry.type, entry.source_id) for entry in entries]


@pytest.fixture(autouse=True)
def standing_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """No deadline passes and no pause is made; every turn sweeps."""
    still = SimpleNamespace(monotonic=lambda: 1000.0, sleep=lambda _s: None, time=lambda: 0.0)
    for module in (loop, lease, clock):
        monkeypatch.setattr(module, "time", still)
    monkeypatch.setattr(lease.Lease, "renew_every_s", 0.0)
    monkeypatch.setattr(loop, "BACKOFF_S", (0.0,))


def try_all(make: Callable[[], Redis], ends: tuple[str, ...], only: Callable[[str], bool] = lambda _call: True) -> int:
    """Tell the story with every end at every call; returns how many tellings."""
    undisturbed = make()
    asked, leader = tell(undisturbed)
    expected, jobs, sources = happened(undisturbed), undisturbed.jobs(), leader.views()[C].state.sources
    assert len(jobs) == 1
    tried = 0
    for at, call in enumerate(asked, 1):
        for end in ends if only(call) else ():
            tried += 1
            server = make()
            _, leader = tell(server, at, end)
            about = f"{end} at call {at}, {call}"
            assert happened(server) == expected, about
            assert [job.rpartition("-")[2] for job in server.jobs()] == [job.rpartition("-")[2] for job in jobs], about
            assert [entry.type for entry in server.entries()].count("LeadTaken") <= 2, about
            state = leader.views()[C].state
            told = {inbox: numbers for inbox, numbers in state.sources.items() if inbox != wire.LEADER_INBOX}
            marks = {node: json.loads(server.get(wire.mark(C, node)))["streams"] for node in ("n1", "n2")}
            assert marks == {node: told[node] for node in marks}, about
            assert told == {inbox: numbers for inbox, numbers in sources.items() if inbox != wire.LEADER_INBOX}, about
    return tried


def test_an_orchestrator_that_ends_at_any_call_is_continued_as_if_nothing_had_happened(record_property: Any) -> None:
    """I5, I6: each fact is in the log once, in order; the job is queued once; what is broken is quarantined once; the chain holds."""
    tried = try_all(in_memory, ENDS)
    record_property("crash points of the loop, store in memory", tried)
    assert tried > 400


def test_a_commit_that_is_broken_off_at_a_real_redis_is_done_once_or_not_at_all(redis_server: EmbeddedRedis, record_property: Any) -> None:
    """The same on a real server, at every call that changes something: the commit is one script, all of it or nothing."""
    changing = ("commit", "append_leader_facts", "put_snapshot", "put_maintenance", "trim_inboxes")
    tried = try_all(lambda: real(redis_server.url), ("dies behind", "answer lost", "paused before"), lambda call: call in changing)
    record_property("crash points of the loop, real Redis", tried)
    assert tried > 40
