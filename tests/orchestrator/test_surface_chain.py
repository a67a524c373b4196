"""Export and reading: what is written comes back, and what is not what was written is refused with its place."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import redis

from orchestrator.chain import Damaged
from orchestrator.embedded import EmbeddedRedis
from orchestrator.export import checked, exported, stored
from orchestrator.ports import StoredEntry
from orchestrator.reading import entries, read
from statemachines.entries import Sealed
from tests.orchestrator.surface import chained, entry, file_of, put_into, small_log, stored_of, told_log


def lines_of(content: bytes) -> io.BytesIO:
    return io.BytesIO(content)


def refused(content: bytes) -> str:
    with pytest.raises(Damaged) as caught:
        list(read(lines_of(content)))
    return str(caught.value)


def test_a_log_goes_out_and_comes_back(tmp_path: Path) -> None:
    """Stored entries, to a file, to entries: the same bytes, hashes and values; Windows line ends do not matter."""
    log = told_log()
    content = b"".join(exported(checked(stored_of(log), "demo")))
    for written in (content, content.replace(b"\n", b"\r\n")):
        (tmp_path / "log").write_bytes(written)
        assert list(entries(tmp_path / "log")) == log


def test_a_log_comes_out_of_redis_whole(redis_server: EmbeddedRedis) -> None:
    """More entries than one page, read from a real server in order."""
    log = chained([entry(n, "DecisionSkipped", {"reason": "late"}) for n in range(1, 2305)])
    with redis.Redis.from_url(redis_server.url) as client:
        put_into(client, log)
        assert list(checked(stored(client, "demo"), "demo")) == log
        assert [one.id for one in stored(client, "demo", after=log[-3].entry.id)] == [sealed.entry.id for sealed in log[-2:]]


def test_one_changed_byte_is_refused_wherever_it_is() -> None:
    """Every byte of an export counts: changed at any position it is refused, and the line is told."""
    content = file_of(small_log())
    for position in range(len(content)):
        for change in (0x01, 0x20, 0x80):
            changed = bytearray(content)
            changed[position] ^= change
            first = content.count(b"\n", 0, position) + 1
            line = int(refused(bytes(changed)).split(":")[0].removeprefix("line "))
            assert line in (first, first + 1), "the line itself, or the one it now runs into"
    for position in (len(content) - 1, content.index(b"\n")):
        refused(content[:position] + b"\r" + content[position + 1 :])


def test_one_missing_or_doubled_byte_is_refused() -> None:
    """Deleted or doubled at any position."""
    content = file_of(small_log())
    for position in range(len(content)):
        refused(content[:position] + content[position + 1 :])
        refused(content[:position] + content[position : position + 1] + content[position:])


def test_what_else_may_happen_to_a_file() -> None:
    """Each of these says what it is."""
    log, other = small_log(), chained([entry(9, "DecisionSkipped", {"reason": "x"}, cluster="other")])
    content = file_of(log)
    lines = content.splitlines(keepends=True)
    assert refused(b"") == "the file is empty: it holds no entry"
    assert refused(content[:-20]) == "line 3: the line is cut off: the file ends in the middle of it"
    assert refused(content + b"\n") == "line 4: the line is empty"
    assert refused(content + file_of(other)) == "line 4: another log begins here: a file holds one export of one cluster"
    assert refused(lines[0] + lines[2]).startswith("line 2: the hash does not match")
    assert refused(lines[0] + lines[2] + lines[1]).startswith("line 2: the hash does not match")
    assert refused(b"\xff\xfe" + content).startswith("line 1: ")
    assert refused(b"not a log\n").startswith("line 1: the line does not end with its hash")


def test_a_chain_that_was_made_wrong_is_refused() -> None:
    """Right hashes do not excuse ids that go back, or two clusters in one log."""
    back = chained([entry(2, "X", {}), entry(1, "X", {})])
    assert "does not follow" in refused(file_of(back))
    two = chained([entry(1, "X", {}), entry(2, "X", {}, cluster="other")])
    assert refused(file_of(two)) == "line 2: it is of cluster 'other', the log is of 'demo'"


def tampered(log: list[Sealed]) -> dict[str, list[StoredEntry]]:
    rows = stored_of(log)
    return {
        "body": [rows[0], StoredEntry(rows[1].id, rows[1].body.replace(b"DecisionSkipped", b"DecisionTakennn"), rows[1].hash), rows[2]],
        "missing": [rows[0], rows[2]],
        "id": [rows[0], StoredEntry("9-9", rows[1].body, rows[1].hash)],
        "empty": [StoredEntry(rows[0].id, b"", "")],
    }


@pytest.mark.parametrize("how", ["body", "missing", "id", "empty"])
def test_a_stored_log_that_was_tampered_with_is_not_exported(how: str) -> None:
    """The chain is checked on the way out too, and the entry is told."""
    with pytest.raises(Damaged, match="entry "):
        list(checked(tampered(small_log())[how], "demo"))
