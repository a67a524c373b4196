"""Jobs under the RQ worker of a node: doubled, swallowed by the network, abandoned by RQ's own book-keeping; and commands that misbehave.

What RQ keeps about a job is nobody's word about a command: ticket and journal are. So RQ may forget, double or fail a job as it likes.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from rq.registry import StartedJobRegistry

from orchestrator.embedded import EmbeddedRedis
from statemachines import wire
from tests.conftest import wait_until
from tests.faults.node_site import LIMIT_S, halted
from tests.orchestrator.proxy import Door, _receive, _send, _shut
from tests.workers.conftest import NodeFixture, make_node, own_redis, write_config
from tests.workers.test_rqworker import Running, alive_ticket, command, commands, refusals
from workers import files, journal, launcher
from workers.redisclient import connect
from workers.rqworker import CONNECTION_WAIT_LAST_S, DcsupJob

__all__ = ["alive_ticket", "own_redis"]  # fixtures

SERVER = """\
echo "$1" >> '{base}/server.ran'
while test -e '{base}/server.hold'; do sleep 0.05; done
{then}
exit 0
"""


@pytest.fixture
def node(tmp_path: Path, redis_server: EmbeddedRedis) -> Iterator[NodeFixture]:
    """A node with one service, a server whose verb can be held."""
    with connect(redis_server.url) as client:
        made = make_node(tmp_path, redis_server.url, client)
        write_config(made, services="server")
        behave(made)
        yield made


@pytest.fixture
def start() -> Iterator[Callable[[NodeFixture], Running]]:
    """start(node): an RQ worker of the command queue, ended with the test."""
    running: list[Running] = []

    def begin(node: NodeFixture) -> Running:
        running.append(Running(node))
        wait_until(lambda: len(running[-1].said("ready")) >= len([one for one in running if one.process.poll() is None]), "it", LIMIT_S)
        return running[-1]

    yield begin
    for one in running:
        one.process.kill()
        one.process.wait()


def behave(node: NodeFixture, then: str = "") -> None:
    (node.base / "server-command").write_text(SERVER.format(base=node.base, then=then))


def ended(node: NodeFixture, ticket: str, state: str = "ok") -> bool:
    return (node.folder / "journal" / f"{ticket}.1.{state}").exists()


def enqueue(node: NodeFixture, ticket: str, job_id: str) -> None:
    commands(node.client).enqueue(wire.JOB_FUNCTION, command(node, ticket, late_ms=-600_000), job_id=job_id)


def test_a_job_that_two_workers_have_at_the_same_time_runs_once(
    node: NodeFixture, start: Callable[[NodeFixture], Running], alive_ticket: Callable[..., str]
) -> None:
    """Two RQ workers on one queue and three deliveries, let go at one moment: one claims; the others find that."""
    workers = [start(node), start(node)]
    ticket = alive_ticket(1, "start", [("server", "recover")])
    (node.base / "server.hold").touch()
    for worker in workers:
        worker.process.send_signal(signal.SIGSTOP)
    for n in range(3):
        enqueue(node, ticket, f"c1_n1-aa-{n}")
    for worker in workers:
        worker.process.send_signal(signal.SIGCONT)
    wait_until(lambda: len(refusals(node)) >= 1, "a refusal", LIMIT_S)
    (node.base / "server.hold").unlink()
    wait_until(lambda: len(refusals(node)) == 2 and ended(node, ticket), "the others'", LIMIT_S)
    assert {one["reason"] for one in refusals(node)} <= {"not-claimed", "already-run"}
    assert node.ran("server") == ["recover"]


def make_old(node: NodeFixture, registry: StartedJobRegistry) -> None:
    """Its entries' time is over since 1970."""
    members: Any = node.client.zrange(registry.key, 0, -1)
    node.client.zadd(registry.key, dict.fromkeys(members, 1))


def with_a_command_under_way(
    node: NodeFixture, start: Callable[[NodeFixture], Running], alive_ticket: Callable[..., str]
) -> tuple[Running, str]:
    """A worker whose command of the returned ticket runs until `server.hold` is gone."""
    running = start(node)
    ticket = alive_ticket(1, "start", [("server", "recover")])
    (node.base / "server.hold").touch()
    enqueue(node, ticket, "c1_n1-aa-1")
    wait_until(lambda: node.ran("server"), "the command", LIMIT_S)
    return running, ticket


