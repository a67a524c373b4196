"""`python -m tests.mutants [NAME...]`: plant each fault into a copy of the project and see what notices."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.mutants.faults import FAULTS, Fault

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "build", "dist", "*cache*", "*.pyc", ".hypothesis")
LIMIT_S = 900


class Caught(NamedTuple):
    by: str
    """Empty: by nothing."""
    took_s: float
    seeds: int | None
    """Simulated worlds until it was noticed, if the simulation did."""


def plant(fault: Fault, project: Path) -> None:
    """Change the one text in a copy of the project.

    Raises:
        ValueError: the text is not there exactly once.
    """
    file = project / fault.file
    text = file.read_text("utf-8")
    if text.count(fault.old) != 1:
        raise ValueError(f"{fault.name}: the text stands {text.count(fault.old)} times in {fault.file}, not once")
    file.write_text(text.replace(fault.old, fault.new), "utf-8")


@contextmanager
def project() -> Iterator[Path]:
    """A copy of the project, for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="dcsup-mutant-") as base:
        copy = Path(base) / "project"
        shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
        yield copy


def check(fault: Fault, seeds: int) -> Caught:
    """Plant the fault into a copy and run what should notice, the simulation first."""
    with project() as copy:
        plant(fault, copy)
        return noticed(copy, seeds if fault.sim else 0, fault.tests)


def noticed(copy: Path, seeds: int, tests: Sequence[str]) -> Caught:
    """What in this copy of the project fails first, if anything does."""
    began = time.monotonic()
    if seeds:
        code, said = _run(copy, "-m", "tests.simulation", "--seeds", str(seeds), "--quick-fail")
        if code != 0:
            found = re.search(r"in \d+ of (\d+) seeds", said)
            return Caught("simulation", time.monotonic() - began, int(found[1]) if found else None)
    for test in tests:
        code, said = _run(copy, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", test)
        if code != 0:
            return Caught(_name_of(said) or test, time.monotonic() - began, None)
    return Caught("", time.monotonic() - began, None)


def sound(faults: Sequence[Fault], seeds: int) -> str:
    """What fails although nothing was planted: then it would seem to catch everything. Empty: nothing does."""
    tests = dict.fromkeys(test for fault in faults for test in fault.tests)
    with project() as copy:
        return noticed(copy, seeds if any(fault.sim for fault in faults) else 0, [*tests]).by


def _run(project: Path, *words: str) -> tuple[int, str]:
    """Exit code and output; what hangs has been noticed too."""
    environment = {**os.environ, "PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ended = subprocess.run(
            [sys.executable, *words],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, f"FAILED it did not end within {LIMIT_S} s"
    return ended.returncode, ended.stdout + ended.stderr


def _name_of(said: str) -> str:
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE)
    return found[1] if found else ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.mutants", description="Plant faults into the product and see which check notices each.")
    parser.add_argument("names", nargs="*", help="parts of names of faults; default: all")
    parser.add_argument("--seeds", type=int, default=600, help="simulated worlds before the tests are asked; default 600")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 1) // 2), help="faults at the same time")
    parser.add_argument("--trust", action="store_true", help="do not first see everything pass without a fault")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    faults = [fault for fault in FAULTS if not chosen.names or any(name in fault.name for name in chosen.names)]
    if not chosen.trust and (fails := sound(faults, chosen.seeds)):
        print(f"nothing is planted yet, and {fails} fails already: mend that first")
        return 2
    missed = 0
    with ThreadPoolExecutor(chosen.jobs) as pool:
        for fault, caught in zip(faults, pool.map(lambda fault: check(fault, chosen.seeds), faults), strict=True):
            missed += not caught.by
            if chosen.json:
                print(json.dumps({"fault": fault.name, "file": fault.file, **caught._asdict()}), flush=True)
            else:
                seeds = f" after {caught.seeds} seeds" if caught.seeds is not None else ""
                print(f"{'caught' if caught.by else 'MISSED'}  {fault.name:58} {caught.by}{seeds}  ({caught.took_s:.0f} s)", flush=True)
    if not chosen.json:
        print(f"{len(faults) - missed} of {len(faults)} caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
