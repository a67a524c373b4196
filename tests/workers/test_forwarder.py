"""The forwarder: numbers are given once and in order, nothing is lost, nothing stops the others."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from orchestrator.embedded import EmbeddedRedis
from statemachines import wire
from statemachines.facts import TYPES, parse_body
from tests.conftest import wait_until
from tests.workers.conftest import BOOT, CLUSTER, NODE, NodeFixture, make_node
from workers import files, outbox
from workers.forwarder import Forwarder
from workers.rawfacts import Damaged, read_fact
from workers.redisclient import connect
from workers.sequences import DiskSequence

Stepped = Callable[[Callable[[], object], Callable[[], Any]], Callable[[], Any]]


def forwarder(node: NodeFixture, log: Any) -> Forwarder:
    return Forwarder(node.folder, CLUSTER, NODE, BOOT, node.client, log)


def poll_fact(node: NodeFixture, polls: int) -> None:
    data = {"service": "server", "status": "healthy", "verified": False, "polls": polls}
    outbox.write_fact(node.folder, "ServicePolled", "watch", data, BOOT)


def numbered(node: NodeFixture) -> list[str]:
    return sorted(path.name for path in (node.folder / "outbox" / "numbered").iterdir())


def test_a_batch_files_lines_keep_their_order(node: NodeFixture, log: Any) -> None:
    """They count behind a common word, for a batch file knows no time; among others they stand by the file's time."""
    now = time.time_ns()
    names = ["line-17-000001", "line-17-000002", f"{now + 2_000_000_000}-9-000001"]
    for name, service in zip(reversed(names), ("late", "second", "first"), strict=True):
        path = node.folder / "outbox" / f"{name}.line"
        path.write_text(f"type=WatchHookStarted\nsource=script\nboot={BOOT}\nservice={service}\n")
        os.utime(path, ns=(now, now))
    Forwarder(node.folder, CLUSTER, NODE, BOOT, node.client, log).step()
    assert [one.data["service"] for one in node.inbox()] == ["first", "second", "late"]


def test_facts_arrive_in_the_order_in_which_they_were_written(node: NodeFixture, log: Any) -> None:
    """Consecutive numbers from 1, in writing order, in one stream, each a valid fact."""
    for n in range(1, 6):
        poll_fact(node, n)
    forwarder(node, log).step()
    arrived = node.inbox()
    assert [one.seq for one in arrived] == [1, 2, 3, 4, 5]
    assert [one.data["polls"] for one in arrived] == [1, 2, 3, 4, 5]
    assert len({one.stream for one in arrived}) == 1
    assert all(parse_body(one, NODE) for one in arrived)


def test_the_doorbell_rings_for_each_handing_in(node: NodeFixture, log: Any) -> None:
    """Whoever listens to the cluster's bell hears the node's name."""
    with node.client.pubsub() as ear:  # type: ignore[no-untyped-call]
        ear.subscribe(wire.bell(CLUSTER))
        ear.get_message(timeout=2)
        poll_fact(node, 1)
        forwarder(node, log).step()
        heard = wait_until(lambda: ear.get_message(timeout=1), "the bell")
    assert heard["data"] == NODE.encode()


def test_numbers_go_on_after_a_restart(node: NodeFixture, log: Any) -> None:
    """A new process goes on with the next number of the same stream, also when everything was acknowledged."""
    poll_fact(node, 1)
    first = forwarder(node, log)
    first.step()
    node.set_mark({first.disk.stream: 1})
    second = forwarder(node, log)
    second.step()
    assert numbered(node) == ["000000000001.done"]
    poll_fact(node, 2)
    third = forwarder(node, log)
    third.step()
    assert third.disk.stream == first.disk.stream
    assert node.inbox()[-1].seq == 2


def test_nothing_is_deleted_before_the_mark_has_passed_it(node: NodeFixture, log: Any, stepped: Stepped) -> None:
    """Facts above the mark stay on disk; of those below it only the highest stays, as the place where numbering goes on."""
    for n in range(1, 5):
        poll_fact(node, n)
    ours = forwarder(node, log)
    ours.step()
    assert len(numbered(node)) == 4
    node.set_mark({"anotherstream": 4})
    ours.courier._mark_read = 0.0
    ours.step()
    assert len(numbered(node)) == 4
    node.set_mark({ours.disk.stream: 2})
    wait_until(stepped(ours.step, lambda: ours.courier.pending == 2), "the mark")
    assert numbered(node) == ["000000000002.done", "000000000003.fact", "000000000004.fact"]
    poll_fact(node, 5)
    ours.step()
    assert node.inbox()[-1].oldest == 3


