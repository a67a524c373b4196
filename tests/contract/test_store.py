"""What every store promises (orchestrator/ports.py): one suite, run on the fake in memory and on a real Redis."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Protocol

import pytest
import redis
from rq import Queue

from orchestrator import redis_store
from orchestrator.embedded import EmbeddedRedis
from orchestrator.memory_store import MemoryRedis, MemoryStore
from orchestrator.ports import Commit, Head, Leader, LogDamaged, Quarantined, QueuedJob, Store, StoreRefused
from orchestrator.redis_store import RedisStore
from statemachines import wire
from statemachines.cluster import JobOrder
from statemachines.entries import GENESIS_HASH, GENESIS_ID, Entry, Sealed, seal, time_of
from tests.conftest import wait_until

C = "c"


class World(Protocol):
    """A store, and what its tests do behind its back."""

    store: Store

    def other_store(self) -> Store: ...

    def deliver(self, inbox: str, raw: str) -> str: ...

    def put(self, key: str, value: str) -> None: ...

    def get(self, key: str) -> str | None: ...

    def jobs(self, node: str) -> list[tuple[str, dict[str, Any]]]: ...

    def stream(self, key: str) -> list[dict[str, str]]: ...

    def forbid_maintenance(self) -> None:
        """From now on the store's user has no right to the maintenance keys."""

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Let time pass until the condition holds."""


class MemoryWorld:
    def __init__(self) -> None:
        self.server = MemoryRedis()
        self.store: Store = MemoryStore(self.server)

    def other_store(self) -> Store:
        return MemoryStore(self.server)

    def deliver(self, inbox: str, raw: str) -> str:
        return self.server.xadd(wire.inbox(C, inbox), {wire.FACT_FIELD: raw})

    def put(self, key: str, value: str) -> None:
        self.server.set(key, value)

    def get(self, key: str) -> str | None:
        value = self.server.get(key)
        return value.decode() if value is not None else None

    def jobs(self, node: str) -> list[tuple[str, dict[str, Any]]]:
        return self.server.queues[wire.command_queue(C, node)]

    def stream(self, key: str) -> list[dict[str, str]]:
        return [{name: value.decode() for name, value in fields.items()} for _, fields in self.server.streams[key]]

    def forbid_maintenance(self) -> None:
        self.server.no_maintenance = True

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        for _ in range(1000):
            if found := condition():
                return found
            self.server.clock_ms += 10
            time.sleep(0.001)
        pytest.fail(what)


class RedisWorld:
    def __init__(self, url: str) -> None:
        self.url = url
        self.client: Any = redis.Redis.from_url(url, decode_responses=True)
        self.raw: Any = redis.Redis.from_url(url)
        self._stores: list[Store] = []
        self.store = self.other_store()

    def other_store(self) -> Store:
        store = RedisStore(self.url)
        self._stores.append(store)
        return store

    def deliver(self, inbox: str, raw: str) -> str:
        with self.client.pipeline() as pipeline:
            pipeline.xadd(wire.inbox(C, inbox), {wire.FACT_FIELD: raw})
            pipeline.publish(wire.bell(C), inbox)
            entry_id: str = pipeline.execute()[0]
        return entry_id

    def put(self, key: str, value: str) -> None:
        self.client.set(key, value)

    def get(self, key: str) -> str | None:
        value: str | None = self.client.get(key)
        return value

    def jobs(self, node: str) -> list[tuple[str, dict[str, Any]]]:
        queue = Queue(wire.command_queue(C, node), connection=self.raw, serializer="json")
        jobs = queue.get_jobs()
        assert all(job.func_name == wire.JOB_FUNCTION for job in jobs)
        return [(job.id, job.args[0]) for job in jobs]

    def stream(self, key: str) -> list[dict[str, str]]:
        return [fields for _, fields in self.client.xrange(key)]

    def forbid_maintenance(self) -> None:
        """All keys but these: the default user's rights are given back at the end."""
        self.client.acl_setuser("default", enabled=True, reset_keys=True, keys=[f"dcsup:{C}:head", f"dcsup:{C}:log", "rq:*"])

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        return wait_until(condition, what)

    def close(self) -> None:
        self.client.acl_setuser("default", enabled=True, keys=["*"])
        for store in self._stores:
            store.close()
        self.client.close()
        self.raw.close()


@pytest.fixture(params=["memory", "redis", "redis with bells"])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    if request.param == "redis with bells":
        monkeypatch.setattr(redis_store, "BLOCKING_INBOXES_MAX", 0)
    if request.param == "memory":
        yield MemoryWorld()
        return
    server: EmbeddedRedis = request.getfixturevalue("redis_server")
    real = RedisWorld(server.url)
    yield real
    real.close()


