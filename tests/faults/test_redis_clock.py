"""The clock of the machine that Redis runs on is set by hours, and servers that stand still for a moment: leases and signs of life end by
that clock, the log's ids come from it, and deadlines are written down with it. In virtual time, on the store in memory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orchestrator.clock import RedisClock
from orchestrator.loop import Orchestrator
from orchestrator.memory_store import MemoryRedis, MemoryStore
from orchestrator.observing import RECONNECT_S
from orchestrator.ports import SignsOfLife
from statemachines import wire
from statemachines.entries import id_key
from tests.orchestrator.engine import C, envelope, joined, orchestrator_on, settings

HOURS_MS = 5 * 3_600_000
TTL_S = 5.0


class World:
    """A Redis, orchestrators and one node whose worker renews its signs of life and offers again what its mark has not passed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = MemoryRedis()
        self.mono_s = 1000.0
        self.worker_lives = True
        self.written: list[str] = []
        self.orchestrators: list[Orchestrator] = []
        self._next_sign_s = self._next_offer_s = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.mono_s)
        monkeypatch.setattr(time, "sleep", self._sleep)

    def orchestrator(self, identity: str, store: MemoryStore | None = None) -> Orchestrator:
        made = orchestrator_on(store or MemoryStore(self.server), identity, clusters={C: settings(probation="60s", node_ttl=f"{TTL_S}s")})
        self.orchestrators.append(made)
        return made

    def write(self, raw: Callable[..., str], **more: Any) -> int:
        """A fact of the node's; returns its number."""
        self.written.append(raw(len(self.written) + 1, **more))
        self._next_offer_s = 0.0
        return len(self.written)

    def step_clock(self, by_ms: int) -> None:
        self.server.clock_ms += by_ms

    def _sleep(self, seconds: float) -> None:
        """Of an orchestrator that waits for Redis."""
        self.mono_s += seconds
        self.server.clock_ms += round(1000 * seconds)

    def pass_time(self, seconds: float) -> None:
        """Everybody does what is due, 50 ms by 50 ms."""
        for _ in range(round(seconds / 0.05)):
            self.mono_s += 0.05
            self.server.clock_ms += 50
            self._worker()
            for one in self.orchestrators:
                one.turn()

    def until(self, condition: Callable[[], Any], limit_s: float) -> None:
        end_s = self.mono_s + limit_s
        while not condition():
            assert self.mono_s < end_s, f"in vain after {limit_s} s"
            self.pass_time(0.05)

    def _worker(self) -> None:
        if not self.worker_lives or not self.server.up:
            self._next_offer_s = self._next_sign_s = self.mono_s + 2.0  # its back-off
            return
        if self.mono_s >= self._next_sign_s:
            self._next_sign_s = self.mono_s + TTL_S / 4
            for key in (wire.alive(C, "n1"), wire.watch_alive(C, "n1")):
                self.server.set(key, f'{{"at":{self.mono_s}}}', TTL_S)
        if self.mono_s >= self._next_offer_s:
            self._next_offer_s = self.mono_s + 3.0
            for raw in self.written[self.durable :]:
                self.server.xadd(wire.inbox(C, "n1"), {wire.FACT_FIELD: raw})

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = next(s for one in self.orchestrators for s in one.states()["clusters"].values())
        return found

    @property
    def leader(self) -> str | None:
        return next((one.lease.identity for one in self.orchestrators if one.states()["leads"]), None)

    @property
    def durable(self) -> int:
        states = [state for one in self.orchestrators for state in one.states()["clusters"].values()]
        return int(states[0]["sources"].get("n1", {}).get("s", 0)) if states else 0

    def types(self) -> list[str]:
        return [json.loads(fields[wire.ENTRY_FIELD])["type"] for _, fields in self.server.streams[wire.log(C)]]

    def check(self) -> None:
        ids = [id_key(entry_id) for entry_id, _ in self.server.streams[wire.log(C)]]
        assert ids == sorted(set(ids))
        assert not {"NodeLost", "WatchLost"} & set(self.types())


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield World(monkeypatch)


def led_world(world: World, standbys: int = 1) -> None:
    """A leader, standbys, a node that joined 5 s ago and is on probation for a minute."""
    for number in range(standbys + 1):
        world.orchestrator(f"o{number}")
        world.pass_time(1.0)
    world.write(joined)
    world.pass_time(TTL_S + RECONNECT_S + 1)
    assert world.durable == 1 and "node:n1" in world.state["deadlines"]


@pytest.mark.parametrize("by_ms", [HOURS_MS, -HOURS_MS, 60_000, -60_000, 3_000, -3_000])
@pytest.mark.parametrize("standbys", [0, 1])
def test_a_clock_that_is_set_loses_nobody_and_nothing(world: World, by_ms: int, standbys: int) -> None:
    """No node is called lost, no lease called over, no deadline passes at once, none waits for hours, every fact is applied once, ids only
    grow."""
    led_world(world, standbys)
    began_s, leader = world.mono_s, world.leader
    world.step_clock(by_ms)
    world.write(envelope)
    world.until(lambda: world.durable == 2, 10)
    assert "DeadlinePassed" not in world.types(), "a deadline passed because the clock was set"
    assert world.leader == leader
    world.until(lambda: "DeadlinePassed" in world.types(), 61)
    assert world.mono_s - began_s > 40
    assert "node:n1" not in world.state["deadlines"]
    assert world.types().count("LeadTaken") == 1
    for _ in range(3):
        world.write(envelope)
        world.pass_time(1.0)
    world.until(lambda: world.durable == 5, 10)
    world.check()
    assert [t for t in world.types() if t == "ProbeFailed"] == ["ProbeFailed"] * 4


