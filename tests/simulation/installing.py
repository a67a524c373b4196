"""Puts the world in the place of the real one: the clocks, the disk and the processes that the code under test takes from its modules.

Nothing of dcsup knows of the simulation. Its modules' own names (`time`, `os`, `Path`, ...) are replaced for the life of a world, and put
back, whatever happens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from orchestrator import clock, history, intake, lease, loop
from statemachines import entries
from tests.simulation.engine import START_S, Kernel

Patch = tuple[ModuleType | type, str, Any]
"""(module or class, name, what it is in this world)."""


class SimTime:
    """The module `time`, as the current process's machine has it."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.sleep = kernel.sleep

    def monotonic(self) -> float:
        process = self._kernel.current
        return process.machine.monotonic() if process is not None else self._kernel.now_s

    def time(self) -> float:
        process = self._kernel.current
        return process.machine.time() if process is not None else START_S + self._kernel.now_s

    def time_ns(self) -> int:
        return int(self.time() * 1e9)

    def monotonic_ns(self) -> int:
        return int(self.monotonic() * 1e9)

    def perf_counter(self) -> float:
        return self.monotonic()


class NoLog:
    """Says nothing: what the code under test does is seen in its log of events, and what it would say costs time."""

    def _nothing(self, *_: object, **__: object) -> None:
        """Nobody reads it."""

    debug = info = warning = error = exception = _nothing


def orchestrator_patches(kernel: Kernel) -> list[Patch]:
    """The loop looks around less often than in earnest, as everything here is slower: leases and signs of life too."""
    time = SimTime(kernel)
    return [
        *((module, "time", time) for module in (loop, lease, clock)), *((module, "log", NoLog()) for module in (loop, intake, history)),
        (loop, "SWEEP_S", 6.0), (loop, "STANDBY_S", 6.0), (loop, "TRIM_S", 50.0), (loop, "MAINTENANCE_S", 20.0),
        (lease.Lease, "renew_every_s", property(lambda self: self.ttl_s / 2.5)), (entries, "time_of", lambda entry_id: entry_id),
    ]  # fmt: skip


@contextlib.contextmanager
def installed(patches: Iterable[Patch]) -> Iterator[None]:
    """Within it the code under test lives in the world."""
    before: list[Patch] = []
    try:
        for module, name, value in patches:
            before.append((module, name, module.__dict__[name]))
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in reversed(before):
            setattr(module, name, value)
