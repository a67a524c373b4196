"""Keys that are not what they should be: somebody wrote a list where a text belongs, or a text where a stream belongs. One cluster may have
to wait until it is put right; the others never do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from orchestrator import loop, redis_store
from orchestrator.embedded import EmbeddedRedis
from statemachines import wire
from tests.conftest import wait_until
from tests.faults.central import Outbox, sound
from tests.orchestrator.engine import C, Site, envelope, joined, leading, settings, start_called
from workers.redisclient import connect

OTHER = "d"

TEXTS = {wire.snapshot(C), wire.mark(C, "n1"), wire.owner(C), wire.lease("me"), wire.maintenance(C), wire.alive(C, "n1")}
STREAMS = {wire.log(C), wire.inbox(C, "n1"), wire.inbox(C, "n2"), wire.inbox(C, wire.LEADER_INBOX), wire.inbox(C, wire.OPERATOR_INBOX)}
KEYS = [*sorted(TEXTS | STREAMS), wire.head(C), wire.quarantine(C), "rq:queues", f"rq:queue:{wire.command_queue(C, 'n1')}"]
HELD_UP = {wire.head(C), wire.log(C), wire.inbox(C, "n1")}
"""With these wrong the cluster cannot go on."""


@pytest.fixture
def site(redis_server: EmbeddedRedis) -> Iterator[Site]:
    found = Site(redis_server.url)
    yield found
    found.close()


def spoil(client: Any, key: str) -> bytes | None:
    """Put something of another type there; returns what there was."""
    before: bytes | None = client.dump(key)
    with client.pipeline() as pipeline:
        pipeline.delete(key)
        (pipeline.set if key in STREAMS or key.startswith("rq:") else pipeline.rpush)(key, "not what it should be")
        pipeline.execute()
    return before


def put_right(client: Any, key: str, before: bytes | None) -> None:
    client.delete(key)
    if before is not None and key in (wire.head(C), wire.log(C)):
        client.restore(key, 0, before)


@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_a_wrong_type_costs_no_other_cluster(site: Site, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """The other cluster's facts go on and its lead stays; this one's go on as well, at the latest when the key is put right."""
    for module, name in ((loop, "DAMAGED_RETRY_S"), (redis_store, "SPOILT_RETRY_S")):
        monkeypatch.setattr(module, name, 0.2)
    site.client.set(wire.alive(C, "n1"), "{}")
    with capture_logs() as said, leading(site.url, clusters={C: settings(), OTHER: settings()}) as orchestrator:
        wait_until(lambda: orchestrator.states()["leads"].keys() == {C, OTHER}, "both are led")
        site.deliver("n1", joined(1), envelope(2))
        wait_until(lambda: site.mark()["streams"] == {"s": 2}, "there is a history")
        before = spoil(site.client, key)
        for seq in range(1, 6):
            site.deliver("n1", envelope(seq), cluster=OTHER)
            wait_until(lambda s=seq: site.types(OTHER).count("ProbeFailed") == s, "the other cluster goes on")  # type: ignore[misc]
        if key in HELD_UP:
            put_right(site.client, key, before)
        site.deliver("n1", envelope(3), envelope(4), "rubbish", start_called(5), envelope(6))
        wait_until(lambda: site.types()[-1] == "ProbeFailed" and site.applied()[-1:] == ["s:6"], "this one goes on")
    assert site.types(OTHER).count("LeadTaken") == 1, "the other cluster was let go"
    sound(site, 6)
    wrong = [line for line in said if line["log_level"] == "error"]
    assert len(wrong) <= 4, wrong


@pytest.mark.parametrize("text", ["rubbish", "{}", "[1]", '{"epoch":1}', "\xff"])
def test_a_head_that_is_none_ends_no_orchestrator(site: Site, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Whatever was written there: this cluster is not led until it is put right, the others are, and the reason is said once."""
    monkeypatch.setattr(loop, "DAMAGED_RETRY_S", 0.1)
    with capture_logs() as said, leading(site.url, clusters={C: settings(), OTHER: settings()}) as orchestrator:
        wait_until(lambda: orchestrator.states()["leads"].keys() == {C, OTHER}, "both are led")
        good = site.client.get(wire.head(C))
        site.client.set(wire.head(C), text.encode("latin-1"))
        site.deliver("n1", envelope(1))
        wait_until(lambda: C not in orchestrator.states()["leads"], "it is not led")
        for seq in range(1, 4):
            site.deliver("n1", envelope(seq), cluster=OTHER)
        wait_until(lambda: site.types(OTHER).count("ProbeFailed") == 3, "the other cluster goes on")
        site.client.set(wire.head(C), good)
        wait_until(lambda: site.applied() == ["s:1"], "put right, it goes on")
    assert len([line for line in said if line["event"].startswith("cannot lead")]) <= 2
    assert site.types(OTHER).count("LeadTaken") == 1


def test_a_mark_of_a_wrong_type_does_not_silence_its_node(site: Site, tmp_path: Path) -> None:
    """A real forwarder: it cannot read how far its facts are, and hands them in all the same; then the mark is written anew."""
    with leading(site.url), connect(site.url) as client, Outbox(tmp_path, client) as node:
        node.write(3)
        node.all_in_log(site)
        spoil(site.client, wire.mark(C, "n1"))
        node.write(3)
        node.all_in_log(site)
        wait_until(lambda: site.client.type(wire.mark(C, "n1")) == b"string", "the mark is written anew")