def test_rqs_clean_up_of_abandoned_jobs_runs_and_ends_nothing(
    node: NodeFixture, start: Callable[[NodeFixture], Running], alive_ticket: Callable[..., str]
) -> None:
    """A command under way outlives its entry in RQ's registry: the clean-up fails the record, and neither ends nor repeats the command."""
    running, ticket = with_a_command_under_way(node, start, alive_ticket)
    registry = StartedJobRegistry(queue=commands(node.client), job_class=DcsupJob)
    wait_until(lambda: node.client.zcard(registry.key), "RQ's entry", LIMIT_S)
    make_old(node, registry)
    registry.cleanup()
    assert node.client.zcard(registry.key) == 0
    assert commands(node.client).count == 0
    (node.base / "server.hold").unlink()
    wait_until(lambda: ended(node, ticket), "its end", LIMIT_S)
    other = alive_ticket(2, "start", [("server", "recover")])
    enqueue(node, other, "c1_n1-bb-1")
    wait_until(lambda: ended(node, other), "the next command", LIMIT_S)
    assert node.ran("server") == ["recover", "recover"]
    assert (refusals(node), running.process.poll()) == ([], None)


def test_what_a_killed_worker_left_in_rqs_books_is_never_run(
    node: NodeFixture, start: Callable[[NodeFixture], Running], alive_ticket: Callable[..., str]
) -> None:
    """Killed in a command: its successor's maintenance finds the entry long past its time, and lays it aside; nothing is enqueued again."""
    first, ticket = with_a_command_under_way(node, start, alive_ticket)
    first.process.kill()
    first.process.wait()
    queue = commands(node.client)
    registry = StartedJobRegistry(queue=queue, job_class=DcsupJob)
    make_old(node, registry)
    node.client.hset("rq:job:c1_n1-aa-1", mapping={"retries_left": 3})  # whoever wrote that: nobody repeats a command
    start(node)
    (node.base / "server.hold").unlink()
    wait_until(lambda: ended(node, ticket), "the launcher's own record", LIMIT_S)
    other = alive_ticket(2, "start", [("server", "recover")])
    enqueue(node, other, "c1_n1-bb-1")
    wait_until(lambda: ended(node, other), "the next command", LIMIT_S)
    assert node.ran("server") == ["recover", "recover"]
    assert queue.count == 0


class HalfOpen(Door):
    """A door behind which answers get lost: after `swallow(word)`, the connection whose next request holds that word hears nothing more."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.swallowed = 0
        self._swallow_word: bytes | None = None

    def swallow(self, word: bytes) -> None:
        self._swallow_word = word

    def is_met(self) -> bool:
        """Whether the request came."""
        return self._swallow_word is None

    def _requests(self, client: socket.socket, server: socket.socket, doomed: threading.Event) -> None:
        while data := _receive(client):
            if self._swallow_word is not None and self._swallow_word in data:
                self._swallow_word = None
                doomed.set()
            if not _send(server, data):
                break
        _shut(client, server)

    def _answers(self, server: socket.socket, client: socket.socket, doomed: threading.Event) -> None:
        while data := _receive(server):
            if doomed.is_set():
                self.swallowed += 1
            elif not _send(client, data):
                break
        _shut(client, server)


def test_a_job_whose_answer_is_swallowed_by_a_half_open_connection_is_run_once(
    tmp_path: Path, own_redis: EmbeddedRedis, start: Callable[[NodeFixture], Running], record_property: Callable[[str, object], None]
) -> None:
    """BLMOVE has taken it out of the queue, and nobody hears: the worker's own time-out ends that connection, and it takes the job back."""
    door = HalfOpen(own_redis.url)
    with door, connect(own_redis.url) as client:
        node = make_node(tmp_path, door.url, client)
        write_config(node, services="server")
        behave(node)
        running = start(node)
        door.swallow(b"BLMOVE")
        # a blocking pop lasts 5 s; the one that is under way was asked before
        wait_until(door.is_met, "the next pop", LIMIT_S)
        ticket = node.ticket(1, "start", [("server", "recover")], state="open")
        began = time.monotonic()
        enqueue(node, ticket, "c1_n1-aa-1")

        def is_done() -> bool:
            node.touch_alive(ticket)
            return ended(node, ticket)

        wait_until(is_done, "the command", LIMIT_S)
        record_property("a job swallowed by a half-open connection is run after, s", round(time.monotonic() - began, 1))
        assert door.swallowed >= 1
        assert node.ran("server") == ["recover"]
        assert running.said("jobs of a lost connection taken back")
        assert client.llen(commands(client).intermediate_queue_key) == 0


