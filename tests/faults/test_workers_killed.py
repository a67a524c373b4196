"""Workers that are killed, halted and doubled under real calls: no command is lost, none runs behind anybody's back.

Each cell has a node of its own, so that all of them go on at once: the call is brought to a point, somebody is killed, and the log tells
how it went on.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil
import pytest

from tests.conftest import wait_until
from tests.faults.node_calls import VERBS, WHOLE, Call, bring, happened, play, see_ends, settle
from tests.faults.node_site import LIMIT_S, Installation, SiteNode, halted, installation
from tests.protocol.bench import killed_at_end
from workers import files, journal

LOST_AND_RUN = ["called", "began 1", "ended 1 lost", "began 1", "ended 1 ok", "began 2", "ended 2 ok", "script 0"]
"""A command whose launcher is gone is lost; the script asks dcstatus, and runs it where that is not 0."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("killed"), len(VICTIMS)) as one:
        for node in one.nodes:
            node.configure(DCSUP_HOOK_SILENCE=60)  # the gate is the test's, and no hook that hangs
        yield one


# -- who is killed


def rq_worker(call: Call) -> None:
    """The RQ worker of the command queue; its parent starts another one."""
    call.node.role("cmd").kill()


def parent(call: Call) -> None:
    """The worker's parent; its children are orphans, and the system starts the service again."""
    worker = call.node.worker
    assert worker is not None
    worker.kill()
    worker.wait(LIMIT_S)
    call.release()
    wait_until(lambda: not call.node.is_locked(), "the folder", LIMIT_S)
    call.node.begin_worker()


def launcher(call: Call) -> None:
    """The launcher alone: what it has started lives on in its group."""
    os.kill(launcher_of(call), signal.SIGKILL)


def command(call: Call) -> None:
    """The launcher with its command; the RQ worker stands still, so that the launcher stays a zombie."""
    pid = launcher_of(call)
    call.halt()
    os.killpg(pid, signal.SIGKILL)
    wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, "the zombie", LIMIT_S)
    call.node.take(call.first, "hold")
    wait_until(lambda: call.node.entry(call.ticket, 1, "lost"), "the reaper", LIMIT_S)


def launcher_of(call: Call) -> int:
    pid = next(one.pid for one in call.node.tickets() if one.id == call.ticket)
    assert pid is not None
    return pid


VICTIMS: list[tuple[Callable[[Call], None], str, list[str]]] = [
    (rq_worker, "queued", WHOLE),
    (rq_worker, "begun", WHOLE),
    (rq_worker, "ended", WHOLE),
    (parent, "queued", WHOLE),
    (parent, "begun", WHOLE),
    (launcher, "taken", LOST_AND_RUN),
    (launcher, "begun", LOST_AND_RUN),
    (command, "begun", LOST_AND_RUN),
]


def test_whoever_is_killed_before_in_or_after_a_command_it_is_done_and_told(made: Installation) -> None:
    """RQ worker, parent, launcher, command: the call ends 0; a verb runs twice only where the first was ended in its middle (I7)."""
    calls = [Call(node, "start", point) for node, (_, point, _) in zip(made.nodes, VICTIMS, strict=True)]
    bring(made, calls)
    for call, (kill, _, _) in zip(calls, VICTIMS, strict=True):
        kill(call)
        call.release()
    see_ends(calls)
    settle(made, calls)
    for call, (kill, point, story) in zip(calls, VICTIMS, strict=True):
        words = f"{kill.__name__} {point}"
        assert happened(made.story(call.node, call.ticket)) == story, words
        assert call.verbs() == (VERBS["start"][:1] if kill is command else []) + VERBS["start"], words
        assert call.node.recorded("end ")[-2:] == ["end agent start", "end server recover"], words
    play(made, "stop")


def test_a_stop_ends_a_start_that_still_waits_asks_runs_or_polls(made: Installation) -> None:
    """N6: after the stop has returned 0 nothing of the start runs any more, whatever was on its way; the start is not up, and says so."""
    points = ("ticket", "queued", "taken", "begun", "ended", "unverified")
    starts = [Call(node, "start", point) for node, point in zip(made.nodes, points, strict=False)]
    bring(made, starts)
    stops = [Call(start.node, "stop") for start in starts]
    with ThreadPoolExecutor(len(stops)) as pool:
        list(pool.map(Call.begin, stops))
    for stop in stops:
        stop.ticket = stop.node.await_ticket(stop.known)
        stop.node.take("agent", "hold", "ask-hold")  # what held the start's command; by now that was ended
    for stop in stops:
        assert stop.process.wait(LIMIT_S) == 0
    for start in starts:
        start.node.take("server", "late")
        start.point = ""  # the service does not come later: it was stopped
        start.release()
    see_ends(starts, code=40)
    settle(made, stops)
    for start, stop, point in zip(starts, stops, points, strict=False):
        assert stop.verbs() == VERBS["stop"], point
        assert list(start.node.home.glob("*.up")) == [], point
        assert made.jobs(start.node) == 0


def refused_of(made: Installation, call: Call) -> set[str]:
    """Why jobs of this call were refused, as the log tells it."""
    refused = (entry.data for entry in made.log(call.node) if entry.type == "CommandRefused")
    return {data["reason"] for data in refused if data["ticket"] == call.ticket}


