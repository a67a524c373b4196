"""What the nodes are told of maintenance: a key that says what the state says, whatever happens to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator import loop
from orchestrator.embedded import EmbeddedRedis
from orchestrator.memory_store import MemoryStore
from orchestrator.observing import maintenance_text
from statemachines import wire
from statemachines.states import new_state
from tests.conftest import wait_until
from tests.orchestrator.engine import C, Site, envelope, leading, orchestrator_on, turn_until
from tests.orchestrator.proxy import Door


@pytest.fixture
def site(redis_server: EmbeddedRedis) -> Iterator[Site]:
    found = Site(redis_server.url)
    yield found
    found.close()


def told(site: Site) -> dict[str, Any] | None:
    text = site.client.get(wire.maintenance(C))
    return json.loads(text) if text else None


def asked(kind: str, stream: str) -> str:
    return envelope(1, kind, {"by": "田中", "why": "w"}, stream=stream)


def test_the_text_says_what_the_state_says() -> None:
    """Nothing without maintenance; a pause with who and since when; a suspended cluster."""
    state = new_state(C)
    assert maintenance_text(state) is None
    state.suspended, state.suspended_since_ms = True, 3
    assert json.loads(maintenance_text(state) or "") == {"reason": "suspended", "since_ms": 3, "by": "cluster"}
    state.paused_since_ms, state.paused_by = 5, "田中"
    assert json.loads(maintenance_text(state) or "") == {"reason": "paused", "since_ms": 5, "by": "田中"}


def test_a_pause_reaches_the_nodes_and_ends(site: Site) -> None:
    """Set after the commit that began it, deleted after the one that ended it."""
    with leading(site.url):
        site.deliver(wire.OPERATOR_INBOX, asked("PauseRequested", "a"))
        found = wait_until(lambda: told(site), "the pause is told")
        assert found == {"reason": "paused", "since_ms": site.folded().paused_since_ms, "by": "田中"}
        site.deliver(wire.OPERATOR_INBOX, asked("ResumeRequested", "b"))
        wait_until(lambda: told(site) is None, "its end is told")


def test_the_next_leader_puts_it_right(site: Site) -> None:
    """What stands there when the lead is taken is compared with the state: what is missing is set, what is over is deleted."""
    with leading(site.url):
        site.deliver(wire.OPERATOR_INBOX, asked("PauseRequested", "a"))
        wait_until(lambda: told(site), "the pause is told")
    site.client.delete(wire.maintenance(C))
    with leading(site.url, "next"):
        wait_until(lambda: told(site), "it is told again")
        site.deliver(wire.OPERATOR_INBOX, asked("ResumeRequested", "b"))
        wait_until(lambda: told(site) is None, "its end is told")
    site.client.set(wire.maintenance(C), '{"reason":"paused"}')
    with leading(site.url, "last"):
        wait_until(lambda: told(site) is None, "what is over is deleted")


def test_what_somebody_else_wrote_is_put_right(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is compared again and again, for whoever deleted it by hand."""
    monkeypatch.setattr(loop, "MAINTENANCE_S", 0.1)
    with leading(site.url):
        site.deliver(wire.OPERATOR_INBOX, asked("PauseRequested", "a"))
        found = wait_until(lambda: told(site), "the pause is told")
        site.client.delete(wire.maintenance(C))
        wait_until(lambda: told(site) == found, "it is there again")
        site.client.set(wire.maintenance(C), "rubbish")
        wait_until(lambda: site.client.get(wire.maintenance(C)) != b"rubbish", "and right again")


def test_maintenance_outlives_no_orchestrator_for_long(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first law: with every orchestrator gone nobody could end it, and no watch may be spared for ever. A leader renews it."""
    monkeypatch.setattr(loop, "MAINTENANCE_S", 0.1)
    key = wire.maintenance(C)
    with leading(site.url):
        site.deliver(wire.OPERATOR_INBOX, asked("PauseRequested", "a"))
        wait_until(lambda: told(site), "the pause is told")
        site.client.pexpire(key, 20_000)
        wait_until(lambda: site.client.pttl(key) > 20_000, "it is renewed")
    assert 0 < site.client.pttl(key) <= wire.MAINTENANCE_TTL_MS
    site.client.pexpire(key, 1)
    wait_until(lambda: told(site) is None, "nobody renews it")


def test_a_write_that_was_cut_is_made_up_for(site: Site) -> None:
    """Redis goes away between the commit and the key: it is written when Redis is back, and nothing else is done twice."""
    with Door(site.url) as door, leading(door.url) as orchestrator:
        wait_until(lambda: orchestrator.states()["leads"], "it leads")
        door.cut_request(b":maintenance")
        site.deliver(wire.OPERATOR_INBOX, asked("PauseRequested", "a"))
        wait_until(lambda: told(site), "the pause is told")
        assert door.cuts == 1
    assert site.count("ClusterPaused") == 1
    assert site.count("LeadTaken") == 1


def test_a_redis_that_does_not_allow_it_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the right to that key the cluster is led all the same, and it is tried again until it is allowed."""
    monkeypatch.setattr(loop, "MAINTENANCE_S", 0.0)
    store = MemoryStore()
    store.server.no_maintenance = True
    orchestrator = orchestrator_on(store)
    turn_until(orchestrator, lambda: orchestrator.states()["leads"])
    store.server.xadd(wire.inbox(C, wire.OPERATOR_INBOX), {wire.FACT_FIELD: asked("PauseRequested", "a")})
    turn_until(orchestrator, lambda: orchestrator.states()["clusters"][C]["paused_by"])
    store.server.xadd(wire.inbox(C, "n1"), {wire.FACT_FIELD: envelope(1)})
    turn_until(orchestrator, lambda: orchestrator.states()["clusters"][C]["sources"].get("n1"))
    assert store.server.get(wire.maintenance(C)) is None
    store.server.no_maintenance = False
    turn_until(orchestrator, lambda: store.server.get(wire.maintenance(C)))