def test_after_a_long_outage_the_next_job_is_taken_soon(
    tmp_path: Path, own_redis: EmbeddedRedis, start: Callable[[NodeFixture], Running], record_property: Callable[[str, object], None]
) -> None:
    """RQ's own back-off reaches a minute; this one looks again every 2 s, however long Redis was away."""
    with connect(own_redis.url) as client:
        node = make_node(tmp_path, own_redis.url, client)
        write_config(node, services="server")
        behave(node)
        running = start(node)
        own_redis.kill()
        wait_until(lambda: running.said("Redis does not answer; waiting"), "the outage", LIMIT_S)
        time.sleep(4 * CONNECTION_WAIT_LAST_S)  # the outage's length: the pauses have grown as far as they do
        own_redis.stop()
        own_redis.start()
        ticket = node.ticket(1, "start", [("server", "recover")], state="open")
        began = time.monotonic()
        enqueue(node, ticket, "c1_n1-aa-1")

        def is_done() -> bool:
            node.touch_alive(ticket)
            return ended(node, ticket)

        wait_until(is_done, "the command", LIMIT_S)
        took_s = time.monotonic() - began
        record_property("after an outage of 8 s the next job has run after, s", round(took_s, 1))
        assert took_s < 30.0, "RQ's own back-off would reach 60 s"
        assert node.ran("server") == ["recover"]


# -- commands that misbehave


def fact_of_end(node: NodeFixture) -> dict[str, Any]:
    found = wait_until(lambda: node.outbox_facts("CommandEnded"), "the fact of its end", LIMIT_S)
    data: dict[str, Any] = found[-1]["data"]
    return data


def test_a_command_that_floods_its_output_ends_well_and_leaves_its_last_words(
    node: NodeFixture, start: Callable[[NodeFixture], Running], alive_ticket: Callable[..., str]
) -> None:
    """100 MB go by without filling memory or disk; what is kept is the end of it."""
    behave(node, "head -c 100000000 /dev/zero | tr '\\0' x; echo; echo 'the last words'")
    running = start(node)
    ticket = alive_ticket(1, "start", [("server", "recover")])
    enqueue(node, ticket, "c1_n1-aa-1")
    wait_until(lambda: ended(node, ticket), "its end", LIMIT_S)
    told = fact_of_end(node)
    assert told["output"].endswith("the last words\n")
    assert len(told["output"]) <= launcher.OUTPUT_LIMIT_BYTES
    assert sum(path.stat().st_size for path in node.folder.rglob("*") if path.is_file()) < 1_000_000
    assert psutil.Process(running.process.pid).memory_info().rss < 300_000_000


def test_a_command_that_ignores_its_signal_and_leaves_children_is_ended_with_all_of_them(
    node: NodeFixture, start: Callable[[NodeFixture], Running], alive_ticket: Callable[..., str]
) -> None:
    """At its limit, in the middle of an endless flood: it has failed, all of its group is gone, and the next command is taken."""
    pids = node.base / "pids"
    behave(node, f"trap '' TERM HUP INT; (trap '' TERM HUP INT; sleep 600 & echo $! >>'{pids}'; wait) & echo $! >>'{pids}'; yes")
    write_config(node, services="server", extra_cluster='start = { command_limit = "2s" }')
    start(node)
    ticket = alive_ticket(1, "start", [("server", "recover")])
    enqueue(node, ticket, "c1_n1-aa-1")
    wait_until(lambda: ended(node, ticket, "fail"), "its end", LIMIT_S)
    told = fact_of_end(node)
    assert (told["result"], told["reason"], told["code"]) == ("fail", "limit", None)
    left = [pid for word in pids.read_text().split() if (pid := files.to_int(word)) is not None]
    assert len(left) == 2
    for pid in left:
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    behave(node)
    other = alive_ticket(2, "start", [("server", "recover")])
    enqueue(node, other, "c1_n1-bb-1")
    wait_until(lambda: ended(node, other), "the next command", LIMIT_S)


