"""`dcsup worker`: the parent keeps its children and the watch alive, forwards, settles, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.embedded import EmbeddedRedis
from statemachines import wire
from statemachines.facts import parse_body
from tests.conftest import wait_until
from tests.workers.conftest import BOOT, CLUSTER, NODE, NodeFixture, log_lines, make_node, wait_for, write_config
from workers import outbox, watch
from workers.redisclient import connect
from workers.settings import load_node
from workers.worker import Worker

RUN = "import sys; from workers.worker import run; sys.exit(run(sys.argv[1]))"


class Parent:
    """A `dcsup worker` under test."""

    def __init__(self, node: NodeFixture, run: str = RUN) -> None:
        self.said_path = node.base / "worker.log"
        with self.said_path.open("ab") as log:
            argv = [sys.executable, "-c", run, str(node.config)]
            self.process = subprocess.Popen(argv, stderr=log, env={**os.environ, "DCSUP_LOG": "json"})

    def said(self, event: str) -> list[dict[str, Any]]:
        return log_lines(self.said_path, event)

    def tree(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, role: str) -> psutil.Process | None:
        """The child of this role that is alive."""
        for process in psutil.Process(self.process.pid).children():
            try:
                if role in process.cmdline():
                    return process
            except psutil.Error:  # it ended just now
                continue
        return None


@pytest.fixture
def parent() -> Iterator[Callable[[NodeFixture], Parent]]:
    """parent(node): a running worker, ended with everything below it when the test ends."""
    running: list[Parent] = []

    def begin(node: NodeFixture, run: str = RUN) -> Parent:
        running.append(Parent(node, run))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.process.terminate()
            try:
                one.process.wait(20)
            except subprocess.TimeoutExpired:
                for process in one.tree():
                    process.kill()
                one.process.kill()
                one.process.wait()


def gone(processes: list[psutil.Process]) -> bool:
    return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes)


def test_it_joins_forwards_and_gives_signs_of_life(node: NodeFixture, parent: Callable[[NodeFixture], Parent]) -> None:
    """NodeJoined, everyone's facts, the watch's polls, and a liveness key with the counters."""
    write_config(node, watch='profile = "fast"\ninterval = "100ms"', services="server")
    ours = parent(node)
    wait_until(lambda: node.inbox("NodeJoined"), "NodeJoined")
    assert node.inbox("NodeJoined")[0].data["boot"] == BOOT
    outbox.write_fact(node.folder, "WatchHookStarted", "hook", {"service": "server"}, BOOT)
    wait_until(lambda: node.inbox("WatchHookStarted"), "the hook's fact")
    wait_until(lambda: node.inbox("ServicePolled"), "the watch's fact")
    assert all(parse_body(one, NODE) for one in node.inbox())
    value: Any = wait_until(lambda: node.client.get(wire.alive(CLUSTER, NODE)), "the sign of life")
    sign = json.loads(value)
    assert (sign["boot"], sign["pid"], sign["dropped"], sign["refused"]) == (BOOT, ours.process.pid, 0, 0)
    assert 0 < int(node.client.pttl(wire.alive(CLUSTER, NODE))) <= 2000


def test_a_worker_that_comes_back_says_what_it_sees_though_nothing_changed(
    node: NodeFixture, parent: Callable[[NodeFixture], Parent]
) -> None:
    """Who leads forgets a node's polls when a worker joins: they are told again, behind the joining, or a suspicion stays open."""
    write_config(node, watch='profile = "fast"\ninterval = "100ms"', services="server")
    first = parent(node)
    wait_until(lambda: node.inbox("ServicePolled"), "the first worker's poll")
    first.process.kill()
    first.process.wait()
    parent(node)

    def joined() -> list[int]:
        return sorted({one.seq for one in node.inbox("NodeJoined")})  # what has no mark yet is handed in again

    wait_until(lambda: len(joined()) == 2, "the second worker", 120)

    def told_behind() -> bool:
        return any(one.seq > joined()[1] for one in node.inbox("ServicePolled"))

    wait_until(told_behind, "the second worker's poll")


def test_a_killed_child_is_started_again(node: NodeFixture, parent: Callable[[NodeFixture], Parent]) -> None:
    """Its successor works; a killed watch's job is seeded again, and polls go on."""
    write_config(node, watch='profile = "fast"\ninterval = "100ms"', services="server")
    ours = parent(node)
    wait_until(lambda: node.asked("server") >= 2, "polls")
    for role in ("cmd", "watch"):
        first = wait_for(lambda role=role: ours.child(role), "the child")  # type: ignore[misc]
        first.kill()
    wait_until(lambda: len(ours.said("ready")) == 4, "both successors at work", 120)
    asked = node.asked("server")
    wait_until(lambda: node.asked("server") >= asked + 3, "polls after it")
    assert {line["child"] for line in ours.said("child ended; starting it again")} == {"cmd", "watch"}


