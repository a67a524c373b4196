"""A node may give its inbox entries any id: ACLs cannot limit arguments. It harms nobody else with it, and itself not for long."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client import generate_latest

from orchestrator import metrics
from orchestrator.app import live
from orchestrator.embedded import EmbeddedRedis
from orchestrator.loop import Orchestrator
from orchestrator.ports import SignsOfLife
from statemachines import wire
from statemachines.entries import id_key
from tests.conftest import wait_until
from tests.orchestrator.engine import C, Site, envelope, joined, leading
from workers import outbox
from workers.forwarder import Forwarder
from workers.redisclient import connect

LARGEST = f"{2**64 - 1}-{2**64 - 1}"
YEAR_MS = 365 * 86_400_000


def now_ms(site: Site) -> int:
    seconds, micros = site.client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def told(site: Site, seq: int) -> bool:
    """Whether the other node's facts are in the log up to this one."""
    return bool(site.mark("n2")["streams"]["s"] == seq)


def seen(orchestrator: Orchestrator, value: str | bytes) -> bool:
    """Whether the leader has read this value of the node's keys."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return bool(orchestrator._led[C].signs.get("n1") == SignsOfLife(text, text))


def forwarder_of(folder: Path, client: Any) -> Forwarder:
    for name in ("outbox", "tickets", "journal", "watch"):
        (folder / name).mkdir(parents=True)
    return Forwarder(folder, C, "n1", "b1", client, structlog.get_logger())


def forwarding(forwarder: Forwarder, condition: Callable[[], bool], what: str) -> None:
    """The forwarder's loop, until the condition holds."""

    def look() -> bool:
        forwarder.step()
        return condition()

    wait_until(look, what)


@pytest.mark.parametrize("which", ["the largest", "next year's", "a used up sequence"])
def test_a_poisoned_inbox_becomes_usable_again(which: str, tmp_path: Path, redis_server: EmbeddedRedis) -> None:
    """The entry is quarantined, the log's ids stay in the present, the other node goes on, and all facts of the poisoned inbox's own
    node arrive exactly once, in order (I5)."""
    site = Site(redis_server.url)
    with leading(redis_server.url), connect(redis_server.url) as client:
        forwarder = forwarder_of(tmp_path, client)
        outbox.write_fact(tmp_path, "NodeJoined", "worker", {"boot": "b1", "version": "1"}, "b1")
        forwarding(forwarder, lambda: site.count("NodeJoined") == 1, "the node's first fact")
        ids = {"the largest": LARGEST, "next year's": f"{now_ms(site) + YEAR_MS}-0", "a used up sequence": f"{now_ms(site)}-{2**64 - 1}"}
        site.client.xadd(wire.inbox(C, "n1"), {wire.FACT_FIELD: envelope(1, stream="evil")}, id=ids[which])
        for number in range(3):
            outbox.write_fact(tmp_path, "ProbeFailed", "watch", {"service": "srv", "reason": f"r{number}"}, "b1")
        site.deliver("n2", joined())
        forwarding(forwarder, lambda: not forwarder.courier.pending and site.count("NodeJoined") == 2, "everything in the log")
    own = [source for source in site.applied("n1") if source not in ("evil:1", "None")]
    assert [source.partition(":")[2] for source in own] == ["1", "2", "3", "4"]
    assert site.count("FactQuarantined") == (0 if which == "a used up sequence" else 1)
    assert id_key(site.log()[-1].id)[0] <= now_ms(site)
    assert site.client.xinfo_stream(wire.inbox(C, "n1"))["last-generated-id"].decode() < str(int(time.time() * 1000) + YEAR_MS // 2)
    site.close()


def test_nonsense_in_signs_of_life_harms_nobody(redis_server: EmbeddedRedis) -> None:
    """A node's liveness keys may hold anything: the leader goes on, with its metrics, and the other node is where it was."""
    site = Site(redis_server.url)
    nonsense: list[str | bytes] = [
        "", "{", "null", "[1]", '{"outbox": "many", "skew_s": {}}', '{"services": 7}', "9" * 5000, "[" * 100_000, b"\xff\xfe",
        '{"outbox": 1%s, "skew_s": NaN}' % ("0" * 400), '{"services": {"srv": {"polls": 1%s}, "\\ud800": {"polls": 1}}}' % ("0" * 400),
    ]  # fmt: skip
    with leading(redis_server.url) as orchestrator:
        registry = metrics.registry_of(lambda: live(orchestrator, [C]), orchestrator.lock)
        site.deliver("n2", joined())
        wait_until(lambda: site.count("NodeJoined"), "the sound node")
        for value in nonsense:
            for key in (wire.alive(C, "n1"), wire.watch_alive(C, "n1")):
                site.client.set(key, value)
            wait_until(partial(seen, orchestrator, value), f"the leader's look at {value!r:.40}")
            epoch, seq = site.head()["epoch"], site.mark("n2")["streams"]["s"]
            site.deliver("n2", envelope(seq + 1))
            wait_until(partial(told, site, seq + 1), f"a commit in spite of {value!r:.40}")
            assert b'dcsup_node_up{cluster="c",node="n2"}' in generate_latest(registry)
            assert site.head()["epoch"] == epoch
    assert site.count("NodeLost") == 0
    site.close()