def redis_ms(made: Installation) -> int:
    seconds, microseconds = made.site.client.time()
    return int(seconds * 1000 + microseconds // 1000)


def test_a_machine_that_was_halted_runs_no_late_job(made: Installation) -> None:
    """As a paused virtual machine: all that belongs to the node stands still until the job's time is over, and the worker wakes first."""
    node = made.nodes[0]
    call = Call(node, "start", "queued")
    bring(made, [call])
    issued = [entry.data for entry in made.log(node) if entry.type == "CommandIssued" and entry.data["ticket"] == call.ticket]
    os.killpg(call.process.pid, signal.SIGSTOP)
    worker = node.worker_tree()
    for process in worker:
        process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: redis_ms(made) > issued[0]["not_after_ms"], "the end of the job's time", LIMIT_S)
    finally:
        call.release()
        for process in worker:
            process.send_signal(signal.SIGCONT)
        wait_until(lambda: made.jobs(node) == 0, "the late job's refusal", LIMIT_S)
        os.killpg(call.process.pid, signal.SIGCONT)
    see_ends([call])
    settle(made, [call])
    assert happened(made.story(node, call.ticket)) == WHOLE
    assert call.verbs() == VERBS["start"]
    entry = journal.read(node.folder, call.ticket, 1)
    assert entry is not None and entry.fields["by"] == "script"
    wait_until(lambda: "late" in refused_of(made, call), "the late job's refusal in the log", LIMIT_S)
    play(made, "stop", [node])


def test_two_machines_that_call_themselves_the_same_node_run_nothing_for_each_other(made: Installation) -> None:
    """A job that the wrong one takes finds no ticket there; the call that asked ends 0 all the same, each verb once, on its own machine."""
    node = made.nodes[1]
    twin = SiteNode(made.base / "twin", node.cluster, made.redis.url)
    try:
        twin.begin_worker()
        twin.await_worker()
        with halted(node.role("cmd")):  # every job goes to the wrong one
            call = Call(node, "start")
            bring(made, [call])
            see_ends([call])
        settle(made, [call])
        assert (call.verbs(), twin.verbs()) == (VERBS["start"], [])
        assert happened(made.story(node, call.ticket)) == WHOLE
        refused = wait_until(lambda: refused_of(made, call), "the wrong one's refusal", LIMIT_S)
        assert refused <= {"no-ticket", "late"}  # late: the job had reached the right one, which stood still
    finally:
        twin.end()
    play(made, "stop", [node])


@pytest.mark.parametrize("answer", ["always-good", "flapping"])
def test_a_dcstatus_that_cannot_be_trusted_makes_no_verb_run_twice(made: Installation, answer: str) -> None:
    """0 for ever: a start has nothing to run, and says so. Now 0, now not: each verb once at most, and the call ends by its deadline."""
    node = made.nodes[2]
    ran = len(node.verbs())
    before = {name: (node.bin / f"dcstatus-{name}").read_text() for name in ("agent", "server")}
    node.configure(DCSUP_START_DEADLINE=10)
    try:
        for name in before:
            count = node.home / f"{name}.count"
            flapping = f"n=$(cat '{count}' 2>/dev/null || echo 0); echo $((n + 1)) >'{count}'; exit $((n % 2 * 7))"
            node.script(f"dcstatus-{name}", f"#!/bin/sh\n{'exit 0' if answer == 'always-good' else flapping}\n")
        code = node.begin("start.sh").wait(LIMIT_S)
        verbs = node.verbs()[ran:]
        assert code == 0 if answer == "always-good" else code in (0, 40)
        assert verbs == [] if answer == "always-good" else len(verbs) == len(set(verbs))
    finally:
        node.configure(DCSUP_START_DEADLINE=60)
        for name, text in before.items():
            node.script(f"dcstatus-{name}", text)
            node.put(name, "up")
    assert node.begin("stop.sh", CLP_FACTOR="GROUPSTOP").wait(LIMIT_S) == 0
    assert node.verbs()[ran:][-2:] == VERBS["stop"]


def test_a_second_worker_on_the_same_folder_does_not_begin(made: Installation) -> None:
    """Two forwarders would give numbers twice: the second says whose the folder is, and ends with 2."""
    node = made.nodes[3]
    first = node.worker
    assert first is not None
    node.begin_worker()
    second = node.worker
    assert second is not None
    with killed_at_end(second):
        assert second.wait(LIMIT_S) == 2
    node.worker = first
    assert f"another dcsup worker runs with this folder (pid {first.pid})" in node.worker_said()


def test_a_poll_or_a_probe_that_a_dead_worker_left_behind_does_no_harm(made: Installation) -> None:
    """The watch is killed in the middle of a dcstatus: the next one polls anew, and what the old one says is nobody's word."""
    node = made.nodes[4]
    with suppress(psutil.Error):
        node.put("agent", "ask-hold")
        wait_until(lambda: node.polled("agent").get("polling") == "1", "a poll that hangs", LIMIT_S)
        watch = node.role("watch")
        watch.kill()
    began = time.monotonic()
    wait_until(lambda: node.polled("server").get("pid") not in (None, "", str(watch.pid)), "the next watch", LIMIT_S)
    node.take("agent", "ask-hold")
    wait_until(lambda: (files.to_float(node.polled("agent").get("mono")) or 0.0) > began, "a poll of the next watch", LIMIT_S)
    play(made, "start", [node])
    play(made, "stop", [node])
