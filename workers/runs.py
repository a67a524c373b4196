"""Short commands that run beside each other without threads: polls, probes, the cluster manager's print-outs.

A `Run` is started once and asked again and again whether it has ended; it never blocks its asker. It is a process group of its own,
so that a command which hangs with children is ended with all of them. These commands only look at things; what changes a service
goes through the launcher instead (NODE.md N3).

A command that hangs inside the kernel (a dead disk) cannot be ended. Its outcome is unknown all the same, in time; the process is left
behind, and of one command no more than `LEFT_LIMIT` ever are.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from workers import processes

OUTPUT_LIMIT_BYTES = 1_000_000
"""A command that prints more is ended: what is made of its output would fill the disk, or make no sense."""

LEFT_LIMIT = 5

_left: dict[tuple[str, ...], list[subprocess.Popen[bytes]]] = {}
"""Processes that were told to end and have not been seen gone, by command line."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `code` is None when nobody knows: it could not be started (`error` says why) or hung (`error` is "limit")."""

    code: int | None
    output: str
    """Standard output and error, if it was to be kept."""
    error: str
    started: float
    """time.monotonic() before the process was made."""
    ended: float

    @property
    def duration_s(self) -> float:
        return self.ended - self.started


class Run:
    """One command under way."""

    def __init__(
        self, argv: Sequence[str], limit_s: float, *, encoding: str = "utf-8", keep_output: bool = True, output_limit: int | None = None
    ) -> None:
        """Start it; that it cannot be started is an outcome, not an exception.

        Args:
            limit_s: after this many seconds its process group is ended and the outcome is unknown.
            keep_output: collect what it prints, in a temporary file. False: nothing is needed but the process.
            output_limit: bytes of output after which it is ended; None: OUTPUT_LIMIT_BYTES.
        """
        self.started = time.monotonic()
        self._argv, self._limit_s, self._encoding = (*argv,), limit_s, encoding
        self._output_limit = output_limit or OUTPUT_LIMIT_BYTES
        self._outcome: Outcome | None = None
        self._sink: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        if _count_left(self._argv) >= LEFT_LIMIT:
            self._finish(None, f"{LEFT_LIMIT} earlier ones hang and cannot be ended: {argv[0]}")
            return
        try:
            # A file, for a pipe that nobody reads in time would block a talkative command.
            self._sink = tempfile.TemporaryFile() if keep_output else None  # noqa: SIM115 - lives as long as the process
            self._process = processes.spawn_leader(
                [*argv], stdin=subprocess.DEVNULL, stdout=self._sink or subprocess.DEVNULL, stderr=subprocess.STDOUT
            )
        except OSError as error:
            what = f"run {argv[0]}" if self._sink or not keep_output else "keep its output"
            self._finish(None, f"cannot {what}: {error.strerror or error}")

    def poll(self) -> Outcome | None:
        """Its outcome, or None while it runs. Never blocks."""
        if self._outcome is None and self._process is not None:
            code = self._process.poll()
            if code is not None:
                self._finish(code, "")
            elif time.monotonic() - self.started > self._limit_s:
                self._finish(None, "limit")
            elif self._sink is not None and os.fstat(self._sink.fileno()).st_size > self._output_limit:
                self._finish(None, f"it printed more than {self._output_limit} bytes")
        return self._outcome

    def _finish(self, code: int | None, error: str) -> None:
        self._end()
        self._outcome = Outcome(code, self._read(), error, self.started, time.monotonic())

    def _end(self) -> None:
        """Tell the process group to end, if it still runs; it is not waited for."""
        if self._process is not None and self._process.poll() is None:
            _left.setdefault(self._argv, []).extend([self._process, *processes.end_tree(self._process)])

    def _read(self) -> str:
        if self._sink is None:
            return ""
        with self._sink as sink:
            sink.seek(0)
            return sink.read(self._output_limit).decode(self._encoding, errors="replace")

    def discard(self) -> None:
        """End it and forget what it would have said."""
        self._end()
        if self._sink is not None:
            self._sink.close()


def _count_left(argv: tuple[str, ...]) -> int:
    for key, left in list(_left.items()):
        _left[key] = [process for process in left if process.poll() is None]
        if not _left[key]:
            del _left[key]
    return len(_left.get(argv, ()))
