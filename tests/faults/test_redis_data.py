"""The embedded Redis's append-only file: cut at any byte, put back from yesterday, emptied, or full of rubbish."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from orchestrator.app import _revive
from orchestrator.cli import main
from orchestrator.embedded import EmbeddedRedis, EmbeddedRedisError
from orchestrator.redis_store import RedisStore
from statemachines import wire
from statemachines.entries import GENESIS_HASH
from tests.conftest import wait_until
from tests.faults.central import Outbox, lead_by, nobody_lost
from tests.orchestrator.engine import C, Site, envelope, joined, leading, orchestrator_on, running, settings, start_called
from workers.redisclient import connect

ALL_CUTS = bool(os.environ.get("DCSUP_ALL_CUTS"))
"""Cut at each of the last 400 bytes and at 400 others, which takes a few minutes; else at a sample of them."""

LEFT_OUT = shutil.ignore_patterns("*.sock", "socket", "redis.pid", "lock")


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a power cut leaves it: commits of every kind, the last of them with a job."""
    folder = tmp_path_factory.mktemp("history") / "redis"
    with EmbeddedRedis(folder) as server:
        site = Site(server.url)
        with leading(server.url, snapshot_every=20):
            site.deliver("n1", joined(1), *(envelope(seq) for seq in range(2, 60)), "rubbish")
            wait_until(lambda: site.mark()["streams"] == {"s": 59}, "there is a history")
            site.deliver("n1", start_called(60))
            wait_until(lambda: site.mark()["streams"] == {"s": 60} and site.jobs(), "and a job")
            server.kill()
        site.close()
    return folder


def append_only(folder: Path) -> Path:
    [found] = (folder / "appendonlydir").glob("*.incr.aof")
    return found


def copy_of(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to, ignore=LEFT_OUT))


def cut(folder: Path, byte_count: int) -> None:
    os.truncate(append_only(folder), max(0, append_only(folder).stat().st_size - byte_count))


def cuts(size: int) -> list[int]:
    """How many bytes to take off the end."""
    dice = random.Random(7)
    near, far = (range(1, 401), 400) if ALL_CUTS else ([1, 2, 3, *dice.sample(range(4, 200), 12)], 8)
    return [*near, *sorted(dice.randrange(200, size) for _ in range(far)), size]


def check_whole(site: Site) -> None:
    """The head is the log's end, exactly the jobs that the log tells of are queued, and marks are not ahead of the log."""
    entries, head = site.log(), site.head()
    last = site.client.xrevrange(wire.log(C), count=1)
    assert head.get("last_id", "0-0") == (entries[-1].id if entries else "0-0")
    assert head.get("last_hash", GENESIS_HASH) == (last[0][1][b"h"].decode() if last else GENESIS_HASH)
    assert sorted(site.jobs()) == sorted(e.data["job_id"] for e in entries if e.type == "CommandIssued")
    assert site.mark()["streams"].get("s", 0) == len(site.applied_numbered())


def test_a_file_cut_at_any_byte_comes_back(history: Path, tmp_path: Path) -> None:
    """Wherever the file ends, the server starts, and what it holds is the log up to some commit: head, log, jobs and marks agree."""
    points = cuts(append_only(history).stat().st_size)
    for number, byte_count in enumerate(points):
        folder = copy_of(history, tmp_path / str(number))
        cut(folder, byte_count)
        server = EmbeddedRedis(folder)
        server.start()
        try:
            site = Site(server.url)
            check_whole(site)
            if number % 9 == 0:
                with leading(server.url):
                    begin = len(site.applied_numbered())
                    site.deliver("n1", *(envelope(seq) for seq in range(begin + 1, 64)))  # some may be in the inbox still
                    wait_until(lambda s=site: s.mark()["streams"] == {"s": 63}, "it goes on")  # type: ignore[misc]
                check_whole(site)
                nobody_lost(site)
            site.close()
        finally:
            server.kill()
        shutil.rmtree(folder)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path / "redis")
    server.start()
    yield server
    server.kill()