def test_a_watch_job_that_redis_lost_is_seeded_again(node: NodeFixture, parent: Callable[[NodeFixture], Parent]) -> None:
    """No job queued, none running: within the sign of life's time there is one again."""
    write_config(node, watch='profile = "fast"\ninterval = "100ms"', services="server")
    parent(node)
    wait_until(lambda: node.asked("server") >= 2, "polls")
    node.client.flushall()
    wait_until(lambda: node.client.exists(wire.watch_alive(CLUSTER, NODE)), "the sign of life")
    asked = node.asked("server")
    wait_until(lambda: node.asked("server") >= asked + 3, "polls after it")


def test_a_watch_job_that_a_dead_connection_took_is_seeded_again(node: NodeFixture, log: Any) -> None:
    """A pop that Redis answers into a dead connection leaves the job between the lists: when no watch gives a sign, there is one again."""
    write_config(node, services="server")
    ours = Worker(load_node(node.config), str(node.config), BOOT, log, threading.Event())
    queue = watch.queue(node.client, CLUSTER, NODE)
    ours._seed_watch()
    assert node.client.rpoplpush(queue.key, queue.intermediate_queue_key) is not None

    def is_seeded() -> bool:
        ours._seed_watch()
        return bool(node.client.llen(queue.key))

    assert not is_seeded(), "it may be about to run"
    wait_until(is_seeded, "another job, after the sign of life's time")


def test_told_to_stop_it_leaves_nothing_behind(node: NodeFixture, parent: Callable[[NodeFixture], Parent]) -> None:
    """SIGTERM with a poll that hangs: NodeLeft arrives, exit code 0, no process of the tree is left."""
    write_config(node, watch='profile = "fast"\ninterval = "100ms"', services="server")
    node.dcstatus("server", "hang")
    ours = parent(node)
    wait_until(lambda: node.asked("server") == 1 and len(ours.tree()) >= 3, "children and a poll")
    everyone = ours.tree()
    ours.process.send_signal(signal.SIGTERM)
    assert ours.process.wait(30) == 0
    assert node.inbox("NodeLeft")
    wait_until(lambda: gone(everyone), "the end of the whole tree")


PATIENT = "import sys; from workers import worker; worker.STOP_LIMIT_S = 600; sys.exit(worker.run(sys.argv[1]))"


def test_while_its_children_end_it_forwards_and_gives_signs_of_life(node: NodeFixture, parent: Callable[..., Parent]) -> None:
    """A child may take its time: until the node has said that it leaves, nobody takes it for lost."""
    write_config(node, services="server")
    ours = parent(node, PATIENT)
    wait_until(lambda: len(ours.said("ready")) == 2, "both children")
    slow = wait_for(lambda: ours.child("watch"), "the watch")
    slow.suspend()
    try:
        ours.process.terminate()
        wait_until(lambda: ours.said("stopping"), "its hearing of it")
        outbox.write_fact(node.folder, "WatchHookStarted", "hook", {"service": "server"}, BOOT)
        wait_until(lambda: node.inbox("WatchHookStarted"), "a fact of meanwhile")
        node.client.delete(wire.alive(CLUSTER, NODE))
        wait_until(lambda: node.client.exists(wire.alive(CLUSTER, NODE)), "the next sign of life")
        assert not node.inbox("NodeLeft")
    finally:
        slow.resume()
    assert ours.process.wait(60) == 0
    assert node.inbox("NodeLeft")


def test_a_killed_parent_takes_its_children_along(node: NodeFixture, parent: Callable[[NodeFixture], Parent]) -> None:
    """SIGKILL cannot be answered; the children notice, and the next worker has the folder for itself."""
    write_config(node, services="server")
    ours = parent(node)
    wait_until(lambda: len(ours.said("ready")) == 2, "both children")
    children = ours.tree()
    ours.process.kill()
    ours.process.wait()
    wait_until(lambda: gone(children), "the children's end")
    again = parent(node)
    wait_until(lambda: len(again.said("ready")) == 4, "the next worker")
    assert again.process.poll() is None


