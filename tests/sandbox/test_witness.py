"""The witness sees every fact that reaches an outbox, and the number it gets, though it is gone a moment later."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.sandbox.standins import records
from deploy.sandbox.witness import Witness, available
from workers import outbox
from workers.sequences import DiskSequence

pytestmark = pytest.mark.skipif(not available(), reason="inotify is Linux's")


def test_every_fact_is_seen_with_its_number_and_its_words(tmp_path: Path) -> None:
    """I5's evidence: written, numbered, gone at once; a damaged one is seen put aside."""
    folder, seen = tmp_path / "node", tmp_path / "outbox.jsonl"
    with Witness({"node1": folder}, seen):
        sequence = DiskSequence(folder)
        for count in range(1, 41):
            outbox.write_fact(folder, "FactsDropped", "worker", {"count": count, "reason": "a test"})
            sequence.number_new()
            sequence.acknowledge(count)
        (folder / "outbox" / ".tmp-x").write_text("not a fact", encoding="utf-8")
        (folder / "outbox" / ".tmp-x").rename(folder / "outbox" / "x.fact")
        sequence.number_new()
    found = records.read(str(seen))
    numbered = [r for r in found if r["what"] == "numbered"]
    assert [(r["stream"], r["seq"]) for r in numbered] == [(sequence.stream, seq) for seq in range(1, 41)]
    written = [r for r in found if r["what"] == "written"]
    assert [r["name"] for r in written] == [r["name"] for r in numbered] + ["x.fact"]
    assert all('"reason": "a test"' in r["content"] for r in written[:-1] if r["content"] is not None)
    assert [r["name"] for r in found if r["what"] == "damaged"] == ["x.fact"]
