"""The loop on a real Redis: what is committed, what a lost answer leaves, what a deadline waits for, what an outage does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from rq import Queue
from rq.job import Job

from orchestrator import history, loop, metrics, observing
from orchestrator.embedded import EmbeddedRedis
from orchestrator.lease import Lease
from orchestrator.memory_store import MemoryStore
from orchestrator.ports import Core
from orchestrator.redis_store import RedisStore
from statemachines import wire
from tests.conftest import wait_until
from tests.orchestrator.engine import BUGGY, C, Site, envelope, joined, leading, orchestrator_on, settings, start_called, turn_until
from tests.orchestrator.proxy import Door


@pytest.fixture
def site(redis_server: EmbeddedRedis) -> Iterator[Site]:
    found = Site(redis_server.url)
    yield found
    found.close()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no workers that would have to be waited for after Redis is there."""
    monkeypatch.setattr(loop, "RECONNECT_S", 0.0)


def test_a_fact_becomes_an_entry_a_job_and_a_mark(site: Site) -> None:
    """A start call handed in is logged with its decisions, its command is queued for RQ, and the node learns that it is durable."""
    with leading(site.url) as orchestrator:
        site.deliver("n1", joined(1), start_called(2))
        wait_until(lambda: site.jobs() and site.mark()["streams"] == {"s": 2}, "the job is queued")
        head = site.head()
        job = Job.fetch(site.jobs()[0], connection=site.client, serializer="json")
        assert job.func_name == wire.JOB_FUNCTION
        assert job.args[0]["ticket"] == "b1-g-1-start"
        assert job.args[0]["head"]["commit"] <= head["commit"]
        assert job.timeout == settings().start.command_limit + 60
        wait_until(lambda: orchestrator.states()["leads"][C]["last_hash"] == head["last_hash"], "the answer has come")
        assert orchestrator.states()["clusters"][C] == site.folded().model_dump(mode="json")
    assert site.types()[:2] == ["LeadTaken", "ConfigurationChanged"]


def test_a_fact_without_a_bell_is_found(site: Site) -> None:
    """When the bell is missed the next sweep finds the fact."""
    with leading(site.url):
        wait_until(site.owner, "it leads")
        site.deliver("n1", envelope(1), bell=False)
        wait_until(lambda: site.applied() == ["s:1"], "the fact is applied")


def test_bad_facts_do_not_stop_good_ones(site: Site) -> None:
    """Rubbish and a fact that makes the core raise are quarantined with their reasons; what follows proceeds."""
    with leading(site.url, core=BUGGY):
        boom = envelope(1, data={"service": "srv", "reason": "boom"})
        site.deliver("n1", "rubbish", boom, envelope(2))
        site.client.xadd(wire.inbox(C, "n1"), {"other": "field"})
        site.deliver("n1", envelope(3))
        wait_until(lambda: site.applied()[-1:] == ["s:3"], "the last good fact is applied")
    kept = [fields for _, fields in site.client.xrange(wire.quarantine(C))]
    assert [fields[b"f"] for fields in kept] == [b"rubbish", boom.encode(), b""]
    assert site.count("FactQuarantined") == 3


def test_duplicates_change_nothing_but_the_mark(site: Site) -> None:
    """Facts that are offered again make no entries, are counted, and the node is told its mark again."""
    with leading(site.url) as orchestrator:
        site.deliver("n1", envelope(1), envelope(2))
        wait_until(lambda: site.mark()["streams"] == {"s": 2}, "both are applied")
        entries = site.log()
        site.client.delete(wire.mark(C, "n1"))
        site.deliver("n1", envelope(1), envelope(2))
        wait_until(lambda: orchestrator.skipped[C] == {"duplicate": 2}, "both are recognised")
        assert site.mark()["streams"] == {"s": 2}
        assert site.log() == entries


def test_a_gap_waits_for_its_producer(site: Site) -> None:
    """A fact behind a gap is not applied and the mark stays before it; offered again in order, both are."""
    with leading(site.url) as orchestrator:
        site.deliver("n1", envelope(1), envelope(3))
        wait_until(lambda: orchestrator.skipped[C]["gap"] == 1, "the gap is seen")
        assert site.mark()["streams"] == {"s": 1}
        site.deliver("n1", envelope(2), envelope(3))
        wait_until(lambda: site.mark()["streams"] == {"s": 3}, "the gap is filled")
    assert site.applied() == ["s:1", "s:2", "s:3"]


