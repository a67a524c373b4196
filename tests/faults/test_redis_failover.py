"""Redis fails over: real Sentinels promote a replica that lacks the master's last writes, under orchestrators and a node's forwarder that
know nothing but the Sentinels."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from orchestrator.embedded import EmbeddedRedis
from orchestrator.redis_store import RedisStore
from statemachines import wire
from statemachines.configuration import RedisSettings
from tests.conftest import wait_until
from tests.faults.central import Outbox, lead_by, nobody_lost
from tests.orchestrator.engine import C, Site, orchestrator_on, running, settings
from tests.security.servers import Server, serving
from workers.redisclient import client_of

SENTINEL = """\
sentinel monitor m 127.0.0.1 {port} 1
sentinel down-after-milliseconds m 1000
sentinel failover-timeout m 10000
"""


class Pair(Site):
    """A master, its replica and a Sentinel; `Site` is whichever is the master."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.master = stack.enter_context(serving(folder / "master", "repl-diskless-sync-delay 0\n"))
        replica = f"repl-diskless-sync-delay 0\nreplicaof 127.0.0.1 {self.master.port}\n"
        self.replica = stack.enter_context(serving(folder / "replica", replica))
        self.client: Any = self.master.client()
        self.other: Any = self.replica.client()
        wait_until(lambda: self.other.info("replication")["master_link_status"] == "up", "the replica follows")
        self.sentinel = stack.enter_context(serving(folder / "sentinel", SENTINEL.format(port=self.master.port), sentinel=True))
        self.asked: Any = self.sentinel.client(decode_responses=True)
        wait_until(lambda: any(one["flags"] == "slave" for one in self.asked.sentinel_slaves("m")), "the Sentinel knows the replica")
        self.settings = RedisSettings(sentinels=[f"127.0.0.1:{self.sentinel.port}"], sentinel_master="m")

    def store(self) -> RedisStore:
        return RedisStore(partial(client_of, self.settings), timeout_s=2.0)

    def cut_off_the_replica(self) -> None:
        """From now on nothing reaches it, and nothing is on its way."""
        _signal(self.replica, signal.SIGSTOP)
        self.client.client_kill_filter(_type="replica")

    def fail_over(self) -> None:
        """The master dies, and the Sentinel promotes the replica."""
        self.master.kill()
        _signal(self.replica, signal.SIGCONT)
        self.client.close()
        self.client = self.other
        wait_until(lambda: _role(self.client) == "master", "the replica is promoted", 60)


def _signal(server: Server, number: int) -> None:
    assert server.process is not None
    os.kill(server.process.pid, number)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with ExitStack() as stack:
        found = Pair(tmp_path, stack)
        stack.callback(found.other.close)
        stack.callback(found.asked.close)
        yield found


def start_called(node: Outbox, ticket: str) -> None:
    node.report("StartHookCalled", {"ticket": ticket, "event": "START", "commands": [{"n": 1, "service": "srv", "verb": "recover"}]})


def test_a_replica_that_lacks_the_last_writes_is_promoted(pair: Pair, tmp_path: Path) -> None:
    """The log lost its tail, and says so; what the outboxes still have is in it once; no epoch is issued again although the lead was taken
    in the lost tail, no job id for another command, and the terms go on from what is known."""
    clusters = {C: settings(node_ttl="60s")}
    a, b = pair.store(), pair.store()
    with ExitStack() as stack:
        client = stack.enter_context(client_of(pair.settings))
        node = stack.enter_context(Outbox(tmp_path / "node", client))
        first = stack.enter_context(running(orchestrator_on(a, "a", clusters=clusters)))
        lead_by(pair, "a")
        with running(orchestrator_on(b, "b", clusters=clusters)):
            lead_by(pair, "a", "b")
            node.report("NodeJoined", {"boot": "b1", "version": "1"})
            node.write(20)
            start_called(node, "b1-g-1-start")
            node.write()
            node.all_in_log(pair)
            wait_until(lambda: len(pair.other.xrange(wire.log(C))) == len(pair.log()), "the replica has it all")
            kept = len(pair.log())
            pair.cut_off_the_replica()
            first.stop()
            lead_by(pair, "b")
            node.write(10)
            start_called(node, "b1-g-2-start")
            node.write(10)
            node.all_in_log(pair)
            wait_until(lambda: node.seen_head and node.seen_head["commit"] == pair.head()["commit"], "the node saw the head")
            lost, lost_jobs = pair.log()[kept:], set(pair.jobs())
            epoch = pair.head()["epoch"]
            node.write(3)
            pair.fail_over()
            node.write(10)
            node.all_in_log(pair)
            wait_until(lambda: pair.count("LogTailLost"), "the loss is told")
            lead_by(pair, "b")
            told = pair.log()
            assert pair.head()["epoch"] > epoch, "an epoch was issued twice"
    for store in (a, b):
        store.close()
    before, after = told[:kept], told[kept:]
    assert {entry.id for entry in lost} & {entry.id for entry in told} == set()
    commands = {e.data["job_id"]: (e.data["ticket"], e.data["n"]) for e in [*before, *lost] if e.type == "CommandIssued"}
    again = [e for e in after if e.type == "CommandIssued"]
    assert all(commands.get(e.data["job_id"], (e.data["ticket"], e.data["n"])) == (e.data["ticket"], e.data["n"]) for e in again)
    assert lost_jobs >= commands.keys()
    called = [e.data["ticket"] for e in told if e.type == "StartHookCalled"]
    counted = sum(e.data["count"] for e in told if e.type == "FactsLost")
    assert called == ["b1-g-1-start", "b1-g-2-start"] or (called == ["b1-g-1-start"] and counted)
    assert pair.folded().last_id == told[-1].id
    assert pair.count("LogTailLost") == 1
    nobody_lost(pair)


