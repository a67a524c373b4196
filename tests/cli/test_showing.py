"""What an operator is shown of a cluster: everything that stands beside services and nodes, in 120 columns; and where it is read from."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from rich.cells import cell_len

from orchestrator import history
from orchestrator.cli import showing
from orchestrator.cli.history import KEPT
from orchestrator.cli.output import age
from orchestrator.embedded import EmbeddedRedis
from orchestrator.ports import Head
from orchestrator.redis_store import RedisStore
from orchestrator.replay import replay
from statemachines import wire
from statemachines.states import (
    ClusterState,
    ClusterView,
    EndpointStatus,
    MetadataStatus,
    MoveStatus,
    NodeStatus,
    Outage,
    RunbookStatus,
)
from tests.cli.conftest import Dcsup
from tests.orchestrator.surface import put_into, told_log
from tests.statemachines.story import Story, settings


@pytest.fixture(autouse=True)
def usual_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


def shown(state: ClusterState, capsys: pytest.CaptureFixture[str]) -> str:
    showing.show_state(state.model_dump(mode="json"))
    out = capsys.readouterr().out
    assert all(cell_len(line) <= 120 for line in out.splitlines())
    return out


def row(out: str, *first: str) -> list[str]:
    """The cells of the table row that begins with these."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines() if line.startswith("|")]
    [found] = [cells for cells in rows if cells[: len(first)] == list(first)]
    return found


def state_with(**parts: Any) -> ClusterState:
    return replayed().model_copy(update=parts)


def replayed() -> ClusterState:
    state = replay(told_log()).state
    assert state is not None
    return state


# --- status ---------------------------------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A cluster without endpoints, metadata DB, views and runbooks has no empty tables."""
    out = shown(replayed(), capsys)
    for title in ("Endpoints", "Metadata DB", "Cluster manager", "Runbooks", "MAINTENANCE", "WARNING", "asked for"):
        assert title not in out


def test_maintenance_and_a_pending_move_are_said_first(capsys: pytest.CaptureFixture[str]) -> None:
    """A suspended cluster with since when, a pause with who, a move with who and why."""
    move = MoveStatus(request="r", to="node2", by="田中", why="保守", at_ms=1_800_000_000_000.0)
    state = state_with(suspended=True, suspended_since_ms=1_800_000_060_000, move=move, paused_since_ms=1_800_000_000_000, paused_by="x")
    head = shown(state, capsys).partition("Services")[0]
    assert "MAINTENANCE: the cluster is suspended since 2027-01-15 08:01:00.000Z" in head
    assert "PAUSED since 2027-01-15 08:00:00.000Z by x" in head
    assert "move to node2 asked for by 田中 at 2027-01-15 08:00:00.000Z: 保守" in head


def test_endpoints_are_up_down_or_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    """Each configured one with its address, since when and why; one of which nothing was seen says so."""
    endpoints = [{"name": name, "host": "192.0.2.7", "port": 22100} for name in ("agent", "server", "web")]
    seen = {
        "agent": EndpointStatus(up=True, since_ms=1_800_000_000_000.0),
        "server": EndpointStatus(up=False, since_ms=1_800_000_000_000.0, reason="no answer within 2 s"),
    }
    out = shown(state_with(settings=settings(endpoints=endpoints), endpoints=seen), capsys)
    assert row(out, "agent", "192.0.2.7:22100") == ["agent", "192.0.2.7:22100", "get in", "2027-01-15 08:00:00.000Z", "-"]
    assert row(out, "server", "192.0.2.7:22100")[2:] == ["CUT OFF", "2027-01-15 08:00:00.000Z", "no answer within 2 s"]
    assert row(out, "web")[2:] == ["unknown", "-", "-"]


def test_a_held_metadata_db_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    """G44: shown per node; where it outlived the group it is said at the head too."""
    held = MetadataStatus(service="running", port="open", at_ms=1_800_000_000_000.0, held=True)
    gone = MetadataStatus(service="stopped", port="closed", at_ms=1_800_000_000_000.0)
    out = shown(state_with(metadata={"node1": held, "node2": gone}), capsys)
    assert "WARNING: the metadata DB still runs on node1, which the group has left: it may hold the disk" in out
    assert row(out, "node1", "running", "open")[3] == "MAY BE HELD"
    assert row(out, "node2", "stopped", "closed")[3] == "-"


def test_the_managers_view_names_what_is_not_well(capsys: pytest.CaptureFixture[str]) -> None:
    """Monitors and servers that are not as usual; nothing told is unknown, and a silent node's view is called so."""
    now_ms = time.time() * 1000
    servers = {"node1": "online", "node2": "online"}
    views = {
        "node1": ClusterView(node="node1", at_ms=now_ms - 180_000, group_state="online", current="node1",
                             servers=servers, monitors={"fipw1": "normal", "appliw1": "error", "sdw1": "offline"}),
        "node2": ClusterView(node="node2", at_ms=now_ms - 18_000_000, group_state="online", current="node1",
                             servers=servers | {"node1": "offline"}, suspended=True),
    }  # fmt: skip
    nodes = {"node1": NodeStatus(present=True), "node2": NodeStatus(present=False)}
    out = shown(state_with(views=views, view=views["node1"], nodes=nodes), capsys)
    first, second = row(out, "node1", "online"), row(out, "node2", "suspended")
    assert first[2:5] == ["node1", "all well", "appliw1: error"]
    assert first[-1] == "3 min"
    assert (second[3], second[4], second[-1]) == ("node1: offline", "unknown", "5 h, silent")


