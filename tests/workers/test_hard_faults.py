"""Nonsense from Redis, facts nobody would write, a machine without space or descriptors: the node's processes live on and lose nothing."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from statemachines import wire
from tests.conftest import wait_until
from tests.workers.conftest import BOOT, CLUSTER, NODE, NodeFixture, Reports
from workers import files, journal, processes, runs, tickets, worker
from workers.forwarder import Forwarder
from workers.redisclient import connect
from workers.runs import Run
from workers.watch import Watch


def forwarder(node: NodeFixture, log: Any) -> Forwarder:
    return Forwarder(node.folder, CLUSTER, NODE, BOOT, node.client, log)


def put_fact(node: NodeFixture, name: str = "1-1-000001", **changes: object) -> Path:
    data = {"service": "server", "status": "healthy", "verified": False, "polls": 1}
    body = {"type": "ServicePolled", "version": 1, "source": "watch", "boot": BOOT, "mono": 1.0, "wall": 1.0, "data": data}
    path = node.folder / "outbox" / f"{name}.fact"
    files.write_aside(path, json.dumps({**body, **changes}))
    return path


@pytest.mark.parametrize(
    "clock",
    [{"mono": [1]}, {"wall": {"a": 1}}, {"mono": True, "wall": "soon"}, {"boot": 7}, {"mono": float("nan")}, {"wall": float("inf")}],
)
def test_clock_readings_of_another_type_are_put_aside(node: NodeFixture, log: Any, clock: dict[str, object]) -> None:
    """A fact whose clock readings are none is damaged, and the reason names the field; what follows arrives."""
    put_fact(node, "1-1-000001", **clock)
    put_fact(node, "2-1-000001")
    ours = forwarder(node, log)
    ours.step()
    ours.step()
    assert [one.mono for one in node.inbox("ServicePolled")] == [1.0]
    (dropped,) = node.inbox("FactsDropped")
    assert any(f" {name}" in dropped.data["reason"] for name in clock)


def test_a_clock_reading_that_was_written_as_text_is_one(node: NodeFixture, log: Any) -> None:
    """As a script in another language might write it."""
    put_fact(node, mono="12.5")
    forwarder(node, log).step()
    assert [one.mono for one in node.inbox("ServicePolled")] == [12.5]


def test_a_bell_that_must_not_be_rung_repeats_nothing(node: NodeFixture, log: Any) -> None:
    """Where the ACL forbids PUBLISH the facts arrive all the same, once: the orchestrator's sweep finds them."""
    node.client.execute_command("ACL", "SETUSER", "mute", "reset", "on", ">secret", "~*", "resetchannels", "+@all")  # type: ignore[no-untyped-call]
    try:
        with connect(node.url.replace("unix://", "unix://mute:secret@")) as client, capture_logs() as said:
            ours = Forwarder(node.folder, CLUSTER, NODE, BOOT, client, log)
            put_fact(node)
            for _ in range(5):
                ours.step(at_once=True)
        assert len(node.inbox()) == 1
        assert [line["event"] for line in said if "doorbell" in line["event"]] == [
            "the doorbell cannot be rung; facts are noticed by the orchestrator's sweep"
        ]
    finally:
        node.client.execute_command("ACL", "DELUSER", "mute")  # type: ignore[no-untyped-call]


def test_a_redis_that_refuses_to_write_is_asked_ever_more_seldom(node: NodeFixture, log: Any) -> None:
    """An inbox that takes nothing (memory full, read-only, another type) is tried with growing pauses, and said once."""
    node.client.set(wire.inbox(CLUSTER, NODE), "not a stream")
    put_fact(node)
    ours = forwarder(node, log)
    pauses = []
    with capture_logs() as said:
        for _ in range(5):
            ours.step(at_once=True)
            pauses.append(ours.courier._backoff_s)
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert [line["event"] for line in said] == ["Redis does not answer; facts wait on disk"]
    node.client.delete(wire.inbox(CLUSTER, NODE))
    ours.step(at_once=True)
    assert [one.seq for one in node.inbox()] == [1]
    assert ours.courier._backoff_s == 0.05