def test_a_daemon_that_a_command_started_outlives_launcher_and_worker(
    node: NodeFixture, start: Callable[[NodeFixture], Running], alive_ticket: Callable[..., str]
) -> None:
    """It has left the group, as services do, and holds the command's output: neither the command's end nor a killed worker touches it."""
    behave(node, f"setsid sh -c 'echo $$ >\"{node.base}/daemon\"; while :; do echo still here || exit 1; sleep 0.05; done' &")
    running = start(node)
    ticket = alive_ticket(1, "start", [("server", "recover")])
    enqueue(node, ticket, "c1_n1-aa-1")
    wait_until(lambda: ended(node, ticket) and (node.base / "daemon").exists(), "its end", LIMIT_S)
    pid = int((node.base / "daemon").read_text())
    daemon = psutil.Process(pid)
    try:
        running.process.kill()
        running.process.wait()
        used = daemon.cpu_times()
        wait_until(lambda: daemon.cpu_times() != used or not daemon.is_running(), "the daemon's next lines", LIMIT_S)
        assert daemon.is_running() and daemon.status() != psutil.STATUS_ZOMBIE
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_worker_that_stands_still_with_a_job_in_its_hands_is_no_reason_to_wait(
    node: NodeFixture, start: Callable[[NodeFixture], Running], alive_ticket: Callable[..., str]
) -> None:
    """Halted between dequeue and perform, and killed there: the job lies in the intermediate list, and the next worker runs it, once."""
    running = start(node)
    ticket = alive_ticket(1, "start", [("server", "recover")])
    queue = commands(node.client)
    info: Any = node.client.info
    wait_until(lambda: info("clients")["blocked_clients"] >= 1, "its waiting for a job", LIMIT_S)
    with halted(psutil.Process(running.process.pid)):
        enqueue(node, ticket, "c1_n1-aa-1")
        wait_until(lambda: node.client.llen(queue.intermediate_queue_key) == 1, "its being taken", LIMIT_S)
        running.process.kill()
    running.process.wait()
    start(node)
    wait_until(lambda: ended(node, ticket), "the command", LIMIT_S)
    assert node.ran("server") == ["recover"]
    entry = journal.read(node.folder, ticket, 1)
    assert entry is not None and entry.state == "ok"


def test_an_id_that_this_node_may_not_read_holds_up_no_other_job(
    node: NodeFixture, start: Callable[[NodeFixture], Running], alive_ticket: Callable[..., str]
) -> None:
    """Somebody who may write the queue puts another node's id into it, and one without a job: told, dropped, and the next job is taken."""
    client: Any = node.client
    keys = ("~rq:queue*", "~rq:*c1_n1*", "~rq:workers", "~rq:clean*")
    client.execute_command("ACL", "SETUSER", "n1", "reset", "on", ">pw", "&*", "+@all", *keys)
    try:
        node.config.write_text(node.config.read_text().replace("unix://", "unix://n1:pw@"))
        queue = commands(client)
        client.hset("rq:job:c9_n9-x-1", mapping={"data": "x"})
        client.rpush(queue.key, "c9_n9-x-1", "c1_n1-gone-1")
        start(node)
        ticket = alive_ticket(1, "start", [("server", "recover")])
        enqueue(node, ticket, "c1_n1-aa-1")
        wait_until(lambda: ended(node, ticket), "the command", LIMIT_S)
        assert ["not this node's" in one["detail"] for one in refusals(node)] == [True]
        assert b"c9_n9-x-1" not in client.lrange(queue.intermediate_queue_key, 0, -1)
    finally:
        client.execute_command("ACL", "DELUSER", "n1")
