"""The documents name files and tests: they are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| G(\d+) \|", re.MULTILINE)
SOURCE = re.compile(r"`((?:statemachines|workers|orchestrator|deploy)/[\w./-]+)`")
TEST = re.compile(r"`((?:\w+/)+test_\w+\.py)(?:::(\w+))?`")


def table() -> str:
    return (ROOT / "docs" / "guide-rules.md").read_text(encoding="utf-8")


def test_every_rule_of_the_guide_has_its_row() -> None:
    """G1 to G44, each once and in order."""
    assert [int(number) for number in ROW.findall(table())] == list(range(1, 45))


def test_the_table_names_what_is_there() -> None:
    """Each file exists, and each test function is in its file."""
    missing = [path for path in SOURCE.findall(table()) if not (ROOT / path).exists()]
    for path, function in TEST.findall(table()):
        file = ROOT / "tests" / path
        if not file.is_file() or (function and f"def {function}(" not in file.read_text(encoding="utf-8")):
            missing.append(f"{path}::{function}")
    assert missing == []


def test_every_document_that_is_linked_to_exists() -> None:
    """Links between the documents lead somewhere."""
    for document in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