def entry(head: Head | None, entry_id: str = "1700000000000-0") -> Sealed:
    fact = Entry(
        id=entry_id, time=time_of(entry_id), type="NodeLeft", version=1, cluster=C, node="n1", service=None, source="worker",
        source_id="s:1", cause=None, rule=None, transitions=[], data={},
    )  # fmt: skip
    return seal(fact, head.last_hash if head else GENESIS_HASH)


def commit_after(head: Head | None, *entries: Sealed, **parts: Any) -> Commit:
    last_id, last_hash = (
        (entries[-1].entry.id, entries[-1].hash) if entries else (head.last_id, head.last_hash) if head else (GENESIS_ID, GENESIS_HASH)
    )
    epoch, number = (head.epoch, head.commit) if head else (1, 0)
    new = Head(parts.pop("epoch", epoch), number + 1, parts.pop("cursors", {"n1": "5-0"}), last_id, last_hash)
    return Commit(C, head, new, entries, **parts)


def a_job(job_id: str = "c_n1-0-0", node: str = "n1") -> QueuedJob:
    payload = {"kind": "command", "ticket": "t", "n": 1, "service": "s", "verb": "start", "not_after_ms": 9}
    return QueuedJob(JobOrder(node, job_id, payload, 9), 30)


def committed(world: World, commit: Commit) -> Head:
    [answer] = world.store.commit([commit])
    assert answer.done and answer.head is not None and answer.trouble is None
    return answer.head


# --- the commit -----------------------------------------------------------------------------------------------------------------------


def test_nothing_has_no_head(world: World) -> None:
    """A cluster without history has no head, no log and no snapshot."""
    assert world.store.read_head(C) is None
    assert world.store.read_log(C, GENESIS_ID) == []
    assert world.store.get_snapshot(C) is None
    assert world.store.read_entry(C, "1-0") is None


def test_a_commit_does_everything(world: World) -> None:
    """Log, jobs, marks, quarantine, owner and head all stand after a commit, and the head has Redis's time in it."""
    sealed = entry(None)
    before_ms = world.store.now_ms()
    commit = commit_after(
        None, sealed, jobs=[a_job()], marks={"n1": {"s": 1}}, quarantined=[Quarantined("n2", "7-0", "why", b"raw")], owner="me"
    )
    head = committed(world, commit)
    assert head.same_commit(commit.new)
    assert before_ms <= head.time_ms <= world.store.now_ms()
    assert world.store.read_head(C) == head
    [stored] = world.store.read_log(C, GENESIS_ID)
    assert (stored.id, stored.body, stored.hash) == (sealed.entry.id, sealed.body, sealed.hash)
    assert world.store.read_entry(C, sealed.entry.id) == stored
    [(job_id, payload)] = world.jobs("n1")
    assert job_id == "c_n1-0-0"
    assert payload == {**a_job().order.payload, "head": head.seen()}
    mark = json.loads(world.get(wire.mark(C, "n1")) or "")
    assert mark == {"streams": {"s": 1}, "head": {**head.seen(), "upon": {"commit": 0, "last_hash": ""}}}
    assert world.stream(wire.quarantine(C)) == [{"inbox": "n2", "id": "7-0", "reason": "why", "f": "raw"}]
    assert world.get(wire.owner(C)) == "me"


def test_a_stale_commit_does_nothing(world: World) -> None:
    """A commit upon a head that no longer stands changes nothing and tells the head that does."""
    head = committed(world, commit_after(None, entry(None)))
    newer = committed(world, commit_after(head, epoch=2))
    stale = commit_after(head, entry(head, "1700000000001-0"), jobs=[a_job()], marks={"n1": {"s": 9}}, owner="old")
    [answer] = world.store.commit([stale])
    assert not answer.done
    assert answer.head == newer == world.store.read_head(C)
    assert len(world.store.read_log(C, GENESIS_ID)) == 1
    assert world.jobs("n1") == []
    assert world.get(wire.mark(C, "n1")) is None
    assert world.get(wire.owner(C)) is None


def test_a_commit_sent_twice_happens_once(world: World) -> None:
    """The second sending of a commit is recognised as done: one entry, one job."""
    commit = commit_after(None, entry(None), jobs=[a_job()])
    head = committed(world, commit)
    assert committed(world, commit) == head
    assert len(world.store.read_log(C, GENESIS_ID)) == 1
    assert len(world.jobs("n1")) == 1


