"""The RQ worker of a node: what it accepts, what it survives, and that a verb runs once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis
from rq import Callback, Queue, Retry
from rq.job import Job

from orchestrator.embedded import EmbeddedRedis
from statemachines import wire
from statemachines.facts import FACT
from tests.conftest import wait_until
from tests.workers.conftest import CLUSTER, NODE, NodeFixture, log_lines, make_node, write_config
from workers.redisclient import connect


def commands(client: Redis) -> Queue:
    return Queue(wire.command_queue(CLUSTER, NODE), connection=client, serializer="json")


def redis_ms(client: Redis) -> int:
    seconds, microseconds = client.time()
    return int(seconds * 1000 + microseconds // 1000)


def command(
    node: NodeFixture, ticket: str, n: int = 1, service: str = "server", verb: str = "recover", late_ms: int = -60_000
) -> dict[str, Any]:
    """A command job's payload; `late_ms`: how long after its time it is, negative for in time."""
    return {"kind": "command", "ticket": ticket, "n": n, "service": service, "verb": verb, "not_after_ms": redis_ms(node.client) - late_ms}


class Running:
    """A worker process under test, and what it said."""

    def __init__(self, node: NodeFixture, role: str = "cmd") -> None:
        self.said_path = node.base / f"{role}.log"
        argv = [sys.executable, "-m", "workers.rqworker", "--role", role, "--config", str(node.config)]
        with self.said_path.open("ab") as log:
            self.process = subprocess.Popen(argv, stderr=log, env={**os.environ, "DCSUP_LOG": "json"})

    def said(self, event: str) -> list[dict[str, Any]]:
        return log_lines(self.said_path, event)

    def ready(self) -> Running:
        wait_until(lambda: self.said("ready"), "the worker's being ready")
        return self

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(20)


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """start(node, role): a worker process, ended with the test."""
    running: list[Running] = []

    def begin(node: NodeFixture, role: str = "cmd") -> Running:
        running.append(Running(node, role))
        return running[-1].ready()

    yield begin
    for one in running:
        one.process.kill()
        one.process.wait()


@pytest.fixture
def alive_ticket(node: NodeFixture) -> Iterator[Callable[..., str]]:
    """alive_ticket(seq, kind, commands): a ticket whose script gives signs of life until the test ends."""
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def refresh(ticket: str) -> None:
        while not stop.wait(0.3):
            node.touch_alive(ticket)

    def make(seq: int, kind: str, listed: list[tuple[str, str]]) -> str:
        ticket = node.ticket(seq, kind, listed, state="open")
        threads.append(threading.Thread(target=refresh, args=(ticket,)))
        threads[-1].start()
        return ticket

    yield make
    stop.set()
    for thread in threads:
        thread.join()


def refusals(node: NodeFixture) -> list[dict[str, Any]]:
    told = [fact["data"] for fact in node.outbox_facts("CommandRefused")]
    for one in told:
        FACT.validate_python({**one, "type": "CommandRefused"})
    return told


def proves_alive(node: NodeFixture, running: Running) -> None:
    """The worker still takes jobs: a verdict without a ticket is answered with its refusal."""
    before = len([one for one in refusals(node) if one["reason"] == "no-ticket"])
    commands(node.client).enqueue(wire.JOB_FUNCTION, {"kind": "verdict", "ticket": "b-g1-99-start", "code": 75, "reason": "x"})
    wait_until(lambda: len([one for one in refusals(node) if one["reason"] == "no-ticket"]) > before, "the next job's refusal")
    assert running.process.poll() is None


