"""What is printed: a page with boxes to tick, and a drill's report; each in both languages."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from orchestrator.runbooks.paper import page
from orchestrator.runbooks.plans import VALUES_OF, plan
from orchestrator.runbooks.progress import Progress, begin
from orchestrator.runbooks.report import report
from orchestrator.runbooks.wording import LANGUAGES, word
from tests.cli.conftest import Dcsup
from tests.runbooks.support import EVERY, shape_of, step_of, steps_of
from tests.runbooks.test_verifying import moved_story, told

MOVE = {"command": "dcsup move"}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("name", "services", "standbys"), EVERY)
def test_the_page_has_a_box_for_each_step_in_their_order(name: str, services: str, standbys: int, language: str) -> None:
    """Numbered, with id, rules, why, what dcsup would verify, and room for who and when; a heading wherever the node changes."""
    shape, steps = shape_of(services, standbys), steps_of(name, services, standbys)
    printed = page(name, shape, steps, MOVE, language)
    boxes = re.findall(r"^- \[ \] \*\*(\d+)\. (.+?)\*\*(?: \((.*?)\))? `(\S+)`$", printed, re.MULTILINE)
    assert [(int(number), title, found) for number, title, _rules, found in boxes] == [
        (number, word(step, shape, MOVE, language).title, step.id) for number, step in enumerate(steps, start=1)
    ]
    assert [rules for _number, _title, rules, _id in boxes] == [", ".join(step.rules) for step in steps]
    changes = 1 + sum(one.node != other.node for one, other in pairwise(steps))
    assert len(re.findall(r"^## ", printed, re.MULTILINE)) in (changes, changes + 1)


def test_the_page_has_room_for_what_is_not_known() -> None:
    """A blank with its name, listed at the head; what was given is printed instead."""
    shape, steps = shape_of("server"), steps_of("install-server", "server")
    printed = page("install-server", shape, steps, {"disk": "E:"}, "en")
    assert "- folder of the metadata database (metadata_path): ____________" in printed
    assert "install it new, in ____________ (metadata_path). On the switchable partition (E:)" in printed
    assert "(disk): ____" not in printed
    whole = page("install-server", shape, steps, dict.fromkeys(VALUES_OF["server"], "x"), "en")
    assert "Values to fill in" not in whole


def test_danger_and_commands_stand_out() -> None:
    """Caution in bold; commands as blocks, lists as lists, so that Markdown shows them as such."""
    printed = page("uninstall-server", shape_of("both"), steps_of("uninstall-server", "both"), {}, "en")
    assert printed.count("**CAUTION**") == 5
    printed = page("install-server", shape_of("both"), steps_of("install-server", "both"), {}, "en")
    assert "\n\n      clpgrp -m failover1 -a node2\n" in printed
    assert "\n\n  - Install path" in printed


def test_the_command_prints_it(dcsup: Dcsup, nowhere: Path) -> None:
    """In the reader's language, or in the one that is asked for; Redis is not needed."""
    english = dcsup("runbook", "drill", "--config", nowhere, "--markdown")
    japanese = dcsup("runbook", "drill", "--config", nowhere, "--markdown", "--language", "ja")
    assert (english.code, japanese.code, english.err, japanese.err) == (0, 0, "", "")
    assert english.out.startswith("# Failover drill\n")
    assert japanese.out.startswith("# フェイルオーバ訓練\n")


# --- the report ---------------------------------------------------------------------------------------------------------------------------

SHAPE = shape_of("both")
STEPS = plan("drill", SHAPE)


def drilled(folder: Path, failover: dict[str, Any] | None, limit_s: str | None = "60", note: str = "") -> Progress:
    """A drill in which everything was done."""
    values = {"limit_s": limit_s} if limit_s else {}
    progress = begin(folder / "p", "drill", "pair", "sato", values=values, options={"kind": "move", "to": "node2"})
    for step in STEPS:
        seen = {"failover": failover} if step.id == "provoke" and failover else {}
        progress.record(step, "done", "sato", verified=True, note=note, seen=seen)
    return progress


def a_failover() -> dict[str, Any]:
    found: dict[str, Any] = told(moved_story()[0])["failovers"][-1]
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_report_says_everything_that_was_measured(language: str, tmp_path: Path) -> None:
    """Every phase that was seen, the total, the limit, every schedule with its rule, every step."""
    failover = a_failover()
    text = report(drilled(tmp_path, failover), SHAPE, STEPS, language)
    for phase, seconds in failover["phases"].items():
        assert f"| {phase} | {seconds:.2f} |" in text
    assert f"**{failover['total_s']:.2f}**" in text
    for judgement in failover["judgements"]:
        for verdict in judgement["schedules"]:
            assert f"| {verdict['name']} | {verdict['outcome']} | {judgement['rule']}" in text
    for step in STEPS:
        assert word(step, SHAPE, MOVE, language).title in text


def test_the_report_tells_what_clients_saw_and_what_was_assumed(tmp_path: Path) -> None:
    """Outages with their length, or that they last; G7 by name; commands without dcsup."""
    failover = a_failover()
    failover["outages"] = [
        {"endpoint": "vip", "down_ms": 1000.0, "up_ms": 4500.0},
        {"endpoint": "agents", "down_ms": 1000.0, "up_ms": None},
    ]
    failover["judgements"][0]["assumed"] = True
    failover["by_script"] = 2
    text = report(drilled(tmp_path, failover), SHAPE, STEPS, "en")
    assert "| vip | 3.50 |" in text
    assert "| agents | still not reachable |" in text
    assert "assumed (G7)" in text
    assert "without dcsup: 2" in text


@pytest.mark.parametrize(
    ("limit_s", "changes", "verdict"),
    [
        ("60", {}, "were met"),
        (None, {}, "were met"),
        ("0.5", {}, "were NOT met"),
        ("60", {"outcome": "failed"}, "were NOT met"),
        ("60", {"judgements": []}, "is not known"),
    ],
)
def test_the_verdict_is_the_judgements(limit_s: str | None, changes: dict[str, Any], verdict: str, tmp_path: Path) -> None:
    """As the step `objectives` judged it."""
    assert verdict in report(drilled(tmp_path, a_failover() | changes, limit_s), SHAPE, STEPS, "en").splitlines()[2]


def test_what_people_typed_does_not_break_the_page(tmp_path: Path) -> None:
    """Neither a table nor the page."""
    text = report(drilled(tmp_path, None, note="a | b <script> \\ `x`"), SHAPE, STEPS, "en")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 6 for row in rows)
    assert "<script" not in text


def test_a_report_without_a_step_that_was_reached(tmp_path: Path) -> None:
    """What is open is shown as open."""
    progress = begin(tmp_path / "p", "drill", "pair", "sato", values={}, options={})
    progress.record(step_of(STEPS, "healthy"), "skipped", "sato", verified=False, note="x", seen={})
    text = report(progress, SHAPE, STEPS, "en")
    assert text.count("| open |") == len(STEPS) - 1
    assert "| skipped | sato |" in text
