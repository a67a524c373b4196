"""docs/security.md names tests: they are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEST = re.compile(r"`((?:\w+/)+test_\w+\.py)::(\w+)`")
ACTORS = (
    "somebody on the network", "somebody with a node's Redis password", "somebody who can write to a node's queue",
    "somebody with the orchestrator's Redis password", "somebody with root on one node", "a local user without rights",
    "somebody with a mailed log", "an operator by mistake",
)  # fmt: skip


def page() -> str:
    return (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def test_every_test_that_is_named_is_there() -> None:
    """Each function in its file."""
    named = TEST.findall(page())
    assert len(named) > 20
    assert [one for one in named if f"def {one[1]}(" not in (ROOT / "tests" / one[0]).read_text(encoding="utf-8")] == []


def test_every_subject_that_is_tested_is_in_the_table() -> None:
    """Of tests/security: `test_acl_clock.py` and its like are about `acl`."""
    files = {subject(path.name) for path in Path(__file__).parent.glob("test_*.py")} - {"document"}
    assert files - {subject(Path(file).name) for file, _ in TEST.findall(page())} == set()


def subject(name: str) -> str:
    return name.removesuffix(".py").split("_")[1]


def test_every_actor_has_its_rows() -> None:
    """Who could want to do harm, each at the beginning of a row; all rows have five columns."""
    rows = [line for line in page().splitlines() if line.startswith("|")]
    assert all(any(row.startswith(f"| {actor}") for row in rows) for actor in ACTORS)
    assert {row.count("|") for row in rows} == {6}
