"""A state of the small world: the disk's image, and all that stands beside it."""

from __future__ import annotations

from typing import NamedTuple

FAULTS = {
    "kill": "CLUSTERPRO kills the script; what it started lives on",
    "term": "CLUSTERPRO tells the script to end",
    "hook": "the hook crashes, or hangs",
    "crash": "the worker crashes, with its reaper; its launcher lives on",
    "dup": "a job is delivered twice",
    "loss": "Redis loses its tail: a command is issued again",
    "forged": "a job comes that the orchestrator has not issued, or not yet",
    "verdict": "the orchestrator gives up: 40 or 75",
    "stale": "the machine stands still for 2 s",
    "limit": "a command's limit passes, and it still runs",
    "die": "a launcher dies with its command, silently",
    "orphan": "a launcher dies, and its command runs on",
    "fail": "a command fails",
}


class Verb(NamedTuple):
    """A command of the site under way, or ended and not seen yet."""

    pid: int
    """Whose group it is in."""
    call: int
    n: int
    by: str
    """w(orker) or s(cript)."""
    status: str
    """runs, ok, fail."""


class World(NamedTuple):
    """Everything that can make a difference. Images, and where processes stand, are numbers (`Search`)."""

    image: int
    stale: tuple[bool, ...] = (False,) * 3
    """N7: no sign of life of this call's script for 2 s."""
    call: int = -1
    """The last call that CLUSTERPRO made."""
    scripts: tuple[str, ...] = ("-",) * 3
    """- not called, on, dead, returned."""
    hooks: tuple[str, ...] = ("-",) * 3
    """- none, new, waits, hung, late (ended, but it may do one thing more), or its exit code."""
    children: tuple[str, ...] = ("",) * 3
    """Of each script's nested shell: runs, or what it ended with."""
    processes: tuple[tuple[int, int], ...] = ()
    """Process id, place."""
    verbs: tuple[Verb, ...] = ()
    agent: bool = False
    server: bool = False
    told: tuple[bool, ...] = (False,) * 3
    """The hook's fact is out."""
    worker: int = 0
    """The launcher that it waits for; 0: none, -1: it is dead."""
    launched: tuple[int, ...] = (0,) * 6
    """How many launchers each command had. A job that is out and was not taken yet needs no place here: it may come at any time."""
    too_late: frozenset[int] = frozenset()
    """Launchers that began when the script had been gone for 2 s."""
    budget: tuple[int, ...] = (0,) * len(FAULTS)
