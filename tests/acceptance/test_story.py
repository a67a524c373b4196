"""The acceptance story: what `make demo` plays, as a visitor would start it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from deploy.sandbox.site import dcsup_command


def _marked(base: Path) -> list[str]:
    """Command lines of everything that was started from below a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if str(base) in line and process.pid != os.getpid():
            found.append(line)
    return found


def test_the_whole_story_holds(tmp_path: Path) -> None:
    """`dcsup demo` ends 0, every printed expectation held, its folder holds log, metrics and replay, and no process is left over."""
    done = subprocess.run(
        [*dcsup_command(), "demo", "--folder", str(tmp_path)], capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    expectations = json.loads((tmp_path / "expectations.json").read_text(encoding="utf-8"))
    assert len(expectations) > 80
    assert all(e["held"] for e in expectations)
    assert {e["step"] for e in expectations} == set(range(1, 10))
    for name in ("events.ndjson", "metrics.txt", "status.json", "replay.json"):
        assert (tmp_path / name).stat().st_size > 0
    assert not _marked(tmp_path)


def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    """Ctrl-C in the middle of the story: exit code 130 and no process."""
    child = subprocess.Popen(
        [*dcsup_command(), "demo", "--folder", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        start_new_session=True,
    )
    assert child.stdout is not None
    seen = []
    for line in child.stdout:
        seen.append(line)
        if "NodeJoined" in line or "-> starting" in line:
            break
    assert child.poll() is None, "".join(seen)
    os.killpg(child.pid, signal.SIGINT)
    rest, _ = child.communicate(timeout=120)
    assert child.returncode == 130, "".join(seen) + rest
    deadline = time.monotonic() + 20
    while _marked(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _marked(tmp_path)


def test_the_demo_module_says_what_it_does() -> None:
    """`--help` explains without starting anything."""
    done = subprocess.run([*dcsup_command(), "demo", "--help"], capture_output=True, text=True, check=True)
    assert "--folder" in done.stdout
    assert sys.version_info >= (3, 11)