def test_several_clusters_are_led_side_by_side(site: Site) -> None:
    """Each cluster has a log of its own, and the facts of many arrive at once."""
    names = [f"k{number}" for number in range(5)]
    with leading(site.url, clusters={name: settings() for name in names}) as orchestrator:
        wait_until(lambda: len(orchestrator.states()["leads"]) == 5, "all are led")
        for name in names:
            site.deliver("n1", envelope(1), bell=False, cluster=name)
        site.client.publish(wire.bell("k0"), "n1")
        wait_until(lambda: all(site.types(name)[-1] == "ProbeFailed" for name in names), "each has its fact")


def test_a_script_cache_that_was_lost_is_no_trouble(site: Site) -> None:
    """When Redis has forgotten the commit script it is loaded again, also for several clusters at once."""
    with leading(site.url, clusters={"a": settings(), "b": settings()}) as orchestrator:
        wait_until(lambda: len(orchestrator.states()["leads"]) == 2, "both are led")
        site.client.script_flush()
        site.deliver("n1", envelope(1), bell=False, cluster="a")
        site.deliver("n1", envelope(1), cluster="b")
        wait_until(lambda: "ProbeFailed" in site.types("a") and "ProbeFailed" in site.types("b"), "both have their fact")


def test_a_refused_job_does_not_wedge_the_cluster(site: Site) -> None:
    """When the queue's key is of a wrong type the commit stands all the same, and facts go on."""
    with leading(site.url):
        wait_until(site.owner, "it leads")
        site.client.set(Queue(wire.command_queue(C, "n1"), connection=site.client).key, "not a list")
        site.deliver("n1", joined(1), start_called(2), envelope(3))
        wait_until(lambda: site.applied()[-1:] == ["s:3"], "facts go on")
        assert site.count("CommandIssued") == 1


# --- lost answers ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", ["answer", "request"])
def test_a_cut_commit_happens_once(site: Site, cut: str) -> None:
    """The connection ends after the commit was applied, or before it arrived: one entry and one job either way, and the lead stays."""
    with Door(site.url) as door, leading(door.url) as orchestrator:
        site.deliver("n1", joined(1))
        wait_until(lambda: site.mark()["streams"] == {"s": 1}, "it leads and the node joined")
        (door.cut_answer if cut == "answer" else door.cut_request)(b"EVALSHA")
        site.deliver("n1", start_called(2), envelope(3))
        wait_until(lambda: site.mark()["streams"] == {"s": 3}, "all facts are durable")
        wait_until(lambda: orchestrator.states()["leads"].get(C, {}).get("commit") == site.head()["commit"], "the orchestrator knows")
        assert door.cuts == 1
        assert orchestrator.states()["clusters"][C] == site.folded().model_dump(mode="json")
    assert site.applied() == ["s:1", "s:2", "s:3"]
    assert len(site.jobs()) == 1
    assert site.count("LeadTaken") == 1


@pytest.mark.parametrize("cut", ["answer", "request"])
def test_a_cut_observation_is_told_once(site: Site, at_once: None, cut: str) -> None:
    """The leader's own fact, its answer or its way cut: the deadline is judged once."""
    with Door(site.url) as door, leading(door.url, clusters={C: settings(probation="0.3s")}) as orchestrator:
        wait_until(lambda: orchestrator.states()["leads"], "it leads")
        (door.cut_answer if cut == "answer" else door.cut_request)(b"DeadlinePassed")
        site.deliver("n1", joined(1))
        wait_until(lambda: site.count("DeadlinePassed") and door.cuts, "the deadline is judged")
        site.deliver("n1", envelope(2))
        wait_until(lambda: site.applied()[-1:] == ["s:2"], "and life goes on")
    assert site.count("DeadlinePassed") == 1
    assert site.count("LeadTaken") == 1


# --- deadlines and signs of life ------------------------------------------------------------------------------------------------------


