"""A process that ends at each of its writes in turn: before it, behind it, and by a power cut that takes back what was not flushed.

The code under test runs once to count its changes of the disk; then, from the same beginning, again and again, each time to another
end. A process that ended does nothing more: its `finally` blocks find a disk that lets nobody touch it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NamedTuple

from tests.simulation.disk import Disk


class Ended(BaseException):
    """The process is no more."""


class Crash(NamedTuple):
    """One way to end."""

    at: int
    """Which change, from 1; one more than there are: the process ended by itself."""
    behind: bool
    """The change was made."""
    lost: int = 0
    """By a power cut: so many of the last changes that were not flushed."""
    what: str = ""

    @property
    def is_power_cut(self) -> bool:
        return self.lost > 0

    def __str__(self) -> str:
        return f"ended {'behind' if self.behind else 'before'} change {self.at} ({self.what}){f', {self.lost} lost' if self.lost else ''}"


class _Exactly(Random):
    """Dice that show one number."""

    def __init__(self, number: int) -> None:
        super().__init__(0)
        self._number = number

    def randint(self, a: int, b: int) -> int:
        return max(a, min(self._number, b))


class _Watch:
    """Counts changes, and ends the process at one of them."""

    def __init__(self, disk: Disk, crash: Crash | None) -> None:
        self.changes: list[str] = []
        self._disk, self._crash, self._over = disk, crash, False

    def __enter__(self) -> _Watch:
        self._disk.before, self._disk.after = self._before, self._after
        return self

    def __exit__(self, *_: object) -> None:
        self._disk.before = self._disk.after = lambda _what, _path: None

    def _before(self, what: str, path: str) -> None:
        if not self._over:
            self.changes.append(f"{what} {path.rpartition('/')[2]}")
        self._end_if(behind=False)

    def _after(self, _what: str, _path: str) -> None:
        self._end_if(behind=True)

    def _end_if(self, *, behind: bool) -> None:
        crash = self._crash
        if self._over or (crash is not None and (len(self.changes), behind) == (crash.at, crash.behind)):
            self._over = True
            raise Ended


def run_to(disk: Disk, crash: Crash | None, act: Callable[[], Any]) -> list[str]:
    """Let `act` run until `crash`, or to its own end; returns the changes it made."""
    with _Watch(disk, crash) as watch:
        try:
            act()
        except Ended:
            pass
    return watch.changes


def crashes(disk: Disk, begin: Callable[[], None], act: Callable[[], Any], *, power: bool = False) -> Iterator[Crash]:
    """Every way for `act` to end, one by one; the world is then as that end left it.

    Args:
        begin: puts the world where `act` begins.
        power: cut the power, too: each number of the last changes that were not flushed is lost.
    """
    begin()
    changes = run_to(disk, None, act)
    for at, what in enumerate(changes, 1):
        for behind in (False, True):
            for lost in range(len(changes) + 1) if power else (0,):
                begin()
                disk.flush("/n")
                crash = Crash(at, behind, lost, what)
                run_to(disk, crash, act)
                if lost and disk.crash(_Exactly(lost)) < lost:
                    break  # all that was not flushed has been lost by now
                yield crash
