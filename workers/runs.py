"""Short commands that run beside each other without threads: polls, probes, the cluster manager's print-outs.

A `Run` is started once and asked again and again whether it has ended; it never blocks its asker. It is a process group of its own,
so that a command which hangs with children is ended with all of them. These commands only look at things; what changes a service
goes through the launcher instead (NODE.md N3).
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

from workers import processes

OUTPUT_LIMIT_BYTES = 1_000_000
"""What a command prints beyond this is not read."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `code` is None when nobody knows: it could not be started (`error` says why) or hung (`error` is "limit")."""

    code: int | None
    output: str
    error: str
    started: float
    """time.monotonic() before the process was made."""
    ended: float

    @property
    def duration_s(self) -> float:
        return self.ended - self.started


class Run:
    """One command under way."""

    def __init__(self, argv: Sequence[str], limit_s: float, *, encoding: str = "utf-8") -> None:
        """Start it; that it cannot be started is an outcome, not an exception.

        `limit_s`: after this many seconds its process group is ended and the outcome is unknown.
        """
        self.started = time.monotonic()
        self._limit_s = limit_s
        self._encoding = encoding
        self._outcome: Outcome | None = None
        self._sink = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process; a pipe would block a talkative command
        try:
            self._process: subprocess.Popen[bytes] | None = processes.spawn_leader(
                [*argv], stdin=subprocess.DEVNULL, stdout=self._sink, stderr=subprocess.STDOUT
            )
        except OSError as error:
            self._process = None
            self._finish(None, f"cannot run {argv[0]}: {error.strerror or error}")

    def poll(self) -> Outcome | None:
        """Its outcome, or None while it runs. Never blocks for longer than ending a process group takes."""
        if self._outcome is None and self._process is not None:
            code = self._process.poll()
            if code is not None:
                self._finish(code, "")
            elif time.monotonic() - self.started > self._limit_s:
                self.end()
                self._finish(None, "limit")
        return self._outcome

    def end(self) -> None:
        """End the process group, if it still runs."""
        if self._process is not None and self._process.poll() is None:
            processes.kill_group(self._process.pid, processes.born(self._process.pid) or "")
            self._process.wait()

    def _finish(self, code: int | None, error: str) -> None:
        self._sink.seek(0)
        output = self._sink.read(OUTPUT_LIMIT_BYTES).decode(self._encoding, errors="replace")
        self._sink.close()
        self._outcome = Outcome(code, output, error, self.started, time.monotonic())

    def discard(self) -> None:
        """End it and forget what it would have said."""
        self.end()
        self._sink.close()
