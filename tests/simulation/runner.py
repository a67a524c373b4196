"""`python -m tests.simulation --seeds N`: play many worlds, on all cores; `--seed S --trace`: tell the story of one.

Exit code 0: every promise was kept (and, of a full run, everything was met often enough); 1: not, and the story of the first failing
seed is printed; 2: wrong usage.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

from tests.simulation import coverage, story
from tests.simulation.world import Outcome, World

CHUNK = 20
PROGRESS_S = 15.0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Deterministic simulation of dcsup under faults.")
    parser.add_argument("--seeds", type=int, default=1000, help="how many worlds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="one seed only")
    parser.add_argument("--trace", action="store_true", help="with --seed: its whole story")
    parser.add_argument("--json", metavar="FILE", help="write the summary there")
    parser.add_argument("--quick-fail", action="store_true", help="end at the first violation")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


def play(seed: int) -> Outcome:
    return World(seed).run()


def _play_all(seeds: range, processes: int) -> Iterator[Outcome]:
    if processes == 1:
        yield from map(play, seeds)
        return
    with get_context("fork").Pool(processes, _prepare) as pool:
        yield from pool.imap_unordered(play, seeds, chunksize=CHUNK)


def _prepare() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def _one(seed: int, trace: bool) -> int:
    one = World(seed)
    outcome = one.run()
    if trace or outcome.violations:
        print("\n".join(story.tell(one, whole=trace)))
    print(f"seed {seed}: {'; '.join(outcome.violations) or 'every promise held'} (trace {outcome.trace})")
    return 1 if outcome.violations else 0


def _many(chosen: argparse.Namespace) -> int:
    tally, begin_s = coverage.Tally(), time.monotonic()
    said_s = begin_s
    for outcome in _play_all(range(chosen.first, chosen.first + chosen.seeds), chosen.processes):
        tally.add(outcome)
        if outcome.violations and chosen.quick_fail:
            break
        if time.monotonic() - said_s > PROGRESS_S:
            said_s = time.monotonic()
            print(f"{tally.seeds} of {chosen.seeds} seeds, {len(tally.failed)} failed, {tally.failovers} failovers", flush=True)
    took_s = time.monotonic() - begin_s
    _report(tally, took_s, chosen.json)
    return 0 if tally.is_good else 1


def _report(tally: coverage.Tally, took_s: float, file: str | None) -> None:
    print("\n".join(tally.lines(took_s)))
    kinds: dict[str, list[int]] = {}
    for outcome in tally.failed:
        kinds.setdefault(outcome.violations[0].partition(":")[0], []).append(outcome.seed)
    for kind, seeds in kinds.items():
        print(f"VIOLATED {kind}: in {len(seeds)} of {tally.seeds} seeds: {', '.join(map(str, sorted(seeds)[:20]))}")
    if tally.failed:
        first = min(tally.failed, key=lambda outcome: outcome.seed)
        _one(first.seed, trace=False)
    if file is not None:
        Path(file).write_text(json.dumps(tally.as_dict(took_s), indent=1, sort_keys=True) + "\n", "utf-8")


def main() -> int:
    chosen = _arguments()
    return _one(chosen.seed, chosen.trace) if chosen.seed is not None else _many(chosen)
