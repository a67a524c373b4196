"""The matrix: what CLUSTERPRO can say, times how a command ends, times what may befall dcsup (issue 3), against the guide's tables."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.wine.bench import Node, Windows, windows_path
from tests.wine.matrix import DCSUP, SHAPES, Case, Expected, declining_cases, expected, missing_pairs, running_cases

RUNNING = running_cases()
DECLINING = declining_cases()
AT_ONCE = 2


def perform(node: Node, case: Case) -> Expected:
    """One script run on a node that is made as before its first run."""
    node.calls_path.unlink(missing_ok=True)
    for service in case.services.split():
        node.put(service, *(["up"] if case.script == "stop" else []), *(["fail"] if case.fails else []))
    dcsup = windows_path(node.bin / ("none.exe" if case.dcsup == "missing" else "dcsup.exe"))
    node.configure(DCSUP=f'"{dcsup}"', DCSUP_HOOK_SILENCE="5" if case.dcsup == "hang" else None)
    code, _ = node.run(case.script, **case.environment())
    for service in case.services.split():
        node.take(service, "up", "fail")
    calls = node.calls(polls=False)
    return Expected(
        code, node.runs(), [line for line in calls if line.startswith("CLPLOGCMD|")],
        [line.split("|")[2] for line in calls if line.startswith("ARMBCAST|")],
    )  # fmt: skip


def wrong(windows: Windows, folder: Path, cases: list[Case]) -> list[tuple[Case, Expected, Expected]]:
    """The cases that did not go as the guide says, each with what was expected and what came."""

    def lane(n: int) -> list[tuple[Case, Expected, Expected]]:
        found = []
        for home in sorted({case.home for case in cases}):
            own = [case for case in cases[n::AT_ONCE] if case.home == home]
            if own:
                node = Node(windows, folder / str(n) / home, own[0].services)
                came = [(case, expected(case), perform(node, case)) for case in own]
                found += [(case, due, got) for case, due, got in came if due != got]
        return found

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [one for lane_found in pool.map(lane, range(AT_ONCE)) for one in lane_found]


@pytest.mark.parametrize("dcsup", DCSUP)
@pytest.mark.parametrize("services", SHAPES)
@pytest.mark.parametrize("script", ["start", "stop"])
def test_each_verb_runs_as_the_guide_says_whatever_befalls_dcsup(
    windows: Windows, tmp_path: Path, script: str, services: str, dcsup: str
) -> None:
    """G8-G15, G19, G23: verbs, order, log lines and exit code, for every event, outcome and state of dcsup."""
    cases = [case for case in RUNNING if (case.script, case.services, case.dcsup) == (script, services, dcsup)]
    assert len(cases) == 4
    assert wrong(windows, tmp_path, cases) == []


@pytest.mark.parametrize("services", SHAPES)
@pytest.mark.parametrize("script", ["start", "stop"])
def test_nothing_runs_without_cluster_or_disk(windows: Windows, tmp_path: Path, script: str, services: str) -> None:
    """G16, G17, G18: no command, one broadcast, and a start that is not up does not return 0."""
    cases = [case for case in DECLINING if (case.script, case.services) == (script, services)]
    assert wrong(windows, tmp_path, cases) == []


def test_what_takes_turns_meets_everything(record_property: Callable[[str, object], None]) -> None:
    """All pairs of values of two columns occur in runs with commands, for starts and for stops; and how many script runs there are."""
    for script in ("start", "stop"):
        assert missing_pairs([case for case in RUNNING if case.script == script]) == []
    record_property("Wine matrix", f"{len(RUNNING) + len(DECLINING)} script runs, {len(RUNNING)} of them with commands")
