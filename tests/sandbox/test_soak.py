"""The soak itself: one episode is played, judged and counted; interrupted or killed outright it leaves nothing running."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from deploy.sandbox.standins import processes
from deploy.sandbox.witness import available
from orchestrator.embedded import in_use
from tests.conftest import wait_until

pytestmark = pytest.mark.skipif(not available(), reason="the soak's witness needs Linux")
LIMIT_S = 240.0
"""For whatever is waited for: a bound, not a promise."""


def soak(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A soak in that folder."""
    argv = [sys.executable, "-m", "deploy.sandbox.soak", "--folder", str(folder), "--seed", "31", *arguments]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8")


def test_an_episode_is_played_and_judged(tmp_path: Path) -> None:
    """Faults are injected and counted, the group and dcsup come to rest, and no rule is broken; judged again the story says the same."""
    numbers = tmp_path / "numbers.json"
    with soak(tmp_path / "soak", "--rounds", "1", "--json", str(numbers)) as process:
        printed, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, printed
    told = json.loads(numbers.read_text(encoding="utf-8"))
    assert told["faults"] >= 1
    assert told["facts_of_them_in_the_log"] == told["facts_on_the_nodes"] > 10
    assert told["commands_executed"] >= 2
    assert told["double_executions"] == told["lost_facts"] == 0
    again = [sys.executable, "-m", "deploy.sandbox.checker", str(tmp_path / "soak")]
    judged = subprocess.run(again, capture_output=True, text=True, encoding="utf-8", timeout=LIMIT_S, check=False)
    assert judged.returncode == 0, judged.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_ended_soak_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """Asked to end it does so in good order; killed outright it is cleared away by its keeper."""
    folder = tmp_path / "soak"
    settings = folder / "site" / "sandbox" / "sandbox.json"
    with soak(folder) as process:
        wait_until(lambda: list((folder / "site" / "sandbox").glob("node*/dcsup/worker.lock")), "a worker", LIMIT_S)
        mark = json.loads(settings.read_text(encoding="utf-8"))["id"]
        below = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        process.communicate(timeout=LIMIT_S)
    assert process.returncode == (130 if number == signal.SIGTERM else -signal.SIGKILL)
    wait_until(lambda: not processes.command_lines(mark, str(folder / "site" / "sandbox")), "the end of the sandbox", LIMIT_S)
    wait_until(lambda: not in_use(folder / "site" / "redis"), "the end of its Redis", LIMIT_S)
    wait_until(lambda: not any(map(_lives, below)), "the end of everything that it had started", LIMIT_S)
    wait_until(lambda: str(folder) not in Path("/proc/mounts").read_text(encoding="utf-8"), "the small disks off", LIMIT_S)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