def lose_bytes(count: int) -> Callable[[EmbeddedRedis, Path], None]:
    return lambda server, backup: cut(server.folder, count)


def put_back_an_older_copy(server: EmbeddedRedis, backup: Path) -> None:
    shutil.rmtree(server.folder / "appendonlydir")
    shutil.copytree(backup / "appendonlydir", server.folder / "appendonlydir")


def lose_everything(server: EmbeddedRedis, backup: Path) -> None:
    shutil.rmtree(server.folder / "appendonlydir")


LOSSES = {"nothing": lose_bytes(0), "a byte": lose_bytes(1), "some commits": lose_bytes(6_000), "a day": put_back_an_older_copy,
          "everything": lose_everything}  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES)
def test_orchestrators_and_outboxes_live_through_what_redis_lost(own: EmbeddedRedis, tmp_path: Path, loss: str) -> None:
    """Leader, standby and a node's forwarder run on while Redis is killed and comes back with less: the node says that the log lost its
    tail and offers again what is not durable, every fact on its disk is in the log once, no epoch is issued again, no job id for another
    command."""
    site, backup = Site(own.url), tmp_path / "backup"
    clusters = {C: settings(node_ttl="30s")}
    a, b = RedisStore(own.url, timeout_s=2.0), RedisStore(own.url, timeout_s=2.0)
    with connect(own.url) as client, Outbox(tmp_path / "node", client) as node:
        with running(orchestrator_on(a, "a", clusters=clusters)), running(orchestrator_on(b, "b", clusters=clusters)):
            lead_by(site, "a", "b")
            node.report("NodeJoined", {"boot": "b1", "version": "1"})
            node.write(30)
            node.all_in_log(site)
            site.client.config_set("appendfsync", "always")
            copy_of(own.folder, backup)
            for _ in range(20):
                node.write(3)
                wait_until(lambda: node.in_log(site)[-1] == node.written[-1], "the facts are in the log")
            node.report(
                "StartHookCalled", {"ticket": "b1-g-1-start", "event": "START", "commands": [{"n": 1, "service": "srv", "verb": "recover"}]}
            )
            wait_until(site.jobs, "a job is queued")
            wait_until(lambda: node.seen_head and node.seen_head["commit"] == site.head()["commit"], "the node saw the head")
            before, epoch, jobs = site.log(), site.head()["epoch"], set(site.jobs())
            own.kill()
            LOSSES[loss](own, backup)
            node.write(5)
            own.start()
            node.write(5)
            node.all_in_log(site)
            lead_by(site, "a", "b")
            kept = len([1 for old, new in zip(before, site.log(), strict=False) if old.id == new.id])
            is_lost = kept < len(before)
            assert loss == "a byte" or is_lost == (loss != "nothing")  # the byte may be of a sign of life that came behind the last commit
            if is_lost:
                wait_until(lambda: site.count("LogTailLost"), "the loss is told")
                assert site.head()["epoch"] > epoch
        after = site.log()
    assert site.count("LogTailLost") == is_lost
    issued = [entry for entry in after if entry.type == "CommandIssued" and entry.id not in {e.id for e in before[:kept]}]
    assert not jobs & {entry.data["job_id"] for entry in issued}, "a job id was given to another command"
    nobody_lost(site)
    for store in (a, b):
        store.close()
    site.close()


# --- damaged: refused, with a remedy --------------------------------------------------------------------------------------------------


def overwritten(folder: Path) -> str:
    append_only(folder).write_bytes(b"\x00" * 5000)
    return append_only(folder).name


def rubbish_behind_it(folder: Path) -> str:
    with append_only(folder).open("ab") as file:
        file.write(b"\x00" * 100)
    return append_only(folder).name


def no_list_of_files(folder: Path) -> str:
    (folder / "appendonlydir" / "appendonly.aof.manifest").unlink()
    return "appendonly.aof.manifest"


