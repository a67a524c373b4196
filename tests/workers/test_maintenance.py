"""Maintenance on a node: believed while it is fresh, never by accident, and gone when it is over."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from statemachines import wire
from tests.conftest import wait_until
from tests.workers.conftest import BOOT, CLUSTER, NodeFixture, Reports, write_config
from workers import files, maintenance
from workers.watch import Watch

LISTING = "  <server>\n   *n1 ....: {state}\n  <group>\n    g1 ....: Online\n      current        : n1\n  <monitor>\n    userw : Normal\n"


def reason(folder: Path, now: float | None = None) -> str | None:
    return maintenance.reason_of(folder, BOOT, time.monotonic() if now is None else now)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff\xfe\x00", b"reason=paused\n", b"reason=paused\nboot=boot1\nmono=soon\n", b"reason=paused\nboot=boot1\nmono=nan\n",
        b"reason=paused\nboot=boot1\nmono=inf\n", b"reason=holiday\nboot=boot1\nmono=1000\n", b"reason=paused\nboot=boot0\nmono=1000\n",
        b"reason=paused\nboot=boot1\nmono=1000.5\n", b"reason=paused\nboot=boot1\nmono=939\n",
    ],
)  # fmt: skip
def test_what_is_not_surely_maintenance_is_none(tmp_path: Path, content: bytes) -> None:
    """Garbage, another boot, a word of the future, and one that is older than a minute: the guide's rule holds."""
    maintenance.path_of(tmp_path).write_bytes(content)
    assert reason(tmp_path, 1000.0) is None


def test_a_fresh_word_of_this_boot_is_believed(tmp_path: Path) -> None:
    """Up to a minute; a file that cannot be read is no word."""
    assert reason(tmp_path, 1000.0) is None
    maintenance.path_of(tmp_path).write_text("reason=suspended\nboot=boot1\nmono=1000\n")
    assert reason(tmp_path, 1000.0) == reason(tmp_path, 1059.0) == "suspended"
    maintenance.path_of(tmp_path).unlink()
    maintenance.path_of(tmp_path).mkdir()
    assert reason(tmp_path, 1000.0) is None


def test_the_keeper_writes_removes_and_leaves_to_age(tmp_path: Path) -> None:
    """Written while somebody says so; removed when Redis says that it is over; left alone when nobody answers."""
    keeper = maintenance.Keeper(tmp_path, BOOT)
    path = maintenance.path_of(tmp_path)
    path.write_text("left by the process before")
    keeper.step(None, suspended_here=False)
    assert path.exists()
    keeper.step(maintenance.Answer("paused"), suspended_here=True)
    assert reason(tmp_path) == "paused"
    before = path.read_text()
    keeper.step(None, suspended_here=False)
    assert path.read_text() == before
    keeper.step(None, suspended_here=True)
    assert reason(tmp_path) == "suspended"
    keeper.step(maintenance.Answer(None), suspended_here=False)
    assert not path.exists()
    keeper.step(None, suspended_here=True)
    keeper.step(None, suspended_here=False)
    assert not path.exists()


def test_a_disk_that_takes_nothing_ends_no_keeper(tmp_path: Path) -> None:
    """Neither writing nor removing."""
    folder = tmp_path / "gone"
    keeper = maintenance.Keeper(folder, BOOT)
    keeper.step(maintenance.Answer("paused"), suspended_here=False)
    folder.write_text("a file")
    keeper.step(maintenance.Answer(None), suspended_here=False)
    assert reason(folder) is None


@pytest.mark.parametrize("value", ["", "soon", "[]", "7", '{"reason": "holiday"}', '{"reason": ["paused"]}', "{}", "[" * 100_000])
def test_a_key_that_says_nothing_is_no_answer(node: NodeFixture, reports: Reports, value: str) -> None:
    """It neither begins maintenance nor ends it."""
    write_config(node, services="server")
    watch = Watch(node.settings(), BOOT, node.client, reports)
    node.client.set(wire.maintenance(CLUSTER), value)
    assert watch._talk_with_redis(time.monotonic()) is None
    assert node.client.exists(wire.watch_alive(CLUSTER, "n1"))
    watch.discard()


@pytest.fixture
def stepping(node: NodeFixture, reports: Reports) -> Any:
    """stepping(condition, what): step the node's watch until then."""
    watches: list[Watch] = []

    def until(condition: Callable[[], Any], what: str) -> None:
        if not watches:
            watches.append(Watch(node.settings(), BOOT, node.client, reports))
        wait_until(lambda: watches[0].step() or condition(), what)  # type: ignore[func-returns-value]

    yield until
    for watch in watches:
        watch.discard()


def test_the_watch_keeps_what_redis_says(node: NodeFixture, stepping: Any) -> None:
    """Fresh while the key stands, removed when it is gone; a key of another type, or one that must not be read, is no answer."""
    write_config(node, services="server")
    key, path = wire.maintenance(CLUSTER), maintenance.path_of(node.folder)
    node.client.set(key, json.dumps({"reason": "paused", "since_ms": 1, "by": "anna"}))
    stepping(lambda: reason(node.folder) == "paused", "maintenance")
    first = (files.read_fields(path) or {})["mono"]
    stepping(lambda: (files.read_fields(path) or {}).get("mono") not in (None, first), "its being written again")
    node.client.delete(key)
    stepping(lambda: not path.exists(), "its end")
    node.client.lpush(key, "x")
    polls = node.asked("server")
    stepping(lambda: node.client.exists(wire.watch_alive(CLUSTER, "n1")) and node.asked("server") >= polls, "the sign of life")
    assert not path.exists()


def test_a_suspended_cluster_is_maintenance_by_what_this_node_sees(node: NodeFixture, stepping: Any) -> None:
    """clpstat says so: maintenance, though Redis knows nothing of it; the server is online again: over."""
    listing = node.base / "clpstat.txt"
    listing.write_text(LISTING.format(state="Suspend"))
    write_config(node, services="server", extra_node=f'clpstat = ["sh", "-c", "cat {listing}"]\nview_interval = "500ms"')
    stepping(lambda: reason(node.folder) == "suspended", "maintenance")
    listing.write_text(LISTING.format(state="Online"))
    stepping(lambda: not maintenance.path_of(node.folder).exists(), "its end")
    listing.write_text(LISTING.format(state="Suspend"))
    stepping(lambda: reason(node.folder) == "suspended", "maintenance again")
    listing.unlink()
    stepping(lambda: not maintenance.path_of(node.folder).exists(), "a view that is too old to be believed")
