"""Polling one service: when `dcstatus` is asked, and what its answers mean.

Three phases decide the pace (DESIGN.md, "Watch"):

    steady      every `interval` (G22); also on a standby, where a good answer would be the evidence of a double activation
    starting    the service's start command ended ok and its ticket lives: first after `first_check_after`, then every
                `startup_interval` (default: twice as long as the last poll took, at least 1 s), until verified (G20)
    stopping    its stop command ended: at once, then at the same pace, until an answer says that it is down

An answer is good (0), bad (any other code) or unknown (it did not come in time, or `dcstatus` cannot be run). Unknown is not bad: the
guide's script would only wait; a site may set how many unknown ones in a row count as a bad one. A service is *verified* after
`verify_confirm` good answers in a row, all of them to questions asked after its start command had ended. A verified service is
*unhealthy* after `confirm` bad answers in a row; one that is not verified, at once.

What was seen stands in `watch/<service>.status`, which the hooks read and from which a restarted watch goes on. A fact
(`ServicePolled`) is made only when (status, verified, ticket) changes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from statemachines.configuration import WatchSettings
from workers import files, processes, statuses
from workers.runs import Outcome, Run

Report = Callable[[str, dict[str, Any], str], None]
"""report(type, data, source): hand in a fact."""

Phase = Literal["steady", "starting", "stopping"]
STARTUP_LEAST_S = 1.0


class ServicePolls:
    """One service of this node. `step` is called every few milliseconds and never blocks."""

    def __init__(self, folder: Path, name: str, argv: Sequence[str], settings: WatchSettings, boot: str, report: Report) -> None:
        self.name = name
        self.status: str = "unknown"
        self.code: int | None = None
        self.verified = False
        self.verified_mono: float | None = None
        """When it became verified (time.monotonic()); names one verification among others."""
        self.ticket: str | None = None
        """The start that the polls are about: its command for this service had ended ok before they began."""
        self.polls = 0
        self.errors = 0
        self.last_success_wall: float | None = None
        self.phase: Phase = "steady"
        self._folder, self._argv, self._settings, self._boot, self._report = folder, argv, settings, boot, report
        self._me = (os.getpid(), processes.born(os.getpid()) or "")
        self._run: Run | None = None
        self._due = time.monotonic()
        self._good = self._bad = self._unknown = 0
        self._told: tuple[str, bool, str | None] | None = None
        self._polls_told = 0
        self._ended: float | None = None
        self._began: float | None = None
        self._last_began: float | None = None
        """When the last poll that ended had begun; `_began` may be of one under way."""
        self._load()

    # -- what happens to the service

    def started(self, ticket: str) -> None:
        """Its start command of this ticket ended ok: verify it, with questions asked from now on."""
        self._begin(ticket, "starting", time.monotonic() + self._settings.first_check_after_s)

    def stopped(self) -> None:
        """Its stop command ended, well or not: see whether it is down."""
        self._begin(None, "stopping", time.monotonic())

    def _begin(self, ticket: str | None, phase: Phase, due: float) -> None:
        self.discard()
        self.ticket, self.phase, self._due = ticket, phase, due
        self.verified, self.verified_mono = False, None
        self._good = self._bad = self._unknown = 0
        self.save()

    def ticket_over(self) -> None:
        """The script has returned: no reason for haste any more, except for one confirmation that is still missing."""
        if self.phase == "stopping" or (self.phase == "starting" and self._good == 0):
            self.phase = "steady"

    # -- the loop's body

    def step(self, now: float) -> None:
        """Begin a poll that is due; judge one that ended."""
        if self._run is None:
            if now >= self._due:
                self._ask(now)
        elif (outcome := self._run.poll()) is not None:
            self._run = None
            self._judge(outcome)

    @property
    def busy(self) -> bool:
        """Whether it pays to look often."""
        return self._run is not None or self.phase != "steady"

    def discard(self) -> None:
        """End a poll under way and forget it."""
        if self._run is not None:
            self._run.discard()
            self._run = None

    def _ask(self, now: float) -> None:
        self._began = now
        self._run = Run(self._argv, self._settings.poll_limit, keep_output=False)
        self.save()

    def _judge(self, outcome: Outcome) -> None:
        self.polls += 1
        self.code = outcome.code
        self._began = self._last_began = outcome.started
        self._ended = outcome.ended
        if outcome.code == 0:
            self._good_answer()
        elif outcome.code is not None:
            self._bad_answer()
        else:
            self._no_answer()
        self._settle_phase(outcome.code)
        self._due = max(outcome.started + self._pause_s(outcome.duration_s), time.monotonic())
        self._tell(outcome)
        self.save()

    def _good_answer(self) -> None:
        self._good, self._bad, self._unknown = self._good + 1, 0, 0
        self.last_success_wall = time.time()
        self.status = "healthy"
        if not self.verified and self._good >= self._settings.verify_confirm_polls:
            self.verified, self.verified_mono = True, time.monotonic()

    def _bad_answer(self) -> None:
        self.errors += 1
        self._good, self._bad, self._unknown = 0, self._bad + 1, 0
        if not self.verified or self._bad >= self._settings.confirm:
            self._unhealthy()

    def _no_answer(self) -> None:
        self.errors += 1
        self._good, self._unknown = 0, self._unknown + 1
        as_one = self._settings.unknown_confirm
        as_bad = self._unknown // as_one if as_one else 0
        if as_bad and (not self.verified or self._bad + as_bad >= self._settings.confirm):
            self._unhealthy()
        else:
            self.status = "unknown"

    def _unhealthy(self) -> None:
        self.status, self.verified, self.verified_mono = "unhealthy", False, None

    def _settle_phase(self, code: int | None) -> None:
        if (self.phase == "starting" and self.verified) or (self.phase == "stopping" and code not in (0, None)):
            self.phase = "steady"

    def _pause_s(self, last_took_s: float) -> float:
        """Seconds from the beginning of one poll to that of the next."""
        if self.phase == "steady":
            return self._settings.interval
        fixed = self._settings.startup_interval_s
        return fixed if fixed is not None else max(STARTUP_LEAST_S, 2 * last_took_s)

    # -- what is told and kept

    def _tell(self, outcome: Outcome) -> None:
        now = (self.status, self.verified, self.ticket)
        if now == self._told:
            return
        data = {
            "service": self.name, "status": self.status, "verified": self.verified, "code": self.code, "ticket": self.ticket,
            "polls": self.polls - self._polls_told, "duration_s": round(outcome.duration_s, 6),
        }  # fmt: skip
        self._report("ServicePolled", data, "watch")
        self._told, self._polls_told = now, self.polls

    def tell_again(self) -> None:
        """The next answer is told, whether it is a change or not."""
        self._told = None
        self.save()

    def save(self) -> None:
        """Write the status file; a disk that takes it not costs the hooks their view, not the polls."""
        fields: dict[str, object] = {
            "service": self.name, "status": self.status, "code": self.code, "verified": int(self.verified), "ticket": self.ticket,
            "polls": self.polls, "polling": int(self._run is not None), "boot": self._boot, "mono": self._ended,
            "mono_started": self._began, "last_started": self._last_began, "written": time.monotonic(),
            "next": self._due, "pid": self._me[0], "born": self._me[1],
            "errors": self.errors, "last_success_wall": self.last_success_wall, "verified_mono": self.verified_mono,
            "told": int(self._told == (self.status, self.verified, self.ticket)),
        }  # fmt: skip
        try:
            files.write_aside(statuses.path_of(self._folder, self.name), files.to_text(fields), flush=False)
        except OSError:
            pass  # told by whoever writes facts next; polling must go on

    def _load(self) -> None:
        """Go on where the last watch process was; of another boot only the counters are still true."""
        fields = files.read_fields(statuses.path_of(self._folder, self.name)) or {}
        self.polls = self._polls_told = files.to_int(fields.get("polls")) or 0
        self.errors = files.to_int(fields.get("errors")) or 0
        self.last_success_wall = files.to_float(fields.get("last_success_wall"))
        if fields.get("boot") != self._boot or fields.get("status") not in ("healthy", "unhealthy", "unknown"):
            return
        self.status, self.code = fields["status"], files.to_int(fields.get("code"))
        self.verified, self.ticket = fields.get("verified") == "1", fields.get("ticket") or None
        self.verified_mono = files.to_float(fields.get("verified_mono")) if self.verified else None
        self._ended, self._began = files.to_float(fields.get("mono")), files.to_float(fields.get("mono_started"))
        self._last_began = files.to_float(fields.get("last_started"))
        if fields.get("told") == "1":
            self._told = (self.status, self.verified, self.ticket)