def test_only_the_one_function_is_called(node: NodeFixture, start: Callable[..., Running]) -> None:
    """Other functions, methods, callbacks, webhooks and retries are refused with a fact each; nothing is run, the worker lives on."""
    running, queue = start(node), commands(node.client)
    target = node.base / "owned"
    payload = {"kind": "verdict", "ticket": "b-g1-1-start", "code": 75, "reason": "x"}
    queue.enqueue("subprocess.getoutput", f"touch {target}")
    queue.enqueue("os.system", f"touch {target}")
    queue.enqueue(wire.JOB_FUNCTION, payload, on_success=Callback("subprocess.getoutput"))
    queue.enqueue(wire.JOB_FUNCTION, payload, on_failure=Callback("subprocess.getoutput"))
    queue.enqueue(wire.JOB_FUNCTION, payload, on_stopped=Callback("subprocess.getoutput"))
    queue.enqueue("os.system", f"touch {target}", retry=Retry(max=3))
    queue.enqueue(wire.JOB_FUNCTION, payload, retry=Retry(max=3))
    method = Job.create("strip", args=[], connection=node.client, serializer="json", origin=queue.name)
    method._instance, method._func_name = " text ", wire.JOB_FUNCTION
    method._data = json.dumps([wire.JOB_FUNCTION, " text ", [], {}]).encode()
    queue.enqueue_job(method)
    wait_until(lambda: len(refusals(node)) >= 8, "eight refusals")
    assert {one["reason"] for one in refusals(node)} == {"bad-job"}
    assert all(one["job_id"] for one in refusals(node))
    proves_alive(node, running)
    assert not target.exists()
    assert len([one for one in refusals(node) if one["reason"] == "bad-job"]) == 8
    assert len(running.said("job refused")) >= 8


def test_jobs_that_cannot_be_read_do_not_come_back(node: NodeFixture, start: Callable[..., Running]) -> None:
    """A broken record, data that are no JSON, an id without a record: reported or passed over, and the next job is taken."""
    running, queue = start(node), commands(node.client)
    broken = {"data": b"x", "timeout": "soon", "created_at": "never"}
    for job_id, fields in {"broken": broken, "nojson": {"data": b"\x80\x04K\x01."}}.items():
        node.client.hset(Job.key_for(job_id), mapping=fields)  # type: ignore[arg-type]
        node.client.rpush(queue.key, job_id)
    node.client.rpush(queue.key, "nothing-there")
    proves_alive(node, running)
    assert {one["job_id"] for one in refusals(node)} >= {"broken", "nojson"}
    assert node.client.lrange(queue.intermediate_queue_key, 0, -1) in ([], [b"nothing-there"])


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (None, "bad-job"), ("text", "bad-job"), ([], "bad-job"), ({}, "bad-job"), ({"kind": "shell", "command": "rm"}, "bad-job"),
        ({"kind": "command", "ticket": "T"}, "bad-job"), ({"kind": "watch"}, "bad-job"),
        ({"kind": "verdict", "ticket": "b-g1-1-start", "code": 0, "reason": "fine"}, "bad-job"),
        ({"kind": "verdict", "ticket": "../../etc/passwd", "code": 40, "reason": "x"}, "bad-job"),
        ({"kind": "verdict", "ticket": "b-g1-1-start", "code": 40, "reason": "x"}, "no-ticket"),
    ],
)  # fmt: skip
def test_malformed_payloads_are_refused(node: NodeFixture, inside: Callable[[object], str], payload: object, reason: str) -> None:
    """Each with a reason; `perform` never raises."""
    assert inside(payload).startswith("refused")
    assert [one["reason"] for one in refusals(node)] == [reason]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"verb": "destroy"}, "unknown-verb"), ({"service": "database"}, "unknown-service"), ({"n": 0}, "bad-job"),
        ({"late_ms": 50}, "late"), ({"ticket": "boot1-g1-77-start"}, "no-ticket"), ({"n": 2}, "not-listed"),
        ({"verb": "start"}, "not-listed"),
    ],
)  # fmt: skip
def test_commands_that_must_not_run_are_refused(
    node: NodeFixture, alive_ticket: Callable[..., str], inside: Callable[[object], str], changes: dict[str, Any], reason: str
) -> None:
    """Unknown verb or service, late, without a live ticket, not on its list: nothing runs, and a fact says why."""
    write_config(node, services="server")
    ticket = alive_ticket(1, "start", [("server", "recover")])
    payload = command(node, **{"ticket": ticket, **changes})
    assert inside(payload).startswith("refused")
    assert [one["reason"] for one in refusals(node)] == [reason]
    assert node.ran("server") == node.ran("agent") == []


