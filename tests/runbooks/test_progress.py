"""How far somebody came: kept on disk step by step, through power cuts, and told to the log once."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.backoff import NoBackoff
from redis.retry import Retry

from orchestrator.embedded import EmbeddedRedis
from orchestrator.runbooks.handing import envelope, hand_in
from orchestrator.runbooks.progress import Progress, ProgressError, begin, clean, load
from statemachines import wire
from statemachines.cluster import Arrival, order_of, step
from statemachines.facts import Envelope, parse_body
from statemachines.states import ClusterState, new_state
from tests.orchestrator.proxy import Door
from tests.runbooks.support import steps_of

STEPS = steps_of("install-server", "both", 2)


def begun(path: Path, run: str | None = None) -> Progress:
    return begin(path, "install-server", "pair", "sato", run=run, values={"disk": "E:"}, options={})


def done(progress: Progress, count: int = 1, outcome: Any = "done", note: str = "") -> None:
    """The next steps, one after the other."""
    for _ in range(count):
        current = progress.current(STEPS)
        assert current is not None
        progress.record(current, outcome, "sato", verified=True, note=note, seen={})


def again(path: Path) -> Progress:
    found = load(path)
    assert found is not None
    return found


def comparable(progress: Progress) -> dict[str, Any]:
    return {name: value for name, value in vars(progress).items() if name not in ("_size", "cut")}


def applied(client: Any) -> list[dict[str, Any]]:
    """The recorded steps that the core takes from what stands in the inbox, in their order."""
    state, taken = new_state("pair"), []
    for inbox_id, fields in client.xrange(wire.inbox("pair", wire.OPERATOR_INBOX)):
        one = Envelope.model_validate_json(fields[wire.FACT_FIELD.encode()])
        if order_of(state, wire.OPERATOR_INBOX, one) == "next":
            state, _told = _stepped(state, inbox_id.decode(), one)
            taken.append(one.data)
    return taken


def _stepped(state: ClusterState, inbox_id: str, one: Envelope) -> tuple[ClusterState, object]:
    result = step(state, Arrival(wire.OPERATOR_INBOX, inbox_id, one, parse_body(one, wire.OPERATOR_INBOX)))
    return result.state, result.entries


def test_what_was_recorded_is_read_again(tmp_path: Path) -> None:
    """Steps, reasons, values, what was remembered before a step, and what is not handed in yet."""
    path = tmp_path / "手順 1.ndjson"
    progress = begun(path)
    done(progress, 2, note="確認済み")
    progress.begin_step("reboot.node1", {"boot": "41"})
    progress.begin_step("reboot.node1", {"boot": "42"})
    progress.give({"account": "necsys"})
    progress.handed_in(progress.pending[0])
    loaded = again(path)
    assert comparable(loaded) == comparable(progress)
    assert loaded.before == {"reboot.node1": {"boot": "41"}}
    assert loaded.values == {"disk": "E:", "account": "necsys"}
    assert [record.n for record in loaded.pending] == [2]
    assert loaded.current(STEPS) == STEPS[2]


def test_interrupted_at_each_step_it_goes_on_at_that_step(tmp_path: Path) -> None:
    """Every step in turn, each by a process that has only the file."""
    path = tmp_path / "p"
    begun(path)
    for number, one in enumerate(STEPS):
        progress = again(path)
        assert progress.current(STEPS) == one
        progress.record(one, "done", "sato", verified=False, note="", seen={})
        assert again(path).last_n == number + 1
    assert again(path).current(STEPS) is None


def test_a_failed_step_stays_the_current_one(tmp_path: Path) -> None:
    """Until it is done or skipped."""
    progress = begun(tmp_path / "p")
    done(progress, outcome="failed", note="no disk")
    assert progress.current(STEPS) == STEPS[0]
    done(progress, outcome="skipped", note="other disk")
    assert again(tmp_path / "p").current(STEPS) == STEPS[1]


def test_cut_anywhere_what_was_on_the_disk_is_what_holds(tmp_path: Path) -> None:
    """A power cut may leave any beginning of the file: it is read as the whole lines in it say, and gone on with."""
    path = tmp_path / "p"
    done(begun(path), 3)
    content = path.read_bytes()
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        loaded = load(path)
        whole = content[:length].count(b"\n")
        if not whole:
            assert loaded is None
            continue
        assert loaded is not None
        assert loaded.cut == (not content[:length].endswith(b"\n"))
        assert loaded.current(STEPS) == STEPS[whole - 1]
        done(loaded)
        assert comparable(again(path)) == comparable(loaded)
        assert path.read_bytes().count(b"\n") == whole + 1


def test_a_last_line_of_zeros_is_an_unfinished_one(tmp_path: Path) -> None:
    """So some file systems leave what was not written any more."""
    path = tmp_path / "p"
    done(begun(path))
    path.write_bytes(path.read_bytes() + b"\0" * 300)
    assert again(path).cut
    path.write_bytes(b"\0" * 300)
    assert load(path) is None


BAD = {
    "not json": b"nonsense\n",
    "another json": b"[1]\n",
    "of no kind": b'{"is":"song"}\n',
    "without its fields": b'{"is":"step","step":"x"}\n',
    "fields of another kind": b'{"is":"begun","step":"x","before":[]}\n',
    "no outcome": b'{"is":"elsewhere","step":"x","outcome":"sung"}\n',
    "no text": b"\xff\xfe\n",
}


@pytest.mark.parametrize("damage", BAD.values(), ids=BAD)
def test_a_damaged_line_is_told_with_its_number_and_what_to_do(damage: bytes, tmp_path: Path) -> None:
    """In the middle of the file nobody knows what stood there: it is not gone on with."""
    path = tmp_path / "p"
    done(begun(path), 2)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + damage + lines[2])
    with pytest.raises(ProgressError, match=r"p: line 2 is damaged.*mend or delete the line, or move the file away"):
        load(path)


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """Neither read as progress nor overwritten."""
    path = tmp_path / "p"
    for content in (b"my diary", b'{"a": 1}\n', b'{"is":"begun","step":"x","before":{}}\n'):
        path.write_bytes(content)
        with pytest.raises(ProgressError, match="line 1 is damaged"):
            load(path)
        assert path.read_bytes() == content


def test_a_file_of_another_version_is_told(tmp_path: Path) -> None:
    """With what to do."""
    path = tmp_path / "p"
    begun(path)
    path.write_text(path.read_text().replace('"version":1', '"version":9'))
    with pytest.raises(ProgressError, match="another version of dcsup"):
        load(path)


def test_two_at_once_are_noticed(tmp_path: Path) -> None:
    """Of two terminals on one file the second to write is told so, and the first one's steps stay."""
    first = begun(tmp_path / "p")
    second = again(tmp_path / "p")
    done(first)
    with pytest.raises(ProgressError, match="another dcsup writes to this file"):
        done(second)
    assert again(tmp_path / "p").records.keys() == first.records.keys()


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Before the first question."""
    (tmp_path / "file").touch()
    with pytest.raises(ProgressError, match="cannot be written"):
        begun(tmp_path / "file" / "p")


def test_a_folder_in_the_files_place_is_told(tmp_path: Path) -> None:
    """As is anything that cannot be read."""
    with pytest.raises(ProgressError, match="cannot be read"):
        load(tmp_path)


def test_what_people_type_fits_every_file() -> None:
    """Half characters, line ends and whole novels."""
    assert clean("a\nb\t c\udc81") == "a b c?"
    assert len(clean("x" * 10_000)) == 2000


def test_what_was_done_on_another_machine_counts(tmp_path: Path) -> None:
    """Unless this one settled the step itself; a step that failed here and was mended there is settled."""
    progress = begun(tmp_path / "p", run="r1")
    done(progress, 1)
    done(progress, 1, outcome="failed", note="x")
    progress.learn({STEPS[0].id: "failed", STEPS[1].id: "done", STEPS[2].id: "skipped", STEPS[3].id: "failed", "x": "sung"})
    assert progress.current(STEPS) == STEPS[3]
    assert progress.records[STEPS[0].id].outcome == "done"
    size = (tmp_path / "p").stat().st_size
    progress.learn({STEPS[1].id: "done", STEPS[2].id: "skipped", STEPS[3].id: "failed"})
    assert (tmp_path / "p").stat().st_size == size
    assert comparable(again(tmp_path / "p")) == comparable(progress)
    assert len(progress.pending) == 2


def test_a_step_is_a_fact_of_the_operator_with_everything_in_it(tmp_path: Path) -> None:
    """Who, where, what, when: dated when the person said it."""
    progress = begun(tmp_path / "p")
    done(progress, 4, note="見た")
    record = progress.pending[-1]
    one = envelope(progress, record)
    fact: Any = parse_body(one, wire.OPERATOR_INBOX)
    assert (fact.runbook, fact.run, fact.step, fact.outcome, fact.by) == ("install-server", progress.run, STEPS[3].id, "done", "sato")
    assert (fact.on_node, fact.verified, fact.note) == (STEPS[3].node, True, "見た")
    assert (one.source, one.at_ms, one.clock) == ("operator", record.wall * 1000, "wall")


def test_handing_in_twice_counts_once(tmp_path: Path, redis_server: EmbeddedRedis) -> None:
    """The note that a step was handed in is lost with a power cut: it is offered again, and the core takes it once."""
    path = tmp_path / "p"
    progress = begun(path)
    done(progress, 3)
    before_handing = path.read_bytes()
    with redis.Redis.from_url(redis_server.url) as client:
        assert hand_in(client, progress) == 3
        path.write_bytes(before_handing)
        assert hand_in(client, again(path)) == 3
        assert [data["step"] for data in applied(client)] == [one.id for one in STEPS[:3]]


def test_an_answer_that_is_lost_is_no_second_step(tmp_path: Path, redis_server: EmbeddedRedis) -> None:
    """Redis took the step and the connection broke before it said so: it is handed in again, and counts once."""
    progress = begun(tmp_path / "p")
    done(progress, 2)
    with Door(redis_server.url) as door, redis.Redis.from_url(door.url, retry=Retry(NoBackoff(), 0)) as client:
        door.cut_answer(b"XADD")
        with pytest.raises(redis.RedisError):
            hand_in(client, progress)
        assert len(progress.pending) == 2
        assert hand_in(client, progress) == 2
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.xlen(wire.inbox("pair", wire.OPERATOR_INBOX)) == 3
        assert [data["step"] for data in applied(client)] == [one.id for one in STEPS[:2]]


ACTIONS = st.lists(st.sampled_from(["done", "skipped", "failed", "hand-in", "hand-in-and-cut", "restart", "cut"]), max_size=30)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_no_step_is_lost_or_told_twice(actions: list[str], redis_server: EmbeddedRedis) -> None:
    """Whatever happens in whatever order, the log gets exactly what was recorded, in its order."""
    said: list[tuple[str, str]] = []
    with TemporaryDirectory() as folder, redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        path = Path(folder) / "p"
        progress = begun(path)
        for action in actions:
            current = progress.current(STEPS)
            if action in ("done", "skipped", "failed") and current is not None:
                done(progress, outcome=action)
                said.append((current.id, action))
            elif action == "hand-in":
                hand_in(client, progress)
            elif action == "hand-in-and-cut":
                kept = path.read_bytes()
                hand_in(client, progress)
                path.write_bytes(kept + b'{"is":"handed')
                progress = again(path)
            elif action == "restart":
                progress = again(path)
            elif action == "cut":
                path.write_bytes(path.read_bytes() + b'{"is":"step","n":')
                progress = again(path)
        hand_in(client, progress)
        assert [(data["step"], data["outcome"]) for data in applied(client)] == said
        settled = [name for name, outcome in said if outcome != "failed"]
        assert len(set(settled)) == len(settled)
        assert [line[:13] for line in path.read_bytes().split(b"\n")[:-1]].count(b'{"is":"step",') == len(said)