@pytest.mark.parametrize("by_ms", [HOURS_MS, -HOURS_MS])
def test_a_node_that_dies_after_the_clock_was_set_is_noticed(world: World, by_ms: int) -> None:
    """What was done so that nobody is called lost does not blind for good."""
    led_world(world, 0)
    world.step_clock(by_ms)
    world.pass_time(2 * TTL_S)
    world.worker_lives = False
    world.until(lambda: "NodeLost" in world.types(), 2 * TTL_S + RECONNECT_S + 1)


@pytest.mark.parametrize("by_ms", [HOURS_MS, -HOURS_MS])
def test_a_successor_leads_after_the_clock_was_set(world: World, by_ms: int) -> None:
    """The leader dies soon after: the standby leads, goes on from the log, and its ids lie behind those that stand."""
    led_world(world)
    world.step_clock(by_ms)
    world.pass_time(3.0)
    [dead] = [one for one in world.orchestrators if one.states()["leads"]]
    world.orchestrators.remove(dead)
    world.until(lambda: world.leader is not None, 5)
    world.write(envelope)
    world.until(lambda: world.durable == 2, 10)
    world.until(lambda: "DeadlinePassed" in world.types(), 61)
    world.check()


def test_a_server_that_stands_still_while_signs_of_life_are_read(world: World) -> None:
    """It was asked for them, stood still until they had run out, and then answered: nobody is lost, for nobody could have renewed them."""

    class Stalling(MemoryStore):
        stall_s = 0.0

        def signs_of_life(self, nodes: Any) -> dict[tuple[str, str], SignsOfLife]:
            self.server.clock_ms += round(1000 * self.stall_s)
            world.mono_s += self.stall_s
            self.stall_s = 0.0
            return super().signs_of_life(nodes)

    store = Stalling(world.server)
    world.orchestrator("o0", store)
    world.write(joined)
    world.pass_time(TTL_S + RECONNECT_S + 1)
    for stall_s in (4.9, 5.5, 60.0):
        store.stall_s = stall_s
        world.pass_time(TTL_S + RECONNECT_S + 1)
    world.check()
    assert world.state["nodes"]["n1"]["present"] and world.types().count("LeadTaken") == 1


@pytest.mark.parametrize("minutes", [0.1, 1, 90])
def test_after_an_outage_of_minutes_everybody_has_time_to_show(world: World, minutes: float) -> None:
    """Every sign of life has run out and a deadline has come while Redis was away. No node is called lost, and what it has to say of that
    time is judged before the deadline is."""
    led_world(world, 0)
    world.pass_time(60 * (1 - minutes) - 12 if minutes < 1 else 40)
    assert "DeadlinePassed" not in world.types()
    world.server.up = False
    world.write(envelope)
    world.until(lambda: world.mono_s > 1000 + 65 + 60 * minutes, 100 * 60)
    world.server.up = True
    world.until(lambda: "DeadlinePassed" in world.types(), 10)
    assert world.types().index("ProbeFailed") < world.types().index("DeadlinePassed")
    world.pass_time(2 * TTL_S + RECONNECT_S)
    world.check()
    assert world.types().count("LeadTaken") == 1


def test_an_answer_that_came_late_says_nothing_of_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """We were stopped, or Redis was, between question and answer: no clock was set. The next quick answer tells."""
    mono_s = 10.0
    monkeypatch.setattr(time, "monotonic", lambda: mono_s)
    clock = RedisClock()
    assert clock.sync(1_000_000, 10.0) == 0
    for given_ms, late_s in ((1_000_010, 5.0), (1_010_000, 5.0)):
        mono_s += late_s
        assert clock.sync(given_ms, mono_s - late_s) == 0
        assert clock.now_ms() == 1_000_000 + round(1000 * (mono_s - 10.0))
    mono_s += 0.5
    assert clock.sync(1_010_500, mono_s) == 0
    mono_s += 0.5
    assert clock.sync(1_020_000, mono_s) == pytest.approx(8.0)
    mono_s += 0.5
    assert clock.sync(1_010_500, mono_s) == pytest.approx(-9.0)


def test_a_dead_node_that_joined_before_the_clock_was_set_back_is_noticed(world: World) -> None:
    """Its arrival lies in the future now; a leader that never saw its sign of life waits no hours for it."""
    world.orchestrator("o0")
    world.pass_time(TTL_S + RECONNECT_S + 1)
    world.write(joined)
    world.pass_time(1.0)
    world.step_clock(-HOURS_MS)
    world.worker_lives = False
    for key in (wire.alive(C, "n1"), wire.watch_alive(C, "n1")):
        world.server.delete(key)
    world.orchestrators.clear()
    world.server.delete(wire.lease("o0"))
    world.orchestrator("o1")
    world.until(lambda: "NodeLost" in world.types(), 2 * (TTL_S + RECONNECT_S))
