"""Orchestrators that share many clusters: killed, paused at every place where they write, stopped, fed with what makes them raise."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator import loop
from orchestrator.embedded import EmbeddedRedis
from orchestrator.lease import Lease
from orchestrator.loop import Orchestrator
from statemachines import wire
from tests.conftest import wait_until
from tests.faults.central import Held, Processes, contents, durable, lead_by, nobody_lost, owner, sound, there
from tests.orchestrator.engine import C, Site, envelope, joined, orchestrator_on, running, settings, start_called

KILLS = int(os.environ.get("DCSUP_KILLS", "3"))
"""How often a leader is killed; more of them give a better distribution."""

LEASE_S = 1.5
MARGIN_S = 10.0
"""What a machine under load may add to what the protocol itself takes."""


@pytest.fixture
def site(redis_server: EmbeddedRedis) -> Iterator[Site]:
    found = Site(redis_server.url)
    yield found
    found.close()


# --- killed ---------------------------------------------------------------------------------------------------------------------------


def test_the_clusters_of_a_killed_orchestrator_are_led_again(
    site: Site, tmp_path: Path, redis_server: EmbeddedRedis, record_property: Callable[[str, object], None]
) -> None:
    """Three orchestrators share 20 clusters; one after the other is killed, and all clusters are led again after the lease's time plus one
    look of a standby. Nothing is lost, no epoch is issued twice."""
    clusters = [f"k{number}" for number in range(20)]
    processes = Processes(tmp_path, f'url = "{redis_server.url}"', clusters)
    took_s: list[float] = []
    try:
        for number in range(3):
            processes.start(f"o{number}")
        alive = {f"o{number}" for number in range(3)}
        lead_by(site, *alive, clusters=clusters)
        for kill in range(KILLS):
            victim = owner(site, clusters[0])
            assert victim is not None
            there(site, *(alive - {victim}))
            processes.started[victim].kill()
            killed_at = time.monotonic()
            alive.remove(victim)
            for cluster in clusters:
                site.deliver("n1", envelope(kill + 1), cluster=cluster)
            lead_by(site, *alive, clusters=clusters)
            took_s.append(time.monotonic() - killed_at)
            wait_until(lambda k=kill: all(site.types(c).count("ProbeFailed") == k + 1 for c in clusters), "facts go on")  # type: ignore[misc]
            if kill + 2 < KILLS:
                alive.add(f"r{kill}")
                processes.start(f"r{kill}")
    finally:
        processes.end()
    in_words = f"median {statistics.median(took_s):.2f}, all {sorted(round(one, 2) for one in took_s)}"
    record_property("take-over of 20 clusters after kill -9, s", in_words)
    assert max(took_s) < LEASE_S + loop.STANDBY_S + MARGIN_S
    for cluster in clusters:
        sound(site, KILLS, cluster=cluster)


# --- paused ---------------------------------------------------------------------------------------------------------------------------

ASKED = {"by": "op", "why": ""}


def busy(site: Site, *, pause: bool) -> None:
    """Give a leader something to write of every kind: commits, a job, a snapshot, a trim, and maintenance or (there the clocks stand) a
    deadline."""
    site.client.set(wire.alive(C, "n1"), "{}")
    site.client.set(wire.watch_alive(C, "n1"), "{}")
    site.deliver("n1", joined(1), start_called(2), *(envelope(seq) for seq in range(3, 20)))
    if pause:
        site.deliver(wire.OPERATOR_INBOX, envelope(1, "PauseRequested", ASKED))


def patient(store: Held, identity: str, lease_s: float) -> Orchestrator:
    made = orchestrator_on(store, identity, clusters={C: settings(probation="0.1s")}, snapshot_every=10)
    made.lease = Lease(identity, lease_s, "{}")
    made._taker = type(made._taker)(store, made.lease, made._core, made._taker.make_projection)
    return made


PLACES = [
    ("commit", "before"), ("commit", "after"), ("append_leader_facts", "before"), ("append_leader_facts", "after"),
    ("put_maintenance", "before"), ("put_snapshot", "before"), ("trim_inboxes", "before"), ("renew_lease", "before"), ("leaders", "after"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "when"), PLACES)
def test_a_leader_that_slept_writes_nothing(site: Site, monkeypatch: pytest.MonkeyPatch, call: str, when: str) -> None:
    """Wherever it stood still, between step and commit, between commit and adopt, before each of its other writes: when it goes on under
    another leader, no key changes but its own lease: not log, head, queues, marks, inboxes, maintenance, snapshot, owner."""
    monkeypatch.setattr(loop, "TRIM_S", 0.05)
    monkeypatch.setattr(loop, "RECONNECT_S", 0.0)
    monkeypatch.setattr(loop, "MAINTENANCE_S", 0.05)
    first, second = Held(site.url), Held(site.url)
    with running(patient(first, "first", 0.5)):
        lead_by(site, "first")
        first.hold(call, when)
        busy(site, pause=call != "append_leader_facts")
        wait_until(first.held.is_set, f"the first stands still {when} {call}")
        with running(patient(second, "second", 120)):
            lead_by(site, "second")
            site.deliver("n1", envelope(20))
            durable(site, 20)
            wait_until(lambda: site.client.exists(wire.maintenance(C)) or site.count("DeadlinePassed"), "it has seen to everything")
            second.hold("wait_for_facts")
            wait_until(second.held.is_set, "the second stands still, with a lease that lasts")
            before = contents(site.client, [wire.lease("first")])
            site.client.delete(wire.lease("first"))
            first.go_on()
            for _ in range(4):
                wait_until(lambda: site.client.get(wire.lease("first")), "the first has gone round")
                site.client.delete(wire.lease("first"))
            assert contents(site.client, [wire.lease("first")]) == before
            assert len(site.jobs()) == 1
            assert [e.data["owner"] for e in site.log() if e.type == "LeadTaken"] == ["first", "second"]
            second.go_on()
    sound(site, 20)


def test_a_candidate_that_slept_before_its_take_over_leads_nobody(site: Site) -> None:
    """It folded the log, slept, and another took the lead meanwhile: its take-over is refused whole."""
    first = Held(site.url)
    first.hold("commit")
    with running(patient(first, "first", 0.5)):
        wait_until(first.held.is_set, "the first is about to take the lead")
        with running(patient(second := Held(site.url), "second", 120)):
            lead_by(site, "second")
            site.deliver("n1", envelope(1))
            durable(site, 1)
            second.hold("wait_for_facts")
            wait_until(second.held.is_set, "the second stands still")
            before = contents(site.client, [wire.lease("first")])
            site.client.delete(wire.lease("first"))
            first.go_on()
            wait_until(lambda: site.client.get(wire.lease("first")), "the first has gone round")
            assert contents(site.client, [wire.lease("first")]) == before
            assert [e.data["owner"] for e in site.log() if e.type == "LeadTaken"] == ["second"]
            second.go_on()


def test_a_leader_that_slept_while_it_was_leaving_takes_nothing_with_it(site: Site) -> None:
    """Told to stop, it slept before it released the lead: the next leader's name and lease stay, and so does its snapshot."""
    first, second = Held(site.url), Held(site.url)
    with running(patient(first, "first", 0.5)) as leaving:
        lead_by(site, "first")
        first.hold("release")
        leaving.stop()
        wait_until(first.held.is_set, "the first is about to release")
        with running(patient(second, "second", 120)):
            lead_by(site, "second")
            site.deliver("n1", envelope(1))
            durable(site, 1)
            second.hold("wait_for_facts")
            wait_until(second.held.is_set, "the second stands still")
            before = contents(site.client, [wire.lease("first")])
            first.go_on()
            wait_until(lambda: not leaving.states()["leads"], "the first has left")
            assert contents(site.client, [wire.lease("first")]) == before
            second.go_on()
    sound(site, 1)