def test_of_two_beginnings_one_is_first(world: World) -> None:
    """Two that take the lead of a cluster without history at the same time: one wins."""
    other = world.other_store()
    one, two = commit_after(None, entry(None), owner="a"), commit_after(None, entry(None, "1700000000009-0"), owner="b")
    assert world.store.commit([one])[0].done
    [answer] = other.commit([two])
    assert not answer.done
    assert world.get(wire.owner(C)) == "a"


def test_several_clusters_stand_for_themselves(world: World) -> None:
    """In one call, one cluster's stale commit does not hinder another's."""
    committed(world, commit_after(None, entry(None)))
    stale = commit_after(None, entry(None, "1700000000001-0"))
    fresh = Commit("d", None, Head(1, 1, {}, GENESIS_ID, GENESIS_HASH))
    first, second = world.store.commit([stale, fresh])
    assert (first.done, second.done) == (False, True)
    assert world.store.read_head("d") is not None


def test_a_commit_may_only_move_cursors(world: World) -> None:
    """Without entries the log stays and the cursors move."""
    head = committed(world, commit_after(None, entry(None)))
    moved = committed(world, commit_after(head, cursors={"n1": "6-0", "n2": "1-1"}))
    assert (moved.commit, moved.last_hash, dict(moved.cursors)) == (2, head.last_hash, {"n1": "6-0", "n2": "1-1"})


def test_a_log_that_goes_on_behind_its_head_refuses(world: World) -> None:
    """An entry that somebody else added makes the commit fail with nothing done, and the reason is told."""
    head = committed(world, commit_after(None, entry(None, "1700000000005-0")))
    [answer] = world.store.commit([commit_after(head, entry(head, "1700000000004-0"), jobs=[a_job()])])
    assert not answer.done and answer.trouble
    assert world.store.read_head(C) == head
    assert world.jobs("n1") == []


def test_the_log_is_read_in_pages(world: World) -> None:
    """What follows an id, oldest first, at most so many."""
    head = None
    for number in range(5):
        head = committed(world, commit_after(head, entry(head, f"1700000000000-{number}")))
    ids = [stored.id for stored in world.store.read_log(C, "1700000000000-1", 2)]
    assert ids == ["1700000000000-2", "1700000000000-3"]


def test_a_snapshot_is_kept_as_it_is(world: World) -> None:
    """The snapshot's bytes come back, the last ones written."""
    head = committed(world, commit_after(None, entry(None), epoch=2))
    assert world.store.put_snapshot(C, head.epoch, b"old")
    assert world.store.put_snapshot(C, head.epoch, b'{"\xc3\xa4":1}')
    assert world.store.get_snapshot(C) == b'{"\xc3\xa4":1}'


def test_only_the_leading_epoch_keeps_a_snapshot(world: World) -> None:
    """A leader that was deposed while it slept does not put its old snapshot over the new leader's; nor does anybody without a history."""
    assert not world.store.put_snapshot(C, 1, b"x")
    committed(world, commit_after(None, entry(None), epoch=2))
    assert not world.store.put_snapshot(C, 1, b"x")
    assert world.store.get_snapshot(C) is None


def test_a_head_that_is_none_is_nobodys(world: World) -> None:
    """Nothing is built upon it, nothing is written under it, and the reason is told; other clusters' commits in the same call stand."""
    head = committed(world, commit_after(None, entry(None)))
    world.put(wire.head(C), "rubbish")
    bad, good = world.store.commit([commit_after(head, entry(head, "1700000000001-0")), Commit("d", None, Head(1, 1, {}, GENESIS_ID, ""))])
    assert not bad.done and bad.trouble and bad.head is None
    assert good.done
    with pytest.raises(LogDamaged):
        world.store.read_head(C)
    assert not world.store.append_leader_facts(C, head.epoch, ["x"])
    assert not world.store.put_snapshot(C, head.epoch, b"x")


def test_a_mark_tells_how_an_older_head_is_judged(world: World) -> None:
    """It says upon which head the epoch was begun: a node that saw a later one of an older epoch knows that the log lost its tail."""
    head = committed(world, commit_after(None, entry(None), marks={"n1": {}}))
    mark = json.loads(world.get(wire.mark(C, "n1")) or "")
    assert mark["head"] == {**head.seen(), "upon": {"commit": 0, "last_hash": ""}}
    later = committed(world, commit_after(head, epoch=2, marks={"n1": {}}, upon=head))
    mark = json.loads(world.get(wire.mark(C, "n1")) or "")
    assert mark["head"] == {**later.seen(), "upon": {"commit": head.commit, "last_hash": head.last_hash}}


