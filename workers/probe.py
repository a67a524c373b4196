"""The schedule probe: asking a site's own command which schedules there are.

The guide names no command that lists schedules, so a site configures one (`node.probe`). It prints one JSON object a line:

    {"name": "daily-orders", "startup_mode": "auto", "state": "started"}

Further keys are ignored, blank lines too. Anything else is a failed probe with the reason in words: an outcome that is built on a
misread list would be worse than none (the outcome is `unknown` then, never `resumed`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from statemachines.configuration import ScheduleSettings
from statemachines.facts import Schedule
from workers import files
from workers.polls import Report, ServicePolls
from workers.runs import Outcome, Run

AFTER_START_EVERY_S = 1.0
"""Between two probes while it is not clear yet what came back."""


class ProbeError(ValueError):
    """Why a probe told nothing, in words for an operator."""


def read(outcome: Outcome) -> list[Schedule]:
    """The schedules that an ended probe run printed, in order of their names.

    Raises:
        ProbeError: it could not be run, did not end in time, ended with another code than 0, or printed something else.
    """
    if outcome.error == "limit":
        raise ProbeError(f"the probe did not end within {outcome.duration_s:.1f} s and was ended")
    if outcome.error:
        raise ProbeError(f"the probe could not be run: {outcome.error}")
    if outcome.code != 0:
        raise ProbeError(f"the probe ended with code {outcome.code}: {_last_line(outcome.output)}")
    return parse(outcome.output)


def parse(text: str) -> list[Schedule]:
    """The schedules in a probe's output, in order of their names.

    Raises:
        ProbeError: naming the first line that is not what it should be.
    """
    found: dict[str, Schedule] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        schedule = _schedule(number, line)
        if schedule.name in found:
            raise ProbeError(f"line {number}: schedule {schedule.name!r} is listed twice")
        found[schedule.name] = schedule
    return [found[name] for name in sorted(found)]


def _schedule(number: int, line: str) -> Schedule:
    try:
        data: Any = json.loads(line)
    except ValueError:
        raise ProbeError(f"line {number} is not JSON: {line.strip()[:80]!r}") from None
    if not isinstance(data, dict):
        raise ProbeError(f"line {number} is not a JSON object: {line.strip()[:80]!r}")
    try:
        return Schedule.model_validate({key: data[key] for key in ("name", "startup_mode", "state") if key in data})
    except ValidationError as error:
        first = error.errors()[0]
        raise ProbeError(f"line {number}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no output"


class ScheduleProbe:
    """When the probe is asked, and what of its answers becomes a fact.

    While the server is verified here: every `probe_interval`. After each verification first at once and then every second,
    until two observations taken later than `settle` agree, and then every few seconds until `deadline`, for a schedule that resumes late
    must be seen. A fact is made when the list changes, and always for the first observation taken later than `settle`: that is the one
    which the orchestrator waits for. A probe that fails is reported when its reason changes.
    """

    def __init__(
        self, folder: Path, service: str, argv: Sequence[str], settings: ScheduleSettings, limit_s: float, encoding: str, report: Report
    ) -> None:
        self._path = folder / "watch" / f"{service}.schedules"
        self._service, self._argv, self._settings, self._limit_s, self._encoding = service, argv, settings, limit_s, encoding
        self._report = report
        self._run: Run | None = None
        self._due = 0.0
        self._verified_mono: float | None = None
        self._ticket: str | None = None
        self._failed: str | None = None
        self._agreeing = 0
        self._last: list[dict[str, Any]] | None = None
        self._settled: float | None = None
        """The verification whose settled observation was made."""
        self._load()

    def step(self, now: float, polls: ServicePolls) -> None:
        """Begin a probe that is due while the service is verified; tell of one that ended."""
        self._follow(now, polls)
        if self._run is None:
            if self._verified_mono is not None and now >= self._due:
                self._run = Run(self._argv, self._limit_s, encoding=self._encoding)
        elif (outcome := self._run.poll()) is not None:
            self._run = None
            self._take(outcome)
            self._due = outcome.started + self._pause_s(time.monotonic())

    @property
    def busy(self) -> bool:
        return self._run is not None

    def discard(self) -> None:
        """End a probe under way and forget it."""
        if self._run is not None:
            self._run.discard()
            self._run = None

    def _follow(self, now: float, polls: ServicePolls) -> None:
        verified = polls.verified_mono if polls.verified else None
        if verified == self._verified_mono:
            return
        self.discard()  # it was asked in another life of the service
        self._verified_mono, self._ticket, self._due, self._agreeing = verified, polls.ticket, now, 0

    def _pause_s(self, now: float) -> float:
        age = now - (self._verified_mono or now)
        if age > self._settings.deadline:
            return self._settings.probe_interval
        pause = AFTER_START_EVERY_S if self._agreeing < 2 else self._settings.deadline / 12
        return min(max(pause, AFTER_START_EVERY_S), self._settings.probe_interval)

    def _take(self, outcome: Outcome) -> None:
        try:
            schedules = [schedule.model_dump() for schedule in read(outcome)]
        except ProbeError as error:
            self._fail(str(error))
            return
        settled = self._verified_mono is not None and outcome.started >= self._verified_mono + self._settings.settle
        owed = settled and self._settled != self._verified_mono
        if schedules != self._last or owed or self._failed is not None:
            self._tell(schedules, settled)
        elif settled:
            self._agreeing += 1

    def _tell(self, schedules: list[dict[str, Any]], settled: bool) -> None:
        self._report("SchedulesObserved", {"service": self._service, "schedules": schedules, "ticket": self._ticket}, "probe")
        self._agreeing = 1 if settled else 0
        self._last, self._failed = schedules, None
        self._settled = self._verified_mono if settled else self._settled
        self._save()

    def tell_again(self) -> None:
        """The next observation is told, whether it is a change or not."""
        self._last = self._settled = self._failed = None
        self._save()

    def _fail(self, reason: str) -> None:
        self._agreeing = 0
        if reason != self._failed:
            self._failed = reason
            self._report("ProbeFailed", {"service": self._service, "reason": reason}, "probe")

    def _save(self) -> None:
        try:
            files.write_aside(self._path, json.dumps({"last": self._last, "settled": self._settled}) + "\n", flush=False)
        except OSError:
            pass  # after a restart one observation is told twice

    def _load(self) -> None:
        try:
            content = json.loads(self._path.read_bytes())
            self._last, self._settled = content["last"], content["settled"]
        except (OSError, ValueError, TypeError, KeyError):
            pass  # never written, or damaged: the next observation is told