def test_processes_that_are_paused_at_random_moments(site: Site, tmp_path: Path, redis_server: EmbeddedRedis) -> None:
    """SIGSTOP under load, again and again, for longer than a lease lasts; each wakes under another leader, and the log stays one chain with
    every fact once."""
    processes = Processes(tmp_path, f'url = "{redis_server.url}"')
    dice, seq = random.Random(4), 0

    def feed(count: int) -> None:
        nonlocal seq
        for _ in range(count):
            seq += 1
            site.deliver("n1", envelope(seq))

    try:
        for identity in ("a", "b"):
            processes.start(identity, lease_ttl="'1s'")
        there(site, "a", "b")
        lead_by(site, "a", "b")
        for _ in range(3):
            victim = owner(site)
            assert victim is not None
            feed(dice.randrange(200))
            processes.started[victim].send_signal(signal.SIGSTOP)
            feed(20)
            wait_until(lambda v=victim: owner(site) not in (None, v), "the other leads", 60)  # type: ignore[misc]
            processes.started[victim].send_signal(signal.SIGCONT)
            feed(20)
            there(site, victim)
        durable(site, seq)
    finally:
        processes.end()
    sound(site, seq)


# --- stopped, and fed with what makes it raise ----------------------------------------------------------------------------------------


def test_a_graceful_stop_hands_over_at_once(site: Site, tmp_path: Path, redis_server: EmbeddedRedis) -> None:
    """The leader's lease would last for minutes, and the standby leads all the same: it was given up with SIGTERM."""
    processes = Processes(tmp_path, f'url = "{redis_server.url}"')
    try:
        first = processes.start("first", lease_ttl="'10m'")
        lead_by(site, "first")
        processes.start("second")
        there(site, "second")
        site.deliver("n1", envelope(1))
        durable(site, 1)
        first.send_signal(signal.SIGTERM)
        lead_by(site, "second")
        assert first.wait(30) == 0
        site.deliver("n1", envelope(2))
        durable(site, 2)
        assert "Traceback" not in processes.said("first")
    finally:
        processes.end()
    sound(site, 2)


def test_a_fact_on_which_the_core_raises_kills_no_leader(site: Site, tmp_path: Path, redis_server: EmbeddedRedis) -> None:
    """A real process with a mistake in its core: the fact is in quarantine with its reason, the process leads on in the same epoch."""
    processes = Processes(tmp_path, f'url = "{redis_server.url}"', module="tests.faults.buggy_leader")
    try:
        process = processes.start("me")
        boom = {"service": "srv", "reason": "boom"}
        site.deliver("n1", joined(1), envelope(2, data=boom), envelope(3), envelope(4, data=boom), start_called(5))
        durable(site, 5)
        assert process.is_running()
        reasons = [fields[b"reason"] for _, fields in site.client.xrange(wire.quarantine(C))]
        assert reasons == [b"step raised RuntimeError: a bug"] * 2
        assert (site.count("FactQuarantined"), site.count("LeadTaken"), len(site.jobs())) == (2, 1, 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        processes.end()
    nobody_lost(site)
