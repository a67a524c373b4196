"""Redis's clock as the orchestrator knows it, and how it notices that a clock was set.

Redis's clock gives the log its ids and ends leases and signs of life, so a step of it (somebody sets it, a virtual machine stood still)
looks like many things that did not happen: every node silent at once, every lease over. It is told from time that really passed by
this process's monotonic clock.
"""

from __future__ import annotations

import time

STEP_MS = 1_000
"""The two clocks may differ so much between two looks (half a second) before one of them counts as set."""


class RedisClock:
    """Redis TIME, known without asking: the last answer plus what has passed here since. Never ahead of Redis, a little behind."""

    def __init__(self) -> None:
        self._at_ms: int | None = None
        self._mono_s = 0.0

    def sync(self, now_ms: int, asked_s: float) -> float:
        """Take over an answer that was asked for at `asked_s` (monotonic) and has just come.

        Returns by how many seconds Redis's clock was set forward (or back: below 0) since the last one; 0 if it was not. An answer that
        took long tells little: nobody knows when it was given.
        """
        answered_s, before_ms = time.monotonic(), self._at_ms
        if before_ms is not None and 1000 * (answered_s - asked_s) > STEP_MS / 2:
            return 0.0
        least_ms, most_ms = (self.at_ms(asked_s) - STEP_MS, self.at_ms(answered_s) + STEP_MS) if before_ms is not None else (now_ms, now_ms)
        self._at_ms, self._mono_s = now_ms, answered_s
        return (min(0, now_ms - least_ms) + max(0, now_ms - most_ms)) / 1000

    def at_ms(self, mono_s: float) -> int:
        return (self._at_ms or 0) + int((mono_s - self._mono_s) * 1000)

    def now_ms(self) -> int:
        return self.at_ms(time.monotonic())