def test_what_the_mark_has_passed_is_let_go_of_when_the_disk_answers_again(tmp_path: Path) -> None:
    """A disk that fails at that moment keeps no fact waiting for ever: the next look at the mark lets go of it."""
    outbox.write_fact(tmp_path, "WatchHookStarted", "hook", {"service": "server"}, BOOT)
    sequence = DiskSequence(tmp_path)
    sequence.number_new()
    away = sequence.numbered.rename(tmp_path / "away")
    with pytest.raises(OSError):
        sequence.acknowledge(1)
    away.rename(sequence.numbered)
    sequence.acknowledge(1)
    assert [path.name for path in sequence.numbered.iterdir()] == ["000000000001.done"]


def test_without_progress_everything_above_the_mark_is_offered_again(
    node: NodeFixture, log: Any, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An inbox that lost its entries while the connection stood gets them again, and only those above the mark."""
    monkeypatch.setattr("workers.courier.AGAIN_FIRST_S", 0.05)
    for n in range(1, 4):
        poll_fact(node, n)
    ours = forwarder(node, log)
    ours.step()
    node.set_mark({ours.disk.stream: 1})
    wait_until(stepped(ours.step, lambda: ours.courier.pending == 2), "the mark")
    node.client.delete(wire.inbox(CLUSTER, NODE))
    wait_until(stepped(ours.step, lambda: node.inbox()), "the second offer")
    assert [one.seq for one in node.inbox()][:2] == [2, 3]


def test_a_mark_that_goes_backwards_brings_everything_again(node: NodeFixture, log: Any, stepped: Stepped) -> None:
    """A log that lost its tail is told so (LogTailLost names both heads), once, and gets the facts again that are still here."""
    for n in range(1, 5):
        poll_fact(node, n)
    ours = forwarder(node, log)
    ours.step()
    node.set_mark({ours.disk.stream: 2}, commit=7, last_id="7-0")
    wait_until(stepped(ours.step, lambda: ours.courier.pending == 2), "the mark")
    node.client.delete(wire.inbox(CLUSTER, NODE))
    node.set_mark({ours.disk.stream: 1}, commit=6, last_id="6-0", last_hash="bb")
    wait_until(stepped(ours.step, lambda: node.inbox("LogTailLost")), "LogTailLost")
    lost = node.inbox("LogTailLost")
    assert [one.data for one in lost] == [{"seen_id": "7-0", "found_id": "6-0"}]
    assert {3, 4} <= {one.seq for one in node.inbox()}


def test_a_log_that_lost_others_tails_may_have_lost_our_inbox_too(
    node: NodeFixture, log: Any, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older head under the same mark and the same connection: what waits is offered again at once."""
    monkeypatch.setattr("workers.courier.AGAIN_FIRST_S", 3600.0)
    for n in range(1, 4):
        poll_fact(node, n)
    ours = forwarder(node, log)
    ours.step()
    node.set_mark({ours.disk.stream: 1}, commit=7, last_id="7-0")
    wait_until(stepped(ours.step, lambda: ours.courier.pending == 2), "the mark")
    node.client.delete(wire.inbox(CLUSTER, NODE))
    node.set_mark({ours.disk.stream: 1}, commit=6, last_id="6-0", last_hash="bb")
    wait_until(stepped(ours.step, lambda: {2, 3} <= {one.seq for one in node.inbox()}), "the second offer")


def test_a_lost_tail_is_noticed_after_a_restart_too(node: NodeFixture, log: Any, stepped: Stepped) -> None:
    """The head seen last is remembered on disk; an empty Redis is a lost log."""
    first = forwarder(node, log)
    node.set_mark({}, commit=7, last_id="7-0")
    first.step()
    node.client.flushall()
    second = forwarder(node, log)
    wait_until(stepped(second.step, lambda: node.inbox("LogTailLost")), "LogTailLost")
    assert node.inbox("LogTailLost")[0].data == {"seen_id": "7-0", "found_id": "0-0"}


def test_a_disk_that_lost_numbers_begins_a_new_stream(node: NodeFixture, log: Any) -> None:
    """Numbers that were given before are never given again under the same name."""
    stream = forwarder(node, log).disk.stream
    node.set_mark({stream: 100})
    poll_fact(node, 1)
    forwarder(node, log).step()
    assert [(one.seq, one.stream == stream) for one in node.inbox()] == [(1, False)]


def test_a_restored_disk_begins_a_new_stream_also_when_the_mark_lags_behind(node: NodeFixture, log: Any) -> None:
    """What the orchestrator has not read yet lies in the inbox under its number: another fact of that number would be dropped."""
    before = node.base / "backup"
    first = forwarder(node, log)
    stream = first.disk.stream
    first.step()
    shutil.copytree(node.folder, before)
    for n in range(3):
        poll_fact(node, n + 1)
    first.step()
    shutil.rmtree(node.folder)
    before.rename(node.folder)
    node.client.xadd(wire.inbox(CLUSTER, NODE), {wire.FACT_FIELD: "no envelope"})
    node.client.xadd(wire.inbox(CLUSTER, NODE), {"other": "x"})
    assert first.courier.seen_in_inbox(stream) == 3
    poll_fact(node, 1)
    again = forwarder(node, log)
    again.step()
    assert again.disk.stream != stream
    last: Any = node.client.xrevrange(wire.inbox(CLUSTER, NODE), count=1)
    assert json.loads(last[0][1][wire.FACT_FIELD.encode()])["stream"] == again.disk.stream


NOT_FACTS = [
    b"", b"{", b"[]", b"\xff\xfe\x00", b"nonsense\n", b"source=script\n", b'{"type": "NodeLeft"}',
    b'{"type": 5, "source": "hook", "data": {}}', b'{"type": "NodeLeft", "source": "nobody", "data": {}}',
]  # fmt: skip


@pytest.mark.parametrize("content", NOT_FACTS)
def test_a_damaged_file_is_put_aside_and_stops_nobody(node: NodeFixture, log: Any, content: bytes) -> None:
    """What cannot be read is kept in damaged/, reported with its reason, gets no number, and what follows proceeds."""
    bad = node.folder / "outbox" / ("1-1-1.line" if content[:1] not in b"{[\xff" else "1-1-1.fact")
    bad.write_bytes(content)
    poll_fact(node, 1)
    ours = forwarder(node, log)
    with capture_logs():
        ours.step()
        ours.step()
    assert [one.type for one in node.inbox()] == ["ServicePolled", "FactsDropped"]
    assert [one.seq for one in node.inbox()] == [1, 2]
    assert "damaged" in node.inbox("FactsDropped")[0].data["reason"]
    assert (node.folder / "outbox" / "damaged" / bad.name).read_bytes() == content
    assert ours.dropped == 1


def test_what_cannot_even_be_put_aside_stops_nobody(node: NodeFixture, log: Any) -> None:
    """Reported once and left where it is; the others proceed."""
    name = "1-1-1.fact"
    (node.folder / "outbox" / name).write_bytes(b"{")
    (node.folder / "outbox" / "damaged" / name / "in-the-way").mkdir(parents=True)
    poll_fact(node, 1)
    ours = forwarder(node, log)
    with capture_logs():
        for _ in range(3):
            ours.step()
    assert [one.type for one in node.inbox()] == ["ServicePolled", "FactsDropped"]


def test_a_file_is_on_the_disk_before_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut behind the rename finds the whole content; one behind the return finds the name, too."""
    steps: list[str] = []
    flush, replace = os.fsync, Path.replace

    def flushed(descriptor: int) -> None:
        steps.append("folder flushed" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "content flushed")
        flush(descriptor)

    def replaced(path: Path, target: Path) -> Path:
        steps.append(f"named {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", replaced)
    files.write_aside(tmp_path / "fact", "text")
    assert steps == ["content flushed", "named fact", *(["folder flushed"] if os.name == "posix" else [])]


def test_what_was_put_aside_is_told_though_the_next_file_cannot_be_numbered(node: NodeFixture, log: Any, stepped: Stepped) -> None:
    """A disk that fails right behind a damaged fact keeps it from nobody: told as soon as it can be."""
    ours = forwarder(node, log)
    in_the_way = ours.disk.numbered / "000000000001.fact"
    in_the_way.mkdir()
    (node.folder / "outbox" / "0-1-000001.fact").write_text('{"type": "StartHookCalled", "sour')
    poll_fact(node, 1)
    ours.step()
    assert ours.damaged == 1
    in_the_way.rmdir()
    wait_until(stepped(lambda: ours.step(at_once=True), lambda: node.inbox("FactsDropped")), "what was put aside")


def test_facts_behind_missing_numbers_are_offered_again_at_once(
    node: NodeFixture, log: Any, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who leads takes none of them before it knows that nobody has the missing ones: it does as soon as the oldest is let go of."""
    monkeypatch.setattr("workers.courier.AGAIN_FIRST_S", 3600.0)
    ours = forwarder(node, log)
    poll_fact(node, 1)
    ours.step()
    (ours.disk.numbered / "000000000004.done").touch()
    restarted = forwarder(node, log)
    poll_fact(node, 5)
    wait_until(stepped(restarted.step, lambda: 5 in [one.seq for one in node.inbox()]), "the first offer")
    node.set_mark({restarted.disk.stream: 1})
    wait_until(stepped(restarted.step, lambda: (node.inbox()[-1].seq, node.inbox()[-1].oldest) == (5, 5)), "the second offer")


def test_a_fact_beyond_all_measure_is_damaged(tmp_path: Path) -> None:
    """It would block the pipeline of everyone behind it."""
    path = tmp_path / "x.fact"
    path.write_text(json.dumps({"type": "NodeLeft", "source": "hook", "data": {"reason": "x" * 5_000_000}}))
    with pytest.raises(Damaged, match="larger"):
        read_fact(path)


def test_half_written_files_are_left_alone(node: NodeFixture, log: Any) -> None:
    """A file that is still being written (aside name) is no fact yet."""
    (node.folder / "outbox" / f"{files.ASIDE}1.fact").write_text("{")
    forwarder(node, log).step()
    assert node.inbox() == []


def test_a_scripts_line_becomes_a_typed_fact(node: NodeFixture, log: Any) -> None:
    """Numbers, yes-or-no values and the command list get their types; the time is the file's, on the wall clock's word."""
    line = node.folder / "outbox" / "start-1.line"
    line.write_text(
        "type=CommandEnded\nsource=script\nboot=boot1\nticket=T\nn=1\nservice=agent\nverb=start\nby=script\nresult=fail\nran=1\ncode=3\nduration_s=\n"
    )
    hook = node.folder / "outbox" / "start-2.line"
    hook.write_text(
        "type=StartHookCalled\nticket=T\nevent=START\nserver=HOME\nprevious=\n1.service=agent\n1.verb=start\n2.service=server\n2.verb=recover\n"
    )
    long_ago = time.time() - 3600
    os.utime(line, (long_ago, long_ago))
    forwarder(node, log).step()
    ended, called = node.inbox()
    told = {"ticket": "T", "n": 1, "service": "agent", "verb": "start", "by": "script", "result": "fail", "ran": True, "code": 3}
    assert ended.data == told
    assert (ended.source, ended.boot, ended.clock) == ("script", "boot1", "wall")
    assert ended.at_ms == pytest.approx(long_ago * 1000, abs=1000)
    assert called.data["commands"] == [{"n": 1, "service": "agent", "verb": "start"}, {"n": 2, "service": "server", "verb": "recover"}]
    assert all(parse_body(one, NODE) for one in (ended, called))


def test_a_line_that_fits_no_model_is_passed_on_as_it_is(node: NodeFixture, log: Any) -> None:
    """Unknown types and wrong values reach the orchestrator, which puts them into quarantine; they are not lost here."""
    (node.folder / "outbox" / "a.line").write_text("type=Marvel\nwhat=ever\n")
    (node.folder / "outbox" / "b.line").write_text("type=ScriptEnded\nticket=T\nscript=start\ncode=many\n")
    forwarder(node, log).step()
    arrived = sorted((one.type, one.data.get("what", one.data.get("code"))) for one in node.inbox())
    assert arrived == [("Marvel", "ever"), ("ScriptEnded", "many")]


def test_facts_of_this_boot_are_placed_by_the_monotonic_clock(node: NodeFixture, log: Any) -> None:
    """This boot: monotonic clock plus measured offset. Another boot: wall clock. Both near Redis TIME, with an error bound."""
    outbox.write_fact(node.folder, "NodeLeft", "worker", {"reason": "now"}, BOOT)
    outbox.write_fact(node.folder, "NodeLeft", "worker", {"reason": "before"}, "boot0")
    forwarder(node, log).step()
    seconds, microseconds = node.client.time()
    now, before = node.inbox()
    assert (now.clock, before.clock) == ("mono", "wall")
    for one in (now, before):
        assert one.at_ms == pytest.approx(seconds * 1000 + microseconds / 1000, abs=5000)
        assert 0 < one.at_error_ms < 5000


def test_redis_killed_and_back_loses_nothing_and_says_so_once(own_redis: EmbeddedRedis, tmp_path: Path, log: Any, stepped: Stepped) -> None:
    """Facts written during an outage wait on disk and arrive after it; the outage is one line in the log, its end another."""
    with connect(own_redis.url) as client, capture_logs() as lines:
        node = make_node(tmp_path, own_redis.url, client)
        ours = forwarder(node, log)
        poll_fact(node, 1)
        ours.step()
        pid = own_redis.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        for n in (2, 3):
            poll_fact(node, n)
        wait_until(stepped(ours.step, lambda: not ours.courier.connected and ours.courier.pending == 3), "the outage")
        for _ in range(20):
            ours.courier.step(at_once=True)
        own_redis.stop()
        own_redis.start()
        wait_until(stepped(ours.step, lambda: ours.courier.connected), "Redis back")
        wait_until(stepped(ours.step, lambda: {1, 2, 3} <= {one.seq for one in node.inbox()}), "all three facts")
        said = [line["event"] for line in lines]
        assert said.count("Redis does not answer; facts wait on disk") == 1
        assert said.count("Redis answers again") == 1


def test_a_full_disk_sends_the_workers_own_facts_directly(
    node: NodeFixture, log: Any, monkeypatch: pytest.MonkeyPatch, stepped: Stepped
) -> None:
    """They get a stream of their own, are kept until the mark has passed them, and the forwarder goes on."""

    def full(*_args: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    ours = forwarder(node, log)
    monkeypatch.setattr("workers.outbox.write_fact", full)
    with capture_logs():
        ours.reporter.report("NodeLeft", {"reason": "test"})
    ours.step()
    (arrived,) = node.inbox()
    assert (arrived.stream, arrived.seq, arrived.clock) == (ours.reporter.direct.stream, 1, "mono")
    assert arrived.stream != ours.disk.stream
    node.set_mark({arrived.stream: 1})
    wait_until(stepped(ours.step, lambda: ours.courier.pending == 0), "the mark")


def test_a_number_whose_file_the_disk_lost_is_not_missing(node: NodeFixture, log: Any) -> None:
    """A gap would hold up everything behind it; a FactsDropped fact takes the number instead."""
    poll_fact(node, 1)
    ours = forwarder(node, log)
    ours._number()
    (node.folder / "outbox" / "numbered" / "000000000001.fact").write_bytes(b"\x00\x00")
    ours.step()
    assert [(one.seq, one.type) for one in node.inbox()] == [(1, "FactsDropped")]


def test_every_fact_type_survives_the_way_through_a_line(tmp_path: Path) -> None:
    """A line of any known type is readable, whatever is missing in it."""
    for kind in TYPES:
        path = tmp_path / f"{kind}.line"
        path.write_text(f"type={kind}\n")
        assert read_fact(path).type == kind


def test_a_fact_of_another_shape_is_damaged(tmp_path: Path) -> None:
    """JSON that is deeply nested nonsense does not bring the reader down."""
    path = tmp_path / "x.fact"
    path.write_text('{"a":' * 100_000)
    with pytest.raises(Damaged):
        read_fact(path)
    path.write_text(json.dumps({"type": "NodeLeft", "source": "hook", "data": []}))
    with pytest.raises(Damaged, match="data"):
        read_fact(path)
