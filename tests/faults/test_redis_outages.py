"""A real Redis that is restarted, killed, away for seconds, stands still, is full, reads only, or throws us out: what is said of it, what
goes on afterwards, and that nobody who was there all the time is called lost."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from structlog.testing import capture_logs

from orchestrator import loop
from orchestrator.embedded import EmbeddedRedis
from orchestrator.loop import Orchestrator
from orchestrator.observing import RECONNECT_S
from orchestrator.redis_store import RedisStore
from tests.conftest import wait_until
from tests.faults.central import Outbox, keeping_alive, lead_by, nobody_lost
from tests.orchestrator.engine import C, Site, orchestrator_on, running, settings
from workers.redisclient import connect

TTL_S = 2.0
SOON_S = 0.5
"""For tests whose workers are back at once: how long they are waited for."""

COMMANDS = [{"n": 1, "service": "srv", "verb": "recover"}]


class Stand:
    """A Redis of the test's own, an orchestrator that leads, and a node: its real forwarder, and its signs of life."""

    def __init__(self, server: EmbeddedRedis, node: Outbox, orchestrator: Orchestrator) -> None:
        self.server, self.node, self.orchestrator = server, node, orchestrator
        self.site = Site(server.url)

    def goes_on(self) -> None:
        """What happens now is in the log, and a command is queued; once each."""
        self.node.write(3)
        ticket = f"b1-g-{len(self.node.written)}-start"
        self.node.report("StartHookCalled", {"ticket": ticket, "event": "START", "commands": COMMANDS})
        self.node.write()
        self.node.all_in_log(self.site)
        issued = [e for e in self.site.log() if e.type == "CommandIssued" and e.data["ticket"] == ticket]
        assert len(issued) == 1
        assert self.site.jobs().count(issued[0].data["job_id"]) == 1

    def judges_nodes(self, reconnect_s: float = RECONNECT_S) -> None:
        """Wait until a missing sign of life would be told again; nobody's is."""
        wait_until(lambda: time.monotonic() - self.orchestrator._together_since > TTL_S + reconnect_s + 0.6, "signs of life count")
        nobody_lost(self.site)
        assert self.site.folded().nodes["n1"].present


@contextmanager
def standing(folder: Path) -> Iterator[Stand]:
    clusters = {C: settings(node_ttl=f"{TTL_S}s", nodes=["n1"])}
    with EmbeddedRedis(folder / "redis") as server, connect(server.url) as client, keeping_alive(server.url, "n1", ttl_s=TTL_S):
        store = RedisStore(server.url, timeout_s=2.0)
        orchestrator = orchestrator_on(store, clusters=clusters)
        with running(orchestrator), Outbox(folder / "node", client) as node:
            stand = Stand(server, node, orchestrator)
            node.report("NodeJoined", {"boot": "b1", "version": "1"})
            stand.goes_on()
            yield stand
            stand.site.close()
        store.close()


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    with standing(tmp_path) as found:
        yield found


def said_of_redis(lines: list[Any]) -> list[str]:
    """What the orchestrator said of Redis's coming and going."""
    return [
        line["event"] for line in lines if line["event"].startswith("Redis") and "facts wait" not in line["event"] and "after_s" not in line
    ]


OUTAGE = ["Redis does not answer; trying again until it does", "Redis answers again"]

# --- away -----------------------------------------------------------------------------------------------------------------------------


def restarted(stand: Stand) -> None:
    stand.server.stop()
    stand.server.start()


def killed(stand: Stand) -> None:
    stand.server.kill()
    stand.server.start()


def away_for_seconds(stand: Stand) -> None:
    """For longer than any sign of life, any lease and every back-off lasts."""
    stand.server.kill()
    began = time.monotonic()
    wait_until(lambda: stand.orchestrator._failures >= len(loop.BACKOFF_S) + 1, "the back-off has reached its end")
    wait_until(lambda: time.monotonic() - began > 2 * TTL_S, "every sign of life has run out")
    stand.node.write(20)
    stand.server.start()


def stands_still(stand: Stand) -> None:
    """SIGSTOP for 5 s: longer than our patience with an answer, and than every sign of life lasts."""
    assert stand.server.pid is not None
    os.kill(stand.server.pid, signal.SIGSTOP)
    stand.node.write(20)
    time.sleep(5.0)  # the stall itself, not a wait for something
    os.kill(stand.server.pid, signal.SIGCONT)


@pytest.mark.parametrize("outage", [restarted, killed, away_for_seconds, stands_still])
def test_an_outage_loses_nothing_and_nobody(stand: Stand, outage: Callable[[Stand], None]) -> None:
    """One line when it begins and one when it ends; facts wait on the node's disk and are in the log once; the lead is not lost, no command
    is queued twice, and no node is called lost whose worker lived."""
    with capture_logs() as lines:
        outage(stand)
        stand.goes_on()
        wait_until(lambda: said_of_redis(lines) == OUTAGE, "it is said once, and so is its end")
    assert stand.site.count("LogTailLost") == 0
    stand.judges_nodes()
    assert stand.site.count("LeadTaken") == 1