def test_a_launcher_that_is_gone_is_settled(node: NodeFixture, parent: Callable[[NodeFixture], Parent]) -> None:
    """The ticket goes back to the worker, the journal says lost, and the orchestrator hears of it."""
    ticket = node.ticket(1, "start", [("server", "recover")], state="busy-1-999999-1")
    parent(node)
    wait_until(lambda: node.inbox("CommandEnded"), "the fact")
    assert node.inbox("CommandEnded")[0].data["result"] == "lost"
    assert (node.folder / "journal" / f"{ticket}.1.lost").exists()
    assert (node.folder / "tickets" / f"{ticket}.worker").exists()


def test_without_redis_it_says_so_and_goes_on_later(
    own_redis: EmbeddedRedis, tmp_path: Path, parent: Callable[[NodeFixture], Parent]
) -> None:
    """Redis not reachable at the start is a line in the log; facts wait, and arrive when it is there."""
    with connect(own_redis.url) as client:
        node = make_node(tmp_path, own_redis.url, client)
        own_redis.stop()
        ours = parent(node)
        wait_until(lambda: ours.said("Redis does not answer; facts wait on disk"), "the line")
        outbox.write_fact(node.folder, "WatchHookStarted", "hook", {"service": "server"}, BOOT)
        wait_until(lambda: node.outbox_facts() == [], "the fact's number")
        assert ours.process.poll() is None
        own_redis.start()
        wait_until(lambda: node.inbox("WatchHookStarted"), "the fact")
        wait_until(lambda: len(ours.said("ready")) == 2, "both children at work")


def run_once(config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", RUN, str(config)], capture_output=True, text=True, timeout=60, check=False)


def test_what_makes_no_start_is_said_in_one_line(node: NodeFixture, parent: Callable[[NodeFixture], Parent]) -> None:
    """Exit code 2 and no traceback: no file, no [node] table, a folder that cannot be made, a second worker on the same folder."""

    def answer(config: Path) -> tuple[int, str]:
        done = run_once(config)
        return done.returncode, done.stderr

    assert answer(node.base / "nowhere.toml")[0] == 2
    bare = node.base / "bare.toml"
    bare.write_text(node.config.read_text().partition("[node]")[0])
    assert "no [node] table" in answer(bare)[1]
    blocked = node.base / "blocked.toml"
    (node.base / "file").write_text("")
    blocked.write_text(node.config.read_text().replace(f'folder = "{node.folder}"', f'folder = "{node.base}/file/node"'))
    code, said = answer(blocked)
    assert (code, "Traceback" in said, str(node.base / "file") in said) == (2, False, True)
    ours = parent(node)
    wait_until(lambda: node.inbox("NodeJoined"), "the first worker")
    code, said = answer(node.config)
    assert code == 2
    assert f"another dcsup worker runs with this folder (pid {ours.process.pid})" in said


def test_old_tickets_are_cleared_away(node: NodeFixture, parent: Callable[[NodeFixture], Parent]) -> None:
    """A node that runs for years keeps the newest tickets that are over, every one that is not, and no half-written file of the dead."""
    left_over = node.folder / "journal" / ".tmp-1-1-x"
    left_over.write_text("half")
    os.utime(left_over, (0, 0))
    for seq in range(1, 71):
        node.ticket(seq, "start", [("server", "recover")], state="done")
    node.ticket(100, "start", [("server", "recover")], state="script")
    parent(node)
    wait_until(lambda: len(list((node.folder / "tickets").glob("*.done"))) == 50, "the clearing")
    assert list((node.folder / "tickets").glob("*.script"))
    wait_until(lambda: not left_over.exists(), "the end of the half-written file")


def test_a_fact_is_noticed_while_redis_hangs(own_redis: EmbeddedRedis, tmp_path: Path, parent: Callable[[NodeFixture], Parent]) -> None:
    """A server that is paused (SIGSTOP) and goes on: nothing is lost, nothing is numbered twice."""
    with connect(own_redis.url, timeout_s=10.0) as client:
        node = make_node(tmp_path, own_redis.url, client)
        parent(node)
        wait_until(lambda: node.inbox("NodeJoined"), "the start")
        assert own_redis.pid is not None
        os.kill(own_redis.pid, signal.SIGSTOP)
        try:
            for _ in range(3):
                outbox.write_fact(node.folder, "WatchHookStarted", "hook", {"service": "server"}, BOOT)
            wait_until(lambda: node.outbox_facts() == [], "their numbers")
        finally:
            os.kill(own_redis.pid, signal.SIGCONT)
        wait_until(lambda: len({one.seq for one in node.inbox("WatchHookStarted")}) == 3, "all three")
        streams = {(one.stream, one.seq): one.type for one in node.inbox()}
        by_file = sorted(int(path.stem) for path in (node.folder / "outbox" / "numbered").glob("*.fact"))
        assert [seq for _, seq in sorted(streams)] == by_file[: len(streams)]