def test_runbooks_show_how_far_they_came(capsys: pytest.CaptureFixture[str]) -> None:
    """The last step told, and how many were done, skipped and failed."""
    steps = {"check": "done", "install": "done", "reboot": "skipped", "move": "failed"}
    out = shown(state_with(runbooks={"install-server": RunbookStatus(run="r", at_ms=1_800_000_000_000.0, steps=steps)}), capsys)
    assert row(out, "install-server") == ["install-server", "move", "failed", "2", "1", "1", "2027-01-15 08:00:00.000Z"]


def test_an_age_has_one_unit() -> None:
    """The largest of which there are two; what is to come is no age."""
    now_ms = time.time() * 1000
    ages = [age(now_ms - 1000 * past_s) for past_s in (0, 65, 119, 121, 3 * 3600, 3 * 86400, -60)]
    assert ages == ["0 s", "65 s", "119 s", "2 min", "3 h", "3 d", "0 s"]
    assert age(None) == "-"


# --- failovers ------------------------------------------------------------------------------------------------------------------------


def test_what_clients_saw_and_who_asked_stands_beside_the_phases(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the address that was down longest; a plus where one still is, a dash where nothing was seen; who asked for a move, and why."""
    first, second = replayed().failovers
    begin_ms = first.points["symptom"]
    outages = [
        Outage(endpoint="a", down_ms=begin_ms, up_ms=begin_ms + 1500),
        Outage(endpoint="b", down_ms=begin_ms, up_ms=begin_ms + 10_000),
        Outage(endpoint="b", down_ms=begin_ms + 20_000, up_ms=begin_ms + 22_340),
    ]
    records = [
        first.model_copy(update={"outages": outages}),
        second.model_copy(update={"outages": [Outage(endpoint="a", down_ms=begin_ms)], "requested_by": "田中", "why": "保守"}),
        second,
    ]
    showing.show_failovers([one.model_dump(mode="json") for one in records])
    out = capsys.readouterr().out
    stories, phases = out.split("Phases, and how long clients were cut off (seconds)")
    assert [line.split("|")[-2].strip() for line in phases.splitlines() if line.startswith("| 20")] == ["12.34", "0.00+", "-"]
    assert out.splitlines()[-1].endswith(": asked for by 田中: 保守")
    assert "node1 -> node2" in stories
    assert all(cell_len(line) <= 120 for line in out.splitlines())


def test_failovers_of_long_ago_are_found_in_the_log(dcsup: Dcsup, configuration: Path, redis_server: EmbeddedRedis) -> None:
    """The state remembers the last 20; where more are asked for the log has them, each once, as it was completed in the end."""
    story = Story()
    story.bring_up("node1")
    for _ in range(23):
        story.wait(30)
        story.take_down("node1", "START", factor="GROUPMOVE")
        story.bring_up("node1")
    story.wait(60)
    with redis.Redis.from_url(redis_server.url) as client:
        put_into(client, story.log)
    every = list(replay(story.log).failovers.values())
    assert len(every) > KEPT == len(story.state.failovers)

    def found(*more: object) -> list[dict[str, Any]]:
        answer = dcsup("failovers", "--config", configuration, "--json", *more)
        failovers: list[dict[str, Any]] = json.loads(answer.out)["clusters"]["demo"]
        return failovers

    assert found() == every[-KEPT:]
    assert found("--limit", 3) == every[-3:]
    assert found("--limit", 22) == every[-22:]
    assert found("--limit", 1000) == every
    assert f"cluster demo: 3 of {len(every)} failovers" in dcsup("failovers", "--config", configuration, "--limit", 3).out
    assert dcsup("failovers", "--config", configuration, "--limit", 0).code == 2


# --- from a snapshot ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def after_snapshot(redis_server: EmbeddedRedis) -> Any:
    """A log, and a snapshot of its first hundred entries; what lies before it is gone from the log but for its last entry."""
    log = told_log()
    state = replay(log[:100]).state
    assert state is not None
    with redis.Redis.from_url(redis_server.url) as client:
        put_into(client, log)
        client.set(wire.head("demo"), Head(1, 1, {}, log[-1].entry.id, log[-1].hash).encode())  # only who leads writes a snapshot
        store = RedisStore(redis_server.url)
        history.save(store, 1, state, None)
        store.close()
        client.xtrim(wire.log("demo"), minid=log[99].entry.id, approximate=False)
        yield client


def test_status_without_an_orchestrator_begins_at_the_snapshot(dcsup: Dcsup, configuration: Path, after_snapshot: Any) -> None:
    """Not at the log's beginning: that may be long ago."""
    answer = dcsup("status", "--config", configuration, "--json")
    assert (answer.code, json.loads(answer.out)["clusters"]["demo"]) == (0, replayed().model_dump(mode="json"))
    assert len(answer.err.splitlines()) == 1


@pytest.mark.parametrize("saved", [b"rubbish", b"{}", b'{"code":"other"}'])
def test_a_snapshot_that_is_none_of_ours_is_passed_over(
    dcsup: Dcsup, configuration: Path, redis_server: EmbeddedRedis, saved: bytes
) -> None:
    """Then the whole log is folded, as before, and nothing else is said."""
    with redis.Redis.from_url(redis_server.url) as client:
        put_into(client, told_log())
        client.set(wire.snapshot("demo"), saved)
    answer = dcsup("status", "--config", configuration, "--json")
    assert json.loads(answer.out)["clusters"]["demo"] == replayed().model_dump(mode="json")
    assert len(answer.err.splitlines()) == 1


def test_damage_behind_the_snapshot_is_found(dcsup: Dcsup, configuration: Path, after_snapshot: Any) -> None:
    """The chain goes on from the snapshot's entry."""
    after_snapshot.xdel(wire.log("demo"), told_log()[104].entry.id)
    answer = dcsup("status", "--config", configuration)
    assert answer.code == 1
    assert f"entry {told_log()[105].entry.id}: the hash does not match" in answer.err
