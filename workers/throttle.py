"""So many of a kind in a while, and no more: what somebody may send without end must not fill this node's disk or the log."""

from __future__ import annotations

from collections import deque


class Throttle:
    """Lets `count` through in any `period_s`; of what it held back it knows the number."""

    def __init__(self, count: int, period_s: float) -> None:
        self._passed: deque[float] = deque(maxlen=count)
        self._period_s = period_s
        self.held_back = 0
        """Since one was let through; set it to 0 when that was told."""

    def lets_through(self, now: float) -> bool:
        """`now`: monotonic seconds."""
        if len(self._passed) == self._passed.maxlen and now - self._passed[0] < self._period_s:
            self.held_back += 1
            return False
        self._passed.append(now)
        return True
