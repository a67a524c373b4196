"""One time line for all nodes: Redis TIME, and how this node's clocks map to it.

A node's wall clock may be wrong and may jump; its monotonic clock means nothing elsewhere. So the offset between Redis TIME and both
clocks is measured: Redis is asked for its time, and its answer belongs to a moment between question and answer. The middle is taken,
and half the round trip is the error bound. It is asked every ten seconds, and of the last minute's answers the one with the smallest
error by now is used.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from redis import Redis

from workers.rawfacts import RawFact

MEASURE_EVERY_S = 10.0
SAMPLES = 6
DRIFT = 100e-6
"""How much a measured offset may go wrong per second of its age: cheap quartz is better than 100 ppm."""


@dataclass(frozen=True)
class Sample:
    """One measurement: Redis TIME less this node's clocks, s, at monotonic time `taken`."""

    taken: float
    mono_offset_s: float
    wall_offset_s: float
    error_s: float

    def error_at(self, mono: float) -> float:
        return self.error_s + (mono - self.taken) * DRIFT


class Clock:
    """The mapping, kept up to date by calling `measure` whenever it is `due`."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)

    def measure(self, client: Redis) -> None:
        """Ask Redis for its time.

        Raises:
            redis.RedisError: it did not answer.
        """
        before = time.monotonic()
        seconds, microseconds = client.time()
        after, wall_after = time.monotonic(), time.time()
        middle, half = (before + after) / 2, (after - before) / 2
        redis_time = seconds + microseconds / 1e6
        self._samples.append(Sample(middle, redis_time - middle, redis_time - (wall_after - half), half))

    @property
    def due(self) -> bool:
        return not self._samples or time.monotonic() - self._samples[-1].taken > MEASURE_EVERY_S

    @property
    def best(self) -> Sample | None:
        now = time.monotonic()
        return min(self._samples, key=lambda sample: sample.error_at(now), default=None)

    @property
    def skew_s(self) -> float:
        """How far this node's wall clock is ahead of Redis, s; 0 while nothing was measured."""
        best = self.best
        return -best.wall_offset_s if best else 0.0

    def place(self, fact: RawFact, boot: str) -> dict[str, Any]:
        """The envelope's `at_ms`, `at_error_ms` and `clock`.

        The monotonic reading counts only within the boot that it was taken in; else the wall clock, else nothing is known.
        """
        best = self.best
        if best is None:
            return {}
        error_ms = round(best.error_at(time.monotonic()) * 1000, 3)
        if fact.mono is not None and fact.boot == boot:
            return {"at_ms": (fact.mono + best.mono_offset_s) * 1000, "at_error_ms": error_ms, "clock": "mono"}
        if fact.wall is not None:
            return {"at_ms": (fact.wall + best.wall_offset_s) * 1000, "at_error_ms": error_ms, "clock": "wall"}
        return {}