# --- inboxes --------------------------------------------------------------------------------------------------------------------------


def test_inboxes_are_read_behind_their_cursors(world: World) -> None:
    """Each inbox gives what follows its cursor, in order, at most so many; others are not touched."""
    ids = [world.deliver("n1", f"a{number}") for number in range(4)]
    other = world.deliver("n2", "b0")
    world.deliver("n3", "not asked for")
    read = world.store.read_inboxes({C: {"n1": ids[0], "n2": GENESIS_ID, "_leader": GENESIS_ID}}, 2)
    assert [(e.cluster, e.inbox, e.id, e.raw) for e in read] == [
        (C, "n1", ids[1], b"a1"), (C, "n1", ids[2], b"a2"), (C, "n2", other, b"b0"),
    ]  # fmt: skip
    assert world.store.read_inboxes({}) == []
    assert world.store.read_inboxes({C: {"n2": other}}) == []


def test_trimming_forgets_only_what_was_read(world: World) -> None:
    """What follows the cursor is still there after trimming."""
    ids = [world.deliver("n1", f"a{number}") for number in range(300)]
    head = committed(world, commit_after(None, entry(None), epoch=2, cursors={"n1": ids[200], "n2": GENESIS_ID}))
    world.store.trim_inboxes({C: replace(head, epoch=1)})
    assert len(world.store.read_inboxes({C: {"n1": GENESIS_ID}}, 1000)) == 300
    world.store.trim_inboxes({C: head, "d": head})
    read = world.store.read_inboxes({C: {"n1": GENESIS_ID}}, 1000)
    assert {entry.id for entry in read} >= set(ids[200:])
    assert world.store.read_inboxes({C: {"n1": ids[200]}}, 1000)[0].id == ids[201]


def test_an_inbox_is_begun_anew_with_a_commit(world: World) -> None:
    """What is in it is gone together with its cursor, and what comes then is read from the beginning; other inboxes stay."""
    for inbox in ("n1", "n2"):
        world.deliver(inbox, "before")
    head = committed(world, commit_after(None, entry(None), cursors={"n1": GENESIS_ID}, begun_anew=["n1"]))
    world.deliver("n1", "after")
    read = world.store.read_inboxes({C: {**head.cursors, "n2": GENESIS_ID}}, 1000)
    assert [(one.inbox, one.raw) for one in read] == [("n1", b"after"), ("n2", b"before")]


def test_only_the_leading_epoch_may_append(world: World) -> None:
    """A leader of an older epoch cannot put its observations into the leader's inbox."""
    assert not world.store.append_leader_facts(C, 1, ["x"])
    head = committed(world, commit_after(None, entry(None), epoch=3))
    assert not world.store.append_leader_facts(C, 2, ["x"])
    assert world.store.append_leader_facts(C, head.epoch, ["a", "b"])
    read = world.store.read_inboxes({C: {wire.LEADER_INBOX: GENESIS_ID}})
    assert [entry.raw for entry in read] == [b"a", b"b"]


def test_the_leaders_facts_are_not_before_what_they_are_about(world: World) -> None:
    """Where the store's clock was set back behind it, they take that moment; an inbox that is further already goes on."""
    head = committed(world, commit_after(None, entry(None)))
    later_ms = world.store.now_ms() + 3_600_000
    assert world.store.append_leader_facts(C, head.epoch, ["a"], later_ms - 7_200_000)
    assert world.store.append_leader_facts(C, head.epoch, ["b", "c"], later_ms)
    assert world.store.append_leader_facts(C, head.epoch, ["d"], later_ms - 1)
    read = world.store.read_inboxes({C: {wire.LEADER_INBOX: GENESIS_ID}})
    assert [entry.raw for entry in read] == [b"a", b"b", b"c", b"d"]
    assert read[0].ms <= world.store.now_ms()
    assert [entry.id for entry in read[1:]] == [f"{later_ms}-{place}" for place in range(3)]


def test_waiting_for_facts_finds_those_that_were_there(world: World) -> None:
    """What was handed in before the waiting began is found, by the first call or the next."""
    fact = world.deliver("n1", "x")
    cursors = {C: {"n1": GENESIS_ID, "n2": GENESIS_ID}}
    [entry] = world.until(lambda: world.store.wait_for_facts(cursors, 10, 0.05), "the fact is found")
    assert (entry.inbox, entry.id, entry.raw) == ("n1", fact, b"x")
    assert world.store.wait_for_facts({C: {"n1": fact, "n2": GENESIS_ID}}, 10, 0.01) == []