def a_bad_list_of_files(folder: Path) -> str:
    (folder / "appendonlydir" / "appendonly.aof.manifest").write_text("rubbish\n")
    return "appendonly.aof.manifest"


def no_file(folder: Path) -> str:
    name = append_only(folder).name
    append_only(folder).unlink()
    return name


def a_bad_beginning(folder: Path) -> str:
    [base] = (folder / "appendonlydir").glob("*.base.*")
    base.write_bytes(b"rubbish" * 20)
    return base.name


@pytest.mark.parametrize("damage", [overwritten, rubbish_behind_it, no_list_of_files, a_bad_list_of_files, no_file, a_bad_beginning])
def test_damaged_data_are_refused_with_a_remedy(
    history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], str]
) -> None:
    """The error names the file, what is wrong and what to do; nothing was changed. `dcsup orchestrator` says so in one line, and ends
    with 3."""
    folder = copy_of(history, tmp_path / "redis")
    name = damage(folder)
    held = {path: path.read_bytes() for path in (folder / "appendonlydir").iterdir()}
    with pytest.raises(EmbeddedRedisError) as caught:
        EmbeddedRedis(folder).start()
    text = str(caught.value)
    assert str(folder / "appendonlydir" / name) in text
    assert f"mv {folder} {folder}.damaged" in text and "redis-check-aof" in text and "back" in text
    assert held == {path: path.read_bytes() for path in (folder / "appendonlydir").iterdir()}
    file = tmp_path / "dcsup.toml"
    file.write_text(
        f'[redis]\nembedded = "{folder}"\n[orchestrator]\nlisten = "127.0.0.1:0"\n'
        '[clusters.c]\ngroup = "g"\nnodes = ["n1"]\nservices = [{ name = "srv", kind = "server" }]\n'
    )
    assert main(["orchestrator", "--config", str(file)]) == 3
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert name in said


def test_the_sandbox_says_so_too(history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`dcsup up --sandbox` over a damaged Redis: one sentence, exit code 3."""
    overwritten(copy_of(history, tmp_path / "redis"))
    assert main(["up", "--sandbox", "--folder", str(tmp_path)]) == 3
    said = capsys.readouterr().err
    assert "is damaged" in said and "Traceback" not in said


def test_a_killed_redis_of_ones_own_is_started_again(own: EmbeddedRedis) -> None:
    """Whoever has an embedded Redis looks after it: killed, it is back, and the lead goes on in the same epoch. That it cannot be started
    is said, and it is tried again."""
    site = Site(own.url)
    store = RedisStore(own.url, timeout_s=2.0)
    orchestrator = orchestrator_on(store, clusters={C: settings(node_ttl="30s")})
    orchestrator._revive = lambda: _revive(own)
    with capture_logs() as said, running(orchestrator):
        lead_by(site, "me")
        site.deliver("n1", joined(1))
        wait_until(lambda: site.mark()["streams"] == {"s": 1}, "it leads")
        hidden = own.folder.with_name("hidden")
        own.kill()
        wait_until(lambda: own.pid is not None, "it is back")
        wait_until(lambda: _answers(site), "it answers")
        site.deliver("n1", envelope(2))
        wait_until(lambda: site.mark()["streams"] == {"s": 2}, "it goes on")
        manifest = own.folder / "appendonlydir" / "appendonly.aof.manifest"
        manifest.rename(hidden)
        own.kill()
        wait_until(lambda: any("cannot be started" in line["event"] for line in said), "that it cannot be started is said")
        hidden.rename(manifest)
        wait_until(lambda: _answers(site), "it answers")
        site.deliver("n1", envelope(3))
        wait_until(lambda: site.mark()["streams"] == {"s": 3}, "it goes on")
    assert site.count("LeadTaken") == 1
    nobody_lost(site)
    store.close()
    site.close()


def _answers(site: Site) -> bool:
    try:
        return bool(site.client.ping())
    except OSError:
        return False
    except Exception as error:  # redis-py's own
        assert "Redis" in type(error).__module__ or "redis" in type(error).__module__
        return False