@pytest.fixture
def inside(node: NodeFixture) -> Iterator[Callable[[object], str]]:
    """inside(payload): perform a job in this process, without RQ."""
    from workers import jobs, rqworker

    def perform(payload: object) -> str:
        process = rqworker.Process("cmd", node.settings(), os.getppid())
        jobs.configure(jobs.Context(process.settings, process.boot, node.client, process._report, process.log, process.stopping))
        return jobs.perform(payload)

    yield perform
    jobs._context = None


def test_g24_a_command_service_has_a_start_and_a_stop_of_its_own(
    node: NodeFixture, alive_ticket: Callable[..., str], inside: Callable[[object], str]
) -> None:
    """G24: a DBMS in the same place is started and stopped by its own commands; a verb that it does not know is refused, listed or not."""
    write_config(node, services="dbms")
    start = alive_ticket(1, "start", [("command", "start"), ("command", "recover")])
    assert inside(command(node, start, 1, "command", "start")) == "ok"
    assert inside(command(node, start, 2, "command", "recover")).startswith("refused")
    assert [(one["reason"], one["n"]) for one in refusals(node)] == [("unknown-verb", 2)]
    stop = alive_ticket(2, "stop", [("command", "stop")])
    assert inside(command(node, stop, 1, "command", "stop")) == "ok"
    assert node.ran("command") == ["up", "down"]


def test_a_job_that_is_delivered_twice_runs_its_verb_once(
    node: NodeFixture, start: Callable[..., Running], alive_ticket: Callable[..., str]
) -> None:
    """The journal answers the second one; a third with another id gets no further."""
    write_config(node, services="server")
    running, queue = start(node), commands(node.client)
    ticket = alive_ticket(1, "start", [("server", "recover")])
    payload = command(node, ticket)
    queue.enqueue(wire.JOB_FUNCTION, payload, job_id="c1_n1-aa-1")
    queue.enqueue(wire.JOB_FUNCTION, payload, job_id="c1_n1-aa-1")
    queue.enqueue(wire.JOB_FUNCTION, payload, job_id="c1_n1-bb-1")
    wait_until(lambda: len(refusals(node)) == 2, "both refusals")
    assert {one["reason"] for one in refusals(node)} == {"already-run"}
    assert node.ran("server") == ["recover"]
    assert (node.folder / "journal" / f"{ticket}.1.ok").exists()
    proves_alive(node, running)


def test_a_servers_start_waits_for_its_agent(node: NodeFixture, alive_ticket: Callable[..., str], inside: Callable[[object], str]) -> None:
    """I2, G23: with its own agent down, the server is not started."""
    ticket = alive_ticket(1, "start", [("server", "recover")])
    assert "agent-down" in inside(command(node, ticket))
    node.dcstatus("agent", 0)
    assert inside(command(node, ticket)) == "ok"
    assert node.ran("server") == ["recover"]


def test_a_verdict_is_laid_beside_a_live_ticket_only(node: NodeFixture, inside: Callable[[object], str]) -> None:
    """Once the script has closed it, nobody would read it."""
    ticket = node.ticket(1, "start", [("server", "recover")])
    verdict = {"kind": "verdict", "ticket": ticket, "code": 40, "reason": "command failed"}
    assert inside(verdict) == "put"
    assert "code=40" in (node.folder / "tickets" / f"{ticket}.verdict").read_text()
    (node.folder / "tickets" / f"{ticket}.verdict").unlink()
    node.close(ticket)
    assert inside(verdict).startswith("refused")
    assert not (node.folder / "tickets" / f"{ticket}.verdict").exists()


def test_jobs_in_the_intermediate_list_are_taken_back_in_order(
    node: NodeFixture, start: Callable[..., Running], alive_ticket: Callable[..., str]
) -> None:
    """What a lost connection left there is performed at the next start, before what is queued."""
    write_config(node)
    node.dcstatus("agent", 1)
    queue = commands(node.client)
    ticket = alive_ticket(1, "stop", [("server", "faststop"), ("agent", "stop")])
    jobs = [command(node, ticket, 1, "server", "faststop"), command(node, ticket, 2, "agent", "stop")]
    for payload in jobs:
        queue.enqueue(wire.JOB_FUNCTION, payload)
    node.client.lmove(queue.key, queue.intermediate_queue_key, "LEFT", "RIGHT")
    node.client.lmove(queue.key, queue.intermediate_queue_key, "LEFT", "RIGHT")
    assert queue.count == 0
    running = start(node)
    wait_until(lambda: (node.folder / "journal" / f"{ticket}.2.ok").exists(), "both commands")
    assert (node.ran("server"), node.ran("agent"), refusals(node)) == (["faststop"], ["stop"], [])
    assert running.said("jobs of a lost connection taken back")[0]["count"] == 2


