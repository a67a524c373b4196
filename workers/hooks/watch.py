"""`hook watch`: lives as long as the service does (G22; DESIGN.md I8).

While the watch job's last word on disk is fresh and healthy, this hook only reads it. Anything else it checks for itself: it ends 40
only after a `dcstatus` of its own that was not 0 (`--confirm` in a row), and leaves that code in `watch/<service>.code`, with which
the watch script then ends, so that the application monitor acts. When the watch job is silent, the hook polls by itself, every
interval, for ever, as the guide's script does. A `dcstatus` that does not return is unknown, not a failure: the guide would only wait.

In maintenance (workers/maintenance.py: `dcsup pause`, or a suspended cluster) a service that is not healthy does not end it: it says so
once and goes on asking. When maintenance is over and the service still is not healthy, that is confirmed anew, and the hook ends 40.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from workers import files, maintenance, outbox, statuses
from workers.hooks import EXIT_BAD, EXIT_FALL_BACK, UsageError
from workers.hooks.common import Facts, Options, Pulse, is_bypassed, parent_of
from workers.processes import run_limited

OPTIONS = ("folder", "service", "boot", "interval", "poll-limit", "confirm", "parent", "parent-file")

TICK_S = 0.1
STALE_AFTER_S = 5.0
"""Beyond interval and poll limit: the watch job's word is then too old to be believed."""


class Dismissed(Exception):
    """Nobody waits for this hook any more, and why."""


class Watch:
    def __init__(self, options: Options) -> None:
        self.folder = options.folder()
        self.service = options.text("service")
        self.boot = options.optional("boot") or outbox.boot_id()
        self.interval_s = options.number("interval", 10.0)
        self.poll_limit_s = options.number("poll-limit", 30.0)
        self.confirm = max(1, int(options.number("confirm", 1)))
        self.dcstatus = options.command
        if not self.dcstatus:
            raise UsageError("dcstatus and its arguments are missing behind --")
        self.parent = parent_of(options)
        self.pulse = Pulse(pulse_path_of(self.folder, self.service))
        self.facts = Facts(self.folder, self.boot)
        self._asked = -float("inf")
        self._judged: float | None = None
        self._spared = False
        """That the service is not healthy in maintenance was said."""

    def run(self) -> tuple[int, str]:
        """Wait until the service is not healthy; returns exit code and reason."""
        self._clear_code()
        self.facts.write("WatchHookStarted", {"service": self.service})
        try:
            code = self._wait_for_bad_end()
        except Dismissed as reason:
            return self._end(EXIT_FALL_BACK, str(reason))
        except OSError as error:
            # Only the guide's own loop in the script is left to say what this means.
            return self._end(EXIT_FALL_BACK, f"dcstatus cannot be asked: {error.strerror or error}")
        return self._end(EXIT_BAD, "dcstatus was not 0", code)

    def _wait_for_bad_end(self) -> int:
        bad = 0
        while True:
            self._breathe()
            if bad == 0 and not self._must_ask():
                continue
            if bad and time.monotonic() - self._asked < self.interval_s:
                continue  # the next of several confirming polls comes an interval later, as the guide's would
            answer = self._ask()
            if answer == 0:
                bad, self._spared = 0, False
            elif answer is not None:
                bad += 1
                if bad >= self.confirm and not self._is_spared(answer):
                    return answer
                bad %= self.confirm

    def _is_spared(self, answer: int) -> bool:
        reason = maintenance.reason_of(self.folder, self.boot, time.monotonic())
        if reason is not None and not self._spared:
            self._spared = True
            try:
                print(f"dcsup hook watch: {self.service}: dcstatus is {answer}, but the cluster is {reason}: going on", file=sys.stderr)
            except OSError:
                pass  # the script's log is on a full disk
        return reason is not None

    def _breathe(self) -> None:
        time.sleep(TICK_S)
        self.pulse.beat()
        if self.parent.is_gone():
            raise Dismissed("the script is gone")
        if is_bypassed(self.folder):
            raise Dismissed("bypass")

    def _must_ask(self) -> bool:
        """Whether the watch job's word is not enough: a bad one is confirmed at once, and none, an old or an unclear one every interval."""
        now = time.monotonic()
        status = statuses.read(self.folder, self.service, self.boot)
        due = now - self._asked >= self.interval_s
        if status is None or status.age_s(now) > self.interval_s + self.poll_limit_s + STALE_AFTER_S:
            return due
        if status.status == "healthy":
            return False
        is_new = status.status == "unhealthy" and status.mono != self._judged
        self._judged = status.mono
        return is_new or due

    def _ask(self) -> int | None:
        answer = run_limited(self.dcstatus, self.poll_limit_s, self._goes_on)
        self._asked = time.monotonic()
        if answer is None and self.parent.is_gone():
            raise Dismissed("the script is gone")
        return answer

    def _goes_on(self) -> bool:
        self.pulse.beat()
        return not self.parent.is_gone()

    def _clear_code(self) -> None:
        """A code of an earlier watch must never end this one's script."""
        try:
            statuses.code_path_of(self.folder, self.service).unlink(missing_ok=True)
        except OSError:
            pass  # the folder cannot be written: the script, which finds no new code, asks dcstatus again

    def _end(self, code: int, reason: str, status_code: int | None = None) -> tuple[int, str]:
        if status_code is not None:
            try:
                files.write_aside(statuses.code_path_of(self.folder, self.service), f"{status_code}\n")
            except OSError:
                pass  # the script finds no code and asks dcstatus once more for itself
        self.facts.write("WatchHookEnded", {"service": self.service, "code": code, "status_code": status_code, "reason": reason})
        return code, reason if status_code is None else f"{reason}: {status_code}"


def pulse_path_of(folder: Path, service: str) -> Path:
    """The hook's sign of life: a hook that hangs must not hide a dead service, so the watch script looks at this file."""
    return folder / "watch" / f"{service}.hook"


def run(argv: list[str]) -> tuple[int, str]:
    return Watch(Options(argv, OPTIONS)).run()