def test_a_failover_of_redis_that_loses_nothing_is_an_outage_like_others(pair: Pair, tmp_path: Path) -> None:
    """The replica has everything: the lead stays in its epoch, no tail is called lost, every fact is in the log once. The old master comes
    back, and is not asked any more."""
    clusters = {C: settings(node_ttl="60s")}
    store = pair.store()
    with client_of(pair.settings) as client, Outbox(tmp_path / "node", client) as node, running(orchestrator_on(store, clusters=clusters)):
        lead_by(pair, "me")
        node.write(20)
        node.all_in_log(pair)
        wait_until(lambda: pair.other.get(wire.head(C)) == pair.client.get(wire.head(C)), "the replica has it all")
        pair.fail_over()
        node.write(20)
        node.all_in_log(pair)
        pair.master.start()
        node.write(5)
        node.all_in_log(pair)
    store.close()
    assert (pair.count("LeadTaken"), pair.count("LogTailLost"), pair.count("FactsLost")) == (1, 0, 0)
    nobody_lost(pair)


def _role(client: Any) -> str:
    try:
        return str(client.info("replication")["role"])
    except redis.RedisError:
        return ""


SEEN = {"epoch": 1, "commit": 10, "last_id": "10-0", "last_hash": "aa"}


@pytest.mark.parametrize(
    ("found", "lost"),
    [
        ({"epoch": 1, "commit": 11, "last_hash": "bb"}, False),
        ({"epoch": 1, "commit": 9, "last_hash": "bb"}, True),
        ({"epoch": 1, "commit": 10, "last_hash": "bb"}, True),
        ({"epoch": 2, "commit": 20, "last_hash": "bb", "upon": {"commit": 10, "last_hash": "aa"}}, False),
        ({"epoch": 2, "commit": 20, "last_hash": "bb", "upon": {"commit": 15, "last_hash": "cc"}}, False),
        ({"epoch": 2, "commit": 20, "last_hash": "bb", "upon": {"commit": 10, "last_hash": "cc"}}, True),
        ({"epoch": 2, "commit": 20, "last_hash": "bb", "upon": {"commit": 9, "last_hash": "cc"}}, True),
        ({"epoch": 2, "commit": 20, "last_hash": "bb", "upon": {"commit": 0, "last_hash": ""}}, True),
        ({"epoch": 2, "commit": 20, "last_hash": "bb"}, False),
        ({"epoch": 2, "commit": 9, "last_hash": "bb", "upon": "rubbish"}, True),
        ({"epoch": 3, "commit": 2, "last_hash": "bb", "upon": {"commit": 1, "last_hash": "cc"}}, True),
    ],
)
def test_a_lost_tail_is_seen_also_when_the_log_has_grown_beyond_it(
    redis_server: EmbeddedRedis, tmp_path: Path, found: dict[str, Any], lost: bool
) -> None:
    """Only a new leader can have written on a log that lost its tail, and its marks say upon which head its epoch began."""
    with client_of(RedisSettings(url=redis_server.url)) as client, redis.Redis.from_url(redis_server.url) as admin:
        admin.set(wire.mark(C, "n1"), json.dumps({"streams": {}, "head": SEEN}))
        with Outbox(tmp_path, client) as node:
            wait_until(lambda: node.seen_head == SEEN, "it saw the head")
            now = {"last_id": "20-0", **found}
            admin.set(wire.mark(C, "n1"), json.dumps({"streams": {}, "head": now}))
            wait_until(lambda: node.seen_head == now, "it saw the other")
            node.report("NodeLeft", {"reason": ""})
            told: list[str] = []

            def look() -> bool:
                nonlocal told
                told = [json.loads(fields[b"f"])["type"] for _, fields in admin.xrange(wire.inbox(C, "n1"))]
                return "NodeLeft" in told

            wait_until(look, "all are handed in")
            assert ("LogTailLost" in told) == lost
