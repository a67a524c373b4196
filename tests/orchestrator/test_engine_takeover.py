"""Who leads: real processes that are killed, paused and stopped, and what their successors make of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.embedded import EmbeddedRedis, in_use
from orchestrator.lease import Lease, Taker, new_identity
from orchestrator.ports import Core
from orchestrator.redis_store import RedisStore
from statemachines import wire
from tests.conftest import wait_until
from tests.orchestrator.engine import C, Site, envelope, joined, leading, settings, start_called


@pytest.fixture
def site(redis_server: EmbeddedRedis) -> Iterator[Site]:
    found = Site(redis_server.url)
    yield found
    found.close()


class Processes:
    """Orchestrators in processes of their own; whatever is left at the end is killed."""

    def __init__(self, folder: Path, redis: str) -> None:
        self._file = folder / "dcsup.toml"
        self._file.write_text(
            f'[redis]\n{redis}\n[orchestrator]\nlisten = "127.0.0.1:0"\n'
            f'[clusters.{C}]\ngroup = "g"\nmode = "supervise"\nnodes = ["n1", "n2"]\nservices = [{{ name = "srv", kind = "server" }}]\n'
        )
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, identity: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.orchestrator.leader_process", str(self._file), identity]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[2])
        self._started.append(process)
        return process

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def processes(tmp_path: Path, redis_server: EmbeddedRedis) -> Iterator[Processes]:
    found = Processes(tmp_path, f'url = "{redis_server.url}"')
    yield found
    found.end()


def lead_by(site: Site, identity: str) -> None:
    wait_until(lambda: site.owner() == identity and site.client.get(wire.lease(identity)), f"{identity} leads")


def in_standby(site: Site, identity: str) -> None:
    wait_until(lambda: site.client.get(wire.lease(identity)), f"{identity} stands by")


def test_a_killed_leader_is_replaced_and_nothing_is_lost(site: Site, processes: Processes) -> None:
    """After kill -9 the standby leads with a higher epoch; facts of before, meanwhile and after are each applied once."""
    first = processes.start("first")
    lead_by(site, "first")
    processes.start("second")
    in_standby(site, "second")
    site.deliver("n1", joined(1), *(envelope(seq) for seq in range(2, 50)))
    first.kill()
    killed_at = time.monotonic()
    site.deliver("n1", start_called(50), envelope(51))
    lead_by(site, "second")
    print(f"take-over after {time.monotonic() - killed_at:.2f} s")
    site.deliver("n1", envelope(52))
    wait_until(lambda: site.mark()["streams"] == {"s": 52}, "all facts are durable")
    assert site.applied() == [f"s:{seq}" for seq in range(1, 53)]
    assert len(site.jobs()) == 1
    assert site.head()["epoch"] == 2
    assert [e.data for e in site.log() if e.type == "LeadTaken"] == [{"epoch": 1, "owner": "first"}, {"epoch": 2, "owner": "second"}]
    assert site.count("ConfigurationChanged") == 1


def test_a_paused_leader_writes_nothing_when_it_wakes(site: Site, processes: Processes) -> None:
    """A leader that was stopped for so long that another leads adds nothing to log or queues; it stands by and may lead again."""
    first = processes.start("first")
    lead_by(site, "first")
    site.deliver("n1", joined(1))
    wait_until(lambda: site.applied() == ["s:1"], "the first leads")
    first.send_signal(signal.SIGSTOP)
    second = processes.start("second")
    site.deliver("n1", start_called(2))
    lead_by(site, "second")
    wait_until(lambda: site.mark()["streams"] == {"s": 2}, "the second goes on")
    first.send_signal(signal.SIGCONT)
    in_standby(site, "first")
    for seq in range(3, 30):
        site.deliver("n1", envelope(seq))
        wait_until(lambda seq=seq: site.mark()["streams"] == {"s": seq}, "a fact is durable")  # type: ignore[misc]
    assert site.applied() == [f"s:{seq}" for seq in range(1, 30)]
    assert (site.head()["epoch"], site.owner(), len(site.jobs()), site.count("LeadTaken")) == (2, "second", 1, 2)
    second.send_signal(signal.SIGTERM)
    assert second.wait(30) == 0
    lead_by(site, "first")
    assert site.head()["epoch"] == 3


def test_of_many_that_try_one_leads(site: Site, processes: Processes) -> None:
    """Several that start at the same moment: one leads, and the log has one chain and as many epochs as take-overs."""
    for number in range(3):
        processes.start(f"o{number}")
    for number in range(3):
        in_standby(site, f"o{number}")
    site.deliver("n1", *(envelope(seq) for seq in range(1, 100)))
    wait_until(lambda: site.mark()["streams"] == {"s": 99}, "facts are applied")
    assert site.applied() == [f"s:{seq}" for seq in range(1, 100)]
    assert site.head()["epoch"] == site.count("LeadTaken")


def test_leaders_that_follow_each_other_without_end(site: Site) -> None:
    """While facts keep coming, leaders come and go in good order: every fact is applied once, in order."""
    done = threading.Event()

    def feed() -> None:
        feeder = Site(site.url)
        seq = 0
        while not done.is_set():
            seq += 1
            feeder.deliver("n1", envelope(seq))
        feeder.deliver("n1", envelope(seq + 1, data={"service": "srv", "reason": "last"}))
        feeder.close()

    thread = threading.Thread(target=feed)
    thread.start()
    for number in range(5):
        with leading(site.url, f"o{number}") as orchestrator:
            wait_until(lambda o=orchestrator: o.states()["leads"], "it leads")  # type: ignore[misc]
            before = site.head()["commit"]
            wait_until(lambda b=before: site.head()["commit"] > b + 3, "it commits")  # type: ignore[misc]
    done.set()
    thread.join()
    with leading(site.url, "last"):
        wait_until(lambda: any(entry.data.get("reason") == "last" for entry in site.log()[-3:]), "the last fact is applied")
    applied = site.applied()
    assert applied == [f"s:{seq}" for seq in range(1, len(applied) + 1)]
    assert site.head()["epoch"] == 6


def test_whoever_folded_too_early_does_not_lead(site: Site) -> None:
    """A candidate whose log moved on while it folded is refused, and nothing of it stands."""
    store, other = RedisStore(site.url), RedisStore(site.url)
    quick = Taker(other, Lease("quick", 60, "{}"), Core())

    class Slow(RedisStore):
        """Somebody else takes the lead between its folding and its commit."""

        def now_ms(self) -> int:
            assert quick.take(C, settings(), 0) is not None
            return super().now_ms()

    slow = Slow(site.url)
    assert Taker(slow, Lease("slow", 60, "{}"), Core()).take(C, settings(), 0) is None
    assert [e.data["owner"] for e in site.log() if e.type == "LeadTaken"] == ["quick"]
    assert site.owner() == "quick"
    for one in (store, other, slow):
        one.close()


def test_a_changed_configuration_is_a_fact(site: Site) -> None:
    """A leader with another configuration logs it once, in the commit that takes the lead."""
    with leading(site.url, "a"):
        lead_by(site, "a")
    for identity in ("b", "c"):
        with leading(site.url, identity, clusters={C: settings(mode="observe")}):
            lead_by(site, identity)
    assert site.types() == ["LeadTaken", "ConfigurationChanged", "LeadTaken", "ConfigurationChanged", "LeadTaken"]
    settings_now = site.folded().settings
    assert settings_now is not None and settings_now.mode == "observe"


def test_identities_differ() -> None:
    """No two orchestrators have the same name, on one host or in one process."""
    assert new_identity() != new_identity()


def test_the_whole_orchestrator_on_its_own_redis(tmp_path: Path) -> None:
    """With an embedded Redis: it starts it, leads, answers over HTTP, and ends both at SIGTERM."""
    folder = tmp_path / "redis"
    processes = Processes(tmp_path, f'embedded = "{folder}"')
    try:
        process = processes.start("me")
        wait_until(lambda: folder.exists() and in_use(folder) and (folder / "socket").exists(), "Redis runs")
        joined_server = EmbeddedRedis(folder)
        joined_server.connect_or_start()
        site = Site(joined_server.url)
        lead_by(site, "me")
        lease = json.loads(site.client.get(wire.lease("me")))
        assert lease["pid"] == process.pid

        def status() -> Any:
            with urllib.request.urlopen(f"{lease['url']}/status", timeout=10) as answer:
                return json.load(answer)

        assert status()["orchestrator"] == "me"
        led = wait_until(lambda: status()["clusters"].get(C), "what Redis says already, the orchestrator has heard")
        assert led["leader"] == "me"
        with urllib.request.urlopen(f"{lease['url']}/metrics", timeout=10) as answer:
            assert f'dcsup_leader{{cluster="{C}"}} 1.0' in answer.read().decode()
        site.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert not in_use(folder)
    finally:
        processes.end()
        if in_use(folder):
            EmbeddedRedis(folder).stop()