def test_a_deadline_is_judged_after_the_backlog(site: Site, at_once: None) -> None:
    """Facts that arrived before a deadline was noticed are judged before it, however many they are."""
    store = RedisStore(site.url)
    late = orchestrator_on(store, clusters={C: settings(probation="1s")})
    site.deliver("n1", joined(1))
    turn_until(late, lambda: site.applied() == ["s:1"])
    due_ms = min(site.folded().deadlines.values())
    site.deliver("n1", *(envelope(seq) for seq in range(2, 302)))
    wait_until(lambda: store.now_ms() > due_ms, "the deadline is due while nobody looks")
    turn_until(late, lambda: "DeadlinePassed" in site.types())
    types = [entry.type for entry in site.log() if entry.evidence is not None]
    assert types.index("DeadlinePassed") > types.index("ProbeFailed") + 298
    store.close()


def test_a_deadline_is_noticed_without_any_fact(site: Site, at_once: None) -> None:
    """Nothing arrives, and the deadline is judged all the same, once."""
    with leading(site.url, clusters={C: settings(probation="0.2s")}):
        site.deliver("n1", joined(1))
        wait_until(lambda: site.count("DeadlinePassed"), "the deadline passes")
        site.deliver("n1", envelope(2))
        wait_until(lambda: site.applied()[-1:] == ["s:2"], "life goes on")
        assert site.count("DeadlinePassed") == 1


def test_under_pause_no_deadline_passes(site: Site, at_once: None) -> None:
    """Between pause and resume the clocks stand."""
    with leading(site.url, clusters={C: settings(probation="1.5s")}):
        site.deliver("n1", joined(1))
        asked = {"by": "op", "why": ""}
        site.deliver(wire.OPERATOR_INBOX, envelope(1, "PauseRequested", asked))
        wait_until(lambda: site.folded().paused_since_ms, "it is paused")
        due_ms = min(site.folded().deadlines.values())
        wait_until(lambda: redis_ms(site) > due_ms + 300, "the deadline would have passed")
        assert site.count("DeadlinePassed") == 0
        site.deliver(wire.OPERATOR_INBOX, envelope(2, "ResumeRequested", asked))
        wait_until(lambda: site.count("DeadlinePassed"), "after the resume it passes")


