"""The coverage-guided fuzzer, for a while: `python -m tests.fuzz.guided TARGET` looks for longer."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.guided import TARGETS

ROOT = Path(__file__).resolve().parents[2]
RUNS = {"clpstat": 15_000, "clpconf": 6_000, "fact": 15_000, "inbox": 800, "export": 6_000, "toml": 4_000}


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this system and Python")
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_nothing_but_what_is_promised_comes_out_of_a_reader(target: str, tmp_path: Path) -> None:
    """Whatever bytes reach a reader of others' text: an answer, or a refusal in words."""
    command = [sys.executable, "-m", "tests.fuzz.guided", target, "--runs", str(RUNS[target]), "--corpus", str(tmp_path / "corpus")]
    ended = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True, errors="replace", check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert f"Done {RUNS[target]} runs" in ended.stderr