def test_waiting_for_facts_ends_with_the_first(world: World) -> None:
    """A fact that is handed in while somebody waits is found at once, behind the cursors, and not another cluster's."""
    cursors = {C: {"n1": world.deliver("n1", "old")}, "d": {"n1": GENESIS_ID}}
    assert world.store.wait_for_facts(cursors, 10, 0.0) == []
    later = threading.Timer(0.05, world.deliver, ("n1", "new"))
    later.start()
    found = world.until(lambda: world.store.wait_for_facts(cursors, 10, 5.0), "the fact is found")
    later.join()
    assert [(entry.cluster, entry.raw) for entry in found] == [(C, b"new")]


def test_nothing_to_wait_for_is_no_error(world: World) -> None:
    """Without clusters the wait just ends."""
    assert world.store.wait_for_facts({}, 10, 0.01) == []


# --- maintenance ----------------------------------------------------------------------------------------------------------------------


def test_maintenance_is_set_and_deleted(world: World) -> None:
    """The key holds the text as it is, and is gone when there is none; of clusters without one that is the answer."""
    head = committed(world, commit_after(None, entry(None)))
    assert world.store.get_maintenance([C, "d"]) == {C: None, "d": None}
    assert world.store.get_maintenance([]) == {}
    assert world.store.put_maintenance(C, head.epoch, '{"by":"田中"}')
    assert world.get(wire.maintenance(C)) == '{"by":"田中"}'
    assert world.store.get_maintenance([C, "d"]) == {C: '{"by":"田中"}', "d": None}
    for _ in range(2):
        assert world.store.put_maintenance(C, head.epoch, None)
        assert world.get(wire.maintenance(C)) is None


def test_only_the_leading_epoch_tells_of_maintenance(world: World) -> None:
    """A leader that was deposed neither sets nor deletes what the new one wrote; nor does anybody without a history."""
    assert not world.store.put_maintenance(C, 1, "x")
    head = committed(world, commit_after(None, entry(None), epoch=3))
    assert world.store.put_maintenance(C, head.epoch, "mine")
    assert not world.store.put_maintenance(C, 2, "stale")
    assert not world.store.put_maintenance(C, 2, None)
    assert world.get(wire.maintenance(C)) == "mine"


def test_a_missing_right_to_maintenance_is_no_outage(world: World) -> None:
    """It is told as a refusal, and everything else goes on over the same connection."""
    head = committed(world, commit_after(None, entry(None)))
    world.forbid_maintenance()
    with pytest.raises(StoreRefused, match="permission"):
        world.store.put_maintenance(C, head.epoch, "x")
    with pytest.raises(StoreRefused, match="permission"):
        world.store.get_maintenance([C])
    committed(world, commit_after(head, entry(head, "1700000000009-0")))


# --- lead and signs of life -----------------------------------------------------------------------------------------------------------


def test_a_lease_runs_out(world: World) -> None:
    """An owner lives as long as its lease is renewed; its name stays behind, and so does the epoch of its head."""
    assert world.store.leaders([C]) == {C: Leader(None, False)}
    committed(world, commit_after(None, entry(None), epoch=3, owner="me"))
    assert world.store.leaders([C]) == {C: Leader("me", False, 3)}
    world.store.renew_lease("me", 0.2, "{}")
    assert world.store.leaders([C, "d"]) == {C: Leader("me", True, 3), "d": Leader(None, False)}
    world.until(lambda: not world.store.leaders([C])[C].lives, "the lease runs out")
    assert world.store.leaders([C]) == {C: Leader("me", False, 3)}


def test_release_leaves_what_is_somebody_elses(world: World) -> None:
    """Giving up the lead deletes the own lease and name, and not another leader's name."""
    committed(world, commit_after(None, entry(None), owner="me"))
    world.put(wire.owner("d"), "somebody")
    world.store.renew_lease("me", 60, "{}")
    world.store.release("me", [C, "d"])
    assert world.store.leaders([C, "d"]) == {C: Leader(None, False, 1), "d": Leader("somebody", False)}
    assert world.get(wire.lease("me")) is None


def test_signs_of_life_are_told_apart(world: World) -> None:
    """The liveness keys of each node, and None for those that are not there."""
    world.put(wire.alive(C, "n1"), "a")
    world.put(wire.watch_alive(C, "n2"), "w")
    signs = world.store.signs_of_life([(C, "n1"), (C, "n2"), (C, "n3")])
    assert {node: (sign.alive, sign.watch) for (_, node), sign in signs.items()} == {
        "n1": ("a", None),
        "n2": (None, "w"),
        "n3": (None, None),
    }
    assert world.store.signs_of_life([]) == {}