def test_a_fact_that_cannot_be_opened_now_is_not_given_up(node: NodeFixture, log: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a free file descriptor nothing is put aside as damaged and no number is spent on a lost fact; both go on later."""
    put_fact(node)
    ours = forwarder(node, log)
    really, failing = Path.read_bytes, True

    def read(path: Path) -> bytes:
        if failing and path.suffix == ".fact":
            raise OSError(errno.EMFILE, "Too many open files")
        return really(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    ours.step()
    ours.drain(0.1)
    assert not list((node.folder / "outbox" / "damaged").iterdir())
    failing = False
    ours.step(at_once=True)
    assert [one.type for one in node.inbox()] == ["ServicePolled"]
    failing = True
    ours.courier.again()
    ours.step(at_once=True)
    ours.drain(0.1)
    assert [one.type for one in node.inbox()] == ["ServicePolled"]


def test_a_batch_is_bounded_in_bytes(node: NodeFixture, log: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many large facts go in several pipelines, in order, and all of them arrive: one slow line must not make an endless repetition."""
    monkeypatch.setattr("workers.courier.BATCH_BYTES", 150_000)
    for n in range(6):
        put_fact(node, f"{n + 1}-1-000001", data={"text": "x" * 100_000})
    ours = forwarder(node, log)
    ours.step()
    assert [one.seq for one in node.inbox()] == [1, 2]
    ours.step()
    ours.step()
    assert [one.seq for one in node.inbox()] == [1, 2, 3, 4, 5, 6]


def test_polls_go_on_without_a_place_for_temporary_files(node: NodeFixture, reports: Reports, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full or read-only /tmp costs probes their answer and no service its polls."""

    def full(*_: object, **__: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    node.dcstatus("server", 0)
    watch = Watch(node.settings(), BOOT, node.client, reports)
    wait_until(lambda: watch.step() or node.status("server").get("status") == "healthy", "the poll")  # type: ignore[func-returns-value]
    run = Run(["echo", "x"], 5.0, keep_output=True)
    outcome = run.poll()
    assert outcome is not None and outcome.code is None and "temporary" in outcome.error
    watch.discard()


def test_a_command_that_prints_without_end_is_ended_and_leaves_the_disk_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a probe prints is bounded; a dcstatus's output is not even kept."""
    monkeypatch.setattr("workers.runs.OUTPUT_LIMIT_BYTES", 100_000)
    run = Run(["sh", "-c", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done"], 600.0, keep_output=True)
    outcome = wait_until(run.poll, "the end")
    assert outcome is not None and outcome.code is None and "100000 bytes" in outcome.error
    silent = Run(["sh", "-c", "head -c 3000000 /dev/zero"], 600.0, keep_output=False)
    outcome = wait_until(silent.poll, "the end")
    assert outcome is not None and (outcome.code, outcome.output) == (0, "")


def test_a_poll_that_cannot_be_ended_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dcstatus that hangs in the kernel is unknown at its limit, and nobody waits for it; of one command only a few are left behind."""
    command = ["sleep", "599"]
    left: list[Run] = []
    with monkeypatch.context() as patch:
        patch.setattr(processes, "_end_group", lambda pid: None)
        for _ in range(runs.LEFT_LIMIT):
            left.append(Run(command, 0.05))
            outcome = wait_until(left[-1].poll, "the outcome")
            assert outcome is not None and (outcome.code, outcome.error) == (None, "limit")
        outcome = Run(command, 0.05).poll()
        assert outcome is not None and outcome.code is None and "cannot be ended" in outcome.error
        other = wait_until(Run(["true"], 20.0).poll, "another command")
        assert other is not None and other.code == 0
    for run in left:
        assert run._process is not None and run._process.poll() is None
        processes._end_group(run._process.pid)
    wait_until(lambda: runs._count_left(tuple(command)) == 0, "their end")


def test_a_watch_survives_a_journal_that_cannot_be_listed(node: NodeFixture, reports: Reports, monkeypatch: pytest.MonkeyPatch) -> None:
    """Polls go on; what ended meanwhile is seen when the folder can be listed again."""
    node.dcstatus("server", 0)
    really, failing = os.listdir, True

    def listdir(path: Any) -> list[str]:
        if failing and str(path).endswith("journal"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return really(path)

    monkeypatch.setattr(os, "listdir", listdir)
    watch = Watch(node.settings(), BOOT, node.client, reports)
    wait_until(lambda: watch.step() or node.status("server").get("status") == "healthy", "the poll")  # type: ignore[func-returns-value]
    ticket = node.ticket(1, "start", [("server", "recover")])
    node.journal(ticket, 1, "ok", "server")
    failing = False
    wait_until(lambda: watch.step() or watch.services["server"].ticket == ticket, "the command's end")  # type: ignore[func-returns-value]
    watch.discard()


def test_a_full_disk_keeps_no_worker_from_starting(tmp_path: Path) -> None:
    """The lock is what counts; the pid in its file is for people."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    (tmp_path / "worker.lock").symlink_to("/dev/full")
    lock = worker.lock_folder(tmp_path)
    with pytest.raises(OSError, match="another dcsup worker"):
        worker.lock_folder(tmp_path)
    lock.close()


def test_what_belongs_to_no_ticket_is_cleared_away_after_a_while(node: NodeFixture) -> None:
    """Journals of calls whose ticket could not be made, and signs of life without a ticket, do not stay for ever; young ones do."""
    kept = node.ticket(1, "start", [("agent", "start")])
    journal.write(node.folder, kept, 1, "ok", {})
    orphans = [node.folder / "journal" / "unknown-g1-5-start.1.ok", node.folder / "tickets" / f"{BOOT}-g1-6-start.alive"]
    young = node.folder / "journal" / "unknown-g1-7-start.1.ok"
    for path in (*orphans, young):
        path.write_text("x=1\n")
    old = time.time() - 3 * 86400
    for path in (*orphans, *(node.folder / "journal").glob(f"{kept}*"), *(node.folder / "tickets").glob(f"{kept}*")):
        os.utime(path, (old, old))
    tickets.prune(node.folder)
    assert [path.exists() for path in orphans] == [False, False]
    assert young.exists()
    assert journal.read(node.folder, kept, 1) is not None
    assert tickets.find(node.folder, kept) is not None
