"""Answers that never came: each of the orchestrator's writes with its connection cut before it arrived, or after it was done. What was sent
is settled by looking, and nothing is done twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator import loop
from orchestrator.embedded import EmbeddedRedis
from orchestrator.redis_store import RedisStore
from statemachines import wire
from tests.conftest import wait_until
from tests.faults.central import Held, durable, sound
from tests.orchestrator.engine import C, Site, envelope, joined, orchestrator_on, running, settings, start_called
from tests.orchestrator.proxy import Door

WRITES = {
    "take-over": b"LeadTaken",
    "commit": b"CommandIssued",
    "deadline": b"DeadlinePassed",
    "maintenance": b'"reason": "paused"',
    "snapshot": b'"last_hash":"',
    "trim": b"XTRIM",
    "lease": b"dcsup:lease:me",
    "release": b"for i = 2, #KEYS do",
}
"""Write -> what is in its request and in no other before it."""


@pytest.fixture
def site(redis_server: EmbeddedRedis) -> Iterator[Site]:
    found = Site(redis_server.url)
    yield found
    found.close()


@pytest.mark.parametrize("cut", ["request", "answer"])
@pytest.mark.parametrize("write", WRITES)
def test_no_write_is_repeated_and_none_is_forgotten(site: Site, monkeypatch: pytest.MonkeyPatch, write: str, cut: str) -> None:
    """The lead is taken once, each fact is applied once, one job is queued, the deadline is judged once, the nodes are told."""
    monkeypatch.setattr(loop, "RECONNECT_S", 0.0)
    monkeypatch.setattr(loop, "TRIM_S", 0.05)
    for node in ("n1", "n2"):
        site.client.set(wire.alive(C, node), "{}")
        site.client.set(wire.watch_alive(C, node), "{}")
    with Door(site.url) as door:
        store = RedisStore(door.url, timeout_s=20.0)
        if write == "take-over":
            (door.cut_answer if cut == "answer" else door.cut_request)(WRITES[write])
        with running(orchestrator_on(store, clusters={C: settings(probation="0.1s")}, snapshot_every=10)):
            wait_until(lambda: site.owner() == "me", "it leads")
            if write != "take-over":
                (door.cut_answer if cut == "answer" else door.cut_request)(WRITES[write])
            site.deliver("n1", joined(1), start_called(2), *(envelope(seq) for seq in range(3, 30)))
            durable(site, 29)
            wait_until(lambda: site.count("DeadlinePassed"), "the deadline is judged")
            wait_until(lambda: site.client.exists(wire.snapshot(C)), "a snapshot is written")
            site.deliver(wire.OPERATOR_INBOX, envelope(1, "PauseRequested", {"by": "op", "why": ""}))
            wait_until(lambda: site.client.exists(wire.maintenance(C)), "the nodes are told")
            site.deliver("n1", envelope(30))
            durable(site, 30)
            if write != "release":
                wait_until(lambda: door.cuts, "the connection was cut")
        store.close()
        assert door.cuts == 1
    sound(site, 30)
    assert (site.count("LeadTaken"), site.count("DeadlinePassed"), site.count("ClusterPaused"), len(site.jobs())) == (1, 1, 1, 1)
    released = site.owner() is None and site.client.get(wire.lease("me")) is None
    assert released or (write, cut) == ("release", "request")


def test_an_append_that_comes_late_takes_no_other_ones_place(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The leader's own facts are numbered; one that was thought lost and arrives after all takes the number of the next. That one is told
    again: else its deadline would never pass."""
    monkeypatch.setattr(loop, "RECONNECT_S", 0.0)
    for node in ("n1", "n2"):
        site.client.set(wire.alive(C, node), "{}")
        site.client.set(wire.watch_alive(C, node), "{}")
    held = Held(site.url)
    with running(orchestrator_on(held, clusters={C: settings(probation="0.1s")})) as orchestrator:
        wait_until(lambda: orchestrator.states()["leads"], "it leads")
        held.hold("append_leader_facts")
        site.deliver("n1", joined(1))
        wait_until(held.held.is_set, "the deadline is about to be told")
        number = orchestrator.states()["clusters"][C]["sources"][wire.LEADER_INBOX]["me"] + 1
        late = envelope(number, "EndpointChanged", {"endpoint": "none", "up": True, "reason": ""}, stream="me").replace(
            '"worker"', '"leader"'
        )
        site.deliver(wire.LEADER_INBOX, late)
        held.go_on()
        wait_until(lambda: site.count("DeadlinePassed"), "the deadline is judged all the same")
    assert site.count("EndpointChanged") == 1
    assert site.folded().deadlines == {}