def redis_ms(site: Site) -> int:
    seconds, micros = site.client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def test_a_node_without_a_sign_of_life_is_lost_and_returns(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing sign is a fact once; a refreshed one brings the node back; a node that never joined is not lost."""
    monkeypatch.setattr(loop, "RECONNECT_S", 0.1)
    monkeypatch.setattr(observing, "RECONNECT_S", 0.1)
    site.client.set(wire.alive(C, "n1"), '{"wall":1}')
    site.client.set(wire.watch_alive(C, "n1"), "{}")
    with leading(site.url, clusters={C: settings(node_ttl="0.5s")}) as orchestrator:
        site.deliver("n1", joined(1))
        wait_until(lambda: site.applied() == ["s:1"], "it joined")
        wait_until(lambda: orchestrator.views()[C].nodes.get("n1", {}).get("alive"), "its sign was seen")
        site.client.delete(wire.alive(C, "n1"))
        wait_until(lambda: site.count("NodeLost"), "it is lost")
        assert not site.folded().nodes["n1"].present
        site.client.set(wire.alive(C, "n1"), '{"wall":2}')
        wait_until(lambda: orchestrator.views()[C].nodes["n1"]["alive"] == {"wall": 2}, "the first sign is seen")
        assert site.count("NodeReturned") == 0
        site.client.set(wire.alive(C, "n1"), '{"wall":3}')
        wait_until(lambda: site.folded().nodes["n1"].present, "it is back")
        site.client.delete(wire.watch_alive(C, "n1"))
        wait_until(lambda: site.count("WatchLost"), "its watch is lost")
        site.client.set(wire.watch_alive(C, "n1"), "{}")
        wait_until(lambda: site.count("WatchReturned"), "its watch is back")
    found = {kind: site.count(kind) for kind in ("NodeLost", "NodeReturned", "WatchLost", "WatchReturned")}
    assert found == {"NodeLost": 1, "NodeReturned": 1, "WatchLost": 1, "WatchReturned": 1}


# --- Redis goes and comes -------------------------------------------------------------------------------------------------------------


def test_redis_killed_and_restarted(tmp_path: Path) -> None:
    """The orchestrator waits for Redis and keeps its lead; a node whose sign of life ran out meanwhile has time to show it again."""
    with EmbeddedRedis(tmp_path) as server:
        site = Site(server.url)
        with leading(server.url, clusters={C: settings(node_ttl="0.3s")}) as orchestrator:
            site.client.set(wire.alive(C, "n1"), "{}", px=300)
            site.deliver("n1", joined(1))
            wait_until(lambda: site.applied() == ["s:1"], "it joined")
            server.kill()
            wait_until(lambda: orchestrator.views()[C].inbox_lag_s is None, "the outage is noticed")
            assert orchestrator.states()["clusters"][C]["nodes"]["n1"]["present"]
            server.start()
            site.deliver("n1", start_called(2))
            wait_until(lambda: site.jobs(), "it goes on")
            back_ms = redis_ms(site)
            wait_until(lambda: site.count("NodeLost"), "in the end the node is lost")
            [lost] = [entry for entry in site.log() if entry.type == "NodeLost"]
            assert lost.ms - back_ms > 2_000
        assert site.count("LeadTaken") == 1
        assert site.applied() == ["s:1", "s:2"]
        site.close()


def test_redis_that_lost_everything_begins_anew(site: Site) -> None:
    """After a flush the old state is dropped and a new history begins, with a higher epoch than the one that was lost."""
    with leading(site.url) as orchestrator:
        site.deliver("n1", envelope(1))
        wait_until(lambda: site.applied() == ["s:1"], "there is a history")
        site.client.flushall()
        wait_until(lambda: site.head()["epoch"] == 2, "a new history has begun")
        site.deliver("n1", envelope(1, stream="t"))
        wait_until(lambda: site.applied() == ["t:1"], "and goes on")
        wait_until(lambda: orchestrator.states()["clusters"].get(C) == site.folded().model_dump(mode="json"), "as folded")


def test_redis_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    """An orchestrator that starts before its Redis leads as soon as Redis is there."""
    server = EmbeddedRedis(tmp_path)
    with server:
        url = server.url
    (tmp_path / "socket").write_text(url.removeprefix("unix://"))
    with leading(url) as orchestrator:
        assert orchestrator.states()["leads"] == {}
        with server:
            wait_until(lambda: orchestrator.states()["leads"], "it leads")


# --- snapshots ------------------------------------------------------------------------------------------------------------------------


def loaded(site: Site) -> history.History:
    store = RedisStore(site.url)
    try:
        return history.load(store, C, Core(), metrics.Projection)
    finally:
        store.close()


def a_history_with_a_snapshot(site: Site) -> history.History:
    with leading(site.url, snapshot_every=10):
        site.deliver("n1", joined(1), *(envelope(seq) for seq in range(2, 40)))
        wait_until(lambda: site.client.get(wire.snapshot(C)), "a snapshot is written")
        site.deliver("n1", *(envelope(seq) for seq in range(40, 45)))
        wait_until(lambda: site.mark()["streams"] == {"s": 44}, "and the log goes on")
    return loaded(site)


def rewritten(site: Site, **changes: Any) -> None:
    saved = json.loads(site.client.get(wire.snapshot(C)))
    site.client.set(wire.snapshot(C), json.dumps(saved | changes))


def test_a_snapshot_is_the_same_as_the_whole_fold(site: Site) -> None:
    """State and metrics that go on from a snapshot are those of the whole log."""
    with_snapshot = a_history_with_a_snapshot(site)
    site.client.delete(wire.snapshot(C))
    whole = loaded(site)
    assert with_snapshot.folded < whole.folded == len(site.log())
    assert with_snapshot.state == whole.state == site.folded()
    assert with_snapshot.projection is not None and whole.projection is not None
    assert with_snapshot.projection.dump() == whole.projection.dump()


@pytest.mark.parametrize(
    "changes",
    [
        {"last_hash": "f" * 64},
        {"code": "0.0.0-other"},
        {"last_id": "1-1"},
        {"state": {"cluster": "c"}},
        {"projection": {"x": 1}},
        {"state": 7},
    ],
)
def test_a_snapshot_that_does_not_fit_is_not_used(site: Site, changes: dict[str, Any]) -> None:
    """Another hash, other code, another place, or nonsense: the whole log is folded instead."""
    a_history_with_a_snapshot(site)
    rewritten(site, **changes)
    found = loaded(site)
    assert found.folded == len(site.log())
    assert found.state == site.folded()


def test_a_snapshot_of_another_history_is_not_used(site: Site) -> None:
    """A snapshot that is sound in itself, of entries that the log does not hold, is not used."""
    a_history_with_a_snapshot(site)
    saved = json.loads(site.client.get(wire.snapshot(C)))
    other = "f" * 64
    rewritten(site, last_hash=other, state=saved["state"] | {"last_hash": other})
    found = loaded(site)
    assert found.folded == len(site.log())
    assert found.state == site.folded()


def test_a_successor_goes_on_from_the_snapshot(site: Site) -> None:
    """A new leader's state is the whole log's, although it folded only a part."""
    a_history_with_a_snapshot(site)
    with leading(site.url, "successor") as orchestrator:
        wait_until(lambda: orchestrator.states()["leads"], "it leads")
        assert orchestrator.states()["clusters"][C] == site.folded().model_dump(mode="json")
        assert site.head()["epoch"] == 2


# --- a damaged log --------------------------------------------------------------------------------------------------------------------


def change_an_entry(client: Any) -> None:
    found = client.xrange(wire.log(C))
    client.delete(wire.log(C))
    for number, (entry_id, fields) in enumerate(found):
        client.xadd(wire.log(C), fields | ({b"e": fields[b"e"].replace(b"r3", b"r4")} if number else {}), entry_id)


def lose_the_end(client: Any) -> None:
    client.xdel(wire.log(C), client.xrevrange(wire.log(C), count=1)[0][0])


def lose_one(client: Any) -> None:
    client.xdel(wire.log(C), client.xrange(wire.log(C))[1][0])


def add_one(client: Any) -> None:
    client.xadd(wire.log(C), {"e": "{}", "h": "0"})


@pytest.mark.parametrize("damage", [change_an_entry, lose_the_end, lose_one, add_one])
def test_a_damaged_log_is_not_led(site: Site, damage: Any) -> None:
    """Nobody decides upon a log that was tampered with; the other clusters are led all the same."""
    with leading(site.url):
        site.deliver("n1", *(envelope(seq) for seq in range(1, 6)))
        wait_until(lambda: site.mark()["streams"] == {"s": 5}, "there is a log")
    site.client.delete(wire.snapshot(C))
    damage(site.client)
    with leading(site.url, "successor", clusters={C: settings(), "other": settings()}) as orchestrator:
        wait_until(lambda: "other" in orchestrator.states()["leads"], "the sound one is led")
        assert C not in orchestrator.states()["leads"]
        assert site.head()["epoch"] == 1


def test_what_was_read_is_trimmed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The inboxes do not grow for ever."""
    monkeypatch.setattr(loop, "TRIM_S", 0.1)
    with leading(site.url):
        site.deliver("n1", *(envelope(seq) for seq in range(1, 1001)))
        wait_until(lambda: site.mark()["streams"] == {"s": 1000}, "all are applied")
        wait_until(lambda: site.client.xlen(wire.inbox(C, "n1")) < 500, "most are forgotten")


def test_the_loop_runs_on_the_store_in_memory() -> None:
    """The same loop leads on the fake: facts in, entries and jobs out."""
    store = MemoryStore()
    orchestrator = orchestrator_on(store)
    for raw in (joined(1), start_called(2)):
        store.server.xadd(wire.inbox(C, "n1"), {wire.FACT_FIELD: raw})
    turn_until(orchestrator, lambda: store.server.queues[wire.command_queue(C, "n1")])
    assert orchestrator.states()["clusters"][C]["sources"]["n1"] == {"s": 2}


def test_leaving_hands_over_at_once(site: Site) -> None:
    """An orchestrator that stops leaves neither lease nor name behind."""
    with leading(site.url) as orchestrator:
        wait_until(lambda: site.owner() == "me", "it leads")
        assert isinstance(orchestrator.lease, Lease)
    assert site.owner() is None
    assert site.client.get(wire.lease("me")) is None
    with redis.Redis.from_url(site.url) as client:
        assert client.get(wire.snapshot(C)) is not None