def test_a_worker_that_is_told_to_stop_leaves_its_launcher_running(
    node: NodeFixture, start: Callable[..., Running], alive_ticket: Callable[..., str]
) -> None:
    """SIGTERM ends the worker at once, in the middle of a command; the command's end is recorded all the same."""
    write_config(node, services="server")
    slow = node.base / "server.slow"
    (node.base / "server-command").write_text(f'echo "$1" >> "{node.base}/server.ran"\nwhile test -e "{slow}"; do sleep 0.05; done\n')
    slow.touch()
    running = start(node)
    ticket = alive_ticket(1, "start", [("server", "recover")])
    commands(node.client).enqueue(wire.JOB_FUNCTION, command(node, ticket))
    wait_until(lambda: node.ran("server"), "the command")
    assert running.stop() == 0
    assert not (node.folder / "journal" / f"{ticket}.1.ok").exists()
    slow.unlink()
    wait_until(lambda: (node.folder / "journal" / f"{ticket}.1.ok").exists(), "the launcher's own record")


def test_redis_killed_and_back(own_redis: EmbeddedRedis, tmp_path: Path, start: Callable[..., Running]) -> None:
    """The same process takes jobs again after an outage, and said so once."""
    with connect(own_redis.url) as client:
        node = make_node(tmp_path, own_redis.url, client)
        running = start(node)
        assert own_redis.pid is not None
        os.kill(own_redis.pid, signal.SIGKILL)
        wait_until(lambda: running.said("Redis does not answer; waiting"), "the outage")
        own_redis.stop()
        own_redis.start()
        proves_alive(node, running)
        assert len(running.said("Redis does not answer; waiting")) == 1


def test_without_redis_at_the_start_it_waits(own_redis: EmbeddedRedis, tmp_path: Path) -> None:
    """No Redis yet: one line, and work when it comes."""
    with connect(own_redis.url) as client:
        node = make_node(tmp_path, own_redis.url, client)
        own_redis.stop()
        running = Running(node)
        try:
            wait_until(lambda: running.said("Redis does not answer; waiting"), "the first try")
            own_redis.start()
            running.ready()
            assert running.stop() == 0
        finally:
            running.process.kill()
            running.process.wait()


def test_it_ends_with_its_parent(node: NodeFixture) -> None:
    """An orphan would take jobs for a node whose facts nobody forwards."""
    script = f"{sys.executable} -m workers.rqworker --role cmd --config {node.config} & echo $!; wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        wait_until(lambda: node.client.smembers("rq:workers"), "the child at work")
        parent.kill()
        wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the child's end")


def test_watch_windows_follow_each_other(node: NodeFixture, start: Callable[..., Running]) -> None:
    """A watch job on the watch queue polls, and ends at once when the worker is told to stop, leaving no poll behind."""
    write_config(node, watch='profile = "fast"\ninterval = "100ms"', services="server")
    running = start(node, "watch")
    queue = Queue(wire.watch_queue(CLUSTER, NODE), connection=node.client, serializer="json")
    queue.enqueue(wire.JOB_FUNCTION, {"kind": "watch"})
    wait_until(lambda: node.asked("server") >= 3, "polls")
    before = time.monotonic()
    node.dcstatus("server", "hang")
    wait_until(lambda: node.status("server").get("polling") == "1" and time.monotonic() > before + 0.3, "a poll that hangs")
    children = psutil.Process(running.process.pid).children(recursive=True)
    assert running.stop() == 0
    assert children
    _, left = psutil.wait_procs(children, timeout=10)
    assert left == []
