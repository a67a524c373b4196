"""What a schedule probe's output means."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from statemachines.facts import Schedule
from tests.conftest import wait_until
from tests.workers.conftest import wait_for
from workers.probe import ProbeError, parse, read
from workers.runs import Run

GOOD = """\
{"name": "b", "startup_mode": "manual", "state": "stopped", "more": 1}

{"name": "a", "startup_mode": "auto", "state": "started"}
"""


def test_schedules_come_in_the_order_of_their_names() -> None:
    """So that two equal lists compare equal, however the site's command sorts; unknown keys and blank lines are ignored."""
    assert parse(GOOD) == [
        Schedule(name="a", startup_mode="auto", state="started"), Schedule(name="b", startup_mode="manual", state="stopped")
    ]  # fmt: skip


def test_no_schedules_is_an_answer() -> None:
    """A server may have none."""
    assert parse("") == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("daily started\n", "line 1 is not JSON"),
        (GOOD + "[]", "line 4 is not a JSON object"),
        ('{"name": "a", "startup_mode": "sometimes", "state": "started"}', "line 1: startup_mode: .*'auto' or 'manual'"),
        ('{"name": "a", "state": "started"}', "line 1: startup_mode: Field required"),
        (GOOD + GOOD, "line 4: schedule 'b' is listed twice"),
    ],
)
def test_anything_else_is_a_failed_probe_that_names_the_line(text: str, says: str) -> None:
    """Nothing is built on a misread list."""
    with pytest.raises(ProbeError, match=says):
        parse(text)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["sh", "-c", "echo starting; echo no database >&2; exit 4"], "ended with code 4: no database"),
        (["sh", "-c", "sleep 600"], "did not end within .* s and was ended"),
        (["/nowhere/probe"], "could not be run: cannot run /nowhere/probe: No such file"),
    ],
)
def test_a_probe_that_does_not_answer_says_why(argv: list[str], says: str) -> None:
    """Its code and last words, its time, or why it could not be started."""
    run = Run(argv, 0.2 if "sleep" in argv[-1] else 20.0)
    outcome = wait_for(run.poll, "the probe's end")
    with pytest.raises(ProbeError, match=says):
        read(outcome)


def test_a_command_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    """A limit that only ended the shell would leave its children behind for years."""
    marker = tmp_path / "alive"
    run = Run(["sh", "-c", f"(while :; do date > {marker}; sleep 0.02; done) & wait"], 0.3)
    outcome = wait_for(run.poll, "the limit")
    assert (outcome.code, outcome.error) == (None, "limit")
    marker.unlink(missing_ok=True)
    before = time.monotonic()
    wait_until(lambda: time.monotonic() - before > 0.2, "a few rounds of a child that should be gone")
    assert not marker.exists()


def test_output_is_decoded_as_the_site_says() -> None:
    """cp932, as on a Japanese Windows; what does not fit is replaced, never an error."""
    run = Run(["printf", r"\223\372\226\173\377"], 20.0, encoding="cp932")
    assert wait_for(run.poll, "the output").output.startswith("日本")
