"""The node's real code on a disk in memory, its operations as steps (replay.py).

Replaced are the ways to the outside: paths, the clock, process ids, and whether a process lives; each is what the step's view says. What
can be seen by others is wrapped, not replaced, so that the search may stop before it: `tickets.claim` is still the real one.

Times are left out of the search: the clock stands at `WALL_S`, and of the signs of life (N7) only this is told apart, whether one is fresh.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, cast
from unittest import mock

from tests.simulation.disk import Disk, SimOs, SimPath
from tests.worlds import replay
from tests.worlds.replay import act
from workers import clock, courier, files, forwarder, journal, launcher, outbox, processes, reaper, sequences, tickets
from workers.hooks import calls, common

WALL_S, MONO_S = 1_800_000_000.0, 1000.0
NODE = cast(Path, SimPath("/n"))
"""The node folder."""
BOOT = "boot1"
GROUP = "g"
SCRIPTS = range(10, 20)
"""Their process ids."""

LEFT_OUT: set[str] = set()
"""Rules of NODE.md that are not kept, to see that the search would notice."""

_WRAPPED: list[tuple[Any, str, replay.Kind]] = [
    (tickets, "find", "look"), (tickets, "has_twin", "look"), (tickets, "listing", "look"), (tickets, "is_alive", "look"),
    (files, "read_fields", "look"), (journal, "read", "look"), (SimPath, "exists", "look"),
    (tickets, "claim", "change"), (tickets, "release", "change"), (journal, "write", "change"), (files, "write_aside", "change"),
    (outbox, "write_fact", "free"), (journal, "hold", "free"), (journal, "let_go", "free"),
]  # fmt: skip


class Clock:
    """What the modules see as `time`. `on_sleep` is called instead of sleeping."""

    def __init__(self) -> None:
        self.mono_s, self.wall_s = MONO_S, WALL_S
        self.on_sleep: Callable[[], None] = lambda: None

    def time(self) -> float:
        return self.wall_s

    def time_ns(self) -> int:
        return int(self.wall_s * 1e9)

    def monotonic(self) -> float:
        return self.mono_s

    def sleep(self, _seconds: float) -> None:
        self.on_sleep()


def born(pid: int) -> str | None:
    """A process's birth; of scripts, which hooks ask for, it is also told when they are gone."""
    return None if pid in SCRIPTS and not group_lives(pid) else f"b{pid}"


def group_lives(pid: int, birth: str = "") -> bool:
    """Whether the process, or one that it started, lives in the step's view of the world."""
    step = replay.now()
    return ("N4" in LEFT_OUT and pid not in SCRIPTS) or (pid in step.view.alive and pid not in step.killed)


def _as_step(function: Callable[..., Any], kind: replay.Kind) -> Callable[..., Any]:
    @wraps(function)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        return act(kind, lambda: function(*arguments, **named))

    return wrapped


class Installed:
    """The disk and the clock of a search, while they are what the node's code sees."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.disk = Disk("n", self.clock.time)
        self.pid = 1
        for name in ("tickets", "journal", "outbox", "watch"):
            self.disk.folders[f"/n/{name}"] = WALL_S
        self.empty = self.disk.snapshot()

    def replacements(self) -> list[tuple[Any, str, Any]]:
        sim_os = SimOs(lambda: self.pid)
        clocks = [
            (module, "time", self.clock) for module in (files, tickets, launcher, reaper, outbox, calls, common, forwarder, courier, clock)
        ]
        systems = [(module, "os", sim_os) for module in (files, launcher, outbox, common, sequences)]
        paths = [(module, "Path", SimPath) for module in (journal, launcher, calls, common)]
        alive = lambda pid, birth: act("look", lambda: group_lives(pid, birth))  # noqa: E731
        return [
            *clocks, *systems, *paths, (processes, "born", born), (processes, "group_alive", alive), (processes, "alive", alive),
            (tickets, "RENAME_TRIES", 1),
            *((module, name, _as_step(getattr(module, name), kind)) for module, name, kind in _WRAPPED),
        ]  # fmt: skip


@contextmanager
def installed(*left_out: str, planted: Iterable[tuple[Any, str, Any]] = ()) -> Iterator[Installed]:
    """Put the node's code onto a disk in memory; put everything back in the end.

    Args:
        left_out: rules that are not kept.
        planted: (module or class, name, value): faults in the real code, below the steps.
    """
    world = Installed()
    with ExitStack() as patches:
        patches.callback(LEFT_OUT.clear)
        LEFT_OUT.update(left_out)
        for one in planted:
            patches.enter_context(mock.patch.object(*one))
        for one in world.replacements():  # after the former: they wrap what stands there now
            patches.enter_context(mock.patch.object(*one))
        yield world