# --- there, and not serving -----------------------------------------------------------------------------------------------------------


def full(client: Any) -> None:
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", "1mb")
    client.config_set("maxmemory", "1")


def not_full(client: Any) -> None:
    client.config_set("maxmemory", "0")


def read_only(client: Any) -> None:
    client.replicaof("127.0.0.1", "1")


def a_master_again(client: Any) -> None:
    client.replicaof("NO", "ONE")


def without_rights(client: Any) -> None:
    client.acl_setuser(
        "default", enabled=True, nopass=True, reset_keys=False, commands=["-@all", "+ping", "+acl", "+config", "+client", "+time"]
    )


def with_all_rights(client: Any) -> None:
    client.acl_setuser("default", enabled=True, nopass=True, keys=["*"], commands=["+@all"])


def no_room_for_clients(client: Any) -> None:
    client.config_set("maxclients", "1")
    client.client_kill_filter(_type="normal", skipme=True)


def room_for_clients(client: Any) -> None:
    client.config_set("maxclients", "1000")


def busy(client: Any) -> None:
    """One script without end; everybody else is told so."""
    client.config_set("busy-reply-threshold", "10")
    path = client.connection_pool.connection_kwargs["path"]

    def run() -> None:
        with redis.Redis(unix_socket_path=path, socket_timeout=120) as another, contextlib.suppress(redis.ResponseError):
            another.eval("while true do end", 0)

    threading.Thread(target=run, daemon=True).start()
    wait_until(lambda: _is_busy(client), "it is busy")


def _is_busy(client: Any) -> bool:
    try:
        client.exists("x")
    except redis.ResponseError as error:
        return "BUSY" in str(error)
    return False


def not_busy(client: Any) -> None:
    client.script_kill()
    wait_until(lambda: not _is_busy(client), "its end")


STATES = {
    "busy": (busy, not_busy),
    "full": (full, not_full),
    "a replica": (read_only, a_master_again),
    "without rights": (without_rights, with_all_rights),
    "no room for clients": (no_room_for_clients, room_for_clients),
}


@pytest.mark.parametrize("state", STATES)
def test_a_redis_that_does_not_serve_is_waited_for(stand: Stand, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    """It answers, and takes nothing: that is said once, it is asked ever more seldom, nothing is written by halves, and when it serves
    again everything goes on; the lead stays."""
    monkeypatch.setattr(loop, "RECONNECT_S", SOON_S)
    begin, end = STATES[state]
    admin: Any = redis.Redis.from_url(stand.server.url, single_connection_client=True)
    admin.ping()
    head = stand.site.head()
    with capture_logs() as lines:
        begin(admin)
        stand.node.write(20)
        wait_until(lambda: stand.orchestrator._failures >= 4, "it is asked again and again")
        held_up = list(lines)
        end(admin)
        stand.goes_on()
        wait_until(lambda: said_of_redis(lines) == OUTAGE, "it is said once, and so is its end")
    assert said_of_redis(held_up) == OUTAGE[:1]
    assert stand.site.head()["epoch"] == head["epoch"]
    stand.judges_nodes(SOON_S)
    admin.close()


def test_a_full_redis_does_not_hold_up_whoever_leaves(stand: Stand) -> None:
    """No room for a snapshot: the lead is given up all the same."""
    full(stand.site.client)
    stand.orchestrator.stop()
    wait_until(lambda: stand.site.owner() is None, "the lead is given up")
    not_full(stand.site.client)


def test_connections_that_are_killed_without_end(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection is thrown out, again and again, while facts arrive: each is applied once, and the lead stays."""
    monkeypatch.setattr(loop, "RECONNECT_S", SOON_S)
    done = threading.Event()

    def kill() -> None:
        with redis.Redis.from_url(stand.server.url, single_connection_client=True) as client:
            while not done.wait(0.02):
                client.client_kill_filter(_type="normal", skipme=True)
                client.script_flush()

    killer = threading.Thread(target=kill)
    killer.start()
    for _ in range(20):
        stand.node.write(5)
        time.sleep(0.02)
    done.set()
    killer.join()
    wait_until(lambda: _answers(stand.site), "the test's own connection")
    stand.goes_on()
    lead_by(stand.site, "me")
    assert stand.site.count("LeadTaken") == 1
    stand.judges_nodes(SOON_S)


def _answers(site: Site) -> bool:
    try:
        return bool(site.client.ping())
    except redis.RedisError:
        return False
