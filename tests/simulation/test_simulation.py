"""Some seeds of the simulation, in CI's tests; `make sim` plays ten thousand."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.simulation import story
from tests.simulation.engine import Kernel, Machine, Signal
from tests.simulation.world import World

SEEDS = 60
TWICE = (3, 17)
"""Seeds that are played twice."""


def _simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tests.simulation", *arguments], capture_output=True, text=True, timeout=600)


def test_every_promise_holds_in_some_worlds_and_the_summary_says_what_they_were() -> None:
    """I1-I8 and liveness under faults; and the summary counts seeds, failovers and faults."""
    done = _simulate("--seeds", str(SEEDS), "--processes", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{SEEDS} seeds in" in done.stdout and "failovers" in done.stdout and "faults:" in done.stdout


def test_a_seed_tells_the_same_story_each_time() -> None:
    """The trace of everything that happened is the same in another process."""
    for seed in TWICE:
        first, second = (_simulate("--seed", str(seed)).stdout for _ in range(2))
        assert "(trace " in first and first == second


def test_a_violation_is_told_on_one_screen_with_the_command_that_shows_it_again() -> None:
    """Who is in it, what struck, what was violated, and `make sim SEED=...`."""
    world = World(1)
    for n in range(200):
        world.note(f"FAULT number {n}")
    world.checks.violate("I7", "ran twice")
    lines = list(story.tell(world))
    assert len(lines) <= story.SCREEN + 4
    assert lines[0].startswith("seed 1: ") and "VIOLATED  I7: ran twice" in lines and "make sim SEED=1" in lines[-1]


def test_a_killed_process_does_nothing_any_more_and_a_paused_machine_goes_on_where_it_was() -> None:
    """The engine: SIGKILL ends at a switch, SIGSTOP and a machine's pause hold, clocks go on, signals wake whoever waits."""
    kernel = Kernel(0)
    machine, signal, seen = Machine(kernel, "m"), Signal(kernel), list[tuple[str, float]]()

    def sleeper(name: str) -> None:
        while True:
            kernel.sleep(1.0)
            seen.append((name, kernel.now_s))

    def waiter() -> None:
        kernel.wait(signal)
        seen.append(("woken", kernel.now_s))

    killed = kernel.spawn("killed", machine, lambda: sleeper("killed"))
    kernel.spawn("lives", machine, lambda: sleeper("lives"))
    kernel.spawn("waits", machine, waiter)
    kernel.run(1.5)
    killed.kill()
    machine.pause()
    kernel.run(5.0)
    assert sorted(seen) == [("killed", 1.0), ("lives", 1.0)]
    signal.set()
    machine.resume()
    kernel.run(6.0)
    assert ("woken", 5.0) in seen and ("lives", 5.0) in seen and not killed.alive
    assert ("killed", 2.0) not in seen
    kernel.stop()


def test_the_environment_of_a_seed_does_not_matter() -> None:
    """The runner fixes Python's hash seed itself, so that sets have one order."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--seed", "5"], capture_output=True, text=True, timeout=600,
        env={**os.environ, "PYTHONHASHSEED": "123"},
    )  # fmt: skip
    assert done.stdout == _simulate("--seed", "5").stdout
